//! What the server needs to know of a manifest: what it names, and what referrer lists say of it.
//!
//! Lenient where `formats::oci` is strict: foreign tools' manifests are stored as they are, with
//! fields and media types this project has never heard of. What is kept of a manifest for as long as
//! the server runs is what it names, each once; annotations are read when they are asked for. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;

use formats::digest::Digest;
use formats::oci::{MANIFEST_LIMIT, media_type};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

/// 64 MiB: what is known of all manifests together. Some 50,000 releases, more than `index.json` has
/// room for.
pub(crate) const KNOWN: usize = 64 << 20;

/// Why bytes cannot be a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FactsError {
    /// More than [`MANIFEST_LIMIT`] bytes, or than [`TREE_LIMIT`](formats::json::TREE_LIMIT) in memory.
    #[error("the manifest exceeds {MANIFEST_LIMIT} bytes, or far more than that in memory")]
    TooLarge,
    /// Not a JSON object with the fields of a manifest, or nested too deeply.
    #[error("the manifest is not well-formed: {0}")]
    Form(String),
    /// Both kinds in one (CVE-2021-41190): readers would disagree on what it is.
    #[error("the manifest has both manifests and layers")]
    Ambiguous,
    /// Not the media type of any manifest, and maybe one that browsers run.
    #[error("{0:?} is not a manifest media type (application/json or application/…+json)")]
    Kind(String),
    /// `mediaType` contradicts the `Content-Type` it came with.
    #[error("mediaType is {inside:?} in the manifest, but Content-Type is {outside:?}")]
    MediaType {
        /// In the document.
        inside: String,
        /// In the header.
        outside: String,
    },
}

/// A manifest, reduced to what it refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Its own length in bytes.
    pub len: u64,
    /// `mediaType` in the document.
    pub media_type: Option<String>,
    /// `artifactType`, or the config's media type of an image manifest without one.
    pub artifact_type: Option<String>,
    /// What it is attached to.
    pub subject: Option<Digest>,
    /// Whether it has annotations, see [`annotations`].
    pub annotated: bool,
    /// Manifests it lists, with their media types; each once.
    pub manifests: Vec<(Digest, String)>,
    /// Config and layers, without those that are fetched from elsewhere; each once.
    pub blobs: Vec<Digest>,
    /// Those of `blobs` that are TUF metadata, which names further bytes by their hash.
    pub metadata: Vec<Digest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Entry>,
    layers: Option<Vec<Entry>>,
    manifests: Option<Vec<Entry>>,
    subject: Option<Entry>,
    annotations: Option<Passed<Map>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    media_type: String,
    digest: Digest,
    #[serde(default)]
    urls: Option<Passed<List>>,
}

impl Entry {
    /// Layers that registries need not have: they come from the `urls`.
    fn is_foreign(&self) -> bool {
        self.urls.as_ref().is_some_and(|urls| urls.entries > 0)
            || self.media_type.contains("nondistributable")
            || self.media_type.contains(".foreign.")
    }
}

/// Each of them once, in the order of the first.
fn once<T: Ord + Clone>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = BTreeSet::new();
    let mut found: Vec<T> = all.filter(|it| seen.insert(it.clone())).collect();
    found.shrink_to_fit();
    found
}

/// A list or a map of texts that is read through and not kept: a few bytes of JSON are enough for an
/// entry that takes up a hundred in memory.
struct Passed<Shape> {
    entries: usize,
    /// Of all texts.
    bytes: usize,
    shape: PhantomData<Shape>,
}

struct List;
struct Map;

/// The length of a text that is read and not kept.
struct Text(usize);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Text;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.len()))
            }
        }
        from.deserialize_str(Any)
    }
}

impl<'de, Shape> Visitor<'de> for Passed<Shape> {
    type Value = Self;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("strings")
    }
    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Self, A::Error> {
        while let Some(Text(bytes)) = list.next_element()? {
            self.entries += 1;
            self.bytes += bytes;
        }
        Ok(self)
    }
    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        while let Some((Text(key), Text(value))) = map.next_entry()? {
            self.entries += 1;
            self.bytes += key + value;
        }
        Ok(self)
    }
}

