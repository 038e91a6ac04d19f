//! What a node is doing, and of which release: by its own words alone.
//!
//! | the node says | state | release |
//! |---|---|---|
//! | it lost a trial, or goes back; or the release it is offered failed here | reverted | that one |
//! | it runs a slot that has something to prove | on trial | that of the slot |
//! | a release is written | staged | that one |
//! | writing was interrupted, or goes on | downloading | the one offered |
//! | a rule lets the release it is offered not pass, or it waits for its operator | waiting | the one offered |
//! | it runs a slot that passed its trial, and nothing else is offered | confirmed | that of the slot |
//! | a word that this version does not know | other | that of the slot |
//!
//! *Installed* is no state: a release counts where it is confirmed. *Silent* is none that a node could
//! report: see [`silent_since`]. An error is none either: a lost network, a full disk or a server that
//! sheds load changes nothing about what runs.

use formats::boot_record::Slot;
use formats::report::{Report, SlotReport, slot_state};

/// 10 min: nobody is called silent for a restart or a slow line.
const PATIENCE: u64 = 600;
/// 40 days: a node that promises its next report for later is asked to be seen at least then.
const LONGEST: u64 = 40 * 86_400;

/// What a node is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) enum State {
    /// Its trial passed; it runs.
    Confirmed,
    /// It runs, and has to prove itself.
    OnTrial,
    /// It is written and verified, and has not run yet.
    Staged,
    /// It is being written.
    Downloading,
    /// The node has a reason not to install it yet.
    Waiting,
    /// It failed on this node.
    Reverted,
    /// Something that this version does not know, or that the node could not read.
    #[default]
    Other,
}

impl State {
    /// All, in the order in which they are shown.
    pub(crate) const ALL: [State; 7] = [
        State::Confirmed,
        State::OnTrial,
        State::Staged,
        State::Downloading,
        State::Waiting,
        State::Reverted,
        State::Other,
    ];

    /// Its word, in JSON, URLs and metrics.
    pub(crate) fn word(self) -> &'static str {
        match self {
            State::Confirmed => "confirmed",
            State::OnTrial => "on_trial",
            State::Staged => "staged",
            State::Downloading => "downloading",
            State::Waiting => "waiting",
            State::Reverted => "reverted",
            State::Other => "other",
        }
    }

    /// For people.
    pub(crate) fn shown(self) -> &'static str {
        match self {
            State::OnTrial => "on trial",
            other => other.word(),
        }
    }

    /// The state of that word.
    pub(crate) fn of_word(word: &str) -> Option<Self> {
        State::ALL.into_iter().find(|state| state.word() == word)
    }
}

/// A state, and the release it is about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Doing {
    pub(crate) state: State,
    /// The version; empty where it is not known.
    pub(crate) release: String,
    /// The version that is confirmed and runs; empty where none is.
    pub(crate) runs: String,
    /// Why, as a code of the node: a rule, a reason.
    pub(crate) code: String,
}

impl Doing {
    /// What a report says.
    pub(crate) fn of(report: &Report) -> Self {
        let running = report.running();
        let is = |slot: Option<&SlotReport>, state: &str| slot.is_some_and(|it| it.state == *state);
        let confirmed = is(running, slot_state::CONFIRMED);
        let runs = version(running);
        let doing = |state, release: String, code: &str| Doing {
            state,
            release,
            runs: if confirmed { runs.clone() } else { String::new() },
            code: code.to_owned(),
        };
        let other = other_slot(report);
        let offered = report.decision.as_ref().map(|it| it.version.as_str().to_owned());
        let offered = offered.unwrap_or_default();
        let failure = report.failure.as_ref();
        let failed = failure.filter(|it| it.version.as_str() == offered && offered != runs);
        match report.standing.as_str() {
            "lost" | "revert_unfinished" | "leaving" => {
                let release = failure.map(|it| it.version.as_str().to_owned());
                let code = failure.map_or("", |it| it.code.as_str());
                doing(State::Reverted, release.unwrap_or_else(|| version(other)), code)
            }
            "on_trial" | "confirm_unfinished" if !confirmed => {
                doing(State::OnTrial, runs.clone(), "")
            }
            "staged" | "awaiting_reboot" => doing(State::Staged, version(other), ""),
            "interrupted" => doing(State::Downloading, offered, ""),
            "idle" | "confirm_unfinished" | "on_trial" => {
                if let Some(failure) = failed {
                    return doing(State::Reverted, offered, failure.code.as_str());
                }
                let decision = report.decision.as_ref().filter(|_| offered != runs);
                match decision {
                    Some(it) if it.code != "up_to_date" => {
                        let code = it.rule.as_ref().unwrap_or(&it.code);
                        doing(State::Waiting, offered, code.as_str())
                    }
                    _ if confirmed => doing(State::Confirmed, runs.clone(), ""),
                    _ => doing(State::Other, runs.clone(), "not_confirmed"),
                }
            }
            unknown => doing(State::Other, runs.clone(), unknown),
        }
    }
}

