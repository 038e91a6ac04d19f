//! The key that signs this node's reports, and nothing else.

use formats::report::Report;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

/// Bytes of the seed that an ed25519 key is made of.
pub(super) const SEED: usize = 32;

/// What signs reports: a file today, a TPM where one holds the key.
pub(super) trait NodeKey {
    /// The ed25519 public key.
    fn public(&self) -> [u8; 32];

    /// Its signature of a message.
    fn sign(&self, message: &[u8]) -> [u8; 64];

    /// The report as a document.
    fn document(&self, report: Report) -> Vec<u8> {
        let prepared = report.prepare(&self.public());
        prepared.document(&self.sign(&prepared.message()))
    }
}

/// A key in a record of the state directory.
pub(super) struct FileKey(Ed25519KeyPair);

impl FileKey {
    /// The key of a seed; `None`: it is none.
    pub(super) fn of(seed: &[u8]) -> Option<Self> {
        Ed25519KeyPair::from_seed_unchecked(seed).ok().map(FileKey)
    }
}

impl NodeKey for FileKey {
    fn public(&self) -> [u8; 32] {
        self.0.public_key().as_ref().try_into().expect("an ed25519 public key has 32 bytes")
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).as_ref().try_into().expect("an ed25519 signature has 64 bytes")
    }
}
