use formats::reason::Reason;

use super::*;
use crate::sim::{FilesFault, Interrupted, MemFiles};

fn payload(files: &MemFiles, name: &str) -> Option<Vec<u8>> {
    read(files, name).unwrap().map(|found| found.record.payload)
}

fn written(count: usize) -> MemFiles {
    let files = MemFiles::new();
    for nth in 0..count {
        write(&files, "boot", format!("state {nth}").as_bytes()).unwrap();
    }
    files
}

fn damage(files: &MemFiles, name: &str) {
    files.write_atomic(name, b"racklet\0 but torn").unwrap();
}

#[test]
fn the_newest_is_read() {
    let files = MemFiles::new();
    assert_eq!(read(&files, "boot").unwrap(), None);
    for nth in 1..6u64 {
        let bytes = nth.to_le_bytes();
        assert_eq!(write(&files, "boot", &bytes).unwrap(), nth);
        let found = read(&files, "boot").unwrap().unwrap();
        assert_eq!((found.record.sequence, found.record.payload), (nth, bytes.to_vec()));
        assert_eq!(found.flaw, None);
    }
    assert_eq!(files.list().unwrap(), ["boot.0", "boot.1"]);
}

#[test]
fn every_cut_leaves_the_old_or_the_new_record() {
    // Torn writes as well, which `Files` promises not to leave. Each write makes two copies.
    let writes = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1)];
    for (before, during) in writes {
        let old = payload(&written(before), "boot");
        let len = written(before + 1).read("boot.0", 1000).unwrap().unwrap().len();
        let torn = (0..=len).map(Interrupted::Torn);
        for cut in [Interrupted::Before, Interrupted::After].into_iter().chain(torn) {
            let name = format!("after {before} records, in write {during}: {cut:?}");
            let files = written(before);
            let count = files.operations() + during;
            let files = files.with_fault(FilesFault::CutDuring(count));
            let error = write(&files, "boot", b"state X").unwrap_err();
            assert_eq!(error.reason(), Reason::StoreIo);
            let found = files.after_power_loss(cut);
            let after = payload(&found, "boot");
            assert!(after == old || after.as_deref() == Some(b"state X"), "{name}: {after:?}");
            mend(&found, "boot").unwrap();
            assert_eq!(payload(&found, "boot"), after, "{name}: mended");
            if after.is_some() {
                assert_eq!(read(&found, "boot").unwrap().unwrap().flaw, None, "{name}");
            }
            write(&found, "boot", b"next").unwrap();
            assert_eq!(payload(&found, "boot").as_deref(), Some(&b"next"[..]), "{name}");
        }
    }
}

#[test]
fn a_record_that_was_once_whole_is_never_taken_for_a_new_one() {
    // From the first write on there are two copies: damage to either leaves the other.
    for count in 1..4 {
        for bad in ["boot.0", "boot.1"] {
            let files = written(count);
            damage(&files, bad);
            assert!(payload(&files, "boot").is_some(), "{count} writes, {bad} damaged");
        }
    }
}

#[test]
fn a_writer_that_uses_one_copy_is_caught_by_the_sweep() {
    let files = written(2);
    damage(&files, "boot.1");
    let cut = files.operations();
    let files = files.with_fault(FilesFault::CutDuring(cut));
    let record = Record { sequence: 2, revision: 0, payload: b"state X".to_vec() };
    files.write_atomic("boot.0", &record.to_bytes().unwrap()).unwrap_err();
    let found = files.after_power_loss(Interrupted::Torn(40));
    assert_eq!(read(&found, "boot").unwrap_err().reason(), Reason::StoreCorrupt);
}

