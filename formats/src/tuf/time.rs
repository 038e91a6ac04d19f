//! Time of metadata: seconds, and the one spelling TUF gives an expiry.

use std::fmt;

/// Seconds since 1970-01-01T00:00:00Z, without leap seconds, of the years 0001 to 9999.
///
/// 64 bits wide everywhere: 2038, 2106 and 2262 are ordinary years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(i64);

/// A text is not `YYYY-MM-DDTHH:MM:SSZ` or not a time that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a time reads YYYY-MM-DDTHH:MM:SSZ, years 0001 to 9999, and exists in the calendar")]
pub struct TimeError;

const DAY: i64 = 86_400;

/// 2026-11-01: no metadata were signed and no update happens before these programs were written.
/// Raised with each release; a constant, so that the same source builds to the same bytes.
pub const BUILD_TIME: UnixTime = UnixTime(1_793_491_200);

impl UnixTime {
    /// 0001-01-01T00:00:00Z.
    pub const MIN: UnixTime = UnixTime(-62_135_596_800);
    /// 9999-12-31T23:59:59Z.
    pub const MAX: UnixTime = UnixTime(253_402_300_799);
    /// 1970-01-01T00:00:00Z, where a machine without a clock starts.
    pub const EPOCH: UnixTime = UnixTime(0);

    /// The time of that many seconds; beyond the range, its nearer end.
    pub const fn from_secs(secs: i64) -> Self {
        if secs < Self::MIN.0 {
            Self::MIN
        } else if secs > Self::MAX.0 {
            Self::MAX
        } else {
            UnixTime(secs)
        }
    }

    /// Seconds since 1970.
    pub const fn secs(self) -> i64 {
        self.0
    }

    /// That many seconds later (earlier when negative), held within the range.
    pub const fn plus(self, secs: i64) -> Self {
        UnixTime::from_secs(self.0.saturating_add(secs))
    }

    /// Reads exactly `YYYY-MM-DDTHH:MM:SSZ` (TUF §4.2): no offset, no fraction, no lower case.
    pub fn parse(text: &str) -> Result<Self, TimeError> {
        parse(text).ok_or(TimeError)
    }
}

fn parse(text: &str) -> Option<UnixTime> {
    let bytes: &[u8; 20] = text.as_bytes().try_into().ok()?;
    let number = |from: usize, digits: usize| {
        bytes.get(from..from + digits)?.iter().try_fold(0i64, |sum, byte| {
            byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0'))
        })
    };
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'Z')];
    if marks.iter().any(|(at, mark)| bytes[*at] != *mark) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
    let exists = year >= 1
        && (1..=12).contains(&month)
        && (1..=days_of_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    let secs = days_from_civil(year, month, day) * DAY + hour * 3600 + minute * 60 + second;
    exists.then_some(UnixTime(secs))
}

fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar; years start in March so that the
/// leap day comes last (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil_from_days(self.0.div_euclid(DAY));
        let second = self.0.rem_euclid(DAY);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_times() {
        for (text, secs) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T23:59:59Z", 951_868_799),
            ("2038-01-19T03:14:08Z", 1 << 31),
            ("2106-02-07T06:28:16Z", 1 << 32),
            ("2262-04-11T23:47:17Z", i64::MAX / 1_000_000_000 + 1),
            ("0001-01-01T00:00:00Z", UnixTime::MIN.0),
            ("9999-12-31T23:59:59Z", UnixTime::MAX.0),
        ] {
            assert_eq!(UnixTime::parse(text), Ok(UnixTime(secs)), "{text}");
            assert_eq!(UnixTime(secs).to_string(), text);
        }
    }

    #[test]
    fn case_64_only_one_spelling() {
        for text in [
            "",
            "2030-01-01T00:00:00+14:00",
            "2030-01-01T00:00:00.5Z",
            "2030-01-01T00:00:00z",
            "2030-01-01t00:00:00Z",
            "2030-01-01 00:00:00Z",
            "2030-01-01T00:00:00",
            "2030-01-01T24:00:00Z",
            "2030-01-01T23:60:00Z",
            "2030-01-01T23:59:60Z",
            "2030-02-30T00:00:00Z",
            "2100-02-29T00:00:00Z",
            "2030-13-01T00:00:00Z",
            "2030-00-01T00:00:00Z",
            "2030-01-00T00:00:00Z",
            "0000-01-01T00:00:00Z",
            "10000-01-01T00:00:00Z",
            "+030-01-01T00:00:00Z",
            " 030-01-01T00:00:00Z",
            "2030-01-01T00:00:00Z ",
            "2030-01-01T00:00:0éZ",
        ] {
            assert_eq!(UnixTime::parse(text), Err(TimeError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_second_is_read_as_it_is_written(secs in UnixTime::MIN.0..=UnixTime::MAX.0) {
            let text = UnixTime(secs).to_string();
            prop_assert_eq!(text.len(), 20);
            prop_assert_eq!(UnixTime::parse(&text), Ok(UnixTime(secs)));
        }
    }
}
