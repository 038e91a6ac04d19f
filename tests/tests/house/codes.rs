//! `docs/exit-codes.md` has the codes of the source, in its order, with its words.

use std::collections::{BTreeMap, BTreeSet};

use formats::reason::{Exit, Reason};
use racklet_tests::sources::{cells, quoted, text_of};

/// Code → what its documentation in the source says, on one line.
fn meanings() -> BTreeMap<String, String> {
    let source = text_of("formats/src/reason.rs");
    let mut found = BTreeMap::new();
    let mut words: Vec<&str> = Vec::new();
    for line in source.lines().map(str::trim) {
        if let Some(said) = line.strip_prefix("///") {
            words.push(said.trim());
        } else {
            let code = line.split('"').nth(1);
            if let Some(code) = code.and_then(Reason::from_code) {
                found.entry(code.code().to_owned()).or_insert_with(|| words.join(" "));
            }
            words.clear();
        }
    }
    found
}

#[test]
fn every_reason_code_is_documented_with_its_exit_code() {
    let text = text_of("docs/exit-codes.md");
    let (_, table) = text.split_once("## Reason codes").unwrap();
    let listed: Vec<&str> = table.lines().filter(|line| line.starts_with("| `")).collect();
    let meanings = meanings();
    let wanted: Vec<String> = Reason::ALL
        .iter()
        .map(|reason| {
            let code = reason.code();
            format!("| `{code}` | {} | {} |", reason.exit().code(), meanings[code])
        })
        .collect();
    let missing: Vec<&str> =
        wanted.iter().map(String::as_str).filter(|row| !listed.contains(row)).collect();
    assert!(missing.is_empty(), "docs/exit-codes.md lacks these rows:\n{}", missing.join("\n"));
    let surplus: Vec<&&str> =
        listed.iter().filter(|row| !wanted.iter().any(|it| it == *row)).collect();
    assert!(surplus.is_empty(), "docs/exit-codes.md has rows of no reason: {surplus:#?}");
    assert_eq!(listed, wanted, "the order is that of the source");
}

#[test]
fn every_exit_code_is_documented() {
    let text = text_of("docs/exit-codes.md");
    let (table, _) = text.split_once("## Reason codes").unwrap();
    let listed: BTreeSet<u8> =
        table.lines().filter_map(cells).filter_map(|row| row[0].parse().ok()).collect();
    let used = Reason::ALL.iter().map(|reason| reason.exit().code());
    assert_eq!(listed, used.chain([Exit::Done.code()]).collect());
}

/// What a case or a page expects is a reason that exists.
#[test]
fn codes_that_tables_of_cases_expect_exist() {
    for file in super::cases::TABLES {
        for row in super::cases::rows(file).iter().filter(|row| row.cells.len() == 4) {
            for word in quoted(&row.cells[2]).filter(|word| looks_like_a_code(word)) {
                assert!(Reason::from_code(word).is_some(), "{file}: case {}: {word}", row.case);
            }
        }
    }
}

/// Lower-case words joined by underscores, which nothing else in that column is.
fn looks_like_a_code(word: &str) -> bool {
    word.contains('_') && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}