fn version(slot: Option<&SlotReport>) -> String {
    slot.and_then(|it| it.version.as_ref()).map_or_else(String::new, |it| it.as_str().to_owned())
}

fn other_slot(report: &Report) -> Option<&SlotReport> {
    let slot = Slot::BOTH.into_iter().find(|slot| report.booted != *slot.name())?;
    Some(report.slots.of(slot))
}

/// Since when a node is silent that was heard at `received` and promised its next report within
/// `interval` seconds; `None`: it is not. It may miss one report.
pub(crate) fn silent_since(received: u64, interval: u64, now: u64) -> Option<u64> {
    let expected = expected(received, interval);
    let late = expected.saturating_add(interval.min(LONGEST)).saturating_add(PATIENCE);
    (now > late).then_some(expected)
}

/// When the next report of a node is expected.
pub(crate) fn expected(received: u64, interval: u64) -> u64 {
    received.saturating_add(interval.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use formats::boot_record::PerSlot;
    use formats::report::{Decided, Erred, Failed};

    use super::*;

    fn slot(state: &str, version: &str) -> SlotReport {
        SlotReport { state: state.into(), version: Some(version.into()), ..SlotReport::default() }
    }

    fn decided(version: &str, code: &str, rule: Option<&str>) -> Option<Decided> {
        let (version, code) = (version.into(), code.into());
        Some(Decided { version, code, rule: rule.map(Into::into), ..Decided::default() })
    }

    /// Runs 1.4.1 in slot A, which is confirmed; nothing is offered.
    fn idle() -> Report {
        Report {
            slots: PerSlot { a: slot("confirmed", "1.4.1"), b: slot("empty", "1.4.2") },
            booted: "a".into(),
            standing: "idle".into(),
            ..Report::default()
        }
    }

    #[test]
    fn the_table() {
        let in_b = |state: &str, standing: &str| Report {
            slots: PerSlot { a: slot("confirmed", "1.4.1"), b: slot(state, "1.4.2") },
            standing: standing.into(),
            ..idle()
        };
        let from_b =
            |state: &str, standing: &str| Report { booted: "b".into(), ..in_b(state, standing) };
        let failure =
            Some(Failed { version: "1.4.2".into(), code: "unhealthy".into(), ..Failed::default() });
        let wave = decided("1.4.2", "deferred", Some("wave"));
        let rows: &[(&str, Report, State, &str, &str, &str)] = &[
            ("nothing offered", idle(), State::Confirmed, "1.4.1", "1.4.1", ""),
            (
                "up to date",
                Report { decision: decided("1.4.1", "up_to_date", None), ..idle() },
                State::Confirmed,
                "1.4.1",
                "1.4.1",
                "",
            ),
            (
                "its wave begins later",
                Report { decision: wave.clone(), ..idle() },
                State::Waiting,
                "1.4.2",
                "1.4.1",
                "wave",
            ),
            (
                "waits for its operator",
                Report { decision: decided("1.4.2", "install", None), ..idle() },
                State::Waiting,
                "1.4.2",
                "1.4.1",
                "install",
            ),
            (
                "partly written",
                Report {
                    decision: decided("1.4.2", "install", None),
                    ..in_b("empty", "interrupted")
                },
                State::Downloading,
                "1.4.2",
                "1.4.1",
                "",
            ),
            ("written", in_b("staged", "staged"), State::Staged, "1.4.2", "1.4.1", ""),
            ("next", in_b("on_trial", "awaiting_reboot"), State::Staged, "1.4.2", "1.4.1", ""),
            ("on trial", from_b("on_trial", "on_trial"), State::OnTrial, "1.4.2", "", ""),
            ("confirmed", from_b("confirmed", "idle"), State::Confirmed, "1.4.2", "1.4.2", ""),
            (
                "lost its trial",
                Report { failure: failure.clone(), ..from_b("failed", "lost") },
                State::Reverted,
                "1.4.2",
                "",
                "unhealthy",
            ),
            (
                "runs the old one after a revert",
                Report {
                    failure: failure.clone(),
                    decision: decided("1.4.2", "failed_before", Some("failed")),
                    ..in_b("failed", "idle")
                },
                State::Reverted,
                "1.4.2",
                "1.4.1",
                "unhealthy",
            ),
            (
                "a newer one is offered after a revert",
                Report {
                    failure,
                    decision: decided("1.4.3", "deferred", Some("wave")),
                    ..in_b("failed", "idle")
                },
                State::Waiting,
                "1.4.3",
                "1.4.1",
                "wave",
            ),
            (
                "never confirmed",
                Report { booted: "b".into(), ..in_b("empty", "idle") },
                State::Other,
                "1.4.2",
                "",
                "not_confirmed",
            ),
            (
                "a word of later",
                in_b("empty", "levitating"),
                State::Other,
                "1.4.1",
                "1.4.1",
                "levitating",
            ),
        ];
        for (name, report, state, release, runs, code) in rows {
            let wanted = Doing {
                state: *state,
                release: (*release).to_owned(),
                runs: (*runs).to_owned(),
                code: (*code).to_owned(),
            };
            assert_eq!(Doing::of(report), wanted, "{name}");
        }
    }

    /// What elsewhere ended a roll-out as a success while no device ran the new image
    /// (hawkbit#3185).
    #[test]
    fn a_release_that_is_only_installed_is_confirmed_nowhere() {
        for (state, standing, booted) in [
            ("staged", "staged", "a"),
            ("on_trial", "awaiting_reboot", "a"),
            ("on_trial", "on_trial", "b"),
            ("on_trial", "confirm_unfinished", "b"),
            ("failed", "lost", "b"),
        ] {
            let slots = PerSlot { a: slot("confirmed", "1.4.1"), b: slot(state, "1.4.2") };
            let report =
                Report { slots, standing: standing.into(), booted: booted.into(), ..idle() };
            let doing = Doing::of(&report);
            assert_ne!(doing.runs, "1.4.2", "{standing}");
            assert_ne!((doing.state, &*doing.release), (State::Confirmed, "1.4.2"), "{standing}");
        }
    }

    /// What elsewhere was ordered again over the good slot, because the server had not noticed the revert
    /// (omni#1552).
    #[test]
    fn a_revert_stays_known_for_as_long_as_its_release_is_offered() {
        let mut report = idle();
        report.slots.b = slot("failed", "1.4.2");
        report.failure = Some(Failed { version: "1.4.2".into(), ..Failed::default() });
        for code in ["failed_before", "install", "deferred"] {
            report.decision = decided("1.4.2", code, None);
            let doing = Doing::of(&report);
            assert_eq!((doing.state, &*doing.release), (State::Reverted, "1.4.2"), "{code}");
        }
    }

    /// What elsewhere parked two thirds of a fleet: downloads that a server shed were counted as failures
    /// of the release (screentinker#153).
    #[test]
    fn an_overloaded_server_a_lost_network_or_a_full_disk_is_no_failure_of_a_release() {
        for code in
            ["http_status", "timeout", "too_slow", "unreachable", "tls", "store_io", "slot_io"]
        {
            let error = Some(Erred { code: code.into(), ..Erred::default() });
            let report = Report { error, decision: decided("1.4.2", "install", None), ..idle() };
            let doing = Doing::of(&report);
            assert_eq!((doing.state, &*doing.runs), (State::Waiting, "1.4.1"), "{code}");
        }
    }

    #[test]
    fn silence_begins_after_a_report_that_did_not_come() {
        assert_eq!(silent_since(1000, 3600, 1000 + 3600 + 600), None);
        assert_eq!(silent_since(1000, 3600, 1000 + 2 * 3600 + 600), None);
        assert_eq!(silent_since(1000, 3600, 1000 + 2 * 3600 + 601), Some(4600));
        assert_eq!(silent_since(1000, u64::MAX, 1000 + 81 * 86_400), Some(1000 + LONGEST));
        assert_eq!(silent_since(5000, 3600, 10), None, "our clock fell");
    }
}
