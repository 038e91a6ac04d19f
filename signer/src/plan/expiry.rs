//! How long signatures last.
//!
//! Each role's metadata carries its own period, so that every later signature of it lasts as long
//! without anybody repeating a flag, on whichever machine it is made. The member is signed like
//! all others; nodes read from it when the metadata was signed.

use std::collections::BTreeMap;

use formats::json::{Object, Value};
pub use formats::tuf::PERIOD_MEMBER;
use formats::tuf::{OFFLINE, OfflineRule, Role, UnixTime};

const DAY: u64 = 86_400;
/// 10 years: longer than hardware is supported, and a typing error beyond it.
const LONGEST: u64 = 3650 * DAY;
/// 30 days: a thief of the network could keep a node from newer releases for so long.
const LONGEST_TIMESTAMP: u64 = 30 * DAY;
/// 1 year: who carries updates to a site comes that often.
const LONGEST_OFFLINE: u64 = 365 * DAY;
/// 90 days: as long as targets last by default.
const DEFAULT_OFFLINE: u64 = 90 * DAY;
/// What stands in the place of a role in `offline=DURATION`.
const OFFLINE_WORD: &str = "offline";

/// A period outside of what is reasonable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpiryError {
    /// Not a duration.
    #[error(
        "{0:?} is not a duration: write 45s, 30m, 12h, 7d, 2w, 1y, or several of them like 1h30m"
    )]
    Duration(String),
    /// Not `ROLE=DURATION`.
    #[error(
        "{0:?} is not ROLE=DURATION with ROLE one of root, targets, snapshot, timestamp, offline"
    )]
    Role(String),
    /// Offline bundles that would outlast what nodes should be asked to rely on.
    #[error("bundles may be valid offline for at most {limit_days} days, not {seconds} seconds")]
    Offline {
        /// What was asked for.
        seconds: u64,
        /// What is accepted.
        limit_days: u64,
    },
    /// Nothing, or more than nodes should be asked to rely on.
    #[error("{role} metadata must last from 1 second to {limit_days} days, not {seconds} seconds")]
    Period {
        /// The role.
        role: Role,
        /// What was asked for.
        seconds: u64,
        /// What is accepted.
        limit_days: u64,
    },
    /// Longer than `signer.toml` lets the role's metadata last.
    #[error("signer.toml lets {role} metadata last {limit} seconds, not {seconds}")]
    Policy {
        /// The role.
        role: Role,
        /// What was asked for.
        seconds: u64,
        /// What it says.
        limit: u64,
    },
}

/// Periods of the top-level roles, where they are not those of the metadata before.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expiry {
    periods: BTreeMap<Role, u64>,
    offline: OfflineChange,
}

/// What is to change in the rule for offline statements that targets carry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct OfflineChange {
    longest: Option<u64>,
    /// `targets` takes the right back from the delegated role that had it.
    role: Option<String>,
}

impl Expiry {
    /// Reads `ROLE=DURATION` arguments.
    pub fn parse<S: AsRef<str>>(arguments: &[S]) -> Result<Self, ExpiryError> {
        let mut expiry = Expiry::default();
        for argument in arguments.iter().map(AsRef::as_ref) {
            let refused = || ExpiryError::Role(argument.chars().take(80).collect());
            let (role, duration) = argument.split_once('=').ok_or_else(refused)?;
            if role == OFFLINE_WORD {
                let none = duration == "none";
                let longest = if none { 0 } else { parse_duration(duration)? };
                expiry = expiry.with_offline(longest, None)?;
                continue;
            }
            let role = Role::TOP_LEVEL.into_iter().find(|known| known.name() == role);
            let role = role.ok_or_else(refused)?;
            expiry = expiry.with(role, parse_duration(duration)?)?;
        }
        Ok(expiry)
    }

    /// The same with one more role.
    pub fn with(mut self, role: Role, seconds: u64) -> Result<Self, ExpiryError> {
        let limit = limit_of(&role);
        if seconds == 0 || seconds > limit {
            return Err(ExpiryError::Period { role, seconds, limit_days: limit / DAY });
        }
        self.periods.insert(role, seconds);
        Ok(self)
    }

    /// The period that was given for a top-level role, in seconds.
    pub fn period(&self, role: &Role) -> Option<u64> {
        self.periods.get(role).copied()
    }

