//! Which repository a state belongs to, by its verified roots.
//!
//! A registry chooses which roots it serves below the trust root, and nobody verifies those. A
//! repository that is identified by its first root becomes a different one when the registry
//! leaves that root out.

use std::collections::BTreeSet;

use formats::digest::Sha256;
use formats::tuf::{Envelope, REPOSITORY, Root};

/// How the signing log tells repositories apart.
///
/// Two identities are of one repository when they share the label or a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    label: Sha256,
    trusted: Sha256,
    roots: BTreeSet<Sha256>,
    first_served: Sha256,
}

impl Identity {
    /// The identity of a repository whose trust root has this payload and whose newest verified
    /// root is `newest`.
    pub fn new(trusted: Sha256, newest: &Root) -> Self {
        let (label, roots) = (label(newest, trusted), [trusted].into());
        Identity { label, trusted, roots, first_served: trusted }
    }

    /// The same with one more verified root, which is the newest.
    #[must_use]
    pub fn with_root(mut self, payload: Sha256, root: &Root) -> Self {
        self.roots.insert(payload);
        self.label = label(root, self.trusted);
        self
    }

    /// The same with the first root that the registry serves, which nobody verified.
    #[must_use]
    pub(crate) fn serving_first(self, payload: Sha256) -> Self {
        Identity { first_served: payload, ..self }
    }

    /// What the signing log writes: SHA-256 of the id that the newest root carries
    /// ([`REPOSITORY`]); without one, SHA-256 of the trust root's payload.
    pub fn label(&self) -> Sha256 {
        self.label
    }

    /// SHA-256 of the trust root's payload.
    pub fn trusted(&self) -> Sha256 {
        self.trusted
    }

    /// Payload digests of the trust root and of every root that was verified from it.
    pub fn roots(&self) -> &BTreeSet<Sha256> {
        &self.roots
    }

    /// Payload digest of the first root that the registry serves. It is not verified. Older
    /// versions of this program wrote it as the label.
    pub fn first_served(&self) -> Sha256 {
        self.first_served
    }
}

fn label(newest: &Root, trusted: Sha256) -> Sha256 {
    match newest.unknown.get(REPOSITORY).and_then(|id| id.as_str()) {
        Some(id) => Sha256::of(id.as_bytes()),
        None => trusted,
    }
}

/// SHA-256 of what the signatures of a file are made over.
pub fn payload_digest(bytes: &[u8]) -> Sha256 {
    Envelope::parse(bytes).map_or(Sha256::of(bytes), |envelope| Sha256::of(envelope.canonical()))
}