/// Every bit of either copy, after any number of writes: what is read stays, and what is wrong is named and
/// mended.
#[test]
fn one_flipped_bit_of_one_copy_changes_nothing_that_is_read() {
    for count in 1..4 {
        let wanted = format!("state {}", count - 1).into_bytes();
        for file in ["boot.0", "boot.1"] {
            let whole = written(count).read(file, 1000).unwrap().unwrap();
            for bit in 0..whole.len() * 8 {
                let files = written(count);
                let mut bytes = whole.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                files.write_atomic(file, &bytes).unwrap();
                let found = read(&files, "boot").unwrap().unwrap();
                assert_eq!(found.record.payload, wanted, "{file}, bit {bit}");
                let named =
                    |flaw: &Flaw| matches!(flaw, Flaw::Damaged { file: own, .. } if own == file);
                assert!(found.flaw.as_ref().is_some_and(named), "{file}, bit {bit}: {found:?}");
                assert_eq!(mend(&files, "boot").unwrap(), found.flaw);
                assert_eq!(mend(&files, "boot").unwrap(), None, "once is enough");
                assert_eq!(files.read(file, 1000).unwrap().unwrap(), whole, "{file}, bit {bit}");
            }
        }
    }
}

#[test]
fn a_damaged_copy_is_written_before_the_good_one() {
    for bad in ["boot.0", "boot.1"] {
        let files = written(3);
        damage(&files, bad);
        let cut = files.operations();
        let files = files.with_fault(FilesFault::CutDuring(cut));
        write(&files, "boot", b"new").unwrap_err();
        let found = files.after_power_loss(Interrupted::Torn(9));
        assert_eq!(payload(&found, "boot").as_deref(), Some(&b"state 2"[..]), "{bad}");
        write(&found, "boot", b"new").unwrap();
        let found = read(&found, "boot").unwrap().unwrap();
        assert_eq!((&found.record.payload[..], found.flaw), (&b"new"[..], None), "{bad}");
    }
}

#[test]
fn a_copy_that_is_missing_or_behind_is_brought_up() {
    let files = written(2);
    files.remove("boot.1").unwrap();
    let file = "boot.1".to_owned();
    assert_eq!(mend(&files, "boot").unwrap(), Some(Flaw::Absent { file: file.clone() }));
    assert_eq!(mend(&files, "boot").unwrap(), None);
    let old = written(1).read("boot.1", 1000).unwrap().unwrap();
    files.write_atomic("boot.1", &old).unwrap();
    assert_eq!(mend(&files, "boot").unwrap(), Some(Flaw::Behind { file }));
    assert_eq!(files.read("boot.0", 1000).unwrap(), files.read("boot.1", 1000).unwrap());
    assert_eq!(mend(&files, "never written").unwrap(), None);
    write(&files, "bank-os", b"x").unwrap();
    files.write_atomic("lock", b"").unwrap();
    assert_eq!(names(&files).unwrap(), ["bank-os", "boot"]);
}

#[test]
fn two_damaged_copies_are_not_overwritten_silently() {
    let files = written(2);
    damage(&files, "boot.0");
    damage(&files, "boot.1");
    let operations = files.operations();
    let mended = mend(&files, "boot").unwrap_err();
    let written = write(&files, "boot", b"x").unwrap_err();
    for error in [read(&files, "boot").unwrap_err(), mended, written] {
        assert_eq!(error.reason(), Reason::StoreCorrupt);
    }
    assert_eq!(files.operations(), operations);
    // On purpose it works.
    remove(&files, "boot").unwrap();
    assert_eq!(write(&files, "boot", b"x").unwrap(), 1);
}

/// A copy of format version 2: magic, version, sequence number and checksum are where they ever are.
fn later(sequence: u64) -> Vec<u8> {
    let record = Record { sequence, revision: 0, payload: b"of a later agent".to_vec() };
    let mut bytes = record.to_bytes().unwrap();
    bytes.truncate(bytes.len() - 32);
    bytes[8] = 2;
    let sum = formats::digest::Sha256::of(&bytes);
    bytes.extend_from_slice(&sum.0);
    bytes
}

