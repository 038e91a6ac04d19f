//! Signing keys: what holds them, and the one door through which they sign.
//!
//! ```text
//!  DIR/root.key  (0600, the secret half)   ──► SecretKey ─┐
//!  token, KMS    (later: PKCS#11, command) ──► …          ├─ SigningKey ─► KeyStore::sign ─► verified signature
//!  DIR/root.pub  (the public half, a TUF key object)      │
//! ```
//!
//! [`sign`] verifies what a key produced before anybody sees it: a faulty token, or a bit flipped
//! in memory, must not publish a signature that gives the key away or that no node accepts.

mod document;
pub mod example;
mod file;
mod store;

pub use document::{DocumentError, SecretKey};
pub use file::{create, read, read_public, write_public};
pub use store::{KeyStore, SigningKey, sign};

use std::io;
use std::path::PathBuf;

use formats::reason::Reason;

/// Ending of the names of secret key files.
pub const SECRET_ENDING: &str = "key";
/// Ending of the names of public key files.
pub const PUBLIC_ENDING: &str = "pub";

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A key file cannot be opened or read.
    #[error("read key {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A key file cannot be written; an existing one is never replaced.
    #[error("write key {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A key is there already.
    #[error("key {path} exists; it is never replaced: move it away or choose another name")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Others than its owner can get at a secret key.
    #[error(
        "{path} is {why}; run `chmod 600` on it, and replace the key if others may have read it"
    )]
    Permissions {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The file is not a key.
    #[error("key {path}")]
    Document {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: DocumentError,
    },
    /// A seed whose public half nobody may trust.
    #[error("the key cannot be used: {0}")]
    Weak(String),
    /// The operating system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
    /// A key made a signature that does not verify: hardware fault or wrong token.
    #[error(
        "key {keyid} made a signature that does not verify; nothing was written: test the machine or token"
    )]
    BadSignature {
        /// The key's id.
        keyid: String,
    },
}

impl KeyError {
    /// The stable code of this error.
    pub fn reason(&self) -> Reason {
        match self {
            KeyError::Read { .. } | KeyError::Exists { .. } | KeyError::Random(_) => Reason::Config,
            KeyError::Write { .. } => Reason::StoreIo,
            KeyError::Permissions { .. } => Reason::InsecurePerms,
            KeyError::Document { .. } | KeyError::BadSignature { .. } | KeyError::Weak(_) => {
                Reason::KeyInvalid
            }
        }
    }
}
