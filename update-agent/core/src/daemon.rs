//! What the daemon does next, and when it wakes again.
//!
//! A round settles the record, then asks [`next`] until there is nothing left to do:
//!
//! | the node | offered | `policy.mode` | next |
//! |---|---|---|---|
//! | is on trial | – | – | check its health |
//! | runs a slot that is marked bad | – | – | restart |
//! | anything else | not asked yet | – | ask the sources, if there are any |
//! | anything else | nothing, or the rules decline it | – | rest |
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
//! | found the configuration wrong | any | let go if settled | stop, with the error |
//! | asked for a restart | any | left alone | ask again after [`RESTART_AGAIN`] |
//! | ended, or failed | has something to prove | left alone | again after [`TRIAL_AGAIN`] |
//! | ended, or failed | cannot be read | left alone | again after [`TRIAL_AGAIN`], doubled with each failure, at most a poll interval |
//! | ended, or failed | settled | let go | after a poll interval |
//!
//! So a node on trial never waits for a poll, and the daemon ends for no other reason than its
//! configuration.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::update::Standing;

/// 30 s: an error of a moment is over by then, and it is a small part of the deadline of a trial.
pub const TRIAL_AGAIN: Duration = Duration::from_secs(30);
/// 2 min: a machine that restarts has stopped this daemon by then (systemd waits 90 s for a service).
pub const RESTART_AGAIN: Duration = Duration::from_secs(120);

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
    /// The round is over.
    Rest,
}

