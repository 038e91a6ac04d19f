//! Rounds of all checks at once, until the trial has passed or failed.

use std::ops::ControlFlow;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use update_core::probation::{Probation, Round, Verdict};

use super::period::rounded;
use super::probe::{self, Why};
use super::{Check, HealthConfig, HealthError};
use crate::source::SourceConfig;

/// What the checks showed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HealthReport {
    /// Whether the trial is proven. Between rounds: not yet.
    pub passed: bool,
    /// Rounds run.
    pub rounds: u32,
    /// What failed in the last round that was not good; empty when none ever failed. A check that
    /// the deadline interrupted counts as it ended one round before.
    pub failures: Vec<Failure>,
}

/// A check that did not pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Its name.
    pub check: String,
    /// Why, in one line of printable text.
    pub why: String,
}

/// One round of a trial that goes on.
#[derive(Debug, Clone, Copy)]
pub struct RoundSoFar<'a> {
    /// Its number, from 1.
    pub round: u32,
    /// What failed in it; empty when it was good.
    pub failures: &'a [Failure],
}

/// What the checks need to know beside themselves.
#[derive(Debug, Clone, Copy, Default)]
pub struct Surroundings<'a> {
    /// The configured sources, for a check of the repository.
    pub sources: &'a [SourceConfig],
    /// How much of the deadline is over: another agent of the same boot began the checks.
    pub already: Duration,
}

/// Runs rounds until the trial has passed or failed.
///
/// `between` is called after every round but the last, with what is known so far; it waits as long
/// as it is told, or breaks to give up, which decides nothing.
pub fn run(
    config: &HealthConfig,
    around: Surroundings<'_>,
    between: &mut dyn FnMut(RoundSoFar<'_>, Duration) -> ControlFlow<()>,
) -> Result<HealthReport, HealthError> {
    config.usable()?;
    let mut report = HealthReport { passed: false, rounds: 0, failures: Vec::new() };
    if config.checks.is_empty() {
        return Ok(HealthReport { passed: true, ..report });
    }
    let start = Instant::now();
    let mut probation = Probation::new(config.rules());
    let mut before = Vec::new();
    loop {
        let over = || start.elapsed().saturating_add(around.already);
        let left = config.deadline.saturating_sub(over());
        let failed = run_round(&config.checks, around.sources, left);
        let round = Round { ended: over(), passed: failed.is_empty() };
        before = judged(&before, failed);
        let (next, verdict) = probation.after(round);
        probation = next;
        report.rounds = probation.rounds();
        if !before.is_empty() {
            report.failures.clone_from(&before);
        }
        match verdict {
            Verdict::Passed => {
                return Ok(HealthReport { passed: true, failures: Vec::new(), ..report });
            }
            Verdict::Failed => return Ok(report),
            Verdict::Continue(wait) => {
                let so_far = RoundSoFar { round: report.rounds, failures: &before };
                if between(so_far, wait).is_break() {
                    return Err(HealthError::Interrupted);
                }
            }
        }
    }
}

/// A check that did not pass in a round.
struct Failed {
    failure: Failure,
    /// The deadline of the trial ended it before its own timeout: it might have passed.
    interrupted: bool,
}

/// What a round says of the checks, where `before` are the failures of the round before it. One that
/// was interrupted says nothing of its own: it counts as before, unless nothing else failed.
fn judged(before: &[Failure], failed: Vec<Failed>) -> Vec<Failure> {
    let known = |failed: &Failed| {
        let same = before.iter().find(|failure| failure.check == failed.failure.check);
        if failed.interrupted { same.cloned() } else { Some(failed.failure.clone()) }
    };
    let said: Vec<Failure> = failed.iter().filter_map(known).collect();
    if said.is_empty() { failed.into_iter().map(|failed| failed.failure).collect() } else { said }
}

/// What failed in a round, in the order of the configuration.
fn run_round(checks: &[Check], sources: &[SourceConfig], left: Duration) -> Vec<Failed> {
    let left = rounded(left);
    let ended = ask_all(checks, sources, left);
    checks
        .iter()
        .zip(ended)
        .filter_map(|(check, asked)| {
            let why = asked.result.err()?;
            let interrupted = left < check.timeout && asked.took >= left;
            let why = match interrupted {
                true => format!("the deadline of the trial came {left:.1?} after it began: {why}"),
                false => why.to_string(),
            };
            Some(Failed { failure: Failure { check: check.name.clone(), why }, interrupted })
        })
        .collect()
}

/// What came of a check.
pub(super) struct Asked {
    pub(super) result: Result<(), Why>,
    pub(super) took: Duration,
}

/// All checks at once, each limited by its timeout and by `left`; in the order of the configuration.
pub(super) fn ask_all(checks: &[Check], sources: &[SourceConfig], left: Duration) -> Vec<Asked> {
    let ask = |check: &Check| {
        let start = Instant::now();
        let result = probe::run(&check.probe, sources, check.timeout.min(left));
        Asked { result, took: start.elapsed() }
    };
    // A check that panics is a defect of ours, and no proof of health.
    let crashed = || Asked {
        result: Err(Why::CannotRun("the check itself crashed".to_owned())),
        took: Duration::ZERO,
    };
    thread::scope(|scope| {
        let running: Vec<_> = checks
            .iter()
            .map(|check| thread::Builder::new().spawn_scoped(scope, move || ask(check)))
            .collect();
        let ended = running.into_iter().zip(checks).map(|(thread, check)| match thread {
            Ok(thread) => thread.join().unwrap_or_else(|_| crashed()),
            // A machine without a thread to spare is no unhealthy one: one after another then.
            Err(_) => ask(check),
        });
        ended.collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_check_counts_as_before() {
        let failure =
            |name: &str, why: &str| Failure { check: name.to_owned(), why: why.to_owned() };
        let cut = |name: &str| Failed { failure: failure(name, "cut"), interrupted: true };
        let own = |name: &str| Failed { failure: failure(name, "own"), interrupted: false };
        let none = || -> Vec<Failure> { Vec::new() };
        // (name, the round before, this round, what is said)
        let rows = [
            ("nothing failed", vec![failure("a", "old")], vec![], none()),
            ("its own", none(), vec![own("a")], vec![failure("a", "own")]),
            ("as before", vec![failure("a", "old")], vec![cut("a")], vec![failure("a", "old")]),
            ("beside its own", none(), vec![own("a"), cut("b")], vec![failure("a", "own")]),
            (
                "another's, and as before",
                vec![failure("b", "old")],
                vec![own("a"), cut("b"), cut("c")],
                vec![failure("a", "own"), failure("b", "old")],
            ),
            ("nothing else is known", none(), vec![cut("a")], vec![failure("a", "cut")]),
        ];
        for (name, before, failed, said) in rows {
            assert_eq!(judged(&before, failed), said, "{name}");
        }
    }
}
