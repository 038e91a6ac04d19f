//! The security-version floor: what it is, and how far it can be believed.
//!
//! It is kept in a file, and where there is one, in a counter of a TPM. The file is written first,
//! so a counter that is ahead of it is one of two things: the file is older than it should be, or
//! somebody else counted. Who may count decides ([`Hold`]):
//!
//! | file knows of a counter | the TPM | floor | guarantee |
//! |---|---|---|---|
//! | no | not configured | the file's | [`Guarantee::File`] |
//! | no | no counter yet | the file's | [`Guarantee::NotYet`]: the next work makes one |
//! | any | a counter that knows our secret, the same or the first one seen | the higher one | [`Guarantee::Tpm`] |
//! | any | the same, more than [`STEPS_LIMIT`] ahead of the file and of what runs | the file's | [`Guarantee::Lost`] |
//! | any | a counter in which everybody may count, not ahead of the file or of what runs | the higher one | [`Guarantee::Tpm`], [`Judged::open`] |
//! | any | the same, ahead of both | the file's | [`Guarantee::Lost`] |
//! | any | a counter that does not know our secret | the file's | [`Guarantee::Lost`] |
//! | yes | no counter: cleared | the file's | [`Guarantee::Lost`] |
//! | yes | another counter, or one that went back | the file's | [`Guarantee::Lost`] |
//! | any | unreachable, or the index is somebody else's | the file's | [`Guarantee::Lost`] |
//! | yes | no longer configured | the file's | [`Guarantee::Lost`] |
//!
//! A lost guarantee refuses updates, because a rollback could not be told from an update any more. It
//! never keeps a node from booting, confirming or reverting, and `floor --renew` ends it ([`renewed`]).
//! Whatever a counter says, the file never rises above what runs ([`kept`]).

use formats::boot_record::{Floor, TpmSeen};
use formats::tpm::Mark;

/// Steps a counter may be raised by at once: each wears the TPM's memory and takes up to 0.1 s.
/// Security versions are counted by one, so it is years of releases.
pub const STEPS_LIMIT: u64 = 4096;

/// Who may count in a TPM's counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// It let us in with our secret: this node's agent alone counts.
    Own,
    /// Made by an older agent: whoever may open the TPM counts.
    Open,
    /// It did not let us in, or we have no secret: the state was lost, or somebody with the owner's
    /// password made it.
    Unknown,
}

/// What the TPM says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tpm {
    /// None is configured.
    NotConfigured,
    /// It has no counter under the index, or one without a value.
    NoCounter,
    /// A counter of ours.
    Counter {
        /// What its beginning stands for.
        mark: Mark,
        /// Its value.
        value: u64,
        /// Who may count in it.
        hold: Hold,
    },
    /// It cannot be used; why.
    Unusable(String),
}

/// How far the floor can be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guarantee {
    /// Kept in two file copies: stops rollback by a repository, not by who replaces the disk.
    File,
    /// A TPM is configured and will keep it from the next work on.
    NotYet,
    /// Kept in a TPM: an older disk does not lower it.
    Tpm,
    /// The TPM that kept it is gone, cleared or another one; why.
    Lost(String),
}

/// The floor of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// Releases below it are refused.
    pub floor: u64,
    /// How far it can be believed.
    pub guarantee: Guarantee,
    /// The file is behind the TPM: an older disk or state was put back, or the state was lost.
    pub older_state: bool,
    /// Whoever may open the TPM may count in the counter.
    pub open: bool,
}

/// The floor, by what the file and the TPM say. `runs` is the security version of the booted slot, where
/// it is confirmed and known.
pub fn judge(file: &Floor, tpm: &Tpm, runs: Option<u64>) -> Judged {
    let own = file.security_version;
    let judged = |guarantee| Judged { floor: own, guarantee, older_state: false, open: false };
    let lost = |why: &str| judged(Guarantee::Lost(why.to_owned()));
    match (tpm, file.tpm) {
        (Tpm::NotConfigured, None) => judged(Guarantee::File),
        (Tpm::NotConfigured, Some(_)) => {
            lost("the configuration names no TPM any more, and one kept the floor")
        }
        (Tpm::Unusable(why), _) => lost(why),
        (Tpm::NoCounter, None) => judged(Guarantee::NotYet),
        (Tpm::NoCounter, Some(_)) => lost("the TPM was cleared or exchanged: its counter is gone"),
        (Tpm::Counter { mark, .. }, Some(seen)) if seen.mark() != *mark => {
            lost("the TPM's counter was made anew, or the TPM was exchanged")
        }
        (Tpm::Counter { value, .. }, Some(seen)) if *value < seen.counter => {
            lost("the TPM's counter went back: it is another TPM")
        }
        (Tpm::Counter { mark, value, hold }, _) => match mark.floor(*value) {
            None => lost("the TPM's counter is below its own beginning"),
            Some(counted) => match doubt(*hold, counted, own.max(runs.unwrap_or(0))) {
                Some(why) => lost(why),
                None => Judged {
                    floor: own.max(counted),
                    guarantee: Guarantee::Tpm,
                    older_state: counted > own,
                    open: *hold == Hold::Open,
                },
            },
        },
    }
}

