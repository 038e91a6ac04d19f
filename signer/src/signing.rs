//! Where planned metadata meets keys: key files, tokens, programs, people at a terminal.
//!
//! [`plan`](crate::plan) decides what is signed by whom; this module makes the signatures through
//! [`key::sign`](crate::key::sign), which verifies each of them, and gives them back to the plan.

use formats::reason::Reason;
use formats::tuf::{KeyId, Role, Signature, UnixTime};

use crate::key::{KeyError, KeyStore, sign};
use crate::plan::{
    Expiry, Offline, Payload, PlanError, Proposal, Signatures, UnsignedSnapshot, to_sign,
};
use crate::state::State;

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// It must not be signed, or the keys at hand are too few.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A key failed.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl SigningError {
    /// The stable code of this error.
    pub fn reason(&self) -> Reason {
        match self {
            SigningError::Plan(error) => error.reason(),
            SigningError::Key(error) => error.reason(),
        }
    }
}

/// Signs every payload with every key at hand that counts for it and has not signed yet; gives
/// who signed what.
pub fn sign_payloads(
    state: Option<&State>,
    proposal: &Proposal,
    keys: &KeyStore,
    signatures: &mut Signatures,
) -> Result<Vec<(Role, KeyId)>, SigningError> {
    let planned = to_sign(state, proposal, signatures, &keys.ids())?;
    for (role, keyid) in &planned {
        if let (Some(payload), Some(key)) = (proposal.payload(role), keys.find(keyid)) {
            let signature = sign(key, &payload.message())?;
            signatures.entry(role.clone()).or_default().push(signature);
        }
    }
    Ok(planned)
}

/// Signs snapshot and timestamp; gives the next state, verified the way nodes do it.
pub fn finish(snapshot: UnsignedSnapshot<'_>, keys: &KeyStore) -> Result<State, SigningError> {
    let signatures = sign_with(snapshot.payload(), snapshot.keyids(), keys)?;
    let timestamp = snapshot.signed(&signatures)?;
    let signatures = sign_with(timestamp.payload(), timestamp.keyids(), keys)?;
    Ok(timestamp.signed(&signatures)?)
}

/// Signs new versions and expiries of snapshot and timestamp, nothing else.
pub fn refresh(
    state: &State,
    keys: &KeyStore,
    expiry: &Expiry,
    now: UnixTime,
) -> Result<State, SigningError> {
    let (offline, nothing) = (Offline::of(state, now)?, Proposal::default());
    finish(UnsignedSnapshot::new(Some(state), offline, &nothing, expiry, None, now), keys)
}

fn sign_with(
    payload: &Payload,
    keyids: &[KeyId],
    keys: &KeyStore,
) -> Result<Vec<Signature>, KeyError> {
    let message = payload.message();
    keyids.iter().filter_map(|keyid| keys.find(keyid)).map(|key| sign(key, &message)).collect()
}
