//! What one release consists of: the index, its component manifests, their configs, and the
//! summary in the TUF target's `custom` by which a node decides before it downloads.
//!
//! ```text
//! TUF target <product>/<version>   length + sha256 of ─► release index      custom.racklet = Summary
//!                                                          └ manifests[] one per component
//!                                                              ├ config    ImageConfig
//!                                                              ├ layer     image blob(s), zstd
//!                                                              ├ layer     chunk list
//!                                                              └ layers    deltas: list, blob
//! ```
//! Everything is bound by digest from the signed target down, so components of different releases
//! cannot be mixed.

mod component;
mod error;
mod index;
mod name;
mod summary;
mod withdrawal;

use serde::Deserialize;

pub use component::{ComponentManifest, Delta, ImageConfig};
pub use error::ReleaseError;
pub use index::{IndexedComponent, ReleaseIndex};
pub use name::{ComponentName, channel_of_target, channel_target_name, is_word, target_name};
pub use summary::{Attachment, AttachmentKind, ComponentSummary, Mixture, Summary};
pub use withdrawal::{REASON_LIMIT, Withdrawal};

/// Components one release may have.
pub const COMPONENTS_LIMIT: usize = 64;
/// Documents attached to one release.
pub const ATTACHMENTS_LIMIT: usize = 64;
/// 16 MiB: an SBOM of ten thousand packages has five.
pub const ATTACHMENT_LIMIT: u64 = 16 << 20;
/// Config documents are small; this bounds a download.
pub const CONFIG_LIMIT: u64 = 64 << 10;

fn expect_type(
    what: &'static str,
    found: Option<&str>,
    expected: &'static str,
) -> Result<(), ReleaseError> {
    match found {
        Some(found) if found == expected => Ok(()),
        other => Err(ReleaseError::ArtifactType {
            what,
            found: other.unwrap_or_default().chars().take(100).collect(),
            expected,
        }),
    }
}

