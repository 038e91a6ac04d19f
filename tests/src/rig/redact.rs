//! Takes out of a text what differs between two runs, for snapshots.

use super::world::World;

/// Replaces the world's folder, digests, times, ports and what is sealed by them.
pub fn redact(world: &World, text: &str) -> String {
    let text = text.replace(&world.dir().display().to_string(), "<world>");
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(first) = rest.chars().next() {
        let word_len = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let word = &rest[..word_len];
        let is_hex = word.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if let Some(len) = ago_len(rest) {
            out.push_str("checked <ago>");
            rest = &rest[len..];
        } else if let Some(len) = time_len(rest) {
            out.push_str("<time>");
            rest = &rest[len..];
        } else if word_len == 64 && is_hex {
            out.push_str("<sha256>");
            rest = &rest[word_len..];
        } else if is_unix_time(word) {
            out.push_str("<seconds>");
            rest = &rest[word_len..];
        } else if let Some(after) = rest.strip_prefix("127.0.0.1:") {
            out.push_str("127.0.0.1:<port>");
            rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
        } else {
            let len = if word_len > 0 { word_len } else { first.len_utf8() };
            out.push_str(&rest[..len]);
            rest = &rest[len..];
        }
    }
    out
}

/// `2026-11-21T10:00:00Z` at the beginning of a text.
fn time_len(text: &str) -> Option<usize> {
    const FORM: &[u8] = b"0000-00-00T00:00:00Z";
    let found = text.as_bytes().get(..FORM.len())?;
    let fits = |(byte, form): (&u8, &u8)| match form {
        b'0' => byte.is_ascii_digit(),
        other => byte == other,
    };
    found.iter().zip(FORM).all(fits).then_some(FORM.len())
}

/// `checked just now` or `checked 3 min ago` at the beginning of a text.
fn ago_len(text: &str) -> Option<usize> {
    const NOW: &str = "checked just now";
    if text.starts_with(NOW) {
        return Some(NOW.len());
    }
    let rest = text.strip_prefix("checked ")?;
    let (count, rest) = rest.split_once(' ')?;
    let (unit, rest) = rest.split_once(" ago")?;
    let fits = count.parse::<u64>().is_ok() && ["min", "h", "days"].contains(&unit);
    fits.then(|| text.len() - rest.len())
}

/// Ten digits that are a time of our days.
fn is_unix_time(word: &str) -> bool {
    word.len() == 10
        && word.parse::<u64>().is_ok_and(|at| (1_700_000_000..2_500_000_000).contains(&at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_taken_out() {
        let world = World::empty();
        let text = format!(
            "{}/x docker://127.0.0.1:5443/ns sha256:{} on 2026-11-21T10:00:00Z at 1795262400, 12 «é», checked 3 min ago",
            world.dir().display(),
            "0a".repeat(32)
        );
        let clean = "<world>/x docker://127.0.0.1:<port>/ns sha256:<sha256> on <time> at <seconds>, 12 «é», checked <ago>";
        assert_eq!(redact(&world, &text), clean);
    }
}
