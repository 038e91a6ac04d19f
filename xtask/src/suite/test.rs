//! The steps of `cargo xtask test`.

use std::thread::{self, JoinHandle};
use std::time::SystemTime;

use anyhow::{Result, anyhow};
use racklet_tools::cmd::Cmd;
use racklet_tools::{paths, programs, room, setup};

use super::runner::{Outcome, Step, Suite, cargo};
use super::{advisories, binaries, deny, keys, purity};

/// The name of the tier.
pub(super) const TIER: &str = "test";

/// Cheapest first. These need nothing but cargo.
pub(super) const OF_THE_SOURCE: &[Step] = &[
    Step { name: "format", quick: true, run: |suite| suite.cargo(&["fmt", "--all", "--check"]) },
    Step { name: "lock files committed and complete", quick: true, run: |_| lock_files() },
    Step { name: "licences, sources, bans", quick: true, run: |_| findings(deny::check()) },
    Step { name: "advisories", quick: true, run: |_| findings(advisories::check(today()?)) },
    Step { name: "the pure crates do no I/O", quick: true, run: |_| findings(purity::check()) },
    Step {
        name: "no example key in anything packaged",
        quick: true,
        run: |_| findings(keys::check()),
    },
    Step {
        name: "clippy",
        quick: true,
        run: |suite| {
            let lint = ["clippy", "--workspace", "--all-targets", "--locked"];
            suite.cargo(&[&lint[..], &["--", "-D", "warnings"]].concat())
        },
    },
    Step {
        name: "docs",
        quick: false,
        run: |suite| suite.cargo(&["doc", "--workspace", "--no-deps", "--locked"]),
    },
];

/// These call other people's programs.
pub(super) const OF_THE_PROGRAMS: &[Step] = &[
    Step { name: BUILD, quick: false, run: |suite| suite.build(programs::build_all()) },
    Step { name: "tests", quick: true, run: tests },
];

const BUILD: &str = "programs and tests are built";

/// Installs what tests call, most of which a newcomer's machine lacks, beside the first steps. Whoever may not
/// install is told at once what is missing.
pub(super) fn begin_setup(quick: bool) -> Result<Option<JoinHandle<Result<()>>>> {
    let everything = setup::Options::everything();
    if quick {
        return Ok(None);
    }
    room::check(&room::TESTS)?;
    if !paths::is_root() {
        return setup::run(&everything).map(|()| None);
    }
    Ok(Some(thread::spawn(move || setup::run(&everything))))
}

/// Waits for it.
pub(super) fn end_setup(begun: Option<JoinHandle<Result<()>>>) -> Result<()> {
    match begun {
        Some(thread) => thread.join().map_err(|_| anyhow!("the thread of setup panicked"))?,
        None => Ok(()),
    }
}

/// Days since 1970-01-01.
fn today() -> Result<i64> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    Ok((since.as_secs() / 86_400).try_into()?)
}

fn findings(faults: Result<Vec<String>>) -> Result<Outcome> {
    faults.map(Outcome::of_findings)
}

/// Of the workspace, and of the two packages outside of it that compile our crates.
fn lock_files() -> Result<Outcome> {
    let mut faults = Vec::new();
    for folder in ["", "fuzz/engine", "tests/witness-clients"] {
        let checks = [
            Cmd::new("git").args(["ls-files", "--error-unmatch", "Cargo.lock"]),
            // With `--locked` it changes nothing, and fails where it would.
            cargo(&["update", "--workspace", "--locked", "--quiet"]),
        ];
        for check in checks {
            let done = check.current_dir(&paths::root().join(folder)).finish()?;
            if done.code != 0 {
                faults.push(format!("{folder}/Cargo.lock: {}", done.output().trim()));
            }
        }
    }
    Ok(Outcome::of_findings(faults))
}

fn tests(suite: &mut Suite) -> Result<Outcome> {
    let quick = suite.wanted.quick;
    if !quick && !suite.built {
        // `--only tests`: the tests run our programs, which `cargo test` alone does not all build.
        let outcome = suite.build(programs::build_all())?;
        if outcome.failed > 0 {
            return Ok(outcome);
        }
    }
    let selection: &[&str] = if quick { &["--lib", "--bins"] } else { &[] };
    let (outcome, ran) = binaries::run(&suite.pulse, selection, !quick)?;
    suite.summary.binaries = ran;
    Ok(outcome)
}
