//! When the operator's hooks run, and what becomes of what they say.

use std::time::Duration;

use formats::boot_record::{BootRecord, Slot};
use formats::reason::Reason;
use formats::version::Version;
use update_core::hooks::{Due, Owed, Restart, Said, before_restart, due};
use update_core::restart::Purpose;
use update_core::update::{Standing, stand};

use super::driver::Driver;
use super::judged::JudgedRelease;
use super::restart::{milliseconds, uptime};
use super::update::installed_version;
use super::{Agent, Offered};
use crate::error::AgentError;
use crate::events::Event;
use crate::hooks::{Hook, HookFacts};
use crate::progress::Progress;
use crate::release::identity;
use crate::state::{Began, StateGuard};

/// Who is asked before a restart.
const HOOK: &str = "hooks.before_restart";
const LOCK: &str = "the restart lock";

/// What follows before a restart, and who says so.
struct Asked {
    next: Restart,
    who: &'static str,
}

impl Driver<'_> {
    /// Asks whether a release may be installed, and remembers that its end is to be told.
    ///
    /// Errors: `hook_refused` when the hook does not agree, or failed.
    pub(super) fn before_apply(
        &self,
        judged: &JudgedRelease,
        stage_only: bool,
    ) -> Result<(), AgentError> {
        let hooks = &self.parts.config.hooks;
        if hooks.before_apply.is_empty() && !hooks.tells_ends() {
            return Ok(());
        }
        let (record, booted) = (self.parts.state.boot_record()?, self.parts.disk.booted()?);
        let from =
            installed_version(self.parts.config, &record, booted).map(|known| known.to_string());
        let release = identity(&judged.signed);
        let owed = Owed::new(release, booted.other(), from, &record);
        match self.environment.hook(self.parts.config, Hook::BeforeApply, &facts(&owed)) {
            Said::Yes => {}
            Said::NotNow => return Err(refused("it said not now")),
            Said::Failed(why) => return Err(refused(&why)),
        }
        if hooks.tells_ends() && !stage_only {
            self.parts.state.save_owed(self.held, &owed)?;
        }
        Ok(())
    }
}

fn refused(why: &str) -> AgentError {
    AgentError::new(Reason::HookRefused, format!("hooks.before_apply: {why}"))
        .hint("nothing was written; the daemon asks it again at the next poll")
}

fn facts(owed: &Owed) -> HookFacts {
    HookFacts {
        version: owed.release.version.to_string(),
        slot: owed.slot.to_string(),
        from_version: owed.from.clone().unwrap_or_default(),
        ..HookFacts::default()
    }
}

impl Agent {
    /// Restarts the machine into the release that is next, once the hook before a restart agrees, or
    /// `hooks.restart_delay_limit` is over. Waits until then, and says so.
    pub fn restart_when_agreed(&self, progress: &dyn Progress) -> Result<(), AgentError> {
        loop {
            let held = self.state.hold()?;
            let asked = self.before_restart(&held)?;
            drop(held);
            match asked {
                Asked { next: Restart::Now, .. } => return self.reboot(),
                Asked { next: Restart::AskAgain(wait), who } => {
                    let seconds = wait.as_secs_f32().ceil();
                    progress.note(&format!(
                        "{who} put the restart off; it is asked again in {seconds} s"
                    ));
                    crate::notify::wait(wait);
                }
            }
        }
    }

    /// Restarts into the release that is next, unless the hook puts it off.
    pub(super) fn restart_into_next(
        &self,
        held: &StateGuard,
        version: &Version,
    ) -> Result<Offered, AgentError> {
        match self.before_restart(held)?.next {
            Restart::Now => {
                self.ask_restart(Some(held), Purpose::Try, &format!("{version} is next"));
                Ok(Offered::Restarting)
            }
            Restart::AskAgain(wait) => Ok(Offered::Delayed(wait)),
        }
    }

