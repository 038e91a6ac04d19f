//! Why a repository, target or clock is not trusted.

use formats::reason::Reason;
use formats::tuf::{Role, TufError, UnixTime};

use super::OfflineError;

/// Why trust was not established. The attempt ends; what was trusted before stays trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// A metadata file is not what its role's keys signed, or not what it was listed as.
    #[error("{file} from the repository is refused")]
    Refused {
        /// The file.
        file: String,
        /// Why.
        source: TufError,
    },
    /// Metadata that is trusted and current otherwise has expired.
    #[error("{role} version {version} expired at {expires}; the time is {now}")]
    Expired {
        /// Whose metadata.
        role: Role,
        /// Its version.
        version: u64,
        /// When it ended.
        expires: UnixTime,
        /// The time it is judged by, fixed when the update began.
        now: UnixTime,
    },
    /// Metadata that is trusted otherwise has expired, and the offline statement of the bundle does
    /// not stand in for it.
    #[error("{role} version {version} expired at {expires}; this update began at {now}")]
    Offline {
        /// Whose metadata.
        role: Role,
        /// Its version.
        version: u64,
        /// When it ended.
        expires: UnixTime,
        /// The time it is judged by.
        now: UnixTime,
        /// What is wrong with the statement.
        source: Box<OfflineError>,
    },
    /// Timestamp or snapshot have expired, and the offline statement is not good for this target.
    #[error(
        "the metadata has expired, and its offline statement (until {expires}) is not for {name:?}"
    )]
    NotOffline {
        /// The target.
        name: String,
        /// When the statement ends.
        expires: UnixTime,
    },
    /// The repository offers metadata older than what this node trusts (TUF §5.4.3, §5.5.5).
    #[error("{role} version {offered} is offered, but version {trusted} is known")]
    Rollback {
        /// Whose metadata.
        role: Role,
        /// The version offered.
        offered: u64,
        /// The version already seen, or the one the listing asks for.
        trusted: u64,
    },
    /// A file holds a newer version than it was asked for as: files of different states mixed.
    #[error("{role} version {offered} is offered where version {listed} belongs")]
    VersionMismatch {
        /// Whose metadata.
        role: Role,
        /// The version offered.
        offered: u64,
        /// The version that belongs there.
        listed: u64,
    },
    /// A role this node has seen is gone from the snapshot (TUF §5.5.5).
    #[error("the snapshot no longer lists {file}, of which version {trusted} is known")]
    RoleRemoved {
        /// The file.
        file: String,
        /// The version already seen.
        trusted: u64,
    },
    /// A file is longer than it may be.
    #[error("{file} is longer than the {limit} bytes {}", if *signed { "signed for it" } else { "this node accepts" })]
    TooLong {
        /// The file.
        file: String,
        /// The most that is read.
        limit: u64,
        /// Whether the limit is the signed length, or this node's own.
        signed: bool,
    },
    /// A file every repository has is not there.
    #[error("the repository does not have {file}")]
    NotServed {
        /// The file.
        file: String,
    },
    /// More new roots than one run walks. What was verified is kept.
    #[error("more than {limit} new root versions; those walked so far are kept")]
    RootChain {
        /// The most of one run.
        limit: usize,
    },
    /// The system clock is behind what is known to have happened.
    #[error("the system clock says {clock}, but it is at least {known}")]
    ClockUntrusted {
        /// The system clock.
        clock: UnixTime,
        /// The latest time that is certain.
        known: UnixTime,
    },
    /// The name asked for would leave its place.
    #[error(transparent)]
    Name(TufError),
    /// No role that may sign for it lists the target.
    #[error("no signed target {name:?} in the repository")]
    TargetNotFound {
        /// The target.
        name: String,
    },
    /// A role that may sign for the target is not in the snapshot. Roles after it are not
    /// asked, or leaving a role out would raise the next one above it.
    #[error("{role} may sign for target {name:?} but is not in the snapshot")]
    RoleNotInSnapshot {
        /// The target.
        name: String,
        /// The role.
        role: Role,
    },
    /// The search for the target leads through too many roles (TUF §5.6.7.1).
    #[error("target {name:?} is not found within {limit} delegated roles")]
    DelegationLimit {
        /// The target.
        name: String,
        /// The most roles of one search.
        limit: usize,
    },
    /// The root this node was given is no root that signs itself.
    #[error("the configured trust root is not usable")]
    ShippedRoot {
        /// Why.
        source: TufError,
    },
    /// The stored root does not sign itself any more: the state is damaged.
    #[error("the stored trust root is not usable")]
    StoredRoot {
        /// Why.
        source: TufError,
    },
    /// The configured root and the stored one have one version but differ: they belong to
    /// different repositories.
    #[error("the configured trust root version {version} is not the one this node has stored")]
    RootConflict {
        /// Their version.
        version: u64,
    },
}