impl<'de> Deserialize<'de> for Passed<List> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_seq(Passed { entries: 0, bytes: 0, shape: PhantomData })
    }
}

impl<'de> Deserialize<'de> for Passed<Map> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Passed { entries: 0, bytes: 0, shape: PhantomData })
    }
}

/// The annotations of a manifest; `None` when they would take up more than `most` bytes of memory, or
/// the bytes are no manifest.
pub(crate) fn annotations(bytes: &[u8], most: usize) -> Option<BTreeMap<String, String>> {
    #[derive(Deserialize)]
    struct Measured {
        annotations: Option<Passed<Map>>,
    }
    #[derive(Deserialize)]
    struct Annotated {
        annotations: BTreeMap<String, String>,
    }
    let measured: Measured = serde_json::from_slice(bytes).ok()?;
    let Some(measured) = measured.annotations else { return Some(BTreeMap::new()) };
    // 128: two strings and their place in the map.
    if measured.bytes.saturating_add(measured.entries.saturating_mul(128)) > most {
        return None;
    }
    serde_json::from_slice(bytes).ok().map(|found: Annotated| found.annotations)
}

impl Facts {
    /// Reads a manifest of any kind.
    pub fn parse(bytes: &[u8]) -> Result<Self, FactsError> {
        let len = bytes.len() as u64;
        // Also what would grow: the facts of all manifests are held.
        if len > MANIFEST_LIMIT || !formats::json::is_light(bytes) {
            return Err(FactsError::TooLarge);
        }
        let document: Document =
            serde_json::from_slice(bytes).map_err(|error| FactsError::Form(error.to_string()))?;
        if document.manifests.is_some() && document.layers.is_some() {
            return Err(FactsError::Ambiguous);
        }
        let config_type = document.config.as_ref().map(|config| config.media_type.clone());
        let named = |text: &String| !text.is_empty();
        let artifact_type = document.artifact_type.filter(named).or(config_type).filter(named);
        let subject = document.subject.map(|subject| subject.digest);
        let manifests = document.manifests.unwrap_or_default();
        let layers = document.layers.unwrap_or_default();
        let blobs = document.config.into_iter().chain(layers).filter(|entry| !entry.is_foreign());
        let blobs: Vec<Entry> = blobs.collect();
        let metadata = blobs.iter().filter(|entry| entry.media_type == media_type::TUF_METADATA);
        Ok(Facts {
            metadata: once(metadata.map(|entry| entry.digest.clone())),
            len,
            media_type: document.media_type.filter(named),
            artifact_type,
            annotated: document.annotations.is_some_and(|it| it.entries > 0),
            subject,
            manifests: once(manifests.into_iter().map(|it| (it.digest, it.media_type))),
            blobs: once(blobs.into_iter().map(|entry| entry.digest)),
        })
    }

    /// Roughly how many bytes of memory it takes up, its places in the catalog included.
    pub fn weight(&self) -> usize {
        let texts =
            [&self.media_type, &self.artifact_type].map(|it| it.as_ref().map_or(0, String::len));
        let manifests = self.manifests.iter().map(|(_, media_type)| 2 * media_type.len() + 256);
        let blobs = self.blobs.len() + self.metadata.len();
        512 + texts.iter().sum::<usize>() + manifests.sum::<usize>() + 192 * blobs
    }

    /// The media type to store it under: the request's, which must not contradict the document's.
    pub fn media_type(&self, content_type: Option<&str>) -> Result<String, FactsError> {
        let short = |text: &str| text.chars().take(128).collect();
        let found = match (content_type, &self.media_type) {
            (Some(outside), Some(inside)) if outside != inside => {
                let (inside, outside) = (short(inside), short(outside));
                return Err(FactsError::MediaType { inside, outside });
            }
            (Some(outside), _) => outside,
            (None, Some(inside)) => inside,
            (None, None) if self.blobs.is_empty() => media_type::INDEX,
            (None, None) => media_type::MANIFEST,
        };
        if is_manifest_type(found) {
            Ok(found.to_owned())
        } else {
            Err(FactsError::Kind(short(found)))
        }
    }
}

