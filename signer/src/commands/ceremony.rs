//! Staged changes: read, checked against rules and memory, and written down.

use std::path::{Path, PathBuf};

use formats::tuf::{Envelope, KeyId, Role, UnixTime};

use super::Signing;
use crate::error::SignerError;
use crate::journal::Event;
use crate::plan::{Finding, Level, PlanError, Proposal, lint_change};
use crate::policy::Policy;
use crate::repository::Registry;
use crate::shared;
use crate::stage::{STAGE_LIMIT, Staged};
use crate::state::State;

/// Findings that refuse, as an error; the others are said.
pub(super) fn lint(
    before: Option<&State>,
    proposal: &Proposal,
    policy: &Policy,
    now: UnixTime,
) -> Result<Vec<Finding>, SignerError> {
    let findings = lint_change(before, proposal, policy, now)?;
    match findings.iter().find(|finding| finding.level == Level::Refused) {
        Some(finding) => Err(PlanError::Lint(finding.clone()).into()),
        None => Ok(findings),
    }
}

/// Refuses to give a version a second content.
pub(super) fn check_memory(
    signing: &Signing,
    staged: &Staged,
    before: Option<&State>,
) -> Result<(), SignerError> {
    let Some(journal) = &signing.journal else { return Ok(()) };
    let identity = staged.identity(before)?;
    for (role, version, digest) in payload_ids(staged)? {
        journal.check_signing(&identity, &role, version, &digest)?;
    }
    Ok(())
}

pub(super) type PayloadId = (Role, u64, formats::digest::Sha256);

/// Role, version and digest of every payload.
pub(super) fn payload_ids(staged: &Staged) -> Result<Vec<PayloadId>, SignerError> {
    let mut ids = Vec::new();
    for payload in &staged.proposal.payloads {
        let version = payload.signed.get("version").and_then(|version| version.as_int());
        let version = version.and_then(|version| u64::try_from(version).ok()).unwrap_or(0);
        ids.push((payload.role.clone(), version, payload.digest()));
    }
    Ok(ids)
}

/// One event per signature that people's keys made.
pub(super) fn events(
    staged: &Staged,
    before: Option<&State>,
    signed: &[(Role, KeyId)],
    by: &str,
    now: UnixTime,
) -> Result<Vec<Event>, SignerError> {
    let identity = staged.identity(before)?;
    let ids = payload_ids(staged)?;
    let mut events = Vec::new();
    for (role, keyid) in signed {
        if let Some((_, version, digest)) = ids.iter().find(|(of, ..)| of == role) {
            let payload = (role, *version, digest);
            events.push(Event::signed(&identity, payload, keyid, by, &staged.what, now));
        }
    }
    Ok(events)
}

/// One event per signature under snapshot and timestamp.
pub(super) fn online_events(state: &State, by: &str, what: &str, now: UnixTime) -> Vec<Event> {
    let files = [
        (Role::Snapshot, state.snapshot.data.header.version, &state.snapshot.bytes),
        (Role::Timestamp, state.timestamp.data.header.version, &state.timestamp.bytes),
    ];
    let mut events = Vec::new();
    for (role, version, bytes) in files {
        let digest = crate::state::payload_digest(bytes);
        let envelope = Envelope::parse(bytes);
        for signature in envelope.iter().flat_map(|envelope| envelope.signatures()) {
            if let Ok(keyid) = signature.keyid.parse::<KeyId>() {
                let payload = (&role, version, &digest);
                events.push(Event::signed(&state.identity, payload, &keyid, by, what, now));
            }
        }
    }
    events
}

/// Reads staged changes: copies of one, whose signatures are put together. Those that are no files
/// but names are in the registry.
pub(super) fn read_staged(
    registry: Option<&dyn Registry>,
    paths: &[PathBuf],
) -> Result<Staged, SignerError> {
    let mut merged: Option<Staged> = None;
    for path in paths {
        let in_file = |source| SignerError::Stage { path: path.clone(), source };
        let staged = match registry.filter(|_| shared::is_name(path)) {
            Some(registry) => shared::fetch(registry, path)?,
            None => Staged::parse(&read_limited(path)?).map_err(in_file)?,
        };
        match &mut merged {
            None => merged = Some(staged),
            Some(first) => first.merge(staged, path).map_err(in_file)?,
        }
    }
    merged.ok_or_else(|| SignerError::Usage("give a staged change".to_owned()))
}

fn read_limited(path: &Path) -> Result<Vec<u8>, SignerError> {
    let failed = |source| SignerError::File { action: "read", path: path.to_owned(), source };
    let file = storage::open_input(path).map_err(|error| failed(error.into()))?;
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(file, STAGE_LIMIT), &mut bytes)
        .map_err(failed)?;
    Ok(bytes)
}

/// The repository's name in the log: two spellings of one directory are one name.
pub(super) fn repository_name(registry: &dyn Registry) -> String {
    use formats::reference::Reference;
    match registry.reference() {
        Reference::Layout { path, namespace } => {
            let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.clone());
            Reference::Layout { path, namespace: namespace.clone() }.to_string()
        }
        other => other.to_string(),
    }
}

pub(super) fn files_of(state: &State) -> std::collections::BTreeMap<String, Vec<u8>> {
    state.files().into_iter().map(|(name, bytes)| (name, bytes.to_vec())).collect()
}
