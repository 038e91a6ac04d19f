//! The guard of a trial: how long a round may take before the machine is restarted beside it.
//!
//! Storage that hangs ends no call, so the thread that waits for it reaches no deadline. The guard is another
//! thread; it knows what it is told, and asks for the restart itself:
//!
//! | told | the boot | restarts |
//! |---|---|---|
//! | a round begins | was seen to be settled | never |
//! | a round begins | the boot loader said trial | [`GRACE`] after the deadline |
//! | a round begins | the boot loader said something else | never |
//! | record and flags were read | has something to prove | [`GRACE`] after the deadline |
//! | record and flags were read | is settled, or nobody can tell | never |
//! | the round has ended | any | never |
//!
//! The boot loader's word counts only until record and flags are read, which is where storage may hang first.
//! Where it says nothing, a hardware watchdog has to do (`health.watchdog`).

use std::time::Duration;

use crate::daemon::Boot;

/// 1 min: checks are ended at the deadline, and what was found out is then written.
pub const GRACE: Duration = Duration::from_secs(60);

/// What the guard is told. `left`: what is left of the deadline of the trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// A round begins; nothing of storage was read.
    Begins {
        /// Whether the boot was seen to have nothing left to prove.
        settled: bool,
        /// Whether the boot loader said that this boot is a trial.
        said_trial: bool,
        /// As far as this process knows.
        left: Duration,
    },
    /// Record and flags were read.
    Read {
        /// What they say.
        boot: Boot,
        /// As the record knows.
        left: Duration,
    },
    /// The round has ended.
    Ended,
}

/// How long the guard waits for the end of the round; `None`: for ever.
pub fn patience(told: Told) -> Option<Duration> {
    match told {
        Told::Begins { settled: false, said_trial: true, left }
        | Told::Read { boot: Boot::Unproven, left } => Some(left.saturating_add(GRACE)),
        Told::Begins { .. } | Told::Read { .. } | Told::Ended => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEFT: Duration = Duration::from_secs(300);
    const ALL: Option<Duration> = Some(Duration::from_secs(360));

    #[test]
    fn how_long_a_round_may_take() {
        let begins = |settled, said_trial| Told::Begins { settled, said_trial, left: LEFT };
        let read = |boot| Told::Read { boot, left: LEFT };
        let rows = [
            (begins(false, true), ALL),
            (begins(false, false), None),
            (begins(true, true), None),
            (begins(true, false), None),
            (read(Boot::Unproven), ALL),
            (read(Boot::Settled), None),
            (read(Boot::Unknown), None),
            (Told::Ended, None),
        ];
        for (told, expected) in rows {
            assert_eq!(patience(told), expected, "{told:?}");
        }
    }

    /// A deadline that is over leaves the grace, and one without end does not overflow.
    #[test]
    fn the_grace_is_always_given() {
        for left in [Duration::ZERO, Duration::MAX] {
            for told in [
                Told::Begins { settled: false, said_trial: true, left },
                Told::Read { boot: Boot::Unproven, left },
            ] {
                let found = patience(told);
                assert!(found.is_some_and(|found| found >= GRACE && found >= left), "{told:?}");
            }
        }
    }
}
