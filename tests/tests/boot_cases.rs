//! `docs/boot-cases.md` is true: every case from 125 to 175 is in it once, and every test it names runs.

#![allow(clippy::unwrap_used, reason = "a document that cannot be read is a failure")]

use std::collections::BTreeSet;

use racklet_tests::sources::{tests_in, text_of};

fn tests_of(file: &str) -> BTreeSet<String> {
    tests_in(&text_of(file))
}

#[test]
fn every_case_is_listed_once_with_tests_that_are_there() {
    let text = text_of("docs/boot-cases.md");
    let mut cases = BTreeSet::new();
    let mut named = 0;
    for line in text.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let Some(case) = cells.first().and_then(|cell| cell.parse::<u32>().ok()) else { continue };
        assert!(cases.insert(case), "case {case} is listed twice");
        for entry in cells.last().unwrap().split("<br>") {
            let quoted: Vec<&str> = entry.split('`').skip(1).step_by(2).collect();
            let [file, function] = quoted[..] else { panic!("case {case}: {entry}") };
            assert!(tests_of(file).contains(function), "case {case}: {file} has no {function}");
            named += 1;
        }
    }
    assert_eq!(cases, (125..=175).collect::<BTreeSet<u32>>());
    println!("{} cases, {named} tests named", cases.len());
}

/// The stories of the backends' table are there, too.
#[test]
fn the_tests_of_the_table_of_backends_are_there() {
    let files =
        ["boot_backends", "boot_trial", "boot_tryboot", "boot_scripts", "boot_sets", "boot_emmc"];
    let tests: BTreeSet<String> =
        files.iter().flat_map(|file| tests_of(&format!("tests/tests/{file}.rs"))).collect();
    let text = text_of("docs/boot-cases.md");
    let table = text.split("## Slots").next().unwrap();
    let mut found = 0;
    for name in table.split('`').skip(1).step_by(2) {
        let words = name.split('_').count();
        let is_test = words > 3 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        if is_test {
            assert!(tests.contains(name), "{name}");
            found += 1;
        }
    }
    assert!(found >= 9, "{found}");
}
