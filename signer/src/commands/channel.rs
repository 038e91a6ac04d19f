//! Channels for people: what one would offer, before it is signed; what they offer now.

use formats::channel::Channel;
use formats::tuf::{Role, UnixTime};
use serde::Serialize;

use super::status::ChannelStatus;
use super::{Report, time};
use crate::error::SignerError;
use crate::plan::{Proposal, channel_of, schedule_lines, time_of};
use crate::published;
use crate::repository::Registry;
use crate::state::State;

/// When a change reaches nodes; an hour is `policy.interval` of the agent.
pub const SEEN: &str = "nodes see it at their next poll, by default within an hour";

/// A channel as it would be signed, against what it says now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelPreview {
    /// What is offered and how, in lines.
    pub text: String,
    /// Whether an older release would be offered than now.
    pub older: bool,
}

impl ChannelPreview {
    /// Every channel that a proposal changes, by name.
    pub(super) fn all(
        before: &State,
        proposal: &Proposal,
        now: UnixTime,
    ) -> impl Iterator<Item = Self> {
        proposal.channels.iter().map(move |(target, channel)| {
            let was = before.channels.get(target).map(|was| &was.data);
            ChannelPreview::of(was, channel, now)
        })
    }

    fn of(before: Option<&Channel>, after: &Channel, now: UnixTime) -> Self {
        let mut text = format!("to be signed: {}", ChannelStatus::of(after).line());
        let was = before.map(ChannelStatus::of);
        let was = was.map_or("no such channel".to_owned(), |was| was.offer());
        text.push_str(&format!("\n  before   {was}"));
        for line in schedule_lines(before, after, now) {
            text.push_str(&format!("\n  {line}"));
        }
        let version = |channel: &Channel| channel.release.clone().map(|offer| offer.version);
        let older = match (before.and_then(version), version(after)) {
            (Some(was), Some(is)) => was.is_newer_than(&is),
            _ => false,
        };
        if older {
            text.push_str("\n  OLDER    nodes that run the newer release refuse this one");
        }
        ChannelPreview { text, older }
    }
}

/// One channel.
#[derive(Debug, Serialize)]
pub struct ChannelReport {
    #[serde(flatten)]
    status: ChannelStatus,
    /// SHA-256 of the release index that is offered.
    index: Option<String>,
    /// How many of the waves have begun.
    waves_begun: usize,
    /// Percent of all nodes that may install now, or as soon as a window opens; 0 while it is held.
    share: u8,
    /// Whether nodes may install at this time of day.
    window_open: bool,
    /// When a window is open next; absent when nodes wait for none.
    next_opening: Option<String>,
    /// What has expired, so that no node installs anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    expired: Option<String>,
    #[serde(skip)]
    lines: Vec<String>,
}

impl ChannelReport {
    fn of(state: &State, channel: &Channel, now: UnixTime) -> Self {
        let secs = u64::try_from(now.secs()).unwrap_or(0);
        let expired = expired(state, now);
        let offers = channel.release.is_some() && !channel.hold && expired.is_none();
        ChannelReport {
            status: ChannelStatus::of(channel),
            index: channel.release.as_ref().map(|offer| format!("sha256:{}", offer.sha256)),
            waves_begun: channel.waves.iter().filter(|wave| wave.start <= secs).count(),
            share: if offers { channel.share(secs) } else { 0 },
            window_open: channel.opens(secs).is_none_or(|at| at <= secs),
            next_opening: channel.opens(secs).map(|at| time(time_of(at))),
            expired,
            lines: schedule_lines(None, channel, now),
        }
    }

    fn line(&self) -> String {
        let when = if self.window_open { "now" } else { "when the next window opens" };
        let line = self.status.line();
        match &self.expired {
            Some(expired) => format!("{line}; EXPIRED: {expired}, no node installs anything"),
            None => format!("{line}; {} % of the nodes may install {when}", self.share),
        }
    }
}

impl Report for ChannelReport {
    fn text(&self) -> String {
        let mut text = self.line();
        if let Some(index) = &self.index {
            text.push_str(&format!("\n  release  {index}"));
        }
        for line in &self.lines {
            text.push_str(&format!("\n  {line}"));
        }
        text
    }
}

/// All channels, or those of a product.
#[derive(Debug, Serialize)]
pub struct ChannelsReport {
    channels: Vec<ChannelReport>,
}

impl Report for ChannelsReport {
    fn text(&self) -> String {
        let lines: Vec<String> = self.channels.iter().map(ChannelReport::line).collect();
        if lines.is_empty() { "there is no channel".to_owned() } else { lines.join("\n") }
    }
}

/// Lists channels, by product and name; signs nothing.
pub fn list(
    registry: &dyn Registry,
    trust_root: &[u8],
    product: Option<&str>,
    now: UnixTime,
) -> Result<ChannelsReport, SignerError> {
    let state = published::load(registry, Some(trust_root))?.state;
    let all = state.channels.values().map(|signed| &signed.data);
    let wanted = all.filter(|channel| product.is_none_or(|product| channel.product == product));
    let channels = wanted.map(|channel| ChannelReport::of(&state, channel, now)).collect();
    Ok(ChannelsReport { channels })
}

/// One channel with its schedule; signs nothing.
pub fn channel(
    registry: &dyn Registry,
    trust_root: &[u8],
    product: &str,
    channel: &str,
    now: UnixTime,
) -> Result<ChannelReport, SignerError> {
    let state = published::load(registry, Some(trust_root))?.state;
    Ok(ChannelReport::of(&state, channel_of(&state, product, channel)?, now))
}

/// The first of the roles that every node needs which has expired, and when.
fn expired(state: &State, now: UnixTime) -> Option<String> {
    let ends = [
        (Role::Timestamp, state.timestamp.data.header.expires),
        (Role::Snapshot, state.snapshot.data.header.expires),
        (Role::Targets, state.targets.data.header.expires),
        (Role::Root, state.root.header.expires),
    ];
    let (role, end) = ends.into_iter().find(|(_, end)| *end <= now)?;
    Some(format!("the {role} ended {}", time(end)))
}
