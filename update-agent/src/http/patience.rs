//! How long a source may keep us waiting in all, however it spends the time.

use std::time::Duration;

/// A budget of waiting that bytes refill: connecting, waiting for answers, trying again and trickling
/// all spend it. A line at the lowest rate spends nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    limit: Duration,
    /// Bytes per second that are worth their time.
    min_rate: u64,
    /// When it ends, counted from its beginning.
    until: Duration,
}

impl Patience {
    /// Begins now.
    pub(super) fn new(limit: Duration, min_rate: u64) -> Self {
        Patience { limit, min_rate: min_rate.max(1), until: limit }
    }

    /// What is left at `now`, counted from the beginning.
    pub(super) fn left(&self, now: Duration) -> Duration {
        self.until.saturating_sub(now)
    }

    /// Bytes came. Never leaves more than the limit: a fast beginning earns no long silence.
    pub(super) fn earn(&mut self, now: Duration, bytes: u64) {
        let micros = u128::from(bytes) * 1_000_000 / u128::from(self.min_rate);
        let earned = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        self.until = self.until.saturating_add(earned).min(now.saturating_add(self.limit));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECS: fn(u64) -> Duration = Duration::from_secs;

    /// Seconds at which it ends, when `bytes` come every `step` seconds.
    fn ends(step: u64, bytes: u64) -> Option<u64> {
        let mut patience = Patience::new(SECS(60), 1024);
        for second in 1..100_000 {
            if patience.left(SECS(second)) == Duration::ZERO {
                return Some(second);
            }
            if second % step == 0 {
                patience.earn(SECS(second), bytes);
            }
        }
        None
    }

    #[test]
    fn silence_and_trickles_end_and_slow_lines_do_not() {
        assert_eq!(ends(1, 0), Some(60), "nothing comes");
        assert_eq!(ends(1, 1), Some(61), "a byte a second");
        assert_eq!(ends(20, 200), Some(61), "a few headers, now and then");
        assert!(ends(1, 512).is_some_and(|end| end <= 120), "half the lowest rate");
        assert_eq!(ends(1, 1024), None, "the lowest rate");
        assert_eq!(ends(30, 64 << 10), None, "bursts");
        let mut patience = Patience::new(SECS(60), 1024);
        patience.earn(SECS(1), u64::MAX);
        assert_eq!(patience.left(SECS(61)), Duration::ZERO, "nothing is saved up");
    }
}
