//! `doctor`: what would go wrong at the first update, found before it.

use formats::reason::{Exit, Reason};

use crate::agent::{Agent, Finding, Level};
use crate::output::Output;

/// `doctor`: exits with the reason's code of the first bad finding.
pub(super) fn doctor(agent: &Agent, output: Output) -> Exit {
    let report = agent.doctor();
    let lines: Vec<String> = report.findings.iter().map(line).collect();
    output.report(&report, &lines.join("\n"));
    report.first_bad.map_or(Exit::Done, Reason::exit)
}

fn line(finding: &Finding) -> String {
    let word = match finding.level {
        Level::Good => "ok",
        Level::Weak => "weak",
        Level::Bad => "BAD",
    };
    format!("{word:4} {:16} {}", finding.check, finding.text)
}
