//! What one agent knows of the boot that it runs in: the watchdog, the time, and the requests to restart.

use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::health::watch::Watch;
use crate::state::RestartAsked;

/// What one agent knows of the boot that it runs in, beside what is durable.
#[derive(Debug, Default)]
pub(super) struct ThisBoot {
    /// The watchdog over a trial whose checks have passed.
    pub(super) watch: Mutex<Option<Watch>>,
    /// When this process first had something to prove.
    began: Mutex<Option<Instant>>,
    /// Whether it was seen that nothing is left to prove.
    pub(super) settled: AtomicBool,
    /// The last request to restart.
    pub(super) requests: Requests,
    /// How often in a row the restart lock could not be given back.
    pub(super) unreleased: AtomicU32,
}

impl ThisBoot {
    /// How long this process has had something to prove; it begins now when it had not.
    pub(super) fn age(&self) -> Duration {
        let mut began = self.began.lock().unwrap_or_else(PoisonError::into_inner);
        began.get_or_insert_with(Instant::now).elapsed()
    }
}

/// The last request of this process, and when it was made.
#[derive(Debug, Default)]
pub(super) struct Requests(pub(super) Mutex<Option<(RestartAsked, Instant)>>);
