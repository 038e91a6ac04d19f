//! What one of our programs is made of, as an SPDX 2.3 document in JSON.
//!
//! The crates are those that are linked into it (`cargo tree`, without build scripts and macros), with the
//! checksums of the lock file. The document says nothing that differs between two builds of one commit.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use racklet_tools::cmd::Cmd;
use racklet_tools::paths;
use serde::Deserialize;
use serde_json::{Value, json};

/// One crate of the tree: name, version, licence.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Crate {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) licence: String,
}

impl Crate {
    /// The identifier in the document: letters, digits, `.` and `-` (SPDX 2.3, 7.2).
    fn id(&self) -> String {
        let text = format!("SPDXRef-{}-{}", self.name, self.version);
        text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect()
    }
}

/// The program a document is about.
pub(crate) struct Subject<'a> {
    /// Its package and file name.
    pub(crate) program: &'a str,
    /// SHA-256 of the file, hexadecimal.
    pub(crate) sha256: &'a str,
    /// The target it was built for, as rustc names it.
    pub(crate) target: &'a str,
}

/// What is linked into a program; the first is its own package.
pub(crate) fn crates(program: &str, target: &str) -> Result<Vec<Crate>> {
    Ok(edges(&tree(program, target)?)?.into_iter().map(|(one, _)| one).collect())
}

fn tree(program: &str, target: &str) -> Result<String> {
    Cmd::cargo()
        .args(["tree", "--locked", "-p", program, "-e", "no-dev,no-build,no-proc-macro"])
        .args(["--target", target, "--prefix", "depth", "--format", "|{p}|{l}"])
        .read()
}

/// The document of one program.
pub(crate) fn document(subject: &Subject<'_>) -> Result<String> {
    let tree = tree(subject.program, subject.target)?;
    let sums = checksums(&std::fs::read_to_string(paths::root().join("Cargo.lock"))?)?;
    let created = Cmd::new("git")
        .args(["log", "-1", "--date=format-local:%Y-%m-%dT%H:%M:%SZ", "--format=%cd"])
        .env("TZ", "UTC")
        .current_dir(&paths::root())
        .read()?;
    let value = write(subject, &edges(&tree)?, &sums, &created)?;
    Ok(serde_json::to_string_pretty(&value)? + "\n")
}

/// SHA-256 of every crate of a registry, by name and version.
fn checksums(lock: &str) -> Result<BTreeMap<(String, String), String>> {
    #[derive(Deserialize)]
    struct Lock {
        package: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        version: String,
        checksum: Option<String>,
    }
    let lock: Lock = toml::from_str(lock).context("Cargo.lock")?;
    let sums = lock.package.into_iter();
    Ok(sums.filter_map(|one| Some(((one.name, one.version), one.checksum?))).collect())
}

/// Every crate with those it depends on; the first is the program's. What `cargo tree` writes with
/// `--prefix depth` is a crate in a line behind its depth.
fn edges(tree: &str) -> Result<Vec<(Crate, Vec<Crate>)>> {
    let mut found: Vec<(Crate, Vec<Crate>)> = Vec::new();
    let mut path: Vec<Crate> = Vec::new();
    for line in tree.lines().filter(|line| !line.is_empty()) {
        let (depth, one) = parse(line).with_context(|| format!("`cargo tree` wrote {line:?}"))?;
        path.truncate(depth);
        if let Some(parent) = path.last()
            && let Some((_, below)) = found.iter_mut().find(|(known, _)| known == parent)
            && !below.contains(&one)
        {
            below.push(one.clone());
        }
        if !found.iter().any(|(known, _)| *known == one) {
            found.push((one.clone(), Vec::new()));
        }
        path.push(one);
    }
    Ok(found)
}

/// `2|bytes v1.2.3|MIT`, with more behind the version for crates of ours and for repeated ones.
fn parse(line: &str) -> Option<(usize, Crate)> {
    let mut parts = line.split('|');
    let depth = parts.next()?.parse().ok()?;
    let mut words = parts.next()?.split_whitespace();
    let name = words.next()?.to_owned();
    let version = words.next()?.strip_prefix('v')?.to_owned();
    let licence = parts.next()?.trim_end_matches(" (*)").trim();
    let licence = if licence.is_empty() { "NOASSERTION" } else { licence };
    Some((depth, Crate { name, version, licence: licence.replace('/', " OR ") }))
}

