//! Why bytes are not trusted metadata.

use super::{KeyId, Role};
use crate::json::JsonError;
use crate::reason::Reason;

/// Why metadata, a key or a name is refused. Two equal errors mean the same refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TufError {
    /// Not JSON that may be signed.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A field is missing or has no acceptable value.
    #[error("{at} {problem}")]
    Format {
        /// Which field, as a path.
        at: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Metadata of another role.
    #[error("this is {found} metadata where {expected} metadata belongs")]
    Type {
        /// The `_type` that belongs here.
        expected: String,
        /// The `_type` it has.
        found: String,
    },
    /// Metadata of another repository that shares keys with this one.
    #[error("this is metadata of repository {found} where {pinned} belongs")]
    Repository {
        /// The id in the root.
        pinned: String,
        /// The id it has.
        found: String,
    },
    /// Another generation of the specification.
    #[error("spec_version {0} is not 1.x")]
    SpecVersion(String),
    /// More of something than is looked at.
    #[error("{what}: more than {limit}")]
    Limit {
        /// What is counted.
        what: &'static str,
        /// How many are accepted.
        limit: usize,
    },
    /// A key id is not the hash of its key (TUF §4.2).
    #[error("key id {listed} is not the hash of its key, {computed}")]
    KeyidMismatch {
        /// As it stands in the metadata.
        listed: String,
        /// As it follows from the key.
        computed: KeyId,
    },
    /// A key that must not be trusted by anybody.
    #[error("key {keyid} {problem}")]
    KeyInvalid {
        /// Which.
        keyid: KeyId,
        /// Why.
        problem: &'static str,
    },
    /// One key id twice, or one public key under two key ids.
    #[error("{at} names one key twice: {first} and {second}")]
    KeyDuplicate {
        /// The role or list.
        at: String,
        /// A key id.
        first: String,
        /// The other, possibly the same.
        second: String,
    },
    /// Fewer distinct keys of the role signed than its threshold asks for.
    #[error("{role} has {valid} valid signatures of its keys where {threshold} are needed")]
    Threshold {
        /// Whose metadata.
        role: Role,
        /// Distinct public keys with a valid signature.
        valid: usize,
        /// How many are needed.
        threshold: u32,
    },
    /// No number of signatures can satisfy the role.
    #[error("{role} needs {threshold} signatures but has only {keys} keys")]
    ThresholdUnreachable {
        /// Whose metadata.
        role: Role,
        /// Keys listed for it.
        keys: usize,
        /// How many are needed.
        threshold: u32,
    },
    /// A file does not have the length its listing says.
    #[error("{file} does not have the signed length of {signed} bytes")]
    Length {
        /// The file or target.
        file: String,
        /// The length that is signed.
        signed: u64,
    },
    /// A file does not have a hash its listing says.
    #[error("{file} does not have its signed {algorithm} hash")]
    Hash {
        /// The file or target.
        file: String,
        /// Which hash.
        algorithm: &'static str,
    },
    /// A listing has no hash this reader knows.
    #[error("{file} is listed without a sha256 or sha512 hash")]
    NoUsableHash {
        /// The file or target.
        file: String,
    },
    /// A name that would leave its place.
    #[error("target name {name:?} is refused: {problem}")]
    PathRefused {
        /// The name, at most 80 characters of it.
        name: String,
        /// Why.
        problem: &'static str,
    },
}

impl TufError {
    /// The stable word for it.
    pub fn reason(&self) -> Reason {
        match self {
            TufError::Json(JsonError::TooMany | JsonError::TooLarge) | TufError::Limit { .. } => {
                Reason::MetaLimit
            }
            TufError::Json(_) | TufError::Format { .. } | TufError::ThresholdUnreachable { .. } => {
                Reason::MetaFormat
            }
            TufError::Type { .. } | TufError::Repository { .. } => Reason::MetaType,
            TufError::SpecVersion(_) => Reason::SpecVersion,
            TufError::KeyidMismatch { .. } => Reason::KeyidMismatch,
            TufError::KeyInvalid { .. } => Reason::KeyInvalid,
            TufError::KeyDuplicate { .. } => Reason::KeyDuplicate,
            TufError::Threshold { .. } => Reason::SigThreshold,
            TufError::Length { .. } => Reason::LengthMismatch,
            TufError::Hash { .. } | TufError::NoUsableHash { .. } => Reason::HashMismatch,
            TufError::PathRefused { .. } => Reason::PathRefused,
        }
    }
}