/// The newest copy is never silently skipped for an older one, nor written over.
#[test]
fn a_copy_of_a_later_format_version_is_neither_skipped_nor_overwritten() {
    // (copy 0, copy 1); `None` is a copy that this version wrote last, with the sequence number 2.
    type Copy = Option<Vec<u8>>;
    let damaged = || Some(b"racklet\0 but torn".to_vec());
    let rows: [(&str, Copy, Copy, bool); 7] = [
        ("both", Some(later(3)), Some(later(3)), true),
        ("the first half of a write", Some(later(3)), None, true),
        ("the other file", None, Some(later(3)), true),
        ("beside a damaged one", Some(later(3)), damaged(), true),
        ("of the same age", None, Some(later(2)), true),
        ("behind", Some(later(1)), None, false),
        ("behind, the other file", None, Some(later(1)), false),
    ];
    for (name, first, second, refused) in rows {
        let files = written(2);
        for (file, bytes) in [("boot.0", first), ("boot.1", second)] {
            if let Some(bytes) = bytes {
                files.write_atomic(file, &bytes).unwrap();
            }
        }
        let copies = || [files.read("boot.0", 1000).unwrap(), files.read("boot.1", 1000).unwrap()];
        let before = copies();
        if refused {
            let errors = [
                read(&files, "boot").unwrap_err(),
                mend(&files, "boot").unwrap_err(),
                write(&files, "boot", b"x").unwrap_err(),
            ];
            for error in errors {
                assert_eq!(error.reason(), Reason::StoreNewer, "{name}");
            }
            assert_eq!(copies(), before, "{name}");
            remove(&files, "boot").unwrap();
            assert_eq!(write(&files, "boot", b"x").unwrap(), 1, "{name}: on purpose");
        } else {
            assert_eq!(payload(&files, "boot").as_deref(), Some(&b"state 1"[..]), "{name}");
            let file = if before[0] == Some(later(1)) { "boot.0" } else { "boot.1" }.to_owned();
            assert_eq!(mend(&files, "boot").unwrap(), Some(Flaw::Behind { file }), "{name}");
            assert_eq!(write(&files, "boot", b"x").unwrap(), 3, "{name}");
        }
    }
}

#[test]
fn a_revision_of_the_format_stays() {
    let files = MemFiles::new();
    let record = Record { sequence: 4, revision: 9, payload: b"old".to_vec() };
    files.write_atomic("boot.0", &record.to_bytes().unwrap()).unwrap();
    assert!(mend(&files, "boot").unwrap().is_some());
    write(&files, "boot", b"new").unwrap();
    let found = read(&files, "boot").unwrap().unwrap();
    let written = Record { sequence: 5, revision: 9, payload: b"new".to_vec() };
    assert_eq!((found.record, found.flaw), (written, None));
}

#[test]
fn a_removed_record_does_not_come_back_older() {
    for count in 1..4 {
        let newest = payload(&written(count), "boot");
        for during in 0..2 {
            for cut in [Interrupted::Before, Interrupted::After] {
                let files = written(count);
                let cut_at = files.operations() + during;
                let files = files.with_fault(FilesFault::CutDuring(cut_at));
                remove(&files, "boot").unwrap_err();
                let after = payload(&files.after_power_loss(cut), "boot");
                assert!(after.is_none() || after == newest, "{count} {during} {cut:?}: {after:?}");
            }
        }
    }
}

#[test]
fn a_full_disk_keeps_the_old_record() {
    for count in 0..3 {
        let files = written(count);
        let full_at = files.operations();
        let files = files.with_fault(FilesFault::FullAt(full_at));
        let error = write(&files, "boot", b"new").unwrap_err();
        assert_eq!(error.reason(), Reason::StoreIo);
        assert_eq!(payload(&files, "boot"), payload(&written(count), "boot"));
        write(&files, "boot", b"new").unwrap();
        assert_eq!(payload(&files, "boot").as_deref(), Some(&b"new"[..]));
    }
}

#[test]
fn a_payload_above_the_limit_is_refused() {
    let files = MemFiles::new();
    let error = write(&files, "boot", &vec![0; PAYLOAD_LIMIT + 1]).unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { .. }));
    assert_eq!(files.operations(), 0);
}
