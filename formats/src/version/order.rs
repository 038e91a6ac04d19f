//! The order of two versions: pre-release words, then UAPI.10.
//!
//! | step | of `1.1.0-rc.1` |
//! |---|---|
//! | [`marked`]: a pre-release word gets the `~` that UAPI.10 has for it | `1.1.0~rc.1` |
//! | [`compare`]: the comparison of UAPI.10 | below `1.1.0` |
//!
//! Both are total preorders: every pair compares, and equal versions stand at one place.

use std::borrow::Cow;
use std::cmp::Ordering;

/// What people call a release before the release. Case does not matter.
const WORDS: [&str; 8] = ["alpha", "beta", "dev", "pre", "prerelease", "preview", "rc", "snapshot"];

fn is_word(letters: &str) -> bool {
    WORDS.iter().any(|word| word.eq_ignore_ascii_case(letters))
}

/// A version with `~` before every pre-release word that is a whole run of letters and does not
/// begin it, instead of the `-` or `.` that stands there; the word in lower case.
pub(super) fn marked(version: &str) -> Cow<'_, str> {
    if !runs(version).any(|run| run.is_prerelease()) {
        return Cow::Borrowed(version);
    }
    let (mut out, mut done) = (String::with_capacity(version.len() + 4), 0);
    for run in runs(version).filter(|run| run.is_prerelease()) {
        let before = version.get(done..run.start).expect("runs of letters follow one another");
        let stem = before.strip_suffix(['-', '.']).unwrap_or(before);
        out.push_str(stem);
        if !out.ends_with('~') {
            out.push('~');
        }
        out.push_str(&run.letters.to_ascii_lowercase());
        done = run.start + run.letters.len();
    }
    out.push_str(version.get(done..).expect("a run ends within the version"));
    Cow::Owned(out)
}

/// A whole run of letters and where it starts.
pub(super) struct Run<'a> {
    pub(super) start: usize,
    pub(super) letters: &'a str,
}

impl Run<'_> {
    pub(super) fn is_prerelease(&self) -> bool {
        self.start > 0 && is_word(self.letters)
    }
}

