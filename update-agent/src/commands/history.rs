//! `history`: what happened on this node.

use formats::reason::Exit;

use crate::agent::Agent;
use crate::error::AgentError;
use crate::figures::time;
use crate::output::Output;

/// `history`
pub(super) fn history(agent: &Agent, output: Output) -> Result<Exit, AgentError> {
    let report = agent.history()?;
    let mut text = String::new();
    for event in &report.events {
        let version = event.release.as_ref().map_or("", |_| " ");
        let release = event.release.as_ref().map_or_else(String::new, |r| r.version.to_string());
        let slot = event.slot.map_or_else(String::new, |slot| format!(" slot {slot}"));
        let why = match (&event.reason, event.detail.as_str()) {
            (Some(reason), detail) => format!(": {detail} ({reason})"),
            (None, "") => String::new(),
            (None, detail) => format!(": {detail}"),
        };
        text += &format!("{}  {}{version}{release}{slot}{why}\n", time(event.at), event.event);
    }
    if text.is_empty() {
        text = "nothing has happened yet".to_owned();
    }
    output.report(&report, &text);
    Ok(Exit::Done)
}
