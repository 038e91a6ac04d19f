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

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::chunks::delta::DELTAS_LIMIT;
use crate::digest::{Digest, Sha256};
use crate::oci::{Descriptor, Index, Manifest, OciError, annotation, media_type};
use crate::verity::Verity;
use crate::version::Version;

/// Components one release may have.
pub const COMPONENTS_LIMIT: usize = 64;
/// Documents attached to one release.
pub const ATTACHMENTS_LIMIT: usize = 64;
/// 16 MiB: an SBOM of ten thousand packages has five.
pub const ATTACHMENT_LIMIT: u64 = 16 << 20;
/// Config documents are small; this bounds a download.
pub const CONFIG_LIMIT: u64 = 64 << 10;

/// Why documents do not form a release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// The OCI document itself is malformed.
    #[error(transparent)]
    Oci(#[from] OciError),
    /// The index or manifest is another kind of artifact.
    #[error("{what}: artifact type {found:?} is not {expected:?}")]
    ArtifactType {
        /// Which document.
        what: &'static str,
        /// The type found, empty when absent.
        found: String,
        /// The type wanted.
        expected: &'static str,
    },
    /// A component has no name, an unusable one, or the release has none or too many.
    #[error("release index: {0}")]
    Components(String),
    /// A layer is missing, doubled or of a kind we do not know.
    #[error("component manifest: {0}")]
    Layers(&'static str),
    /// A JSON document does not have the form it should.
    #[error("{what}: {why}")]
    Form {
        /// Which document.
        what: &'static str,
        /// What the parser said.
        why: String,
    },
    /// Two signed documents say different things.
    #[error("{what} differs between the signed target and the release")]
    Contradiction {
        /// What differs.
        what: String,
    },
}

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

impl std::str::FromStr for ComponentName {
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

impl std::fmt::Display for ComponentName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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

/// What the signed target says of a release: enough to decide without downloading anything.
///
/// Stored as member `racklet` of the target's `custom`. Unknown members are ignored: data, never
/// instructions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The release's version.
    pub version: Version,
    /// Rises when an older release must never run again; compared with the node's floor.
    pub security_version: u64,
    /// The components, in the order of the index.
    pub components: Vec<ComponentSummary>,
    /// What describes the release and its making; in ascending order of their digests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<Attachment>,
    /// Which mixtures of releases a set over several devices may pass through.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mixed: Vec<Mixture>,
    /// In which order the components that start by themselves are switched when the release is
    /// activated; in reverse order when it is abandoned. Those that are not named come last, by
    /// name, and after all of them the boot flags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub order: Vec<ComponentName>,
}

/// A mixture that was tested by whoever signs: between the start of an update set and its confirm or
/// revert, a component that starts by itself may run beside a system of another release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mixture {
    /// The component with a switch of its own.
    pub component: ComponentName,
    /// Releases it may run beside, and whose component may run beside this release.
    pub with: Vec<Version>,
}

/// A document that is attached to a release: a manifest whose subject is the release index, with
/// the document as its only layer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Attachment {
    /// Digest of its manifest.
    pub manifest: Digest,
    /// Media type of what it is, see [`AttachmentKind::of`].
    #[serde(rename = "type")]
    pub artifact_type: String,
}

/// What an attachment is good for, in the words of policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachmentKind {
    /// What is in the release: SPDX or CycloneDX.
    Sbom,
    /// How it was made: an in-toto statement.
    Provenance,
}

impl AttachmentKind {
    /// The kind of an artifact type; `None` for others, which satisfy no policy.
    pub fn of(artifact_type: &str) -> Option<Self> {
        match artifact_type {
            media_type::SPDX
            | media_type::SPDX_TEXT
            | media_type::CYCLONEDX
            | media_type::CYCLONEDX_XML => Some(AttachmentKind::Sbom),
            media_type::IN_TOTO => Some(AttachmentKind::Provenance),
            _ => None,
        }
    }

    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            AttachmentKind::Sbom => "sbom",
            AttachmentKind::Provenance => "provenance",
        }
    }
}

/// What the signed target says of one component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentSummary {
    /// Its name.
    pub name: ComponentName,
    /// Hardware ids it is for; sorted, no duplicates. Empty fits no hardware.
    pub compatible: Vec<String>,
    /// Digest of its manifest.
    pub manifest: Digest,
    /// Length of the image in bytes.
    pub raw_size: u64,
    /// The dm-verity tree at the end of the image, if it has one: what a verifying chooser boots by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verity: Option<Verity>,
    /// Why the image was published without asking what kind of file it is, in the words of whoever
    /// did; for people only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Custom {
    racklet: Summary,
}

