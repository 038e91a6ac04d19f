use proptest::prelude::*;

use super::*;

const DISK: u64 = 64 << 20;

fn geometry(sector_size: u32) -> Geometry {
    Geometry::new(DISK, sector_size).unwrap()
}

fn guid(byte: u8) -> Guid {
    Guid([byte; 16])
}

fn partition(label: &str, byte: u8, len: u64) -> NewPartition<'_> {
    NewPartition { label, type_guid: Guid::LINUX, guid: guid(byte), at: None, len, attributes: 0 }
}

fn table(sector_size: u32) -> Table {
    let parts = [
        partition("root-a", 1, 8 << 20),
        partition("root-b", 2, 8 << 20),
        partition("data", 3, (8 << 20) + 1),
    ];
    Table::create(geometry(sector_size), guid(9), &parts).unwrap()
}

#[test]
fn a_partition_lies_where_it_is_asked_to() {
    let at = |at, new: NewPartition<'static>| NewPartition { at: Some(at), ..new };
    let place = |at_last| {
        let parts = [
            at(4 << 20, partition("root", 1, 8 << 20)),
            at(0x18000, partition("env", 2, 0x4000)),
            at(at_last, partition("data", 3, 1 << 20)),
        ];
        let table = Table::create(geometry(512), guid(9), &parts)?;
        Ok(table.partitions().map(|part| part.offset(table.geometry())).collect::<Vec<_>>())
    };
    assert_eq!(place(12 << 20), Ok(vec![4 << 20, 0x18000, 12 << 20]));
    assert_eq!(place(11 << 20), Err(GptError::Overlap(1, 3)));
    assert!(matches!(place(512), Err(GptError::Bounds { number: 3, .. })), "on the table itself");
}

/// Reads one copy back, with `edit` applied to its header fields and the sums made right again.
fn reread(
    table: &Table,
    copy: TableCopy,
    edit: impl FnOnce(&mut [u8], &mut [u8]),
) -> Result<Table, GptError> {
    let geometry = table.geometry();
    let Image { mut header, mut array, header_offset, .. } = table.image(copy);
    edit(&mut header, &mut array);
    let len = (table.header.array_len() as usize).min(array.len());
    let sum = crc32fast::hash(&array[..len]);
    header[88..92].copy_from_slice(&sum.to_le_bytes());
    resum(&mut header);
    let lba = header_offset / u64::from(geometry.sector_size);
    let header = Header::parse(geometry, copy, lba, &header)?;
    assert!(header.array_len() <= ARRAY_LIMIT, "a header must bound what is read for it");
    array.resize(header.array_len() as usize, 0);
    Table::parse(geometry, header, &array)
}

fn resum(header: &mut [u8]) {
    let size = u32::from_le_bytes(header[12..16].try_into().unwrap()) as usize;
    header[16..20].fill(0);
    let sum = crc32fast::hash(&header[..size.min(header.len())]);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
}

#[test]
fn both_copies_read_back_on_every_sector_size() {
    for sector_size in [512, 4096] {
        let table = table(sector_size);
        let primary = reread(&table, TableCopy::Primary, |_, _| {}).unwrap();
        let backup = reread(&table, TableCopy::Backup, |_, _| {}).unwrap();
        assert!(primary.same_content(&backup) && primary.same_content(&table), "{sector_size}");
        assert_eq!(
            primary.image(TableCopy::Backup),
            backup.image(TableCopy::Backup),
            "{sector_size}"
        );
        assert_eq!(
            primary.image(TableCopy::Primary),
            backup.image(TableCopy::Primary),
            "{sector_size}"
        );
        let root_b = primary.find("root-b").unwrap();
        assert_eq!(root_b.len(table.geometry()), 8 << 20);
        assert_eq!(root_b.offset(table.geometry()) % (1 << 20), 0);
    }
}

