//! What maintainers signed, as far as a page shows it: how far a channel's roll-out is, and when which role has to
//! be signed again. Pure. Nobody decides anything by it.

use std::collections::BTreeMap;

use formats::channel::Channel;
use formats::tuf::{Role, RoleKeys};
use signer::state::{State, delegators};

/// 14 days: people who hold keys have holidays.
const PEOPLE: i64 = 14 * 86_400;
/// 1 day: a timer renews it after the half of its seven days.
const TIMER: i64 = 86_400;
/// Digits of a key id, as `signer` shows them.
const DIGITS: usize = 8;
/// Keys of a role that are named.
const KEYS: usize = 8;

/// What the newest state of a repository says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Signed {
    channels: BTreeMap<(String, String), Channel>,
    /// The four top-level roles, then the delegated ones.
    pub(crate) roles: Vec<RoleExpiry>,
}

/// When a role's metadata ends, and who can make it last longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoleExpiry {
    pub(crate) role: String,
    /// Unix seconds.
    pub(crate) expires: i64,
    /// Signed by a timer, not by people.
    pub(crate) online: bool,
    pub(crate) threshold: u32,
    /// The beginnings of the ids of all keys that count, or of the first of them.
    pub(crate) keys: Vec<String>,
    /// How many there are.
    pub(crate) of: usize,
}

impl Signed {
    /// Of a verified state.
    pub(crate) fn of(state: &State) -> Self {
        let channel = |channel: &Channel| {
            ((channel.product.clone(), channel.channel.clone()), channel.clone())
        };
        let top = [
            (Role::Root, state.root.header.expires.secs()),
            (Role::Targets, state.targets.data.header.expires.secs()),
            (Role::Snapshot, state.snapshot.data.header.expires.secs()),
            (Role::Timestamp, state.timestamp.data.header.expires.secs()),
        ];
        let top = top.into_iter().filter_map(|(role, expires)| {
            Some(RoleExpiry::of(&role, expires, state.root.role(&role)?))
        });
        let all = || state.targets_roles().map(|(role, signed)| (role, &signed.data));
        let delegated = state.delegated.iter().filter_map(|(role, signed)| {
            let by = delegators(all(), role);
            let (_, _, keys) = by.first()?;
            Some(RoleExpiry::of(role, signed.data.header.expires.secs(), keys))
        });
        Signed {
            roles: top.chain(delegated).collect(),
            channels: state.channels.values().map(|signed| channel(&signed.data)).collect(),
        }
    }

    /// A channel, if it offers that release.
    pub(crate) fn offering(&self, product: &str, channel: &str, version: &str) -> Option<&Channel> {
        let channel = self.channels.get(&(product.to_owned(), channel.to_owned()))?;
        let offered = &channel.release.as_ref()?.version;
        (offered.to_string() == version).then_some(channel)
    }
}

impl RoleExpiry {
    fn of(role: &Role, expires: i64, keys: &RoleKeys) -> Self {
        let short = |id: &formats::tuf::KeyId| id.to_string().chars().take(DIGITS).collect();
        RoleExpiry {
            role: role.name().to_owned(),
            expires,
            online: matches!(role, Role::Snapshot | Role::Timestamp),
            threshold: keys.threshold,
            keys: keys.keyids.iter().take(KEYS).map(short).collect(),
            of: keys.keyids.len(),
        }
    }

    /// Whether it is time to sign again. `alarm`: whether that of the timestamp is raised, which lasts a day.
    pub(crate) fn is_due(&self, now: i64, alarm: bool) -> bool {
        let (before, alarm) = match self.role.as_str() {
            "timestamp" => (0, alarm),
            _ if self.online => (TIMER, false),
            _ => (PEOPLE, false),
        };
        alarm || self.expires <= now.saturating_add(before)
    }
}

#[cfg(test)]
impl Signed {
    /// One channel, and a root of two keys of which both sign, until then.
    pub(crate) fn example(channel: Channel, expires: i64) -> Self {
        let keys = vec!["3f9a0c1b".to_owned(), "77d01e6a".to_owned()];
        let role = "root".to_owned();
        let root = RoleExpiry { role, expires, online: false, threshold: 2, of: keys.len(), keys };
        let key = (channel.product.clone(), channel.channel.clone());
        Signed { channels: BTreeMap::from([(key, channel)]), roles: vec![root] }
    }
}

#[cfg(test)]
mod tests {
    use racklet_testkit::forge::{DAY, Forge, NOW};

    use super::*;

    #[test]
    fn who_signs_what_until_when() {
        let mut repository = Forge::new();
        repository.publish(&[Role::Targets]);
        let state = State::verify(&repository.served, None).expect("a state");
        let signed = Signed::of(&state);
        let names: Vec<&str> = signed.roles.iter().map(|it| it.role.as_str()).collect();
        assert!(names.starts_with(&["root", "targets", "snapshot", "timestamp"]), "{names:?}");
        let online: Vec<bool> = signed.roles.iter().take(4).map(|it| it.online).collect();
        assert_eq!(online, [false, false, true, true]);
        assert!(signed.roles.iter().all(|it| it.of >= 1 && it.keys[0].len() == DIGITS));
        assert_eq!(signed.offering("demo", "stable", "1.4.2"), None);
    }

    #[test]
    fn people_are_told_earlier_than_timers() {
        let now = NOW.secs();
        let due_at = |role: &str, online, days, alarm| {
            let example = Signed::example(Channel::new("demo", "stable"), now + days * DAY);
            let role = RoleExpiry { role: role.to_owned(), online, ..example.roles[0].clone() };
            role.is_due(now, alarm)
        };
        let due = |role, online, days| due_at(role, online, days, false);
        assert!(due("root", false, 13) && !due("root", false, 15));
        assert!(due("snapshot", true, 1) && !due("snapshot", true, 2));
        assert!(due("timestamp", true, 0) && !due("timestamp", true, 1));
        assert!(due_at("timestamp", true, 1, true) && !due_at("root", false, 15, true));
    }
}
