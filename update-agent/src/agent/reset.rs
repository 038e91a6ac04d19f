//! Reset: the node forgets its repository and begins again; what it runs stays as it is.
//!
//! ```text
//!  on trial? refused ── next? marked bad ── approved? ── marker durable ─► forgotten ─► marker removed
//!                                                        from here on the node is a new one
//! ```
//!
//! What stays: both slots and what is known of them, the boot flags, the security-version floor. They
//! are what keeps a reset from being a way back to an older system.

use std::path::Path;

use formats::boot_record::Slot;
use formats::reason::Reason;
use serde::Serialize;
use update_core::update::Task;

use super::{Agent, ROOT_LIMIT};
use crate::error::AgentError;
use crate::state::StateGuard;
use crate::trust;

/// A node that was reset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ResetReport {
    /// Always true.
    pub reset: bool,
    /// The slot that runs.
    pub booted: Slot,
    /// The security-version floor, which stays.
    pub floor: u64,
    /// The file of the new trust root, if there is one.
    pub new_root: Option<String>,
}

impl Agent {
    /// Makes the node forget its repository; with `root`, a file, it trusts that root from now on.
    /// `approve` is asked once everything that speaks against it has been looked at.
    ///
    /// A crash leaves everything as it was, or a reset that the next operation finishes.
    ///
    /// Errors: `trial_active` while the booted slot is not confirmed; the error of `approve`.
    pub fn reset(
        &self,
        root: Option<&Path>,
        approve: impl FnOnce() -> Result<(), AgentError>,
    ) -> Result<ResetReport, AgentError> {
        self.noting(|| {
            let held = self.begin()?;
            let bytes = root.map(|path| self.new_root(path)).transpose()?;
            // Also without a new one: a node whose root cannot be read would know nothing afterwards.
            if bytes.is_none() {
                self.shipped_root()?;
            }
            self.refuse_trial()?;
            approve()?;
            self.cancel_next(&held)?;
            self.state.reset(&held, bytes.as_deref())?;
            Ok(ResetReport {
                reset: true,
                floor: self.judged_floor()?.floor,
                booted: self.disk.booted()?,
                new_root: root.map(Path::display).map(|path| path.to_string()),
            })
        })
    }

    /// A root that its own keys signed, from a file that others cannot change.
    fn new_root(&self, path: &Path) -> Result<Vec<u8>, AgentError> {
        let bytes = self.host.read_trusted(path, ROOT_LIMIT).map_err(|error| {
            AgentError::from(error).or_config().context("--root").hint(
                "give the root.json of the repository that this node shall belong to from now on",
            )
        })?;
        trust::check_root(&bytes, self.state.now())
            .map_err(|error| error.context(path.display().to_string()))?;
        Ok(bytes)
    }

    /// The slot that runs has to be one that the node can keep.
    fn refuse_trial(&self) -> Result<(), AgentError> {
        let booted = self.disk.booted()?;
        let flags = self.flags()?;
        let on_trial = self.state.boot_record()?.update.is_some_and(|update| update.slot == booted);
        if on_trial || !flags.of(booted).confirmed() {
            let why = format!("slot {booted} is on trial and not confirmed");
            return Err(AgentError::new(Reason::TrialActive, why).hint(
                "wait for its checks, or run `update-agent confirm` (a first installation: \
                 `confirm --adopt`) or `update-agent revert`",
            ));
        }
        Ok(())
    }

    /// What waits for the next boot comes from the repository that is forgotten.
    fn cancel_next(&self, held: &StateGuard) -> Result<(), AgentError> {
        if self.state.boot_record()?.update.is_none() {
            return Ok(());
        }
        let detail = "the node is reset".to_owned();
        self.run(held, Task::Revert { detail }).map(drop)
    }
}
