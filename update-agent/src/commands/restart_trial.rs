//! `restart-trial`: what `update-agent-trial-failed.service` runs when an agent has failed for good.
//!
//! It works without everything that may be the reason for that: the configuration, the disk, the record.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use formats::boot_record::BootRecord;
use formats::reason::Exit;
use serde_json::json;
use storage::host::System;
use update_core::restart::{AGAIN, Available, Means, Purpose, REFUSED_AGAIN, means};

use crate::agent::{Agent, Glance, leave};
use crate::config::{BootConfig, Config};
use crate::error::AgentError;
use crate::output::Output;
use crate::restart;
use crate::state::State;

/// Where the units keep the state.
const STATE: &str = "/var/lib/update-agent";
/// What the boot loader said.
const CMDLINE: &str = "/proc/cmdline";

/// `restart-trial`: restarts out of a trial that nobody has confirmed, and ends with 0 also where nothing is
/// to be done.
pub(super) fn restart_trial(path: &Path, output: Output) -> Result<Exit, AgentError> {
    let config = match Config::load(path) {
        Ok(config) => Some(config),
        Err(error) => {
            tracing::warn!("{}", error.chain());
            None
        }
    };
    let glance = match &config {
        Some(config) => known(config),
        None => Glance { record: record(Path::new(STATE)), ..Glance::default() },
    };
    let cmdline =
        config.as_ref().map_or_else(|| PathBuf::from(CMDLINE), |c| c.boot.cmdline.clone());
    let said = std::fs::read_to_string(cmdline).unwrap_or_default();
    let (restarts, why) = match leave(&glance, &said) {
        Ok(why) => (true, why),
        Err(why) => (false, why),
    };
    let end = if restarts { "restarting" } else { "nothing is done" };
    let report = || {
        output.result(json!({ "restarting": restarts, "why": why }), &format!("{why}: {end}"));
    };
    if restarts {
        return insist(config.as_ref().map(|config| &config.boot), report);
    }
    report();
    Ok(Exit::Done)
}

/// Asks for the restart by every means there is, one after the other: a request that was granted has
/// ended this program before the next is due. `asked` is called once, after the first that was taken.
fn insist(boot: Option<&BootConfig>, asked: impl Fn()) -> Result<Exit, AgentError> {
    // Without a configuration this is no rehearsal.
    let every = Available { forced: true, kernel: true };
    let available = boot.map_or(every, restart::available);
    let mut said = false;
    for times in 0.. {
        let means = means(Purpose::Leave, available, times);
        let done = match boot {
            Some(boot) => restart::by(boot, means),
            None => restart::by_default(means),
        };
        if done.is_ok() && !said {
            asked();
            said = true;
        }
        let last = if available.kernel { Means::Kernel } else { Means::Forced };
        if available == Available::default() || means == last {
            return done.map(|()| Exit::Done);
        }
        let wait = if done.is_ok() { AGAIN } else { REFUSED_AGAIN };
        if let Err(error) = done {
            tracing::warn!("restart refused: {}", error.chain());
        }
        thread::sleep(wait);
    }
    Ok(Exit::Done)
}

/// What can be read of this boot. The floor plays no part.
fn known(config: &Config) -> Glance {
    // A new node has no state directory, nor has a release that does not mount it.
    if !config.state_dir.exists() {
        return Glance::default();
    }
    let Some(agent) = noted(Agent::look(config.clone())) else { return Glance::default() };
    let glance = agent.glance();
    for error in &glance.errors {
        tracing::warn!("{}", error.chain());
    }
    glance
}

/// The record, if there is a state directory and it is whole.
fn record(state: &Path) -> Option<BootRecord> {
    if !state.exists() {
        return None;
    }
    let state = noted(State::look(state, Arc::new(System)))?;
    noted(state.boot_record())
}

fn noted<T>(found: Result<T, AgentError>) -> Option<T> {
    found.inspect_err(|error| tracing::warn!("{}", error.chain())).ok()
}