/// Why a counter of the right beginning is not believed, if it is not. `known` is the most that this
/// node's own evidence supports.
fn doubt(hold: Hold, counted: u64, known: u64) -> Option<&'static str> {
    match hold {
        Hold::Unknown => Some(
            "the TPM's counter does not know this state's secret: the state was lost, or the counter \
             was replaced",
        ),
        Hold::Open if counted > known => Some(
            "the TPM's counter is ahead of what runs, and whoever may open the TPM can count in it",
        ),
        Hold::Own if counted > known.saturating_add(STEPS_LIMIT) => {
            Some("the TPM's counter is further ahead of what runs than releases ever are")
        }
        Hold::Own | Hold::Open => None,
    }
}

/// What the file may keep of a judged floor: never more than it has or than what runs.
pub fn kept(file: &Floor, judged: &Judged, runs: Option<u64>) -> u64 {
    let own = file.security_version;
    judged.floor.min(own.max(runs.unwrap_or(0)))
}

/// The floor that an operator begins anew with: what is believed, and no more than what runs, so that the
/// node can be updated again. Where it is not known what runs, the file's.
pub fn renewed(file: &Floor, tpm: &Tpm, runs: Option<u64>) -> u64 {
    match runs {
        Some(known) => judge(file, tpm, runs).floor.min(known),
        None => file.security_version,
    }
}

/// Whether a release's security version is too far above the floor for the TPM to follow.
pub fn too_far(judged: &Judged, security_version: u64) -> bool {
    matches!(judged.guarantee, Guarantee::Tpm | Guarantee::NotYet)
        && security_version > judged.floor.saturating_add(STEPS_LIMIT)
}

