//! One frame of an encoding.

use formats::digest::{Digest, Hasher, Sha256};

/// One zstd frame.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub(super) bytes: Vec<u8>,
    pub(super) sha256: Sha256,
}

impl Frame {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Frame { sha256: Sha256::of(&bytes), bytes }
    }
}

/// What was hashed with SHA-256.
pub(super) fn sha256(hasher: Hasher) -> Sha256 {
    match hasher.finish() {
        Digest::Sha256(hash) => hash,
        Digest::Sha512(_) => unreachable!("the hasher was made for SHA-256"),
    }
}
