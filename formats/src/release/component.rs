//! One component: its manifest and its config.

use serde::{Deserialize, Serialize};

use super::{ComponentName, ReleaseError, expect_type, from_json};
use crate::chunks::delta::DELTAS_LIMIT;
use crate::digest::Sha256;
use crate::oci::{Descriptor, Manifest, annotation, media_type};
use crate::version::Version;

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
    /// How the image was cut and compressed: for people, and for `signer`, which copies frames of images that
    /// say the same. Readers only need the chunk list.
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
