//! Why a change is refused.

use formats::channel::ChannelError;
use formats::reason::Reason;
use formats::tuf::{KeyId, Role, UnixTime};
use formats::version::Version;

use super::{ExpiryError, Finding, counted};
use crate::state::StateError;

/// Why a change is not signed.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A product, channel or hardware id that is no word.
    #[error(
        "{what} {found:?} is not a name: 1 to 64 of a-z 0-9 . _ -, starting and ending with a letter or digit"
    )]
    Name {
        /// What it should name.
        what: &'static str,
        /// What was given.
        found: String,
    },
    /// The product name of the repository that holds the metadata.
    #[error("{0:?} cannot name a product or version: the repository uses it itself")]
    Reserved(String),
    /// The version was published with other content.
    #[error(
        "{target} is published with other content; a published version cannot change: choose a new one"
    )]
    SameVersion {
        /// The target.
        target: String,
    },
    /// Another spelling of a published version.
    #[error(
        "version {offered} is the same version as the published {published}; use the same spelling or choose a new version"
    )]
    OtherSpelling {
        /// As it was given.
        offered: Version,
        /// As it is published.
        published: Version,
    },
    /// A release that its maintainers took back.
    #[error("{target} was withdrawn ({because}), and stays so: publish a newer version")]
    Withdrawn {
        /// The target.
        target: String,
        /// Why.
        because: String,
    },
    /// A reason for a withdrawal that cannot be shown.
    #[error("{0}")]
    Because(String),
    /// Older than what its channel offered.
    #[error(
        "version {offered} of {product} is older than {newest}, which channel {channel} offered; nodes that run that one would refuse it"
    )]
    OlderVersion {
        /// The product.
        product: String,
        /// The channel.
        channel: String,
        /// As it was given.
        offered: Version,
        /// The newest one offered.
        newest: Version,
    },
    /// The security version would go down.
    #[error(
        "security version {offered} of {product} is below {published} of release {version}, which channel {channel} offered; nodes that confirmed that one would refuse it"
    )]
    SecurityVersion {
        /// The product.
        product: String,
        /// The channel.
        channel: String,
        /// As it was given.
        offered: u64,
        /// That of the offer.
        published: u64,
        /// The release that has it.
        version: Version,
    },
    /// A component that no hardware takes.
    #[error(
        "component {component} names no hardware; give its hardware ids: {component}=FILE,hw=ID or --hw ID"
    )]
    NoHardware {
        /// The component.
        component: String,
    },
    /// Two images of one component for one hardware: a node could not choose.
    #[error("component {component} is given twice for hardware {hardware}")]
    TwiceForHardware {
        /// The component.
        component: String,
        /// The hardware id.
        hardware: String,
    },
    /// More of something than the formats hold.
    #[error("{what} {found} is more than {limit}")]
    Limit {
        /// What is counted.
        what: &'static str,
        /// What was given.
        found: u64,
        /// The most there may be.
        limit: u64,
    },
    /// A release that is not published.
    #[error("{target} is not published")]
    NoRelease {
        /// The target.
        target: String,
    },
    /// A release that a channel offers cannot go.
    #[error(
        "{target} is offered by channel {channel}: let the channel offer another release first"
    )]
    Offered {
        /// The target.
        target: String,
        /// The channel.
        channel: String,
    },
    /// A channel that is not there.
    #[error("{product} has no channel {channel}; it has {there}")]
    NoChannel {
        /// The product.
        product: String,
        /// The channel.
        channel: String,
        /// Those there are.
        there: String,
    },
    /// A channel whose release nobody should get.
    #[error("channel {channel} of {product} {why}; there is nothing to promote")]
    NotPromoted {
        /// The product.
        product: String,
        /// The channel.
        channel: String,
        /// What stands against it.
        why: &'static str,
    },
    /// A channel document would be malformed.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// An expiry outside of what is reasonable.
    #[error(transparent)]
    Expiry(#[from] ExpiryError),
    /// The root has expired: nodes refuse everything below it.
    #[error(
        "root version {version} expired at {expires}; nodes refuse all that is signed below it: rotate the root first"
    )]
    RootExpired {
        /// Its version.
        version: u64,
        /// When it ended.
        expires: UnixTime,
    },
    /// Not enough keys at hand.
    #[error(
        "{role} needs signatures by {threshold} of the keys in {by}, but {found} of them signed or are at hand"
    )]
    KeysMissing {
        /// The role.
        role: Role,
        /// Who names the keys.
        by: String,
        /// How many must sign.
        threshold: u32,
        /// How many are at hand, or signed.
        found: usize,
    },
    /// A role that is not there.
    #[error("role {0} does not exist; `signer status` lists the roles")]
    NoRole(Role),
    /// A role that is there already.
    #[error("role {0} already exists; change its keys with `signer rotate`")]
    RoleExists(Role),
    /// A role that lists older releases is made and filled by this program alone.
    #[error(
        "role {0} lists older releases, and only `signer release archive` changes it: name another role, \
         or its keys with `signer rotate --role history`"
    )]
    History(Role),
    /// A name that no delegated role can have.
    #[error(
        "{0:?} cannot name a role: 1 to 64 of a-z 0-9 . _ -, and not root, targets, snapshot or timestamp"
    )]
    RoleName(String),
    /// A role that must not sign for a name.
    #[error("{role} may not sign for {target}: its paths do not cover it")]
    NotCovered {
        /// The role.
        role: Role,
        /// The target.
        target: String,
    },
    /// A delegation without paths, or with odd ones.
    #[error("a delegation to {role} needs 1 to 64 paths like demo/*, without a leading / or ..")]
    Paths {
        /// The role.
        role: Role,
    },
    /// A threshold that cannot be met, or asks for nothing.
    #[error("the {role} threshold cannot be {threshold} with {}", keys_in_words(.keys))]
    Threshold {
        /// The role.
        role: Role,
        /// The threshold.
        threshold: u32,
        /// How many keys there would be.
        keys: usize,
    },
    /// A key that is to be removed is not there.
    #[error("key {keyid} signs for none of the roles named")]
    NoKey {
        /// The key.
        keyid: KeyId,
    },
    /// One key for the machines and for the people.
    #[error(
        "key {keyid} would sign both for {online}, on a machine that is always on, and for {offline}; a break-in there would compromise both: use another key"
    )]
    OnlineOffline {
        /// The key.
        keyid: KeyId,
        /// snapshot or timestamp.
        online: Role,
        /// The other role.
        offline: Role,
    },
    /// The same key material twice in one role.
    #[error("{role} would list key {keyid} twice; a key counts once")]
    KeyTwice {
        /// The role.
        role: Role,
        /// The key.
        keyid: KeyId,
    },
    /// What people sign is not what follows from what is published.
    #[error(
        "{role} version {found} does not follow version {published}, which is published: {why}"
    )]
    Discipline {
        /// The role.
        role: Role,
        /// The version to be signed.
        found: u64,
        /// The version that is published.
        published: u64,
        /// What to do.
        why: &'static str,
    },
    /// What nodes would refuse.
    #[error("{0}")]
    Lint(Finding),
    /// The result does not verify; nothing of it was published.
    #[error("verify what was signed")]
    Result(#[from] StateError),
}

