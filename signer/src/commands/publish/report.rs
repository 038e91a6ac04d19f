//! What reports say of a release: its images, and what of it would be uploaded.

use formats::digest::Sha256;
use serde::Serialize;

use crate::commands::{bytes, counted};
use crate::repository::Transfer;

/// A release that was built and not uploaded.
#[derive(Debug, Serialize)]
pub(in crate::commands) struct PlannedRelease {
    pub(super) target: String,
    /// Digest of the release index.
    pub(super) index: String,
    pub(super) security_version: u64,
    pub(super) components: Vec<ComponentReport>,
    /// Images and documents; not the signed metadata, which is some KiB.
    pub(super) upload: Transfer,
}

/// One image of a release.
#[derive(Debug, Clone, Serialize)]
pub(in crate::commands) struct ComponentReport {
    pub(super) name: String,
    pub(super) compatible: Vec<String>,
    pub(super) manifest: String,
    pub(super) raw_size: u64,
    pub(super) blob_size: u64,
    pub(super) chunks: u32,
    /// Why it was not asked what kind of file it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) raw: Option<String>,
    /// Of the image file; absent where the tree of dm-verity was added to it.
    #[serde(skip)]
    pub(super) sha256: Option<Sha256>,
    /// Bytes of each delta.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) deltas: Vec<u64>,
}

impl ComponentReport {
    /// Its lines, each after a line break.
    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "\n  {:10} {} in {}, {} to download, for {}",
            self.name,
            bytes(self.raw_size),
            counted(self.chunks.into(), "chunk"),
            bytes(self.blob_size),
            self.compatible.join(", "),
        );
        if let Some(reason) = &self.raw {
            text.push_str(&format!("\n  {:10} taken as it is: {reason}", ""));
        }
        for size in &self.deltas {
            text.push_str(&format!("\n  {:10} {} as a delta", "", bytes(*size)));
        }
        text
    }
}

impl PlannedRelease {
    /// Its lines, each after a line break.
    pub(in crate::commands) fn text(&self) -> String {
        let mut text = format!("\n{} ({})", self.target, self.index);
        for component in &self.components {
            text.push_str(&component.text());
        }
        let Transfer { new_files, new_bytes, reused_files, reused_bytes } = self.upload;
        text.push_str(&format!(
            "\nto upload: {} in {}; there already: {} in {}",
            bytes(new_bytes),
            counted(new_files, "file"),
            bytes(reused_bytes),
            counted(reused_files, "file"),
        ));
        text
    }
}
