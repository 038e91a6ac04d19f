//! Why the log stops a signature.

use std::io;
use std::path::PathBuf;

use formats::reason::Reason;

/// Why the log stops a signature.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It cannot be read or written.
    #[error("signing log {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Others can change it.
    #[error("signing log: {path} {why}; run `{remedy}`")]
    Permissions {
        /// The file, or a folder or link on the way to it.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// The command that mends it.
        remedy: String,
    },
    /// It was changed.
    #[error(
        "signing log {path}, line {line}: {what}; the log was modified, compare it with a copy"
    )]
    Broken {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The repository serves less than was published from here.
    #[error(
        "{repository} serves {role} version {found}, but version {known} was published from here: an old state was put back, or this is an outdated copy; nothing is signed on top of it"
    )]
    Older {
        /// The repository.
        repository: String,
        /// Which role.
        role: String,
        /// What it serves.
        found: u64,
        /// What was published.
        known: u64,
    },
    /// The repository serves something else than was published from here.
    #[error(
        "{repository} serves {role} version {version} with other content than was published from here; nothing is signed on top of it"
    )]
    ContentChanged {
        /// The repository.
        repository: String,
        /// Which role.
        role: String,
        /// Its version.
        version: u64,
    },
    /// One version would get two contents.
    #[error(
        "{role} version {version} was signed here with other content (sha256 {digest}); commit that one, or record with `signer log abandon` that it will never be published"
    )]
    Equivocation {
        /// Which role.
        role: String,
        /// Which version.
        version: u64,
        /// What was signed.
        digest: String,
    },
}

impl JournalError {
    /// The stable code of this error.
    pub fn reason(&self) -> Reason {
        match self {
            JournalError::Io { .. } => Reason::StoreIo,
            JournalError::Permissions { .. } => Reason::InsecurePerms,
            JournalError::Broken { .. } => Reason::StoreCorrupt,
            JournalError::Older { .. }
            | JournalError::ContentChanged { .. }
            | JournalError::Equivocation { .. } => Reason::VersionRollback,
        }
    }
}
