//! Programs built for release contain no switch that makes them fail or weakens a check.
//!
//! Fault injection exists only behind the feature `fail`, and everything behind it is reached
//! through an environment variable whose name starts with [`MARKER`]: a binary without that string
//! has no such code.

use std::fs;

use anyhow::Result;
use racklet_tools::paths;
use racklet_tools::programs::{self, PROGRAMS};

use crate::dist::{self, MARKER};
use crate::tracked::tracked_files;

/// Looks into the agent as it is shipped and into the other programs of the tests: features, not profiles,
/// decide what is in them, and [`dist::build`] looks again. One line for each breach.
pub(super) fn check() -> Result<Vec<String>> {
    programs::command().watch()?;
    let dir = programs::tests_folder();
    let mut faults = sources()?;
    for program in [dir.join("signer"), dir.join("repo-server"), programs::agent()?] {
        faults.extend(dist::look(&program)?);
    }
    Ok(faults)
}

/// A crate with a `fail` feature must use the marker: otherwise looking for it proves nothing.
fn sources() -> Result<Vec<String>> {
    let files = tracked_files()?;
    let read = |file: &str| fs::read_to_string(paths::root().join(file)).unwrap_or_default();
    let mut faults = Vec::new();
    for program in PROGRAMS {
        let gated = |file: &&String| {
            file.starts_with(&format!("{program}/src/"))
                && read(file).contains("feature = \"fail\"")
        };
        let manifest: toml::Table = toml::from_str(&read(&format!("{program}/Cargo.toml")))?;
        let features = manifest.get("features").and_then(toml::Value::as_table);
        let Some(features) = features.filter(|features| features.contains_key("fail")) else {
            continue;
        };
        let default = features.get("default").and_then(toml::Value::as_array);
        if default.is_some_and(|list| list.iter().any(|item| item.as_str() == Some("fail"))) {
            faults.push(format!("{program}: fault injection is a default feature"));
        }
        if !files.iter().filter(gated).any(|file| read(file).contains(MARKER)) {
            faults.push(format!("{program}: feature `fail` is not reached through {MARKER}…"));
        }
    }
    Ok(faults)
}
