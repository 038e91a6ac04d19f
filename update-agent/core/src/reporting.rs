//! When a node reports what it is doing.
//!
//! | the last acknowledged report | attempts since | then |
//! |---|---|---|
//! | none, of another boot, or says something else | none failed | now, but no sooner than [`GAP`] after the last attempt |
//! | says the same | none failed | when its age is the interval, less up to a tenth |
//! | any | n failed | [`FIRST_BACKOFF`] · 2ⁿ⁻¹ after the last attempt, at most [`LONGEST_BACKOFF`], less up to a quarter |
//!
//! No clock of the day is asked: all times are seconds since the boot, which no correction of a clock
//! moves, and a boot always has something new to say. The spread comes from a seed, so that nodes that
//! started together, or that lost their server together, do not come back together. Nothing here decides
//! about updates, and nothing of an update waits for it.

use formats::digest::Sha256;

/// 30 s: a node that changes all the time, such as one that tries and fails, does not report more often.
pub const GAP: u64 = 30;
/// 1 min: a server that restarts is there by then.
pub const FIRST_BACKOFF: u64 = 60;
/// 6 h: four attempts a day do not disturb a server that is gone for good.
pub const LONGEST_BACKOFF: u64 = 6 * 3600;

/// A report that a server acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged {
    /// What it said: [`formats::report::Report::content`].
    pub content: Sha256,
    /// Whether it was sent in this boot.
    pub this_boot: bool,
    /// Seconds between its boot and it.
    pub uptime: u64,
}

/// What is known when a report may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// What a report would say now.
    pub content: Sha256,
    /// Seconds since the boot.
    pub uptime: u64,
    /// The last report that was acknowledged.
    pub acknowledged: Option<Acknowledged>,
    /// The last attempt of this boot, seconds since the boot.
    pub attempted: Option<u64>,
    /// Attempts that failed since the last one that did not.
    pub failures: u32,
    /// Between two reports that say the same, in seconds.
    pub interval: u64,
    /// Any number that other nodes do not have.
    pub seed: u64,
}

/// Whether to send a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Now.
    Now(Why),
    /// Ask again at this time, in seconds since the boot.
    WaitUntil(u64),
}

/// Why a report is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It says something that no server has acknowledged.
    News,
    /// The node is alive.
    Heartbeat,
}

/// Whether a report is due.
pub fn when(facts: &Facts) -> When {
    let told = facts.acknowledged.filter(|last| last.this_boot && last.content == facts.content);
    let (why, due) = match told {
        // An uptime that fell is of another boot, whatever is said of it.
        Some(last) if last.uptime > facts.uptime => (Why::News, 0),
        Some(last) => {
            let wait = spread(facts.interval, 10, facts.seed, 0).max(GAP);
            (Why::Heartbeat, last.uptime.saturating_add(wait))
        }
        None => (Why::News, 0),
    };
    // An attempt of the future is of another boot, too.
    let attempted = facts.attempted.filter(|at| *at <= facts.uptime);
    let earliest = attempted.map_or(0, |at| at.saturating_add(pause(facts.failures, facts.seed)));
    let due = due.max(earliest);
    if due <= facts.uptime { When::Now(why) } else { When::WaitUntil(due) }
}

/// What is left between an attempt and the next one, in seconds.
fn pause(failures: u32, seed: u64) -> u64 {
    let Some(doublings) = failures.checked_sub(1) else { return GAP };
    let factor = 1_u64.checked_shl(doublings).unwrap_or(u64::MAX);
    let longest = FIRST_BACKOFF.saturating_mul(factor).min(LONGEST_BACKOFF);
    spread(longest, 4, seed, failures).max(GAP)
}