/// The runs of letters of a version, from left to right.
pub(super) fn runs(version: &str) -> impl Iterator<Item = Run<'_>> {
    let mut start = 0;
    version.split(|c: char| !c.is_ascii_alphabetic()).filter_map(move |letters| {
        let run = Run { start, letters };
        // Versions are ASCII: what separates is one byte.
        start += letters.len() + 1;
        (!letters.is_empty()).then_some(run)
    })
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
        // Of two of them the one further left is lower.
        let mut both_stripped = false;
        for separator in *b"-^." {
            match (strip(a, separator), strip(b, separator)) {
                (Some(rest_a), Some(rest_b)) => {
                    (a, b) = (rest_a, rest_b);
                    both_stripped = true;
                    break;
                }
                (Some(_), None) => return Ordering::Less,
                (None, Some(_)) => return Ordering::Greater,
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
    &text[start..]
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
        digits[start..].to_vec()
    };
    let (a, b) = (significant(a), significant(b));
    a.len().cmp(&b.len()).then_with(|| a.cmp(&b))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn raw(a: &str, b: &str) -> Ordering {
        compare(a.as_bytes(), b.as_bytes())
    }

    fn whole(a: &str, b: &str) -> Ordering {
        raw(&marked(a), &marked(b))
    }

    /// The examples of UAPI.10 and the table of systemd's own test of the same function, low to
    /// high in each row.
    const RISING: [&[&str]; 5] = [
        &[
            "~1",
            "",
            "ab",
            "abb",
            "abc",
            "0001",
            "002",
            "12",
            "122",
            "122.9",
            "123~rc1",
            "123",
            "123-a",
            "123-a.1",
            "123-a1",
            "123-a1.1",
            "123-3",
            "123-3.1",
            "123^patch1",
            "123^1",
            "123.a-1",
            "123.1-1",
            "123a-1",
            "124",
        ],
        &["bar-123", "foo-123"],
        &["~", "", "0", "0.", "0.0"],
        &["123", "123.a", "123.b", "123a"],
        &["A", "Z", "a", "aa", "b", "1"],
    ];

    const EQUAL: [(&str, &str); 8] = [
        ("11", "11"),
        ("systemd-123", "systemd-123"),
        ("11α", "11β"),
        ("1_", "1"),
        ("_1", "1"),
        ("1+", "1"),
        ("+1", "1"),
        ("1.0", "1.00"),
    ];

    #[test]
    fn the_examples_of_the_specification() {
        for row in RISING {
            for (i, low) in row.iter().enumerate() {
                for (j, high) in row.iter().enumerate() {
                    assert_eq!(raw(low, high), i.cmp(&j), "{low:?} {high:?}");
                }
            }
        }
        for (a, b) in EQUAL {
            assert_eq!(raw(a, b), Ordering::Equal, "{a:?} {b:?}");
        }
        for (low, high) in [("1_", "1.2"), ("1.3.3", "1_2_3"), ("1+", "1.2"), ("1.3.3", "1+2+3")] {
            assert_eq!(raw(low, high), Ordering::Less, "{low:?} {high:?}");
        }
    }

    /// What this machine's systemd says of the same rows, and of how a pre-release is marked.
    #[test]
    fn systemd_orders_them_alike() {
        let marks = ["1.1.0-rc1", "1.1.0-rc.1", "1.1.0rc1", "1.1.0.DEV5"].map(marked);
        let marks: Vec<&str> = marks.iter().map(Cow::as_ref).chain(["1.1.0", "1.1.0-1"]).collect();
        for row in RISING.iter().copied().chain([marks.as_slice()]) {
            for pair in row.windows(2) {
                let [a, b] = pair else { continue };
                let mut command = Command::new("systemd-analyze");
                command.args(["compare-versions", "--", a, b]);
                let Ok(done) = command.output() else { return };
                let found = match done.status.code() {
                    Some(0) => Ordering::Equal,
                    Some(11) => Ordering::Greater,
                    Some(12) => Ordering::Less,
                    // A systemd that does not know the command.
                    _ => return,
                };
                assert_eq!(found, raw(a, b), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn pre_release_words_are_marked() {
        for (version, expected) in [
            ("1.1.0-rc1", "1.1.0~rc1"),
            ("1.1.0-rc.1", "1.1.0~rc.1"),
            ("1.1.0~rc1", "1.1.0~rc1"),
            ("1.1.0-RC1", "1.1.0~rc1"),
            ("1.1.0rc1", "1.1.0~rc1"),
            ("1.1.0.dev5", "1.1.0~dev5"),
            ("1.1.0-beta.2-1", "1.1.0~beta.2-1"),
            ("1.1.0-alpha.beta", "1.1.0~alpha~beta"),
            ("2024.03-SNAPSHOT", "2024.03~snapshot"),
            // Words that begin the version, or are only part of a run, are no marks.
            ("rc1", "rc1"),
            ("1.1.0-rcx", "1.1.0-rcx"),
            ("1.1.0-debian1", "1.1.0-debian1"),
            ("1.1.0-1", "1.1.0-1"),
        ] {
            assert_eq!(marked(version), expected, "{version}");
            assert_eq!(marked(&marked(version)), expected, "{version} twice");
        }
    }

    /// Versions with many words and few numbers, so that they meet.
    fn version() -> impl proptest::strategy::Strategy<Value = String> {
        "[0-2a]((rc|beta|dev|x|alphax)|[.~-]|[0-2]){0,6}"
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(2000))]

        #[test]
        fn both_orders_are_total_preorders(
            a in version(), b in version(), c in version(),
            x in "[0-2a.~^-]{0,6}", y in "[0-2a.~^-]{0,6}", z in "[0-2a.~^-]{0,6}",
        ) {
            for (order, [a, b, c]) in
                [(whole as fn(&str, &str) -> Ordering, [&a, &b, &c]), (raw, [&x, &y, &z])]
            {
                proptest::prop_assert_eq!(order(a, a), Ordering::Equal);
                proptest::prop_assert_eq!(order(a, b), order(b, a).reverse());
                let mut all = [a, b, c];
                all.sort_by(|a, b| order(a, b));
                let [low, middle, high] = all;
                proptest::prop_assert!(order(low, high) != Ordering::Greater, "{:?}", all);
                // Equal versions stand at one place: all others compare with them alike.
                for (same, other, third) in [(low, middle, high), (middle, high, low)] {
                    if order(same, other) == Ordering::Equal {
                        proptest::prop_assert_eq!(order(same, third), order(other, third));
                    }
                }
            }
        }

        #[test]
        fn without_a_word_it_is_the_order_of_the_specification(
            a in "[0-9][0-9x.~-]{0,8}", b in "[0-9][0-9x.~-]{0,8}",
        ) {
            proptest::prop_assert_eq!(whole(&a, &b), raw(&a, &b));
        }
    }
}
