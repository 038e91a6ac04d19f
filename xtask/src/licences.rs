//! The licences of the crates in one of our programs, in one text: permissive licences require it beside the program.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use racklet_tools::cmd::Cmd;

use crate::sbom;

/// How the names of files with licences and notices begin, in capitals.
const NAMES: [&str; 6] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];

/// A list of all crates with their licences as they declare them, then each text with the crates that have it.
pub(crate) fn texts(program: &str, target: &str) -> Result<String> {
    let folders = folders()?;
    let mut list = BTreeSet::new();
    let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for one in sbom::crates(program, target)? {
        let name = format!("{} {}", one.name, one.version);
        list.insert(format!("  {name} ({})", one.licence));
        let folder = folders.get(&name).with_context(|| format!("cargo knows no {name}"))?;
        for text in in_folder(folder)? {
            texts.entry(text).or_default().insert(name.clone());
        }
    }
    Ok(written(program, &list, texts))
}

/// Sorted by crates: the order does not depend on where anything lies.
fn written(
    program: &str,
    list: &BTreeSet<String>,
    texts: BTreeMap<String, BTreeSet<String>>,
) -> String {
    let lines = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>();
    let mut out = format!("{program} contains these crates:\n\n{}\n", lines(list).join("\n"));
    let mut blocks: Vec<(String, String)> =
        texts.into_iter().map(|(text, crates)| (lines(&crates).join(", "), text)).collect();
    blocks.sort();
    for (crates, text) in blocks {
        out += &format!("\n{}\n{crates}:\n\n{}\n", "-".repeat(78), text.trim_end());
    }
    out
}

/// Where the sources of each crate are, by `name version`.
fn folders() -> Result<BTreeMap<String, PathBuf>> {
    let metadata = Cmd::cargo().args(["metadata", "--locked", "--format-version", "1"]).run()?;
    let metadata = metadata.json()?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists packages")?;
    let entry = |package: &serde_json::Value| -> Option<(String, PathBuf)> {
        let name = format!("{} {}", package["name"].as_str()?, package["version"].as_str()?);
        let manifest = Path::new(package["manifest_path"].as_str()?);
        Some((name, manifest.parent()?.to_owned()))
    };
    Ok(packages.iter().filter_map(entry).collect())
}

fn in_folder(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        if NAMES.iter().any(|start| name.starts_with(start)) && path.is_file() {
            let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            found.push(String::from_utf8_lossy(&bytes).replace("\r\n", "\n"));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_stands_once_with_its_crates() {
        let set = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let texts = BTreeMap::from([
            ("Do what you like.\n".to_owned(), set(&["b 1.0.0", "a 2.0.0"])),
            ("As is.".to_owned(), set(&["c 3.0.0"])),
        ]);
        let text = written("agent", &set(&["  a 2.0.0 (MIT)", "  b 1.0.0 (MIT)"]), texts);
        assert!(
            text.starts_with("agent contains these crates:\n\n  a 2.0.0 (MIT)\n  b 1.0.0 (MIT)\n")
        );
        assert!(text.contains("\na 2.0.0, b 1.0.0:\n\nDo what you like.\n\n---"), "{text}");
        assert!(text.ends_with("\nc 3.0.0:\n\nAs is.\n"), "{text}");
    }
}
