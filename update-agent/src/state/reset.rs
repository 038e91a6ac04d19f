//! A reset of what was learned of a repository, which a crash cannot leave half done.

use formats::boot_record::HistoryEvent;
use formats::reason::Reason;
use serde::{Deserialize, Serialize};
use storage::record;

use super::{State, StateGuard, damaged, newer};
use crate::error::{AgentError, Because as _};

/// A reset that is decided. While its record is there, nothing is trusted that was learned before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reset {
    /// Unix seconds.
    at: u64,
    /// The trust root from now on, if it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    root: Option<String>,
}

/// What mends a given trust root of which no copy can be read.
const ENROLL_AGAIN: &str = "run `update-agent reset --yes --root FILE` with the root.json of this \
                            node's repository; slots, floor and history stay";

impl State {
    /// Forgets what was learned of a repository: trusted metadata and the known time, the channel,
    /// failures, progress, the report. With `root`, that is the trust root from now on.
    ///
    /// What the slots hold, the floor and the history stay. A crash leaves everything as it was, or
    /// the decision: from then on nothing learned before is trusted, and the next [`State::hold`]
    /// finishes.
    pub fn reset(&self, held: &StateGuard, root: Option<&[u8]>) -> Result<(), AgentError> {
        let text = |root: &[u8]| {
            String::from_utf8(root.to_vec()).because(Reason::MetaFormat, "the trust root")
        };
        let reset = Reset { at: self.now(), root: root.map(text).transpose()? };
        let payload = serde_json::to_vec(&reset).because(Reason::StoreIo, "write the reset")?;
        self.write("reset", &payload)?;
        self.finish_reset(held, &reset)
    }

    /// Whether a reset is decided and not finished.
    pub fn is_resetting(&self) -> Result<bool, AgentError> {
        Ok(self.pending_reset()?.is_some())
    }

    pub(super) fn pending_reset(&self) -> Result<Option<Reset>, AgentError> {
        let Some(payload) = self.payload("reset")? else { return Ok(None) };
        newer::parsed("reset", &payload).map(Some)
    }

    pub(super) fn finish_reset(&self, held: &StateGuard, reset: &Reset) -> Result<(), AgentError> {
        if let Some(root) = &reset.root {
            // The marker has it, too, until it is written.
            self.replace("root", root.as_bytes())?;
        }
        for name in ["trust", "channel", "offline", "report", "journal", "probation", "asking"] {
            record::remove(&self.dir, name)?;
        }
        let mut record = self.boot_record()?;
        if !record.failures.is_empty() {
            record.failures.clear();
            self.save_boot_record(held, &record)?;
        }
        let event = HistoryEvent {
            at: reset.at,
            event: "reset".to_owned(),
            release: None,
            slot: None,
            reason: None,
            detail: match reset.root {
                Some(_) => "with a new trust root".to_owned(),
                None => String::new(),
            },
        };
        // It may have been cut right here before.
        if self.history().ok().and_then(|history| history.events.last().cloned())
            != Some(event.clone())
        {
            self.remember(held, event)?;
        }
        Ok(record::remove(&self.dir, "reset")?)
    }

    /// The trust root of the last `reset --root`, if there was one.
    pub fn enrolled_root(&self) -> Result<Option<Vec<u8>>, AgentError> {
        if let Some(Reset { root: Some(root), .. }) = self.pending_reset()? {
            return Ok(Some(root.into_bytes()));
        }
        self.payload("root").map_err(|error| damaged(error, ENROLL_AGAIN))
    }
}