#[test]
fn hostile_header_fields_are_refused() {
    let last = geometry(512).last_lba();
    // Name, copy, offset, value (little-endian, 4 or 8 bytes), field blamed.
    let rows: &[(&str, TableCopy, usize, u64, usize, &str)] = &[
        ("revision 2", TableCopy::Primary, 8, 0x0002_0000, 4, "revision"),
        ("header size 91", TableCopy::Primary, 12, 91, 4, "header size"),
        ("header size 0", TableCopy::Primary, 12, 0, 4, "header size"),
        ("header size 513", TableCopy::Primary, 12, 513, 4, "header size"),
        ("header size 2^32-1", TableCopy::Primary, 12, 0xffff_ffff, 4, "header size"),
        ("elsewhere", TableCopy::Primary, 24, 2, 8, "own LBA"),
        ("backup elsewhere", TableCopy::Backup, 24, last - 1, 8, "own LBA"),
        ("backup in usable range", TableCopy::Primary, 32, 100, 8, "backup LBA"),
        ("backup past the disk", TableCopy::Primary, 32, last + 1, 8, "backup LBA"),
        ("backup at 2^64-1", TableCopy::Primary, 32, u64::MAX, 8, "backup LBA"),
        ("backup of another primary", TableCopy::Backup, 32, 2, 8, "other LBA"),
        ("first usable 0", TableCopy::Primary, 40, 0, 8, "first usable LBA"),
        ("first usable 1", TableCopy::Backup, 40, 1, 8, "first usable LBA"),
        ("first usable inside array", TableCopy::Primary, 40, 33, 8, "entry array LBA"),
        ("no room for the primary", TableCopy::Backup, 40, 33, 8, "first usable LBA"),
        ("first after last", TableCopy::Primary, 40, last - 32, 8, "first usable LBA"),
        ("last usable past the disk", TableCopy::Primary, 48, last, 8, "last usable LBA"),
        ("last usable 2^64-1", TableCopy::Primary, 48, u64::MAX, 8, "last usable LBA"),
        ("no room for the backup", TableCopy::Primary, 48, last - 32, 8, "last usable LBA"),
        ("array over the header", TableCopy::Primary, 72, 1, 8, "entry array LBA"),
        ("array over the MBR", TableCopy::Primary, 72, 0, 8, "entry array LBA"),
        ("array in a partition", TableCopy::Primary, 72, 3, 8, "entry array LBA"),
        ("array at 2^64-1", TableCopy::Primary, 72, u64::MAX, 8, "entry array LBA"),
        ("backup array over its header", TableCopy::Backup, 72, last - 31, 8, "entry array LBA"),
        ("backup array in a partition", TableCopy::Backup, 72, 100, 8, "entry array LBA"),
        ("no entries", TableCopy::Primary, 80, 0, 4, "number of entries"),
        ("1025 entries", TableCopy::Primary, 80, 1025, 4, "number of entries"),
        ("2^31 entries", TableCopy::Primary, 80, 1 << 31, 4, "number of entries"),
        ("2^32-1 entries", TableCopy::Primary, 80, 0xffff_ffff, 4, "number of entries"),
        ("entry size 0", TableCopy::Primary, 84, 0, 4, "entry size"),
        ("entry size 64", TableCopy::Primary, 84, 64, 4, "entry size"),
        ("entry size 129", TableCopy::Primary, 84, 129, 4, "entry size"),
        ("entry size 384", TableCopy::Primary, 84, 384, 4, "entry size"),
        ("entry size 8192", TableCopy::Primary, 84, 8192, 4, "entry size"),
        ("entry size 2^31", TableCopy::Primary, 84, 1 << 31, 4, "entry size"),
        ("entry size 2^32-1", TableCopy::Primary, 84, 0xffff_ffff, 4, "entry size"),
        ("array grown over partitions", TableCopy::Primary, 84, 256, 4, "entry array LBA"),
        ("more entries than room", TableCopy::Backup, 80, 129, 4, "entry array LBA"),
    ];
    for (name, copy, at, value, size, field) in rows {
        let found = reread(&table(512), *copy, |header, _| {
            header[*at..at + size].copy_from_slice(&value.to_le_bytes()[..*size]);
        });
        match found {
            Err(GptError::Field { field: blamed, .. }) => assert_eq!(blamed, *field, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn hostile_entries_are_refused() {
    let word = |array: &mut [u8], at: usize, value: u64| {
        array[at..at + 8].copy_from_slice(&value.to_le_bytes());
    };
    type Edit = fn(&mut dyn FnMut(usize, u64));
    let rows: &[(&str, Edit, &str)] = &[
        ("ends before it begins", |put| put(40, 2047), "Bounds"),
        ("starts in the array", |put| put(32, 33), "Bounds"),
        ("starts at the MBR", |put| put(32, 0), "Bounds"),
        ("ends in the backup array", |put| put(256 + 40, (DISK >> 9) - 33), "Bounds"),
        ("ends past the disk", |put| put(256 + 40, u64::MAX), "Bounds"),
        ("starts past the disk", |put| put(256 + 32, 1 << 63), "Bounds"),
        ("overlaps the next by one", |put| put(40, 2048 + (16 << 10)), "Overlap"),
        (
            "same place",
            |put| {
                put(128 + 32, 2048);
                put(128 + 40, 2049);
            },
            "Overlap",
        ),
    ];
    for (name, edit, wanted) in rows {
        for copy in [TableCopy::Primary, TableCopy::Backup] {
            let found = reread(&table(512), copy, |_, array| {
                edit(&mut |at, value| word(array, at, value));
            });
            let found = format!("{:?}", found.expect_err(name));
            assert!(found.starts_with(wanted), "{name}: {found}");
        }
    }
}

#[test]
fn wrong_checksums_are_refused() {
    let table = table(512);
    let Image { header, array, .. } = table.image(TableCopy::Primary);
    let good = Header::parse(table.geometry(), TableCopy::Primary, 1, &header).unwrap();
    for bit in 0..92 * 8 {
        let mut torn = header.clone();
        torn[bit / 8] ^= 1 << (bit % 8);
        let found = Header::parse(table.geometry(), TableCopy::Primary, 1, &torn);
        assert!(found.is_err(), "bit {bit} of the header");
    }
    for at in [0, 47, 128, array.len() - 1] {
        let mut torn = array.clone();
        torn[at] ^= 0x80;
        let found = Table::parse(table.geometry(), good.clone(), &torn);
        assert_eq!(found, Err(GptError::ArrayCrc), "byte {at} of the array");
    }
}

/// A copy as it is read from the disk; one that is not good is torn in its array.
fn read(table: &Table, copy: TableCopy, good: bool) -> CopyRead {
    let Image { header, mut array, header_offset, .. } = table.image(copy);
    let header = Header::parse(table.geometry(), copy, header_offset >> 9, &header).unwrap();
    if !good {
        array[5] ^= 1;
    }
    CopyRead::parse(table.geometry(), header, &array)
}

#[test]
fn a_valid_primary_wins_and_the_loser_is_repaired() {
    let old = table(512);
    let new = old.with_attributes(&[(1, 7 << 48)]).unwrap();
    let none = || CopyRead::invalid(GptError::Signature);
    let (p, b) = (TableCopy::Primary, TableCopy::Backup);
    let rows = [
        ("equal", read(&old, p, true), read(&old, b, true), Some((&old, None))),
        ("backup is newer", read(&old, p, true), read(&new, b, true), Some((&old, Some(b)))),
        ("primary is newer", read(&new, p, true), read(&old, b, true), Some((&new, Some(b)))),
        ("primary torn", read(&new, p, false), read(&new, b, true), Some((&new, Some(p)))),
        ("backup torn", read(&old, p, true), read(&new, b, false), Some((&old, Some(b)))),
        ("primary gone", none(), read(&old, b, true), Some((&old, Some(p)))),
        ("backup gone", read(&old, p, true), none(), Some((&old, Some(b)))),
        ("both torn", read(&old, p, false), read(&old, b, false), None),
        ("both gone", none(), none(), None),
    ];
    for (name, primary, backup, wanted) in rows {
        match (choose(primary, backup), wanted) {
            (Ok(choice), Some((table, repair))) => {
                assert!(choice.table.same_content(table), "{name}");
                assert_eq!(choice.repair, repair, "{name}");
            }
            (Err(_), None) => {}
            (found, _) => panic!("{name}: {found:?}"),
        }
    }
}

/// Who knows what a table is for may take the backup; an invalid one is never taken.
#[test]
fn a_backup_that_is_preferred_wins_over_a_valid_primary_alone() {
    let old = table(512);
    let new = old.with_attributes(&[(1, 7 << 48)]).unwrap();
    let (p, b) = (TableCopy::Primary, TableCopy::Backup);
    let rows = [
        ("preferred", &old, true, &new, true, (&new, Some(p))),
        ("not preferred", &new, true, &old, true, (&new, Some(b))),
        ("equal", &new, true, &new, true, (&new, None)),
        ("preferred, and torn", &old, true, &new, false, (&old, Some(b))),
        ("primary torn", &old, false, &new, true, (&new, Some(p))),
    ];
    let prefers = |_: &Table, backup: &Table| backup.same_content(&new);
    for (name, primary, whole, backup, backup_whole, (wanted, repair)) in rows {
        let (primary, backup) = (read(primary, p, whole), read(backup, b, backup_whole));
        let choice = choose_by(primary, backup, &prefers).unwrap();
        assert!(choice.table.same_content(wanted), "{name}");
        assert_eq!(choice.repair, repair, "{name}");
    }
}

#[test]
fn an_array_elsewhere_stays_where_it_is() {
    // As `sgdisk -j 1000` makes it, to leave room for a boot loader behind the header.
    let table = table(512);
    let moved = |lba: u64| {
        let mut header = table.image(TableCopy::Primary).header;
        header[40..48].copy_from_slice(&(lba + 32).to_le_bytes());
        header[72..80].copy_from_slice(&lba.to_le_bytes());
        resum(&mut header);
        Header::parse(table.geometry(), TableCopy::Primary, 1, &header).unwrap()
    };
    let array = &table.entries;
    let primary = Table::parse(table.geometry(), moved(1000), array).unwrap();
    assert_eq!(primary.image(TableCopy::Primary).array_offset, 1000 * 512);
    let Image { header, header_offset, .. } = primary.image(TableCopy::Backup);
    let backup =
        Header::parse(table.geometry(), TableCopy::Backup, header_offset >> 9, &header).unwrap();
    let backup = CopyRead::parse(table.geometry(), backup, array);
    let torn = CopyRead::parse(table.geometry(), moved(1000), &vec![0; array.len()]);
    let choice = choose(torn, backup).unwrap();
    assert_eq!(choice.repair, Some(TableCopy::Primary));
    assert_eq!(choice.table.image(TableCopy::Primary).array_offset, 1000 * 512);
}

#[test]
fn ambiguous_partitions_are_not_found() {
    let make = |second: NewPartition<'_>| {
        let parts = [partition("root-a", 1, 1 << 20), second, partition("data", 3, 1 << 20)];
        Table::create(geometry(512), guid(9), &parts).unwrap()
    };
    let same_label = make(partition("root-a", 2, 1 << 20));
    assert!(matches!(same_label.find("root-a"), Err(GptError::Ambiguous(_))));
    assert!(matches!(same_label.find_guid(guid(2)), Err(GptError::Ambiguous(_))));
    assert_eq!(same_label.find("data").unwrap().number, 3);
    let same_guid = make(partition("root-b", 1, 1 << 20));
    for label in ["root-a", "root-b"] {
        assert!(matches!(same_guid.find(label), Err(GptError::Ambiguous(_))), "{label}");
    }
    assert!(matches!(same_guid.find("Root-a"), Err(GptError::NoLabel(_))));
    assert_eq!(same_guid.find_guid(guid(7)), Ok(None));
}

#[test]
fn only_the_asked_bits_change() {
    let table = table(512);
    let changed = table.with_attributes(&[(2, u64::MAX)]).unwrap();
    let (before, after) =
        (table.image(TableCopy::Primary).array, changed.image(TableCopy::Primary).array);
    let differ: Vec<usize> = (0..before.len()).filter(|at| before[*at] != after[*at]).collect();
    assert_eq!(differ, (128 + 48..128 + 56).collect::<Vec<_>>());
    assert_eq!(table.with_attributes(&[(4, 0)]), Err(GptError::NoNumber(4)));
    assert_eq!(table.with_attributes(&[(0, 0)]), Err(GptError::NoNumber(0)));
}

#[test]
fn guids_are_written_as_everywhere() {
    assert_eq!(Guid::LINUX.to_string(), "0fc63daf-8483-4772-8e79-3d69d8477de4");
    assert_eq!("0FC63DAF-8483-4772-8E79-3D69D8477DE4".parse(), Ok(Guid::LINUX));
    for bad in ["", "0fc63daf848347728e793d69d8477de4", "0fc63daf-8483-4772-8e79-3d69d8477dég"] {
        assert!(bad.parse::<Guid>().is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn no_header_panics_or_asks_for_too_much(
        edits in proptest::collection::vec((0..512usize, any::<u8>()), 0..12),
        words in proptest::collection::vec((0..11usize, any::<u64>()), 0..3),
        backup: bool,
    ) {
        let copy = if backup { TableCopy::Backup } else { TableCopy::Primary };
        let _ = reread(&table(512), copy, |header, _| {
            for (at, byte) in edits {
                header[at] = byte;
            }
            for (at, word) in words {
                header[8 * at..8 * at + 8].copy_from_slice(&word.to_le_bytes());
            }
            header[..8].copy_from_slice(b"EFI PART");
        });
    }

    #[test]
    fn no_array_panics(edits in proptest::collection::vec((0..16384usize, any::<u8>()), 0..40)) {
        let parsed = reread(&table(512), TableCopy::Primary, |_, array| {
            for (at, byte) in edits {
                array[at] = byte;
            }
        });
        if let Ok(table) = parsed {
            let again = reread(&table, TableCopy::Backup, |_, _| {}).unwrap();
            prop_assert!(again.same_content(&table));
        }
    }

    #[test]
    fn labels_and_bits_read_back(label in "\\PC{1,18}", attributes: u64) {
        let new = NewPartition { attributes, ..partition(&label, 1, 4096) };
        let table = Table::create(geometry(4096), guid(9), &[new]).unwrap();
        let found = reread(&table, TableCopy::Backup, |_, _| {}).unwrap().partition(1).unwrap();
        prop_assert_eq!(found.label(), Some(label.as_str()));
        prop_assert_eq!(found.attributes, attributes);
    }
}
