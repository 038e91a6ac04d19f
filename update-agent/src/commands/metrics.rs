//! `metrics`: the page once.

use formats::reason::Exit;
use serde_json::json;

use super::MetricsArgs;
use crate::agent::Agent;
use crate::error::AgentError;
use crate::metrics::Page;
use crate::output::Output;

/// `metrics`
pub(super) fn metrics(
    agent: &Agent,
    args: MetricsArgs,
    output: Output,
) -> Result<Exit, AgentError> {
    let page = Page::of(agent);
    let (format, text) = match args.openmetrics {
        true => (Page::OPENMETRICS_TYPE, page.openmetrics()),
        false => (Page::TEXT_TYPE, page.text()),
    };
    output.result(json!({ "format": format, "page": text }), &text);
    Ok(Exit::Done)
}