impl PlanError {
    /// The stable code of this error.
    pub fn reason(&self) -> Reason {
        match self {
            PlanError::Name { .. }
            | PlanError::Reserved(_)
            | PlanError::NoHardware { .. }
            | PlanError::TwiceForHardware { .. }
            | PlanError::Limit { .. } => Reason::Config,
            PlanError::SameVersion { .. }
            | PlanError::OtherSpelling { .. }
            | PlanError::OlderVersion { .. } => Reason::VersionRollback,
            PlanError::SecurityVersion { .. } => Reason::SecverFloor,
            PlanError::Withdrawn { .. } => Reason::Withdrawn,
            PlanError::Because(_) => Reason::Usage,
            PlanError::NoRelease { .. } | PlanError::NoChannel { .. } => Reason::TargetNotFound,
            PlanError::NotPromoted { .. } | PlanError::Offered { .. } => Reason::Config,
            PlanError::Channel(_) => Reason::MetaFormat,
            PlanError::Expiry(_) | PlanError::RootExpired { .. } => Reason::Expired,
            PlanError::KeysMissing { .. } => Reason::SigThreshold,
            PlanError::Result(error) => error.reason(),
            PlanError::NoRole(_) => Reason::TargetNotFound,
            PlanError::RoleExists(_)
            | PlanError::RoleName(_)
            | PlanError::History(_)
            | PlanError::NotCovered { .. }
            | PlanError::Paths { .. } => Reason::Config,
            PlanError::Threshold { .. } => Reason::SigThreshold,
            PlanError::NoKey { .. } => Reason::KeyInvalid,
            PlanError::OnlineOffline { .. } | PlanError::KeyTwice { .. } => Reason::KeyDuplicate,
            PlanError::Discipline { .. } => Reason::VersionRollback,
            PlanError::Lint(finding) => finding.reason,
        }
    }
}

fn keys_in_words(keys: &usize) -> String {
    counted(*keys as u64, "key")
}
