//! Manifests and indexes: bytes to types and back.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Descriptor, ENTRIES_LIMIT, LAYOUT_TREE_LIMIT, MANIFEST_LIMIT, OciError, media_type};
use crate::digest::Digest;
use crate::json;

/// An image manifest: one config, any number of layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u64,
    /// Always [`media_type::MANIFEST`] in what we write; some tools leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What the artifact is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Config document, or [`Descriptor::empty`].
    pub config: Descriptor,
    /// Layers in order.
    pub layers: Vec<Descriptor>,
    /// The manifest this one refers to (referrers API).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free annotations, sorted by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// A manifest of an artifact.
    pub fn artifact(artifact_type: &str, config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Manifest {
            schema_version: 2,
            media_type: Some(media_type::MANIFEST.to_owned()),
            artifact_type: Some(artifact_type.to_owned()),
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }

    /// Parses an image manifest; refuses an index, a mixture, and more than [`ENTRIES_LIMIT`] layers.
    pub fn parse(bytes: &[u8]) -> Result<Self, OciError> {
        let what = "image manifest";
        parse_kind(bytes, what, media_type::MANIFEST, &["manifests"])?;
        let manifest: Manifest = from_json(bytes, what)?;
        check_entries(what, &manifest.layers)?;
        Ok(manifest)
    }

    /// Deterministic compact JSON.
    pub fn to_bytes(&self) -> Vec<u8> {
        to_json(self)
    }
}

/// An image index: a list of manifests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u64,
    /// Always [`media_type::INDEX`] in what we write; some tools leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What the index is, at the top level only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Manifests in order.
    pub manifests: Vec<Descriptor>,
    /// The manifest this one refers to (referrers API).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free annotations, sorted by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Index {
    /// An index of these manifests.
    pub fn new(artifact_type: Option<&str>, manifests: Vec<Descriptor>) -> Self {
        Index {
            schema_version: 2,
            media_type: Some(media_type::INDEX.to_owned()),
            artifact_type: artifact_type.map(str::to_owned),
            manifests,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }

    /// Parses an image index; refuses a manifest, a mixture, and more than [`ENTRIES_LIMIT`] entries.
    pub fn parse(bytes: &[u8]) -> Result<Self, OciError> {
        let what = "image index";
        parse_kind(bytes, what, media_type::INDEX, &["layers", "config"])?;
        let index: Index = from_json(bytes, what)?;
        check_entries(what, &index.manifests)?;
        Ok(index)
    }

    /// Parses `index.json` of an image layout: an index whose number of entries is bounded only by
    /// the file's size, because every tag of every repository is one.
    pub fn parse_layout(bytes: &[u8]) -> Result<Self, OciError> {
        let what = "index.json";
        if json::weight(bytes, LAYOUT_TREE_LIMIT).is_none() {
            return Err(OciError::TooLarge { what });
        }
        let index: Index = from_json(bytes, what)?;
        check_version(what, index.schema_version)?;
        Ok(index)
    }

    /// Deterministic compact JSON.
    pub fn to_bytes(&self) -> Vec<u8> {
        to_json(self)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    schema_version: u64,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<Count>,
    #[serde(default)]
    layers: Option<Count>,
    #[serde(default)]
    config: Option<serde::de::IgnoredAny>,
}

/// How many entries a list has.
struct Count(usize);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Counting;
        impl<'de> serde::de::Visitor<'de> for Counting {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut list: A,
            ) -> Result<Count, A::Error> {
                let mut count = 0;
                while list.next_element::<serde::de::IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Count(count))
            }
        }
        deserializer.deserialize_seq(Counting)
    }
}

fn parse_kind(
    bytes: &[u8],
    what: &'static str,
    wanted: &str,
    foreign: &[&str],
) -> Result<(), OciError> {
    if bytes.len() as u64 > MANIFEST_LIMIT {
        return Err(OciError::TooLarge { what });
    }
    let probe: Probe = from_json(bytes, what)?;
    check_version(what, probe.schema_version)?;
    let mut lists = [&probe.manifests, &probe.layers].into_iter().flatten();
    if lists.any(|list| list.0 > ENTRIES_LIMIT) || !json::is_light(bytes) {
        return Err(OciError::TooLarge { what });
    }
    let has = |name: &str| match name {
        "manifests" => probe.manifests.is_some(),
        "layers" => probe.layers.is_some(),
        _ => probe.config.is_some(),
    };
    if foreign.iter().any(|name| has(name)) {
        return Err(OciError::Ambiguous { what });
    }
    match probe.media_type {
        Some(found) if found != wanted => Err(OciError::MediaType { what, found }),
        _ => Ok(()),
    }
}

pub(super) fn check_version(what: &'static str, found: u64) -> Result<(), OciError> {
    if found == 2 { Ok(()) } else { Err(OciError::SchemaVersion { what, found }) }
}

fn check_entries(what: &'static str, entries: &[Descriptor]) -> Result<(), OciError> {
    let mut sizes: BTreeMap<&Digest, u64> = BTreeMap::new();
    for entry in entries {
        if *sizes.entry(&entry.digest).or_insert(entry.size) != entry.size {
            return Err(OciError::Contradiction { what, digest: entry.digest.clone() });
        }
    }
    Ok(())
}

pub(super) fn from_json<'a, T: Deserialize<'a>>(
    bytes: &'a [u8],
    what: &'static str,
) -> Result<T, OciError> {
    serde_json::from_slice(bytes).map_err(|error| OciError::Form { what, why: error.to_string() })
}

fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("string keys and no floats always serialise")
}
