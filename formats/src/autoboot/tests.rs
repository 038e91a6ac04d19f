use proptest::prelude::*;

use super::*;

const PARTITIONS: PerSlot<u32> = PerSlot { a: 2, b: 3 };
const CLEARED: SlotFlags = SlotFlags::CLEARED;

fn confirmed(priority: u8) -> SlotFlags {
    SlotFlags { priority, tries: 0, successful: true }
}

fn trial(priority: u8, tries: u8) -> SlotFlags {
    SlotFlags { priority, tries, successful: false }
}

/// As the documentation of the boot loader has it.
const DOCUMENTED: &str = "[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=3\n";

#[test]
fn the_table_of_the_module() {
    use Slot::{A, B};
    let rows: [(&str, SlotFlags, SlotFlags, Slot, Slot, Slot); 10] = [
        ("from the factory", confirmed(1), CLEARED, A, A, A),
        ("b on trial", confirmed(1), trial(2, 3), A, A, B),
        ("b's tries are used up", confirmed(1), trial(2, 0), A, A, B),
        ("b was cleared", confirmed(1), CLEARED, A, A, A),
        ("b is confirmed", confirmed(1), confirmed(2), A, B, B),
        ("a is preferred again", confirmed(2), confirmed(1), B, A, A),
        ("a was given up", CLEARED, confirmed(2), A, B, B),
        ("only a trial", CLEARED, trial(2, 3), A, B, B),
        ("only used up", CLEARED, trial(2, 0), A, A, A),
        ("nothing", CLEARED, CLEARED, B, B, B),
    ];
    for (name, a, b, now, default, tried) in rows {
        assert_eq!(Named::of(PerSlot { a, b }, now), Named { default, tried }, "{name}");
    }
}

#[test]
fn the_file_is_this_text() {
    let mut file = Autoboot::parse(format!("# by the factory\n{DOCUMENTED}").as_bytes()).unwrap();
    let flags = PerSlot { a: confirmed(1), b: trial(2, 3) };
    file.set(&PARTITIONS, flags, Some("1a2b3c4d-5e6f-7081")).unwrap();
    let bytes = file.encode(256).unwrap();
    assert_eq!(bytes.len(), 256);
    let text = String::from_utf8(bytes.clone()).unwrap();
    assert_eq!(
        text.trim_end(),
        "# by the factory\n[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=3\n\
         [none]\nBOOT_ORDER=B A\nBOOT_A_LEFT=9999999\nBOOT_B_LEFT=3\nracklet_asked=1a2b3c4d"
    );
    assert_eq!((boots(&bytes, false), boots(&bytes, true)), (2, 3));
    assert!(file.asked_in("1a2b3c4d-5e6f-7081") && !file.asked_in("another"));
    assert_eq!(Autoboot::parse(&bytes), Ok(file));
}

/// What the boot loader does decides, whatever our lines say.
#[test]
fn what_other_programs_wrote_is_read_as_the_boot_loader_acts() {
    let ours = "[none]\nBOOT_ORDER=B A\nBOOT_A_LEFT=9999999\nBOOT_B_LEFT=3\n";
    let only_a = PerSlot { a: confirmed(2), b: CLEARED };
    let only_b = PerSlot { a: CLEARED, b: confirmed(2) };
    let swapped = "[all]\ntryboot_a_b=1\nboot_partition=3\n[tryboot]\nboot_partition=2\n";
    let equal = "[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=2\n";
    let rows = [
        ("the documentation's example", DOCUMENTED.to_owned(), only_a),
        ("without [tryboot]", "tryboot_a_b=1\nboot_partition=3\n".to_owned(), only_b),
        ("both equal", equal.to_owned(), only_a),
        ("ours", format!("{DOCUMENTED}{ours}"), PerSlot { a: confirmed(1), b: trial(2, 3) }),
        ("swapped by hand", format!("{swapped}{ours}"), only_b),
        ("made equal by hand", format!("{equal}{ours}"), only_a),
    ];
    for (name, text, flags) in rows {
        let file = Autoboot::parse(text.as_bytes()).unwrap();
        assert_eq!(file.flags(&PARTITIONS), Ok(flags), "{name}");
    }
    let file = Autoboot::parse(DOCUMENTED.replace("=2", "=1").as_bytes()).unwrap();
    assert_eq!(file.flags(&PARTITIONS), Err(AutobootError::Stranger(1)));
}

