//! `status`: what expires when, which releases and channels there are.

use formats::channel::{Channel, Urgency, Window};
use formats::release::Summary;
use formats::tuf::{Header, Metadata, Role, UnixTime};
use serde::Serialize;

use super::room::Room;
use super::state_report::warning_lines;
use super::{Report, counted, has_example_key, time};
use crate::error::SignerError;
use crate::plan::{Finding, capacity, period_of, time_of};
use crate::published::{self, Published};
use crate::repository::Registry;
use crate::state::{HISTORY, State, delegators, is_history};

const DAY: i64 = 86_400;

/// The state of a repository.
#[derive(Debug, Serialize)]
pub struct StatusReport {
    repository: String,
    anchored: bool,
    roles: Vec<RoleStatus>,
    releases: Vec<ReleaseStatus>,
    channels: Vec<ChannelStatus>,
    /// How full it is; absent for a registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<Room>,
    warnings: Vec<Finding>,
    example_keys: bool,
}

/// One role.
#[derive(Debug, Serialize)]
pub(super) struct RoleStatus {
    pub(super) role: String,
    pub(super) version: u64,
    pub(super) expires: String,
    pub(super) expired: bool,
    /// Whole days left; negative when it has expired.
    pub(super) days_left: i64,
    #[serde(skip)]
    seconds_left: i64,
    pub(super) threshold: u32,
    pub(super) keyids: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ReleaseStatus {
    target: String,
    security_version: u64,
    components: Vec<String>,
}

/// One channel.
#[derive(Debug, Serialize)]
pub(super) struct ChannelStatus {
    pub(super) channel: String,
    pub(super) release: Option<String>,
    pub(super) urgency: String,
    pub(super) hold: bool,
    pub(super) waves: Vec<WaveStatus>,
    /// As `--window` takes them.
    pub(super) windows: Vec<String>,
}

/// One wave.
#[derive(Debug, Serialize)]
pub(super) struct WaveStatus {
    pub(super) percent: u8,
    pub(super) start: String,
}

impl Report for StatusReport {
    fn text(&self) -> String {
        let mut text = self.repository.clone();
        for line in role_lines(&self.roles) {
            text.push_str(&format!("\n  {line}"));
        }
        for release in &self.releases {
            text.push_str(&format!(
                "\n  release {} (security version {}): {}",
                release.target,
                release.security_version,
                release.components.join(", ")
            ));
        }
        for channel in &self.channels {
            text.push_str(&format!("\n  {}", channel.line()));
        }
        if let Some(room) = &self.room {
            text.push_str(&format!("\n  {}", room.line()));
        }
        text + &warning_lines(&self.warnings)
    }

    fn example_keys(&self) -> bool {
        self.example_keys
    }
}

impl RoleStatus {
    fn is_history(&self) -> bool {
        Role::delegated(&self.role).is_ok_and(|role| is_history(&role))
    }

    pub(super) fn line(&self) -> String {
        let left = if self.expired {
            "EXPIRED".to_owned()
        } else {
            format!("{} left", time_left(self.seconds_left))
        };
        format!(
            "{:9} version {:<4} expires {} ({left}), {} of {}",
            self.role,
            self.version,
            self.expires,
            self.threshold,
            counted(self.keyids.len() as u64, "key")
        )
    }
}

/// One line for each role; the roles of the history, which are renewed together, have one.
pub(super) fn role_lines(roles: &[RoleStatus]) -> Vec<String> {
    let (history, others): (Vec<_>, Vec<_>) = roles.iter().partition(|role| role.is_history());
    let mut lines: Vec<String> = others.iter().map(|role| role.line()).collect();
    if let Some(first) = history.iter().min_by_key(|role| role.seconds_left) {
        let roles = counted(history.len() as u64, "role");
        lines.push(format!("{HISTORY:9} {roles}, first of them {}", first.line()));
    }
    lines
}

/// Whole days; below two of them hours, below two of those minutes.
fn time_left(seconds: i64) -> String {
    match seconds {
        172_800.. => format!("{} days", seconds / DAY),
        7_200.. => format!("{} h", seconds / 3_600),
        60.. => format!("{} min", seconds / 60),
        _ => "less than 1 min".to_owned(),
    }
}

impl ChannelStatus {
    pub(super) fn of(channel: &Channel) -> Self {
        ChannelStatus {
            channel: format!("{}/{}", channel.product, channel.channel),
            release: channel.release.as_ref().map(|offer| offer.version.to_string()),
            urgency: match channel.urgency {
                Urgency::Normal => "normal".to_owned(),
                Urgency::Security => "security".to_owned(),
            },
            hold: channel.hold,
            waves: channel
                .waves
                .iter()
                .map(|wave| WaveStatus { percent: wave.percent, start: time(time_of(wave.start)) })
                .collect(),
            windows: channel.windows.iter().map(Window::to_string).collect(),
        }
    }

    pub(super) fn line(&self) -> String {
        format!("channel {} offers {}", self.channel, self.offer())
    }

