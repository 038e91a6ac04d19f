//! What the signed target says of a release.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{
    ATTACHMENTS_LIMIT, COMPONENTS_LIMIT, ComponentName, ReleaseError, Withdrawal, from_json,
};
use crate::digest::Digest;
use crate::oci::media_type;
use crate::verity::Verity;
use crate::version::Version;

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
    /// Set once its maintainers took it back: no node installs it any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<Withdrawal>,
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
        custom.racklet.withdrawn.as_ref().map_or(Ok(()), Withdrawal::check)?;
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
