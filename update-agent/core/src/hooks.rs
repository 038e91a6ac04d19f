//! What an operator's hooks decide, and which of them is due.
//!
//! Before the machine restarts into a release, a hook may put it off. It is never asked on a trial, or
//! where a slot is left that was given up: those restarts are what saves the node.
//!
//! | the hook | since it was first asked | then |
//! |---|---|---|
//! | agreed | – | restart |
//! | did not agree, or failed | less than the limit | ask again after [`ASK_AGAIN`], at the limit at the latest |
//! | did not agree, or failed | the limit or more | restart |
//!
//! The end of an update is told once it is in the boot record, and until a hook has taken note of it:
//!
//! | the boot record says of the release | then |
//! |---|---|
//! | its update is under way | wait |
//! | it failed, since it was begun, and its slot still runs | wait for the restart that leaves it |
//! | it failed, since it was begun | it was reverted |
//! | its slot holds it, confirmed | it was confirmed |
//! | anything else | nobody is told: another release took its place |

use std::time::Duration;

use formats::boot_record::{BootRecord, Failure, ReleaseId, Slot};
use serde::{Deserialize, Serialize};

/// 1 min: short beside the hour that a restart may be put off, long beside what a hook costs.
pub const ASK_AGAIN: Duration = Duration::from_secs(60);

/// `EX_TEMPFAIL` of sysexits.h: the exit status by which a hook says "not now".
pub const NOT_NOW: i32 = 75;

/// How a hook ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// With exit status 0, or there is none.
    Yes,
    /// With exit status [`NOT_NOW`].
    NotNow,
    /// Any other way, for this reason: it is missing, too slow, or ended with another status.
    Failed(String),
}

/// What follows before a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// The machine restarts.
    Now,
    /// The hook is asked again after this time.
    AskAgain(Duration),
}

/// What follows what the hook before a restart said, which was first asked so long ago.
pub fn before_restart(said: &Said, waited: Duration, limit: Duration) -> Restart {
    let left = limit.saturating_sub(waited);
    match said {
        Said::Yes => Restart::Now,
        Said::NotNow | Said::Failed(_) if left.is_zero() => Restart::Now,
        Said::NotNow | Said::Failed(_) => Restart::AskAgain(ASK_AGAIN.min(left)),
    }
}

/// An update whose end a hook is to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owed {
    /// The release.
    pub release: ReleaseId,
    /// Its slot.
    pub slot: Slot,
    /// The version that ran when it was begun, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// When it failed on this node before, in Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_before: Option<u64>,
}

impl Owed {
    /// For an update that is about to begin, or to be reverted.
    pub fn new(release: ReleaseId, slot: Slot, from: Option<String>, record: &BootRecord) -> Self {
        let failed_before = record.failure_of(release.index).map(|failure| failure.at);
        Owed { release, slot, from, failed_before }
    }
}

/// Which hook is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due<'a> {
    /// None yet.
    Wait,
    /// None any more.
    Nothing,
    /// The one after a confirm.
    Confirmed,
    /// The one after a revert, for this reason.
    Reverted(&'a Failure),
}

/// Which hook is due for an update, by the boot record and the slot that runs.
pub fn due<'a>(owed: &Owed, record: &'a BootRecord, booted: Slot) -> Due<'a> {
    let same = |release: &ReleaseId| release.index == owed.release.index;
    if record.update.as_ref().is_some_and(|update| same(&update.release)) {
        return Due::Wait;
    }
    match record.failure_of(owed.release.index) {
        Some(failure) if owed.failed_before != Some(failure.at) => match booted == owed.slot {
            true => Due::Wait,
            false => Due::Reverted(failure),
        },
        Some(_) => Due::Nothing,
        None => {
            let content = record.slots.of(owed.slot).as_ref();
            let confirmed = content.is_some_and(|own| same(&own.release) && own.confirmed);
            if confirmed { Due::Confirmed } else { Due::Nothing }
        }
    }
}

#[cfg(test)]
mod tests {
    use formats::boot_record::{Phase, SlotContent, Update};
    use formats::digest::Sha256;
    use formats::reason::Reason;

    use super::*;

    #[test]
    fn a_restart_is_put_off_for_a_limited_time() {
        let limit = Duration::from_secs(3600);
        let seconds = |n| Duration::from_secs(n);
        for waited in [0, 1, 59, 60, 3539, 3540, 3541, 3599, 3600, 3601, u64::MAX] {
            assert_eq!(before_restart(&Said::Yes, seconds(waited), limit), Restart::Now);
            for said in [Said::NotNow, Said::Failed("missing".to_owned())] {
                let expected = match waited {
                    0..=3540 => Restart::AskAgain(seconds(60)),
                    3541..=3599 => Restart::AskAgain(seconds(3600 - waited)),
                    _ => Restart::Now,
                };
                assert_eq!(before_restart(&said, seconds(waited), limit), expected, "{waited}");
                assert_eq!(before_restart(&said, seconds(waited), Duration::ZERO), Restart::Now);
            }
        }
    }

    fn release(n: u8) -> ReleaseId {
        let index = Sha256::of(&[n]);
        let version = format!("1.{n}.0").parse::<formats::version::Version>().unwrap().into();
        ReleaseId { index, version, security_version: 0 }
    }

    fn record(update: Option<u8>, content: Option<(u8, bool)>, failed: Option<u64>) -> BootRecord {
        let update = update.map(|n| Update::new(Slot::B, release(n), Phase::Staged));
        let mut record = BootRecord { update, ..BootRecord::default() };
        record.slots.b = content.map(|(n, confirmed)| SlotContent {
            release: release(n),
            components: Vec::new(),
            confirmed,
            order: Vec::new(),
        });
        record.failures.extend(failed.map(|at| Failure {
            release: release(1),
            at,
            reason: Reason::Unhealthy.into(),
            detail: "web".to_owned(),
        }));
        record
    }

    /// Every combination: the update under way, what the slot holds, whether it failed.
    #[test]
    fn the_end_of_an_update_is_told() {
        for failed_before in [None, Some(7)] {
            let owed = Owed { release: release(1), slot: Slot::B, from: None, failed_before };
            for update in [None, Some(1), Some(2)] {
                for content in [None, Some((1, false)), Some((1, true)), Some((2, true))] {
                    for failed in [None, Some(7), Some(8)] {
                        let record = record(update, content, failed);
                        let fell = failed.is_some() && failed != failed_before;
                        for booted in Slot::BOTH {
                            let expected = if update == Some(1) || fell && booted == Slot::B {
                                Due::Wait
                            } else if fell {
                                Due::Reverted(&record.failures[0])
                            } else if failed.is_none() && content == Some((1, true)) {
                                Due::Confirmed
                            } else {
                                Due::Nothing
                            };
                            let row =
                                format!("{failed_before:?} {update:?} {content:?} {failed:?}");
                            assert_eq!(due(&owed, &record, booted), expected, "{row} {booted}");
                        }
                    }
                }
            }
        }
    }
}
