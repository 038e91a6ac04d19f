//! OCI descriptors, manifests and indexes (image-spec 1.1.1), and the names registries use
//! (distribution-spec 1.1).
//!
//! Two rules hold everywhere. Bytes that were received are kept and hashed as received, never
//! serialised again. Bytes that we write are compact JSON with the fields in the order of the
//! structs below and maps sorted by key, so the same facts give the same digest on any machine.

mod named;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::json;

pub use named::NamedManifest;

/// Media types of the specification and of this project (prefix `application/vnd.racklet.`).
pub mod media_type {
    /// An OCI image manifest.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// An OCI image index.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// The two-byte config `{}` of artifacts without one.
    pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
    /// An SBOM in SPDX, as JSON.
    pub const SPDX: &str = "application/spdx+json";
    /// An SBOM in CycloneDX, as JSON.
    pub const CYCLONEDX: &str = "application/vnd.cyclonedx+json";
    /// An SBOM in SPDX, as tags and values.
    pub const SPDX_TEXT: &str = "text/spdx";
    /// An SBOM in CycloneDX, as XML.
    pub const CYCLONEDX_XML: &str = "application/vnd.cyclonedx+xml";
    /// An in-toto statement.
    pub const IN_TOTO: &str = "application/vnd.in-toto+json";
    /// A signed envelope around one.
    pub const DSSE: &str = "application/vnd.dsse.envelope.v1+json";
    /// One TUF metadata file, as docker/attest names it.
    pub const TUF_METADATA: &str = "application/vnd.tuf.metadata+json";
    /// `artifactType` of the manifest that holds one TUF state.
    pub const TUF_STATE: &str = "application/vnd.racklet.tuf.v1";
    /// `artifactType` of the manifest that holds an offline statement, and media type of its one
    /// layer: [`crate::tuf::Offline`].
    pub const OFFLINE: &str = "application/vnd.racklet.offline.v1+json";
    /// `artifactType` of a release index.
    pub const RELEASE: &str = "application/vnd.racklet.release.v1";
    /// `artifactType` of a component manifest.
    pub const IMAGE: &str = "application/vnd.racklet.image.v1";
    /// Config of a component manifest: [`crate::release::ImageConfig`].
    pub const IMAGE_CONFIG: &str = "application/vnd.racklet.image.config.v1+json";
    /// The image: zstd frames and the seekable table.
    pub const IMAGE_BLOB: &str = "application/vnd.racklet.image.raw+zstd";
    /// The chunk list: [`crate::chunks::ChunkList`].
    pub const CHUNKS: &str = "application/vnd.racklet.image.chunks.v1";
    /// List of a delta from another image (`formats::chunks::delta`).
    pub const DELTA: &str = "application/vnd.racklet.image.delta.v1";
    /// Blob of a delta: the frames its list describes.
    pub const DELTA_BLOB: &str = "application/vnd.racklet.image.delta.v1+zstd";
    /// A channel document kept beside the TUF metadata: [`crate::channel::Channel`].
    pub const CHANNEL: &str = "application/vnd.racklet.channel.v1+json";
}

/// Annotation keys.
pub mod annotation {
    /// The TUF file name of a layer, for instance `2.root.json` (docker/attest).
    pub const TUF_FILENAME: &str = "tuf.io/filename";
    /// The file name `oras pull` writes.
    pub const TITLE: &str = "org.opencontainers.image.title";
    /// The reference of a manifest in an image layout's `index.json`.
    pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
    /// Which component a manifest of a release index is (`os`, `bmc`, `firmware`, …).
    pub const COMPONENT: &str = "racklet.component";
    /// Hardware ids a component is for, sorted, separated by commas.
    pub const COMPATIBLE: &str = "racklet.compatible";
    /// Of a delta: image id of what it is from, 64 hex digits.
    pub const FROM: &str = "racklet.from";
    /// Of a delta: length in bytes of what it is from.
    pub const FROM_SIZE: &str = "racklet.from-size";
}

/// 4 MiB: the manifest size every registry must take (distribution-spec §"Pushing Manifests").
pub const MANIFEST_LIMIT: u64 = 4 << 20;

/// 48 MiB: the memory that all of an `index.json` may take, where all of it is wanted: in signer and
/// server. 8 MiB of tags take some 20. A node reads names only, see [`NamedManifest`].
pub const LAYOUT_TREE_LIMIT: usize = 48 << 20;

/// Layers or manifests one document may list; our largest has one layer per root version.
pub const ENTRIES_LIMIT: usize = 2048;

