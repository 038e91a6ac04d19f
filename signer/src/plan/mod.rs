//! What is to be signed next. Pure: the last state, a change and the time in, metadata out.
//!
//! ```text
//!  State + Change ─► decide ─► nothing to do
//!                          └─► Proposal: root, targets, delegated targets, without signatures
//!                                 │
//!                 people sign ────┤  in one run, or one after the other on their machines
//!                                 ▼
//!                              assemble ─► Offline: every threshold met
//!                                             │
//!                       online keys sign ─────┴─► finish ─► next State ─► upload, `tuf:latest` last
//! ```
//!
//! Version discipline (TUF §6.1): a role's version rises by one whenever its bytes change, and a
//! state is only ever built on one that was verified.

mod assemble;
pub mod clock;
mod draft;
mod expiry;
mod lint;
mod names;
mod proposal;
mod release;
mod roles;
mod rollout;
mod sign;

pub use assemble::{Missing, Offline, assemble, check_versions, missing};
pub use expiry::{Expiry, ExpiryError, PERIOD_MEMBER, default_period, parse_duration, period_of};
pub use lint::{Component, Finding, Level, check_fit, check_online, lint, lint_change};
pub use proposal::{Payload, Proposal, Requirement, Signatures, requirements};
pub use release::{Proposal as ReleaseProposal, check_offer, check_release, security_version};
pub use roles::{Delegation, RoleKeySet, rotation_of};
pub use rollout::{
    Rollout, RolloutError, notes, parse_waves, parse_window, schedule_lines, time_of, wave_line,
    windows_line,
};
pub use sign::{RepositoryId, Restart, check_at_hand, finish, refresh, sign_payloads};

use formats::channel::{ChannelError, Urgency};
use formats::reason::Reason;
use formats::release::{Summary, is_word};
use formats::tuf::{Key, KeyId, Role, UnixTime};
use formats::version::Version;

use crate::key::KeyError;
use crate::state::{State, StateError};

use self::draft::{Draft, Place};

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
        "{target} is published with other content; a version never changes its meaning: choose a new one"
    )]
    SameVersion {
        /// The target.
        target: String,
    },
    /// Another spelling of a published version.
    #[error(
        "version {offered} is the same version as the published {published}; spell it alike or choose a new one"
    )]
    OtherSpelling {
        /// As it was given.
        offered: Version,
        /// As it is published.
        published: Version,
    },
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
        "component {component} fits no hardware; name its hardware ids: {component}=FILE,hw=ID or --hw ID"
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
        "{role} needs {threshold} signatures of the keys that {by} names, but only {found} of them are at hand"
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
    #[error("there is no role {0}; `signer status` lists them")]
    NoRole(Role),
    /// A role that is there already.
    #[error("role {0} is there already; change its keys with `signer rotate`")]
    RoleExists(Role),
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
    #[error("{threshold} of {keys} keys is no threshold for {role}")]
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
        "key {keyid} would sign for {online} on a machine that is always on, and for {offline}; who takes that machine takes both: use another key"
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
    #[error("{role} would list one key twice ({keyid}); one key is one vote")]
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
    /// A key failed.
    #[error(transparent)]
    Key(#[from] KeyError),
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
            PlanError::NoRelease { .. } | PlanError::NoChannel { .. } => Reason::TargetNotFound,
            PlanError::NotPromoted { .. } => Reason::Config,
            PlanError::Channel(_) => Reason::MetaFormat,
            PlanError::Expiry(_) | PlanError::RootExpired { .. } => Reason::Expired,
            PlanError::KeysMissing { .. } => Reason::SigThreshold,
            PlanError::Key(error) => error.reason(),
            PlanError::Result(error) => error.reason(),
            PlanError::NoRole(_) => Reason::TargetNotFound,
            PlanError::RoleExists(_)
            | PlanError::RoleName(_)
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

/// A release that was built and uploaded, but is not visible yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRelease {
    /// The product.
    pub product: String,
    /// What the signed target will say.
    pub summary: Summary,
    /// The bytes of the release index.
    pub index: Vec<u8>,
}

