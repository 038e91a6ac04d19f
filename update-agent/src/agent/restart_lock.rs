//! The restart lock of this node: taken before a restart into a release, given back when the update has ended.

use std::sync::atomic::Ordering;
use std::time::Duration;

use formats::reason::Reason;
use update_core::hooks::Said;
use update_core::restart_lock::{again, is_over};
use update_core::update::stand;

use super::Agent;
use crate::error::AgentError;
use crate::reporting;
use crate::restart_lock::{LockRequest, RestartLock};
use crate::state::StateGuard;

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
        let (group, at) = (config.group.clone(), self.state.now());
        let lock = RestartLock { server, group, id, at, granted: false, code: None, message: None };
        let before = match self.state.restart_lock().filter(|known| known.is_of(&lock)) {
            Some(known) => known,
            None => {
                self.state.save_restart_lock(held, &lock)?;
                lock
            }
        };
        let asked = self.environment.restart_lock(&self.config, &before, LockRequest::PreReboot);
        let lock = before.clone().after(asked.is_ok(), asked.clone().err());
        // Its sentence may have changed; who waits for an hour need not know that each minute.
        if (lock.granted, &lock.code) != (before.granted, &before.code) {
            self.state.save_restart_lock(held, &lock)?;
        }
        Ok(match asked {
            Ok(()) => Said::Yes,
            Err(why) => {
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
        let Some(lock) = self.state.restart_lock() else { return Ok(()) };
        if !is_over(&stand(&self.node()?)) {
            return Ok(());
        }
        if self.config.restart_lock.url.as_ref() != Some(&lock.server) {
            // Credentials are for the server that is configured.
            let server = &lock.server;
            tracing::warn!(
                "restart lock: {server} is not configured any more; the lock ends by itself"
            );
            return self.state.forget_restart_lock(held);
        }
        let request = LockRequest::SteadyState;
        let Err(why) = self.environment.restart_lock(&self.config, &lock, request) else {
            self.boot.unreleased.store(0, Ordering::Relaxed);
            return self.state.forget_restart_lock(held);
        };
        self.boot.unreleased.fetch_add(1, Ordering::Relaxed);
        if lock.code.as_ref() != Some(&why.code) {
            tracing::warn!(code = why.code, "restart lock: not given back: {}", why.message);
            let granted = lock.granted;
            self.state.save_restart_lock(held, &lock.after(granted, Some(why)))?;
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
}
