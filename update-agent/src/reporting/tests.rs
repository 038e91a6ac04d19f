//! What is durable of reports survives a cut at any write, and numbers never come twice.

use storage::sim::{FilesFault, Interrupted, MemFiles};

use super::key::NodeKey as _;
use super::ledger::{advance, key_of, reserve};

/// Every cut of `work` on files that `begun` made: what is left of each.
fn cuts(begun: impl Fn() -> MemFiles, work: impl Fn(&MemFiles)) -> Vec<(String, MemFiles)> {
    let whole = begun();
    let before = whole.operations();
    work(&whole);
    let operations = whole.operations() - before;
    assert!(operations > 0);
    let mut left = Vec::new();
    for during in 0..operations {
        for cut in [Interrupted::Before, Interrupted::After, Interrupted::Torn(5)] {
            let files = begun();
            let files = files.with_fault(FilesFault::CutDuring(before + during));
            work(&files);
            left.push((format!("operation {during}, {cut:?}"), files.after_power_loss(cut)));
        }
    }
    left
}

#[test]
fn a_cut_while_the_key_is_made_leaves_no_key_or_the_whole_key() {
    let make = |files: &MemFiles| drop(key_of(files));
    for (name, files) in cuts(MemFiles::new, make) {
        let key = key_of(&files).expect(&name).public();
        assert_eq!(key_of(&files).expect(&name).public(), key, "{name}: it stays the same");
    }
    // What was used once is never made anew, whichever copy is damaged.
    let files = MemFiles::new();
    let key = key_of(&files).unwrap().public();
    use storage::files::Files as _;
    files.write_atomic("key.0", b"racklet\0 but torn").unwrap();
    assert_eq!(key_of(&files).unwrap().public(), key);
    files.write_atomic("key.1", b"racklet\0 but torn").unwrap();
    let error = key_of(&files).map(|key| key.public()).unwrap_err();
    assert_eq!(error.reason(), formats::reason::Reason::StoreCorrupt);
    assert!(error.advice().unwrap().contains("approved again"));
}

#[test]
fn numbers_rise_strictly_over_every_cut() {
    let begun = || {
        let files = MemFiles::new();
        reserve(&files, 16).unwrap();
        files
    };
    for (name, files) in cuts(begun, |files| drop(reserve(files, 16))) {
        // Only numbers that were given out may have been used: the first sixteen.
        let next = *reserve(&files, 1).expect(&name).start();
        assert!(next == 17 || next == 33, "{name}: {next}");
    }
    // A ledger that was lost goes on where the server says, and no server takes all numbers away.
    let files = MemFiles::new();
    assert_eq!(reserve(&files, 1).unwrap(), 1..=1);
    assert!(advance(&files, 40).unwrap());
    assert_eq!(reserve(&files, 2).unwrap(), 41..=42);
    assert!(advance(&files, 7).unwrap());
    assert!(!advance(&files, u64::MAX).unwrap());
    assert!(!advance(&files, i64::MAX as u64).unwrap());
    assert_eq!(reserve(&files, 1).unwrap(), 43..=43);
}
