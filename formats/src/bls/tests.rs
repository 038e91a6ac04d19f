use proptest::prelude::*;

use super::*;

#[test]
fn boot_files_are_paths_and_words() {
    let text = "title x\n# linux /no\nlinux\t/boot/vmlinuz\ninitrd /a\ninitrd  /b\noptions ro\noptions quiet \n";
    let files = BootFiles::parse(text).unwrap();
    assert_eq!((files.linux.as_str(), files.options.as_str()), ("/boot/vmlinuz", "ro quiet"));
    assert_eq!(files.initrd, ["/a", "/b"]);
    for wrong in ["", "initrd /a", "linux vmlinuz", "linux /a/../../b", "linux"] {
        assert!(BootFiles::parse(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn names_and_their_counters() {
    let some = |left, done| Some(Counters { left, done });
    let rows = [
        ("foobar+3.efi", Some(("foobar", some(3, 0)))),
        ("foobar+2-1.efi", Some(("foobar", some(2, 1)))),
        ("foobar+0-3.CONF", Some(("foobar", some(0, 3)))),
        ("foobar.conf", Some(("foobar", None))),
        ("foobar+.conf", Some(("foobar+", None))),
        ("foobar+x.conf", Some(("foobar+x", None))),
        ("foobar+3-.conf", Some(("foobar+3-", None))),
        ("foobar+-3.conf", Some(("foobar+-3", None))),
        ("foobar+3-1-2.conf", Some(("foobar+3-1-2", None))),
        ("foobar+99999999999.conf", Some(("foobar+99999999999", None))),
        ("a+b+4.conf", Some(("a+b", some(4, 0)))),
        (".conf", None),
        (".tmp-1.conf", None),
        ("auto-windows.conf", None),
        ("racklet-1-a.conf.off", None),
        ("äöü", None),
    ];
    for (name, expected) in rows {
        let found = EntryName::parse(name).map(|parts| (parts.id, parts.counters));
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn our_names() {
    for (name, ours) in [
        ("racklet-12-b+2-1.conf", true),
        ("racklet-12-b+3.conf", true),
        ("racklet-1-a.conf", true),
        ("racklet-01-a.conf", false),
        ("racklet-1-c.conf", false),
        ("racklet-1-a.efi", false),
        ("racklet--a.conf", false),
        ("racklet-+1-a.conf", false),
        ("debian-1-a.conf", false),
    ] {
        let found = SlotEntry::parse(name);
        assert_eq!(found.is_some(), ours, "{name}");
        assert!(found.is_none_or(|entry| entry.to_string() == name), "{name}");
    }
}

fn first<'a>(names: &[&'a str], fields: &EntryFields) -> &'a str {
    names.iter().min_by(|a, b| menu_order((a, fields), (b, fields))).copied().unwrap()
}

#[test]
fn what_systemd_boot_lists_first() {
    let fields = EntryFields { sort_key: Some("racklet".into()), ..EntryFields::default() };
    let rows: [(&str, &[&str]); 6] = [
        ("a trial of the next generation", &["racklet-10-b+3.conf", "racklet-9-a.conf"]),
        ("out of tries", &["racklet-9-a.conf", "racklet-10-b+0-3.conf"]),
        ("its last try", &["racklet-10-b+1-2.conf", "racklet-9-a.conf"]),
        ("the older one went bad, too", &["racklet-10-b+0-3.conf", "racklet-9-a+0-3.conf"]),
        ("one entry, more tries", &["racklet-1-a+3.conf", "racklet-1-a+2-1.conf"]),
        ("one generation", &["racklet-1-b.conf", "racklet-1-a.conf"]),
    ];
    for (name, names) in rows {
        assert_eq!(first(names, &fields), names[0], "{name}");
        let reversed: Vec<&str> = names.iter().rev().copied().collect();
        assert_eq!(first(&reversed, &fields), names[0], "{name}, reversed");
    }
    let plain = EntryFields::default();
    let ours = ("racklet-1-a.conf", &fields);
    assert_eq!(menu_order(ours, ("zzz.conf", &plain)), Ordering::Less, "a sort key comes first");
    let other = EntryFields { sort_key: Some("debian".into()), ..EntryFields::default() };
    assert_eq!(menu_order(ours, ("x.conf", &other)), Ordering::Greater, "by sort key");
}

#[test]
fn leftovers_of_a_cut_speak_for_one_slot() {
    let entries: Vec<SlotEntry> = ["racklet-2-b+1-2.conf", "racklet-2-b.conf", "racklet-1-a.conf"]
        .into_iter()
        .filter_map(SlotEntry::parse)
        .collect();
    let b = SlotFlags { priority: 2, tries: 0, successful: true };
    let a = SlotFlags { priority: 1, tries: 0, successful: true };
    assert_eq!(slots(&entries), PerSlot { a, b });
}

proptest! {
    #[test]
    fn strangers_never_panic(name in "\\PC{0,40}", text in "(\\PC|\n){0,80}") {
        let _ = EntryName::parse(&name);
        let _ = SlotEntry::parse(&name);
        let _ = EntryFields::parse(&text);
    }

    #[test]
    fn our_names_come_back(generation: u32, b: bool, left in 0..9u32, done in 0..9u32, counted: bool) {
        let slot = if b { Slot::B } else { Slot::A };
        let counters = counted.then_some(Counters { left, done });
        let entry = SlotEntry { generation, slot, counters };
        prop_assert_eq!(SlotEntry::parse(&entry.to_string()), Some(entry));
    }

    /// What the slots say is what systemd-boot does, as long as one of them is bootable.
    #[test]
    fn the_slots_tell_which_entry_boots(
        entries in proptest::collection::vec((0..3u32, any::<bool>(), 0..3u32, any::<bool>()), 1..3)
    ) {
        let entries: Vec<SlotEntry> = entries
            .into_iter()
            .map(|(generation, b, left, counted)| SlotEntry {
                generation,
                slot: if b { Slot::B } else { Slot::A },
                counters: counted.then_some(Counters { left, done: 1 }),
            })
            .collect();
        // One entry a slot, as everywhere but after a cut.
        prop_assume!(entries.len() == 1 || entries[0].slot != entries[1].slot);
        let found = slots(&entries);
        let choice = Slot::BOTH
            .into_iter()
            .filter(|slot| found.of(*slot).bootable())
            .max_by_key(|slot| found.of(*slot).priority);
        prop_assume!(choice.is_some());
        let names: Vec<String> = entries.iter().map(ToString::to_string).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let boots = SlotEntry::parse(first(&names, &EntryFields::default())).map(|e| e.slot);
        prop_assert_eq!(boots, choice);
    }
}
