//! `report`: what this node reports of itself, and whether it arrives.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use formats::digest::{Sha256, hex};
use formats::reason::{Exit, Reason};
use serde::Serialize;

use super::ReportArgs;
use crate::agent::Agent;
use crate::error::{AgentError, Because as _};
use crate::figures::time;
use crate::output::Output;
use crate::reporting;
use crate::reporting::ledger::{self, ReportsTo};

/// A report that was written.
#[derive(Debug, Serialize)]
struct Written {
    node: Sha256,
    bytes: usize,
    /// Where, unless to standard output.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    /// The report itself, if it was to go to standard output.
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<String>,
}

/// Who this node is, and how it stands with the sources that want reports.
#[derive(Debug, Serialize)]
struct Sender {
    node: Sha256,
    sources: Vec<ReportsTo>,
}

/// `report`
pub(super) fn report(agent: &Agent, args: &ReportArgs, output: Output) -> Result<Exit, AgentError> {
    match &args.output {
        Some(path) => write(agent, path, output),
        None => show(agent, output),
    }
}

/// The report of this moment as a file.
fn write(agent: &Agent, path: &Path, output: Output) -> Result<Exit, AgentError> {
    let (node, document) = reporting::document(agent)?;
    let bytes = document.len();
    if path == Path::new("-") {
        if output.json {
            let document = Some(String::from_utf8_lossy(&document).into_owned());
            output.report(&Written { node, bytes, file: None, document }, "");
        } else {
            storage::report::print(&document);
        }
        return Ok(Exit::Done);
    }
    let what = || format!("write the report {}", path.display());
    let mut open = OpenOptions::new();
    open.write(true).create(true).truncate(true).mode(0o644);
    open.open(path)
        .and_then(|mut file| file.write_all(&document).and_then(|()| file.sync_all()))
        .because(Reason::StoreIo, what())?;
    let text = format!("{}: {bytes} bytes, signed by node {node}", path.display());
    let file = Some(path.display().to_string());
    output.report(&Written { node, bytes, file, document: None }, &text);
    Ok(Exit::Done)
}

/// Who this node is to servers, and what they know of it.
fn show(agent: &Agent, output: Output) -> Result<Exit, AgentError> {
    let node = reporting::node(agent)?;
    let sources = ledger::standing(agent.host.as_ref(), &agent.config);
    let mut text = format!("node     {}\n", hex(&node.0));
    text += &lines(sources.iter());
    if sources.is_empty() {
        text += "reports  to nobody: no [[source]] has reports = true\n";
    }
    output.report(&Sender { node, sources }, &text);
    Ok(Exit::Done)
}

/// A line for `status` for each source that gets no reports.
pub(super) fn trouble(sources: &[ReportsTo]) -> String {
    lines(sources.iter().filter(|to| to.failed.is_some()))
}

fn lines<'a>(sources: impl Iterator<Item = &'a ReportsTo>) -> String {
    sources.map(|to| format!("reports  {}: {}\n", to.source, state(to))).collect()
}

fn state(to: &ReportsTo) -> String {
    let last = match to.acknowledged {
        Some(last) => format!("acknowledged on {}", time(last.at)),
        None => "none acknowledged yet".to_owned(),
    };
    match &to.failed {
        Some(failed) => {
            format!("{last}; fails since {}: {} ({})", time(failed.at), failed.message, failed.code)
        }
        None => last,
    }
}
