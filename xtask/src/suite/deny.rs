//! `deny.toml` enforced from `cargo metadata`: licences, sources and bans.
//!
//! Stands in for cargo-deny where that is not installed (building it takes longer than all our
//! tests, and its advisory database is not on a package registry); where it is, it runs as well,
//! on the same file. Duplicate versions are printed, not refused.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use racklet_tools::cmd::{Cmd, which};
use racklet_tools::paths;
use serde::Deserialize;

use super::runner::cargo;
use super::spdx;

#[derive(Deserialize)]
struct Rules {
    graph: Graph,
    licenses: Licences,
    bans: Bans,
    sources: Origins,
}

#[derive(Deserialize)]
struct Graph {
    targets: Vec<String>,
}

#[derive(Deserialize)]
struct Licences {
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

/// A crate nobody may depend on, except the crates in `wrappers`.
#[derive(Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    #[serde(default)]
    wrappers: Vec<String>,
    reason: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Origins {
    allow_registry: Vec<String>,
}

/// The parts of `cargo metadata` that the rules are about.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize, Clone)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    dependencies: Vec<String>,
}

/// Every breach of `deny.toml`, one line each.
pub(super) fn check() -> Result<Vec<String>> {
    let text =
        std::fs::read_to_string(paths::root().join("deny.toml")).context("read deny.toml")?;
    let rules: Rules = toml::from_str(&text).context("deny.toml")?;
    let mut packages = BTreeMap::new();
    let mut edges = BTreeSet::new();
    for target in &rules.graph.targets {
        let args = ["metadata", "--locked", "--format-version", "1", "--filter-platform", target];
        let json = cargo(&args).run()?.stdout;
        let metadata: Metadata = serde_json::from_str(&json).context("cargo metadata")?;
        // `packages` lists every platform's; only the nodes are filtered.
        for node in metadata.resolve.nodes {
            edges.extend(node.dependencies.iter().map(|to| (node.id.clone(), to.clone())));
            packages.extend(
                metadata
                    .packages
                    .iter()
                    .filter(|p| p.id == node.id)
                    .map(|p| (p.id.clone(), p.clone())),
            );
        }
    }
    let mut faults = breaches(&rules, &packages, &edges);
    if which("cargo-deny").is_some() {
        let done = Cmd::new("cargo")
            .args(["deny", "--offline", "check", "bans", "licenses", "sources"])
            .current_dir(&paths::root())
            .finish()?;
        if done.code != 0 {
            faults.push(done.output());
        }
    }
    Ok(faults)
}

fn breaches(
    rules: &Rules,
    packages: &BTreeMap<String, Package>,
    edges: &BTreeSet<(String, String)>,
) -> Vec<String> {
    let mut faults = Vec::new();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in packages.values() {
        versions.entry(&package.name).or_default().insert(&package.version);
        let shown = format!("{} {}", package.name, package.version);
        if let Some(source) = &package.source {
            let from = source.strip_prefix("registry+").unwrap_or(source);
            if !rules.sources.allow_registry.iter().any(|allowed| allowed == from) {
                faults.push(format!("{shown} comes from {source}, which deny.toml does not allow"));
            }
        }
        match &package.license {
            None => faults.push(format!("{shown} states no licence")),
            Some(licence) if !spdx::satisfied(licence, &rules.licenses.allow) => {
                faults.push(format!("{shown} is under {licence}, which deny.toml does not allow"));
            }
            Some(_) => {}
        }
    }
    for (from, to) in edges {
        let (Some(from), Some(to)) = (packages.get(from), packages.get(to)) else { continue };
        for ban in rules.bans.deny.iter().filter(|ban| ban.name == to.name) {
            if !ban.wrappers.contains(&from.name) {
                faults.push(format!("{} depends on {}: {}", from.name, to.name, ban.reason));
            }
        }
    }
    for (name, found) in versions.iter().filter(|(_, found)| found.len() > 1) {
        println!(
            "   note: {name} in versions {}",
            found.iter().copied().collect::<Vec<_>>().join(", ")
        );
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, license: Option<&str>, source: Option<&str>) -> (String, Package) {
        let text = |value: &str| value.to_string();
        let (license, source) = (license.map(text), source.map(text));
        let package =
            Package { id: text(name), name: text(name), version: text("1.0.0"), license, source };
        (text(name), package)
    }

    #[test]
    fn each_rule_finds_its_breach_and_nothing_else() {
        let rules: Rules = toml::from_str(
            r#"
            graph.targets = []
            licenses.allow = ["MIT"]
            bans.deny = [{ crate = "bad", wrappers = ["tolerated"], reason = "checks nothing" }]
            sources.allow-registry = ["https://registry.example"]
            "#,
        )
        .expect("rules parse");
        let good = Some("registry+https://registry.example");
        let packages = BTreeMap::from([
            package("ours", Some("MIT"), None),
            package("tolerated", Some("MIT"), good),
            package("bad", Some("MIT"), good),
            package("copyleft", Some("GPL-3.0-only"), good),
            package("unlicensed", None, good),
            package("elsewhere", Some("MIT"), Some("git+https://git.example/x")),
        ]);
        let edge = |from: &str, to: &str| (from.to_string(), to.to_string());
        let edges = BTreeSet::from([edge("ours", "bad"), edge("tolerated", "bad")]);
        assert_eq!(
            breaches(&rules, &packages, &edges),
            [
                "copyleft 1.0.0 is under GPL-3.0-only, which deny.toml does not allow",
                "elsewhere 1.0.0 comes from git+https://git.example/x, which deny.toml does not allow",
                "unlicensed 1.0.0 states no licence",
                "ours depends on bad: checks nothing",
            ]
        );
    }
}