#[test]
fn what_the_documentation_leaves_open_is_refused() {
    let rows = [
        ("no partition", "[all]\ntryboot_a_b=1\n", AutobootError::Missing("boot_partition")),
        ("tryboot.txt", "[all]\nboot_partition=2\n", AutobootError::Missing("tryboot_a_b=1")),
        ("tryboot_a_b=0", "tryboot_a_b=0\nboot_partition=2\n", AutobootError::Line(1)),
        ("another filter", "tryboot_a_b=1\nboot_partition=2\n[pi4]\n", AutobootError::Line(3)),
        ("[all] again", "tryboot_a_b=1\nboot_partition=2\n[all]\n", AutobootError::Line(3)),
        ("[tryboot] last", "[none]\n[tryboot]\n", AutobootError::Line(2)),
        ("twice", "tryboot_a_b=1\nboot_partition=2\nboot_partition=3\n", AutobootError::Line(3)),
        ("partition 0", "tryboot_a_b=1\nboot_partition=0\n", AutobootError::Line(2)),
        ("spaces", "tryboot_a_b=1\nboot_partition = 2\n", AutobootError::Line(2)),
        ("another key", "start_file=x.elf\n", AutobootError::Line(1)),
        ("a key of others", "[none]\nx=1\n", AutobootError::Line(2)),
        ("zeros", "tryboot_a_b=1\n\0\0\0", AutobootError::Line(2)),
    ];
    for (name, text, error) in rows {
        assert_eq!(Autoboot::parse(text.as_bytes()), Err(error), "{name}");
    }
    assert_eq!(Autoboot::parse(b""), Err(AutobootError::Size(0)));
    assert_eq!(Autoboot::parse(&[b'\n'; 513]), Err(AutobootError::Size(513)));
    let mut file = Autoboot::new(2);
    file.set(&PARTITIONS, PerSlot { a: confirmed(2), b: confirmed(1) }, None).unwrap();
    let full = file.encode(100).unwrap_err();
    assert!(matches!(full, AutobootError::Full { needed: 101.., room: 100 }), "{full}");
}

#[test]
fn the_boot_loader_of_the_model_obeys_its_documentation() {
    let rows = [
        ("no file", "", 0, 0),
        ("no [tryboot]", "boot_partition=2\n", 2, 2),
        ("documented", DOCUMENTED, 2, 3),
        ("[none]", "boot_partition=2\n[none]\nboot_partition=3\n", 2, 2),
        ("[all] again", "[tryboot]\nboot_partition=3\n[all]\nboot_partition=2\n", 2, 2),
    ];
    for (name, text, plain, tryboot) in rows {
        let found = (boots(text.as_bytes(), false), boots(text.as_bytes(), true));
        assert_eq!(found, (plain, tryboot), "{name}");
    }
}

fn any_slot() -> impl Strategy<Value = SlotFlags> {
    (0..16u8, 0..16u8, any::<bool>()).prop_map(|(priority, tries, successful)| SlotFlags {
        priority,
        tries,
        successful,
    })
}

proptest! {
    /// Whatever flags are written are read, and the boot loader boots nothing that is cleared.
    #[test]
    fn what_is_written_is_read(a in any_slot(), b in any_slot(), now in 2..=3_u32) {
        let flags = PerSlot { a, b };
        let mut file = Autoboot::new(now);
        file.set(&PARTITIONS, flags, None).unwrap();
        let bytes = file.encode(256).unwrap();
        let read = Autoboot::parse(&bytes).unwrap();
        prop_assert_eq!(&read, &file);
        let slot = |tryboot| if boots(&bytes, tryboot) == 2 { Slot::A } else { Slot::B };
        let bootable = a.bootable() || b.bootable();
        if bootable {
            prop_assert_eq!(read.flags(&PARTITIONS).unwrap(), boot_vars::ranked(flags));
            prop_assert!(flags.of(slot(false)).bootable());
            prop_assert!(flags.of(slot(true)).priority > 0);
        }
        // A slot on trial is never what boots while there is a confirmed one.
        if a.confirmed() || b.confirmed() {
            prop_assert!(flags.of(slot(false)).confirmed());
        }
    }

    #[test]
    fn strangers_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        if let Ok(file) = Autoboot::parse(&bytes)
            && let Ok(written) = file.encode(FILE_LIMIT)
        {
            prop_assert_eq!(Autoboot::parse(&written), Ok(file));
        }
        let _ = (boots(&bytes, true), boots(&bytes, false));
    }
}
