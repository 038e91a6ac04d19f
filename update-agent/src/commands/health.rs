//! `health`: each health check once, before the trial of a release asks it.

use formats::reason::{Exit, Reason};
use serde::Serialize;

use crate::agent::sandbox::{self, Place};
use crate::agent::{Agent, CheckResult, CheckState};
use crate::error::AgentError;
use crate::output::{Output, printable};

/// What the checks said, and within which limits they were asked.
#[derive(Debug, Serialize)]
struct Report {
    /// Whether a trial would pass now.
    passed: bool,
    /// `inside` a unit of the agent, `outside` of the limits that its unit has, or `none` here.
    limits: &'static str,
    checks: Vec<CheckResult>,
}

/// `health`: exits with 0 when all pass, as `config` when one cannot run, else as `unhealthy`.
pub(super) fn health(agent: &Agent, output: Output) -> Result<Exit, AgentError> {
    let checks = agent.ask_checks()?;
    let place = sandbox::here();
    let limits = match place {
        Place::Inside => "inside",
        Place::Outside => "outside",
        Place::NoDaemon => "none",
    };
    let exit = ends_with(&checks);
    let mut lines: Vec<String> = checks.iter().map(line).collect();
    if checks.is_empty() {
        lines.push("no checks: every system that boots is confirmed".to_owned());
    }
    if place == Place::Outside {
        lines.push(format!("note: {}", sandbox::outside()));
    }
    let report = Report { passed: exit == Exit::Done, limits, checks };
    output.report(&report, &lines.join("\n"));
    Ok(exit)
}

fn ends_with(checks: &[CheckResult]) -> Exit {
    let any = |state| checks.iter().any(|one| one.state == state);
    if any(CheckState::CannotRun) {
        Reason::Config.exit()
    } else if any(CheckState::Failed) {
        Reason::Unhealthy.exit()
    } else {
        Exit::Done
    }
}

fn line(result: &CheckResult) -> String {
    let CheckResult { check, state, why, took_ms, .. } = result;
    let word = match state {
        CheckState::Ok => "ok",
        CheckState::Failed => "failed",
        CheckState::CannotRun => "cannot run",
    };
    let why = why.as_deref().unwrap_or_default();
    let line = format!("{word:10} {check:16} {:>9}  {}", took(*took_ms), printable(why));
    line.trim_end().to_owned()
}

/// `12 ms`, `2.9 s`.
fn took(millis: u64) -> String {
    match millis {
        0..1000 => format!("{millis} ms"),
        _ => format!("{}.{} s", millis / 1000, millis % 1000 / 100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_run_outweighs_what_says_no() {
        let result = |state, took_ms| CheckResult {
            check: "web".to_owned(),
            kind: "http",
            state,
            why: (state != CheckState::Ok).then(|| "it says no".to_owned()),
            took_ms,
        };
        let (ok, no) = (result(CheckState::Ok, 7), result(CheckState::Failed, 2999));
        let broken = result(CheckState::CannotRun, 0);
        let rows = [
            (vec![], 0),
            (vec![ok.clone()], 0),
            (vec![ok.clone(), no.clone()], 22),
            (vec![no.clone(), broken.clone(), ok.clone()], 23),
        ];
        for (checks, code) in rows {
            assert_eq!(ends_with(&checks).code(), code, "{checks:?}");
        }
        assert_eq!(line(&ok), "ok         web                   7 ms");
        assert_eq!(line(&no), "failed     web                  2.9 s  it says no");
        assert_eq!(line(&broken), "cannot run web                   0 ms  it says no");
    }
}
