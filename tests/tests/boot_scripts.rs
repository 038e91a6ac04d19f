//! The boot scripts that are shipped for U-Boot and GRUB choose as `boot::select` does, and spend the
//! same tries: the files themselves run, under `sh`, for every record there is.
//!
//! U-Boot's hush and GRUB's shell are near enough to a POSIX shell for this: the scripts keep to what
//! they share, their commands are functions here, and of GRUB's script `set a=b` becomes `a=b`. What
//! real loaders make of them is the QEMU tier's to say.

use std::path::{Path, PathBuf};

use formats::boot_record::{PerSlot, Slot};
use formats::boot_vars::ranked;
use racklet_tests::rig::{Run, tool};
use update_core::boot::{BootFlags, SlotFlags, select};

/// Every order of the slots, with what they are worth: 0 to 9 tries, or confirmed.
fn records() -> Vec<(&'static str, u32, u32)> {
    let counts = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9_999_999];
    let orders = ["A B", "B A", "A", "B", ""];
    let rows = orders.into_iter().flat_map(|order| {
        counts.into_iter().flat_map(move |a| counts.into_iter().map(move |b| (order, a, b)))
    });
    rows.collect()
}

fn flags(order: &str, a: u32, b: u32) -> BootFlags {
    let of = |name: &str, count: u32| match order.split(' ').position(|word| word == name) {
        None => SlotFlags::CLEARED,
        Some(place) => SlotFlags {
            priority: if place == 0 { 2 } else { 1 },
            tries: if count > 9 { 0 } else { u8::try_from(count).expect("at most 9") },
            successful: count > 9,
        },
    };
    ranked(PerSlot { a: of("A", a), b: of("B", b) })
}

/// What `select` says, in the words that the stubs below print.
fn expected(order: &str, a: u32, b: u32) -> String {
    let Some(choice) = select(flags(order, a, b)) else { return format!("rescue {a} {b}") };
    let own = choice.flags.of(choice.slot);
    let kind = if own.successful { "confirmed" } else { "trial" };
    let left = |slot: Slot, before: u32| {
        let after = choice.flags.of(slot);
        if choice.slot == slot && !after.successful { u32::from(after.tries) } else { before }
    };
    let words =
        format!("racklet.slot={} racklet.boot={kind} racklet.tries={}", choice.slot, own.tries);
    format!("boot {words} {} {}", left(Slot::A, a), left(Slot::B, b))
}

fn shipped(path: &str) -> (PathBuf, String) {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("in the workspace");
    let path = workspace.join("update-agent/boot").join(path);
    let text = std::fs::read_to_string(&path).expect("read the script");
    (path, text)
}

/// Runs a script once for each record, in one shell, and gives a line for each.
fn outcomes(stubs: &str, script: &str, save: &str) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("script");
    let mut all = format!("{stubs}\nonce() (\n{script}\n)\nsave={save}\n");
    for (order, a, b) in records() {
        all += &format!(
            "BOOT_ORDER=\"{order}\" BOOT_A_LEFT={a} BOOT_B_LEFT={b} once 3>&1 >/dev/null\n"
        );
    }
    std::fs::write(&file, all).expect("write the script");
    let done = Run::new("sh").arg(&file).ok();
    assert_eq!(done.stderr, "", "a shell's complaint");
    done.text().lines().map(str::to_owned).collect()
}

/// `$save` is what saving the environment ends with. Only what was saved is printed.
const UBOOT: &str = r#"
setenv() { name=$1; shift; eval "$name=\$*"; }
saveenv() { if [ "$save" = 0 ]; then saved="$BOOT_A_LEFT $BOOT_B_LEFT"; fi; return "$save"; }
run() { eval "\$$1"; }
boots() { echo "boot${bootargs#quiet} ${saved:-$BOOT_A_LEFT $BOOT_B_LEFT}" >&3; exit 0; }
sleep() { slept=$1; }
reset() { if [ "$slept" = 60 ]; then echo "rescue $BOOT_A_LEFT $BOOT_B_LEFT" >&3; fi; exit 0; }
bootargs=quiet
racklet_boot_a=boots
racklet_boot_b=boots
"#;

const GRUB: &str = r#"
load_env() { [ "$1 $2" = "--file /boot/grub/grubenv" ]; }
save_env() { [ "$*" = "--file /boot/grub/grubenv BOOT_A_LEFT BOOT_B_LEFT" ] && return "$save"; }
racklet_boot_a() { echo "boot $racklet_args $BOOT_A_LEFT $BOOT_B_LEFT" >&3; exit 0; }
racklet_boot_b() { racklet_boot_a; }
sleep() { slept=$1; }
reboot() { if [ "$slept" = 60 ]; then echo "rescue $BOOT_A_LEFT $BOOT_B_LEFT" >&3; fi; exit 0; }
prefix=/boot/grub
"#;

fn grub_as_sh(script: &str) -> String {
    script
        .lines()
        .map(|line| {
            line.replace(" set ", " ").replacen(
                "set ",
                "",
                usize::from(line.trim_start().starts_with("set ")),
            )
        })
        .flat_map(|line| [line, "\n".to_owned()])
        .collect()
}

#[test]
fn u_boots_script_chooses_as_select_does() {
    let (_, script) = shipped("uboot/boot.cmd");
    let found = outcomes(UBOOT, &script, "0");
    assert_eq!(found.len(), records().len());
    for (found, (order, a, b)) in found.iter().zip(records()) {
        assert_eq!(*found, expected(order, a, b), "order {order:?}, A {a}, B {b}");
    }
}

#[test]
fn grubs_script_chooses_as_select_does() {
    let (path, script) = shipped("grub/racklet.cfg");
    tool("grub-script-check", "grub-common").arg(path).ok();
    let found = outcomes(GRUB, &grub_as_sh(&script), "0");
    assert_eq!(found.len(), records().len());
    for (found, (order, a, b)) in found.iter().zip(records()) {
        assert_eq!(*found, expected(order, a, b), "order {order:?}, A {a}, B {b}");
    }
}

/// Case 156: a record that cannot be written must not give a slot tries without end.
#[test]
fn a_try_that_cannot_be_saved_boots_the_confirmed_slot_or_none() {
    let uboot = outcomes(UBOOT, &shipped("uboot/boot.cmd").1, "1");
    let grub = outcomes(GRUB, &grub_as_sh(&shipped("grub/racklet.cfg").1), "1");
    for found in [uboot, grub] {
        for (found, (order, a, b)) in found.iter().zip(records()) {
            let confirmed = |word: &str| match word {
                "A" => a > 9,
                _ => b > 9,
            };
            let slot =
                order.split(' ').filter(|word| !word.is_empty()).find(|word| confirmed(word));
            let row = format!("order {order:?}, A {a}, B {b}: {found}");
            match slot {
                Some(slot) => {
                    let slot = slot.to_lowercase();
                    let start = format!("boot racklet.slot={slot} racklet.boot=confirmed ");
                    assert!(found.starts_with(&start), "{row}");
                }
                None => assert!(found.starts_with("rescue "), "{row}"),
            }
        }
    }
}
