//! From the root the chooser carries to verified metadata, by the files of a proof.
//!
//! Firmware and slots are renewed at different times. The chooser's root has version v; the newest
//! of the proof has version b.
//!
//! | v, b | walked | timestamp, snapshot by | targets by |
//! |---|---|---|---|
//! | v ≤ b | v to b; a root v in the proof is the chooser's, byte for byte | root b | root b |
//! | v = b+1 | the proof's to b, whose keys signed the chooser's | root b | root b *and* root v |
//! | v > b+1 | the proof's to b | root b | root b *and* root v |
//!
//! So newer firmware boots the slots that were written before it, whichever keys were rotated in
//! between, unless a targets key was revoked that the signatures need: what is signed with it may be
//! a thief's. Keys of timestamp and snapshot are no such danger. At a boot these two say nothing
//! about freshness, only which versions belong together, and whoever may write a slot may put an
//! older one there anyway. For the same reason the roots between b and v need not be there: targets
//! signed by keys of the chooser's own root are what is relied on.
//!
//! Departs from TUF §5.3 for v > b: a client would go forward to its root's metadata, a slot holds
//! that of its own time.

use std::ops::RangeInclusive;

use formats::tuf::{Envelope, Metadata as _, Role, Root, TufError, UnixTime};

use super::{Proof, ProofError};
use crate::trust::{Clock, Fetch, Limits, Refresh, Reply, Stored, TrustError, TrustedSet, run};

/// Verifies the metadata of a proof, up to targets.
pub(super) fn walk(proof: &Proof, chooser_root: &[u8]) -> Result<TrustedSet, ProofError> {
    let clock = Clock { system: proof.known_time, build: UnixTime::EPOCH };
    let begin = |root| Refresh::begin(Stored::default(), root, clock, Limits::default());
    // Also verifies that it signs itself.
    let own = begin(chooser_root)?;
    let firmware = read(chooser_root).map_err(|source| TrustError::ShippedRoot { source })?;
    let version = firmware.root.header.version;
    let mut refresh = match roots(proof) {
        Some(roots) if *roots.end() < version => {
            check_connected(proof, *roots.end(), &firmware)?;
            begin(file(proof, *roots.start()))?.with_targets_root(firmware.root)
        }
        _ => {
            check_same(proof, &firmware)?;
            own
        }
    };
    Ok(run(&mut refresh, |wanted| reply(proof, wanted), |_| {})?)
}

/// Answers from the files of a proof.
pub(super) fn reply(proof: &Proof, wanted: &Fetch) -> Reply {
    match proof.files.get(&wanted.file_name) {
        Some(bytes) if bytes.len() as u64 > wanted.max_len => Reply::TooLong,
        Some(bytes) => Reply::Bytes(bytes.clone()),
        None => Reply::NotFound,
    }
}

/// A root and the envelope it came in.
struct Given {
    root: Root,
    envelope: Envelope,
}

fn read(bytes: &[u8]) -> Result<Given, TufError> {
    let envelope = Envelope::parse(bytes)?;
    Ok(Given { root: Root::parse(envelope.signed())?, envelope })
}

/// The versions of the proof's newest roots, without a gap; `None` if it has none.
fn roots(proof: &Proof) -> Option<RangeInclusive<u64>> {
    let version = |name: &String| name.strip_suffix(".root.json")?.parse::<u64>().ok();
    let newest = proof.files.keys().filter_map(version).max()?;
    let is_there = |version: &u64| !file(proof, *version).is_empty();
    let oldest = (1..=newest).rev().take_while(is_there).last()?;
    Some(oldest..=newest)
}

/// The proof's root of that version; empty if it is not there.
fn file(proof: &Proof, version: u64) -> &[u8] {
    proof.files.get(&Role::Root.file_name(Some(version))).map_or(&[], Vec::as_slice)
}

/// A proof that goes back to the chooser's root has that one, not another of its version.
fn check_same(proof: &Proof, firmware: &Given) -> Result<(), ProofError> {
    let version = firmware.root.header.version;
    let same = match file(proof, version) {
        [] => true,
        bytes => {
            let envelope = Envelope::parse(bytes)
                .map_err(|source| TrustError::Refused { file: root_name(version), source })?;
            envelope.canonical() == firmware.envelope.canonical()
        }
    };
    if same { Ok(()) } else { Err(ProofError::OtherRoot { version }) }
}

/// Whether the chooser's root may follow the last one of the proof, where it is the next one.
fn check_connected(proof: &Proof, last: u64, firmware: &Given) -> Result<(), ProofError> {
    if firmware.root.header.version != last.saturating_add(1) {
        return Ok(());
    }
    let before = read(file(proof, last))
        .map_err(|source| TrustError::Refused { file: root_name(last), source })?;
    before
        .root
        .verify(&Role::Root, &firmware.envelope)
        .map_err(|source| ProofError::Unconnected { last, source })
}

fn root_name(version: u64) -> String {
    Role::Root.file_name(Some(version))
}