/// `longest`, less up to one part in `parts`, by the seed.
fn spread(longest: u64, parts: u64, seed: u64, turn: u32) -> u64 {
    // SplitMix64: neighbouring seeds and turns give unrelated numbers.
    let mut mixed = seed ^ u64::from(turn).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    longest - mixed % (longest / parts + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: u64 = 3600;

    fn facts() -> Facts {
        Facts {
            content: Sha256::of(b"now"),
            uptime: 100 * HOUR,
            acknowledged: None,
            attempted: None,
            failures: 0,
            interval: HOUR,
            seed: 7,
        }
    }

    fn told(content: &[u8], uptime: u64) -> Acknowledged {
        Acknowledged { content: Sha256::of(content), this_boot: true, uptime }
    }

    #[test]
    fn the_table() {
        let now = facts().uptime;
        let same = |ago: u64| Some(told(b"now", now - ago));
        let other = |ago: u64| Some(told(b"before", now - ago));
        let last_boot = same(10).map(|it| Acknowledged { this_boot: false, ..it });
        let (news, alive) = (When::Now(Why::News), When::Now(Why::Heartbeat));
        let rows: &[(&str, Facts, Option<When>)] = &[
            ("never reported", facts(), Some(news)),
            ("another boot", Facts { acknowledged: last_boot, ..facts() }, Some(news)),
            ("something new", Facts { acknowledged: other(HOUR), ..facts() }, Some(news)),
            ("nothing new", Facts { acknowledged: same(HOUR / 2), ..facts() }, None),
            ("nothing new for long", Facts { acknowledged: same(HOUR), ..facts() }, Some(alive)),
            (
                "new, a moment after another report",
                Facts { acknowledged: other(5), attempted: Some(now - 5), ..facts() },
                Some(When::WaitUntil(now - 5 + GAP)),
            ),
            (
                "new, and a server that is gone",
                Facts { attempted: Some(now - 10), failures: 9, ..facts() },
                None,
            ),
            (
                "a server that was gone for long",
                Facts { attempted: Some(now - LONGEST_BACKOFF), failures: u32::MAX, ..facts() },
                Some(news),
            ),
            (
                "an uptime that fell",
                Facts { acknowledged: same(0), uptime: 5, ..facts() },
                Some(news),
            ),
            (
                "an attempt of the future",
                Facts { attempted: Some(now + 1), failures: 3, ..facts() },
                Some(news),
            ),
        ];
        for (name, facts, wanted) in rows {
            match (when(facts), wanted) {
                (found, Some(wanted)) => assert_eq!(found, *wanted, "{name}"),
                (When::WaitUntil(at), None) => assert!(at > facts.uptime, "{name}"),
                (found, None) => panic!("{name}: {found:?}"),
            }
        }
    }

    #[test]
    fn a_dead_server_is_asked_less_and_less_often_and_never_given_up() {
        let mut facts = Facts { attempted: Some(0), uptime: 0, ..facts() };
        let mut waits = Vec::new();
        for failures in 1..40 {
            facts.failures = failures;
            let When::WaitUntil(at) = when(&facts) else { panic!("at once after {failures}") };
            waits.push(at - facts.uptime);
            facts.uptime = at;
            assert_eq!(when(&facts), When::Now(Why::News), "{failures}");
            facts.attempted = Some(at);
        }
        for (turn, wait) in waits.iter().enumerate() {
            let longest = (FIRST_BACKOFF << turn.min(20)).min(LONGEST_BACKOFF);
            assert!(*wait <= longest && *wait >= longest * 3 / 4, "{turn}: {wait} of {longest}");
        }
        // The first report that arrives ends it.
        facts.failures = 0;
        facts.acknowledged = Some(told(b"now", facts.uptime));
        facts.uptime += GAP;
        assert!(matches!(when(&facts), When::WaitUntil(_)));
        facts.content = Sha256::of(b"news");
        assert_eq!(when(&facts), When::Now(Why::News));
    }

    #[test]
    fn nodes_that_lost_their_server_together_come_back_apart() {
        let at = |seed| match when(&Facts {
            attempted: Some(0),
            uptime: 0,
            failures: 9,
            seed,
            ..facts()
        }) {
            When::WaitUntil(at) => at,
            When::Now(_) => 0,
        };
        let times: std::collections::BTreeSet<u64> = (0..1000).map(at).collect();
        assert!(times.len() > 700, "{} different times", times.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever the facts are: a wait ends within the longest one, never in the past, and what was
        /// due stays due.
        #[test]
        fn waits_are_bounded(
            uptime in any::<u64>(), last in proptest::option::of(any::<u64>()),
            attempted in proptest::option::of(any::<u64>()), failures in any::<u32>(),
            interval in 0_u64..(30 * 24 * HOUR), seed in any::<u64>(),
            this_boot in any::<bool>(), same in any::<bool>(), later in 0_u64..1_000_000,
        ) {
            let content: &[u8] = if same { b"now" } else { b"before" };
            let facts = Facts {
                uptime, attempted, failures, interval, seed,
                acknowledged: last.map(|uptime| Acknowledged { this_boot, ..told(content, uptime) }),
                ..facts()
            };
            match when(&facts) {
                When::WaitUntil(at) => {
                    prop_assert!(at > uptime);
                    prop_assert!(at - uptime <= interval.max(LONGEST_BACKOFF));
                }
                // What seems to lie ahead is of another boot.
                When::Now(_) if attempted.max(last) <= Some(uptime) => {
                    let later = Facts { uptime: uptime.saturating_add(later), ..facts };
                    prop_assert!(matches!(when(&later), When::Now(_)), "{:?}", when(&later));
                }
                When::Now(_) => {}
            }
        }
    }
}
