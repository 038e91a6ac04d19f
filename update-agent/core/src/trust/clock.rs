//! Which time metadata is judged by.
//!
//! A node's clock may start in 1970, jump, or be set by whoever answers NTP. Time that was
//! proven is remembered: *known time* is the latest of the build time of this program and the
//! start of the last update in which every document was verified and not yet expired. So it
//! moves only on verified metadata, and never past the expiry of a signed document: a clock
//! spoofed forward is undone by the right time after at most the life of one timestamp.

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

#[cfg(test)]
mod tests {
    use super::*;

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
