//! Every promise has a test: the table of `docs/threat-model.md`, and that of `ARCHITECTURE.md`.

use std::collections::{BTreeMap, BTreeSet};

use racklet_tests::sources::{cells, files, quoted, tests_in, text_of};

/// The promises that the threat model defines, with what holds each.
pub(crate) fn promises() -> BTreeMap<String, String> {
    let text = text_of("docs/threat-model.md");
    let (_, below) = text.split_once("\n## Guarantees\n").unwrap();
    let (table, _) = below.split_once("\n## ").unwrap();
    let mut found = BTreeMap::new();
    for row in table.lines().filter_map(cells).filter(|row| number(row[0]).is_some()) {
        let [name, _, held_by] = row[..] else { panic!("{row:?}") };
        assert!(found.insert(name.to_owned(), held_by.to_owned()).is_none(), "{name} twice");
    }
    found
}

/// The letter and number of a promise: `S5`, `L1`.
pub(crate) fn number(word: &str) -> Option<(char, u32)> {
    let letter = word.chars().next().filter(|letter| matches!(letter, 'S' | 'L'))?;
    let digits = &word[1..];
    let plain = !digits.is_empty() && digits.len() < 3 && !digits.starts_with('0');
    (plain && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| digits.parse().ok().map(|number| (letter, number)))?
}

#[test]
fn every_promise_of_the_threat_model_names_tests_that_are_there() {
    let promises = promises();
    let expected = (1..=14).map(|n| format!("S{n}")).chain((1..=5).map(|n| format!("L{n}")));
    assert_eq!(promises.keys().cloned().collect::<BTreeSet<_>>(), expected.collect());
    for (promise, held_by) in promises {
        let mut tests = 0;
        for entry in held_by.split("<br>") {
            let [file, name] = quoted(entry).collect::<Vec<_>>()[..] else {
                panic!("{promise}: {entry} is not `FILE` `TEST`");
            };
            assert!(
                tests_in(&text_of(file)).contains(name),
                "{promise}: {file} has no test {name}"
            );
            tests += 1;
        }
        assert!(tests > 0, "{promise}");
    }
}

/// A row of `ARCHITECTURE.md` names a test, a program of tests, or a command of `cargo xtask`; and what looks
/// like the name of a test is one.
#[test]
fn every_promise_of_the_architecture_names_what_is_there() {
    let files = files();
    let sources = files.iter().filter(|file| file.ends_with(".rs"));
    let tests: BTreeSet<String> = sources.flat_map(|file| tests_in(&text_of(file))).collect();
    let programs: BTreeSet<&str> = files.iter().filter_map(|file| program(file)).collect();
    let is_test = |word: &str| tests.contains(word) || programs.contains(word);
    let text = text_of("ARCHITECTURE.md");
    let (_, below) = text.split_once("\n## Guarantees and the tests that enforce them\n").unwrap();
    let (table, _) = below.split_once("\n## ").unwrap();
    let mut found = 0;
    for row in table.lines().filter_map(cells).skip(2) {
        let held_by: Vec<&str> = quoted(row.last().unwrap()).collect();
        let holds = |word: &&str| is_test(word) || word.starts_with("cargo xtask ");
        assert!(held_by.iter().any(&holds), "{}: names no test", row[0]);
        for word in held_by {
            let words = word.split('_').count();
            let name = word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            assert!(!(name && words > 2) || is_test(word), "{}: no test {word}", row[0]);
        }
        found += 1;
    }
    assert!(found > 8, "{found} rows");
}

/// The program of tests that a file is the root of.
fn program(file: &str) -> Option<&str> {
    let (_, below) = file.split_once("tests/")?;
    let below = below.strip_prefix("tests/").unwrap_or(below);
    match below.split_once('/') {
        None => below.strip_suffix(".rs"),
        Some((folder, "main.rs")) => Some(folder),
        Some(_) => None,
    }
}
