//! The restart lock of this node: taken before a restart into a release, given back when the update has ended.

use std::sync::atomic::Ordering;
use std::time::Duration;

use formats::reason::Reason;
use serde::Serialize;
use update_core::hooks::Said;
use update_core::restart_lock::{again, is_over};
use update_core::update::stand;

use super::Agent;
use crate::error::AgentError;
use crate::reporting;
use crate::restart_lock::{Lock, LockRequest};
use crate::state::{LockNote, StateGuard};

/// How it stands with the restart lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LockReport {
    /// The server.
    pub server: String,
    /// The group of this node there.
    pub group: String,
    /// What this node calls itself there.
    pub id: String,
    /// Unix seconds: since when it has been asked for.
    pub at: u64,
    /// Whether the server granted it.
    pub granted: bool,
    /// Why it was not granted, or not given back, as a code.
    pub code: Option<String>,
    /// The same in words.
    pub message: Option<String>,
}

impl Agent {
    /// Asks for the lock. What this node may hold is noted first, so that it is given back whatever happens.
    pub(super) fn take_restart_lock(&self, held: &StateGuard) -> Result<Said, AgentError> {
        let config = &self.config.restart_lock;
        let Some(server) = config.url.clone() else { return Ok(Said::Yes) };
        let id = match &config.id {
            Some(id) => id.clone(),
            // A key that cannot be read keeps no update away for ever.
            None => match reporting::node(self) {
                Ok(node) => node.to_hex(),
                Err(error) => {
                    tracing::warn!("restart lock: {}", error.chain());
                    return Ok(Said::Failed(error.chain()));
                }
            },
        };
        let lock = Lock { server, group: config.group.clone(), id };
        let known = self.state.restart_lock().filter(|note| note.lock == lock);
        let mut note = match known {
            Some(note) => note,
            None => {
                let note = LockNote { lock, at: self.state.now(), granted: false, why: None };
                self.state.save_restart_lock(held, &note)?;
                note
            }
        };
        let before = note.clone();
        let asked = self.environment.restart_lock(&self.config, &note.lock, LockRequest::PreReboot);
        note.granted = asked.is_ok();
        note.why = asked.err();
        // Its sentence may have changed; who waits for an hour need not know that each minute.
        let code = |note: &LockNote| note.why.as_ref().map(|why| why.code.clone());
        if (note.granted, code(&note)) != (before.granted, code(&before)) {
            self.state.save_restart_lock(held, &note)?;
        }
        Ok(match note.why {
            None => Said::Yes,
            Some(why) => {
                tracing::info!(code = why.code, "restart lock: {}", why.message);
                match why.code == Reason::RestartLocked.code() {
                    true => Said::NotNow,
                    false => Said::Failed(why.message),
                }
            }
        })
    }

    /// Gives the lock back, once the update has ended. A server that does not answer is asked again later.
    pub(super) fn release_restart_lock(&self, held: &StateGuard) -> Result<(), AgentError> {
        let Some(note) = self.state.restart_lock() else { return Ok(()) };
        if !is_over(&stand(&self.node()?)) {
            return Ok(());
        }
        if self.config.restart_lock.url.as_ref() != Some(&note.lock.server) {
            // Credentials are for the server that is configured.
            let server = &note.lock.server;
            tracing::warn!(
                "restart lock: {server} is not configured any more; the lock ends by itself"
            );
            return self.state.forget_restart_lock(held);
        }
        let request = LockRequest::SteadyState;
        let Err(why) = self.environment.restart_lock(&self.config, &note.lock, request) else {
            self.boot.unreleased.store(0, Ordering::Relaxed);
            return self.state.forget_restart_lock(held);
        };
        self.boot.unreleased.fetch_add(1, Ordering::Relaxed);
        if note.why.as_ref().is_none_or(|before| before.code != why.code) {
            tracing::warn!(code = why.code, "restart lock: not given back: {}", why.message);
            self.state.save_restart_lock(held, &LockNote { why: Some(why), ..note })?;
        }
        Ok(())
    }

    /// When the lock is given back again, if that failed.
    pub(crate) fn restart_lock_again(&self) -> Option<Duration> {
        match self.boot.unreleased.load(Ordering::Relaxed) {
            0 => None,
            failures => Some(again(failures)),
        }
    }

    /// How it stands with the lock; none: this node holds none, and waits for none.
    pub(crate) fn restart_lock(&self) -> Option<LockReport> {
        let LockNote { lock, at, granted, why } = self.state.restart_lock()?;
        let Lock { server, group, id } = lock;
        let (code, message) = why.map(|why| (why.code, why.message)).unzip();
        Some(LockReport { server, group, id, at, granted, code, message })
    }
}

impl LockReport {
    /// `not granted: https://… says: … (restart_locked)`
    pub(crate) fn sentence(&self) -> String {
        let LockReport { server, group, granted, .. } = self;
        let why = match (&self.message, &self.code) {
            (Some(message), Some(code)) => format!(": {message} ({code})"),
            _ => String::new(),
        };
        match (granted, why.is_empty()) {
            (true, true) => {
                format!("held in group {group} of {server}, until the update has ended")
            }
            (true, false) => {
                format!("held in group {group} of {server}, and not given back yet{why}")
            }
            (false, _) => format!("not granted in group {group} of {server}{why}"),
        }
    }
}
