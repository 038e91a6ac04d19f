//! Texts of other machines: bounded words, and what of a text may be shown.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use super::WORD_LIMIT;

/// A word of a report: at most [`WORD_LIMIT`] bytes. Words that this version does not know are kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
pub struct Word(String);

impl Word {
    /// The text without control characters, cut to [`WORD_LIMIT`] bytes. `"` and `\` become `'` and
    /// `/`, so that it takes no more bytes in a document.
    pub fn new(text: &str) -> Self {
        let plain = text.chars().filter(|char| !is_hidden(*char)).map(|char| match char {
            '"' => '\'',
            '\\' => '/',
            char => char,
        });
        let plain: String = plain.take(WORD_LIMIT).collect();
        Word(cut(&plain, WORD_LIMIT).to_owned())
    }

    /// The text. Another machine wrote it: see [`shown`].
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Word {
    fn from(text: &str) -> Self {
        Word::new(text)
    }
}

impl PartialEq<str> for Word {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for Word {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        match text.len() {
            0..=WORD_LIMIT => Ok(Word(text)),
            long => Err(serde::de::Error::custom(format!("a word of {long} bytes"))),
        }
    }
}

/// As [`shown`], of at most [`WORD_LIMIT`] characters.
impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.0, WORD_LIMIT))
    }
}

/// The beginning of a text: at most so many bytes, whole characters.
pub fn cut(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A text of another machine on one line: control characters, and those that turn or hide what stands
/// beside them, become spaces; what is longer than so many characters ends with `…`.
pub fn shown(text: &str, longest: usize) -> String {
    let clean = |char: char| if is_hidden(char) { ' ' } else { char };
    let mut kept: String = text.chars().take(longest).map(clean).collect();
    if text.chars().nth(longest).is_some() {
        kept.push('…');
    }
    kept
}

/// Control characters, line and paragraph separators, and what is invisible or changes the direction of
/// the text around it (Unicode TR 36 §3.5).
fn is_hidden(char: char) -> bool {
    char.is_control()
        || matches!(char,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}
