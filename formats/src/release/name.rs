//! Names: of components, products, channels, hardware, and of TUF targets.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ReleaseError;
use crate::version::Version;

/// A component's name: 1 to 32 of `a-z 0-9 -`, starting with a letter (`os`, `bmc`, `firmware`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ComponentName(String);

impl ComponentName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ComponentName {
    type Error = ReleaseError;

    fn try_from(text: String) -> Result<Self, ReleaseError> {
        if is_word(&text, 32) && text.starts_with(|first: char| first.is_ascii_lowercase()) {
            Ok(ComponentName(text))
        } else {
            let shown: String = text.chars().take(40).collect();
            Err(ReleaseError::Components(format!("{shown:?} is not a component name")))
        }
    }
}

impl FromStr for ComponentName {
    type Err = ReleaseError;

    fn from_str(text: &str) -> Result<Self, ReleaseError> {
        ComponentName::try_from(text.to_owned())
    }
}

impl From<ComponentName> for String {
    fn from(name: ComponentName) -> String {
        name.0
    }
}

impl fmt::Display for ComponentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `text` is a product, channel or hardware id: 1 to `limit` of `a-z 0-9 . _ -`,
/// starting and ending with a letter or digit, no separator twice in a row.
pub fn is_word(text: &str, limit: usize) -> bool {
    let alnum = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends =
        bytes.first().copied().is_some_and(alnum) && bytes.last().copied().is_some_and(alnum);
    let inside = bytes.iter().all(|byte| alnum(*byte) || matches!(byte, b'.' | b'_' | b'-'));
    let no_double = !bytes.windows(2).any(|pair| !pair.iter().any(|byte| alnum(*byte)));
    ends && inside && no_double && bytes.len() <= limit
}

/// TUF target name of a release.
pub fn target_name(product: &str, version: &Version) -> String {
    format!("{product}/{version}")
}

/// TUF target name of a channel document.
pub fn channel_target_name(product: &str, channel: &str) -> String {
    format!("{product}/channels/{channel}.json")
}

/// The channel of a product that a target name is of: the inverse of [`channel_target_name`].
pub fn channel_of_target<'a>(product: &str, name: &'a str) -> Option<&'a str> {
    let channel = name.strip_prefix(product)?.strip_prefix("/channels/")?.strip_suffix(".json")?;
    is_word(channel, 64).then_some(channel)
}