/// What is to be done next in a round.
pub fn next(facts: Facts<'_>) -> Action {
    match (facts.standing, facts.offer, facts.mode) {
        (Standing::OnTrial { .. }, ..) => Action::Probe,
        (Standing::Leaving, ..) => Action::Restart,
        (_, Offer::NotAsked, _) => Action::Ask,
        (_, Offer::NoSource | Offer::Declined, _) | (_, Offer::Install { .. }, Mode::Notify) => {
            Action::Rest
        }
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
    /// After the interval of the polls.
    Poll,
    /// After this time.
    After(Duration),
    /// Never: it ends with the error of the round.
    Stop,
}

/// When the daemon goes on after a round. `failures` are the rounds that failed in a row, this one
/// included; `interval` is that of the polls.
pub fn after(ended: Ended, boot: Boot, failures: u32, interval: Duration) -> Wake {
    match (ended, boot) {
        (Ended::Misconfigured, _) => Wake::Stop,
        (Ended::Restarting, _) => Wake::After(RESTART_AGAIN),
        (Ended::Done | Ended::Failed, Boot::Unproven) => Wake::After(TRIAL_AGAIN),
        (Ended::Done | Ended::Failed, Boot::Unknown) => {
            let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
            Wake::After(TRIAL_AGAIN.saturating_mul(doubled).min(interval.max(TRIAL_AGAIN)))
        }
        (Ended::Done | Ended::Failed, Boot::Settled) => Wake::Poll,
    }
}

#[cfg(test)]
mod tests {
    use formats::reason::Reason;

    use super::*;

    const MODES: [Mode; 3] = [Mode::Notify, Mode::Stage, Mode::Auto];
    const OFFERS: [Offer; 5] = [
        Offer::NoSource,
        Offer::NotAsked,
        Offer::Declined,
        Offer::Install { same: false },
        Offer::Install { same: true },
    ];

    fn standings() -> Vec<Standing> {
        vec![
            Standing::Idle,
            Standing::Interrupted,
            Standing::Staged,
            Standing::AwaitingReboot,
            Standing::OnTrial { tries_left: 2, counted: true },
            Standing::OnTrial { tries_left: 0, counted: false },
            Standing::ConfirmUnfinished,
            Standing::Lost { reason: Reason::Unhealthy, detail: String::new() },
            Standing::RevertUnfinished,
            Standing::Leaving,
        ]
    }

    /// Every combination of facts, said a second time by what the answer must be.
    #[test]
    fn what_is_done_next() {
        for standing in standings() {
            for offer in OFFERS {
                for mode in MODES {
                    let install = matches!(offer, Offer::Install { .. });
                    let same = offer == Offer::Install { same: true };
                    let held = same && matches!(standing, Standing::Staged);
                    let next_boot = same && matches!(standing, Standing::AwaitingReboot);
                    let expected = if matches!(standing, Standing::OnTrial { .. }) {
                        Action::Probe
                    } else if standing == Standing::Leaving || next_boot && mode == Mode::Auto {
                        Action::Restart
                    } else if offer == Offer::NotAsked {
                        Action::Ask
                    } else if !install
                        || mode == Mode::Notify
                        || mode == Mode::Stage && (held || next_boot)
                    {
                        Action::Rest
                    } else {
                        Action::Install { activate: mode == Mode::Auto }
                    };
                    let facts = Facts { mode, standing: &standing, offer };
                    assert_eq!(next(facts), expected, "{facts:?}");
                }
            }
        }
    }

    #[test]
    fn nothing_restarts_or_writes_that_the_mode_does_not_allow() {
        for standing in standings() {
            for offer in OFFERS {
                let facts = |mode| Facts { mode, standing: &standing, offer };
                let installs = |mode| matches!(next(facts(mode)), Action::Install { .. });
                let must = matches!(standing, Standing::OnTrial { .. } | Standing::Leaving);
                assert!(!installs(Mode::Notify), "{standing:?} {offer:?}");
                assert_ne!(next(facts(Mode::Stage)), Action::Install { activate: true });
                for mode in [Mode::Notify, Mode::Stage] {
                    assert!(must || next(facts(mode)) != Action::Restart, "{standing:?} {offer:?}");
                }
            }
        }
    }

    #[test]
    fn when_the_daemon_wakes() {
        let hour = Duration::from_secs(3600);
        let ends = [Ended::Done, Ended::Restarting, Ended::Misconfigured, Ended::Failed];
        for ended in ends {
            for boot in [Boot::Unproven, Boot::Settled, Boot::Unknown] {
                for failures in [0, 1, 2, 7, u32::MAX] {
                    let wake = after(ended, boot, failures, hour);
                    let name = format!("{ended:?} {boot:?} {failures}: {wake:?}");
                    assert_eq!(wake == Wake::Stop, ended == Ended::Misconfigured, "{name}");
                    if ended == Ended::Restarting {
                        assert_eq!(wake, Wake::After(RESTART_AGAIN), "{name}");
                    }
                    let polls = wake == Wake::Poll;
                    let may_poll = boot == Boot::Settled;
                    assert!(!polls || may_poll, "a trial never waits for a poll: {name}");
                    if let Wake::After(wait) = wake {
                        assert!(wait >= TRIAL_AGAIN, "it never spins: {name}");
                        assert!(wait <= hour, "{name}");
                        let short = boot != Boot::Unproven || wait <= RESTART_AGAIN;
                        assert!(short, "a trial goes on soon: {name}");
                    }
                }
            }
        }
        let unknown = |failures| after(Ended::Failed, Boot::Unknown, failures, hour);
        let waits = [(1, 30), (2, 60), (3, 120), (7, 1920), (8, 3600), (u32::MAX, 3600)];
        for (failures, secs) in waits {
            assert_eq!(unknown(failures), Wake::After(Duration::from_secs(secs)), "{failures}");
        }
        let often = after(Ended::Failed, Boot::Unknown, 9, Duration::from_secs(1));
        assert_eq!(often, Wake::After(TRIAL_AGAIN), "a short interval of polls is none of errors");
    }

    #[test]
    fn a_watchdog_is_let_go_by_a_settled_boot_only() {
        for ended in [Ended::Done, Ended::Failed, Ended::Misconfigured] {
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
