//! The tables.

use std::collections::BTreeMap;

use crate::case::Case;
use crate::faults;
use crate::lying;
use crate::sweep::Found;
use crate::variants::Caught;

/// The head of the table of cuts.
pub fn head() -> String {
    format!(
        "{:36} {:>5} {:>9} {:>8} {:>8} {:>8} {:>6} {:>8}",
        "scenario / backend", "steps", "cut kinds", "once", "twice", "failures", "weak", "seconds"
    )
}

/// A row of it: steps of the uncut run, cuts × losses made, distinct states after one and two cuts.
pub fn line(row: &dyn Case, found: &Found) -> String {
    format!(
        "{:36} {:5} {:9} {:8} {:8} {:8} {:6} {:8.1}",
        row.name(),
        found.operations,
        found.crashes,
        found.once,
        found.twice,
        found.failed,
        found.weak,
        found.busy.as_secs_f64()
    )
}

/// The sums of a table of cuts.
#[derive(Debug, Default)]
pub struct Total {
    once: usize,
    twice: usize,
    weak: usize,
    two_runs: BTreeMap<String, usize>,
    seconds: f64,
    /// States that broke a promise.
    pub failed: usize,
}

impl Total {
    /// Adds a row.
    pub fn add(&mut self, found: &Found) {
        self.once += found.once;
        self.twice += found.twice;
        self.weak += found.weak;
        for (reason, count) in &found.two_runs {
            *self.two_runs.entry(reason.clone()).or_default() += count;
        }
        self.failed += found.failed;
        self.seconds += found.busy.as_secs_f64();
    }

    /// Distinct states.
    pub fn states(&self) -> usize {
        self.once + self.twice
    }

    /// In a sentence.
    pub fn words(&self) -> String {
        let mut text = format!(
            "{} distinct crash states ({} after one cut, {} after two), {} failures; {} recovered in \
             a second run; {} with the only copy of boot flags torn, as documented; {:.0} s of threads",
            self.states(),
            self.once,
            self.twice,
            self.failed,
            self.two_runs.values().sum::<usize>(),
            self.weak,
            self.seconds
        );
        for (reason, count) in &self.two_runs {
            text += &format!("\n  second run, {count}: {reason}");
        }
        text
    }
}

/// The head of the table of faults.
pub fn fault_head() -> String {
    format!(
        "{:36} {:>6} {:>7} {:>9} {:>6} {:>8} {:>8}",
        "scenario / backend", "calls", "runs", "unharmed", "lied", "failures", "seconds"
    )
}

/// A row of it.
pub fn fault_line(row: &dyn Case, found: &faults::Found) -> String {
    format!(
        "{:36} {:6} {:7} {:9} {:6} {:8} {:8.1}",
        row.name(),
        found.calls,
        found.runs,
        found.unharmed,
        found.lied,
        found.failed,
        found.busy.as_secs_f64()
    )
}

/// A faulty program, where it ran, and what caught it.
pub fn variant_line(name: &str, place: &str, caught: &Caught) -> String {
    format!(
        "{name:58} {place}, {}: {} [{} states]",
        caught.state,
        caught.why.chars().take(100).collect::<String>(),
        caught.of
    )
}

/// The head of the table of lying disks.
pub fn lying_head() -> String {
    format!("{:36} {:>7} {:>7}  broken", "on a disk that lies about flushes", "states", "good")
}

/// A row of it.
pub fn lying_line(row: &dyn Case, found: &lying::Found) -> String {
    let broken: Vec<String> =
        found.broken.iter().map(|(promise, count)| format!("{promise} {count}")).collect();
    format!("{:36} {:7} {:7}  {}", row.name(), found.states, found.good, broken.join(", "))
}
