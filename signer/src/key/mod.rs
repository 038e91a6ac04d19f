//! Signing keys: what holds them, and the one door through which they sign.
//!
//! ```text
//!  DIR/root.key  (0600, the secret half, maybe under a passphrase) ─► SecretKey ─┐
//!  DIR/root.uri  (pkcs11:…, cmd:…)  ─► token, program ───────────────────────────┼─ SigningKey ─► sign ─► verified signature
//!  --key pkcs11:… | cmd:… | FILE ────────────────────────────────────────────────┘
//!  DIR/root.pub  (the public half, a TUF key object)
//! ```
//!
//! [`sign`] verifies what a key produced before anybody sees it: a faulty token, or a bit flipped
//! in memory, must not publish a signature that gives the key away or that no node accepts.

mod command;
mod document;
pub mod example;
mod file;
pub mod import;
mod passphrase;
#[cfg(feature = "pkcs11")]
mod pkcs11;
#[cfg(not(feature = "pkcs11"))]
#[path = "no_tokens.rs"]
mod pkcs11;
#[cfg(feature = "pkcs11")]
mod pkcs11_sign;
pub mod public;
mod seal;
mod store;
mod uri;

pub use document::{DocumentError, KeyDocument, SecretKey};
pub use file::{
    create, create_from, make_directory, read, read_import, read_private, read_public, read_uri,
    replace, write_public,
};
pub use passphrase::{NEW_PASSPHRASE_FILE, PASSPHRASE_FILE, Unlock};
pub use pkcs11::generate;
pub use seal::{Cost, Floor};
pub use store::{KeyStore, SigningKey, open_document, private_files, sign};
pub use uri::{CommandUri, KeyLocation, Pkcs11Uri, UriError};

use std::io;
use std::path::PathBuf;

use formats::reason::Reason;

/// Ending of the names of secret key files.
pub const SECRET_ENDING: &str = "key";
/// Ending of the names of files with the URI of a key that lies elsewhere.
pub const URI_ENDING: &str = "uri";
/// Ending of the names of public key files.
pub const PUBLIC_ENDING: &str = "pub";

/// Which kind of key a token is to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKeyKind {
    /// ed25519
    Ed25519,
    /// ECDSA over P-256, for tokens that have nothing else.
    P256,
}

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file of keys or secrets cannot be opened or read.
    #[error("read {what} {path}")]
    Read {
        /// What it should hold.
        what: &'static str,
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
    /// Others can get at a secret, or change what decides who signs.
    #[error("{what}: {path} {why}; run `{remedy}`")]
    Permissions {
        /// What it should hold.
        what: &'static str,
        /// The file, or a folder or link on the way to it.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// The command that mends it.
        remedy: String,
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
    /// A seed with a weak public half.
    #[error("the key cannot be used: {0}")]
    Weak(String),
    /// The operating system gives no random numbers.
    #[error("the system provides no random numbers: {0}")]
    Random(String),
    /// A file does not name a key.
    #[error("{path}: {why}")]
    Uri {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A passphrase or PIN is needed and there is none.
    #[error("no passphrase: {0}")]
    NoPassphrase(String),
    /// A key of another tool that must not be imported.
    #[error("{path} {why}")]
    Import {
        /// The file.
        path: PathBuf,
        /// Why it is refused.
        why: String,
    },
    /// The same key material stands there already.
    #[error("{path} is the same key as {there}; a key counts once, whatever its name")]
    Duplicate {
        /// The file to be imported.
        path: PathBuf,
        /// The one that is there.
        there: PathBuf,
    },
    /// A token is absent or failed.
    #[error("token {token}: {why}")]
    Token {
        /// Which token, of which library.
        token: String,
        /// What happened.
        why: String,
    },
    /// A program that should sign failed.
    #[error("signing program {program}: {why}")]
    Command {
        /// The program.
        program: PathBuf,
        /// What happened.
        why: String,
    },
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
            KeyError::Read { .. }
            | KeyError::Exists { .. }
            | KeyError::Random(_)
            | KeyError::Uri { .. }
            | KeyError::NoPassphrase(_)
            | KeyError::Token { .. }
            | KeyError::Command { .. } => Reason::Config,
            KeyError::Duplicate { .. } => Reason::KeyDuplicate,
            KeyError::Write { .. } => Reason::StoreIo,
            KeyError::Permissions { .. } => Reason::InsecurePerms,
            KeyError::Document { .. }
            | KeyError::Import { .. }
            | KeyError::BadSignature { .. }
            | KeyError::Weak(_) => Reason::KeyInvalid,
        }
    }
}