impl TrustError {
    /// The stable word for it.
    pub fn reason(&self) -> Reason {
        match self {
            TrustError::Refused { source, .. } | TrustError::Name(source) => source.reason(),
            TrustError::Expired { .. } | TrustError::NotOffline { .. } => Reason::Expired,
            TrustError::Offline { source, .. } => source.reason(),
            TrustError::Rollback { .. }
            | TrustError::VersionMismatch { .. }
            | TrustError::RoleRemoved { .. } => Reason::VersionRollback,
            TrustError::TooLong { signed: true, .. } => Reason::LengthMismatch,
            TrustError::TooLong { signed: false, .. } | TrustError::RootChain { .. } => {
                Reason::MetaLimit
            }
            TrustError::NotServed { .. } => Reason::Unreachable,
            TrustError::ClockUntrusted { .. } => Reason::ClockUntrusted,
            TrustError::TargetNotFound { .. } | TrustError::RoleNotInSnapshot { .. } => {
                Reason::TargetNotFound
            }
            TrustError::DelegationLimit { .. } => Reason::DelegationLimit,
            TrustError::ShippedRoot { source } => match source.reason() {
                // The words for what is wrong with a key or signature say more than `config`.
                reason @ (Reason::SigThreshold
                | Reason::KeyInvalid
                | Reason::KeyDuplicate
                | Reason::KeyidMismatch) => reason,
                _ => Reason::Config,
            },
            TrustError::StoredRoot { .. } => Reason::StoreCorrupt,
            TrustError::RootConflict { .. } => Reason::Config,
        }
    }

    /// What the reader can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            TrustError::Expired { role: Role::Root, .. } => {
                "publish a new root version; if the repository has one, the source withholds it"
            }
            TrustError::Expired { .. } => {
                "run `signer refresh`; if that was done, the source serves an old state: try another"
            }
            TrustError::Offline { .. } | TrustError::NotOffline { .. } => {
                "make the bundle again where the repository is: `signer bundle --valid-for 30d`"
            }
            TrustError::Rollback { .. }
            | TrustError::VersionMismatch { .. }
            | TrustError::RoleRemoved { .. } => {
                "the source serves an old or mixed state: update it or try another; a repository \
                 restored from a backup must publish versions above those already seen"
            }
            TrustError::Refused { source, .. } if source.reason() == Reason::SigThreshold => {
                "the source is not this node's repository, or its keys were changed without a root \
                 that says so; check the source and the configured root"
            }
            TrustError::Refused { .. } | TrustError::TooLong { .. } => {
                "the source serves damaged or foreign metadata; try another, and run `signer verify` \
                 on the repository"
            }
            TrustError::NotServed { .. } => {
                "the repository is incomplete there; check the source, or publish again"
            }
            TrustError::RootChain { .. } => "run again: the walk goes on where it stopped",
            TrustError::ClockUntrusted { .. } => {
                "set the clock (NTP, `date`), then run again; nothing else is needed"
            }
            TrustError::Name(_) => "ask for a name of the form product/version",
            TrustError::TargetNotFound { .. } => {
                "check product, version and channel; `signer inspect` lists what is published"
            }
            TrustError::RoleNotInSnapshot { .. } => "publish the delegated role's metadata",
            TrustError::DelegationLimit { .. } => "shorten the chain of delegations",
            TrustError::ShippedRoot { .. } => {
                "install the root.json the repository's owner gave out"
            }
            TrustError::StoredRoot { .. } => {
                "the trusted state is damaged: run `update-agent reset --yes`; slots, floor and \
                 history stay"
            }
            TrustError::RootConflict { .. } => {
                "configure the root this node was set up with; to move it to another repository, \
                 run `update-agent reset --yes --root FILE`"
            }
        }
    }
}

/// Makes the error of metadata that this role's file cannot be trusted for.
pub(super) fn refused(file: &str) -> impl Fn(TufError) -> TrustError {
    move |source| TrustError::Refused { file: file.to_owned(), source }
}
