//! When a trial boot has proven itself: a number of good rounds in a row, in time.
//!
//! One *round* runs every health check once. A single bad one starts the count again, because a
//! service that comes and goes is not healthy.
//!
//! | after a round | verdict |
//! |---|---|
//! | ended after the deadline | `Failed` |
//! | enough good rounds in a row | `Passed` |
//! | the next round could not start before the deadline | `Failed` |
//! | otherwise | `Continue` after `interval` |

use std::time::Duration;

/// What a trial must show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Good rounds in a row; at least 1.
    pub passes: u32,
    /// From the start of the probation to its end.
    pub deadline: Duration,
    /// Between the end of a round and the start of the next.
    pub interval: Duration,
}

impl Rules {
    /// Whether instant checks could ever pass: the last round must start before the deadline.
    pub fn can_pass(&self) -> bool {
        let waits = self.interval.checked_mul(self.passes.saturating_sub(1));
        self.passes > 0 && waits.is_some_and(|waits| waits < self.deadline)
    }
}

/// The end of one round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    /// Since the start of the probation.
    pub ended: Duration,
    /// Whether every check passed.
    pub passed: bool,
}

/// What follows a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Wait this long, then run another round.
    Continue(Duration),
    /// The trial may be confirmed.
    Passed,
    /// The trial must be given up.
    Failed,
}

/// A probation under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probation {
    rules: Rules,
    rounds: u32,
    streak: u32,
}

impl Probation {
    /// Before the first round.
    pub fn new(rules: Rules) -> Self {
        Probation { rules, rounds: 0, streak: 0 }
    }

    /// Rounds so far.
    pub fn rounds(&self) -> u32 {
        self.rounds
    }

    /// Good rounds in a row so far.
    pub fn streak(&self) -> u32 {
        self.streak
    }

    /// Takes the end of a round; gives the probation back with the verdict on it.
    #[must_use]
    pub fn after(self, round: Round) -> (Self, Verdict) {
        let rules = self.rules;
        let streak = if round.passed { self.streak.saturating_add(1) } else { 0 };
        let next = Probation { rules, rounds: self.rounds.saturating_add(1), streak };
        let verdict = if round.ended > rules.deadline {
            Verdict::Failed
        } else if streak >= rules.passes {
            Verdict::Passed
        } else if round.ended.saturating_add(rules.interval) >= rules.deadline {
            Verdict::Failed
        } else {
            Verdict::Continue(rules.interval)
        };
        (next, verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    /// Runs the rounds until a verdict; says after how many.
    fn judge(rules: Rules, rounds: &[(u64, bool)]) -> (u32, Verdict) {
        let mut probation = Probation::new(rules);
        for &(ended, passed) in rounds {
            let (next, verdict) = probation.after(Round { ended: S(ended), passed });
            if !matches!(verdict, Verdict::Continue(_)) {
                return (next.rounds(), verdict);
            }
            probation = next;
        }
        (probation.rounds(), Verdict::Continue(rules.interval))
    }

    #[test]
    fn good_rounds_in_a_row_and_in_time() {
        use Verdict::{Continue, Failed, Passed};
        let rules = Rules { passes: 3, deadline: S(60), interval: S(5) };
        let more = Continue(S(5));
        // (name, rounds of (ended at, passed), rounds used, verdict)
        type Row<'a> = (&'a str, &'a [(u64, bool)], u32, Verdict);
        let rows: &[Row<'_>] = &[
            ("nothing yet", &[], 0, more),
            ("two are not three", &[(1, true), (6, true)], 2, more),
            ("three", &[(1, true), (6, true), (11, true), (16, false)], 3, Passed),
            (
                "late start",
                &[(1, false), (20, false), (25, true), (30, true), (35, true)],
                5,
                Passed,
            ),
            ("flapping starts again", &[(1, true), (6, true), (11, false), (16, true)], 4, more),
            ("flapping to the end", &[(1, true), (30, false), (54, true), (55, false)], 4, Failed),
            ("on the last second", &[(50, true), (54, true), (60, true)], 3, Passed),
            ("one second late", &[(50, true), (54, true), (61, true)], 3, Failed),
            ("no round would fit", &[(1, true), (55, true)], 2, Failed),
            ("a check that hung", &[(70, false)], 1, Failed),
            ("after the first round only one fits", &[(54, false)], 1, more),
        ];
        for (name, rounds, used, verdict) in rows {
            assert_eq!(judge(rules, rounds), (*used, *verdict), "{name}");
        }
    }

    #[test]
    fn every_probation_ends() {
        for pattern in 0_u32..1 << 13 {
            let rules = Rules { passes: 3, deadline: S(60), interval: S(5) };
            let rounds: Vec<(u64, bool)> =
                (0..13).map(|i| (i * 5, pattern >> i & 1 == 1)).collect();
            let (used, verdict) = judge(rules, &rounds);
            let before = &rounds[..used as usize];
            let proven = before.iter().rev().take(3).filter(|r| r.1).count() == 3;
            assert_eq!(
                verdict,
                if proven { Verdict::Passed } else { Verdict::Failed },
                "{pattern:b}"
            );
        }
    }

    #[test]
    fn impossible_rules_are_known() {
        let rules = |passes, deadline, interval| Rules {
            passes,
            deadline: S(deadline),
            interval: S(interval),
        };
        assert!(rules(3, 60, 5).can_pass());
        assert!(rules(1, 1, 100).can_pass());
        assert!(!rules(0, 60, 5).can_pass());
        assert!(!rules(3, 10, 5).can_pass());
        assert!(!rules(1, 0, 0).can_pass());
        assert!(!rules(u32::MAX, 60, u64::MAX).can_pass());
    }
}
