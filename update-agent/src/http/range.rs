//! Byte ranges: which runs to ask for, and what a server says it sent.

use std::ops::Range;

/// Joins ascending, disjoint ranges whose gaps are at most `gap` bytes.
///
/// A request costs a round trip; the bytes of a small gap cost less and are dropped on arrival.
/// Empty ranges are left out.
///
/// ```
/// # use update_agent::http::coalesce;
/// assert_eq!(coalesce(&[0..10, 12..20, 40..50], 2), [0..20, 40..50]);
/// ```
pub fn coalesce(ranges: &[Range<u64>], gap: u64) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for range in ranges.iter().filter(|range| !range.is_empty()) {
        match runs.last_mut() {
            Some(run) if range.start.saturating_sub(run.end) <= gap => {
                run.end = run.end.max(range.end);
            }
            _ => runs.push(range.clone()),
        }
    }
    runs
}

/// Whether ranges are ascending, disjoint and end by `size`.
pub(crate) fn well_ordered(ranges: &[Range<u64>], size: u64) -> bool {
    let mut from = 0;
    ranges.iter().all(|range| {
        let good = range.start >= from && range.end >= range.start && range.end <= size;
        from = range.end;
        good
    })
}

/// `Content-Range: bytes FIRST-LAST/TOTAL` of a 206 (RFC 9110 §14.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ContentRange {
    /// First byte sent.
    pub(crate) first: u64,
    /// Last byte sent, inclusive; not below `first`.
    pub(crate) last: u64,
    /// Length of the whole, unless the server does not know it (`*`).
    pub(crate) total: Option<u64>,
}

impl ContentRange {
    /// Parses the header; `None` for anything but the one form above.
    pub(crate) fn parse(value: &str) -> Option<Self> {
        let (span, total) = value.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = span.split_once('-')?;
        let (first, last) = (number(first)?, number(last)?);
        let total = if total == "*" { None } else { Some(number(total)?) };
        let inside = total.is_none_or(|total| last < total);
        (first <= last && inside).then_some(ContentRange { first, last, total })
    }
}

fn number(digits: &str) -> Option<u64> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "lists of ranges are what is tested")]
mod tests {
    use super::*;

    type Row = (&'static str, &'static [Range<u64>], u64, &'static [Range<u64>]);

    #[test]
    fn small_gaps_are_filled() {
        // (name, ranges, gap, runs)
        let rows: &[Row] = &[
            ("nothing", &[], 9, &[]),
            ("one", &[3..5], 0, &[3..5]),
            ("adjacent", &[0..5, 5..9], 0, &[0..9]),
            ("gap as large as allowed", &[0..5, 8..9], 3, &[0..9]),
            ("gap one larger", &[0..5, 9..10], 3, &[0..5, 9..10]),
            ("empty ranges vanish", &[0..0, 4..4, 7..8], 100, &[7..8]),
            ("three into two", &[0..1, 2..3, 50..60], 1, &[0..3, 50..60]),
            ("the end of u64", &[u64::MAX - 1..u64::MAX], 9, &[u64::MAX - 1..u64::MAX]),
        ];
        for (name, ranges, gap, runs) in rows {
            assert_eq!(coalesce(ranges, *gap), *runs, "{name}");
        }
    }

    #[test]
    fn runs_cover_what_was_asked_and_little_more() {
        for seed in 0..200_u64 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut draw = |below: u64| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state % below
            };
            let mut at = 0;
            let ranges: Vec<Range<u64>> = (0..draw(30))
                .map(|_| {
                    let start = at + draw(100);
                    at = start + 1 + draw(50);
                    start..at
                })
                .collect();
            let gap = draw(60);
            let runs = coalesce(&ranges, gap);
            let length = |list: &[Range<u64>]| list.iter().map(|r| r.end - r.start).sum::<u64>();
            let inside =
                |r: &Range<u64>| runs.iter().any(|run| run.start <= r.start && r.end <= run.end);
            assert!(ranges.iter().all(inside), "seed {seed}");
            assert!(runs.windows(2).all(|pair| pair[1].start - pair[0].end > gap), "seed {seed}");
            let filled = gap * (ranges.len().saturating_sub(runs.len())) as u64;
            assert!(length(&runs) <= length(&ranges) + filled, "seed {seed}");
        }
    }

    #[test]
    fn only_ordered_ranges_are_taken() {
        assert!(well_ordered(&[], 0));
        assert!(well_ordered(&[0..5, 5..5, 7..10], 10));
        assert!(!well_ordered(&[0..5, 4..6], 10), "overlap");
        assert!(!well_ordered(&[6..7, 0..5], 10), "descending");
        assert!(!well_ordered(&[0..11], 10), "past the end");
        #[expect(clippy::reversed_empty_ranges, reason = "the hostile case")]
        let reversed = [5..3];
        assert!(!well_ordered(&reversed, 10), "reversed");
    }

    #[test]
    fn content_range_has_one_form() {
        let full = ContentRange { first: 2, last: 9, total: Some(10) };
        assert_eq!(ContentRange::parse("bytes 2-9/10"), Some(full));
        assert_eq!(ContentRange::parse("bytes 2-9/*"), Some(ContentRange { total: None, ..full }));
        for bad in [
            "",
            "bytes",
            "bytes 2-9",
            "bytes */10",
            "bytes 9-2/10",
            "bytes 2-10/10",
            "bytes -9/10",
            "bytes 2-/10",
            "items 2-9/10",
            "bytes 2-9/10 ",
            "bytes +2-9/10",
            "bytes 2-99999999999999999999/*",
        ] {
            assert_eq!(ContentRange::parse(bad), None, "{bad:?}");
        }
    }
}
