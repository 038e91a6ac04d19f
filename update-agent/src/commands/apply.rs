//! `plan` and `apply`.

use formats::reason::Exit;
use formats::size;
use storage::interrupt;

use super::ApplyArgs;
use crate::agent::{Agent, ApplyOptions, ApplyReport, Attempt, PlanReport, UpToDate, Wish};
use crate::config::BootConfig;
use crate::error::AgentError;
use crate::output::Output;
use crate::progress;

impl ApplyArgs {
    fn wish(&self) -> Wish {
        Wish { from: self.from.clone(), version: self.version.clone(), retry: self.retry }
    }

    fn options(&self) -> ApplyOptions {
        ApplyOptions { stage_only: self.stage_only, seeds: self.seeds.clone() }
    }
}

/// `plan`: exactly what would be fetched and written. Writes no slot.
pub(super) fn plan(agent: &Agent, args: &ApplyArgs, output: Output) -> Result<Exit, AgentError> {
    let progress = progress::start(output.json);
    match agent.plan(&args.wish(), &args.options(), progress.as_ref())? {
        Attempt::UpToDate(why) => Ok(nothing(output, &why)),
        Attempt::Made(report) => {
            output.report(&report, &plan_text(&report));
            Ok(Exit::Done)
        }
    }
}

fn plan_text(report: &PlanReport) -> String {
    let mut text = format!("{} to slot {}:\n", report.version, report.slot);
    for component in &report.components {
        text += &format!(
            "  {}: {} image, {} to fetch at most, {} reused, {} zeros\n",
            component.name,
            size(component.raw_size),
            size(component.fetch),
            size(component.reuse),
            size(component.zeros),
        );
    }
    text
}

/// `apply`: refresh, stage, activate.
pub(super) fn apply(agent: &Agent, args: &ApplyArgs, output: Output) -> Result<Exit, AgentError> {
    let progress = progress::start(output.json);
    match agent.apply(&args.wish(), &args.options(), progress.as_ref())? {
        Attempt::UpToDate(why) => Ok(nothing(output, &why)),
        Attempt::Made(report) => {
            output.report(&report, &apply_text(&report, &agent.config.boot));
            // Who pressed Ctrl-C during the last moment of it wants no restart.
            if args.reboot && report.activated && !interrupt::was_asked() {
                agent.noting(|| agent.restart_when_agreed(progress.as_ref()))?;
            }
            Ok(Exit::Done)
        }
    }
}

fn apply_text(report: &ApplyReport, boot: &BootConfig) -> String {
    let next = if report.activated {
        &format!("it is next: {} to try it", boot.how_to_try())
    } else {
        "it is not next: run `update-agent apply` to activate it"
    };
    let mut text = format!(
        "{} is in slot {}, verified; fetched {}, reused {}; {next}",
        report.version,
        report.slot,
        size(report.fetched),
        size(report.reused),
    );
    for note in &report.notes {
        text += &format!("\nnote: {note}");
    }
    text
}

fn nothing(output: Output, why: &UpToDate) -> Exit {
    output.report(why, &why.message);
    Exit::Nothing
}
