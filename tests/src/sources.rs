//! What the tests of our documents share: the files of the repository, and the tests in them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The root of the repository.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"))
}

/// The text of a file of the repository.
#[track_caller]
pub fn text_of(file: &str) -> String {
    match fs::read_to_string(workspace().join(file)) {
        Ok(text) => text,
        Err(error) => panic!("{file}: {error}"),
    }
}

/// Every file of the repository that is there, as git lists them: relative, sorted, also those that the next
/// commit will add.
#[track_caller]
pub fn files() -> Vec<String> {
    let list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let listed = Command::new("git").args(list).current_dir(workspace()).output();
    let listed = listed.unwrap_or_else(|error| panic!("git ls-files: {error}"));
    assert!(listed.status.success(), "git ls-files: {}", listed.status);
    let names = String::from_utf8_lossy(&listed.stdout);
    let there = |name: &&str| !name.is_empty() && workspace().join(name).is_file();
    names
        .split('\0')
        .filter(there)
        .map(str::to_owned)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

/// The test functions of a source: those after `#[test]`, other attributes between, and those of `proptest!`,
/// which has its own.
pub fn tests_in(source: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut marked = false;
    for line in source.lines().map(str::trim) {
        match line.strip_prefix("fn ").and_then(|rest| rest.split(['(', '<']).next()) {
            Some(name) if marked => {
                found.insert(name.to_owned());
                marked = false;
            }
            Some(_) => marked = false,
            None => marked |= line == "#[test]",
        }
    }
    found
}

/// The cells of a row of a Markdown table, trimmed; nothing for other lines. A bar in backticks or behind a
/// backslash divides nothing.
pub fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    let (mut code, mut escaped) = (false, false);
    let divides = |letter: char| {
        let bar = letter == '|' && !code && !escaped;
        code ^= letter == '`';
        escaped = letter == '\\';
        bar
    };
    Some(inner.split(divides).map(str::trim).collect())
}

/// What stands between backticks in a line, in order.
pub fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_those_that_are_marked() {
        let source = "#[test]\n#[ignore = \"slow\"]\nfn one() {}\nfn two() {}\n    #[test]\n    fn three(a: u8) {}\n";
        assert_eq!(tests_in(source), ["one", "three"].map(str::to_owned).into());
    }

    #[test]
    fn a_row_has_cells_and_what_is_quoted() {
        assert_eq!(cells("| S1 | `a` and `b` |"), Some(vec!["S1", "`a` and `b`"]));
        assert_eq!(cells(r"| | `a | b` | c \| d |"), Some(vec!["", "`a | b`", r"c \| d"]));
        assert_eq!(cells("no row"), None);
        assert_eq!(quoted("`a` and `b`").collect::<Vec<_>>(), ["a", "b"]);
    }
}
