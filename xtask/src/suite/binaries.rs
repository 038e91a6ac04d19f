//! Every test binary of the workspace, two at a time: many wait most of their time, for timeouts of the network
//! and for disks, and `cargo test` runs one after the other.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use racklet_tools::cmd::{Cmd, Finished};
use racklet_tools::pulse::Pulse;
use serde::Deserialize;

use super::progress::{Ended, Progress, together};
use super::runner::{Outcome, cargo};
use super::summary::Binary as Ran;

/// A test binary that says nothing for so long hangs. The slowest single test takes two minutes; a loaded machine
/// makes that six.
const SILENCE: Duration = Duration::from_secs(15 * 60);
/// How many run at the same time.
const LANES: usize = 2;

/// A line of cargo's about something that it built, as far as we read it.
#[derive(Debug, Deserialize)]
struct Artifact {
    reason: String,
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
    profile: Option<Profile>,
    executable: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Target {
    kind: Vec<String>,
    src_path: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Profile {
    test: bool,
}

/// One test binary.
#[derive(Debug, PartialEq)]
struct Binary {
    /// As `cargo test` tells that it begins.
    begins: String,
    /// The folder of its package, in which it runs.
    folder: PathBuf,
    program: PathBuf,
}

impl Binary {
    fn of(artifact: Artifact) -> Option<Self> {
        let is_test = artifact.reason == "compiler-artifact" && artifact.profile?.test;
        let program = artifact.executable.filter(|_| is_test)?;
        let folder = artifact.manifest_path?.parent()?.to_owned();
        let target = artifact.target?;
        let source = target.src_path.strip_prefix(&folder).unwrap_or(&target.src_path).display();
        let unit = if target.kind.iter().any(|kind| kind == "test") { "" } else { "unittests " };
        let begins = format!("     Running {unit}{source} ({})", program.display());
        Some(Binary { begins, folder, program })
    }

    /// It runs as `cargo test` runs it.
    fn command(&self) -> Cmd {
        Cmd::cargo_runs(&self.program)
            .current_dir(&self.folder)
            .env("CARGO_MANIFEST_DIR", &self.folder)
            .env("CI", "true")
            .env("INSTA_UPDATE", "no")
    }
}

/// What cargo says that it built, in JSON, a message in a line.
fn binaries(said: &str) -> Vec<Binary> {
    let messages = said.lines().filter_map(|line| serde_json::from_str(line).ok());
    messages.filter_map(Binary::of).collect()
}

/// Runs the tests that `cargo test` with these arguments runs, and the examples in documentation where that is
/// asked for. What is not built is built before.
pub(super) fn run(
    pulse: &Pulse,
    selection: &[&str],
    documentation: bool,
) -> Result<(Outcome, Vec<Ran>)> {
    let build = ["test", "--workspace", "--locked", "--no-run", "--message-format"];
    let built = cargo(&build).arg("json-render-diagnostics").args(selection).finish()?;
    if built.code != 0 {
        return Ok((Outcome::of_command(&built), Vec::new()));
    }
    let waiting = Mutex::new(VecDeque::from(binaries(&built.stdout)));
    let lane = || -> Result<Vec<(Ended, Finished)>> {
        let next = || waiting.lock().ok().and_then(|mut waiting| waiting.pop_front());
        std::iter::from_fn(next).map(|binary| one(pulse, &binary)).collect()
    };
    let lanes = thread::scope(|scope| {
        let begun: Vec<_> = (0..LANES).map(|_| scope.spawn(lane)).collect();
        begun.into_iter().map(|lane| lane.join().ok()).collect::<Vec<_>>()
    });
    let mut runs = Vec::new();
    for lane in lanes {
        runs.extend(lane.context("a thread that ran tests panicked")??);
    }
    if documentation {
        let command = cargo(&["test", "--workspace", "--locked", "--no-fail-fast", "--doc"]);
        runs.push(follow(pulse, command, None)?);
    }
    Ok(together(runs))
}

fn one(pulse: &Pulse, binary: &Binary) -> Result<(Ended, Finished)> {
    // Twice the processors: half of the time tests wait.
    let threads = thread::available_parallelism().map_or(2, |count| 2 * count.get());
    let command = binary.command().env("RUST_TEST_THREADS", threads.to_string());
    follow(pulse, command, Some(&binary.begins))
}

fn follow(pulse: &Pulse, command: Cmd, begins: Option<&str>) -> Result<(Ended, Finished)> {
    let mut progress = Progress::new(pulse);
    begins.into_iter().for_each(|line| progress.line(line));
    let done = command.silent_for(SILENCE).follow(|line| progress.line(line))?;
    Ok((progress.end(), done))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_binaries_are_found_among_what_cargo_built() {
        let said = r#"
{"reason":"compiler-artifact","manifest_path":"/p/formats/Cargo.toml","target":{"kind":["lib"],"src_path":"/p/formats/src/lib.rs"},"profile":{"test":false},"executable":null}
{"reason":"compiler-artifact","manifest_path":"/p/formats/Cargo.toml","target":{"kind":["lib"],"src_path":"/p/formats/src/lib.rs"},"profile":{"test":true},"executable":"/t/formats-1"}
{"reason":"compiler-artifact","manifest_path":"/p/signer/Cargo.toml","target":{"kind":["bin"],"src_path":"/p/signer/src/main.rs"},"profile":{"test":false},"executable":"/t/signer"}
{"reason":"compiler-artifact","manifest_path":"/p/signer/Cargo.toml","target":{"kind":["test"],"src_path":"/p/signer/tests/keys.rs"},"profile":{"test":true},"executable":"/t/keys-2"}
{"reason":"build-finished","success":true}
not a message
"#;
        let binary = |begins: &str, folder: &str, program: &str| Binary {
            begins: begins.to_owned(),
            folder: folder.into(),
            program: program.into(),
        };
        let wanted = [
            binary(
                "     Running unittests src/lib.rs (/t/formats-1)",
                "/p/formats",
                "/t/formats-1",
            ),
            binary("     Running tests/keys.rs (/t/keys-2)", "/p/signer", "/t/keys-2"),
        ];
        assert_eq!(binaries(said), wanted);
    }
}
