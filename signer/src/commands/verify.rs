//! `verify`: is a repository or bundle right, to the last byte?

use std::collections::BTreeMap;

use formats::tuf::{Envelope, Offline, UnixTime};
use serde::Serialize;
use update_core::trust::TrustError;

use super::{Report, bytes, counted, has_example_key, time};
use crate::error::SignerError;
use crate::progress::Show;
use crate::published::{self, PublishedError};
use crate::repository::Registry;
use crate::state::State;
use crate::verify::{Extent, Verified, VerifyError, verify_content, verify_offline};

/// What was verified.
#[derive(Debug, Serialize)]
pub struct VerifyReport {
    repository: String,
    /// Digest of the manifest of the TUF state.
    pub state: String,
    /// Whether it was verified from a given trust root.
    anchored: bool,
    root_version: u64,
    timestamp_version: u64,
    snapshot_version: u64,
    targets_version: u64,
    first_expiry: String,
    first_expiry_role: String,
    /// Until when nodes without a network take the bundle, by its offline statement.
    #[serde(skip_serializing_if = "Option::is_none")]
    offline_until: Option<String>,
    #[serde(flatten)]
    content: Verified,
    example_keys: bool,
}

impl Report for VerifyReport {
    fn text(&self) -> String {
        let content = &self.content;
        let mut text = format!(
            "{} verified: root {}, timestamp {}, snapshot {}, targets {}\n\
             {} with {}, {}; {}, {} of images in {} of blobs\n\
             {} expires first, {}",
            self.repository,
            self.root_version,
            self.timestamp_version,
            self.snapshot_version,
            self.targets_version,
            counted(content.releases, "release"),
            counted(content.components, "component"),
            counted(content.channels, "channel"),
            counted(content.chunks, "chunk"),
            bytes(content.image_bytes),
            bytes(content.blob_bytes),
            self.first_expiry_role,
            self.first_expiry,
        );
        if let Some(until) = &self.offline_until {
            text.push_str(&format!("\nnodes without a network take it until {until}"));
        }
        if !content.absent.is_empty() {
            text.push_str(&format!("\nsigned but not in here: {}", content.absent.join(", ")));
        }
        if !self.anchored {
            text.push_str(
                "\nno trust root was given: it was checked against its own root only, whoever \
                 made that (--root FILE or --keys DIR)",
            );
        }
        text
    }

    fn example_keys(&self) -> bool {
        self.example_keys
    }
}

/// Runs the nodes' workflow and reads everything below it.
///
/// Without a trust root the oldest root of the repository is believed; the report says so.
pub fn verify(
    registry: &dyn Registry,
    trust_root: Option<&[u8]>,
    now: UnixTime,
    show: Show,
) -> Result<VerifyReport, SignerError> {
    let nothing = || PublishedError::Nothing(registry.reference().to_string());
    let found = published::fetch(registry)?.ok_or_else(nothing)?;
    let state = State::verify(&found.files, trust_root).map_err(PublishedError::from)?;
    let oldest = state.roots.values().next().map(Vec::as_slice).unwrap_or_default();
    let root = trust_root.unwrap_or(oldest);
    let statement = published::offline_statement(registry)?;
    let trusted = verify_offline(&found.files, root, statement.as_deref(), now)?;
    let offline_until = statement
        .map(|statement| whole_offline(&found.files, root, &statement, now))
        .transpose()?;
    let progress = |label: &str, len| show.begin(label, len);
    let content = verify_content(registry, &state, extent(registry, &state)?, &progress)?;
    let (role, expires) = trusted.first_expiry();
    Ok(VerifyReport {
        repository: registry.reference().to_string(),
        state: found.manifest.to_string(),
        anchored: trust_root.is_some(),
        root_version: state.root.header.version,
        timestamp_version: state.timestamp.data.header.version,
        snapshot_version: state.snapshot.data.header.version,
        targets_version: state.targets.data.header.version,
        first_expiry: time(expires),
        first_expiry_role: role.to_string(),
        offline_until: offline_until.map(time),
        content,
        example_keys: has_example_key(&state.root),
    })
}

/// Until when a bundle is good offline, tried as a node will in the last second of it.
fn whole_offline(
    files: &BTreeMap<String, Vec<u8>>,
    root: &[u8],
    statement: &[u8],
    now: UnixTime,
) -> Result<UnixTime, SignerError> {
    let said = Envelope::parse(statement).and_then(|envelope| Offline::parse(envelope.signed()));
    let said = said.map_err(|source| {
        let file = published::OFFLINE_REFERENCE.to_owned();
        VerifyError::Trust(TrustError::Refused { file, source })
    })?;
    if now < said.expires {
        verify_offline(files, root, Some(statement), said.expires.plus(-1))?;
    }
    Ok(said.expires)
}

/// A repository has an alias of its state; a bundle, made for carrying, has not.
fn extent(registry: &dyn Registry, state: &State) -> Result<Extent, SignerError> {
    let alias = published::alias(state)?;
    let repository = published::tuf_repository(registry)?;
    let is_repository = registry.tagged(&repository, &alias)?.is_some();
    Ok(if is_repository { Extent::All } else { Extent::Some })
}
