//! What surrounds an agent: units, health checks, programs, kernel, watchdog, the machine's name.

use std::path::Path;

use formats::reason::Reason;
use update_core::policy::shared_id;

use super::super::{Agent, CheckState};
use super::{Answer, Level, good, sandbox};
use crate::error::AgentError;
use crate::health::program;
use crate::hooks::Hook;

const WATCHDOG: &str = "/dev/watchdog";

pub(super) fn limits(_: &Agent) -> Answer {
    match sandbox::here() {
        sandbox::Place::Inside => good("judged inside the limits of the agent's units"),
        sandbox::Place::NoDaemon => good("no unit of the agent is installed here"),
        sandbox::Place::Outside => Ok((Level::Weak, sandbox::outside())),
    }
}

/// Asks each check once: what fails here, before an update, is no fault of the update.
pub(super) fn health(agent: &Agent) -> Answer {
    let results = agent.ask_checks()?;
    let told = |wanted: CheckState| -> Vec<String> {
        let found = results.iter().filter(|result| result.state == wanted);
        found
            .map(|one| format!("{}: {}", one.check, one.why.as_deref().unwrap_or_default()))
            .collect()
    };
    let broken = told(CheckState::CannotRun);
    if !broken.is_empty() {
        return Err(AgentError::new(Reason::Config, broken.join("; "))
            .hint("every release would fail its trial: mend the checks first"));
    }
    let failed = told(CheckState::Failed);
    if !failed.is_empty() {
        let text = format!("{}; a release on trial has to pass", failed.join("; "));
        return Ok((Level::Weak, text));
    }
    match results.len() {
        0 => Ok((Level::Weak, "none: every system that boots is confirmed".to_owned())),
        1 => good("1 check, passes"),
        count => good(format!("{count} checks, all pass")),
    }
}

pub(super) fn restart(agent: &Agent) -> Answer {
    let commands = agent.config.boot.restart_commands();
    for (key, argv) in &commands {
        program::startable(argv).map_err(|why| {
            AgentError::new(Reason::Config, format!("{key}: {why}"))
                .hint(format!("without it no update begins and no trial ends: set {key}"))
        })?;
    }
    good(commands.iter().map(|(_, argv)| argv.join(" ")).collect::<Vec<_>>().join("; "))
}

pub(super) fn hooks(agent: &Agent) -> Answer {
    let own = Hook::ALL.map(|hook| (hook.name(), agent.config.hooks.command(hook)));
    let own: Vec<_> = own.into_iter().filter(|(_, argv)| !argv.is_empty()).collect();
    for (name, argv) in &own {
        program::startable_in(argv, crate::hooks::PATH).map_err(|why| {
            AgentError::new(Reason::Config, format!("hooks.{name}: {why}"))
                .hint("a hook that cannot run refuses updates or puts restarts off")
        })?;
    }
    let names: Vec<&str> = own.iter().map(|(name, _)| *name).collect();
    good(names.join(", "))
}

pub(super) fn kernel(agent: &Agent) -> Answer {
    let missing = super::kernel::missing(Path::new("/"), &agent.config);
    if missing.is_empty() {
        return good("has what the configuration asks for");
    }
    Err(AgentError::new(Reason::Config, missing.join("; ")))
}

pub(super) fn watchdog(agent: &Agent) -> Answer {
    match &agent.config.health.watchdog {
        Some(path) if path.exists() => good(format!("{} is armed over each trial", path.display())),
        Some(path) => Err(AgentError::new(
            Reason::Config,
            format!("health.watchdog {} is not there", path.display()),
        )
        .hint("load its driver (CONFIG_WATCHDOG, and the one of your board), or remove the line")),
        None if Path::new(WATCHDOG).exists() => Ok((
            Level::Weak,
            format!(
                "{WATCHDOG} is not used: set health.watchdog, or RuntimeWatchdogSec= of systemd"
            ),
        )),
        None => Ok((
            Level::Weak,
            format!("no {WATCHDOG}: a system that hangs on trial waits for a power cycle"),
        )),
    }
}

/// Waves put nodes in order by their ids; those that share one go together.
pub(super) fn node_id(agent: &Agent) -> Answer {
    let id = agent.node_id();
    let configured = agent.config.node.id.is_some();
    match (shared_id(&id), configured) {
        (None, true) => good(format!("{id} (node.id)")),
        (None, false) => good(format!("{id} (/etc/machine-id)")),
        (Some(shared), true) => Ok((
            Level::Weak,
            format!(
                "node.id {}: all such nodes are in the same wave of a roll-out; give each node its \
                 own",
                shared.why()
            ),
        )),
        (Some(shared), false) => Ok((
            Level::Weak,
            format!(
                "/etc/machine-id {}: all such nodes are in the same wave of a roll-out; run \
                 `systemd-machine-id-setup`, or set node.id",
                shared.why()
            ),
        )),
    }
}
