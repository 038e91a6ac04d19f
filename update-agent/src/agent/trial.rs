//! The trial of the booted slot: its health checks under the watchdog, and how long they have run.

use std::path::Path;
use std::sync::PoisonError;
use std::time::Duration;

use formats::reason::Reason;
use storage::host::Host;

use super::driver::Driver;
use crate::error::AgentError;
use crate::events::{Event, Why};
use crate::health::watch::Watch;
use crate::state::Began;

/// Seconds since the machine started, time in sleep included: no clock can be set there.
const UPTIME: &str = "/proc/uptime";

/// How long ago the machine started, if the kernel says so.
pub(super) fn uptime(host: &dyn Host) -> Option<Duration> {
    let text = host.read_kernel(Path::new(UPTIME)).ok()?;
    let seconds = text.split_ascii_whitespace().next()?.parse::<f64>().ok()?;
    Some(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

impl Driver<'_> {
    /// Runs the checks of a trial under the watchdog. Their deadline began with the first agent of
    /// this boot.
    pub(super) fn check_health(&self) -> Result<Result<(), String>, AgentError> {
        let already = self.probation_age()?;
        let health = &self.config.health;
        let mut watch = Watch::arm(health);
        let left = health.deadline.saturating_sub(already);
        let ended = watch.over(left, || self.environment.check_health(self.config, already))?;
        // Whatever comes next, it stays armed until the trial is confirmed durably.
        *self.watch.lock().unwrap_or_else(PoisonError::into_inner) = Some(watch);
        if let Err(text) = &ended {
            self.tell_failed(text);
        }
        Ok(ended)
    }

    fn tell_failed(&self, text: &str) {
        let update = self.state.boot_record().ok().and_then(|record| record.update);
        let Some(update) = update else { return };
        let version = update.release.version.to_string();
        let why = Why { code: Reason::Unhealthy.code(), text };
        Event::TrialFailed { version: Some(&version), slot: update.slot, why }.tell();
    }

    /// How long ago the checks of this boot began; they begin now when they have not.
    fn probation_age(&self) -> Result<Duration, AgentError> {
        let boot_id = self.disk.boot_id()?;
        // Without a clock of the boot the deadline is that of this process.
        let Some(now) = uptime(self.host) else { return Ok(Duration::ZERO) };
        match self.state.probation() {
            Some(began) if began.boot_id == boot_id => {
                Ok(now.saturating_sub(Duration::from_millis(began.uptime_ms)))
            }
            _ => {
                let uptime_ms = u64::try_from(now.as_millis()).unwrap_or(0);
                self.state.save_probation(self.held, &Began { boot_id, uptime_ms })?;
                Ok(Duration::ZERO)
            }
        }
    }

    /// Takes the watchdog off a trial that is confirmed.
    pub(super) fn disarm(&self) {
        let watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner).take();
        watch.unwrap_or_default().disarm();
    }
}
