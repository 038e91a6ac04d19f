//! When to try again: exponential backoff with jitter, bounded in number and in waiting time.

use std::time::Duration;

/// 1 MiB: a source that delivers this much between two failures is worth another attempt.
const EARNS_ATTEMPT: u64 = 1 << 20;

/// Bounds of trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Failures that are retried before giving up; one is given back per MiB delivered, so a
    /// large download over a bad line is bounded by its length and not by its luck.
    pub attempts: u32,
    /// The first delay; it doubles with every failure.
    pub base: Duration,
    /// The longest delay that we choose ourselves.
    pub cap: Duration,
    /// The longest total time spent waiting, `Retry-After` included.
    pub budget: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy {
            attempts: 5,
            base: Duration::from_millis(250),
            cap: Duration::from_secs(10),
            budget: Duration::from_secs(120),
        }
    }
}

/// The course of one download's failures.
#[derive(Debug)]
pub struct Retry {
    policy: RetryPolicy,
    failures: u32,
    waited: Duration,
    earned: u64,
    random: SplitMix,
}

impl Retry {
    /// No failure yet. The same seed gives the same delays.
    pub fn new(policy: RetryPolicy, seed: u64) -> Self {
        Retry { policy, failures: 0, waited: Duration::ZERO, earned: 0, random: SplitMix(seed) }
    }

    /// Takes note of bytes that were delivered.
    pub fn delivered(&mut self, bytes: u64) {
        self.earned = self.earned.saturating_add(bytes);
        while self.earned >= EARNS_ATTEMPT && self.failures > 0 {
            self.earned -= EARNS_ATTEMPT;
            self.failures -= 1;
            self.waited = self.waited.saturating_sub(self.policy.cap);
        }
        self.earned = self.earned.min(EARNS_ATTEMPT);
    }

    /// How long to wait after one more failure, or `None` to give up.
    pub fn next_delay(&mut self, retry_after: Option<Duration>) -> Option<Duration> {
        if self.failures >= self.policy.attempts {
            return None;
        }
        let RetryPolicy { base, cap, .. } = self.policy;
        let own = pause(base, cap, self.failures, self.random.next());
        let delay = own.max(retry_after.unwrap_or_default());
        let waited = self.waited.saturating_add(delay);
        if waited > self.policy.budget {
            return None;
        }
        self.failures += 1;
        self.waited = waited;
        Some(delay)
    }
}

/// The pause before repetition `nth`, counted from 0: `base`, doubled each time up to `cap`; half of it
/// fixed, half by `chance`, so that not everybody comes back at once.
pub fn pause(base: Duration, cap: Duration, nth: u32, chance: u32) -> Duration {
    let whole = base.saturating_mul(1_u32.checked_shl(nth).unwrap_or(u32::MAX)).min(cap);
    let half = whole / 2;
    let rest = (whole - half).as_nanos() * u128::from(chance) / u128::from(u32::MAX);
    half + Duration::from_nanos(u64::try_from(rest).unwrap_or(u64::MAX))
}

/// SplitMix64 (Steele, Lea, Flood 2014): spreads nodes in time; nothing secret depends on it.
#[derive(Debug)]
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 32) as u32
    }
}

/// `Retry-After` in seconds. Its date form is ignored: it would need a trusted clock, and our own
/// backoff then decides (RFC 9110 §10.2.3).
pub fn parse_retry_after(value: &str) -> Option<Duration> {
    let digits = value.trim();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(Duration::from_secs(digits.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn policy() -> RetryPolicy {
        RetryPolicy { attempts: 4, base: MS(100), cap: MS(500), budget: MS(2000) }
    }

    #[test]
    fn delays_double_up_to_the_cap_and_end() {
        for seed in 0..100 {
            let mut retry = Retry::new(policy(), seed);
            for full in [100, 200, 400, 500] {
                let delay = retry.next_delay(None).unwrap();
                assert!(delay >= MS(full / 2) && delay <= MS(full), "seed {seed}: {delay:?}");
            }
            assert_eq!(retry.next_delay(None), None, "seed {seed}");
        }
    }

    #[test]
    fn pauses_are_half_fixed_and_never_overflow() {
        let second = MS(1000);
        for (nth, low, high) in [(0, 50, 100), (1, 100, 200), (3, 400, 800), (4, 500, 1000)] {
            assert_eq!(pause(MS(100), second, nth, 0), MS(low), "{nth}");
            assert_eq!(pause(MS(100), second, nth, u32::MAX), MS(high), "{nth}");
        }
        assert_eq!(pause(MS(100), second, u32::MAX, u32::MAX), second);
        assert_eq!(pause(Duration::MAX, Duration::MAX, 99, 0), Duration::MAX / 2);
        assert_eq!(pause(Duration::ZERO, second, 5, u32::MAX), Duration::ZERO);
    }

    #[test]
    fn the_seed_decides_the_jitter() {
        let delays = |seed| {
            let mut retry = Retry::new(policy(), seed);
            std::iter::from_fn(move || retry.next_delay(None)).collect::<Vec<_>>()
        };
        assert_eq!(delays(7), delays(7));
        assert_ne!(delays(7), delays(8));
    }

    #[test]
    fn retry_after_is_obeyed_within_the_budget() {
        let mut retry = Retry::new(policy(), 1);
        assert_eq!(retry.next_delay(Some(MS(1500))), Some(MS(1500)));
        assert_eq!(retry.next_delay(Some(MS(1500))), None);
        assert_eq!(parse_retry_after("7"), Some(Duration::from_secs(7)));
        assert_eq!(
            parse_retry_after("99999999999999999999"),
            Some(Duration::MAX.min(Duration::from_secs(u64::MAX)))
        );
        for date in ["", "-1", "1.5", "Fri, 31 Dec 1999 23:59:59 GMT"] {
            assert_eq!(parse_retry_after(date), None, "{date}");
        }
    }

    #[test]
    fn progress_earns_attempts_and_a_drip_does_not() {
        let mut retry = Retry::new(policy(), 1);
        for _ in 0..100 {
            assert!(retry.next_delay(None).is_some());
            retry.delivered(EARNS_ATTEMPT);
        }
        let mut retry = Retry::new(policy(), 1);
        for _ in 0..4 {
            assert!(retry.next_delay(None).is_some());
            retry.delivered(1);
        }
        assert_eq!(retry.next_delay(None), None);
    }
}
