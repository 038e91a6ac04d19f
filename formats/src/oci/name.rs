//! Names of repositories and tags (distribution-spec 1.1).

use std::fmt;
use std::str::FromStr;

/// Why a text is not a repository name or a tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a repository name.
    #[error(
        "{0:?} is not a repository name (lower-case letters, digits, single . _ - and / inside)"
    )]
    Repository(String),
    /// Not a tag.
    #[error("{0:?} is not a tag (letters, digits, . _ -, at most 128, not starting with . or -)")]
    Tag(String),
}

/// A repository name by the grammar of distribution-spec §"Pulling manifests", at most 255 bytes.
///
/// Its components are never empty, `.` or `..`, so it is safe as a relative path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryName(String);

impl RepositoryName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RepositoryName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let good = !text.is_empty() && text.len() <= 255 && text.split('/').all(is_component);
        if good {
            Ok(RepositoryName(text.to_owned()))
        } else {
            Err(NameError::Repository(text.chars().take(64).collect()))
        }
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let alnum = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !alnum(first) || !alnum(last) {
        return false;
    }
    bytes.split(alnum).all(|separator| {
        matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|byte| *byte == b'-')
    })
}

/// A tag by the grammar of distribution-spec §"Pulling manifests".
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

impl Tag {
    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let bytes = text.as_bytes();
        let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let good = bytes.len() <= 128
            && bytes.first().is_some_and(word)
            && bytes.iter().all(|byte| word(byte) || matches!(byte, b'.' | b'-'));
        if good {
            Ok(Tag(text.to_owned()))
        } else {
            Err(NameError::Tag(text.chars().take(64).collect()))
        }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