impl Summary {
    /// Parses the JSON of a target's `custom` object.
    pub fn parse_custom(json: &[u8]) -> Result<Self, ReleaseError> {
        let custom: Custom = from_json(json, "target custom")?;
        let components = &custom.racklet.components;
        if components.is_empty() || components.len() > COMPONENTS_LIMIT {
            return Err(ReleaseError::Components(format!("{} components", components.len())));
        }
        let attachments = &custom.racklet.attachments;
        let sorted = attachments.is_sorted_by(|a, b| a.manifest < b.manifest);
        if attachments.len() > ATTACHMENTS_LIMIT || !sorted {
            let why = "attachments are too many, twice or not in order".to_owned();
            return Err(ReleaseError::Form { what: "target custom", why });
        }
        let order = &custom.racklet.order;
        let named =
            |name: &ComponentName| components.iter().any(|component| component.name == *name);
        let twice = order.iter().collect::<BTreeSet<_>>().len() != order.len();
        if twice || !order.iter().all(named) {
            let why = "the order names a component twice or one that is not there".to_owned();
            return Err(ReleaseError::Form { what: "target custom", why });
        }
        for component in components {
            if let Some(verity) = &component.verity {
                verity.check(component.raw_size).map_err(|error| ReleaseError::Form {
                    what: "target custom",
                    why: format!("component {}: {error}", component.name),
                })?;
            }
        }
        Ok(custom.racklet)
    }

    /// The attachments of that kind.
    pub fn attached(&self, kind: AttachmentKind) -> impl Iterator<Item = &Attachment> {
        let mine = move |it: &&Attachment| AttachmentKind::of(&it.artifact_type) == Some(kind);
        self.attachments.iter().filter(mine)
    }

    /// The JSON of a target's `custom` object.
    pub fn to_custom(&self) -> Vec<u8> {
        serde_json::to_vec(&Custom { racklet: self.clone() })
            .expect("string keys and no floats always serialise")
    }
}

/// One component as the index lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexedComponent {
    /// Its name.
    pub name: ComponentName,
    /// Hardware ids it is for; sorted, no duplicates.
    pub compatible: Vec<String>,
    /// Its manifest.
    pub manifest: Descriptor,
}

/// A parsed release index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseIndex {
    /// The components, in order.
    pub components: Vec<IndexedComponent>,
}

impl ReleaseIndex {
    /// Parses a release index.
    ///
    /// One name may stand several times, for different hardware; the same hardware id twice under
    /// one name is refused, because a node could not choose.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReleaseError> {
        let index = Index::parse(bytes)?;
        expect_type("release index", index.artifact_type.as_deref(), media_type::RELEASE)?;
        if index.manifests.is_empty() || index.manifests.len() > COMPONENTS_LIMIT {
            let text = format!("{} components", index.manifests.len());
            return Err(ReleaseError::Components(text));
        }
        let mut seen = BTreeSet::new();
        let mut components = Vec::new();
        for manifest in index.manifests {
            let name: ComponentName =
                manifest.annotation(annotation::COMPONENT).unwrap_or_default().parse()?;
            let compatible = parse_compatible(&manifest)?;
            for id in &compatible {
                if !seen.insert((name.clone(), id.clone())) {
                    let text = format!("component {name} is listed twice for hardware {id}");
                    return Err(ReleaseError::Components(text));
                }
            }
            components.push(IndexedComponent { name, compatible, manifest });
        }
        Ok(ReleaseIndex { components })
    }

    /// Deterministic bytes of the index.
    pub fn to_bytes(&self) -> Vec<u8> {
        let manifests = self.components.iter().map(|component| {
            component
                .manifest
                .clone()
                .annotated(annotation::COMPONENT, component.name.as_str())
                .annotated(annotation::COMPATIBLE, &component.compatible.join(","))
        });
        Index::new(Some(media_type::RELEASE), manifests.collect()).to_bytes()
    }

    /// Refuses an index that is not what the signed summary says.
    pub fn check_against(&self, summary: &Summary) -> Result<(), ReleaseError> {
        let same = self.components.len() == summary.components.len()
            && self.components.iter().zip(&summary.components).all(|(listed, signed)| {
                listed.name == signed.name
                    && listed.compatible == signed.compatible
                    && listed.manifest.digest == signed.manifest
            });
        if same {
            Ok(())
        } else {
            Err(ReleaseError::Contradiction { what: "the list of components".to_owned() })
        }
    }
}

fn parse_compatible(manifest: &Descriptor) -> Result<Vec<String>, ReleaseError> {
    let text = manifest.annotation(annotation::COMPATIBLE).unwrap_or_default();
    let ids: Vec<String> = text.split(',').filter(|id| !id.is_empty()).map(str::to_owned).collect();
    if ids.iter().any(|id| !is_word(id, 64)) || !ids.is_sorted_by(|a, b| a < b) {
        return Err(ReleaseError::Components(
            "hardware ids are not words in ascending order".to_owned(),
        ));
    }
    Ok(ids)
}

