//! Why a file is published without being asked what it is.

use std::fmt;

/// 200 characters: a line on a terminal, with the component's name before it.
const REASON_MAX: usize = 200;

/// A reason in the words of whoever publishes: one line, 1 to 200 characters, nothing hidden in it.
/// It is signed with the release, for those who look at it later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawReason(String);

/// What is no reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RawReasonError {
    /// Nothing but spaces.
    #[error("the reason is empty: say why it is right as it is")]
    Empty,
    /// More than a line holds.
    #[error("the reason has {0} characters; at most {REASON_MAX} are signed")]
    TooLong(usize),
    /// A line break, another control character, or one that turns the text around.
    #[error("the reason is not one line of printable text")]
    NotPrintable,
}

impl std::str::FromStr for RawReason {
    type Err = RawReasonError;

    fn from_str(text: &str) -> Result<Self, RawReasonError> {
        let text = text.trim();
        let count = text.chars().count();
        if text.is_empty() {
            Err(RawReasonError::Empty)
        } else if count > REASON_MAX {
            Err(RawReasonError::TooLong(count))
        } else if crate::summary::printable(text) != text {
            Err(RawReasonError::NotPrintable)
        } else {
            Ok(RawReason(text.to_owned()))
        }
    }
}

impl fmt::Display for RawReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line() {
        let read = |text: &str| text.parse::<RawReason>().map(|reason| reason.to_string());
        assert_eq!(read(" booti unpacks it "), Ok("booti unpacks it".to_owned()));
        assert_eq!(read(&"ü".repeat(200)), Ok("ü".repeat(200)));
        assert_eq!(read(&"ü".repeat(201)), Err(RawReasonError::TooLong(201)));
        assert_eq!(read(" "), Err(RawReasonError::Empty));
        for text in ["two\nlines", "\u{1b}[2J", "a\u{202e}b"] {
            assert_eq!(read(text), Err(RawReasonError::NotPrintable), "{text:?}");
        }
    }
}
