//! Whether the catalog may answer for `index.json` without a look at it: for a moment after the last look.
//!
//! Polls are the commonest requests, and a look costs each of them a change of threads and a system call,
//! twice as much as the rest of the answer. What this server changes is in the catalog at once; what other
//! processes write is seen [`FRESH`] later.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// 10 ms: a hundred looks a second at most, and shorter than any publish takes.
const FRESH: Duration = Duration::from_millis(10);

/// When `index.json` was last looked at. One that was never is not fresh.
#[derive(Debug)]
pub(super) struct LastLook {
    started: Instant,
    /// Nanoseconds after `started`, and one more; 0: never.
    at: AtomicU64,
}

impl Default for LastLook {
    fn default() -> Self {
        LastLook { started: Instant::now(), at: AtomicU64::new(0) }
    }
}

impl LastLook {
    /// A moment to be compared with [`LastLook::is_fresh`].
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// The catalog is as `index.json` was at that moment, or newer.
    pub(super) fn set(&self, moment: Duration) {
        let nanos = u64::try_from(moment.as_nanos()).unwrap_or(u64::MAX - 1);
        // Of two looks at once, the later one counts, whichever ends first.
        self.at.fetch_max(nanos + 1, Ordering::Release);
    }

    /// Whether the last look was short enough ago.
    pub(super) fn is_fresh(&self, now: Duration) -> bool {
        let Some(at) = self.at.load(Ordering::Acquire).checked_sub(1) else { return false };
        now.saturating_sub(Duration::from_nanos(at)) < FRESH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_fresh_for_a_moment() {
        let look = LastLook::default();
        let ms = Duration::from_millis;
        assert!(!look.is_fresh(ms(0)), "nobody looked");
        look.set(ms(0));
        assert!(look.is_fresh(ms(0)) && look.is_fresh(ms(9)) && !look.is_fresh(ms(10)));
        look.set(ms(100));
        look.set(ms(50));
        assert!(look.is_fresh(ms(109)) && !look.is_fresh(ms(110)));
        // Another thread took its moment before the look ended.
        assert!(look.is_fresh(ms(99)));
    }
}