fn write(
    subject: &Subject<'_>,
    edges: &[(Crate, Vec<Crate>)],
    sums: &BTreeMap<(String, String), String>,
    created: &str,
) -> Result<Value> {
    let (program, _) = edges.first().context("a tree with a root")?;
    let depends = edges.iter().flat_map(|(from, below)| {
        below.iter().map(|to| relation(&from.id(), "DEPENDS_ON", &to.id())).collect::<Vec<_>>()
    });
    let describes = relation("SPDXRef-DOCUMENT", "DESCRIBES", &program.id());
    Ok(json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("{}-{}", subject.program, program.version),
        "documentNamespace": format!(
            "https://spdx.org/spdxdocs/{}-{}-{}", subject.program, program.version, subject.sha256
        ),
        "creationInfo": { "created": created, "creators": ["Tool: cargo-xtask-dist"] },
        "comment": format!("built for {}", subject.target),
        "packages": edges.iter().map(|(one, _)| package(one, subject, sums)).collect::<Vec<_>>(),
        "relationships": std::iter::once(describes).chain(depends).collect::<Vec<_>>(),
    }))
}

fn relation(from: &str, kind: &str, to: &str) -> Value {
    json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to })
}

fn package(one: &Crate, subject: &Subject<'_>, sums: &BTreeMap<(String, String), String>) -> Value {
    let sum = sums.get(&(one.name.clone(), one.version.clone())).map(String::as_str);
    let sum = if one.name == subject.program { Some(subject.sha256) } else { sum };
    let origin = match sum {
        Some(_) if one.name != subject.program => {
            format!("https://crates.io/api/v1/crates/{}/{}/download", one.name, one.version)
        }
        _ => "NOASSERTION".to_owned(),
    };
    let mut package = json!({
        "SPDXID": one.id(),
        "name": one.name,
        "versionInfo": one.version,
        "downloadLocation": origin,
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": one.licence,
        "copyrightText": "NOASSERTION",
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": format!("pkg:cargo/{}@{}", one.name, one.version),
        }],
    });
    if let (Some(sum), Some(fields)) = (sum, package.as_object_mut()) {
        let sums = json!([{ "algorithm": "SHA256", "checksumValue": sum }]);
        fields.insert("checksums".to_owned(), sums);
    }
    package
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "0|agent v0.1.0 (/home/me)|Apache-2.0\n1|http v1.5.0|MIT/Apache-2.0\n2|bytes v1.0.0|MIT\n\
        1|bytes v1.0.0|MIT\n1|http v1.5.0 (*)|MIT/Apache-2.0\n1|ours v0.1.0 (/home/me/ours)|Apache-2.0\n";

    #[test]
    fn a_tree_becomes_packages_and_relationships() {
        let edges = edges(TREE).expect("it parses");
        let names = |list: &[Crate]| list.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
        let shown: Vec<_> = edges.iter().map(|(one, to)| (one.name.clone(), names(to))).collect();
        let row = |name: &str, to: &[&str]| {
            (name.to_owned(), to.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(
            shown,
            [
                row("agent", &["http", "bytes", "ours"]),
                row("http", &["bytes"]),
                row("bytes", &[]),
                row("ours", &[])
            ]
        );
        let sums = BTreeMap::from([(("bytes".to_owned(), "1.0.0".to_owned()), "ab".to_owned())]);
        let subject = Subject { program: "agent", sha256: "cd", target: "any" };
        let text = write(&subject, &edges, &sums, "2026-01-01T00:00:00Z")
            .expect("it is written")
            .to_string();
        assert!(!text.contains("/home"), "{text}");
        for part in ["\"checksumValue\":\"ab\"", "\"checksumValue\":\"cd\"", "MIT OR Apache-2.0"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn another_format_is_an_error() {
        assert!(edges("agent v0.1.0\n").is_err());
    }
}
