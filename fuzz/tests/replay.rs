//! The seeds, on every run of the tests: without libFuzzer, with the bounds of memory.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use racklet_fuzz::{Counting, TARGETS, seeds};

#[global_allocator]
static HEAP: Counting = Counting;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_seed_holds_and_each_target_accepts_one() {
    for target in TARGETS {
        let folder = corpus().join(target.name);
        assert!(folder.is_dir(), "{} has no seeds", target.name);
        let mut accepted = 0;
        for file in files(&folder) {
            let bytes = fs::read(&file).unwrap();
            accepted += u32::from(target.check(&bytes));
            // Cut off anywhere, it is an error, not a panic.
            for part in 1..8 {
                target.check(&bytes[..bytes.len() * part / 8]);
            }
        }
        assert!(accepted > 0, "{} accepts none of its seeds: they reach nothing", target.name);
    }
    // The bound is one: a target that takes more is found.
    let greedy = racklet_fuzz::Target {
        name: "greedy",
        run: |data| vec![1u8; data.len() << 20].len() > 1,
        longest: 64,
        growth: 64,
    };
    let found = std::panic::catch_unwind(|| greedy.check(&[0; 32]));
    assert!(found.is_err());
    committed_seeds_are_those_of_the_writers();
}

fn committed_seeds_are_those_of_the_writers() {
    let mut written: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    for (target, name, bytes) in seeds::all() {
        written.insert(corpus().join(target).join(name), bytes);
    }
    for (file, bytes) in written {
        let there = fs::read(&file).unwrap_or_default();
        assert!(there == bytes, "{}: run `cargo run -p racklet-fuzz --bin seeds`", file.display());
    }
}
