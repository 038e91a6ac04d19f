//! Runs steps one after the other, each also when an earlier one failed, and keeps what came of them.

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use racklet_tools::cmd::{Cmd, Finished};
use racklet_tools::pulse::Pulse;
use racklet_tools::{programs, show};

use super::summary::{Row, Summary, cut};
use crate::sim;

/// At the latest after so long a step gives a sign of life.
const PULSE: Duration = Duration::from_secs(45);

/// The step whose program runs beside others.
pub(super) const POWER_CUTS: &str = "power cuts, I/O faults, faulty variants";

/// What is asked of a run.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Without the steps that take long.
    pub(super) quick: bool,
    /// Only the steps whose name contains this.
    pub(super) only: Option<String>,
    /// Whether [`POWER_CUTS`] is among the steps.
    pub(super) power_cuts: bool,
}

/// One step: its name, and what it does.
pub(super) struct Step {
    pub(super) name: &'static str,
    /// Whether it is part of `cargo xtask test --quick`.
    pub(super) quick: bool,
    pub(super) run: fn(&mut Suite) -> Result<Outcome>,
}

/// What one step found.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) passed: u64,
    pub(super) failed: u64,
    /// What failed, one line each; shown again at the end of the run.
    pub(super) failures: Vec<String>,
    /// Shown in full when something failed.
    pub(super) output: String,
}

impl Outcome {
    /// A command counts as one: passed when it exits 0.
    pub(super) fn of_command(done: &Finished) -> Self {
        let output = done.output();
        if done.code == 0 {
            return Self { passed: 1, failed: 0, failures: Vec::new(), output };
        }
        let error = output.lines().rev().find(|line| line.starts_with("error"));
        let last = error.or_else(|| output.lines().next_back()).unwrap_or_default();
        let failures = vec![format!("`{}` exited {}: {last}", done.shown, done.code)];
        Self { passed: 0, failed: 1, failures, output }
    }

    /// A list of faults counts as one: passed when it is empty.
    pub(super) fn of_findings(faults: Vec<String>) -> Self {
        let good = u64::from(faults.is_empty());
        let output = faults.iter().map(|fault| format!("{fault}\n")).collect();
        Self { passed: good, failed: 1 - good, failures: faults, output }
    }

    fn of_error(error: &anyhow::Error) -> Self {
        let text = format!("{error:#}");
        Self { passed: 0, failed: 1, failures: vec![cut(&text)], output: format!("{text}\n") }
    }
}

/// A run, as its steps see it.
pub(super) struct Suite {
    pub(super) wanted: Wanted,
    /// The sign of life of the step that runs.
    pub(super) pulse: Pulse,
    pub(super) summary: Summary,
    /// Whether our programs are there as tests want them.
    pub(super) built: bool,
    /// Begun as soon as it is built: it takes what the other steps leave of the processors.
    power_cuts: Option<JoinHandle<Result<Finished>>>,
}

impl Suite {
    pub(super) fn new(wanted: Wanted) -> Self {
        Self { wanted, pulse: pulse(), summary: Summary::default(), built: false, power_cuts: None }
    }

    pub(super) fn wants(&self, name: &str) -> bool {
        self.wanted.only.as_ref().is_none_or(|word| name.contains(word.as_str()))
    }

    /// Runs the steps that are wanted.
    pub(super) fn perform(&mut self, tier: &'static str, steps: &[Step]) {
        for step in steps {
            if !self.wants(step.name) || (self.wanted.quick && !step.quick) {
                continue;
            }
            println!("== {}", step.name);
            self.pulse = pulse();
            let started = Instant::now();
            let outcome = (step.run)(self).unwrap_or_else(|error| Outcome::of_error(&error));
            // Dropping the old one lets it say everything first.
            self.pulse = pulse();
            let took = started.elapsed();
            let word = if outcome.failed == 0 { "ok" } else { "FAILED" };
            if outcome.failed > 0 {
                print!("{}", outcome.output);
            }
            println!("   {word}, {}", show::time(took));
            let Outcome { passed, failed, failures, .. } = outcome;
            self.summary.rows.push(Row { tier, step: step.name, took, passed, failed, failures });
        }
    }

    /// Something beside the steps failed.
    pub(super) fn failed(&mut self, tier: &'static str, step: &'static str, error: &anyhow::Error) {
        let Outcome { passed, failed, failures, output } = Outcome::of_error(error);
        println!("== {step}\n{output}   FAILED");
        let took = Duration::ZERO;
        self.summary.rows.push(Row { tier, step, took, passed, failed, failures });
    }

    /// Prints the summary; ends the program with 1 when something failed.
    pub(super) fn end(self) -> Result<()> {
        drop(self.pulse);
        print!("{}", self.summary.text());
        // The last line says it; an error message after it would hide it from those who read the end.
        if self.summary.failed() > 0 { std::process::exit(1) } else { Ok(()) }
    }

    /// A cargo command as a step: the sign of life says which crate it is at.
    pub(super) fn cargo(&self, args: &[&str]) -> Result<Outcome> {
        self.follow_cargo(cargo(args))
    }

    pub(super) fn follow_cargo(&self, command: Cmd) -> Result<Outcome> {
        Ok(Outcome::of_command(&command.follow(|line| self.pulse.at(line.trim()))?))
    }

    /// Builds our programs with this command, and begins with the power cuts.
    pub(super) fn build(&mut self, command: Cmd) -> Result<Outcome> {
        let outcome = self.follow_cargo(command)?;
        self.built = outcome.failed == 0;
        let begin = self.wanted.power_cuts && self.power_cuts.is_none();
        if self.built && begin && self.wants(POWER_CUTS) {
            self.power_cuts = Some(thread::spawn(sim::check_in_idle_time));
        }
        Ok(outcome)
    }

    /// What the power cuts said, which are begun now if they were not before.
    pub(super) fn power_cuts(&mut self) -> Result<Finished> {
        match self.power_cuts.take() {
            Some(begun) => begun.join().map_err(|_| anyhow!("the thread that ran it panicked"))?,
            None => sim::check(!self.built),
        }
    }
}

fn pulse() -> Pulse {
    Pulse::new(PULSE, |line| println!("{line}"))
}

/// `cargo` as CI must see it: no colour, no snapshot updates, warnings in docs denied.
pub(super) fn cargo(args: &[&str]) -> Cmd {
    Cmd::cargo()
        .args(args)
        .env("CI", "true")
        .env("INSTA_UPDATE", "no")
        .env("RUSTDOCFLAGS", "-D warnings")
}

/// The command that builds what the proofs run, and no tests.
pub(super) fn build_programs() -> Cmd {
    programs::command().args(["--bin", "racklet-cuts", "--bin", "racklet-vm"])
}