    /// The same with the longest that bundles may be valid offline, in seconds (0: not at all), and
    /// the role that signs for it, if it changes: a delegated one, or `targets`.
    pub fn with_offline(mut self, longest: u64, role: Option<String>) -> Result<Self, ExpiryError> {
        if longest > LONGEST_OFFLINE {
            let limit_days = LONGEST_OFFLINE / DAY;
            return Err(ExpiryError::Offline { seconds: longest, limit_days });
        }
        self.offline = OfflineChange { longest: Some(longest), role };
        Ok(self)
    }

    /// Fills in the periods of `other` where nothing is said.
    pub fn or(mut self, other: &Expiry) -> Self {
        for (role, seconds) in &other.periods {
            self.periods.entry(role.clone()).or_insert(*seconds);
        }
        self.offline.longest = self.offline.longest.or(other.offline.longest);
        self.offline.role = self.offline.role.or_else(|| other.offline.role.clone());
        self
    }

    /// Periods as given, filled in from those of the policy, which none may exceed.
    pub fn within(self, policy: &Expiry) -> Result<Self, ExpiryError> {
        for (role, seconds) in &self.periods {
            if let Some(limit) = policy.periods.get(role).copied().filter(|limit| seconds > limit) {
                let (role, seconds) = (role.clone(), *seconds);
                return Err(ExpiryError::Policy { role, seconds, limit });
            }
        }
        Ok(self.or(policy))
    }

    /// When metadata of that role ends if it is signed `now`, on top of metadata with these
    /// further members; notes the period among them.
    pub fn apply(&self, role: &Role, now: UnixTime, members: &mut Object) -> UnixTime {
        let before = period_of(members);
        if *role == Role::Targets {
            self.offline.apply(members);
        }
        let given = self.periods.get(role).copied().or(before).unwrap_or(default_period(role));
        let seconds = i64::try_from(given.min(limit_of(role))).unwrap_or_default();
        members.insert(PERIOD_MEMBER.to_owned(), Value::Int(seconds));
        now.plus(seconds)
    }
}

impl OfflineChange {
    /// Writes the rule into targets. Where nothing was ever said, 90 days: an offline statement needs
    /// a signature of its own, so the rule alone opens nothing.
    fn apply(&self, members: &mut Object) {
        // What cannot be read is kept, until somebody says something else.
        let Ok(before) = OfflineRule::of(members) else {
            if self.longest.is_none() {
                return;
            }
            members.remove(OFFLINE);
            return self.apply(members);
        };
        let (longest, role) = before.map_or((None, None), |rule| (Some(rule.longest), rule.role));
        let longest = self.longest.or(longest).unwrap_or(DEFAULT_OFFLINE);
        let role = self.role.clone().or(role).filter(|role| role != Role::Targets.name());
        OfflineRule { longest, role }.write(members);
    }
}

/// The period that metadata with these further members carries.
pub fn period_of(members: &Object) -> Option<u64> {
    members.get(PERIOD_MEMBER).and_then(Value::as_int).and_then(|seconds| seconds.try_into().ok())
}

/// The longest that metadata of a role may last.
pub(super) fn limit_of(role: &Role) -> u64 {
    if *role == Role::Timestamp { LONGEST_TIMESTAMP } else { LONGEST }
}

/// How long metadata of a role lasts where nobody says otherwise, in seconds.
pub fn default_period(role: &Role) -> u64 {
    match role {
        Role::Root => 365 * DAY,
        Role::Targets | Role::Delegated(_) => 90 * DAY,
        Role::Snapshot => 7 * DAY,
        Role::Timestamp => DAY,
    }
}