    /// Asks the server of the restart lock, then the hook before a restart, which may use what the lock
    /// allows. Only a restart into a release is their affair.
    fn before_restart(&self, held: &StateGuard) -> Result<Asked, AgentError> {
        let (hooks, now) = (&self.config.hooks, Asked { next: Restart::Now, who: HOOK });
        if hooks.before_restart.is_empty() && self.config.restart_lock.url.is_none() {
            return Ok(now);
        }
        let node = self.node()?;
        let (Standing::AwaitingReboot, Some(update)) = (stand(&node), &node.record.update) else {
            return Ok(now);
        };
        let limit = hooks.restart_delay_limit;
        let waited = self.waited(held, &node.boot_id)?.unwrap_or(limit);
        let left = limit.saturating_sub(waited);
        let locks = self.take_restart_lock(held)?;
        let locked = before_restart(&locks, waited, limit);
        if let Restart::AskAgain(again) = locked {
            let version = &update.release.version.to_string();
            Event::RestartDelayed { version, who: LOCK, again, left }.tell();
            return Ok(Asked { next: locked, who: LOCK });
        }
        if locks != Said::Yes {
            tracing::warn!("{LOCK} is not held, and hooks.restart_delay_limit is over");
        }
        let from = installed_version(&self.config, &node.record, node.booted);
        let told = HookFacts {
            version: update.release.version.to_string(),
            slot: update.slot.to_string(),
            from_version: from.map_or_else(String::new, |known| known.to_string()),
            waited: waited.as_secs(),
            ..HookFacts::default()
        };
        let said = self.environment.hook(&self.config, Hook::BeforeRestart, &told);
        tell_failure(Hook::BeforeRestart, &said);
        let next = before_restart(&said, waited, limit);
        if let Restart::AskAgain(again) = next {
            Event::RestartDelayed { version: &told.version, who: HOOK, again, left }.tell();
        }
        Ok(Asked { next, who: HOOK })
    }

    /// How long ago a restart was first asked for in this boot; it is now when it was not yet. `None`:
    /// there is no clock that nobody can set.
    fn waited(&self, held: &StateGuard, boot_id: &str) -> Result<Option<Duration>, AgentError> {
        let Some(now) = uptime(self.host.as_ref()) else { return Ok(None) };
        match self.state.delayed() {
            Some(first) if first.boot_id == boot_id => {
                Ok(Some(now.saturating_sub(Duration::from_millis(first.uptime_ms))))
            }
            _ => {
                let uptime_ms = milliseconds(now);
                let first = Began { boot_id: boot_id.to_owned(), uptime_ms };
                self.state.save_delayed(held, &first)?;
                Ok(Some(Duration::ZERO))
            }
        }
    }

    /// Remembers that the end of what a slot holds is to be told: somebody is about to give it up.
    pub(super) fn owe_end(&self, held: &StateGuard, slot: Option<Slot>) -> Result<(), AgentError> {
        if !self.config.hooks.tells_ends() {
            return Ok(());
        }
        let (record, booted) = (self.state.boot_record()?, self.disk.booted()?);
        let slot = slot.or(record.update.as_ref().map(|update| update.slot)).unwrap_or(booted);
        let Some(release) = release_in(&record, slot) else { return Ok(()) };
        let from = installed_version(&self.config, &record, booted).map(|known| known.to_string());
        self.state.save_owed(held, &Owed::new(release, slot, from, &record))
    }

    /// Tells the hooks how an update ended, if that is due, and gives the restart lock back. A hook that says
    /// "not now" is told again in the next round.
    pub(super) fn tell_end(&self, held: &StateGuard) -> Result<(), AgentError> {
        self.tell_hooks(held)?;
        self.release_restart_lock(held)
    }

    fn tell_hooks(&self, held: &StateGuard) -> Result<(), AgentError> {
        if !self.config.hooks.tells_ends() {
            return Ok(());
        }
        let Some(owed) = self.state.owed() else { return Ok(()) };
        let record = self.state.boot_record()?;
        let said = match due(&owed, &record, self.disk.booted()?) {
            Due::Wait => return Ok(()),
            Due::Nothing => Said::Yes,
            Due::Confirmed => self.told(Hook::AfterConfirm, &facts(&owed)),
            Due::Reverted(failure) => {
                let reason_code = failure.reason.code().to_owned();
                let reason = failure.detail.clone();
                self.told(Hook::AfterRevert, &HookFacts { reason_code, reason, ..facts(&owed) })
            }
        };
        match said {
            Said::NotNow => Ok(()),
            Said::Yes | Said::Failed(_) => self.state.forget_owed(held),
        }
    }

    fn told(&self, hook: Hook, told: &HookFacts) -> Said {
        let said = self.environment.hook(&self.config, hook, told);
        tell_failure(hook, &said);
        said
    }
}

fn tell_failure(hook: Hook, said: &Said) {
    if let Said::Failed(why) = said {
        Event::HookFailed { hook: hook.name(), why }.tell();
    }
}

fn release_in(record: &BootRecord, slot: Slot) -> Option<formats::boot_record::ReleaseId> {
    let pending = record.update.as_ref().filter(|update| update.slot == slot);
    let content = record.slots.of(slot).as_ref();
    pending.map(|update| &update.release).or(content.map(|own| &own.release)).cloned()
}
