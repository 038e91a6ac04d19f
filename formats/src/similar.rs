//! Which known name somebody meant who wrote another one, and names in a sentence.

/// Two letters exchanged, or two that are wrong: what a person mistypes.
const CLOSE: usize = 2;

/// The known name that is nearest to `name`, if it is near enough to be meant: at most two letters
/// wrong, missing, added or exchanged, and never all of them. The first of several that are as near.
///
/// ```
/// use formats::similar::closest;
/// assert_eq!(closest("stabel", ["beta", "stable"]), Some("stable"));
/// assert_eq!(closest("canary", ["beta", "stable"]), None);
/// ```
pub fn closest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let letters = name.chars().count();
    let limit = CLOSE.min(letters.saturating_sub(1));
    known
        .into_iter()
        // The distance is at least the difference of the lengths; and foreign names may be long.
        .filter(|known| known.chars().count().abs_diff(letters) <= limit)
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// 5 names: a sentence, not a catalogue.
const LISTED: usize = 5;

/// The first of some names as a sentence has them, with a sign that there are more.
///
/// ```
/// use formats::similar::listed;
/// assert_eq!(listed(["a", "b"]), "a, b");
/// assert_eq!(listed(["a", "b", "c", "d", "e", "f"]), "a, b, c, d, e, …");
/// ```
pub fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names = names.into_iter();
    let first: Vec<&str> = names.by_ref().take(LISTED).collect();
    let more = if names.next().is_some() { ", …" } else { "" };
    format!("{}{more}", first.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_told_from_other_names() {
        let rows = [
            ("my-bord", &["my-board", "other"][..], Some("my-board")),
            ("stabel", &["beta", "stable"], Some("stable")),
            ("moode", &["interval", "mode", "require"], Some("mode")),
            ("canary", &["beta", "stable"], None),
            ("b", &["a"], None),
            ("", &["a"], None),
            ("äö", &["a"], None),
            ("x", &[], None),
        ];
        for (name, known, meant) in rows {
            assert_eq!(closest(name, known.iter().copied()), meant, "{name}");
        }
    }
}
