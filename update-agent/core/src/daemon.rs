//! What the daemon does next, and when it wakes again.
//!
//! A round settles the record, then asks [`next`] until there is nothing left to do:
//!
//! | the node | offered | `policy.mode` | next |
//! |---|---|---|---|
//! | is on trial, and lost it in this boot | – | – | restart |
//! | is on trial | – | – | check its health |
//! | runs a slot that is marked bad | – | – | restart |
//! | anything else | not asked yet | – | ask the sources, if there are any |
//! | has next what may not be tried for now | – | – | take it back, staged |
//! | anything else | nothing, or the rules decline it | – | rest |
//! | holds it, taken back | to be installed | – | install and activate it: it was next before |
//! | anything else | to be installed | `notify` | rest |
//! | holds it, staged | to be installed | `stage` | rest |
//! | has it next | to be installed | `stage` | rest |
//! | has it next | to be installed | `auto` | restart |
//! | anything else | to be installed | `stage`, `auto` | install it; activate it in `auto` |
//!
//! After the round [`lets_watchdog_go`] says what becomes of a watchdog that the chooser armed, and
//! [`after`] when the next round begins:
//!
//! | the round | this boot | watchdog | then |
//! |---|---|---|---|
//! | asked for a restart | any | left alone | when the next request is due ([`restart::next`]) |
//! | anything else | has something to prove, before its deadline | left alone | again after `health.interval` |
//! | anything else | has something to prove, after its deadline | left alone | ask for a restart |
//! | found the configuration wrong | settled, or cannot be read | let go if settled | stop, with the error |
//! | ended, or failed | cannot be read | left alone | again after [`AGAIN`], doubled with each failure, at most a poll interval |
//! | reached no source, or not its turn | settled | let go | again after [`RETRY`], doubled likewise |
//! | ended, or failed | settled | let go | after a poll interval |
//!
//! So a node on trial never waits for a poll, its trial ends at its deadline whatever fails, and the
//! daemon ends for no other reason than its configuration.

use std::time::Duration;

use serde::{Deserialize, Serialize};

#[cfg(doc)]
use crate::restart;
use crate::update::Standing;

/// 30 s: an error of a moment is over by then.
pub const AGAIN: Duration = Duration::from_secs(30);
/// 1 min: a network that comes up late, or a server that restarts, is there by then.
pub const RETRY: Duration = Duration::from_secs(60);
/// 1 s: no check is repeated more often, however short `health.interval` is.
pub const TRIAL_AGAIN: Duration = Duration::from_secs(1);

/// How far an update goes without an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Says what is available.
    #[default]
    Notify,
    /// Writes it to the inactive slot.
    Stage,
    /// Makes it next and restarts the machine, too.
    Auto,
}

/// What the sources offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// There is no source to ask.
    NoSource,
    /// Not asked in this round.
    NotAsked,
    /// Nothing, or the rules do not let it be installed now.
    Declined,
    /// The record's update must not be tried for now.
    Withheld,
    /// A release that the rules let be installed.
    Install {
        /// Whether the record's update is this release.
        same: bool,
    },
}

/// What a round knows, with the record settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts<'a> {
    /// How far it may go.
    pub mode: Mode,
    /// Where the node stands.
    pub standing: &'a Standing,
    /// What is offered.
    pub offer: Offer,
    /// Whether this boot lost its trial: a restart to leave the slot was asked for already.
    pub lost: bool,
    /// Whether the record's update was next and was taken back.
    pub taken_back: bool,
}

/// The next thing to do in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Check the health of the booted slot, which ends its trial or restarts the machine.
    Probe,
    /// Restart the machine.
    Restart,
    /// Ask the sources.
    Ask,
    /// Write the release to the inactive slot.
    Install {
        /// Whether to make it next.
        activate: bool,
    },
    /// Take back what is next; it stays staged.
    Withhold,
    /// The round is over.
    Rest,
}