/// Config of a component manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// The component's name.
    pub component: ComponentName,
    /// The release's version.
    pub version: Version,
    /// The release's security version.
    pub security_version: u64,
    /// Hardware ids it is for; sorted, no duplicates.
    pub compatible: Vec<String>,
    /// Length of the image in bytes.
    pub raw_size: u64,
    /// SHA-256 of the image.
    pub raw_sha256: Sha256,
    /// How the image was cut, for people: readers only need the chunk list.
    pub chunking: String,
}

impl ImageConfig {
    /// Parses a config.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReleaseError> {
        from_json(bytes, "image config")
    }

    /// Deterministic bytes of the config.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("string keys and no floats always serialise")
    }
}

/// A parsed component manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComponentManifest {
    /// The config's descriptor.
    pub config: Descriptor,
    /// The image blobs, one per encoding of the chunk list, in order; at least one.
    pub images: Vec<Descriptor>,
    /// The chunk list.
    pub chunks: Descriptor,
    /// Deltas from other images, at most [`DELTAS_LIMIT`].
    pub deltas: Vec<Delta>,
}

/// A delta as a component manifest lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// The [image id](crate::chunks::ChunkList::image_id) of what it is from.
    pub from: Sha256,
    /// Length of that image in bytes.
    pub from_size: u64,
    /// Its list.
    pub list: Descriptor,
    /// Its blob, whose digest is in the list, too.
    pub blob: Descriptor,
}

impl ComponentManifest {
    /// Parses a component manifest. Layers of kinds we do not know are ignored.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReleaseError> {
        let manifest = Manifest::parse(bytes)?;
        expect_type("component manifest", manifest.artifact_type.as_deref(), media_type::IMAGE)?;
        if manifest.config.media_type != media_type::IMAGE_CONFIG {
            return Err(ReleaseError::Layers("the config is of another kind"));
        }
        let of_kind = |kind: &str| -> Vec<Descriptor> {
            manifest.layers.iter().filter(|layer| layer.media_type == kind).cloned().collect()
        };
        let images = of_kind(media_type::IMAGE_BLOB);
        let mut lists = of_kind(media_type::CHUNKS);
        let delta_lists = of_kind(media_type::DELTA);
        let delta_blobs = of_kind(media_type::DELTA_BLOB);
        if delta_lists.len() != delta_blobs.len() || delta_lists.len() > DELTAS_LIMIT {
            return Err(ReleaseError::Layers("too many deltas, or one without its blob"));
        }
        let deltas: Result<Vec<Delta>, ReleaseError> = delta_lists
            .into_iter()
            .zip(delta_blobs)
            .map(|(list, blob)| {
                let from = list.annotation(annotation::FROM);
                let from = from.and_then(|text| Sha256::from_hex(text).ok());
                let size =
                    list.annotation(annotation::FROM_SIZE).and_then(|size| size.parse().ok());
                let (from, from_size) =
                    from.zip(size).ok_or(ReleaseError::Layers("a delta does not say from what"))?;
                Ok(Delta { from, from_size, list, blob })
            })
            .collect();
        let deltas = deltas?;
        match (images.len(), lists.pop(), lists.is_empty()) {
            (1..=4, Some(chunks), true) => {
                Ok(ComponentManifest { config: manifest.config, images, chunks, deltas })
            }
            (0, _, _) => Err(ReleaseError::Layers("no image layer")),
            (1..=4, _, _) => Err(ReleaseError::Layers("exactly one chunk list is needed")),
            _ => Err(ReleaseError::Layers("more than four image layers")),
        }
    }

    /// Deterministic bytes of the manifest; `title` names the files for generic tools.
    pub fn to_bytes(&self, title: &str) -> Vec<u8> {
        let suffix = |i: usize| if i == 0 { String::new() } else { format!(".{i}") };
        let mut layers: Vec<Descriptor> = self
            .images
            .iter()
            .enumerate()
            .map(|(i, image)| {
                let name = format!("{title}{}.img.zst", suffix(i));
                image.clone().annotated(annotation::TITLE, &name)
            })
            .collect();
        layers.push(self.chunks.clone().annotated(annotation::TITLE, &format!("{title}.chunks")));
        for (number, Delta { from, from_size, list, blob }) in self.deltas.iter().enumerate() {
            let titled = |layer: &Descriptor, kind: &str| {
                let name = format!("{title}{}.{kind}", suffix(number));
                layer.clone().annotated(annotation::TITLE, &name)
            };
            layers.push(
                titled(list, "delta")
                    .annotated(annotation::FROM, &from.to_hex())
                    .annotated(annotation::FROM_SIZE, &from_size.to_string()),
            );
            layers.push(titled(blob, "delta.zst"));
        }
        Manifest::artifact(media_type::IMAGE, self.config.clone(), layers).to_bytes()
    }
}

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
