//! `inspect`: everything that is in a repository or bundle, as a tree.

use formats::release::IndexedComponent;
use formats::tuf::UnixTime;
use serde::Serialize;

use super::status::{ChannelStatus, RoleStatus, channels, role_lines, roles};
use super::{Report, bytes, has_example_key};
use crate::error::SignerError;
use crate::published::{self, Published, PublishedError};
use crate::repository::Registry;
use crate::summary::printable;
use crate::verify::{Release, read_release};

/// What is in a repository.
#[derive(Debug, Serialize)]
pub struct InspectReport {
    repository: String,
    /// Digest of the manifest of the TUF state.
    pub state: String,
    root_versions: Vec<u64>,
    roles: Vec<RoleStatus>,
    channels: Vec<ChannelStatus>,
    releases: Vec<ReleaseTree>,
    example_keys: bool,
}

#[derive(Debug, Serialize)]
struct ReleaseTree {
    target: String,
    security_version: u64,
    index: String,
    index_size: u64,
    /// Why its documents cannot be read: a bundle may hold fewer releases than are signed.
    missing: Option<String>,
    components: Vec<ComponentTree>,
}

#[derive(Debug, Serialize)]
struct ComponentTree {
    name: String,
    compatible: Vec<String>,
    manifest: String,
    raw_size: u64,
    raw_sha256: String,
    chunking: String,
    /// Why it was published without asking what kind of file it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    raw: Option<String>,
    images: Vec<Blob>,
    chunks: Blob,
}

#[derive(Debug, Serialize)]
struct Blob {
    digest: String,
    size: u64,
}

impl Report for InspectReport {
    fn text(&self) -> String {
        let mut text = format!("{}\n├─ tuf:latest {}", self.repository, self.state);
        for line in role_lines(&self.roles) {
            text.push_str(&format!("\n│  ├─ {line}"));
        }
        for channel in &self.channels {
            text.push_str(&format!("\n│  ├─ {}", channel.line()));
        }
        for release in &self.releases {
            text.push_str(&format!(
                "\n├─ {} security version {}, index {}",
                release.target, release.security_version, release.index
            ));
            if release.missing.is_some() {
                text.push_str(" (signed, but not in here)");
            }
            for component in &release.components {
                text.push_str(&format!(
                    "\n│  ├─ {} for {}: {}, manifest {}",
                    component.name,
                    component.compatible.join(", "),
                    bytes(component.raw_size),
                    component.manifest
                ));
                if let Some(reason) = &component.raw {
                    text.push_str(&format!("\n│  │  ├─ taken as it is: {reason}"));
                }
                for image in &component.images {
                    text.push_str(&format!(
                        "\n│  │  ├─ image {} {}",
                        bytes(image.size),
                        image.digest
                    ));
                }
                let chunks = &component.chunks;
                text.push_str(&format!(
                    "\n│  │  └─ chunks {} {}",
                    bytes(chunks.size),
                    chunks.digest
                ));
            }
        }
        text
    }

    fn example_keys(&self) -> bool {
        self.example_keys
    }
}

/// Reads the documents of a repository. Signatures and digests are verified, in itself when no
/// trust root is given; blobs are not read: that is what `verify` is for.
pub fn inspect(
    registry: &dyn Registry,
    trust_root: Option<&[u8]>,
    now: UnixTime,
) -> Result<InspectReport, SignerError> {
    let Published { manifest, state } = published::load(registry, trust_root)?;
    let mut releases = Vec::new();
    for listed in state.releases().map_err(PublishedError::from)? {
        let mut tree = ReleaseTree {
            target: listed.target.clone(),
            security_version: listed.summary.security_version,
            index: String::new(),
            index_size: 0,
            missing: None,
            components: Vec::new(),
        };
        match read_release(registry, &state, &listed) {
            Ok(release) => {
                tree.index = release.index.to_string();
                tree.index_size = release.index_size;
                tree.components = components(&release);
            }
            Err(error) => {
                let signed = state.target(&listed.target);
                let hash = signed.and_then(|file| file.hashes.as_sha256());
                tree.index = hash.map(|hash| format!("sha256:{hash}")).unwrap_or_default();
                tree.missing = Some(error.to_string());
            }
        }
        releases.push(tree);
    }
    Ok(InspectReport {
        repository: registry.reference().to_string(),
        state: manifest.to_string(),
        root_versions: state.roots.keys().copied().collect(),
        roles: roles(&state, now),
        channels: channels(&state),
        releases,
        example_keys: has_example_key(&state.root),
    })
}

/// As it is signed, which others may have done: nothing in it draws on a terminal.
fn raw_reason(release: &Release, listed: &IndexedComponent) -> Option<String> {
    let mut signed = release.listed.summary.components.iter();
    let signed = signed
        .find(|signed| signed.name == listed.name && signed.manifest == listed.manifest.digest)?;
    let reason: String = signed.raw.as_ref()?.chars().take(200).collect();
    Some(printable(&reason))
}

fn components(release: &Release) -> Vec<ComponentTree> {
    let blob = |descriptor: &formats::oci::Descriptor| Blob {
        digest: descriptor.digest.to_string(),
        size: descriptor.size,
    };
    let rows = release.components.iter().map(|component| ComponentTree {
        name: component.listed.name.to_string(),
        compatible: component.listed.compatible.clone(),
        manifest: component.listed.manifest.digest.to_string(),
        raw_size: component.config.raw_size,
        raw_sha256: component.config.raw_sha256.to_string(),
        chunking: component.config.chunking.clone(),
        raw: raw_reason(release, &component.listed),
        images: component.manifest.images.iter().map(blob).collect(),
        chunks: blob(&component.manifest.chunks),
    });
    rows.collect()
}
