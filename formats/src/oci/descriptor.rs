//! What a document says of another.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::media_type;
use crate::digest::Digest;

/// What a document says of another: media type, digest, size in bytes.
///
/// The size is below 2^63: larger values are refused when parsing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the bytes are.
    pub media_type: String,
    /// Their digest.
    pub digest: Digest,
    /// Their length in bytes.
    #[serde(deserialize_with = "size")]
    pub size: u64,
    /// Free annotations, sorted by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Only set in referrer lists. Never in a release index: skopeo 1.9.3 drops it there, which
    /// changes the index's digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// For generic tools; we never select by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

impl Descriptor {
    /// A descriptor without annotations.
    pub fn new(media_type: &str, digest: impl Into<Digest>, size: u64) -> Self {
        Descriptor {
            media_type: media_type.to_owned(),
            digest: digest.into(),
            size,
            annotations: BTreeMap::new(),
            artifact_type: None,
            platform: None,
        }
    }

    /// The descriptor of `bytes`.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Descriptor::new(media_type, Digest::sha256_of(bytes), bytes.len() as u64)
    }

    /// The descriptor of the empty config `{}`.
    pub fn empty() -> Self {
        Descriptor::of(media_type::EMPTY, EMPTY_CONFIG)
    }

    /// The same with one more annotation.
    #[must_use]
    pub fn annotated(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// An annotation's value.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(String::as_str)
    }
}

/// The bytes of the empty config (image-spec §"Guidance for an Empty Descriptor").
pub const EMPTY_CONFIG: &[u8] = b"{}";

/// `platform` of a descriptor, for generic tools.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// CPU architecture in Go's spelling (`arm64`, `amd64`).
    pub architecture: String,
    /// Operating system (`linux`).
    pub os: String,
    /// CPU variant (`v8`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// A size, which is below 2^63.
pub(super) fn size<'de, D: serde::Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
    let size = u64::deserialize(d)?;
    if i64::try_from(size).is_ok() {
        Ok(size)
    } else {
        Err(serde::de::Error::custom("size is not below 2^63"))
    }
}
