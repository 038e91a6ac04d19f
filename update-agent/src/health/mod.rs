//! Whether the system that booted on trial works: checks, repeated until it has proven itself.
//!
//! ```text
//!  [health] ──► run: a round of all checks at once ──► update_core::probation ──► HealthReport
//!                     ▲                                        │ Continue
//!                     └──────────── between (waits) ◄──────────┘
//! ```
//!
//! A check is an HTTP request (2xx), a TCP connection, a command (exit status 0), a systemd unit
//! (active), free space, or the repository: a system that cannot reach it never gets the next
//! update. Each has its own timeout, and none outlives the deadline of the whole. [`once()`] asks them
//! outside of a trial, and [`BeforeApply`] says what that means for an update. Without checks a trial proves nothing, so an empty list is refused unless `accept_no_checks` says otherwise.

mod before;
pub(crate) mod command;
pub(crate) mod memory;
mod once;
mod period;
mod probe;
pub(crate) mod program;
mod round;
pub mod watch;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use formats::reason::Reason;
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize, Serializer};
use update_core::probation::Rules;

pub use self::before::BeforeApply;
pub(crate) use self::before::judge as judge_before_apply;
pub use self::once::{CheckResult, CheckState, once};
pub use self::period::{deserialize_period, format_period, parse_period, serialize_period};
pub(crate) use self::probe::explain;
pub use self::round::{Failure, HealthReport, RoundSoFar, Surroundings, run};

use crate::http::Url;

/// 64: they run at the same time, one thread each.
const CHECKS_LIMIT: usize = 64;

/// `[health]` of the configuration.
///
/// ```
/// let health: update_agent::health::HealthConfig = toml::from_str("
///     deadline = '5m'
///     [[check]]
///     name = 'web'
///     http = 'http://127.0.0.1:8080/healthz'
///     timeout = '10s'
/// ").unwrap();
/// health.usable().unwrap();
/// assert_eq!(health.passes, 3);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HealthConfig {
    /// From the start of the checks until the trial has failed.
    #[serde(default = "five_minutes", deserialize_with = "deserialize_period")]
    #[serde(serialize_with = "serialize_period")]
    pub deadline: Duration,
    /// Between two rounds.
    #[serde(default = "five_seconds", deserialize_with = "deserialize_period")]
    #[serde(serialize_with = "serialize_period")]
    pub interval: Duration,
    /// Good rounds in a row that prove the trial.
    #[serde(default = "three")]
    pub passes: u32,
    /// The hardware watchdog over a trial.
    #[serde(default)]
    pub watchdog: Option<PathBuf>,
    /// How long it waits for its food.
    #[serde(default = "one_minute", deserialize_with = "deserialize_period")]
    #[serde(serialize_with = "serialize_period")]
    pub watchdog_timeout: Duration,
    /// What checks that do not pass on the running system mean for an update.
    #[serde(default)]
    pub before_apply: BeforeApply,
    /// Confirm trials without any check.
    #[serde(default)]
    pub accept_no_checks: bool,
    /// The checks.
    #[serde(default, rename = "check")]
    pub checks: Vec<Check>,
}

fn five_minutes() -> Duration {
    Duration::from_secs(300)
}

fn one_minute() -> Duration {
    Duration::from_secs(60)
}

