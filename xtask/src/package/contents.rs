//! That every file which somebody needs is in a package: what `packaging/debian` lists, against what the repository
//! has. Nothing is built.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use racklet_tools::paths;
use racklet_tools::programs::PROGRAMS;

use super::stage::{DEBIAN, SOURCES};
use super::{PACKAGES, SHIPPED};
use crate::tracked::tracked_files;

/// What is made before packages are: it is not in the repository.
const MADE: [&str; 3] = ["shipped/", "man/", "completions/"];

/// One line of debhelper's lists: the package, which files.
struct Line {
    package: &'static str,
    pattern: String,
}

/// The lines of `.install`, `.docs`, `.examples` and `.manpages`.
fn lines() -> Vec<Line> {
    let mut found = Vec::new();
    for package in PACKAGES {
        for kind in ["install", "docs", "examples", "manpages"] {
            let file = paths::root().join(format!("{DEBIAN}{package}.{kind}"));
            let text = fs::read_to_string(file).unwrap_or_default();
            let words = text.lines().filter_map(|line| line.split_whitespace().next());
            found.extend(words.map(|word| Line { package, pattern: word.to_owned() }));
        }
    }
    found
}

/// Whether a pattern means a file: the file, a folder above it, or a name with one `*`.
fn means(pattern: &str, file: &str) -> bool {
    match pattern.split_once('*') {
        Some((before, after)) => {
            let star = file.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
            star.is_some_and(|star| !star.contains('/'))
        }
        None => file == pattern || file.starts_with(&format!("{pattern}/")),
    }
}

fn files() -> Vec<String> {
    tracked_files().expect("git lists the files")
}

#[test]
fn every_file_that_is_needed_is_in_exactly_one_package() {
    let lines = lines();
    let mut needed = 0;
    for file in files() {
        if !SHIPPED.iter().any(|start| file.starts_with(start)) {
            continue;
        }
        needed += 1;
        let places =
            lines.iter().filter(|line| means(&line.pattern, &file)).map(|line| line.package);
        let places: Vec<_> = places.collect();
        assert_eq!(places.len(), 1, "{file} is in {places:?}: see packaging/debian");
    }
    assert!(needed > 60, "only {needed} files are needed");
}

#[test]
fn every_pattern_means_a_file() {
    let files = files();
    for Line { package, pattern } in lines() {
        let made = MADE.iter().any(|start| pattern.starts_with(start));
        let there = files.iter().any(|file| means(&pattern, file));
        assert!(made || there, "{package}: {pattern} is no file");
        let staged = SOURCES.iter().any(|source| pattern.starts_with(source.trim_end_matches('/')));
        assert!(made || staged, "{package}: {pattern} is not copied to where packages are built");
    }
}

/// Each program with its pages, completions, SPDX document and licences.
#[test]
fn every_program_is_complete() {
    let patterns: BTreeSet<String> = lines().into_iter().map(|line| line.pattern).collect();
    for name in PROGRAMS {
        let section = if name == "signer" { 1 } else { 8 };
        for pattern in [
            format!("shipped/{name}"),
            format!("shipped/{name}.spdx.json"),
            format!("shipped/{name}.licences.txt"),
            format!("man/{name}*.{section}"),
            format!("completions/bash/{name}"),
            format!("completions/zsh/_{name}"),
            format!("completions/fish/{name}.fish"),
        ] {
            assert!(patterns.contains(&pattern), "no package has {pattern}");
        }
    }
}

/// `rules` says of each unit what an installation and an upgrade do with it: nothing is enabled, and what runs once
/// is not started either.
#[test]
fn every_unit_has_its_rule() {
    let rules = fs::read_to_string(paths::root().join(format!("{DEBIAN}rules"))).expect("rules");
    let rules = rules.replace("\\\n", " ");
    let lists = rules.lines().filter_map(|line| line.split_once(" = "));
    let lists: Vec<(String, &str)> =
        lists.map(|(name, units)| (format!("$({})", name.trim()), units)).collect();
    let mut started = BTreeMap::new();
    for line in rules.lines().filter(|line| line.contains("dh_installsystemd -p")) {
        assert!(line.contains("--no-enable"), "{line}");
        let line =
            lists.iter().fold(line.to_owned(), |line, (name, units)| line.replace(name, units));
        let units = line.split_whitespace().filter(|word| !word.starts_with('-')).skip(1);
        started.extend(units.map(|unit| (unit.to_owned(), !line.contains("--no-start"))));
    }
    for file in files().iter().filter(|file| file.contains("/systemd/") && !file.contains('@')) {
        let name = file.rsplit('/').next().unwrap_or_default();
        if name.ends_with(".service") || name.ends_with(".timer") {
            let text = fs::read_to_string(paths::root().join(file)).expect("a unit");
            let once = text.contains("Type=oneshot") || !text.contains("[Install]");
            assert_eq!(started.remove(name), Some(!once), "{name} in packaging/debian/rules");
        }
    }
    assert!(started.is_empty(), "packaging/debian/rules names what is no unit: {started:?}");
}

/// `control` has the packages of this module.
#[test]
fn the_packages_are_those_of_control() {
    let control =
        fs::read_to_string(paths::root().join(format!("{DEBIAN}control"))).expect("control");
    let found: Vec<&str> =
        control.lines().filter_map(|line| line.strip_prefix("Package: ")).collect();
    assert_eq!(found, PACKAGES);
    // Whatever lies there belongs to one of them.
    let mut kinds: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let own = ["control", "rules", "copyright", "source/format"];
    for file in files().iter().filter_map(|file| file.strip_prefix(DEBIAN)) {
        let package = PACKAGES.into_iter().find(|package| file.starts_with(&format!("{package}.")));
        assert!(package.is_some() || own.contains(&file), "{DEBIAN}{file} belongs to no package");
        kinds.entry(package.unwrap_or_default()).or_default().push(file.to_owned());
    }
    assert_eq!(kinds.len(), PACKAGES.len() + 1, "{kinds:?}");
}
