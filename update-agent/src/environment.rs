//! What an agent meets that is not durable: repositories, health checks, the way to restart.
//!
//! [`RealWorld`] is what programs use. The power-cut sweeps of the tests put a simulated machine
//! under [`Agent::open_on`](crate::agent::Agent::open_on), and next to it an environment without sockets.

use std::ops::ControlFlow;
use std::process::{Command, Stdio};
use std::time::Duration;

use formats::reason::Reason;
use update_core::hooks::Said;

use crate::config::Config;
use crate::error::{AgentError, not_started};
use crate::events::Event;
use crate::health;
use crate::hooks::{self, Hook, HookFacts};
use crate::http::Limits;
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

    /// Restarts the machine.
    fn restart(&self, config: &Config) -> Result<(), AgentError>;

    /// Runs a hook of the operator's to its end. A simulated node has none.
    fn hook(&self, _config: &Config, _hook: Hook, _facts: &HookFacts) -> Said {
        Said::Yes
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
            let failing: Vec<&str> =
                so_far.failures.iter().map(|failure| failure.check.as_str()).collect();
            let state = match &failing[..] {
                [] => "good".to_owned(),
                names => format!("failing {}", names.join(", ")),
            };
            tracing::info!("health: round {} {state}", so_far.rounds);
            crate::notify::wait(wait);
            ControlFlow::Continue(())
        })?;
        if report.passed {
            return Ok(Ok(()));
        }
        let why: Vec<String> = report
            .failures
            .iter()
            .map(|failure| format!("{}: {}", failure.check, failure.why))
            .collect();
        let why =
            if why.is_empty() { "too few good rounds in a row".to_owned() } else { why.join("; ") };
        Ok(Err(why))
    }

    fn restart(&self, config: &Config) -> Result<(), AgentError> {
        restart_by(&config.boot.reboot_command)
    }

    fn hook(&self, config: &Config, hook: Hook, facts: &HookFacts) -> Said {
        hooks::run(config, hook, facts)
    }

    fn pace(&self) -> Pace {
        Pace::default()
    }
}

/// Restarts the machine by a command.
pub(crate) fn restart_by(argv: &[String]) -> Result<(), AgentError> {
    let shown = argv.join(" ");
    let Some((program, arguments)) = argv.split_first() else {
        return Err(AgentError::new(Reason::Config, "boot.reboot_command is empty"));
    };
    Event::Restarting { command: &shown }.tell();
    let status = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        // Standard output belongs to `--json`.
        .stdout(std::io::stderr())
        .status()
        .map_err(|error| not_started(program, &error))
        .map_err(|why| AgentError::new(Reason::Config, format!("boot.reboot_command: {why}")))?;
    if status.success() {
        Ok(())
    } else {
        let text = format!("boot.reboot_command `{shown}` ended with {status}");
        Err(AgentError::new(Reason::Config, text).hint("restart the machine by hand"))
    }
}