/// What a channel is to say from now on. Absent fields stay as they are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChannelEdit {
    /// The product.
    pub product: String,
    /// The channel.
    pub channel: String,
    /// The release it offers.
    pub release: Option<Version>,
    /// How urgent it is.
    pub urgency: Option<Urgency>,
    /// Whether nobody installs for now.
    pub hold: Option<bool>,
    /// Its waves and windows. Waves that stay start again when the release is another one.
    pub rollout: Rollout,
}

/// What is to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A new release, and if named the channel that offers it.
    Publish {
        /// The release.
        release: NewRelease,
        /// The channel.
        channel: Option<String>,
        /// Its waves and windows.
        rollout: Rollout,
        /// Who signs for them; `None`: the top level, and for a channel whoever signs for it now.
        role: Option<Role>,
    },
    /// What a channel offers and how.
    SetChannel {
        /// What it says.
        edit: ChannelEdit,
        /// Who signs for it from now on; `None`: whoever does now, at first the top level.
        role: Option<Role>,
    },
    /// Another role may sign for some names.
    Delegate(Delegation),
    /// A delegated role signs for these names instead; its keys stay.
    Repath {
        /// The role.
        role: Role,
        /// Path patterns, all of them.
        paths: Vec<String>,
        /// Whether nobody after it is asked for these names.
        terminating: bool,
    },
    /// A role signs for nothing any more; what it listed is gone.
    Undelegate(Role),
    /// Keys and thresholds of roles, whole: what is not named stays as it is.
    Roles(Vec<RoleKeySet>),
    /// Keys, thresholds and delegations as they are declared. Delegated roles that are not named
    /// stay; those that are there get the keys and paths that are declared.
    Declared {
        /// Top-level roles.
        roles: Vec<RoleKeySet>,
        /// Delegated roles.
        delegations: Vec<Delegation>,
    },
    /// Takes keys away from every role that has them; the other one, if given, takes their place.
    Revoke {
        /// Keys that nobody is to believe any more.
        keys: Vec<KeyId>,
        /// Who signs instead.
        replacement: Option<Key>,
    },
    /// New versions and expiries of these roles, without other changes.
    Renew(Vec<Role>),
}

/// What follows from a change, or `None` when the repository says so already.
///
/// The payloads have their final bytes, expiry included: whoever signs, whenever, signs the same.
pub fn decide(
    state: &State,
    change: &Change,
    expiry: &Expiry,
    now: UnixTime,
) -> Result<Option<Proposal>, PlanError> {
    let mut draft = Draft::of(state);
    match change {
        Change::Publish { release, channel, rollout, role } => {
            let proposal = ReleaseProposal::of(&release.product, &release.summary);
            check_release(state, &proposal.offered_by(channel.as_deref()))?;
            draft.publish(release, role.as_ref())?;
            if let Some(channel) = channel {
                let edit = ChannelEdit {
                    product: release.product.clone(),
                    channel: channel.clone(),
                    release: Some(release.summary.version.clone()),
                    rollout: rollout.clone(),
                    ..ChannelEdit::default()
                };
                let role = role.as_ref().unwrap_or(&Role::Targets);
                draft.set_channel(&edit, Place::Near(role), now)?;
            }
        }
        Change::SetChannel { edit, role } => {
            let place = role.as_ref().map_or(Place::Near(&Role::Targets), Place::In);
            draft.set_channel(edit, place, now)?;
        }
        Change::Delegate(delegation) => draft.delegate(delegation)?,
        Change::Repath { role, paths, terminating } => draft.repath(role, paths, *terminating)?,
        Change::Undelegate(role) => draft.undelegate(role)?,
        Change::Roles(sets) => draft.set_roles(sets)?,
        Change::Declared { roles, delegations } => {
            draft.set_roles(roles)?;
            for delegation in delegations {
                draft.declare(delegation)?;
            }
        }
        Change::Revoke { keys, replacement } => draft.revoke(keys, replacement.as_ref())?,
        Change::Renew(roles) => draft.renew(roles)?,
    }
    let header = &state.root.header;
    if now >= header.expires && !draft.changes_root() {
        return Err(PlanError::RootExpired { version: header.version, expires: header.expires });
    }
    draft.propose(expiry, now)
}

pub(crate) fn check_word(what: &'static str, text: &str) -> Result<(), PlanError> {
    if is_word(text, 64) {
        Ok(())
    } else {
        Err(PlanError::Name { what, found: text.chars().take(80).collect() })
    }
}
