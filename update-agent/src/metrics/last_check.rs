//! The last check of this process. The report on disk knows less: a poll without news is not written.

use std::sync::atomic::{AtomicU64, Ordering};

/// When this process last asked the sources, in Unix seconds; 0 before it did.
#[derive(Debug, Default)]
pub(crate) struct LastCheck {
    began: AtomicU64,
    succeeded: AtomicU64,
}

impl LastCheck {
    /// A check begins.
    pub(crate) fn began(&self, now: u64) {
        self.began.store(now, Ordering::Relaxed);
    }

    /// It found a verified, unexpired repository.
    pub(crate) fn succeeded(&self, now: u64) {
        self.succeeded.store(now, Ordering::Relaxed);
    }

    /// When the last one began.
    pub(super) fn last(&self) -> Option<u64> {
        Some(self.began.load(Ordering::Relaxed)).filter(|at| *at > 0)
    }

    /// When one last succeeded.
    pub(super) fn last_success(&self) -> Option<u64> {
        Some(self.succeeded.load(Ordering::Relaxed)).filter(|at| *at > 0)
    }
}
