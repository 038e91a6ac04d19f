//! What an agent meets that is not durable: repositories, health checks, the way to restart.
//!
//! [`RealWorld`] is what programs use. The power-cut sweeps of the tests put a simulated machine
//! under [`Agent::open_on`](crate::agent::Agent::open_on), and next to it an environment without sockets.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use update_core::hooks::Said;
use update_core::restart::{Available, Means, Purpose};

use crate::config::Config;
use crate::error::AgentError;
use crate::health::{self, CheckResult, Failure};
use crate::hooks::{self, Hook, HookFacts};
use crate::http::Limits;
use crate::restart;
use crate::restart_lock::{self, LockRequest, NotGranted, RestartLock};
use crate::source::{self, Source, SourceConfig};
use crate::stage::Pace;

/// The agent's surroundings.
pub trait Environment: Send + Sync {
    /// The sources to use: one that was named, or the configured ones.
    fn sources(
        &self,
        config: &Config,
        named: Option<&str>,
    ) -> Result<Vec<Box<dyn Source>>, AgentError>;

    /// Runs the health checks to their end: passed, or why not. So much of their deadline is over
    /// `already`.
    fn check_health(
        &self,
        config: &Config,
        already: Duration,
    ) -> Result<Result<(), String>, AgentError>;

    /// Asks each health check once, outside of a trial. An environment without any asks none.
    fn ask_checks(&self, _config: &Config) -> Vec<CheckResult> {
        Vec::new()
    }

    /// Restarts the machine for this purpose, by these means. `Ok`: it was asked for, which is not yet done.
    fn restart(&self, config: &Config, purpose: Purpose, means: Means) -> Result<(), AgentError>;

    /// Which means there are beside the configured command; none by default.
    fn restart_means(&self, _: &Config) -> Available {
        Available::default()
    }

    /// Runs a hook of the operator's to its end. A simulated node has none.
    fn hook(&self, _config: &Config, _hook: Hook, _facts: &HookFacts) -> Said {
        Said::Yes
    }

    /// Asks the server of a restart lock. A simulated node has none, and may restart.
    fn restart_lock(
        &self,
        _config: &Config,
        _lock: &RestartLock,
        _request: LockRequest,
    ) -> Result<(), NotGranted> {
        Ok(())
    }

    /// Bytes that may still be written in a directory, where the system says so.
    fn room(&self, _dir: &Path) -> Option<u64> {
        None
    }

    /// How fast and how carefully slots are written.
    fn pace(&self) -> Pace;
}

/// Networks, commands and terminals of this system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealWorld;

impl Environment for RealWorld {
    fn sources(
        &self,
        config: &Config,
        named: Option<&str>,
    ) -> Result<Vec<Box<dyn Source>>, AgentError> {
        let open = |source: &SourceConfig| {
            source::open(source, Limits::default()).map_err(AgentError::from)
        };
        match named {
            // A registry that is configured keeps its CA and token when it is named.
            Some(place) => match config.sources.iter().find(|source| source.url == place) {
                Some(known) => Ok(vec![open(known)?]),
                None => Ok(vec![open(&SourceConfig::at(place))?]),
            },
            None => config
                .sources
                .iter()
                .map(|source| open(source).map_err(AgentError::or_config))
                .collect(),
        }
    }

    fn check_health(
        &self,
        config: &Config,
        already: Duration,
    ) -> Result<Result<(), String>, AgentError> {
        let around = health::Surroundings { sources: &config.sources, already };
        let report = health::run(&config.health, around, &mut |so_far, wait| {
            let state = match so_far.failures {
                [] => "good".to_owned(),
                failures => format!("failing {}", in_one_line(failures, Some(BRIEF))),
            };
            tracing::info!("health: round {} {state}", so_far.round);
            crate::notify::wait(wait);
            ControlFlow::Continue(())
        })?;
        if report.passed {
            return Ok(Ok(()));
        }
        let why = match &report.failures[..] {
            [] => "too few good rounds in a row".to_owned(),
            failures => in_one_line(failures, None),
        };
        Ok(Err(why))
    }

    fn ask_checks(&self, config: &Config) -> Vec<CheckResult> {
        health::once(&config.health, &config.sources)
    }

    fn restart(&self, config: &Config, purpose: Purpose, means: Means) -> Result<(), AgentError> {
        restart::by(&config.boot, purpose, means)
    }

    fn restart_means(&self, config: &Config) -> Available {
        restart::available(&config.boot)
    }

    fn hook(&self, config: &Config, hook: Hook, facts: &HookFacts) -> Said {
        hooks::run(config, hook, facts)
    }

    fn restart_lock(
        &self,
        config: &Config,
        lock: &RestartLock,
        request: LockRequest,
    ) -> Result<(), NotGranted> {
        restart_lock::ask(&config.restart_lock, lock, request)
    }

    fn room(&self, dir: &Path) -> Option<u64> {
        let found = rustix::fs::statvfs(dir).ok()?;
        // Some file systems keep blocks back for root.
        let is_root = rustix::process::geteuid().is_root();
        let blocks = if is_root { found.f_bfree } else { found.f_bavail };
        Some(blocks.saturating_mul(found.f_frsize))
    }

    fn pace(&self) -> Pace {
        Pace::default()
    }
}

/// 160 characters of each check in a line that every round of a trial writes; the verdict has all.
const BRIEF: usize = 160;

/// `web: answers 503; ssh: refused`.
fn in_one_line(failures: &[Failure], limit: Option<usize>) -> String {
    let told = failures.iter().map(|Failure { check, why }| {
        match limit.and_then(|limit| why.char_indices().nth(limit)) {
            Some((end, _)) => format!("{check}: {}…", why.get(..end).unwrap_or_default()),
            None => format!("{check}: {why}"),
        }
    });
    told.collect::<Vec<_>>().join("; ")
}
