//! Every check once, outside of a trial: for `health`, for `doctor`, and before an update.

use std::time::Duration;

use serde::Serialize;

use super::HealthConfig;
use super::probe::Why;
use super::round::ask_all;
use crate::source::SourceConfig;

/// What one check said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckResult {
    /// Its name.
    pub check: String,
    /// What it does: its key in the configuration.
    pub kind: &'static str,
    /// Whether it passes.
    pub state: CheckState,
    /// Why it does not pass, in one line of printable text.
    pub why: Option<String>,
    /// Milliseconds it took.
    pub took_ms: u64,
}

/// Whether a check passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckState {
    /// It passes.
    Ok,
    /// It was asked, and the answer is no.
    Failed,
    /// It could not be asked: what it needs is not there.
    CannotRun,
}

/// Asks all checks at the same time, each within its own timeout; results in the order of the
/// configuration.
pub fn once(config: &HealthConfig, sources: &[SourceConfig]) -> Vec<CheckResult> {
    let ended = ask_all(&config.checks, sources, Duration::MAX);
    let told = config.checks.iter().zip(ended).map(|(check, asked)| {
        let (state, why) = match asked.result {
            Ok(()) => (CheckState::Ok, None),
            Err(Why::No(why)) => (CheckState::Failed, Some(why)),
            Err(Why::CannotRun(why)) => (CheckState::CannotRun, Some(why)),
        };
        CheckResult {
            check: check.name.clone(),
            kind: check.probe.kind(),
            state,
            why,
            took_ms: u64::try_from(asked.took.as_millis()).unwrap_or(u64::MAX),
        }
    });
    told.collect()
}
