//! Release versions and their order, by the UAPI.10 Version Format Specification (the order of
//! `systemd-analyze compare-versions`).
//!
//! A version is at most 64 letters, digits, `.` and `-`, starting with a letter or digit, so that
//! it is also a registry tag and a TUF target name. Two spellings may be the same version
//! (`1.0` and `1.00`); that is why [`Version`] has [`Version::compare`] and no `Ord`.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text that is not a version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a version (1 to 64 letters, digits, '.' and '-', starting with a letter or digit)"
)]
pub struct VersionError(String);

/// A release version, as published.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Version(String);

impl Version {
    /// The spelling.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Which of two versions is newer (UAPI.10 §"Version Comparison").
    pub fn compare(&self, other: &Version) -> Ordering {
        compare(self.0.as_bytes(), other.0.as_bytes())
    }

    /// Whether this version comes after `other`.
    pub fn is_newer_than(&self, other: &Version) -> bool {
        self.compare(other) == Ordering::Greater
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let good = (1..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
            && text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if good {
            Ok(Version(text.to_owned()))
        } else {
            Err(VersionError(text.chars().take(80).collect()))
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The comparison of UAPI.10 over any bytes; characters outside its alphabet are skipped.
pub(crate) fn compare(mut a: &[u8], mut b: &[u8]) -> Ordering {
    loop {
        a = skip_foreign(a);
        b = skip_foreign(b);
        // `~` sorts before everything, even before the end of the version.
        match (strip(a, b'~'), strip(b, b'~')) {
            (Some(rest_a), Some(rest_b)) => {
                (a, b) = (rest_a, rest_b);
                continue;
            }
            (Some(_), None) => return Ordering::Less,
            (None, Some(_)) => return Ordering::Greater,
            (None, None) => {}
        }
        match (a.is_empty(), b.is_empty()) {
            (true, true) => return Ordering::Equal,
            (true, false) => return Ordering::Less,
            (false, true) => return Ordering::Greater,
            (false, false) => {}
        }
        let separators =
            [(b'-', Ordering::Less), (b'^', Ordering::Greater), (b'.', Ordering::Less)];
        let mut both_stripped = false;
        for (separator, with_it) in separators {
            match (strip(a, separator), strip(b, separator)) {
                (Some(rest_a), Some(rest_b)) => {
                    (a, b) = (rest_a, rest_b);
                    both_stripped = true;
                    break;
                }
                (Some(_), None) => return with_it,
                (None, Some(_)) => return with_it.reverse(),
                (None, None) => {}
            }
        }
        if both_stripped {
            continue;
        }
        let numeric =
            a.first().is_some_and(u8::is_ascii_digit) || b.first().is_some_and(u8::is_ascii_digit);
        let kind: fn(&u8) -> bool =
            if numeric { u8::is_ascii_digit } else { u8::is_ascii_alphabetic };
        let (run_a, rest_a) = split_run(a, kind);
        let (run_b, rest_b) = split_run(b, kind);
        let order = if numeric { compare_numbers(run_a, run_b) } else { run_a.cmp(run_b) };
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
}

fn skip_foreign(text: &[u8]) -> &[u8] {
    let known = |byte: &u8| byte.is_ascii_alphanumeric() || b"-.~^".contains(byte);
    let start = text.iter().position(known).unwrap_or(text.len());
    text.get(start..).unwrap_or_default()
}

fn strip(text: &[u8], first: u8) -> Option<&[u8]> {
    text.split_first().filter(|(byte, _)| **byte == first).map(|(_, rest)| rest)
}

fn split_run(text: &[u8], kind: fn(&u8) -> bool) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| !kind(byte)).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, &[]))
}

/// Digits of any length as numbers; no digits are zero.
fn compare_numbers(a: &[u8], b: &[u8]) -> Ordering {
    let significant = |digits: &[u8]| {
        let start = digits.iter().position(|byte| *byte != b'0').unwrap_or(digits.len());
        digits.get(start..).unwrap_or_default().to_vec()
    };
    let (a, b) = (significant(a), significant(b));
    a.len().cmp(&b.len()).then_with(|| a.cmp(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_the_specification() {
        // In each row every version is lower than all to its right.
        let rows: [&[&str]; 2] = [
            &[
                "~",
                "",
                "0",
                "1~rc1",
                "1",
                "1-1",
                "1.0",
                "1.2",
                "1.10",
                "1.10^20260101",
                "1.11",
                "9",
                "10",
                "2026.11.21",
                "2026.11.21a",
                "18446744073709551616",
            ],
            &["A", "Z", "a", "aa", "b", "1"],
        ];
        for row in rows {
            for (i, low) in row.iter().enumerate() {
                for (j, high) in row.iter().enumerate() {
                    let found = compare(low.as_bytes(), high.as_bytes());
                    assert_eq!(found, i.cmp(&j), "{low:?} {high:?}");
                }
            }
        }
        assert_eq!(compare(b"1.0", b"1.00"), Ordering::Equal);
        assert_eq!(compare(b"123", b"124"), Ordering::Less);
    }

    #[test]
    fn versions_are_safe_names() {
        for good in ["1", "1.1.0", "2026.11.21-rc1", "v3"] {
            assert_eq!(good.parse::<Version>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "-1", "a/b", "a b", "1+2", "1_2", "é", &"1".repeat(65)] {
            assert!(bad.parse::<Version>().is_err(), "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn the_order_is_consistent(a in "[0-9a-zA-Z.~^-]{0,12}", b in "[0-9a-zA-Z.~^-]{0,12}") {
            let forth = compare(a.as_bytes(), b.as_bytes());
            proptest::prop_assert_eq!(forth, compare(b.as_bytes(), a.as_bytes()).reverse());
            proptest::prop_assert_eq!(compare(a.as_bytes(), a.as_bytes()), Ordering::Equal);
        }
    }
}