/// What the file remembers of a counter.
pub fn seen(index: u32, mark: Mark, value: u64) -> TpmSeen {
    TpmSeen { index, base: mark.base, origin: mark.origin, counter: value }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: Mark = Mark { base: 100, origin: 3 };

    fn file(security_version: u64, counter: Option<u64>) -> Floor {
        let tpm = counter.map(|counter| seen(1, MARK, counter));
        Floor { security_version, tpm, ..Floor::default() }
    }

    fn counter(value: u64) -> Tpm {
        held(value, Hold::Own)
    }

    fn held(value: u64, hold: Hold) -> Tpm {
        Tpm::Counter { mark: MARK, value, hold }
    }

    fn word(judged: &Judged) -> &'static str {
        match (&judged.guarantee, judged.open) {
            (Guarantee::File, _) => "file",
            (Guarantee::NotYet, _) => "not yet",
            (Guarantee::Tpm, false) => "tpm",
            (Guarantee::Tpm, true) => "open",
            (Guarantee::Lost(_), _) => "lost",
        }
    }

    #[test]
    fn the_table_of_the_module() {
        let lost = "lost";
        let open = |value| held(value, Hold::Open);
        let unknown = |value| held(value, Hold::Unknown);
        let far = 102 + STEPS_LIMIT;
        // name, file, TPM, what runs, floor, guarantee, older
        let rows = [
            ("no TPM", file(5, None), Tpm::NotConfigured, None, 5, "file", false),
            ("a TPM, not used yet", file(5, None), Tpm::NoCounter, None, 5, "not yet", false),
            ("in step", file(5, Some(102)), counter(102), Some(5), 5, "tpm", false),
            ("a cut before the counter", file(6, Some(102)), counter(102), None, 6, "tpm", false),
            ("a cut after the counter", file(6, Some(102)), counter(103), None, 6, "tpm", false),
            ("an older disk put back", file(5, Some(102)), counter(110), Some(5), 13, "tpm", true),
            (
                "an older disk, unknown slots",
                file(5, Some(102)),
                counter(110),
                None,
                13,
                "tpm",
                true,
            ),
            ("a disk from before the TPM", file(3, None), unknown(110), None, 3, lost, false),
            ("state lost", Floor::default(), unknown(110), None, 0, lost, false),
            ("replaced, the same mark", file(5, Some(102)), unknown(103), Some(5), 5, lost, false),
            ("as far as releases go", file(5, Some(102)), counter(far), Some(5), 4101, "tpm", true),
            ("one further", file(5, Some(102)), counter(far + 1), Some(5), 5, lost, false),
            ("ahead by 10^6", file(5, Some(102)), counter(1_000_102), Some(5), 5, lost, false),
            ("open, in step", file(5, Some(102)), open(102), Some(5), 5, "open", false),
            ("open, ahead by 1", file(5, Some(102)), open(103), Some(5), 5, lost, false),
            ("open, ahead by 10^6", file(5, Some(102)), open(1_000_102), Some(5), 5, lost, false),
            (
                "open, not ahead of what runs",
                file(5, Some(102)),
                open(103),
                Some(6),
                6,
                "open",
                true,
            ),
            ("open, unknown what runs", file(5, Some(102)), open(103), None, 5, lost, false),
            ("cleared", file(5, Some(102)), Tpm::NoCounter, None, 5, lost, false),
            ("made anew", file(5, Some(102)), remade(0, 700), None, 5, lost, false),
            ("made anew, higher", file(5, Some(102)), remade(50, 700), Some(5), 5, lost, false),
            ("went back", file(5, Some(102)), counter(101), None, 5, lost, false),
            ("below its beginning", file(5, None), counter(99), None, 5, lost, false),
            ("no longer configured", file(5, Some(102)), Tpm::NotConfigured, None, 5, lost, false),
            ("unreachable", file(5, None), Tpm::Unusable(String::new()), None, 5, lost, false),
        ];
        for (name, file, tpm, runs, floor, guarantee, older_state) in rows {
            let found = judge(&file, &tpm, runs);
            assert_eq!(
                (found.floor, word(&found), found.older_state),
                (floor, guarantee, older_state),
                "{name}"
            );
        }
    }

    /// A counter can be ahead for several reasons; the file follows as far as the node's own evidence goes.
    #[test]
    fn the_file_follows_a_counter_no_further_than_what_runs() {
        let rows =
            [(None, 5), (Some(4), 5), (Some(5), 5), (Some(9), 9), (Some(13), 13), (Some(20), 13)];
        let file = file(5, Some(102));
        for (runs, expected) in rows {
            let judged = judge(&file, &counter(110), runs);
            assert_eq!((judged.floor, kept(&file, &judged, runs)), (13, expected), "{runs:?}");
        }
    }

    #[test]
    fn a_new_beginning_is_never_above_what_runs() {
        let rows = [
            ("cleared", file(5, Some(102)), Tpm::NoCounter, Some(6), 5),
            ("poisoned by an older agent", file(9000, Some(9097)), Tpm::NoCounter, Some(6), 6),
            ("our own, ahead", file(5, Some(102)), counter(110), Some(6), 6),
            ("our own, ahead, less than what runs", file(5, Some(102)), counter(103), Some(8), 6),
            ("anybody's", file(5, Some(102)), held(110, Hold::Open), Some(8), 5),
            ("unknown", file(5, Some(102)), held(110, Hold::Unknown), Some(8), 5),
            ("unknown what runs", file(5, Some(102)), counter(110), None, 5),
        ];
        for (name, file, tpm, runs, expected) in rows {
            assert_eq!(renewed(&file, &tpm, runs), expected, "{name}");
        }
    }

    fn remade(origin: u64, base: u64) -> Tpm {
        Tpm::Counter { mark: Mark { base, origin }, value: base, hold: Hold::Own }
    }

    /// Whatever either says, the floor is never below what the file says: nothing lowers it.
    #[test]
    fn the_floor_never_falls_below_the_file() {
        for own in 0..6 {
            for known in [None, Some(100), Some(103)] {
                for tpm in [
                    Tpm::NotConfigured,
                    Tpm::NoCounter,
                    Tpm::Unusable(String::new()),
                    counter(0),
                    counter(100),
                    counter(104),
                    remade(0, 1),
                ] {
                    let judged = judge(&file(own, known), &tpm, Some(own));
                    assert!(judged.floor >= own, "{own} {known:?} {tpm:?}");
                }
            }
        }
    }

    #[test]
    fn a_leap_is_refused_where_a_tpm_would_have_to_follow() {
        let at = |tpm| judge(&file(5, None), &tpm, Some(5));
        assert!(!too_far(&at(Tpm::NotConfigured), u64::MAX));
        assert!(!too_far(&at(Tpm::NoCounter), 5 + STEPS_LIMIT));
        assert!(too_far(&at(Tpm::NoCounter), 6 + STEPS_LIMIT));
    }
}