/// Seconds of `45s`, `30m`, `12h`, `7d`, `2w` or `1y` (365 days), or of several units, each at most
/// once, largest first: `1h30m`.
pub fn parse_duration(text: &str) -> Result<u64, ExpiryError> {
    let refused = || ExpiryError::Duration(text.chars().take(40).collect());
    let mut units =
        [('y', 365 * DAY), ('w', 7 * DAY), ('d', DAY), ('h', 3600), ('m', 60), ('s', 1)]
            .into_iter();
    let (mut rest, mut total) = (text, 0u64);
    loop {
        let after = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        let (digits, _) = rest.split_at(rest.len() - after.len());
        let mut letters = after.chars();
        let unit = letters.next().ok_or_else(refused)?;
        let (_, seconds) = units.find(|(name, _)| *name == unit).ok_or_else(refused)?;
        let count: u64 = digits.parse().map_err(|_| refused())?;
        let part = count.checked_mul(seconds).ok_or_else(refused)?;
        total = total.checked_add(part).ok_or_else(refused)?;
        rest = letters.as_str();
        if rest.is_empty() {
            return Ok(total);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, seconds) in [
            ("45s", 45),
            ("30m", 1800),
            ("12h", 43_200),
            ("7d", 604_800),
            ("1y", 31_536_000),
            ("1h30m", 5400),
            ("1y1w1d1h1m1s", 32_230_861),
        ] {
            assert_eq!(parse_duration(text), Ok(seconds), "{text}");
        }
        for text in [
            "",
            "d",
            "7",
            "-7d",
            "7 d",
            "1.5d",
            "7é",
            "99999999999999999999d",
            "+7d",
            "30m1h",
            "1h1h",
            "1h30",
            "1hm",
            "18446744073709551615s1s",
            "٥s",
        ] {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn case_190_unreasonable_periods_are_refused() {
        for text in ["timestamp=31d", "root=11y", "snapshot=0s", "mirror=1d", "root", "root="] {
            assert!(Expiry::parse(&[text]).is_err(), "{text}");
        }
        assert!(Expiry::parse(&["timestamp=30d", "root=10y"]).is_ok());
    }

    #[test]
    fn no_period_is_longer_than_the_policy_has_it() {
        let policy = Expiry::parse(&["timestamp=2d", "snapshot=7d"]).unwrap();
        let given = |text: &str| Expiry::parse(&[text]).unwrap().within(&policy);
        assert_eq!(given("timestamp=1d").unwrap().periods[&Role::Snapshot], 7 * DAY);
        assert!(given("root=2y").is_ok());
        assert!(matches!(given("timestamp=3d"), Err(ExpiryError::Policy { .. })));
    }

    #[test]
    fn the_offline_rule_lasts_until_it_is_changed() {
        let now = UnixTime::from_secs(1_000_000);
        let mut members = Object::new();
        let rule = |members: &Object| OfflineRule::of(members).unwrap().unwrap();
        let mut sign = |expiry: &Expiry, role: Role| {
            expiry.apply(&role, now, &mut members);
            rule(&members)
        };
        let silent = Expiry::default();
        assert_eq!(sign(&silent, Role::Targets).longest, 90 * DAY, "at first");
        let thirty = Expiry::parse(&["offline=30d"]).unwrap();
        assert_eq!(sign(&thirty, Role::Targets).longest, 30 * DAY);
        assert_eq!(sign(&silent, Role::Targets).longest, 30 * DAY, "kept");
        let by_role = Expiry::default().with_offline(DAY, Some("bundles".to_owned())).unwrap();
        sign(&by_role, Role::Targets);
        let both = OfflineRule { longest: 30 * DAY, role: Some("bundles".to_owned()) };
        assert_eq!(sign(&thirty.or(&by_role), Role::Targets), both, "the role is kept");
        let back = Expiry::default().with_offline(DAY, Some("targets".to_owned())).unwrap();
        assert_eq!(sign(&back, Role::Targets), OfflineRule { longest: DAY, role: None }, "back");
        let none = Expiry::parse(&["offline=none"]).unwrap();
        assert_eq!(sign(&none, Role::Targets).longest, 0);
        assert_eq!(sign(&silent, Role::Targets).longest, 0, "forbidden stays forbidden");
        let mut other = Object::new();
        silent.apply(&Role::Snapshot, now, &mut other);
        assert_eq!(OfflineRule::of(&other), Ok(None), "targets only");
        assert!(Expiry::parse(&["offline=2y"]).is_err());
    }

    #[test]
    fn a_period_lasts_until_it_is_changed() {
        let now = UnixTime::from_secs(1_000_000);
        let mut members = Object::new();
        let given = Expiry::parse(&["snapshot=2d"]).unwrap();
        assert_eq!(given.apply(&Role::Snapshot, now, &mut members), now.plus(2 * 86_400));
        let silent = Expiry::default();
        assert_eq!(silent.apply(&Role::Snapshot, now, &mut members), now.plus(2 * 86_400));
        assert_eq!(silent.apply(&Role::Timestamp, now, &mut Object::new()), now.plus(86_400));
    }
}
