//! `restart-trial`: what `update-agent-trial-failed.service` runs when an agent has failed for good.
//!
//! It works without everything that may be the reason for that: the configuration, the disk, the record.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use formats::boot_record::{BootRecord, Slot};
use formats::reason::Exit;
use serde_json::json;
use storage::host::System;
use update_core::update::{Evidence, Known, Node, leave_failed_trial};

use crate::agent::Agent;
use crate::boot::BootControl as _;
use crate::config::{BootConfig, Config};
use crate::environment;
use crate::error::AgentError;
use crate::output::Output;
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
    let (record, node) = match &config {
        Some(config) => known(config),
        None => (record(Path::new(STATE)), None),
    };
    let cmdline =
        config.as_ref().map_or_else(|| PathBuf::from(CMDLINE), |c| c.boot.cmdline.clone());
    let said = std::fs::read_to_string(cmdline).unwrap_or_default();
    let judged = leave_failed_trial(match (&node, &record) {
        (Some(node), _) => Known::Node(node),
        (None, Some(record)) => Known::Record(record, slot_said(&said)),
        (None, None) => {
            Known::BootLoader(said.split_whitespace().any(|word| word == "racklet.boot=trial"))
        }
    });
    let (restarts, why) = match judged {
        Ok(why) => (true, why),
        Err(why) => (false, why),
    };
    if restarts {
        let command = config.map_or_else(BootConfig::default_restart, |c| c.boot.reboot_command);
        environment::restart_by(&command)?;
    }
    let end = if restarts { "restarting" } else { "nothing is done" };
    output.result(json!({ "restarting": restarts, "why": why }), &format!("{why}: {end}"));
    Ok(Exit::Done)
}

/// The record and, where its flags can be read, the whole node. The floor plays no part.
fn known(config: &Config) -> (Option<BootRecord>, Option<Node>) {
    // A new node has no state directory, nor has a release that does not mount it.
    if !config.state_dir.exists() {
        return (None, None);
    }
    let Some(agent) = noted(Agent::look(config.clone())) else { return (None, None) };
    let Some(record) = noted(agent.state.boot_record()) else { return (None, None) };
    let (flags, booted, boot_id) =
        (noted(agent.disk.flags()), noted(agent.disk.booted()), noted(agent.disk.boot_id()));
    let node = match (flags, booted, boot_id) {
        (Some(flags), Some(booted), Some(boot_id)) => {
            let evidence = Evidence::default();
            Some(Node { record: record.clone(), flags, booted, boot_id, floor: 0, evidence })
        }
        _ => None,
    };
    (Some(record), node)
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

/// The slot that the kernel was told, where the partition table cannot be asked.
fn slot_said(cmdline: &str) -> Option<Slot> {
    cmdline.split_whitespace().find_map(|word| match word {
        "racklet.slot=a" => Some(Slot::A),
        "racklet.slot=b" => Some(Slot::B),
        _ => None,
    })
}