fn from_json<'a, T: Deserialize<'a>>(
    bytes: &'a [u8],
    what: &'static str,
) -> Result<T, ReleaseError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ReleaseError::Form { what, why: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::{Digest, Sha256};
    use crate::oci::{Descriptor, Manifest, media_type};

    fn component(name: &str, ids: &[&str]) -> IndexedComponent {
        IndexedComponent {
            name: name.parse().unwrap(),
            compatible: ids.iter().map(|id| (*id).to_owned()).collect(),
            manifest: Descriptor::of(media_type::MANIFEST, name.as_bytes()),
        }
    }

    /// What parsing gives: the descriptor carries its annotations.
    fn parsed(index: &ReleaseIndex) -> Result<ReleaseIndex, ReleaseError> {
        ReleaseIndex::parse(&index.to_bytes())
    }

    #[test]
    fn an_index_round_trips_with_stable_bytes() {
        let index = ReleaseIndex {
            components: vec![
                component("os", &["cu-v1", "cu-v2"]),
                component("firmware", &["cu-v1"]),
            ],
        };
        let again = parsed(&index).unwrap();
        assert_eq!(again.to_bytes(), index.to_bytes());
        assert_eq!(again.components[0].compatible, ["cu-v1", "cu-v2"]);
        insta::assert_snapshot!(String::from_utf8(index.to_bytes()).unwrap());
    }

    #[test]
    fn ambiguous_or_misnamed_components_are_refused() {
        let rows = [
            ("same hardware twice", vec![component("os", &["a"]), component("os", &["a"])]),
            ("unsorted ids", vec![component("os", &["b", "a"])]),
            ("odd id", vec![component("os", &["../a"])]),
            ("none", vec![]),
        ];
        for (name, components) in rows {
            assert!(parsed(&ReleaseIndex { components }).is_err(), "{name}");
        }
        assert!(
            parsed(&ReleaseIndex {
                components: vec![component("os", &["a"]), component("os", &["b"])]
            })
            .is_ok()
        );
        for bad in ["", "OS", "o/s", "-os", "1os", "o--s", &"o".repeat(33)] {
            assert!(bad.parse::<ComponentName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_summary_must_agree_with_the_index() {
        let index = parsed(&ReleaseIndex { components: vec![component("os", &["a"])] }).unwrap();
        let mut summary = Summary {
            version: "1.0".parse().unwrap(),
            security_version: 1,
            components: vec![ComponentSummary {
                name: "os".parse().unwrap(),
                compatible: vec!["a".to_owned()],
                manifest: index.components[0].manifest.digest.clone(),
                raw_size: 1,
                verity: None,
                raw: None,
            }],
            attachments: Vec::new(),
            mixed: Vec::new(),
            order: Vec::new(),
            withdrawn: None,
        };
        assert_eq!(Summary::parse_custom(&summary.to_custom()).unwrap(), summary);
        assert_eq!(index.check_against(&summary), Ok(()));
        summary.components[0].manifest = Digest::sha256_of(b"other");
        assert!(index.check_against(&summary).is_err());
    }

    /// The bytes that are signed; without an order they are those of before.
    #[test]
    fn the_order_is_signed_and_names_what_is_there() {
        let component = |name: &str| {
            let digest = "0".repeat(64);
            format!(
                "{{\"name\":\"{name}\",\"compatible\":[\"a\"],\
                 \"manifest\":\"sha256:{digest}\",\"raw_size\":1}}"
            )
        };
        let custom = |order: &str| {
            let (bmc, os) = (component("bmc"), component("os"));
            format!(
                "{{\"racklet\":{{\"version\":\"1.0\",\"security_version\":1,\
                 \"components\":[{bmc},{os}]{order}}}}}"
            )
        };
        for (order, names) in [("", 0), (",\"order\":[\"os\",\"bmc\"]", 2)] {
            let bytes = custom(order);
            let summary = Summary::parse_custom(bytes.as_bytes()).unwrap();
            assert_eq!(summary.order.len(), names);
            assert_eq!(String::from_utf8(summary.to_custom()).unwrap(), bytes);
        }
        for order in ["\"os\",\"os\"", "\"web\"", "\"../x\"", "7"] {
            let bytes = custom(&format!(",\"order\":[{order}]"));
            assert!(Summary::parse_custom(bytes.as_bytes()).is_err(), "{order}");
        }
    }

    #[test]
    fn a_component_manifest_needs_one_list_and_an_image() {
        let config = Descriptor::of(media_type::IMAGE_CONFIG, b"{}");
        let image = Descriptor::of(media_type::IMAGE_BLOB, b"image");
        let chunks = Descriptor::of(media_type::CHUNKS, b"list");
        let good = ComponentManifest {
            config: config.clone(),
            images: vec![image.clone()],
            chunks: chunks.clone(),
            deltas: vec![Delta {
                from: Sha256::of(b"base"),
                from_size: 7,
                list: Descriptor::of(media_type::DELTA, b"delta"),
                blob: Descriptor::of(media_type::DELTA_BLOB, b"frames"),
            }],
        };
        let again = ComponentManifest::parse(&good.to_bytes("os")).unwrap();
        assert_eq!(again.to_bytes("os"), good.to_bytes("os"));
        assert_eq!((again.deltas[0].from, again.deltas[0].from_size), (Sha256::of(b"base"), 7));
        let rows = [
            ("no image", vec![chunks.clone()]),
            ("no list", vec![image.clone()]),
            (
                "two lists",
                vec![image.clone(), chunks.clone(), Descriptor::of(media_type::CHUNKS, b"2")],
            ),
            (
                "a delta without its blob",
                vec![image.clone(), chunks.clone(), Descriptor::of(media_type::DELTA, b"d")],
            ),
            (
                "a delta from nothing",
                vec![
                    image.clone(),
                    chunks.clone(),
                    Descriptor::of(media_type::DELTA, b"d"),
                    Descriptor::of(media_type::DELTA_BLOB, b"b"),
                ],
            ),
        ];
        for (name, layers) in rows {
            let bytes = Manifest::artifact(media_type::IMAGE, config.clone(), layers).to_bytes();
            assert!(ComponentManifest::parse(&bytes).is_err(), "{name}");
        }
        let other = Manifest::artifact("x", config, vec![image, chunks]).to_bytes();
        assert!(matches!(ComponentManifest::parse(&other), Err(ReleaseError::ArtifactType { .. })));
    }
}
