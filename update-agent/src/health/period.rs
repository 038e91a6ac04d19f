//! Spans of time as people write them: `250ms`, `5s`, `1h30m`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};

/// 366 days: longer is a slip of the pen.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// Parses whole numbers with the units `ms`, `s`, `m`, `h`, `d`, each at most once, largest first.
///
/// ```
/// use update_agent::health::parse_period;
/// assert_eq!(parse_period("1h30m").unwrap().as_secs(), 5400);
/// assert!(parse_period("90").is_err());
/// ```
pub fn parse_period(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a span of time such as 250ms, 5s, 10m or 1h30m");
    let mut rest = text;
    let mut total = Duration::ZERO;
    let mut units =
        [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1_u64)]
            .into_iter();
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = rest.split_at(digits);
        let letters =
            after.len() - after.trim_start_matches(|c: char| c.is_ascii_lowercase()).len();
        let (unit, after) = after.split_at(letters);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let (_, millis) = units.find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let part = number.checked_mul(millis).map(Duration::from_millis).ok_or_else(wrong)?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = after;
    }
    if text.is_empty() || total > LONGEST {
        return Err(wrong());
    }
    Ok(total)
}

/// [`parse_period`] for `#[serde(deserialize_with = …)]`.
pub fn deserialize_period<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(d)?;
    parse_period(&text).map_err(serde::de::Error::custom)
}

/// The shortest text that [`parse_period`] reads as `period`, in whole milliseconds.
///
/// ```
/// use update_agent::health::format_period;
/// assert_eq!(format_period(std::time::Duration::from_secs(5400)), "1h30m");
/// ```
pub fn format_period(period: Duration) -> String {
    let mut rest = period.as_millis();
    let mut text = String::new();
    for (unit, millis) in
        [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)]
    {
        let whole = rest / millis;
        rest %= millis;
        if whole > 0 {
            text += &format!("{whole}{unit}");
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// [`format_period`] for `#[serde(serialize_with = …)]`.
pub fn serialize_period<S: Serializer>(period: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&format_period(*period))
}

/// What a person may read of a time: whole milliseconds below a second, else tenths of a second.
/// Never longer than it was.
pub(crate) fn rounded(time: Duration) -> Duration {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(if millis < 1000 { millis } else { millis / 100 * 100 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_as_people_say_them() {
        let rows = [
            (Duration::ZERO, "0ns"),
            (Duration::from_nanos(12_345_678), "12ms"),
            (Duration::from_nanos(999_999_999), "999ms"),
            (Duration::from_nanos(2_999_999_971), "2.9s"),
            (Duration::from_millis(3050), "3s"),
            (Duration::from_secs(300), "300s"),
        ];
        for (time, shown) in rows {
            assert_eq!(format!("{:?}", rounded(time)), shown, "{time:?}");
            assert!(rounded(time) <= time);
        }
    }

    #[test]
    fn spans_are_read_as_written() {
        for (text, millis) in [
            ("0s", 0),
            ("250ms", 250),
            ("5s", 5000),
            ("1m", 60_000),
            ("1h30m", 5_400_000),
            ("1d1ms", 86_400_001),
        ] {
            assert_eq!(parse_period(text), Ok(Duration::from_millis(millis)), "{text}");
            assert_eq!(format_period(Duration::from_millis(millis)), text);
        }
        for bad in [
            "",
            "5",
            "s",
            "-5s",
            "+5s",
            "5 s",
            "5S",
            "5sec",
            "30m1h",
            "5s5s",
            "1.5h",
            "367d",
            "99999999999999999999s",
            "18446744073709551615d",
            "5s\u{0}",
            "٥s",
        ] {
            assert!(parse_period(bad).is_err(), "{bad:?}");
        }
    }
}
