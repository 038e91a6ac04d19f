//! Two builds in two places give the same bytes.
//!
//! The second place is a copy of the files that git knows, in a folder of another name and depth, with another
//! home. Crates come from the same cache, reached under another path.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result};
use racklet_tools::cmd::Cmd;
use racklet_tools::cross::Compilers;
use racklet_tools::paths;
use racklet_tools::programs::Place;

use super::{copy, sha256};

/// Compares the programs in `dir` with those of a second build, for the same processor: one line for each that
/// differs.
pub(super) fn all(here: &Place, dir: &Path) -> Result<Vec<String>> {
    let temp = tempfile::tempdir()?;
    let place = elsewhere(temp.path(), here.compilers.clone())?;
    let others = place.others()?;
    let mut faults = Vec::new();
    for (file, program) in others.into_iter().chain([(place.agent()?, "update-agent")]) {
        faults.extend(compare(program, &dir.join(program), &file)?);
        faults.extend(names(&file)?);
    }
    Ok(faults)
}

/// The same of the agent alone, which runs as root on every node.
pub(crate) fn agent(here: &Place) -> Result<Vec<String>> {
    let one = here.agent()?;
    let temp = tempfile::tempdir()?;
    let other = elsewhere(temp.path(), here.compilers.clone())?.agent()?;
    Ok(compare("update-agent", &one, &other)?.into_iter().chain(names(&one)?).collect())
}

fn compare(program: &str, one: &Path, other: &Path) -> Result<Option<String>> {
    let (one, other) = (sha256(one)?, sha256(other)?);
    println!("   {program} {one}, built elsewhere {other}");
    Ok((one != other).then(|| format!("{program}: two builds differ")))
}

/// Names of our folders that are in a program.
fn names(program: &Path) -> Result<Vec<String>> {
    let bytes = fs::read(program).with_context(|| format!("read {}", program.display()))?;
    let here = Place::here();
    let found = [here.sources, here.cargo_home].into_iter().filter(|folder| {
        let name = folder.as_os_str().as_encoded_bytes();
        bytes.windows(name.len()).any(|window| window == name)
    });
    Ok(found.map(|folder| format!("{} names {}", program.display(), folder.display())).collect())
}

/// A copy of the sources below `temp`, and a home of cargo beside it.
fn elsewhere(temp: &Path, compilers: Option<Compilers>) -> Result<Place> {
    let sources = temp.join("a folder/of another depth/sources");
    let files = Cmd::new("git").args(["ls-files", "-z"]).current_dir(&paths::root()).read()?;
    for file in files.split('\0').filter(|file| !file.is_empty()) {
        let (from, to) = (paths::root().join(file), sources.join(file));
        if !from.exists() {
            continue;
        }
        let parent = to.parent().context("a file lies in a folder")?;
        fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        copy(&from, &to)?;
    }
    let cargo_home = temp.join("cargo");
    fs::create_dir_all(&cargo_home)?;
    for name in ["registry", "git", "config.toml", "config", "credentials.toml"] {
        let from = Place::here().cargo_home.join(name);
        if from.exists() {
            symlink(&from, cargo_home.join(name))?;
        }
    }
    Ok(Place { sources, cargo_home, target: temp.join("target"), compilers })
}
