//! `docs/threat-cases.md` and `docs/fetch-cases.md` are true: every case is in its list once, and
//! every test they name is there.

#![allow(clippy::unwrap_used, reason = "a document that cannot be read is a failure")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use racklet_tests::sources::{tests_in, text_of, workspace};

/// A row: its number, and the tests it names as file and function.
struct Row {
    case: u32,
    tests: Vec<(String, String)>,
    text: String,
}

/// Each list, and the cases it is of.
fn documents() -> [(&'static str, Vec<u32>); 2] {
    [
        ("docs/threat-cases.md", (1..=87).chain(186..=198).collect()),
        ("docs/fetch-cases.md", (88..=102).chain(118..=124).collect()),
    ]
}

fn rows_of(document: &str) -> Vec<Row> {
    let text = text_of(document);
    text.lines().filter_map(row).collect()
}

fn rows() -> Vec<Row> {
    documents().iter().flat_map(|(document, _)| rows_of(document)).collect()
}

fn row(line: &str) -> Option<Row> {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let case = cells.first()?.parse().ok()?;
    let text = (*cells.last()?).to_owned();
    let mut tests = Vec::new();
    for entry in text.split("<br>") {
        let mut quoted = entry.split('`').skip(1).step_by(2);
        if let (Some(file), Some(function)) = (quoted.next(), quoted.next())
            && file.ends_with(".rs")
        {
            tests.push((file.to_owned(), function.to_owned()));
        }
    }
    Some(Row { case, tests, text })
}

fn tests_of(file: &str) -> BTreeSet<String> {
    tests_in(&text_of(file))
}

#[test]
fn every_case_of_client_and_signer_is_listed_once_with_a_test_or_a_reason() {
    for (document, cases) in documents() {
        let mut listed: BTreeMap<u32, Row> = BTreeMap::new();
        for row in rows_of(document) {
            let case = row.case;
            assert!(listed.insert(case, row).is_none(), "{document}: case {case} twice");
        }
        for case in cases {
            let row = listed.get(&case).unwrap_or_else(|| panic!("{document}: no case {case}"));
            let reason = row.text.starts_with("No test: ") && row.text.len() > 60;
            assert!(!row.tests.is_empty() || reason, "case {case} has neither test nor reason");
        }
        let without: Vec<u32> =
            listed.values().filter(|row| row.tests.is_empty()).map(|row| row.case).collect();
        println!("{document}: {}; without a test, for a reason: {without:?}", listed.len());
    }
}

#[test]
fn every_test_that_is_named_is_there() {
    let mut files: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut named = 0;
    for row in rows() {
        for (file, function) in row.tests {
            let tests = files.entry(file.clone()).or_insert_with(|| tests_of(&file));
            assert!(tests.contains(&function), "case {}: {file} has no {function}", row.case);
            named += 1;
        }
    }
    assert!(named > 87, "{named}");
}

/// A test that bears a case's number is in the list under that number.
#[test]
fn every_test_with_a_number_is_named() {
    let named: BTreeSet<(u32, String)> = rows()
        .into_iter()
        .flat_map(|row| {
            let case = row.case;
            row.tests.into_iter().map(move |(_, function)| (case, function))
        })
        .collect();
    let attacks = ["classic", "clock", "delegations", "keys", "parser"]
        .map(|name| format!("tests/tests/trust_attacks/{name}.rs"));
    let others = [
        "tests/tests/trust_agent.rs",
        "formats/tests/tuf_vectors.rs",
        "update-agent/tests/source_faults.rs",
        "update-agent/tests/source_credentials.rs",
    ]
    .map(str::to_owned);
    let signer = fs::read_dir(workspace().join("signer/tests")).unwrap().filter_map(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        name.ends_with(".rs").then(|| format!("signer/tests/{name}"))
    });
    for file in attacks.into_iter().chain(others).chain(signer) {
        for function in tests_of(&file) {
            let Some(rest) = function.strip_prefix("case_") else { continue };
            for case in rest
                .split('_')
                .map_while(|part| part.parse().ok())
                .filter(|n| matches!(n, 5..=102 | 118..=124 | 186..=198))
            {
                assert!(named.contains(&(case, function.clone())), "{file}: {function}");
            }
        }
    }
}
