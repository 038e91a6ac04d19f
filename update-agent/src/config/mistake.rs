//! A configuration that is no TOML or of another form: what is wrong, where, and what may be meant.

use formats::similar::closest;

use crate::error::AgentError;

/// What is wrong, and where, with the lines around it as TOML's own parser shows them.
pub(super) fn not_toml(text: &str, error: &toml::de::Error) -> AgentError {
    let shown = error.to_string();
    let is_quoted = |line: &&str| {
        line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ').starts_with('|')
    };
    let excerpt: Vec<&str> = shown.lines().skip(1).take_while(is_quoted).collect();
    let before = error.span().and_then(|span| text.get(..span.start));
    let place = before
        .map_or_else(String::new, |before| format!("line {}: ", before.matches('\n').count() + 1));
    let message = error.message();
    let meant = meant(message).map_or_else(String::new, |meant| format!("; is `{meant}` meant?"));
    AgentError::config(format!("{place}{message}{meant}")).excerpt(excerpt.join("\n"))
}

/// The name that is meant by an unknown one, from serde's message: ``unknown field `a`, expected one
/// of `b`, `c` ``. A message of another form has no such name.
fn meant(message: &str) -> Option<&str> {
    let words = message.strip_prefix("unknown ")?;
    // Every second part stands between grave accents: the given name first.
    let mut quoted = words.split('`').skip(1).step_by(2);
    let given = quoted.next()?;
    let known: Vec<&str> = quoted.collect();
    // A single one is named already.
    if known.len() > 1 { closest(given, known) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_that_is_meant_is_found_in_the_message() {
        for (message, expected) in [
            ("unknown field `moode`, expected one of `mode`, `interval`, `require`", Some("mode")),
            ("unknown variant `atuo`, expected one of `notify`, `stage`, `auto`", Some("auto")),
            ("unknown field `nonsense`, expected `mode` or `interval`", None),
            ("unknown field `rot`, expected `root`", None),
            ("missing field `root`", None),
            ("unknown", None),
        ] {
            assert_eq!(meant(message), expected, "{message}");
        }
    }
}