/// Whether a manifest may be served under this media type: `application/json` and
/// `application/<anything>+json`, at most 255 bytes of the grammar of RFC 6838 §4.2. All of OCI and
/// Docker are of this form, and nothing that a browser runs.
pub(crate) fn is_manifest_type(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte);
    text.len() <= 255
        && text.strip_prefix("application/").is_some_and(|kind| {
            kind.bytes().all(good) && (kind == "json" || kind.ends_with("+json"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_manifests_are_refused() {
        let deep = "[".repeat(100_000);
        let entry = format!(r#"{{"mediaType":"x","size":1,"digest":"sha256:{}"}}"#, "0".repeat(64));
        for (name, text) in [
            ("not json", "<html>".to_owned()),
            ("an array", "[]".to_owned()),
            ("nested too deeply", format!(r#"{{"x":{deep}}}"#)),
            ("two kinds", format!(r#"{{"manifests":[{entry}],"layers":[]}}"#)),
            ("a bad digest", r#"{"layers":[{"mediaType":"x","digest":"sha256:../x"}]}"#.to_owned()),
        ] {
            assert!(Facts::parse(text.as_bytes()).is_err(), "{name}");
        }
        let huge = vec![b' '; MANIFEST_LIMIT as usize + 1];
        assert_eq!(Facts::parse(&huge), Err(FactsError::TooLarge));
    }

    #[test]
    fn media_types_of_manifests() {
        for (text, good) in [
            (media_type::MANIFEST, true),
            (media_type::INDEX, true),
            ("application/vnd.docker.distribution.manifest.v2+json", true),
            ("application/vnd.cncf.oras.artifact.manifest.v1+json", true),
            ("application/json", true),
            ("application/xhtml+xml", false),
            ("application/octet-stream", false),
            ("application/pdf+jsonx", false),
            ("application/a/b+json", false),
            ("application/a b+json", false),
            ("text/html", false),
            ("text/x+json", false),
            ("image/svg+xml", false),
            ("APPLICATION/X+JSON", false),
            ("", false),
        ] {
            assert_eq!(is_manifest_type(text), good, "{text}");
        }
        assert!(!is_manifest_type(&format!("application/{}+json", "x".repeat(255))));
    }

    #[test]
    fn what_is_kept_of_a_manifest_is_what_it_names() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let entry = format!(r#"{{"mediaType":"x","digest":"{digest}"}}"#);
        let layers = vec![entry.clone(); 2_000].join(",");
        let listed: Vec<String> = (0..1_000).map(|i| format!(r#""{i}":"""#)).collect();
        let listed = listed.join(",");
        let text =
            format!(r#"{{"layers":[{layers}],"subject":{entry},"annotations":{{{listed}}}}}"#);
        let facts = Facts::parse(text.as_bytes()).unwrap();
        assert_eq!((facts.blobs.len(), facts.blobs.capacity(), facts.annotated), (1, 1, true));
        assert!(facts.weight() < 1024, "{} bytes for one layer", facts.weight());
        let long = format!(r#"{{"layers":[],"artifactType":"{}"}}"#, "x".repeat(1 << 20));
        assert!(Facts::parse(long.as_bytes()).unwrap().weight() > 1 << 20);
        assert_eq!(annotations(text.as_bytes(), 4 << 20).unwrap().len(), 1_000);
        assert_eq!(annotations(text.as_bytes(), 1 << 16), None, "128 bytes for each");
        let wrong = r#"{"layers":[],"annotations":{"a":1}}"#;
        assert!(Facts::parse(wrong.as_bytes()).is_err(), "they are texts");
    }

    #[test]
    fn what_comes_from_elsewhere_need_not_be_here() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let text = format!(
            r#"{{"unknown":1,"layers":[
                {{"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar","digest":"{digest}"}},
                {{"mediaType":"x","urls":["https://a"],"digest":"{digest}"}},
                {{"mediaType":"x","data":"e30=","digest":"{digest}"}}]}}"#
        );
        assert_eq!(Facts::parse(text.as_bytes()).unwrap().blobs.len(), 1);
    }
}
