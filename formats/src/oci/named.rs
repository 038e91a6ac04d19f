//! `index.json`, reduced to the names of manifests.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::descriptor::size;
use super::document::{check_version, from_json};
use super::{OciError, annotation};
use crate::digest::Digest;

/// A manifest that `index.json` of an image layout has a name for. Everything else that stands there
/// is left out: of 8 MiB of names some 6 MiB are kept, and of anything else nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedManifest {
    /// Its reference, for instance `tuf:latest`.
    pub name: Box<str>,
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

impl NamedManifest {
    /// The named entries of an `index.json`, in order. Every entry is read and must be a descriptor;
    /// their number is bounded by the length of `bytes` alone.
    pub fn parse_layout(bytes: &[u8]) -> Result<Vec<Self>, OciError> {
        let what = "index.json";
        let index: NamedIndex = from_json(bytes, what)?;
        check_version(what, index.schema_version)?;
        Ok(index.manifests.0)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NamedIndex {
    schema_version: u64,
    manifests: NamedEntries,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(rename = "mediaType")]
    _media_type: IgnoredAny,
    digest: Digest,
    #[serde(deserialize_with = "size")]
    size: u64,
    #[serde(default)]
    annotations: RefName,
}

struct NamedEntries(Vec<NamedManifest>);

impl<'de> Deserialize<'de> for NamedEntries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = NamedEntries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of descriptors")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<NamedEntries, A::Error> {
                let mut named = Vec::new();
                while let Some(Entry { digest, size, annotations, .. }) = list.next_element()? {
                    if let RefName(Some(name)) = annotations {
                        named.push(NamedManifest { name, digest, size });
                    }
                }
                Ok(NamedEntries(named))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

/// The one annotation that is kept.
#[derive(Default)]
struct RefName(Option<Box<str>>);

impl<'de> Deserialize<'de> for RefName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pick;
        impl<'de> Visitor<'de> for Pick {
            type Value = RefName;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("annotations")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RefName, A::Error> {
                let mut name = None;
                while let Some(IsRefName(yes)) = map.next_key()? {
                    if !yes {
                        map.next_value::<IgnoredAny>()?;
                    } else if name.replace(map.next_value()?).is_some() {
                        return Err(A::Error::custom("an entry has two names"));
                    }
                }
                Ok(RefName(name))
            }
        }
        deserializer.deserialize_map(Pick)
    }
}

/// Whether a key is [`annotation::REF_NAME`], without a copy of it.
struct IsRefName(bool);

impl<'de> Deserialize<'de> for IsRefName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Compare;
        impl Visitor<'_> for Compare {
            type Value = IsRefName;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an annotation's key")
            }

            fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<IsRefName, E> {
                Ok(IsRefName(key == annotation::REF_NAME))
            }
        }
        deserializer.deserialize_str(Compare)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Descriptor, Index};

    #[test]
    fn names_are_those_of_the_whole_index() {
        let entry = |bytes: &[u8]| Descriptor::of("application/x", bytes).annotated("other", "1");
        let index = Index::new(
            None,
            vec![
                entry(b"a").annotated(annotation::REF_NAME, "tuf:latest"),
                entry(b"b"),
                entry(b"c").annotated(annotation::REF_NAME, "\"\\demo:1"),
            ],
        );
        let named = NamedManifest::parse_layout(&index.to_bytes()).unwrap();
        let expected: Vec<NamedManifest> = index
            .manifests
            .iter()
            .filter_map(|entry| {
                let name = entry.annotation(annotation::REF_NAME)?.into();
                Some(NamedManifest { name, digest: entry.digest.clone(), size: entry.size })
            })
            .collect();
        assert_eq!(named, expected);
    }

    #[test]
    fn what_is_no_index_is_refused() {
        let digest = Digest::sha256_of(b"");
        let entry = format!(r#""mediaType":"x","digest":"{digest}""#);
        let twice =
            r#"{"org.opencontainers.image.ref.name":"a","org.opencontainers.image.ref.name":"b"}"#;
        for text in [
            r#"{"schemaVersion":1,"manifests":[]}"#.to_owned(),
            r#"{"schemaVersion":2}"#.to_owned(),
            format!(r#"{{"schemaVersion":2,"manifests":[{{{entry}}}]}}"#),
            format!(r#"{{"schemaVersion":2,"manifests":[{{{entry},"size":-1}}]}}"#),
            format!(
                r#"{{"schemaVersion":2,"manifests":[{{{entry},"size":0,"annotations":{twice}}}]}}"#
            ),
        ] {
            assert!(NamedManifest::parse_layout(text.as_bytes()).is_err(), "{text}");
        }
    }
}
