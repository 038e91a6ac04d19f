//! Which time metadata is judged by.
//!
//! A node's clock may start in 1970, jump, or be set by whoever answers NTP. Time that was
//! proven is remembered: *known time* is the latest of the build time of this program and the
//! moments at which the metadata of a complete update was signed, by its own signed word
//! ([`Header::signed_at`](formats::tuf::Header::signed_at)). The node's clock proves nothing: known
//! time never follows it, or a clock that was ahead for an hour would make the right time look wrong
//! for an hour. It never passes the clock either, or a signer whose clock is ahead would lock out
//! every node.
//!
//! So a clock that is set back is noticed when it is set back before what was signed last, which a
//! repository signs again every few hours. Metadata that does not say when it was signed proves no
//! time.

use formats::tuf::UnixTime;

use super::TrustError;

/// How far the system clock may be behind known time, in seconds: what NTP steps and
/// unsteady oscillators explain.
pub const CLOCK_TOLERANCE: i64 = 5 * 60;

/// How far known time must move before it alone is worth a write: spares the flash of a node
/// that polls every few minutes.
pub(super) const KNOWN_TIME_STEP: i64 = 60 * 60;

/// What is known about the time when an update begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// The system clock, read once per update (TUF §5.1).
    pub system: UnixTime,
    /// When this program was built: no update happens earlier.
    pub build: UnixTime,
}

/// The time an update is judged by from begin to end.
///
/// Errors: [`TrustError::ClockUntrusted`] when the system clock is more than
/// [`CLOCK_TOLERANCE`] behind: expiry could not be judged, and is not skipped.
pub fn start_time(clock: Clock, stored: UnixTime) -> Result<UnixTime, TrustError> {
    let known = clock.build.max(stored);
    if clock.system.plus(CLOCK_TOLERANCE) < known {
        return Err(TrustError::ClockUntrusted { clock: clock.system, known });
    }
    Ok(clock.system.max(known))
}

/// Known time after an update that began at `now` and verified completely; `signed` are the moments
/// at which its documents were signed, of those that say so.
pub(super) fn proven_time(
    known: UnixTime,
    now: UnixTime,
    signed: impl IntoIterator<Item = UnixTime>,
) -> UnixTime {
    signed.into_iter().fold(known, |known, moment| known.max(moment.min(now)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_time_follows_what_was_signed_and_never_the_clock() {
        let hour = 3600;
        let now = 1_800_000_000;
        // name, known, now, signed, known afterwards
        let rows: [(&str, i64, i64, &[i64], i64); 9] = [
            ("first run", 0, now, &[now - hour, now - 9 * hour], now - hour),
            ("the order is no matter", 0, now, &[now - 9 * hour, now - hour], now - hour),
            ("nothing says when it was signed", now - hour, now, &[], now - hour),
            ("84: the clock is hours ahead", 0, now + 9 * hour, &[now - hour], now - hour),
            ("84: the clock is decades ahead", 0, 1 << 32, &[now - hour], now - hour),
            ("the signer's clock is ahead", 0, now, &[now + hour], now),
            ("both are", 0, now + hour, &[now + 2 * hour], now + hour),
            ("an older state by an offline statement", now, now, &[now - hour], now),
            ("what was known is later than the clock", now + hour, now, &[now], now + hour),
        ];
        for (name, known, now, signed, expected) in rows {
            let t = UnixTime::from_secs;
            let found = proven_time(t(known), t(now), signed.iter().map(|&secs| t(secs)));
            assert_eq!(found, t(expected), "{name}");
        }
    }

    #[test]
    fn the_clock_is_believed_unless_it_is_behind() {
        let t = UnixTime::from_secs;
        let day = 86_400;
        let now = 1_800_000_000;
        for (name, system, build, stored, expected) in [
            ("first run", now, now - day, 0, Some(now)),
            ("82: no clock, first run", 0, now - day, 0, None),
            ("82: no clock, known time stored", 0, 0, now, None),
            ("83: back a day", now - day, 0, now, None),
            ("83: back four minutes", now - 240, 0, now, Some(now)),
            ("83: back five minutes", now - 300, 0, now, Some(now)),
            ("83: back five minutes and a second", now - 301, 0, now, None),
            ("83: right again", now + 1, 0, now, Some(now + 1)),
            ("86: 2038", 1 << 31, 0, (1 << 31) - 1, Some(1 << 31)),
            ("86: 2106", 1 << 32, 0, (1 << 32) - 1, Some(1 << 32)),
            ("86: 2262", 9_223_372_037, 0, 9_223_372_036, Some(9_223_372_037)),
            ("a build of the future", now, now + day, 0, None),
        ] {
            let clock = Clock { system: t(system), build: t(build) };
            assert_eq!(start_time(clock, t(stored)).ok(), expected.map(t), "{name}");
        }
    }
}
