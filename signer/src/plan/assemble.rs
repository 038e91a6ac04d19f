//! From collected signatures to metadata whose thresholds are met.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use formats::tuf::{Envelope, KeyId, Metadata, Role, Root, Signature, Targets, UnixTime};

use super::PlanError;
use super::proposal::{Payload, Proposal, Requirement, Signatures, Signers, requirements};
use crate::state::{Signed, State, StateError};

/// The roles that people sign as they will be published: every threshold is met.
///
/// Made by [`assemble`] and [`Offline::of`] alone.
#[derive(Debug, Clone)]
pub struct Offline {
    pub(super) roots: BTreeMap<u64, Vec<u8>>,
    pub(super) root: Root,
    pub(super) targets: Signed<Targets>,
    pub(super) delegated: BTreeMap<Role, Arc<Signed<Targets>>>,
}

impl Offline {
    /// What people signed of a state, to be renewed.
    ///
    /// Errors: [`PlanError::RootExpired`], because nodes would refuse all that is below that root.
    pub fn of(state: &State, now: UnixTime) -> Result<Self, PlanError> {
        let header = &state.root.header;
        if now >= header.expires {
            let (version, expires) = (header.version, header.expires);
            return Err(PlanError::RootExpired { version, expires });
        }
        Ok(Offline {
            roots: state.roots.clone(),
            root: state.root.clone(),
            targets: state.targets.clone(),
            delegated: state.delegated.clone(),
        })
    }

    /// The bytes of the newest root.
    pub fn newest_root(&self) -> &[u8] {
        self.roots.values().next_back().map(Vec::as_slice).unwrap_or_default()
    }
}

/// How far one requirement of one payload is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Which payload.
    pub role: Role,
    /// Who names the keys.
    pub by: String,
    /// How many must sign.
    pub threshold: u32,
    /// Who signed, verified.
    pub signed: Vec<KeyId>,
    /// Who could still sign.
    pub waiting: Vec<KeyId>,
}

impl Missing {
    /// Whether it is met.
    pub fn is_met(&self) -> bool {
        self.signed.len() >= self.threshold as usize
    }
}

/// Who signed and who has not, for every requirement of every payload.
pub fn missing(
    state: Option<&State>,
    proposal: &Proposal,
    signatures: &Signatures,
) -> Result<Vec<Missing>, PlanError> {
    let signers = Signers::of(state, proposal)?;
    let mut all = Vec::new();
    for payload in &proposal.payloads {
        let message = payload.message();
        for needed in signers.requirements(&payload.role) {
            let (signed, waiting) = needed.role_keys.keyids.iter().partition(|keyid| {
                of_role(signatures, &payload.role)
                    .iter()
                    .any(|signature| is_good(&needed, keyid, signature, &message))
            });
            all.push(Missing {
                role: payload.role.clone(),
                by: needed.by,
                threshold: needed.role_keys.threshold,
                signed,
                waiting,
            });
        }
    }
    Ok(all)
}

/// Which of the keys at hand have to sign what: those that count for a payload and have not signed
/// it yet. In the order of the payloads and of their keys; none twice.
pub fn to_sign(
    state: Option<&State>,
    proposal: &Proposal,
    signatures: &Signatures,
    at_hand: &BTreeSet<KeyId>,
) -> Result<Vec<(Role, KeyId)>, PlanError> {
    let signers = Signers::of(state, proposal)?;
    let mut planned: Vec<(Role, KeyId)> = Vec::new();
    for payload in &proposal.payloads {
        let role = &payload.role;
        let signed = |keyid: &KeyId| {
            of_role(signatures, role).iter().any(|signature| signature.keyid == keyid.to_string())
        };
        for needed in signers.requirements(role) {
            for keyid in needed.role_keys.keyids {
                let is_new = at_hand.contains(&keyid) && !signed(&keyid);
                if is_new && !planned.contains(&(role.clone(), keyid)) {
                    planned.push((role.clone(), keyid));
                }
            }
        }
    }
    Ok(planned)
}

/// Refuses a role, as it is published, for which the keys at hand are too few.
pub fn check_at_hand(
    state: &State,
    role: &Role,
    at_hand: &BTreeSet<KeyId>,
) -> Result<(), PlanError> {
    let all = requirements(Some(state), &Proposal::default(), role)?;
    if all.is_empty() {
        return Err(PlanError::NoRole(role.clone()));
    }
    for needed in all {
        let found = needed.role_keys.keyids.iter().filter(|id| at_hand.contains(id)).count();
        let threshold = needed.role_keys.threshold;
        if found < threshold as usize {
            let (role, by) = (role.clone(), needed.by);
            return Err(PlanError::KeysMissing { role, by, threshold, found });
        }
    }
    Ok(())
}

