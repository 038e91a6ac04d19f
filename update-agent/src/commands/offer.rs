//! `check` and `explain`: what is offered, and what the rules say to it.

use formats::reason::Exit;

use crate::agent::{Agent, CheckReport, Explanation, Verdict};
use crate::error::AgentError;
use crate::figures::time;
use crate::output::Output;

/// `check`: refresh, then say what would be done.
pub(super) fn check(agent: &Agent, output: Output) -> Result<Exit, AgentError> {
    let report = agent.check()?;
    output.report(&report, &text(&report));
    Ok(match report.decision {
        Verdict::Install => Exit::Done,
        Verdict::UpToDate | Verdict::Deferred => Exit::Nothing,
        Verdict::Refused(reason) => reason.exit(),
    })
}

/// `explain`: the rules' answers, without asking any source.
pub(super) fn explain(agent: &Agent, output: Output) -> Result<Exit, AgentError> {
    let explanation = agent.explain()?;
    let (text, exit) = match &explanation {
        Explanation::Known(report) => (text(report), Exit::Done),
        Explanation::NothingKnown(nothing) => (nothing.message.to_owned(), Exit::Nothing),
    };
    output.report(&explanation, &text);
    Ok(exit)
}

fn text(report: &CheckReport) -> String {
    match &report.withdrawn {
        Some(withdrawn) => format!("{}\n{}", withdrawn.sentence(), of_offer(report)),
        None => of_offer(report),
    }
}

fn of_offer(report: &CheckReport) -> String {
    let source = &report.source;
    let Some((available, judged)) = report.available.as_ref().zip(report.judged.as_ref()) else {
        return format!("{source}: the channel offers nothing yet");
    };
    let version = &available.version;
    let mut text = format!("{version} from {source}\n");
    for answer in &judged.rules {
        let mark = if answer.passed { "ok" } else { "--" };
        text += &format!("  {mark} {:14} {}\n", answer.rule, answer.why);
    }
    for note in &judged.notes {
        text += &format!("  note: {note}\n");
    }
    text += &match (report.decision, judged.until) {
        (Verdict::Install, _) => match &report.obstacle {
            None => format!("would install {version}: run `update-agent apply`"),
            Some(obstacle) => format!("would install {version}{}", obstacle.text()),
        },
        (Verdict::UpToDate, _) => "nothing to do".to_owned(),
        (Verdict::Deferred, Some(at)) => format!("deferred until {}", time(at)),
        (Verdict::Deferred, None) => "deferred until the channel changes".to_owned(),
        (Verdict::Refused(reason), _) => format!("refused: {reason}"),
    };
    text
}
