//! Changes that move no image: channels, delegations, keys, renewals.

use formats::release::channel_target_name;
use formats::tuf::{Key, KeyId, Role, UnixTime};
use formats::version::Version;
use serde::Serialize;

use super::ceremony::{
    Base, Outcome, TRIES, Wanted, apply, is_moved, online_events, repository_name, tag_taken,
    timestamp_expires,
};
use super::channel::{SEEN, find};
use super::status::ChannelStatus;
use super::{Answer, Delivery, Report, Signing, has_example_key};
use crate::error::SignerError;
use crate::journal::Event;
use crate::key::public::short;
use crate::plan::{
    self, Change, ChannelEdit, Delegation, Expiry, Finding, PlanError, RoleKeySet, rotation_of,
};
use crate::published::{self, Published, Visible};
use crate::repository::Registry;
use crate::state::State;

/// The state that is public now.
#[derive(Debug, Serialize)]
pub struct ChangeReport {
    changed: bool,
    what: String,
    /// Digest of the manifest of the TUF state that is public now.
    pub state: String,
    root_version: u64,
    targets_version: u64,
    snapshot_version: u64,
    timestamp_version: u64,
    timestamp_expires: String,
    /// The channel as it is now, when one was changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<ChannelStatus>,
    /// What its schedule does that might not be expected.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    warnings: Vec<Finding>,
    example_keys: bool,
}

impl Report for ChangeReport {
    fn text(&self) -> String {
        let what = &self.what;
        let verb = if self.changed { "" } else { " (unchanged)" };
        let mut text = format!(
            "{what}{verb}\nroot {}, targets {}, snapshot {}, timestamp {}, expires {}",
            self.root_version,
            self.targets_version,
            self.snapshot_version,
            self.timestamp_version,
            self.timestamp_expires
        );
        if self.channel.is_some() && self.changed {
            text.push_str(&format!("\n{SEEN}"));
        }
        for warning in &self.warnings {
            text.push_str(&format!("\nwarning: {warning}"));
        }
        text
    }

    fn example_keys(&self) -> bool {
        self.example_keys
    }
}

/// A change for which nothing has to be built.
#[derive(Debug, Clone)]
pub enum Edit {
    /// What a channel offers and how, and who is to sign for it.
    Channel(ChannelEdit, Option<Role>),
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
        /// Who is to sign for it.
        role: Option<Role>,
    },
    /// Another role.
    Delegate(Delegation),
    /// Other paths for a role, and whether nobody is asked after it.
    Repath(Role, Vec<String>, bool),
    /// One role less.
    Undelegate(Role),
    /// Keys and thresholds of roles.
    Rotate(Vec<Rotation>),
    /// Keys, thresholds and delegations, whole, as `signer.toml` has them.
    Declared(Vec<RoleKeySet>, Vec<Delegation>),
    /// Keys that nobody is to believe any more, and who signs instead.
    Revoke(Vec<KeyId>, Option<Key>),
    /// New expiries.
    Renew(Vec<Role>),
}

/// What changes in one role.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// Which role.
    pub role: Role,
    /// Keys that come.
    pub add: Vec<Key>,
    /// Keys that go.
    pub remove: Vec<KeyId>,
    /// The threshold from now on; absent: as before.
    pub threshold: Option<u32>,
}

/// How a change is made.
#[derive(Debug, Clone, Default)]
pub struct EditOptions<'a> {
    /// Periods that are to change.
    pub expiry: Expiry,
    /// The last good state, when an online key was stolen: its tag, `ts-N`.
    pub base: Option<&'a str>,
}

/// Makes a change, or stages it.
pub fn edit(
    registry: &dyn Registry,
    signing: &mut Signing,
    edit: &Edit,
    options: &EditOptions<'_>,
    delivery: Delivery<'_>,
    now: UnixTime,
) -> Result<Answer<ChangeReport>, SignerError> {
    let base = Base::load(registry, signing, options.base, now)?;
    let (change, what) = change_of(&base.published, edit)?;
    let target = match &change {
        Change::SetChannel { edit, .. } => Some(channel_target_name(&edit.product, &edit.channel)),
        _ => None,
    };
    let channel_of = |published: &Published| {
        let found = target.as_ref().and_then(|target| published.state.channels.get(target));
        found.map(|found| found.data.clone())
    };
    let was = channel_of(&base.published);
    let wanted = Wanted { change, what: what.clone(), release: None, expiry: &options.expiry };
    let (published, changed, warnings) =
        match apply(registry, signing, base, wanted, delivery, now)? {
            Outcome::Staged(report) => return Ok(Answer::Staged(report)),
            Outcome::Unchanged(published) => (published, false, Vec::new()),
            Outcome::Published(published, warnings) => (published, true, warnings),
        };
    let is = channel_of(&published);
    let channel = is.as_ref().map(ChannelStatus::of);
    let what = channel.as_ref().map_or(what, ChannelStatus::line);
    let notes = is.map_or_else(Vec::new, |is| plan::notes(was.as_ref(), &is, now));
    let report = report(&published, changed, what, warnings);
    Ok(Answer::Done(ChangeReport { channel, notes, ..report }))
}

