//! Path patterns of delegations (TUF §4.5): `*` any characters but `/`, `?` one of them,
//! everything else, brackets included, itself.

/// Whether `pattern` covers `name`.
///
/// Time is at most proportional to the product of both lengths, without recursion: per
/// component the last `*` alone is tried again.
pub fn pattern_matches(pattern: &str, name: &str) -> bool {
    let mut patterns = pattern.split('/');
    let mut names = name.split('/');
    loop {
        match (patterns.next(), names.next()) {
            (Some(pattern), Some(name)) if component_matches(pattern, name) => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

fn component_matches(pattern: &str, name: &str) -> bool {
    let (mut pattern, mut name) = (pattern.chars(), name.chars());
    // Where to go on when a later character does not fit: after the last `*`, one further.
    let mut retry: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
    loop {
        let name_here = name.clone();
        match (pattern.next(), name.next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                retry = Some((pattern.clone(), name_here.clone()));
                name = name_here;
            }
            (Some('?'), Some(_)) => {}
            (Some(p), Some(n)) if p == n => {}
            _ => {
                let Some((after_star, from)) = &mut retry else { return false };
                if from.next().is_none() {
                    return false;
                }
                (pattern, name) = (after_star.clone(), from.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn case_75_wildcards_do_not_cross_a_slash() {
        for (pattern, name, covered) in [
            ("*", "a", true),
            ("*", "", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("a/*", "a/b", true),
            ("a/*", "a/b/c", false),
            ("a/*", "A/b", false),
            ("*.tgz", "foo.tgz", true),
            ("*.tgz", "foo.tgz.sig", false),
            ("*.tgz", "a/foo.tgz", false),
            ("foo-?.tgz", "foo-1.tgz", true),
            ("foo-?.tgz", "foo-ü.tgz", true),
            ("foo-?.tgz", "foo-.tgz", false),
            ("foo?bar", "foo/bar", false),
            ("[a-z]", "b", false),
            ("[a-z]", "[a-z]", true),
            ("a**b", "ab", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("*a*", "bbb", false),
            ("", "", true),
            ("", "a", false),
            ("a", "", false),
        ] {
            assert_eq!(pattern_matches(pattern, name), covered, "{pattern:?} on {name:?}");
        }
    }

    #[test]
    fn case_76_no_pattern_takes_long() {
        let pattern = format!("{}b", "*a".repeat(2000));
        assert!(!pattern_matches(&pattern, &"a".repeat(4096)));
    }

    /// The definition, by trying everything.
    fn by_definition(pattern: &[char], name: &[char]) -> bool {
        match (pattern, name) {
            ([], []) => true,
            (['*', rest @ ..], _) => {
                by_definition(rest, name)
                    || matches!(name, [c, after @ ..] if *c != '/' && by_definition(pattern, after))
            }
            ([p, rest @ ..], [n, after @ ..]) => {
                (p == n || (*p == '?' && *n != '/')) && by_definition(rest, after)
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn it_is_the_definition(pattern in "[ab/*?]{0,10}", name in "[ab/]{0,10}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(
                pattern_matches(&pattern, &name),
                by_definition(&chars(&pattern), &chars(&name))
            );
        }
    }
}
