//! What may change in a repository, and what follows from it.

use formats::channel::{Channel, Urgency};
use formats::release::{Summary, channel_target_name, target_name};
use formats::tuf::{Key, KeyId, Role, UnixTime};
use formats::version::Version;

use super::draft::{ChannelSigner, Draft};
use super::names::key_name;
use super::{
    Delegation, Expiry, PlanError, Proposal, ReleaseProposal, RoleKeySet, Rollout, Rotation,
    check_release, counted,
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
    /// Nobody installs from a channel that is there, or nodes go on.
    Hold {
        /// The product.
        product: String,
        /// The channel.
        channel: String,
        /// Whether it is held from now on.
        hold: bool,
    },
    /// A channel offers what another one of its product offers.
    Promote {
        /// The other one.
        from: String,
        /// The channel; its release comes from there.
        to: ChannelEdit,
        /// Who signs for it; `None`: as in [`Change::SetChannel`].
        role: Option<Role>,
    },
    /// What a channel offers and how.
    SetChannel {
        /// What it says.
        edit: ChannelEdit,
        /// Who signs for it from now on; `None`: whoever does now, at first the top level.
        role: Option<Role>,
    },
    /// No channel offers a release any more, and its signed target says that nobody is to install it.
    Withdraw {
        /// The product.
        product: String,
        /// The version.
        version: Version,
        /// Why, in one line.
        because: String,
    },
    /// Releases that nobody can install any more; no channel offers them.
    Unlist(Vec<String>),
    /// Releases that nodes rarely ask for move out of what every node reads. The first one makes the
    /// roles that list them.
    Archive {
        /// So many of the newest releases of each product stay, at least one; absent: as before, at
        /// first [`DEFAULT_KEEP`](super::DEFAULT_KEEP).
        keep: Option<u32>,
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
    /// Keys that come and go, and thresholds; what is not named stays as it is.
    Rotate(Vec<Rotation>),
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

impl Change {
    /// One line for people, which goes with the change to whoever signs it.
    pub fn describe(&self) -> String {
        let names = |roles: Vec<&str>| roles.join(", ");
        match self {
            Change::Publish { release, .. } => {
                format!("publish {}", target_name(&release.product, &release.summary.version))
            }
            Change::SetChannel { edit, .. } => format!("channel {}/{}", edit.product, edit.channel),
            Change::Hold { product, channel, .. } => format!("channel {product}/{channel}"),
            Change::Promote { from, to, .. } => {
                format!("promote {from} to {}/{}", to.product, to.channel)
            }
            Change::Withdraw { product, version, .. } => {
                format!("withdraw {}", target_name(product, version))
            }
            Change::Unlist(targets) => match targets.as_slice() {
                [one] => format!("unlist {one}"),
                all => format!("unlist {}", counted(all.len() as u64, "release")),
            },
            Change::Archive { .. } => "archive old releases".to_owned(),
            Change::Delegate(delegation) => format!("delegate to {}", delegation.keys.role.name()),
            Change::Repath { role, .. } => format!("other paths for {}", role.name()),
            Change::Undelegate(role) => format!("delegate no more to {}", role.name()),
            Change::Rotate(all) => {
                format!("rotate {}", names(all.iter().map(|it| it.role.name()).collect()))
            }
            Change::Declared { .. } => "roles as signer.toml has them".to_owned(),
            Change::Revoke { keys, replacement } => {
                let keys: Vec<String> =
                    keys.iter().map(|id| id.to_string().chars().take(8).collect()).collect();
                let instead = replacement.as_ref().map(|key| format!(" for {}", key_name(key)));
                format!("revoke {}{}", keys.join(", "), instead.unwrap_or_default())
            }
            Change::Renew(roles) => {
                format!("renew {}", names(roles.iter().map(Role::name).collect()))
            }
        }
    }

    /// The channel whose document changes, as product and name.
    pub fn channel(&self) -> Option<(&str, &str)> {
        match self {
            Change::Publish { release, channel, .. } => {
                Some((&release.product, channel.as_deref()?))
            }
            Change::SetChannel { edit, .. } | Change::Promote { to: edit, .. } => {
                Some((&edit.product, &edit.channel))
            }
            Change::Hold { product, channel, .. } => Some((product, channel)),
            _ => None,
        }
    }
}

/// A channel that has to be there.
pub(crate) fn channel_of<'a>(
    state: &'a State,
    product: &str,
    channel: &str,
) -> Result<&'a Channel, PlanError> {
    let found = state.channels.get(&channel_target_name(product, channel));
    found.map(|signed| &signed.data).ok_or_else(|| {
        let there: Vec<&str> = state.channel_names(product).collect();
        let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
        PlanError::NoChannel { product: product.to_owned(), channel: channel.to_owned(), there }
    })
}

/// The release that a channel offers, if others may offer it, too.
fn promoted(state: &State, product: &str, from: &str) -> Result<Version, PlanError> {
    let channel = channel_of(state, product, from)?;
    let refused =
        |why| PlanError::NotPromoted { product: product.to_owned(), channel: from.to_owned(), why };
    if channel.hold {
        return Err(refused("is held"));
    }
    let offer = channel.release.as_ref().ok_or_else(|| refused("offers no release"))?;
    Ok(offer.version.clone())
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
                draft.set_channel(&edit, ChannelSigner::Near(role), now)?;
            }
            draft.move_aged(&target_name(&release.product, &release.summary.version), now)?;
        }
        Change::SetChannel { edit, role } => {
            draft.set_channel(edit, ChannelSigner::of(role.as_ref()), now)?;
        }
        Change::Hold { product, channel, hold } => {
            channel_of(state, product, channel)?;
            let (product, channel, hold) = (product.clone(), channel.clone(), Some(*hold));
            let edit = ChannelEdit { product, channel, hold, ..ChannelEdit::default() };
            draft.set_channel(&edit, ChannelSigner::of(None), now)?;
        }
        Change::Promote { from, to, role } => {
            let release = Some(promoted(state, &to.product, from)?);
            let edit = ChannelEdit { release, ..to.clone() };
            draft.set_channel(&edit, ChannelSigner::of(role.as_ref()), now)?;
        }
        Change::Withdraw { product, version, because } => {
            draft.withdraw(product, version, because, now)?;
        }
        Change::Unlist(targets) => {
            targets.iter().try_for_each(|target| draft.unlist(target))?;
        }
        Change::Archive { keep } => draft.archive(*keep)?,
        Change::Delegate(delegation) => draft.delegate(delegation)?,
        Change::Repath { role, paths, terminating } => draft.repath(role, paths, *terminating)?,
        Change::Undelegate(role) => draft.undelegate(role)?,
        Change::Rotate(rotations) => {
            rotations.iter().try_for_each(|rotation| draft.check_own_keys(&rotation.role))?;
            let sets = rotations.iter().map(|rotation| rotation.applied(state));
            draft.set_roles(&sets.collect::<Result<Vec<_>, _>>()?)?;
        }
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
