//! `Range` of a blob request (RFC 9110 §14): one closed, open or suffix range. Pure.
//!
//! Several ranges are answered with the whole blob, never with `multipart/byteranges`, so a small
//! request cannot ask for more than the blob once.

use std::ops::Range;

/// What part of a resource to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// All of it, status 200.
    Whole,
    /// These bytes (not empty, inside the resource), status 206.
    Slice(Range<u64>),
    /// Nothing there, status 416.
    Unsatisfiable,
}

/// The part that the header's value asks for of a resource of `length` bytes.
///
/// A value this server does not understand is ignored, as RFC 9110 §14.2 says. A reversed range
/// is answered like one behind the end: 416.
pub fn part(value: &str, length: u64) -> Part {
    let Some(spec) = value.trim().strip_prefix("bytes=") else { return Part::Whole };
    let Some((first, last)) = spec.trim().split_once('-') else { return Part::Whole };
    let slice = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => first..length.min(last.saturating_add(1)),
        (Some(_), Some(_)) => return Part::Unsatisfiable,
        (Some(first), None) if last.is_empty() => first..length,
        (None, Some(suffix)) if first.is_empty() => length.saturating_sub(suffix)..length,
        _ => return Part::Whole,
    };
    if slice.is_empty() { Part::Unsatisfiable } else { Part::Slice(slice) }
}

/// Digits only; larger numbers than 64 bits hold are as good as the largest.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_what_the_rfc_says() {
        for (value, wanted) in [
            ("bytes=0-", Part::Slice(0..100)),
            ("bytes=0-0", Part::Slice(0..1)),
            ("bytes=10-19", Part::Slice(10..20)),
            ("bytes=90-200", Part::Slice(90..100)),
            ("bytes=99-99999999999999999999999", Part::Slice(99..100)),
            ("bytes=-5", Part::Slice(95..100)),
            ("bytes=-500", Part::Slice(0..100)),
            ("bytes=-0", Part::Unsatisfiable),
            ("bytes=100-", Part::Unsatisfiable),
            ("bytes=100-200", Part::Unsatisfiable),
            ("bytes=99999999999999999999999-", Part::Unsatisfiable),
            ("bytes=50-40", Part::Unsatisfiable),
            ("bytes=0-1,5-6", Part::Whole),
            ("bytes=-", Part::Whole),
            ("bytes=a-b", Part::Whole),
            ("bytes=+1-2", Part::Whole),
            ("bytes=5", Part::Whole),
            ("items=0-1", Part::Whole),
            ("", Part::Whole),
        ] {
            assert_eq!(part(value, 100), wanted, "{value}");
        }
        assert_eq!(part("bytes=0-", 0), Part::Unsatisfiable);
    }
}