/// Why bytes are not an OCI document of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OciError {
    /// Not JSON, or a field is missing or of another type.
    #[error("{what}: {why}")]
    Form {
        /// Which document.
        what: &'static str,
        /// What the parser said.
        why: String,
    },
    /// `schemaVersion` is not 2.
    #[error("{what}: schemaVersion {found} is not 2")]
    SchemaVersion {
        /// Which document.
        what: &'static str,
        /// The number found.
        found: u64,
    },
    /// The `mediaType` field names another kind of document.
    #[error("{what}: mediaType {found:?} is another kind of document")]
    MediaType {
        /// Which document.
        what: &'static str,
        /// The media type found.
        found: String,
    },
    /// One document with both `manifests` and `layers` (CVE-2021-41190).
    #[error("{what}: has both manifests and layers or config")]
    Ambiguous {
        /// Which document.
        what: &'static str,
    },
    /// More entries than [`ENTRIES_LIMIT`], a document over [`MANIFEST_LIMIT`], or one that takes
    /// more memory than [`TREE_LIMIT`](crate::json::TREE_LIMIT), as very many annotations do.
    #[error("{what}: larger than the limit")]
    TooLarge {
        /// Which document.
        what: &'static str,
    },
    /// Two entries with one digest but different sizes.
    #[error("{what}: {digest} is listed with two sizes")]
    Contradiction {
        /// Which document.
        what: &'static str,
        /// The digest listed twice.
        digest: Digest,
    },
}

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

fn check_version(what: &'static str, found: u64) -> Result<(), OciError> {
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

fn from_json<'a, T: Deserialize<'a>>(bytes: &'a [u8], what: &'static str) -> Result<T, OciError> {
    serde_json::from_slice(bytes).map_err(|error| OciError::Form { what, why: error.to_string() })
}

fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("string keys and no floats always serialise")
}

fn size<'de, D: serde::Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
    let size = u64::deserialize(d)?;
    if i64::try_from(size).is_ok() {
        Ok(size)
    } else {
        Err(serde::de::Error::custom("size is not below 2^63"))
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_facts_give_the_same_bytes() {
        let layer =
            Descriptor::of(media_type::CHUNKS, b"x").annotated("b", "2").annotated("a", "1");
        let manifest = Manifest::artifact(media_type::IMAGE, Descriptor::empty(), vec![layer]);
        let bytes = manifest.to_bytes();
        assert_eq!(Manifest::parse(&bytes).unwrap(), manifest);
        insta::assert_snapshot!(String::from_utf8(bytes).unwrap());
    }

    #[test]
    fn documents_that_are_two_things_are_refused() {
        let both = format!(
            r#"{{"schemaVersion":2,"manifests":[],"layers":[],"config":{}}}"#,
            serde_json::to_string(&Descriptor::empty()).unwrap()
        );
        assert!(matches!(Manifest::parse(both.as_bytes()), Err(OciError::Ambiguous { .. })));
        assert!(matches!(Index::parse(both.as_bytes()), Err(OciError::Ambiguous { .. })));
        let manifest = Manifest::artifact(media_type::IMAGE, Descriptor::empty(), vec![]);
        assert!(matches!(Index::parse(&manifest.to_bytes()), Err(OciError::Ambiguous { .. })));
        let index = Index::new(None, vec![]);
        assert!(matches!(Manifest::parse(&index.to_bytes()), Err(OciError::Ambiguous { .. })));
    }

    #[test]
    fn hostile_descriptors_are_refused() {
        let hex = "0a".repeat(32);
        for (size, digest) in [
            ("-1", format!("sha256:{hex}")),
            ("9223372036854775808", format!("sha256:{hex}")),
            ("1e3", format!("sha256:{hex}")),
            ("1", "sha256:../../x".to_owned()),
            ("1", "md5:00".to_owned()),
        ] {
            let text = format!(
                r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"x","digest":"{digest}","size":{size}}}]}}"#
            );
            let parsed = Index::parse(text.as_bytes());
            assert!(matches!(parsed, Err(OciError::Form { .. })), "{size} {digest}: {parsed:?}");
        }
    }

    #[test]
    fn one_digest_has_one_size() {
        let one = Descriptor::of("x", b"one");
        let mut two = one.clone();
        two.size += 1;
        let index = Index::new(None, vec![one, two]);
        assert!(matches!(Index::parse(&index.to_bytes()), Err(OciError::Contradiction { .. })));
    }

    #[test]
    fn names_follow_the_grammar() {
        for good in ["a", "racklet/tuf", "a.b_c__d---e/0"] {
            assert!(good.parse::<RepositoryName>().is_ok(), "{good}");
        }
        let long = "a".repeat(256);
        for bad in [
            "", "/", "a/", "/a", "a//b", "..", "a/../b", "A", "a..b", "a___b", "-a", "a-", "a b",
            "a\0", &long,
        ] {
            assert!(bad.parse::<RepositoryName>().is_err(), "{bad:?}");
        }
        for good in ["latest", "1.0.0", "_x", "sha256-0a"] {
            assert!(good.parse::<Tag>().is_ok(), "{good}");
        }
        for bad in ["", ".x", "-x", "a/b", "a:b", "a b", &"a".repeat(129)] {
            assert!(bad.parse::<Tag>().is_err(), "{bad:?}");
        }
    }
}
