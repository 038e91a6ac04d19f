//! What the server needs to know of a manifest: what it names, and what referrer lists say of it.
//!
//! Lenient where `formats::oci` is strict: foreign tools' manifests are stored as they are, with
//! fields and media types this project has never heard of. Pure.

use std::collections::BTreeMap;

use formats::digest::Digest;
use formats::oci::{MANIFEST_LIMIT, media_type};
use serde::Deserialize;

/// Why bytes cannot be a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FactsError {
    /// More than [`MANIFEST_LIMIT`] bytes, or than [`TREE_LIMIT`](formats::json::TREE_LIMIT) in memory.
    #[error(
        "the manifest is larger than {MANIFEST_LIMIT} bytes, or takes far more memory than that"
    )]
    TooLarge,
    /// Not a JSON object with the fields of a manifest, or nested too deeply.
    #[error("the manifest is not well-formed: {0}")]
    Form(String),
    /// Both kinds in one (CVE-2021-41190): readers would disagree on what it is.
    #[error("the manifest lists manifests and layers at once")]
    Ambiguous,
    /// `mediaType` contradicts the `Content-Type` it came with.
    #[error("the manifest says it is {inside:?}, the request says {outside:?}")]
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
    /// Its annotations; kept only with a subject, for referrer lists.
    pub annotations: BTreeMap<String, String>,
    /// Manifests it lists, with their media types.
    pub manifests: Vec<(Digest, String)>,
    /// Config and layers, without those that are fetched from elsewhere.
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
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    media_type: String,
    digest: Digest,
    #[serde(default)]
    urls: Option<Vec<String>>,
}

impl Entry {
    /// Layers that registries need not have: they come from the `urls`.
    fn is_foreign(&self) -> bool {
        self.urls.as_ref().is_some_and(|urls| !urls.is_empty())
            || self.media_type.contains("nondistributable")
            || self.media_type.contains(".foreign.")
    }
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
        let annotations = document.annotations.filter(|_| subject.is_some()).unwrap_or_default();
        let manifests = document.manifests.unwrap_or_default();
        let layers = document.layers.unwrap_or_default();
        let blobs = document.config.into_iter().chain(layers).filter(|entry| !entry.is_foreign());
        let blobs: Vec<Entry> = blobs.collect();
        let metadata = blobs.iter().filter(|entry| entry.media_type == media_type::TUF_METADATA);
        Ok(Facts {
            metadata: metadata.map(|entry| entry.digest.clone()).collect(),
            len,
            media_type: document.media_type.filter(named),
            artifact_type,
            subject,
            annotations,
            manifests: manifests
                .into_iter()
                .map(|entry| (entry.digest, entry.media_type))
                .collect(),
            blobs: blobs.into_iter().map(|entry| entry.digest).collect(),
        })
    }

    /// The media type to store it under: the request's, which must not contradict the document's.
    pub fn media_type(&self, content_type: Option<&str>) -> Result<String, FactsError> {
        match (content_type, &self.media_type) {
            (Some(outside), Some(inside)) if outside != inside => Err(FactsError::MediaType {
                inside: inside.chars().take(128).collect(),
                outside: outside.chars().take(128).collect(),
            }),
            (Some(outside), _) => Ok(outside.to_owned()),
            (None, Some(inside)) => Ok(inside.clone()),
            (None, None) if self.blobs.is_empty() => Ok(media_type::INDEX.to_owned()),
            (None, None) => Ok(media_type::MANIFEST.to_owned()),
        }
    }
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