fn five_seconds() -> Duration {
    Duration::from_secs(5)
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

fn three() -> u32 {
    3
}

impl Default for HealthConfig {
    /// No checks, and none accepted: [`HealthConfig::usable`] refuses it.
    fn default() -> Self {
        HealthConfig {
            deadline: five_minutes(),
            interval: five_seconds(),
            passes: three(),
            watchdog: None,
            watchdog_timeout: one_minute(),
            before_apply: BeforeApply::default(),
            accept_no_checks: false,
            checks: Vec::new(),
        }
    }
}

impl HealthConfig {
    /// Refuses what could never prove anything, or never pass. Worth asking before an update.
    pub fn usable(&self) -> Result<(), HealthError> {
        if self.checks.is_empty() && !self.accept_no_checks {
            return Err(HealthError::NoChecks);
        }
        if self.checks.len() > CHECKS_LIMIT {
            return Err(HealthError::TooMany);
        }
        let mut names = BTreeSet::new();
        if let Some(twice) = self.checks.iter().find(|check| !names.insert(&check.name)) {
            return Err(HealthError::Duplicate(twice.name.clone()));
        }
        if !self.rules().can_pass() {
            return Err(HealthError::Impossible {
                passes: self.passes,
                interval: self.interval,
                deadline: self.deadline,
            });
        }
        Ok(())
    }

    fn rules(&self) -> Rules {
        Rules { passes: self.passes, deadline: self.deadline, interval: self.interval }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawCheck")]
pub struct Check {
    /// How reports call it.
    pub name: String,
    /// What it does.
    pub probe: Probe,
    /// How long it may take.
    pub timeout: Duration,
}

/// What a check does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// `GET`; passes with a 2xx. Redirects are not followed.
    Http {
        /// What to ask for.
        url: Url,
        /// PEM file of the only CAs to trust; the system's when absent.
        ca: Option<PathBuf>,
    },
    /// Connects.
    Tcp {
        /// Name or address, IPv6 without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// Runs a program without a shell; passes with exit status 0.
    Command(Vec<String>),
    /// Asks systemd; passes when the unit is active.
    Unit(String),
    /// Asks the configured sources what is new, as an update does; one answer will do.
    Repository,
    /// Passes when a file system has so much room for others than root.
    FreeSpace {
        /// A path on it.
        path: PathBuf,
        /// MiB that must be free.
        mib: u64,
    },
}

impl Probe {
    /// Its key in the configuration.
    pub fn kind(&self) -> &'static str {
        match self {
            Probe::Http { .. } => "http",
            Probe::Tcp { .. } => "tcp",
            Probe::Command(_) => "command",
            Probe::Unit(_) => "unit",
            Probe::Repository => "repository",
            Probe::FreeSpace { .. } => "free_space",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCheck {
    name: String,
    http: Option<String>,
    ca: Option<PathBuf>,
    tcp: Option<String>,
    command: Option<Vec<String>>,
    unit: Option<String>,
    repository: Option<bool>,
    free_space: Option<PathBuf>,
    mib: Option<u64>,
    #[serde(default = "ten_seconds", deserialize_with = "deserialize_period")]
    timeout: Duration,
}

impl TryFrom<RawCheck> for Check {
    type Error = String;

    fn try_from(raw: RawCheck) -> Result<Self, String> {
        let RawCheck { name, http, ca, tcp, command, unit, repository, free_space, mib, timeout } =
            raw;
        let wrong = |why: &str| format!("health check {name:?}: {why}");
        if name.is_empty() || name.chars().any(char::is_control) {
            return Err(wrong("the name is empty or not printable"));
        }
        if timeout.is_zero() {
            return Err(wrong("a timeout of 0 never passes"));
        }
        if ca.is_some() && http.is_none() {
            return Err(wrong("`ca` belongs to an http check"));
        }
        if mib.is_some() && free_space.is_none() {
            return Err(wrong("`mib` belongs to a free_space check"));
        }
        let other = match (repository, free_space) {
            (None, None) => None,
            (Some(true), None) => Some(Probe::Repository),
            (None, Some(path)) if mib.is_some_and(|mib| mib > 0) => {
                Some(Probe::FreeSpace { path, mib: mib.unwrap_or(1) })
            }
            (None, Some(_)) => return Err(wrong("`free_space` needs `mib`, above 0")),
            _ => return Err(wrong("repository is true, and stands alone")),
        };
        let probe = match (http, tcp, command, unit) {
            (None, None, None, None) if other.is_some() => other.unwrap_or(Probe::Repository),
            _ if other.is_some() => return Err(wrong(ONE_KIND)),
            (Some(url), None, None, None) => {
                let url = Url::parse(&url).map_err(|error| wrong(&error.to_string()))?;
                Probe::Http { url, ca }
            }
            (None, Some(place), None, None) => {
                let (host, port) = place
                    .rsplit_once(':')
                    .and_then(|(host, port)| Some((host, port.parse().ok()?)))
                    .filter(|(host, port)| !host.is_empty() && *port != 0)
                    .ok_or_else(|| wrong("tcp is HOST:PORT"))?;
                let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                Probe::Tcp { host, port }
            }
            (None, None, Some(argv), None) => {
                if argv.first().is_none_or(String::is_empty) {
                    return Err(wrong("the command names no program"));
                }
                if argv.iter().any(|argument| argument.contains('\0')) {
                    return Err(wrong("an argument holds a NUL byte"));
                }
                Probe::Command(argv)
            }
            (None, None, None, Some(unit)) => {
                let plain = |b: u8| b.is_ascii_alphanumeric() || b":_.\\-@".contains(&b);
                if unit.is_empty() || unit.starts_with('-') || !unit.bytes().all(plain) {
                    return Err(wrong("that is no name of a systemd unit"));
                }
                Probe::Unit(unit)
            }
            _ => return Err(wrong(ONE_KIND)),
        };
        Ok(Check { name, probe, timeout })
    }
}

/// As it is written in the configuration, without the query of a URL, which may be a secret.
impl Serialize for Check {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", &self.name)?;
        match &self.probe {
            Probe::Http { url, ca } => {
                map.serialize_entry("http", &url.to_string())?;
                if let Some(ca) = ca {
                    map.serialize_entry("ca", ca)?;
                }
            }
            Probe::Tcp { host, port } if host.contains(':') => {
                map.serialize_entry("tcp", &format!("[{host}]:{port}"))?;
            }
            Probe::Tcp { host, port } => map.serialize_entry("tcp", &format!("{host}:{port}"))?,
            Probe::Command(argv) => map.serialize_entry("command", argv)?,
            Probe::Unit(unit) => map.serialize_entry("unit", unit)?,
            Probe::Repository => map.serialize_entry("repository", &true)?,
            Probe::FreeSpace { path, mib } => {
                map.serialize_entry("free_space", path)?;
                map.serialize_entry("mib", mib)?;
            }
        }
        map.serialize_entry("timeout", &format_period(self.timeout))?;
        map.end()
    }
}

const ONE_KIND: &str = "give exactly one of http, tcp, command, unit, repository, free_space";

/// Why the checks were not run to an end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HealthError {
    /// An empty list.
    #[error(
        "no health check is configured, so a broken release would be confirmed: add \
         [[health.check]], or set health.accept_no_checks = true to take that risk"
    )]
    NoChecks,
    /// More than 64 checks.
    #[error("more than {CHECKS_LIMIT} health checks: join some into one command")]
    TooMany,
    /// Two checks with one name.
    #[error("two health checks are called {0:?}")]
    Duplicate(String),
    /// The rules can never be met.
    #[error(
        "{passes} passes, {interval:?} apart, never fit before a deadline of {deadline:?}: raise \
         health.deadline or lower health.passes or health.interval"
    )]
    Impossible {
        /// Passes needed.
        passes: u32,
        /// Between two rounds.
        interval: Duration,
        /// For all.
        deadline: Duration,
    },
    /// The caller stopped it.
    #[error("the health checks were interrupted; the trial is undecided and goes on")]
    Interrupted,
}

impl HealthError {
    /// The stable reason code.
    pub fn reason(&self) -> Reason {
        match self {
            HealthError::Interrupted => Reason::Unhealthy,
            _ => Reason::Config,
        }
    }
}

#[cfg(test)]
mod tests;
