//! `formats` and `update-agent/core` decide and parse; they touch nothing. Their manifests back
//! the claim (no crate that does I/O, also not indirectly), and their sources name no clock, file,
//! socket, process or environment. The sources of `registry-auth`, which needs rustls for
//! its certificates, and the pure modules of other crates are held to the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use racklet_tools::paths;
use serde_json::Value;

use super::runner::cargo;
use crate::tracked::tracked_files;

/// Folder and package name.
const PURE: [(&str, &str); 2] = [("formats", "formats"), ("update-agent/core", "update-core")];

/// Files, and folders that end with a slash, of which the sources only are looked at, each with what
/// its sources must not name besides.
const PURE_SOURCES: &[(&str, &[&str])] = &[
    ("formats/registry-auth/src/", &[]),
    ("repo-server/src/fleet/lock/", &[]),
    ("repo-server/src/handle/heads.rs", &[]),
    ("repo-server/src/range.rs", &[]),
    ("repo-server/src/route.rs", &[]),
    ("repo-server/src/store/catalog.rs", &[]),
    ("repo-server/src/store/facts.rs", &[]),
    ("repo-server/src/store/gc/plan.rs", &[]),
    ("repo-server/src/store/gc/targets.rs", &[]),
    ("signer/src/factory/identity.rs", SIGNER_IO),
    ("signer/src/factory/layout.rs", SIGNER_IO),
    ("signer/src/factory/loader.rs", SIGNER_IO),
    ("signer/src/factory/plan.rs", SIGNER_IO),
    ("signer/src/plan/", SIGNER_IO),
    ("signer/src/state/", SIGNER_IO),
];

/// The modules of `signer` that read, write, ask or sign.
const SIGNER_IO: &[&str] = &[
    "crate::cli",
    "crate::commands",
    "crate::journal",
    "crate::key",
    "crate::repository",
    "crate::signing",
];

/// Crates that exist to do I/O.
const IMPURE_CRATES: &[&str] = &[
    "tokio",
    "hyper",
    "hyper-util",
    "mio",
    "socket2",
    "tempfile",
    "rustix",
    "rustls",
    "tokio-rustls",
    "object_store",
    "oci-client",
    "reqwest",
    "indicatif",
    "storage",
];

/// What the sources must not name, outside their tests.
const IMPURE_NAMES: &[&str] = &[
    "std::fs",
    "std::net",
    "std::process",
    "std::env",
    "std::thread",
    "SystemTime",
    "Instant",
    "File::open",
    "println!",
    "eprintln!",
];

/// Every breach, one line each.
pub(super) fn check() -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let metadata = cargo(&["metadata", "--locked", "--format-version", "1"]).run()?.json()?;
    let graph = normal_dependencies(&metadata);
    for (folder, package) in PURE {
        let manifest = paths::root().join(folder).join("Cargo.toml");
        faults.extend(listed(&manifest)?);
        for path in reachable(&graph, package) {
            if let [.., last] = path.as_slice()
                && IMPURE_CRATES.contains(&last.as_str())
            {
                faults.push(format!("{package} reaches {last}: {}", path.join(" → ")));
            }
        }
    }
    let crates = PURE.map(|(folder, _)| format!("{folder}/src/"));
    let crates = crates.iter().map(|sources| (sources.as_str(), &[][..]));
    for (sources, more) in crates.chain(PURE_SOURCES.iter().copied()) {
        let tracked = tracked_files()?;
        let files = tracked.iter().filter(|f| f.starts_with(sources) && f.ends_with(".rs"));
        if files.clone().next().is_none() {
            faults.push(format!("{sources} is gone: no sources are checked there"));
        }
        for file in files {
            // A file deleted in the work tree but not yet in the index has nothing to say.
            let Ok(text) = fs::read_to_string(paths::root().join(file)) else { continue };
            faults.extend(named(file, &text, more));
        }
    }
    Ok(faults)
}

