//! The security-version floor: what it is, and how far it can be believed.
//!
//! It is kept in a file, and where there is one, in a counter of a TPM. The file is written first,
//! so a counter that is ahead of it proves that the file is older than it should be.
//!
//! | file knows of a counter | the TPM | floor | guarantee |
//! |---|---|---|---|
//! | no | not configured | the file's | [`Guarantee::File`] |
//! | no | no counter yet | the file's | [`Guarantee::NotYet`]: the next work makes one |
//! | any | the same counter, or the first one seen | the higher one | [`Guarantee::Tpm`] |
//! | yes | no counter: cleared | the file's | [`Guarantee::Lost`] |
//! | yes | another counter, or one that went back | the higher one | [`Guarantee::Lost`] |
//! | any | unreachable, or the index is somebody else's | the file's | [`Guarantee::Lost`] |
//! | yes | no longer configured | the file's | [`Guarantee::Lost`] |
//!
//! A lost guarantee refuses updates, because a rollback could not be told from an update any more. It
//! never keeps a node from booting, confirming or reverting.

use formats::boot_record::{Floor, TpmSeen};
use formats::tpm::Mark;

/// Steps a counter may be raised by at once: each wears the TPM's memory and takes up to 0.1 s.
/// Security versions are counted by one, so it is years of releases.
pub const STEPS_LIMIT: u64 = 4096;

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
}

/// The floor, by what the file and the TPM say.
pub fn judge(file: &Floor, tpm: &Tpm) -> Judged {
    let own = file.security_version;
    let judged = |floor, guarantee| Judged { floor, guarantee, older_state: false };
    let lost = |floor, why: &str| judged(floor, Guarantee::Lost(why.to_owned()));
    match (tpm, file.tpm) {
        (Tpm::NotConfigured, None) => judged(own, Guarantee::File),
        (Tpm::NotConfigured, Some(_)) => {
            lost(own, "the configuration names no TPM any more, and one kept the floor")
        }
        (Tpm::Unusable(why), _) => lost(own, why),
        (Tpm::NoCounter, None) => judged(own, Guarantee::NotYet),
        (Tpm::NoCounter, Some(_)) => {
            lost(own, "the TPM was cleared or exchanged: its counter is gone")
        }
        (Tpm::Counter { mark, value }, seen) => {
            let Some(counted) = mark.floor(*value) else {
                return lost(own, "the TPM's counter is below its own beginning");
            };
            let floor = own.max(counted);
            match seen {
                Some(seen) if seen.mark() != *mark => {
                    lost(floor, "the TPM's counter was made anew, or the TPM was exchanged")
                }
                Some(seen) if *value < seen.counter => {
                    lost(floor, "the TPM's counter went back: it is another TPM")
                }
                _ => Judged { floor, guarantee: Guarantee::Tpm, older_state: counted > own },
            }
        }
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
        Tpm::Counter { mark: MARK, value }
    }

    #[test]
    fn the_table_of_the_module() {
        let lost = "lost";
        let rows = [
            ("no TPM", file(5, None), Tpm::NotConfigured, 5, "file", false),
            ("a TPM, not used yet", file(5, None), Tpm::NoCounter, 5, "not yet", false),
            ("in step", file(5, Some(102)), counter(102), 5, "tpm", false),
            ("a cut before the counter", file(6, Some(102)), counter(102), 6, "tpm", false),
            ("a cut after the counter", file(6, Some(102)), counter(103), 6, "tpm", false),
            ("an older disk put back", file(5, Some(102)), counter(110), 13, "tpm", true),
            ("a disk from before the TPM", file(3, None), counter(110), 13, "tpm", true),
            ("state lost", Floor::default(), counter(110), 13, "tpm", true),
            ("cleared", file(5, Some(102)), Tpm::NoCounter, 5, lost, false),
            ("made anew", file(5, Some(102)), remade(0, 700), 5, lost, false),
            ("made anew, higher", file(5, Some(102)), remade(50, 700), 50, lost, false),
            ("went back", file(5, Some(102)), counter(101), 5, lost, false),
            ("below its beginning", file(5, None), counter(99), 5, lost, false),
            ("no longer configured", file(5, Some(102)), Tpm::NotConfigured, 5, lost, false),
            ("unreachable", file(5, None), Tpm::Unusable(String::new()), 5, lost, false),
        ];
        for (name, file, tpm, floor, guarantee, older_state) in rows {
            let found = judge(&file, &tpm);
            let word = match found.guarantee {
                Guarantee::File => "file",
                Guarantee::NotYet => "not yet",
                Guarantee::Tpm => "tpm",
                Guarantee::Lost(_) => "lost",
            };
            assert_eq!(
                (found.floor, word, found.older_state),
                (floor, guarantee, older_state),
                "{name}"
            );
        }
    }

    fn remade(origin: u64, base: u64) -> Tpm {
        Tpm::Counter { mark: Mark { base, origin }, value: base }
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
                    assert!(judge(&file(own, known), &tpm).floor >= own, "{own} {known:?} {tpm:?}");
                }
            }
        }
    }

    #[test]
    fn a_leap_is_refused_where_a_tpm_would_have_to_follow() {
        let at = |tpm| judge(&file(5, None), &tpm);
        assert!(!too_far(&at(Tpm::NotConfigured), u64::MAX));
        assert!(!too_far(&at(Tpm::NoCounter), 5 + STEPS_LIMIT));
        assert!(too_far(&at(Tpm::NoCounter), 6 + STEPS_LIMIT));
    }
}
