//! The minimum rate: a source that drips is as bad as one that is silent (S7).

use std::time::Duration;

/// Measures arriving bytes in windows of waiting time.
///
/// Only time spent waiting for the network counts, so a slow flash never makes a source look slow.
#[derive(Debug, Clone)]
pub(crate) struct RateFloor {
    /// Bytes per second that each full window must reach.
    min_rate: u64,
    window: Duration,
    waited: Duration,
    bytes: u64,
}

impl RateFloor {
    /// A floor of `min_rate` bytes per second over each `window`.
    pub(crate) fn new(min_rate: u64, window: Duration) -> Self {
        RateFloor { min_rate, window, waited: Duration::ZERO, bytes: 0 }
    }

    /// Takes `bytes` that came after `waited`. `Err` is the number of bytes of a window that was
    /// too slow.
    pub(crate) fn record(&mut self, waited: Duration, bytes: u64) -> Result<(), u64> {
        self.waited = self.waited.saturating_add(waited);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.waited < self.window {
            return Ok(());
        }
        let took = u64::try_from(self.waited.as_millis()).unwrap_or(u64::MAX);
        let due = self.min_rate.saturating_mul(took) / 1000;
        let came = self.bytes;
        self.waited = Duration::ZERO;
        self.bytes = 0;
        if came < due { Err(came) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_window_must_reach_the_floor() {
        let s = Duration::from_secs;
        // (name, arrivals of (seconds waited, bytes), index of the arrival that is too slow)
        type Row = (&'static str, &'static [(u64, u64)], Option<usize>);
        let rows: &[Row] = &[
            ("fast", &[(1, 5000), (9, 5000), (10, 10_000)], None),
            ("exactly the floor", &[(10, 10_000)], None),
            ("one byte below", &[(10, 9_999)], Some(0)),
            ("fast at first, then dripping", &[(10, 1 << 20), (9, 1), (1, 1)], Some(2)),
            ("a short body may drip", &[(9, 1)], None),
            ("the excess is not saved up", &[(10, 1 << 30), (10, 9_000)], Some(1)),
        ];
        for (name, arrivals, expected) in rows {
            let mut floor = RateFloor::new(1000, s(10));
            let slow = arrivals.iter().position(|(t, n)| floor.record(s(*t), *n).is_err());
            assert_eq!(slow, *expected, "{name}");
        }
    }
}
