//! How far the body of a request is, and when it moved last.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// How much of a request's body the connection took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct BodyProgress {
    /// Bytes that the connection took.
    pub(super) sent: u64,
    /// Bytes there are.
    pub(super) len: u64,
}

/// When a body moved last, and how far it is.
#[derive(Debug)]
pub(super) struct Pulse(Mutex<(Instant, BodyProgress)>);

impl Default for Pulse {
    fn default() -> Self {
        Pulse(Mutex::new((Instant::now(), BodyProgress::default())))
    }
}

impl Pulse {
    /// It moved, now.
    pub(super) fn beats(&self, taken: BodyProgress) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (Instant::now(), taken);
    }

    /// When it moved last, and how far it was.
    pub(super) fn last(&self) -> (Instant, BodyProgress) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
