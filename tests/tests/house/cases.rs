//! The tables of cases: together they have every number once, and the tests they name are there.

use std::collections::{BTreeMap, BTreeSet};

use racklet_tests::sources::{cells, quoted, tests_in, text_of};

/// Every table of cases.
pub(crate) const TABLES: [&str; 6] = [
    "docs/threat-cases.md",
    "docs/fetch-cases.md",
    "docs/bundle-cases.md",
    "docs/boot-cases.md",
    "docs/host-cases.md",
    "docs/server-cases.md",
];

/// The cases there are.
pub(crate) const ALL: std::ops::RangeInclusive<u32> = 1..=235;

/// One row of a table.
pub(crate) struct Row {
    pub(crate) case: u32,
    pub(crate) cells: Vec<String>,
}

impl Row {
    /// The tests it names, as file and function: `FILE` `FUNCTION`, or `FILE::FUNCTION` below `repo-server/`.
    fn tests(&self) -> Vec<(String, String)> {
        let Some(last) = self.cells.last() else { return Vec::new() };
        let words: Vec<&str> = quoted(last).collect();
        let below = words.iter().filter_map(|word| word.split_once("::"));
        let below = below.filter(|(file, _)| file.ends_with(".rs"));
        let pairs = words.windows(2).filter(|pair| pair[0].ends_with(".rs"));
        below
            .map(|(file, name)| (format!("repo-server/{file}"), name.to_owned()))
            .chain(pairs.map(|pair| (pair[0].to_owned(), pair[1].to_owned())))
            .collect()
    }
}

/// The rows of a table that begin with a number.
pub(crate) fn rows(file: &str) -> Vec<Row> {
    let text = text_of(file);
    let row = |line: &str| {
        let cells: Vec<String> = cells(line)?.into_iter().map(str::to_owned).collect();
        Some(Row { case: cells.first()?.parse().ok()?, cells })
    };
    text.lines().filter_map(row).collect()
}

#[test]
fn every_case_stands_in_one_table() {
    let mut listed: BTreeMap<u32, &str> = BTreeMap::new();
    for file in TABLES {
        for row in rows(file) {
            let before = listed.insert(row.case, file);
            assert!(before.is_none(), "case {} is in {file} and in {before:?}", row.case);
        }
    }
    let numbers: BTreeSet<u32> = listed.into_keys().collect();
    assert_eq!(numbers, ALL.collect());
}

#[test]
fn every_case_names_tests_that_are_there_or_says_why_there_is_none() {
    let (mut named, mut without) = (0, Vec::new());
    for file in TABLES {
        for row in rows(file) {
            let tests = row.tests();
            if tests.is_empty() {
                let why = row.cells.last().unwrap();
                assert!(why.starts_with("No test: "), "case {} has no test: {why}", row.case);
                without.push(row.case);
            }
            for (source, name) in tests {
                let there = tests_in(&text_of(&source)).contains(&name);
                assert!(there, "{file}: case {}: {source} has no test {name}", row.case);
                named += 1;
            }
        }
    }
    println!("{named} tests named; for a reason without a test: {without:?}");
    assert!(named > 300, "{named}");
}

/// The cases of the field have numbers of their own.
#[test]
fn the_cases_of_the_field_name_tests_that_are_there() {
    let rows = rows("docs/field-cases.md");
    let numbers: Vec<u32> = rows.iter().map(|row| row.case).collect();
    let expected: Vec<u32> = (1..).take(rows.len()).collect();
    assert!(!rows.is_empty() && numbers == expected, "{numbers:?}");
    for row in rows {
        let tests = row.tests();
        assert!(!tests.is_empty(), "case {} names no test", row.case);
        for (file, name) in tests {
            assert!(tests_in(&text_of(&file)).contains(&name), "{file} has no test {name}");
        }
    }
}
