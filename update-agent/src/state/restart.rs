//! The request to restart, for whoever asks again and for `status`.

use serde::{Deserialize, Serialize};
use update_core::restart::{Means, Purpose};

use super::{State, StateGuard};
use crate::error::AgentError;

/// What was asked for in one boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartAsked {
    /// The boot. In another one the request was obeyed.
    pub boot_id: String,
    /// What for.
    pub purpose: Purpose,
    /// Why, in words.
    pub why: String,
    /// How often.
    pub times: u32,
    /// By which means, the last time.
    pub means: Means,
    /// Unix seconds of the last time.
    pub at: u64,
    /// Milliseconds after the start of the boot at which the last time was.
    pub uptime_ms: u64,
    /// Why the last request was refused, in words, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

impl State {
    /// The last request to restart. A damaged record is none: the requests begin anew.
    pub fn restart_asked(&self) -> Option<RestartAsked> {
        self.kept("restart")
    }

    /// Makes it durable.
    pub fn save_restart_asked(
        &self,
        _: &StateGuard,
        asked: &RestartAsked,
    ) -> Result<(), AgentError> {
        self.keep("restart", asked)
    }
}