/// Puts signatures and payloads together on top of a state, or says what is missing.
///
/// The same signatures give the same bytes, in whatever order they came; which of a threshold's
/// keys signed changes no payload.
pub fn assemble(
    state: Option<&State>,
    proposal: &Proposal,
    signatures: &Signatures,
) -> Result<Offline, PlanError> {
    check_versions(state, proposal)?;
    let signers = Signers::of(state, proposal)?;
    let mut roots = state.map(|state| state.roots.clone()).unwrap_or_default();
    let mut root = state.map(|state| state.root.clone());
    let mut targets = state.map(|state| state.targets.clone());
    let mut delegated = state.map(|state| state.delegated.clone()).unwrap_or_default();
    for payload in &proposal.payloads {
        let bytes = signed_bytes(&signers, payload, signatures)?;
        if let Some(data) = payload.root()? {
            roots.insert(data.header.version, bytes);
            root = Some(data);
        } else if let Some(data) = payload.targets()? {
            let signed = Signed { data, bytes, payload: payload.digest() };
            match &payload.role {
                Role::Targets => targets = Some(signed),
                role => drop(delegated.insert(role.clone(), Arc::new(signed))),
            }
        }
    }
    let missing = |role: Role| StateError::Missing(role.meta_name());
    Ok(Offline {
        roots,
        root: root.ok_or_else(|| missing(Role::Root))?,
        targets: targets.ok_or_else(|| missing(Role::Targets))?,
        delegated,
    })
}

/// The file of a payload, with its good signatures in the order of the keys.
fn signed_bytes(
    signers: &Signers<'_>,
    payload: &Payload,
    signatures: &Signatures,
) -> Result<Vec<u8>, PlanError> {
    let message = payload.message();
    let needed = signers.requirements(&payload.role);
    let mut good: Vec<Signature> = Vec::new();
    // The newest keys first.
    for by in needed.iter().rev() {
        for keyid in &by.role_keys.keyids {
            let found = of_role(signatures, &payload.role)
                .iter()
                .find(|signature| is_good(by, keyid, signature, &message));
            if let Some(found) = found
                && !good.iter().any(|other| other.keyid == found.keyid)
            {
                good.push(found.clone());
            }
        }
    }
    let bytes = payload.bytes(&good);
    let role = &payload.role;
    let envelope = Envelope::parse(&bytes)
        .map_err(|source| StateError::Untrusted { file: role.meta_name(), source })?;
    for by in &needed {
        if !by.is_met(role, &envelope) {
            let keyids = &by.role_keys.keyids;
            return Err(PlanError::KeysMissing {
                role: role.clone(),
                by: by.by.clone(),
                threshold: by.role_keys.threshold,
                found: good
                    .iter()
                    .filter(|s| keyids.iter().any(|k| k.to_string() == s.keyid))
                    .count(),
            });
        }
    }
    Ok(bytes)
}

/// Exactly the version after the published one: a signer never leaves a gap in which another
/// history fits, and never signs one version twice (case 189).
pub fn check_versions(state: Option<&State>, proposal: &Proposal) -> Result<(), PlanError> {
    for payload in &proposal.payloads {
        let role = &payload.role;
        let (found, published) = match (payload.root()?, payload.targets()?) {
            (Some(root), _) => {
                (root.header.version, state.map_or(0, |state| state.root.header.version))
            }
            (_, Some(targets)) => {
                let before = state.and_then(|state| state.targets_of(role));
                let listed = state.and_then(|state| state.snapshot.data.role(role));
                let published = before.map(|signed| signed.data.header().version);
                let published = published.or(listed.map(|listed| listed.version));
                (targets.header.version, published.unwrap_or(0))
            }
            _ => continue,
        };
        if published.checked_add(1) != Some(found) {
            return Err(PlanError::Discipline {
                role: role.clone(),
                found,
                published,
                why: "stage the change again on what is published now",
            });
        }
    }
    Ok(())
}

fn is_good(by: &Requirement, keyid: &KeyId, signature: &Signature, message: &[u8]) -> bool {
    signature.keyid == keyid.to_string()
        && by.role_keys.keyids.contains(keyid)
        && signature.bytes().is_some_and(|bytes| {
            by.keys.get(keyid).is_some_and(|key| key.public().verifies(message, &bytes))
        })
}

fn of_role<'a>(signatures: &'a Signatures, role: &Role) -> &'a [Signature] {
    signatures.get(role).map(Vec::as_slice).unwrap_or_default()
}
