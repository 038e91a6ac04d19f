//! Changes that move no image: channels, delegations, keys, renewals.

use formats::tuf::UnixTime;
use serde::Serialize;

use super::ceremony::{online_events, repository_name};
use super::channel::SEEN;
use super::session::{Base, Outcome, PlannedChange, Session, TRIES, is_moved, tag_taken};
use super::state_report::{PublishedState, warning_lines};
use super::status::ChannelStatus;
use super::{Answer, Delivery, Report, Signing};
use crate::error::SignerError;
use crate::journal::Event;
use crate::plan::{self, Change, Expiry, Finding};
use crate::published::{Published, Visible};
use crate::repository::Registry;
use crate::retention;
use crate::signing;
use crate::state::State;

/// What a change did.
#[derive(Debug, Serialize)]
pub struct ChangeReport {
    changed: bool,
    what: String,
    /// The state that is public now.
    #[serde(flatten)]
    pub published: PublishedState,
    /// The channel as it is now, when one was changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<ChannelStatus>,
    /// What its schedule does that might not be expected.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
}

impl ChangeReport {
    fn of(published: &Published, changed: bool, what: String, warnings: Vec<Finding>) -> Self {
        let published = PublishedState::of(published, warnings);
        ChangeReport { changed, what, published, channel: None, notes: Vec::new() }
    }
}

impl Report for ChangeReport {
    fn text(&self) -> String {
        let verb = if self.changed { "" } else { " (unchanged)" };
        let mut text = format!("{}{verb}\n{}", self.what, self.published.versions());
        if self.channel.is_some() && self.changed {
            text.push_str(&format!("\n{SEEN}"));
        }
        text + &warning_lines(&self.published.warnings)
    }

    fn example_keys(&self) -> bool {
        self.published.example_keys
    }
}

/// How a change is made.
#[derive(Debug, Clone, Default)]
pub struct ChangeOptions<'a> {
    /// Periods that are to change.
    pub expiry: Expiry,
    /// The last good state, when an online key was stolen: its tag, `ts-N`.
    pub base: Option<&'a str>,
}

/// Makes a change, or stages it.
pub fn change(
    registry: &dyn Registry,
    signing: &mut Signing,
    change: &Change,
    options: &ChangeOptions<'_>,
    delivery: Delivery<'_>,
    now: UnixTime,
) -> Result<Answer<ChangeReport>, SignerError> {
    let base = Base::load(registry, signing, options.base, now)?;
    let channel_in = |state: &State| {
        let (product, channel) = change.channel()?;
        plan::channel_of(state, product, channel).ok().cloned()
    };
    let was = channel_in(&base.published.state);
    let session = Session { registry, signing, delivery, now };
    let planned = PlannedChange { change: change.clone(), release: None, expiry: &options.expiry };
    let (published, changed, warnings) = match session.apply(base, planned)? {
        Outcome::Staged(report) => return Ok(Answer::Staged(report)),
        Outcome::Described(report) => return Ok(Answer::Described(report)),
        Outcome::Unchanged(published) => (published, false, Vec::new()),
        Outcome::Published(published, warnings) => (published, true, warnings),
    };
    let is = channel_in(&published.state);
    let channel = is.as_ref().map(ChannelStatus::of);
    let what = channel.as_ref().map_or_else(|| change.describe(), ChannelStatus::line);
    let notes = is.map_or_else(Vec::new, |is| plan::notes(was.as_ref(), &is, now));
    let report = ChangeReport::of(&published, changed, what, warnings);
    Ok(Answer::Done(ChangeReport { channel, notes, ..report }))
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
    let mut warnings: Vec<Finding> = visible.beside.iter().map(tag_taken).collect();
    warnings.extend(signing.retire(registry, &published.state, now));
    let what = "snapshot and timestamp renewed".to_owned();
    Ok(ChangeReport::of(&published, true, what, warnings))
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
    let state = signing::refresh(&before.state, &signing.keys, expiry, now)?;
    plan::check_online(&state, &signing.policy, now)?;
    signing.record(&online_events(&state, "refresh", "refresh", now))?;
    let keep = (signing.policy.retention, now);
    let visible = retention::publish(registry, keep, Some(&before.manifest), &state, None)?;
    Ok((Published { manifest: visible.manifest.clone(), state }, visible))
}
