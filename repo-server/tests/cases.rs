//! `docs/server-cases.md` tells the truth: each case has a test, and each test is there.
#![allow(clippy::unwrap_used, reason = "these are tests, and so are their parts")]

use std::collections::BTreeSet;
use std::path::Path;

#[test]
fn every_case_has_a_test_that_exists() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = std::fs::read_to_string(here.join("../docs/server-cases.md")).unwrap();
    let mut cases = BTreeSet::new();
    for line in table.lines() {
        let Some(row) = line.strip_prefix("| ") else { continue };
        let Some(number) = row.split(' ').next().and_then(|it| it.parse::<u32>().ok()) else {
            continue;
        };
        let tests = row.rsplit(" | ").next().unwrap();
        let named: Vec<_> = tests.split('`').filter(|it| it.contains("::")).collect();
        assert!(!named.is_empty(), "case {number} names no test");
        for name in named {
            let (file, test) = name.split_once("::").unwrap();
            let source = std::fs::read_to_string(here.join(file)).unwrap();
            let line = source.lines().position(|it| it.trim() == format!("fn {test}() {{"));
            let line = line.unwrap_or_else(|| panic!("case {number}: there is no {name}"));
            let mut above = source.lines().take(line).collect::<Vec<_>>().into_iter().rev();
            let attribute = above.next().unwrap().trim();
            assert_eq!(attribute, "#[test]", "case {number}: {name} does not run");
        }
        assert!(cases.insert(number), "case {number} twice");
    }
    assert_eq!(cases, (199..=220).collect());
}