/// What is to be done next in a round.
pub fn next(facts: Facts<'_>) -> Action {
    match (facts.standing, facts.offer, facts.mode) {
        (Standing::OnTrial { .. }, ..) if facts.lost => Action::Restart,
        (Standing::OnTrial { .. }, ..) => Action::Probe,
        (Standing::Leaving, ..) => Action::Restart,
        (_, Offer::NotAsked, _) => Action::Ask,
        (Standing::AwaitingReboot, Offer::Withheld, _) => Action::Withhold,
        (_, Offer::NoSource | Offer::Declined | Offer::Withheld, _) => Action::Rest,
        (Standing::Staged, Offer::Install { same: true }, _) if facts.taken_back => {
            Action::Install { activate: true }
        }
        (_, Offer::Install { .. }, Mode::Notify) => Action::Rest,
        (Standing::AwaitingReboot, Offer::Install { same: true }, Mode::Auto) => Action::Restart,
        (
            Standing::Staged | Standing::AwaitingReboot,
            Offer::Install { same: true },
            Mode::Stage,
        ) => Action::Rest,
        (_, Offer::Install { .. }, Mode::Stage) => Action::Install { activate: false },
        (_, Offer::Install { .. }, Mode::Auto) => Action::Install { activate: true },
    }
}

/// How a round ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Nothing is left to do.
    Done,
    /// The machine was asked to restart.
    Restarting,
    /// The configuration is wrong, which does not heal by itself.
    Misconfigured,
    /// No source answered, or another agent is at work: it is soon over.
    Unreached,
    /// Anything else failed.
    Failed,
}

/// What a boot has left to prove, read after the round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boot {
    /// It is on trial, or its slot is marked bad.
    Unproven,
    /// It is neither.
    Settled,
    /// Nobody can tell: record or flags cannot be read.
    Unknown,
}

impl Boot {
    /// What a standing means for the boot; `None` when it could not be read.
    pub fn of(standing: Option<&Standing>) -> Self {
        match standing {
            Some(Standing::OnTrial { .. } | Standing::Leaving) => Boot::Unproven,
            Some(_) => Boot::Settled,
            None => Boot::Unknown,
        }
    }
}

/// Whether a watchdog that the chooser armed is let go after a round. Unknown is not "settled": a
/// watchdog that fires costs a reboot, one that was let go costs the node.
pub fn lets_watchdog_go(ended: Ended, boot: Boot) -> bool {
    boot == Boot::Settled && ended != Ended::Restarting
}

/// When the daemon goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// After about the interval of the polls.
    Poll,
    /// After about this time, to poll again.
    Retry(Duration),
    /// After this time.
    After(Duration),
    /// At once, with a restart: this boot has to be left.
    Leave,
    /// Never: it ends with the error of the round.
    Stop,
}

/// What the waits are reckoned from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Rounds that failed in a row, the last one included.
    pub failures: u32,
    /// Between two polls.
    pub interval: Duration,
    /// Between two rounds of checks.
    pub health: Duration,
    /// What is left of the deadline of a boot that has something to prove; nothing once it has lost.
    pub left: Duration,
    /// Until the next request to restart, where one was made.
    pub restart: Duration,
}

impl Pace {
    /// `first`, doubled with each failure, at most a poll interval.
    fn doubled(self, first: Duration) -> Duration {
        let factor = 2_u32.saturating_pow(self.failures.saturating_sub(1));
        first.saturating_mul(factor).min(self.interval)
    }
}

/// When the daemon goes on after a round.
pub fn after(ended: Ended, boot: Boot, pace: Pace) -> Wake {
    match (ended, boot) {
        (Ended::Restarting, _) => Wake::After(pace.restart.max(TRIAL_AGAIN)),
        (_, Boot::Unproven) if pace.left.is_zero() => Wake::Leave,
        (_, Boot::Unproven) => Wake::After(pace.health.min(pace.left).max(TRIAL_AGAIN)),
        (Ended::Misconfigured, _) => Wake::Stop,
        (_, Boot::Unknown) => Wake::After(pace.doubled(AGAIN).max(AGAIN)),
        (Ended::Unreached, Boot::Settled) => Wake::Retry(pace.doubled(RETRY)),
        (Ended::Done | Ended::Failed, Boot::Settled) => Wake::Poll,
    }
}

