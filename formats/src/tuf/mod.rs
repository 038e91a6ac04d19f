//! TUF metadata: bytes to verified types and back (specification 1.0.34).
//!
//! ```text
//!  bytes ─► Envelope::parse ─► RoleKeys::verify ─► Metadata::parse ─► Root, Timestamp, Snapshot, Targets
//!             strict JSON,       over the canonical   typed, unknown
//!             bounded counts     form as received     members kept
//!
//!  Root, … ─► to_value ─► canonical ─► (signatures) ─► envelope_bytes        same facts, same bytes
//! ```
//!
//! Points the specification leaves open, as they are settled here:
//!
//! * Signatures are verified over the canonical form of the *received* value, so members nobody
//!   knows cost nothing and are covered by the signature. Received bytes are stored by callers.
//! * Key ids are recomputed over the whole key object; one that differs refuses the document.
//! * A threshold counts distinct public keys. One key under two ids in a role, or one key id
//!   signing twice, refuses the document.
//! * ed25519 is verified strictly; ECDSA P-256 and RSA-PSS are verified so that repositories of
//!   other tools can be read. Keys of other types count zero and do no harm.
//! * Names are compared, never used as paths.
//! * A root may give its repository an id ([`REPOSITORY`]); metadata without it, or with another,
//!   is refused whoever signed it.
//!
//! What order documents are fetched in and which versions may replace which is decided in
//! `update_core::trust`.

mod delegations;
mod envelope;
mod error;
mod fields;
mod hashes;
mod header;
mod key;
mod names;
mod offline;
mod p256;
mod pattern;
mod root;
mod snapshot;
mod spki;
mod targets;
#[cfg(test)]
mod tests;
mod threshold;
mod time;
mod weak;

pub use delegations::{
    Delegated, DelegatedRole, DelegatedTo, Delegations, HashPrefixes, MAX_PATTERNS, Paths,
    SuccinctRoles,
};
pub use envelope::{Envelope, MAX_SIGNATURES, Signature, envelope_bytes};
pub use error::TufError;
pub use hashes::{Hashes, MetaFile, TargetFile};
pub use header::{Header, Metadata, PERIOD_MEMBER, SPEC_VERSION};
pub use key::{Key, KeyId, PublicKey};
pub use names::{MAX_NAME, Role, check_target_name, url_component};
pub use offline::{MAX_OFFLINE_TARGETS, OFFLINE, OFFLINE_LIMIT, Offline, OfflineRule};
pub use p256::decompress as decompress_p256;
pub use pattern::pattern_matches;
pub use root::{REPOSITORY, Root, TopLevelKeys};
pub use snapshot::{Snapshot, Timestamp};
pub use targets::Targets;
pub use threshold::{Keys, MAX_KEYS, RoleKeys};
pub use time::{BUILD_TIME, TimeError, UnixTime};
