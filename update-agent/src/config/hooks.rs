//! `[hooks]`: the programs of the operator's that run around an update; see [`crate::hooks`].

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::health::{deserialize_period, serialize_period};

/// `[hooks]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HooksConfig {
    /// Before a slot is written; may refuse.
    #[serde(default)]
    pub before_apply: Vec<String>,
    /// Before a restart into a release; may put it off.
    #[serde(default)]
    pub before_restart: Vec<String>,
    /// After a release is confirmed.
    #[serde(default)]
    pub after_confirm: Vec<String>,
    /// After a release was reverted.
    #[serde(default)]
    pub after_revert: Vec<String>,
    /// How long each of them may take.
    #[serde(default = "one_minute", deserialize_with = "deserialize_period")]
    #[serde(serialize_with = "serialize_period")]
    pub timeout: Duration,
    /// How long a restart can be put off in all; then the machine restarts.
    #[serde(default = "one_hour", deserialize_with = "deserialize_period")]
    #[serde(serialize_with = "serialize_period")]
    pub restart_delay_limit: Duration,
}

impl Default for HooksConfig {
    fn default() -> Self {
        HooksConfig {
            before_apply: Vec::new(),
            before_restart: Vec::new(),
            after_confirm: Vec::new(),
            after_revert: Vec::new(),
            timeout: one_minute(),
            restart_delay_limit: one_hour(),
        }
    }
}

impl HooksConfig {
    /// Every hook's command, to resolve its path.
    pub(crate) fn commands_mut(&mut self) -> [&mut Vec<String>; 4] {
        [
            &mut self.before_apply,
            &mut self.before_restart,
            &mut self.after_confirm,
            &mut self.after_revert,
        ]
    }

    /// Whether some hook is told how updates end.
    pub(crate) fn tells_ends(&self) -> bool {
        !self.after_confirm.is_empty() || !self.after_revert.is_empty()
    }
}

fn one_minute() -> Duration {
    Duration::from_secs(60)
}

fn one_hour() -> Duration {
    Duration::from_secs(3600)
}