#[cfg(test)]
mod tests {
    use formats::reason::Reason;

    use super::*;

    const MODES: [Mode; 3] = [Mode::Notify, Mode::Stage, Mode::Auto];
    const OFFERS: [Offer; 6] = [
        Offer::NoSource,
        Offer::NotAsked,
        Offer::Declined,
        Offer::Withheld,
        Offer::Install { same: false },
        Offer::Install { same: true },
    ];

    fn standings() -> Vec<Standing> {
        vec![
            Standing::Idle,
            Standing::Interrupted,
            Standing::Staged,
            Standing::AwaitingReboot,
            Standing::PassedOver,
            Standing::OnTrial { tries_left: 2, counted: true },
            Standing::OnTrial { tries_left: 0, counted: false },
            Standing::ConfirmUnfinished,
            Standing::Lost { reason: Reason::Unhealthy, detail: String::new() },
            Standing::RevertUnfinished,
            Standing::Leaving,
        ]
    }

    fn every_combination() -> Vec<(Standing, Offer, Mode, bool, bool)> {
        let mut all = Vec::new();
        for standing in standings() {
            for offer in OFFERS {
                for mode in MODES {
                    for (lost, taken_back) in
                        [(false, false), (false, true), (true, false), (true, true)]
                    {
                        all.push((standing.clone(), offer, mode, lost, taken_back));
                    }
                }
            }
        }
        all
    }

    /// Every combination of facts, said a second time by what the answer must be.
    #[test]
    fn what_is_done_next() {
        for (standing, offer, mode, lost, taken_back) in every_combination() {
            let install = matches!(offer, Offer::Install { .. });
            let same = offer == Offer::Install { same: true };
            let trial = matches!(standing, Standing::OnTrial { .. });
            let held = same && matches!(standing, Standing::Staged);
            let is_next = standing == Standing::AwaitingReboot;
            let next_boot = same && is_next;
            let expected = if trial && !lost {
                Action::Probe
            } else if trial || standing == Standing::Leaving || next_boot && mode == Mode::Auto {
                Action::Restart
            } else if offer == Offer::NotAsked {
                Action::Ask
            } else if is_next && offer == Offer::Withheld {
                Action::Withhold
            } else if held && taken_back {
                Action::Install { activate: true }
            } else if !install || mode == Mode::Notify || mode == Mode::Stage && (held || next_boot)
            {
                Action::Rest
            } else {
                Action::Install { activate: mode == Mode::Auto }
            };
            let facts = Facts { mode, standing: &standing, offer, lost, taken_back };
            assert_eq!(next(facts), expected, "{facts:?}");
        }
    }

    #[test]
    fn nothing_restarts_or_writes_that_the_mode_does_not_allow() {
        for (standing, offer, mode, lost, taken_back) in every_combination() {
            let facts = Facts { mode, standing: &standing, offer, lost, taken_back };
            let done = next(facts);
            // It was next before, so an operator or the mode had allowed it.
            let again = taken_back && standing == Standing::Staged;
            let must = matches!(standing, Standing::OnTrial { .. } | Standing::Leaving);
            if mode != Mode::Auto {
                assert!(must || done != Action::Restart, "{facts:?}");
                assert!(again || done != Action::Install { activate: true }, "{facts:?}");
            }
            let installs = matches!(done, Action::Install { .. });
            assert!(mode != Mode::Notify || again || !installs, "{facts:?}");
            // A trial is never withheld, and what must not be tried is never installed.
            assert!(done != Action::Withhold || standing == Standing::AwaitingReboot, "{facts:?}");
            assert!(!installs || matches!(offer, Offer::Install { .. }), "{facts:?}");
        }
    }

    const HOUR: Duration = Duration::from_secs(3600);
    const HEALTH: Duration = Duration::from_secs(5);
    const ENDS: [Ended; 5] =
        [Ended::Done, Ended::Restarting, Ended::Misconfigured, Ended::Unreached, Ended::Failed];

