//! The steps of `cargo xtask prove`: what is proved by running it everywhere.
//!
//! Power cuts run in idle time, beside the other steps: those wait for boots, timeouts and disks.

use std::fs;

use anyhow::{Context, Result};
use racklet_tools::cmd::Cmd;
use racklet_tools::{paths, programs, report};

use super::release;
use super::runner::{Outcome, POWER_CUTS, Step, Suite, build_programs};
use crate::dist;

/// The name of the tier.
pub(super) const TIER: &str = "prove";

/// The longest wait first.
pub(super) const STEPS: &[Step] = &[
    Step { name: "programs are built", quick: false, run: |suite| suite.build(build_programs()) },
    Step { name: "the agent is built as it is shipped", quick: false, run: agent },
    Step {
        name: "virtual machines",
        quick: false,
        run: |suite| virtual_machines(suite, &["--prove"]),
    },
    Step {
        name: "release programs hold no fault injection",
        quick: false,
        run: |_| Ok(Outcome::of_findings(release::check()?)),
    },
    Step {
        name: "two builds of the agent are the same",
        quick: false,
        run: |_| Ok(Outcome::of_findings(dist::reproduce::agent(&programs::Place::here())?)),
    },
    Step { name: POWER_CUTS, quick: false, run: power_cuts },
];

/// Guests run it, and the next steps look into it.
fn agent(suite: &mut Suite) -> Result<Outcome> {
    suite.follow_cargo(programs::Place::here().agent_command()?)
}

/// Each cell counts as one; its row is shown when it ends.
pub(super) fn virtual_machines(suite: &mut Suite, options: &[&str]) -> Result<Outcome> {
    let file = paths::target().join("vm-report.json");
    if file.exists() {
        fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))?;
    }
    let mut command = Cmd::new(programs::tests_folder().join("racklet-vm"));
    // Whoever asks for this step alone has not built them.
    if suite.built {
        command = command.arg("--no-build");
    } else {
        let outcome = suite.build(build_programs())?;
        if outcome.failed > 0 {
            return Ok(outcome);
        }
    }
    let command = command.args(options).arg("--report").arg(&file);
    let done = command.current_dir(&paths::root()).follow(|line| suite.pulse.say(line))?;
    if !file.exists() {
        return Ok(Outcome { output: String::new(), ..Outcome::of_command(&done) });
    }
    Ok(of_cells(&report::read(&file)?))
}

fn of_cells(cells: &[report::Cell]) -> Outcome {
    let failed = |cell: &report::Cell| Some(format!("{}: {}", cell.name, cell.error.as_ref()?));
    let failures: Vec<String> = cells.iter().filter_map(failed).collect();
    let output = failures.iter().map(|failure| format!("{failure}\n")).collect();
    let failed = failures.len() as u64;
    Outcome { passed: cells.len() as u64 - failed, failed, failures, output }
}

/// Its tables are shown however it ends: what was cut, and that nothing was lost.
fn power_cuts(suite: &mut Suite) -> Result<Outcome> {
    let done = suite.power_cuts()?;
    print!("{}", done.stdout);
    Ok(Outcome { output: done.stderr.clone(), ..Outcome::of_command(&done) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_that_failed_is_named_with_its_error() {
        let cell = |name: &str, error: Option<&str>| report::Cell {
            name: name.to_owned(),
            seconds: 1.0,
            error: error.map(str::to_owned),
        };
        let outcome = of_cells(&[cell("rack", None), cell("grub-cycle", Some("no prompt\nlast"))]);
        assert_eq!((outcome.passed, outcome.failed), (1, 1));
        assert_eq!(outcome.failures, ["grub-cycle: no prompt\nlast"]);
    }
}
