//! No manifest lists a crate that its package does not name: each one costs a build and a reader.
//!
//! A crate is named by `name::`, `use name;` or `name as …` in a source of the package, comments left out.

use std::collections::BTreeSet;

use racklet_tests::sources::{files, text_of};

/// Listed for another reason than that a source names them.
const EXCEPTIONS: &[(&str, &str, &str)] =
    &[("repo-server/Cargo.toml", "reqwest", "a feature of the client inside object_store")];

/// The crates that a manifest lists in any table of dependencies.
fn listed(manifest: &str) -> Vec<String> {
    let (mut found, mut inside) = (Vec::new(), false);
    for line in manifest.lines().map(str::trim) {
        if let Some(table) = line.strip_prefix('[') {
            inside = table.trim_end_matches(']').ends_with("dependencies");
        } else if inside && !line.starts_with('#') {
            let end = line.find(|letter: char| !is_part(letter) && letter != '-');
            found.extend(end.filter(|end| *end > 0).map(|end| line[..end].to_owned()));
        }
    }
    found
}

fn is_part(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

/// Whether a source names a crate.
fn names(source: &str, name: &str) -> bool {
    let name = name.replace('-', "_");
    let code = source.lines().map(str::trim).filter(|line| !line.starts_with("//"));
    code.into_iter().any(|line| {
        line.match_indices(&name).any(|(at, _)| {
            let after = &line[at + name.len()..];
            let follows = ["::", ";", " as "].iter().any(|end| after.starts_with(end));
            follows && !line[..at].ends_with(is_part)
        })
    })
}

/// The manifest of the package that a file belongs to.
fn package_of<'a>(file: &str, manifests: &[&'a String]) -> Option<&'a String> {
    let holds = |manifest: &&&String| {
        manifest.strip_suffix("Cargo.toml").is_some_and(|folder| file.starts_with(folder))
    };
    manifests.iter().filter(holds).max_by_key(|manifest| manifest.len()).copied()
}

#[test]
fn every_dependency_is_named_by_a_source() {
    let files = files();
    let manifests: Vec<&String> =
        files.iter().filter(|file| file.ends_with("Cargo.toml")).collect();
    let (mut checked, mut unused) = (0, Vec::new());
    let mut excepted = BTreeSet::new();
    for manifest in &manifests {
        let of_it = |file: &&String| {
            file.ends_with(".rs") && package_of(file, &manifests) == Some(*manifest)
        };
        let sources: Vec<String> = files.iter().filter(of_it).map(|file| text_of(file)).collect();
        // The workspace's own table has what its members name.
        let is_workspace = *manifest == "Cargo.toml";
        let used = |name: &str| match is_workspace {
            false => sources.iter().any(|source| names(source, name)),
            true => manifests.iter().any(|member| {
                member != manifest && listed(&text_of(member)).iter().any(|it| it == name)
            }),
        };
        for name in listed(&text_of(manifest)) {
            checked += 1;
            if used(&name) {
                continue;
            }
            match EXCEPTIONS.iter().position(|(file, it, _)| file == manifest && *it == name) {
                Some(exception) => drop(excepted.insert(exception)),
                None => unused.push(format!("{manifest}: {name}")),
            }
        }
    }
    assert!(unused.is_empty(), "listed, and named by no source: {unused:#?}");
    assert_eq!(excepted.len(), EXCEPTIONS.len(), "an exception excepts nothing any more");
    assert!(checked > 100, "{checked}");
}

#[test]
fn crates_are_found_in_manifests_and_in_code_only() {
    let manifest = "[package]\nname = \"a\"\n[dependencies]\nserde.workspace = true\n# no\n\
                    [target.'cfg(unix)'.dev-dependencies]\nring-like = \"1\"\n[features]\nx = []\n";
    assert_eq!(listed(manifest), ["serde", "ring-like"]);
    for (source, wanted) in [
        ("use ring_like::hmac;", true),
        ("let x = ring_like::hmac();", true),
        ("use ring_like as ring;", true),
        ("// ring_like::hmac", false),
        ("string_ring_like::x", false),
        ("let ring_like = 1", false),
    ] {
        assert_eq!(names(source, "ring-like"), wanted, "{source}");
    }
}
