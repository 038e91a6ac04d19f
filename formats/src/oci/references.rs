//! What a document refers to, whoever wrote it.

use serde::Deserialize;

use super::{MANIFEST_LIMIT, OciError};
use crate::digest::Digest;
use crate::json;

/// What a manifest or index refers to, in the order of the document.
///
/// Lenient where [`Manifest`](super::Manifest) and [`Index`](super::Index) are strict: it is for those
/// who must keep what other people's documents need. A document of another kind refers to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct References {
    /// Manifests that it lists; these refer to more.
    pub manifests: Vec<Digest>,
    /// The manifest that it is attached to.
    pub subject: Option<Digest>,
    /// Config and layers.
    pub blobs: Vec<Digest>,
}

#[derive(Deserialize)]
struct Document {
    config: Option<Entry>,
    layers: Option<Vec<Entry>>,
    manifests: Option<Vec<Entry>>,
    subject: Option<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    digest: Option<String>,
}

impl References {
    /// Reads a document of at most [`MANIFEST_LIMIT`] bytes. What is no JSON object refers to nothing.
    ///
    /// Errors: [`OciError::TooLarge`], and [`OciError::Form`] for an object whose config, layers,
    /// manifests or subject are no descriptors: then nobody knows what it needs.
    pub fn parse(bytes: &[u8]) -> Result<Self, OciError> {
        let what = "manifest";
        if bytes.len() as u64 > MANIFEST_LIMIT || !json::is_light(bytes) {
            return Err(OciError::TooLarge { what });
        }
        if !bytes.trim_ascii_start().starts_with(b"{") {
            return Ok(References::default());
        }
        let document: Document = super::document::from_json(bytes, what)?;
        // A digest of an algorithm that we do not know is no name of any blob of ours.
        let digests = |entries: Vec<Entry>| {
            let texts = entries.into_iter().filter_map(|entry| entry.digest);
            texts.filter_map(|text| text.parse().ok()).collect::<Vec<Digest>>()
        };
        let Document { config, layers, manifests, subject } = document;
        let manifests = digests(manifests.unwrap_or_default());
        let subject = digests(subject.into_iter().collect()).pop();
        let mut blobs = digests(config.into_iter().collect());
        blobs.extend(digests(layers.unwrap_or_default()));
        Ok(References { manifests, subject, blobs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Descriptor, Index, Manifest};

    #[test]
    fn all_that_a_document_needs_is_found() {
        let [config, layer, subject] = [b"a", b"b", b"c"].map(|it| Descriptor::of("x", it));
        let digest = |it: &Descriptor| it.digest.clone();
        let mut manifest = Manifest::artifact("y", config.clone(), vec![layer.clone()]);
        manifest.subject = Some(subject.clone());
        let found = References::parse(&manifest.to_bytes()).unwrap();
        let (subject_of, blobs) = (Some(digest(&subject)), vec![digest(&config), digest(&layer)]);
        assert_eq!(found, References { manifests: Vec::new(), subject: subject_of, blobs });
        let index = Index::new(None, vec![subject.clone(), layer.clone()]);
        let found = References::parse(&index.to_bytes()).unwrap();
        assert_eq!(found.manifests, [digest(&subject), digest(&layer)]);
        assert!(found.blobs.is_empty());
    }

    #[test]
    fn foreign_documents_are_read_as_far_as_they_go() {
        let zero = Digest::sha256_of(b"");
        let text = format!(
            r#" {{"schemaVersion":3,"manifests":[{{"digest":"{zero}","size":-1}},{{"digest":"md5:0"}}],
               "layers":null,"blobs":[1],"config":{{}}}}"#
        );
        let found = References::parse(text.as_bytes()).unwrap();
        assert_eq!(found, References { manifests: vec![zero], ..References::default() });
        for other in ["", "[]", "\"x\"", "PK\u{3}\u{4}", "{}"] {
            assert_eq!(References::parse(other.as_bytes()).unwrap(), References::default());
        }
        for odd in [r#"{"layers":{}}"#, r#"{"manifests":["x"]}"#, r#"{"config":1}"#, "{"] {
            let error = References::parse(odd.as_bytes());
            assert!(matches!(error, Err(OciError::Form { .. })), "{odd}: {error:?}");
        }
        let large = format!("{{\"layers\":[{}{{}}]}}", "{},".repeat(1 << 20));
        let error = References::parse(large.as_bytes());
        assert!(matches!(error, Err(OciError::TooLarge { .. })), "{error:?}");
    }
}
