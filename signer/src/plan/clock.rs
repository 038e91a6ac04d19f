//! Whether this machine's clock can be right: what was signed before is evidence.
//!
//! | evidence | it is later than |
//! |---|---|
//! | this program | its build time |
//! | the signing log | its latest entry |
//! | published metadata, a staged change | expiry less the period that the metadata carry |
//!
//! Metadata of other tools carry no period; then it is the longest that the role may last, which
//! bounds the time of signing from below. A clock behind any of it would publish what has ended, or
//! ends too soon, and is refused. A clock that is ahead contradicts nothing: signatures may be old
//! because nobody signed. It is said when they are very old.

use std::path::Path;

use formats::reason::Reason;
use formats::tuf::{BUILD_TIME, Header, Metadata as _, Role, UnixTime};

use super::expiry::{limit_of, period_of};
use super::{Finding, Level, Payload, Proposal};
use crate::policy::Policy;
use crate::state::State;

/// One hour: the most that the clocks of two signers may differ.
pub(super) const CLOCKS: u64 = 3600;

/// 30 days, the longest that a timestamp lasts: a repository in use was signed since.
const LONG_AGO: i64 = 30 * 86_400;

/// It is later than this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    after: UnixTime,
    witness: Witness,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Witness {
    Program,
    /// Name of the file.
    Log(String),
    /// Published metadata: role and version.
    Published(Role, u64),
    /// Metadata of a staged change.
    Staged(Role),
}

/// The clock is behind what is known to have happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this machine's clock says {now}, but {}: set the clock, then run again", .evidence.text())]
pub struct ClockError {
    now: UnixTime,
    evidence: Evidence,
}

impl Evidence {
    /// This program was built.
    pub fn of_program() -> Self {
        Evidence { after: BUILD_TIME, witness: Witness::Program }
    }

    /// Something was written into the signing log.
    pub fn of_log(path: &Path, newest: UnixTime) -> Self {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Evidence { after: newest, witness: Witness::Log(name) }
    }

    fn text(&self) -> String {
        let after = self.after;
        match &self.witness {
            Witness::Program => format!("this program was not built before {after}"),
            Witness::Log(name) => format!("{name} has an entry of {after}"),
            Witness::Published(role, version) => {
                format!("{role} version {version} was not signed before {after}")
            }
            Witness::Staged(role) => format!("{role} of this change was not made before {after}"),
        }
    }
}

/// When every published role was signed, at the earliest.
pub fn evidence_of(state: &State, policy: &Policy) -> Vec<Evidence> {
    let (snapshot, timestamp) = (&state.snapshot.data, &state.timestamp.data);
    let top = [
        (Role::Root, &state.root.header, period_of(&state.root.unknown)),
        (Role::Snapshot, &snapshot.header, period_of(&snapshot.unknown)),
        (Role::Timestamp, &timestamp.header, period_of(&timestamp.unknown)),
    ];
    let targets = state.targets_roles().map(|(role, signed)| {
        (role.clone(), signed.data.header(), period_of(&signed.data.unknown))
    });
    let signed = |(role, header, period): (Role, &Header, Option<u64>)| Evidence {
        after: signed_after(&role, header.expires, period, policy),
        witness: Witness::Published(role, header.version),
    };
    top.into_iter().chain(targets).map(signed).collect()
}

/// When what is staged was made, at the earliest.
pub fn evidence_of_staged(proposal: &Proposal, policy: &Policy) -> Vec<Evidence> {
    let made = |payload: &Payload| {
        let expires = payload.signed.get("expires")?.as_str()?;
        let members = payload.signed.as_object()?;
        let (role, expires) = (payload.role.clone(), UnixTime::parse(expires).ok()?);
        let after = signed_after(&role, expires, period_of(members), policy);
        Some(Evidence { after, witness: Witness::Staged(role) })
    };
    proposal.payloads.iter().filter_map(made).collect()
}

fn signed_after(role: &Role, expires: UnixTime, period: Option<u64>, policy: &Policy) -> UnixTime {
    let limit = limit_of(role);
    let period = period.or(policy.longest(role)).unwrap_or(limit).min(limit);
    expires.plus(-i64::try_from(period).unwrap_or(i64::MAX))
}

