//! What may change in a repository, and what follows from it.

use formats::channel::Urgency;
use formats::release::Summary;
use formats::tuf::{Key, KeyId, Role, UnixTime};
use formats::version::Version;

use super::draft::{Draft, Place};
use super::{
    Delegation, Expiry, PlanError, Proposal, ReleaseProposal, RoleKeySet, Rollout, check_release,
};
use crate::state::State;

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
