//! Why files and directories, and durable state in them, could not be used.

use std::io;
use std::path::{Path, PathBuf};

use formats::reason::Reason;
use formats::record::RecordError;

/// Why a file or directory could not be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is a symbolic link, which is never followed.
    #[error("{} is a symbolic link; give the real path", .0.display())]
    Symlink(PathBuf),
    /// It is a directory, pipe, socket or device where a regular file must be.
    #[error("{} is not a regular file", .0.display())]
    NotRegular(PathBuf),
    /// It is something else where a directory must be.
    #[error("{} is not a directory", .0.display())]
    NotDirectory(PathBuf),
    /// Others could change a file or directory that must be private.
    #[error("{} {why}", path.display())]
    Insecure {
        /// Which one.
        path: PathBuf,
        /// What is wrong.
        why: String,
        /// The command that mends it.
        remedy: String,
    },
    /// The operating system refused.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried: `open`, `write`, `sync`, …
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// For errors that say the path themselves.
impl From<FileError> for io::Error {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Io { source, .. } => source,
            FileError::NotRegular(_) => {
                io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")
            }
            FileError::Symlink(_) => {
                io::Error::new(io::ErrorKind::InvalidInput, "it is a symbolic link")
            }
            FileError::NotDirectory(_) => io::ErrorKind::NotADirectory.into(),
            FileError::Insecure { why, .. } => {
                io::Error::new(io::ErrorKind::PermissionDenied, format!("it {why}"))
            }
        }
    }
}

impl FileError {
    pub(crate) fn io(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        FileError::Io { action, path: path.to_owned(), source: source.into() }
    }

    /// Whether there is nothing of that name.
    pub fn is_missing(&self) -> bool {
        matches!(self, FileError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Why durable state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refused: disk full, read-only, failing. What was there before still is.
    #[error("could not be written")]
    Write(#[source] FileError),
    /// A file or directory cannot be read.
    #[error(transparent)]
    Read(FileError),
    /// Others could change or read a file or directory that must be private.
    #[error("{} {why}", path.display())]
    InsecurePerms {
        /// Which one.
        path: PathBuf,
        /// What is wrong.
        why: String,
        /// The command that mends it.
        remedy: String,
    },
    /// Neither copy of a record is whole.
    #[error("both copies of {name} are damaged ({first}; {second})")]
    Corrupt {
        /// Which record.
        name: String,
        /// What is wrong with the first copy.
        first: RecordError,
        /// What is wrong with the second copy.
        second: RecordError,
    },
    /// The newest copy of a record has a later format version. No older copy is taken for it, and it is
    /// not written over.
    #[error("{name} was written by a newer version (format {version})")]
    Newer {
        /// Which record.
        name: String,
        /// Its format version.
        version: u16,
    },
    /// A file is above what may be in it, or a payload above what a record holds.
    #[error("{name} has more than {max} bytes")]
    TooLarge {
        /// Which file or record.
        name: String,
        /// The limit in bytes.
        max: u64,
    },
    /// A name that is no plain file name.
    #[error("{0:?} cannot be the name of a state file")]
    Name(String),
    /// Another agent holds the lock.
    #[error("another agent{} is at work on {}", holder.map_or(String::new(), |pid| format!(" (process {pid})")), path.display())]
    Busy {
        /// The lock.
        path: PathBuf,
        /// What the holder wrote into it.
        holder: Option<u32>,
    },
}

impl From<FileError> for StoreError {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Insecure { path, why, remedy } => {
                StoreError::InsecurePerms { path, why, remedy }
            }
            error => StoreError::Read(error),
        }
    }
}

impl StoreError {
    /// The error of a change.
    pub(crate) fn writing(error: FileError) -> Self {
        match error {
            FileError::Insecure { .. } => error.into(),
            error => StoreError::Write(error),
        }
    }

    /// The stable reason.
    pub fn reason(&self) -> Reason {
        match self {
            StoreError::Write(_) | StoreError::Read(_) => Reason::StoreIo,
            StoreError::InsecurePerms { .. } => Reason::InsecurePerms,
            StoreError::Corrupt { .. } | StoreError::TooLarge { .. } => Reason::StoreCorrupt,
            StoreError::Newer { .. } => Reason::StoreNewer,
            StoreError::Name(_) => Reason::PathRefused,
            StoreError::Busy { .. } => Reason::Busy,
        }
    }
}
