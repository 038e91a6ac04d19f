//! `cargo xtask previous`: the agent of this commit and the one of the previous landing on the same nodes, each
//! going on where the other one stopped (`tests/tests/previous_landing/main.rs`).
//!
//! ```text
//! tests/previous-landing              the commit that landed last
//! target/previous/COMMIT/sources/     its sources, out of git
//! target/previous/COMMIT/target/      what cargo makes of them: the agent as it was shipped
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use racklet_tools::cmd::Cmd;
use racklet_tools::paths;
use racklet_tools::programs::Place;

/// The file that names the commit.
const COMMIT: &str = "tests/previous-landing";
/// The tests that need its agent, by the beginning of their names.
const BOTH_WAYS: &str = "both_ways::";
/// The test that writes the state of its agent down.
const FIXTURES: &str = "fixtures::write_the_fixtures";

/// Options of `cargo xtask previous`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Write the state that its agent leaves in each phase to the tests' fixtures, in place of those there.
    #[arg(long)]
    write_fixtures: bool,
}

/// `cargo xtask previous`
pub(crate) fn run(options: &Options) -> Result<()> {
    let agent = agent()?;
    tests(&agent, if options.write_fixtures { FIXTURES } else { BOTH_WAYS }).watch()
}

/// The tests of both ways, with the agent built when it is not there yet.
pub(crate) fn both_ways() -> Result<Cmd> {
    Ok(tests(&agent()?, BOTH_WAYS))
}

fn tests(agent: &Path, names: &str) -> Cmd {
    // With the features that everything else here has: nothing is compiled twice.
    Cmd::cargo()
        .args(["test", "--locked", "--workspace", "--test", "previous_landing", "--", "--ignored"])
        .arg(names)
        .env("RACKLET_PREVIOUS_AGENT", agent)
}

/// The agent of the previous landing, built with the options of `cargo xtask dist`.
fn agent() -> Result<PathBuf> {
    let text = fs::read_to_string(paths::root().join(COMMIT)).context(COMMIT)?;
    let commit = text.trim();
    let whole = commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    ensure!(whole, "{COMMIT}: {commit:?} is no whole commit id");
    let folder = paths::target().join("previous").join(commit);
    let sources = folder.join("sources");
    if !sources.exists() {
        take_out(commit, &folder, &sources)?;
    }
    let Place { cargo_home, .. } = Place::here();
    Place { sources, cargo_home, target: folder.join("target"), compilers: None }.agent()
}

/// Writes the files of a commit to `sources`, which is there only once it is whole.
fn take_out(commit: &str, folder: &Path, sources: &Path) -> Result<()> {
    let git = |args: &[&str]| Cmd::new("git").args(args).current_dir(&paths::root());
    let there = git(&["cat-file", "-e", &format!("{commit}^{{commit}}")]).finish()?.code == 0;
    ensure!(
        there,
        "{COMMIT} names {commit}, which this clone does not have: run `git fetch --unshallow`, or `git fetch \
         origin {commit}`"
    );
    let partial = folder.join("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial).with_context(|| format!("remove {}", partial.display()))?;
    }
    fs::create_dir_all(&partial).with_context(|| format!("make {}", partial.display()))?;
    let archive = folder.join("sources.tar");
    git(&["archive", "--format=tar", "-o"]).arg(&archive).arg(commit).run()?;
    Cmd::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&partial).run()?;
    fs::remove_file(&archive).with_context(|| format!("remove {}", archive.display()))?;
    fs::rename(&partial, sources).with_context(|| format!("make {}", sources.display()))
}