    fn pace(failures: u32, left: Duration) -> Pace {
        let restart = Duration::from_secs(120);
        Pace { failures, interval: HOUR, health: HEALTH, left, restart }
    }

    #[test]
    fn when_the_daemon_wakes() {
        let lefts = [0, 1, 3, 300].map(Duration::from_secs);
        for (ended, boot) in ENDS.into_iter().flat_map(|ended| {
            [Boot::Unproven, Boot::Settled, Boot::Unknown].map(|boot| (ended, boot))
        }) {
            for (failures, left) in
                [0, 1, 2, 7, u32::MAX].into_iter().flat_map(|n| lefts.map(|left| (n, left)))
            {
                let wake = after(ended, boot, pace(failures, left));
                let name = format!("{ended:?} {boot:?} {failures} {left:?}: {wake:?}");
                let stops = ended == Ended::Misconfigured && boot != Boot::Unproven;
                assert_eq!(wake == Wake::Stop, stops, "it ends for its configuration: {name}");
                if ended == Ended::Restarting {
                    assert_eq!(wake, Wake::After(pace(0, left).restart), "{name}");
                } else if boot == Boot::Unproven {
                    let expected = match left.as_secs() {
                        0 => Wake::Leave,
                        secs => Wake::After(Duration::from_secs(secs.min(5))),
                    };
                    assert_eq!(wake, expected, "a trial ends, whatever fails: {name}");
                }
                let polls = matches!(wake, Wake::Poll | Wake::Retry(_));
                assert!(!polls || boot == Boot::Settled, "a trial never waits for a poll: {name}");
                assert_eq!(
                    matches!(wake, Wake::Retry(_)),
                    ended == Ended::Unreached && boot == Boot::Settled,
                    "{name}"
                );
                if let Wake::After(wait) | Wake::Retry(wait) = wake {
                    assert!(wait >= TRIAL_AGAIN && wait <= HOUR, "it never spins: {name}");
                }
            }
        }
    }

    #[test]
    fn waits_double_up_to_a_poll_interval() {
        let waits = |ended, boot| {
            [1, 2, 3, 6, 7, 8, u32::MAX].map(|failures| {
                match after(ended, boot, pace(failures, Duration::ZERO)) {
                    Wake::After(wait) | Wake::Retry(wait) => wait.as_secs(),
                    other => panic!("{other:?}"),
                }
            })
        };
        let unreached = waits(Ended::Unreached, Boot::Settled);
        assert_eq!(unreached, [60, 120, 240, 1920, 3600, 3600, 3600]);
        let unknown = waits(Ended::Failed, Boot::Unknown);
        assert_eq!(unknown, [30, 60, 120, 960, 1920, 3600, 3600]);
        // A short interval of polls is that of retries, too, and none of errors that nobody can read.
        let often = Pace { interval: TRIAL_AGAIN, ..pace(9, Duration::ZERO) };
        assert_eq!(after(Ended::Unreached, Boot::Settled, often), Wake::Retry(TRIAL_AGAIN));
        assert_eq!(after(Ended::Failed, Boot::Unknown, often), Wake::After(AGAIN));
    }

    #[test]
    fn a_watchdog_is_let_go_by_a_settled_boot_only() {
        for ended in ENDS.into_iter().filter(|ended| *ended != Ended::Restarting) {
            for standing in standings() {
                let proven = !matches!(standing, Standing::OnTrial { .. } | Standing::Leaving);
                let goes = lets_watchdog_go(ended, Boot::of(Some(&standing)));
                assert_eq!(goes, proven, "{ended:?} {standing:?}");
            }
            assert!(!lets_watchdog_go(ended, Boot::of(None)), "{ended:?}");
        }
        for boot in [Boot::Unproven, Boot::Settled, Boot::Unknown] {
            assert!(!lets_watchdog_go(Ended::Restarting, boot), "{boot:?}");
        }
    }
}