fn change_of(published: &Published, edit: &Edit) -> Result<(Change, String), SignerError> {
    let state = &published.state;
    Ok(match edit {
        Edit::Channel(edit, role) => {
            let what = format!("channel {}/{}", edit.product, edit.channel);
            (Change::SetChannel { edit: edit.clone(), role: role.clone() }, what)
        }
        Edit::Hold { product, channel, hold } => {
            find(state, product, channel)?;
            let edit = ChannelEdit {
                product: product.clone(),
                channel: channel.clone(),
                hold: Some(*hold),
                ..ChannelEdit::default()
            };
            let what = format!("channel {product}/{channel}");
            (Change::SetChannel { edit, role: None }, what)
        }
        Edit::Promote { from, to, role } => {
            let offered = promoted(state, &to.product, from)?;
            let edit = ChannelEdit { release: Some(offered), ..to.clone() };
            let what = format!("promote {from} to {}/{}", to.product, to.channel);
            (Change::SetChannel { edit, role: role.clone() }, what)
        }
        Edit::Delegate(delegation) => {
            let what = format!("delegate to {}", delegation.keys.role.name());
            (Change::Delegate(delegation.clone()), what)
        }
        Edit::Repath(role, paths, terminating) => {
            let (role, paths, terminating) = (role.clone(), paths.clone(), *terminating);
            let what = format!("other paths for {}", role.name());
            (Change::Repath { role, paths, terminating }, what)
        }
        Edit::Undelegate(role) => {
            (Change::Undelegate(role.clone()), format!("delegate no more to {}", role.name()))
        }
        Edit::Rotate(rotations) => {
            let sets = rotations.iter().map(|rotation| {
                let Rotation { role, add, remove, threshold } = rotation;
                rotation_of(state, role, add, remove, *threshold)
            });
            let names: Vec<&str> = rotations.iter().map(|rotation| rotation.role.name()).collect();
            let what = format!("rotate {}", names.join(", "));
            (Change::Roles(sets.collect::<Result<_, _>>()?), what)
        }
        Edit::Declared(sets, delegations) => {
            let change = Change::Declared { roles: sets.clone(), delegations: delegations.clone() };
            (change, "roles as signer.toml has them".to_owned())
        }
        Edit::Revoke(keys, replacement) => {
            let names: Vec<String> = keys.iter().map(|id| id.to_string()[..8].to_owned()).collect();
            let instead = replacement.as_ref().map(|key| format!(" for {}", short(key)));
            let what = format!("revoke {}{}", names.join(", "), instead.unwrap_or_default());
            (Change::Revoke { keys: keys.clone(), replacement: replacement.clone() }, what)
        }
        Edit::Renew(roles) => {
            let names: Vec<&str> = roles.iter().map(Role::name).collect();
            (Change::Renew(roles.clone()), format!("renew {}", names.join(", ")))
        }
    })
}

/// The release that a channel offers, if others may offer it, too.
fn promoted(state: &State, product: &str, from: &str) -> Result<Version, SignerError> {
    let channel = find(state, product, from)?;
    let refused =
        |why| PlanError::NotPromoted { product: product.to_owned(), channel: from.to_owned(), why };
    if channel.hold {
        return Err(refused("is held").into());
    }
    let offer = channel.release.as_ref().ok_or_else(|| refused("offers no release"))?;
    Ok(offer.version.clone())
}

/// Renews snapshot and timestamp. Needs no other key than theirs, and is safe to be run at any
/// time, by any number of machines, from a timer.
pub fn refresh(
    registry: &dyn Registry,
    signing: &mut Signing,
    expiry: &Expiry,
    now: UnixTime,
) -> Result<ChangeReport, SignerError> {
    let mut tries = TRIES;
    loop {
        match refresh_once(registry, signing, expiry, signing.now(now)) {
            // Somebody else was faster; what they made public is renewed.
            Err(error) if is_moved(&error) && tries > 0 => tries -= 1,
            done => return done,
        }
    }
}

fn refresh_once(
    registry: &dyn Registry,
    signing: &mut Signing,
    expiry: &Expiry,
    now: UnixTime,
) -> Result<ChangeReport, SignerError> {
    let before = Base::latest(registry, signing, now)?.published;
    let expiry = signing.periods(expiry)?;
    let (published, visible) = renew(registry, signing, &before, &expiry, now)?;
    let (name, manifest) = (repository_name(registry), published.manifest.to_string());
    let event = Event::published(&name, &manifest, &published.state, false, now);
    signing.record(&[event.kept_as(visible.alias.as_str())])?;
    let warnings = visible.beside.iter().map(tag_taken).collect();
    Ok(report(&published, true, "snapshot and timestamp renewed".to_owned(), warnings))
}

/// Renews snapshot and timestamp of a state that the caller has judged; nothing else is signed, and
/// nothing is published when `latest` moved since. The log has the signatures before that; the caller
/// writes down that the state is public.
pub fn renew(
    registry: &dyn Registry,
    signing: &mut Signing,
    before: &Published,
    expiry: &Expiry,
    now: UnixTime,
) -> Result<(Published, Visible), SignerError> {
    let state = crate::signing::refresh(&before.state, &signing.keys, expiry, now)?;
    plan::check_online(&state, &signing.policy, now)?;
    signing.record(&online_events(&state, "refresh", "refresh", now))?;
    let visible = published::publish(registry, Some(&before.manifest), &state, None)?;
    Ok((Published { manifest: visible.manifest.clone(), state }, visible))
}

fn report(
    published: &Published,
    changed: bool,
    what: String,
    warnings: Vec<Finding>,
) -> ChangeReport {
    let state = &published.state;
    ChangeReport {
        changed,
        what,
        state: published.manifest.to_string(),
        root_version: state.root.header.version,
        targets_version: state.targets.data.header.version,
        snapshot_version: state.snapshot.data.header.version,
        timestamp_version: state.timestamp.data.header.version,
        timestamp_expires: timestamp_expires(state),
        channel: None,
        notes: Vec::new(),
        warnings,
        example_keys: has_example_key(&state.root),
    }
}
