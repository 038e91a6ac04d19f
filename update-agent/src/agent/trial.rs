//! The trial of the booted slot: its health checks under the watchdog, how long they have run, and what
//! is known of a boot when not everything can be read.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use formats::boot_record::{BootRecord, Slot};
use formats::reason::Reason;
use update_core::boot::BootFlags;
use update_core::daemon::Boot;
use update_core::guard::Told;
use update_core::update::{Evidence, Known, Leave, Node, leave_failed_trial, stand};

use super::Agent;
use super::driver::Driver;
use super::restart::{milliseconds, uptime};
use crate::boot::BootControl as _;
use crate::disk::slot_of_word;
use crate::error::AgentError;
use crate::events::{Event, Why};
use crate::health::watch::Watch;
use crate::state::Began;

impl Driver<'_> {
    /// Runs the checks of a trial under the watchdog. Their deadline began with the first agent of
    /// this boot.
    pub(super) fn check_health(&self) -> Result<Result<(), String>, AgentError> {
        let already = self.probation_age()?;
        let health = &self.parts.config.health;
        let mut watch = Watch::arm(health);
        let left = health.deadline.saturating_sub(already);
        let ended =
            watch.over(left, || self.environment.check_health(self.parts.config, already))?;
        // Whatever comes next, it stays armed until the trial is confirmed durably.
        *self.boot.watch.lock().unwrap_or_else(PoisonError::into_inner) = Some(watch);
        if let Err(text) = &ended {
            self.tell_failed(text);
        }
        Ok(ended)
    }

    fn tell_failed(&self, text: &str) {
        let update = self.parts.state.boot_record().ok().and_then(|record| record.update);
        let Some(update) = update else { return };
        let version = update.release.version.to_string();
        let why = Why { code: Reason::Unhealthy.code(), text };
        Event::TrialFailed { version: Some(&version), slot: update.slot, why }.tell();
    }

    /// How long ago the checks of this boot began; they begin now when they have not.
    fn probation_age(&self) -> Result<Duration, AgentError> {
        let boot_id = self.parts.disk.boot_id()?;
        // Without a clock of the boot the deadline is that of this process.
        let Some(now) = uptime(self.parts.host) else { return Ok(Duration::ZERO) };
        match self.parts.state.probation() {
            Some(began) if began.boot_id == boot_id => {
                Ok(now.saturating_sub(Duration::from_millis(began.uptime_ms)))
            }
            _ => {
                let began = Began { boot_id, uptime_ms: milliseconds(now) };
                if let Err(error) = self.parts.state.save_probation(self.held, &began) {
                    tracing::warn!("the deadline is that of this process: {}", error.chain());
                    return Ok(self.boot.age());
                }
                Ok(Duration::ZERO)
            }
        }
    }

    /// Takes the watchdog off a trial that is confirmed.
    pub(super) fn disarm(&self) {
        let watch = self.boot.watch.lock().unwrap_or_else(PoisonError::into_inner).take();
        watch.unwrap_or_default().disarm();
    }
}

/// What can be read of a boot without the lock; the floor plays no part.
#[derive(Debug, Default)]
pub(crate) struct Glance {
    /// The record.
    pub(crate) record: Option<BootRecord>,
    /// Record and flags.
    pub(crate) node: Option<Node>,
    /// The flags, and the slot that runs.
    pub(crate) flags: Option<(BootFlags, Slot)>,
    /// What could not be read.
    pub(crate) errors: Vec<AgentError>,
}

impl Agent {
    /// Reads what can be read of this boot.
    pub(crate) fn glance(&self) -> Glance {
        let mut errors = Vec::new();
        fn noted<T>(found: Result<T, AgentError>, errors: &mut Vec<AgentError>) -> Option<T> {
            found.map_err(|error| errors.push(error)).ok()
        }
        let record = noted(self.state.boot_record(), &mut errors);
        let flags = noted(self.disk.flags(), &mut errors);
        let booted = noted(self.disk.booted(), &mut errors);
        let boot_id = noted(self.disk.boot_id(), &mut errors);
        let node = match (&record, flags, booted, boot_id) {
            (Some(record), Some(flags), Some(booted), Some(boot_id)) => {
                let (record, evidence) = (record.clone(), Evidence::default());
                Some(Node { record, flags, booted, boot_id, floor: 0, evidence })
            }
            _ => None,
        };
        Glance { record, node, flags: flags.zip(booted), errors }
    }

    /// What this boot has left to prove. Where record or flags cannot be read, what still can decides.
    pub(crate) fn unproven(&self) -> Boot {
        let glance = self.glance();
        if let Some(node) = &glance.node {
            let boot = Boot::of(Some(&stand(node)));
            if boot == Boot::Settled {
                self.boot.settled.store(true, Ordering::Relaxed);
            }
            return boot;
        }
        // What fails now does not make a trial of a boot that was proven.
        if self.boot.settled.load(Ordering::Relaxed) {
            return Boot::Unknown;
        }
        let said = std::fs::read_to_string(&self.config.boot.cmdline).unwrap_or_default();
        match leave(&glance, &said) {
            Ok(_) => Boot::Unproven,
            Err(_) => Boot::Unknown,
        }
    }

    /// What is known of this boot before storage is read, which may hang: the boot loader's word, and what this
    /// process has seen.
    pub(crate) fn before_reading(&self) -> Told {
        let said = std::fs::read_to_string(&self.config.boot.cmdline).unwrap_or_default();
        Told::Begins {
            settled: self.boot.settled.load(Ordering::Relaxed),
            said_trial: said_trial(&said),
            left: self.config.health.deadline.saturating_sub(self.boot.age()),
        }
    }

    /// What is left of the deadline of a boot that has something to prove: nothing once it has lost.
    pub(crate) fn deadline_left(&self) -> Duration {
        let own = self.boot.age();
        if self.is_lost() {
            return Duration::ZERO;
        }
        let recorded = || {
            let began = self.state.probation()?;
            let same = self.disk.boot_id().is_ok_and(|boot_id| boot_id == began.boot_id);
            let now = uptime(self.host.as_ref()).filter(|_| same)?;
            Some(now.saturating_sub(Duration::from_millis(began.uptime_ms)))
        };
        let age = recorded().unwrap_or_default().max(own);
        self.config.health.deadline.saturating_sub(age)
    }
}

/// Whether a boot whose agent has failed is left, by the best that is known of it. `said` is the
/// kernel's command line.
pub(crate) fn leave(glance: &Glance, said: &str) -> Leave {
    leave_failed_trial(match (&glance.node, glance.flags, &glance.record) {
        (Some(node), _, _) => Known::Node(node),
        (None, Some((flags, booted)), None) => Known::Flags(flags, booted),
        (None, _, Some(record)) => {
            Known::Record(record, said.split_whitespace().find_map(slot_of_word))
        }
        (None, None, None) => Known::BootLoader(said_trial(said)),
    })
}

/// Whether the boot loader said that this boot is a trial.
fn said_trial(cmdline: &str) -> bool {
    cmdline.split_whitespace().any(|word| word == "racklet.boot=trial")
}

/// A trial that is lost, as an error for whoever started it.
pub(crate) fn lost(why: &str) -> AgentError {
    AgentError::new(Reason::Unhealthy, format!("the trial failed: {why}")).hint(
        "the machine restarts; after the last try the boot loader goes back to the other slot",
    )
}
