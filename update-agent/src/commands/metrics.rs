//! `metrics`: the page once.

use formats::reason::Exit;
use serde::Serialize;

use super::MetricsArgs;
use crate::agent::Agent;
use crate::error::AgentError;
use crate::metrics::Page;
use crate::output::Output;

/// The metrics of a node at one moment.
#[derive(Debug, Serialize)]
struct PageReport {
    /// The media type.
    format: &'static str,
    /// The text.
    page: String,
}

/// `metrics`
pub(super) fn metrics(
    agent: &Agent,
    args: MetricsArgs,
    output: Output,
) -> Result<Exit, AgentError> {
    let page = Page::of(agent);
    let report = match args.openmetrics {
        true => PageReport { format: Page::OPENMETRICS_TYPE, page: page.openmetrics() },
        false => PageReport { format: Page::TEXT_TYPE, page: page.text() },
    };
    output.report(&report, &report.page);
    Ok(Exit::Done)
}