    /// `1.1.0 (normal, 3 waves to 100 %, window 22:00+4h, HELD)`.
    pub(super) fn offer(&self) -> String {
        let mut how = self.urgency.clone();
        if let Some(last) = self.waves.last() {
            let waves = if self.waves.len() == 1 { "wave" } else { "waves" };
            how.push_str(&format!(", {} {waves} to {} %", self.waves.len(), last.percent));
        }
        for window in &self.windows {
            how.push_str(&format!(", window {window}"));
        }
        if self.hold {
            how.push_str(", HELD");
        }
        format!("{} ({how})", self.release.as_deref().unwrap_or("nothing"))
    }
}

/// Reads and verifies a repository's metadata, and fails with `expired` when a role ends within
/// that many days. A role that never lasts three times as long is due in the last third of its
/// period: a timestamp of one day must not cry every day.
pub fn status(
    registry: &dyn Registry,
    trust_root: Option<&[u8]>,
    expires_within: Option<i64>,
    now: UnixTime,
) -> Result<(StatusReport, Option<SignerError>), SignerError> {
    let Published { state, .. } = published::load(registry, trust_root)?;
    let roles = roles(&state, now);
    let room = Room::of(registry)?;
    let releases = state.releases().map_err(published::PublishedError::from)?;
    let report = StatusReport {
        repository: registry.reference().to_string(),
        anchored: trust_root.is_some(),
        releases: releases
            .iter()
            .map(|release| ReleaseStatus {
                target: release.target.clone(),
                security_version: release.summary.security_version,
                components: component_names(&release.summary),
            })
            .collect(),
        channels: channels(&state),
        warnings: room.iter().filter_map(Room::finding).chain(full_roles(&state)).collect(),
        room,
        example_keys: has_example_key(&state.root),
        roles,
    };
    let is_due = |days: i64, expires: UnixTime, period: Option<u64>| {
        let days = days.saturating_mul(DAY);
        let third = period.and_then(|period| i64::try_from(period / 3).ok());
        expires <= now.plus(third.map_or(days, |third| third.min(days)))
    };
    let mut soon: Vec<&str> = report
        .roles
        .iter()
        .zip(headers(&state))
        .filter(|(_, (_, header, period))| {
            expires_within.is_some_and(|days| is_due(days, header.expires, *period))
        })
        .map(|(role, _)| if role.is_history() { HISTORY } else { role.role.as_str() })
        .collect();
    soon.dedup();
    let late = (!soon.is_empty()).then(|| {
        let days = expires_within.unwrap_or_default();
        SignerError::Expires(format!(
            "{} expires within {}",
            soon.join(", "),
            counted(days.unsigned_abs(), "day")
        ))
    });
    Ok((report, late))
}

/// What is to be said of roles that are nearly as large as they may be.
fn full_roles(state: &State) -> impl Iterator<Item = Finding> {
    let roles = state.targets_roles();
    roles.filter_map(|(role, signed)| capacity::finding(role, signed.bytes.len() as u64))
}

/// Every role: the top level in the order of trust, then the delegated ones by name; with how long
/// its signatures last, if it says so.
fn headers(state: &State) -> Vec<(Role, &Header, Option<u64>)> {
    let State { root, targets, timestamp, snapshot, .. } = state;
    let mut all = vec![
        (Role::Root, root.header(), period_of(&root.unknown)),
        (Role::Targets, targets.data.header(), period_of(&targets.data.unknown)),
        (Role::Snapshot, snapshot.data.header(), period_of(&snapshot.data.unknown)),
        (Role::Timestamp, timestamp.data.header(), period_of(&timestamp.data.unknown)),
    ];
    for (role, signed) in &state.delegated {
        all.push((role.clone(), signed.data.header(), period_of(&signed.data.unknown)));
    }
    all
}

pub(super) fn roles(state: &State, now: UnixTime) -> Vec<RoleStatus> {
    let rows = headers(state).into_iter().map(|(role, header, _)| {
        let (version, expires) = (header.version, header.expires);
        let all = state.targets_roles().map(|(role, signed)| (role, &signed.data));
        let delegated = delegators(all, &role).into_iter().next().map(|(_, _, keys)| keys);
        let keys = state.root.role(&role).or(delegated);
        RoleStatus {
            role: role.name().to_owned(),
            version,
            expires: time(expires),
            expired: now >= expires,
            days_left: (expires.secs() - now.secs()).div_euclid(DAY),
            seconds_left: expires.secs() - now.secs(),
            threshold: keys.map_or(0, |keys| keys.threshold),
            keyids: keys
                .map(|keys| keys.keyids.iter().map(ToString::to_string).collect())
                .unwrap_or_default(),
        }
    });
    rows.collect()
}

pub(super) fn channels(state: &State) -> Vec<ChannelStatus> {
    state.channels.values().map(|channel| ChannelStatus::of(&channel.data)).collect()
}

fn component_names(summary: &Summary) -> Vec<String> {
    summary.components.iter().map(|component| component.name.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_is_shown_in_a_unit_that_fits() {
        for (seconds, told) in [
            (365 * DAY, "365 days"),
            (2 * DAY, "2 days"),
            (2 * DAY - 1, "47 h"),
            (DAY - 1, "23 h"),
            (7_199, "119 min"),
            (60, "1 min"),
            (59, "less than 1 min"),
        ] {
            assert_eq!(time_left(seconds), told, "{seconds}");
        }
    }
}