/// Refuses a clock that is behind any of the evidence by more than two clocks may differ.
pub fn judge(evidence: &[Evidence], now: UnixTime) -> Result<(), ClockError> {
    let Some(latest) = evidence.iter().max_by_key(|evidence| evidence.after) else {
        return Ok(());
    };
    if now.plus(i64::try_from(CLOCKS).unwrap_or(i64::MAX)) >= latest.after {
        return Ok(());
    }
    Err(ClockError { now, evidence: latest.clone() })
}

/// What is to be said before anything is signed on top of a state whose snapshot and timestamp
/// ended, and on which nobody signed for long by this clock.
pub fn may_be_ahead(evidence: &[Evidence], state: &State, now: UnixTime) -> Option<Finding> {
    let ended = |header: &Header| header.expires <= now;
    let signatures = evidence.iter().filter(|it| it.witness != Witness::Program);
    let newest = signatures.map(|evidence| evidence.after).max()?;
    let seconds = now.secs().saturating_sub(newest.secs());
    let old = seconds > LONG_AGO;
    if !old || !ended(&state.snapshot.data.header) || !ended(&state.timestamp.data.header) {
        return None;
    }
    let text = format!(
        "the newest signature is {} days old by this clock ({now}); if that is not so, stop here and \
         set the clock: what is signed ahead of time cannot be taken back easily",
        seconds / 86_400
    );
    Some(Finding { level: Level::Warning, reason: Reason::ClockUntrusted, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    fn log(time: UnixTime) -> Evidence {
        Evidence::of_log(Path::new("/keys/signer.log"), time)
    }

    #[test]
    fn the_clock_is_not_behind_what_happened() {
        let then = BUILD_TIME.plus(100 * DAY);
        let hour = i64::try_from(CLOCKS).unwrap();
        for (name, evidence, now, good) in [
            ("the program alone", vec![], BUILD_TIME, true),
            ("1970", vec![], UnixTime::EPOCH, false),
            ("an hour before the build", vec![], BUILD_TIME.plus(-hour), true),
            ("a second more", vec![], BUILD_TIME.plus(-hour - 1), false),
            ("the same second as the log", vec![log(then)], then, true),
            ("two people's clocks", vec![log(then)], then.plus(-hour), true),
            ("a day behind the log", vec![log(then)], then.plus(-DAY), false),
            ("long after it", vec![log(then)], then.plus(400 * DAY), true),
            ("the latest counts", vec![log(then), log(BUILD_TIME)], then.plus(-DAY), false),
        ] {
            let all: Vec<_> = evidence.into_iter().chain([Evidence::of_program()]).collect();
            assert_eq!(judge(&all, now).is_ok(), good, "{name}");
        }
    }

    #[test]
    fn the_sentence_names_the_evidence() {
        let known = UnixTime::parse("2026-11-28T12:00:00Z").unwrap();
        let error = judge(&[Evidence::of_program(), log(known)], UnixTime::EPOCH).unwrap_err();
        assert_eq!(
            error.to_string(),
            "this machine's clock says 1970-01-01T00:00:00Z, but signer.log has an entry of \
             2026-11-28T12:00:00Z: set the clock, then run again"
        );
    }

    #[test]
    fn when_something_was_signed() {
        let (policy, end) = (Policy::default(), BUILD_TIME.plus(40 * DAY));
        let day = Some(86_400);
        for (name, role, period, days) in [
            ("its own period", Role::Timestamp, day, 39),
            ("another tool's: the longest there may be", Role::Timestamp, None, 10),
            ("a period that no role may have", Role::Timestamp, Some(u64::MAX), 10),
            ("ten years", Role::Root, None, 40 - 3650),
        ] {
            let found = signed_after(&role, end, period, &policy);
            assert_eq!(found, BUILD_TIME.plus(days * DAY), "{name}");
        }
        let policy = Policy::parse("[roles.timestamp]\nexpires = \"2d\"").unwrap();
        assert_eq!(signed_after(&Role::Timestamp, end, None, &policy), BUILD_TIME.plus(38 * DAY));
    }
}
