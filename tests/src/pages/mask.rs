//! What no two runs share, taken out of printed lines by its shape.

/// Replaces, where they stand as words of their own:
///
/// | shape | by |
/// |---|---|
/// | 64 hexadecimal digits | `<sha256>` |
/// | 8 hexadecimal digits, one of them 0 to 9 | `<short id>` |
/// | `2026-11-21T10:00:00Z`, `2026-11-21` | `<time>`, `<date>` |
/// | a number and `B`, `KiB`, `MiB`, `GiB`, `kB`, `MB`, `GB`, `bytes` | `<size>` |
/// | a number and `%` | `<percent>` |
/// | a number and `ms`, `s`, `min`, `h` | `<duration>` |
/// | several blanks before one of these | one blank: numbers in a column end below each other |
/// | a number and `chunks` | `<count> chunks` |
/// | `checked`, and `just now` or a duration and `ago` | `checked <age>` |
/// | `process` and a number | `process <pid>` |
/// | `127.0.0.1:` and five digits | `127.0.0.1:<port>` |
///
/// Whatever has another shape stays, and is compared.
pub fn mask(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some((length, word)) = masked(rest) {
            while out.ends_with("  ") {
                out.pop();
            }
            out.push_str(word);
            rest = &rest[length..];
            continue;
        }
        let length = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
        let length = if length > 0 { length } else { first.len_utf8() };
        out.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    out
}

/// Whether lines are those of a page: in order and word for word. A line `…` of the page stands for
/// any number of lines; blanks at the end of a line, which no page shows, do not count.
pub fn same_lines(page: &[String], printed: &[String]) -> bool {
    match page.split_first() {
        None => printed.is_empty(),
        Some((line, page)) if line.trim() == "…" => {
            (0..=printed.len()).any(|skip| same_lines(page, &printed[skip..]))
        }
        Some((line, page)) => printed.split_first().is_some_and(|(found, printed)| {
            mask(line.trim_end()) == mask(found.trim_end()) && same_lines(page, printed)
        }),
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '.'
}

/// What is masked at the beginning of a text, which begins a word: its length, what stands for it.
fn masked(text: &str) -> Option<(usize, &'static str)> {
    let hex = text.find(|c: char| !matches!(c, '0'..='9' | 'a'..='f')).unwrap_or(text.len());
    let ends = |at: usize| text[at..].chars().next().is_none_or(|c| !c.is_ascii_alphanumeric());
    let has_digit = text[..hex].bytes().any(|byte| byte.is_ascii_digit());
    match hex {
        64 if ends(64) => return Some((64, "<sha256>")),
        8 if ends(8) && has_digit => return Some((8, "<short id>")),
        _ => {}
    }
    for (form, mask) in [("0000-00-00T00:00:00Z", "<time>"), ("0000-00-00", "<date>")] {
        if has_form(text, form) {
            return Some((form.len(), mask));
        }
    }
    for (before, mask) in [("process ", "process <pid>"), ("127.0.0.1:", "127.0.0.1:<port>")] {
        let Some(after) = text.strip_prefix(before) else { continue };
        let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        let fits = if before.ends_with(':') { digits == 5 } else { digits > 0 };
        if fits {
            return Some((before.len() + digits, mask));
        }
    }
    age(text).or_else(|| quantity(text))
}

/// How long ago a node asked: `checked just now`, `checked 3 min ago`.
fn age(text: &str) -> Option<(usize, &'static str)> {
    const MASK: &str = "checked <age>";
    let when = text.strip_prefix("checked ")?;
    if when.starts_with("just now") {
        return Some(("checked just now".len(), MASK));
    }
    let (length, _) = quantity(when)?;
    let rest = when.get(length..)?.strip_prefix(" ago")?;
    Some((text.len() - rest.len(), MASK))
}

fn has_form(text: &str, form: &str) -> bool {
    let Some(found) = text.as_bytes().get(..form.len()) else { return false };
    let fits = |(byte, form): (&u8, u8)| match form {
        b'0' => byte.is_ascii_digit(),
        other => *byte == other,
    };
    found.iter().zip(form.bytes()).all(fits)
}

/// A number with a unit.
fn quantity(text: &str) -> Option<(usize, &'static str)> {
    let number = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    if number == 0 || !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let (_, after) = text.split_at(number);
    let unit = after.strip_prefix(' ').unwrap_or(after);
    if unit.starts_with('%') {
        return Some((text.len() - unit.len() + 1, "<percent>"));
    }
    let end = unit.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(unit.len());
    let mask = match &unit[..end] {
        "B" | "KiB" | "MiB" | "GiB" | "TiB" | "kB" | "MB" | "GB" | "bytes" => "<size>",
        "ms" | "s" | "min" | "h" => "<duration>",
        "chunks" => "<count> chunks",
        _ => return None,
    };
    Some((text.len() - unit.len() + end, mask))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_masked_and_nothing_else() {
        let digest = "0a".repeat(32);
        for (text, masked) in [
            (format!("sha256:{digest})"), "sha256:<sha256>)"),
            (format!("sha256:{digest}0"), &*format!("sha256:{digest}0")),
            ("key 72580ec4, word deadbeef".into(), "key <short id>, word deadbeef"),
            ("until 2026-11-22T04:45:38Z on 2026-11-22".into(), "until <time> on <date>"),
            ("38.1 MiB in 327 chunks, 0 B".into(), "<size> in <count> chunks, <size>"),
            ("took 0.04 s, 97 MB/s, 12%".into(), "took <duration>, <size>/s, <percent>"),
            ("1.1.0 is in slot b, 2 tries left".into(), "1.1.0 is in slot b, 2 tries left"),
            ("127.0.0.1:5000 from 127.0.0.1:40001".into(), "127.0.0.1:5000 from 127.0.0.1:<port>"),
            ("ok       7 ms".into(), "ok <duration>"),
            ("ok      12 ms  why".into(), "ok <duration>  why"),
            ("up to date, checked just now".into(), "up to date, checked <age>"),
            ("checked 3 min ago, checked by us".into(), "checked <age>, checked by us"),
            ("(process 1234) «é»".into(), "(process <pid>) «é»"),
        ] {
            assert_eq!(mask(&text), masked);
        }
    }

    #[test]
    fn lines_are_compared_in_order() {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        for (page, printed, same) in [
            ("a 1 s\nb", "a 22 s \nb", true),
            ("a\nb", "b\na", false),
            ("a", "a\nb", false),
            ("a\nb", "a", false),
            ("a\n…\nd", "a\nb\nc\nd", true),
            ("a\n…", "a", true),
            ("…\nb", "a", false),
            ("", "", true),
        ] {
            assert_eq!(same_lines(&lines(page), &lines(printed)), same, "{page:?} {printed:?}");
        }
    }
}