/// Impure crates in any dependency table of a manifest, tests included.
fn listed(manifest: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(manifest).with_context(|| manifest.display().to_string())?;
    let table: toml::Table = toml::from_str(&text)?;
    let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
    let names = kinds.iter().filter_map(|kind| table.get(*kind)?.as_table()).flat_map(|t| t.keys());
    Ok(names
        .filter(|name| IMPURE_CRATES.contains(&name.as_str()))
        .map(|name| format!("{} lists {name}", manifest.display()))
        .collect())
}

/// Package name → names of its normal (not dev, not build) dependencies.
fn normal_dependencies(metadata: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let names: BTreeMap<String, String> =
        list(&metadata["packages"]).iter().map(|p| (text(&p["id"]), text(&p["name"]))).collect();
    let name = |id: &Value| names.get(&text(id)).cloned().unwrap_or_default();
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for node in list(&metadata["resolve"]["nodes"]) {
        let normal = list(&node["deps"]).into_iter().filter(|dep| {
            list(&dep["dep_kinds"])
                .iter()
                .any(|kind| kind["kind"].is_null() && kind["target"].is_null())
        });
        graph.entry(name(&node["id"])).or_default().extend(normal.map(|dep| name(&dep["pkg"])));
    }
    graph
}

/// A shortest path from `from` to each crate it reaches.
fn reachable(graph: &BTreeMap<String, BTreeSet<String>>, from: &str) -> Vec<Vec<String>> {
    let mut paths = vec![vec![from.to_string()]];
    let mut seen = BTreeSet::from([from.to_string()]);
    let mut next = 0;
    while let Some(path) = paths.get(next).cloned() {
        next += 1;
        let last = path.last().cloned().unwrap_or_default();
        for name in graph.get(&last).into_iter().flatten() {
            if seen.insert(name.clone()) {
                paths.push([path.as_slice(), std::slice::from_ref(name)].concat());
            }
        }
    }
    paths
}

/// Impure names in one source file, up to its test module, comments left out. A file that is a
/// test module itself says so by `#![cfg(test)]`.
fn named(file: &str, text: &str, more: &[&'static str]) -> Vec<String> {
    if text.lines().any(|line| line.trim() == "#![cfg(test)]") {
        return Vec::new();
    }
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    // `#[cfg(test)] mod name;` names another file; what follows it here is no test.
    let inline_tests = lines.windows(2).position(|pair| {
        matches!(pair, ["#[cfg(test)]", next] if !(next.contains("mod ") && next.ends_with(';')))
    });
    let code = text.lines().enumerate().take(inline_tests.unwrap_or(lines.len()));
    code.filter(|(_, line)| !line.trim_start().starts_with("//"))
        .flat_map(|(number, line)| {
            let names = IMPURE_NAMES.iter().chain(more);
            let found = names.filter(move |name| has_word(line, name));
            found.map(move |name| format!("{file}:{}: names {name}", number + 1))
        })
        .collect()
}

/// Whether `line` has `name` not as the tail or head of a longer word (`Instantiate` is no clock).
fn has_word(line: &str, name: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(name).any(|(at, _)| {
        let before = line.get(..at).and_then(|s| s.chars().next_back());
        let after = line.get(at + name.len()..).and_then(|s| s.chars().next());
        !before.is_some_and(part) && !after.is_some_and(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impure_names_are_found_in_code_only() {
        let text = "use std::fs;\n// std::fs is banned\nlet x: Instantiate;\nInstant::now();\n\
                    #[cfg(test)]\nuse std::net;\n";
        assert_eq!(named("a.rs", text, &[]), ["a.rs:1: names std::fs", "a.rs:4: names Instant"]);
        let more = named("b.rs", "use crate::key::sign;\n", &["crate::key"]);
        assert_eq!(more, ["b.rs:1: names crate::key"]);
    }

    #[test]
    fn an_indirect_dependency_is_found_with_its_path() {
        let edge = |to: &[&str]| to.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        let graph = BTreeMap::from([
            ("formats".to_string(), edge(&["serde", "client"])),
            ("client".to_string(), edge(&["tokio"])),
        ]);
        let found = reachable(&graph, "formats");
        assert!(found.contains(&["formats", "client", "tokio"].map(String::from).to_vec()));
    }
}
