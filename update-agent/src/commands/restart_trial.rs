//! `restart-trial`: what `update-agent-trial-failed.service` runs when an agent has failed for good.
//!
//! It works without everything that may be the reason for that: the configuration, the disk, the record.

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use formats::boot_record::BootRecord;
use formats::reason::Exit;
use serde::Serialize;
use storage::host::System;
use update_core::restart::{AGAIN, Asked, Available, Next, Purpose, Waits, last, next};

use crate::agent::{Agent, Glance, leave};
use crate::config::Config;
use crate::error::AgentError;
use crate::exhausted::no_thread;
use crate::output::Output;
use crate::restart;
use crate::state::State;

/// Where the units keep the state.
const STATE: &str = "/var/lib/update-agent";
/// 30 s: a disk that spins up has answered by then.
const LOOK_LIMIT: Duration = Duration::from_secs(30);
/// What the boot loader said.
const CMDLINE: &str = "/proc/cmdline";

/// Whether a restart out of the trial was asked for.
#[derive(Debug, Serialize)]
struct RestartTrialReport {
    /// Whether it was.
    restarting: bool,
    /// Why, or why not.
    why: &'static str,
}

impl RestartTrialReport {
    fn text(&self) -> String {
        let end = if self.restarting { "restarting" } else { "nothing is done" };
        format!("{}: {end}", self.why)
    }
}

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
    let glance = look(config.clone());
    let cmdline =
        config.as_ref().map_or_else(|| PathBuf::from(CMDLINE), |c| c.boot.cmdline.clone());
    let said = std::fs::read_to_string(cmdline).unwrap_or_default();
    let report = match leave(&glance, &said) {
        Ok(why) => RestartTrialReport { restarting: true, why },
        Err(why) => RestartTrialReport { restarting: false, why },
    };
    let print = || output.report(&report, &report.text());
    if report.restarting {
        return insist(config.as_ref(), print);
    }
    print();
    Ok(Exit::Done)
}

/// Asks for the restart by every means there is, one after the other: a request that was granted has
/// ended this program before the next is due. `said` is called once, after the first that was taken.
fn insist(config: Option<&Config>, said: impl Fn()) -> Result<Exit, AgentError> {
    // Without a configuration this is no rehearsal.
    let every = Available { forced: true, kernel: true };
    let available = config.map_or(every, |config| restart::available(&config.boot));
    // Longer waits would not end within the TimeoutStartSec= of the unit.
    let again = config.map_or(AGAIN, |config| config.boot.reboot_wait.min(AGAIN));
    let waits = Waits { again, interval: again };
    let mut taken = false;
    let mut asked: Option<Asked> = None;
    loop {
        let means = match next(Purpose::Leave, available, asked, waits) {
            Next::Wait(wait) => {
                thread::sleep(wait);
                asked = asked.map(|asked| Asked { ago: asked.ago.saturating_add(wait), ..asked });
                continue;
            }
            Next::Ask(means) => means,
        };
        let done = match config {
            Some(config) => restart::by(&config.boot, Purpose::Leave, means),
            None => restart::by_default(means),
        };
        if done.is_ok() && !taken {
            said();
            taken = true;
        }
        if means == last(available) {
            return done.map(|()| Exit::Done);
        }
        let times = asked.map_or(0, |asked| asked.times).saturating_add(1);
        asked = Some(Asked { times, ago: Duration::ZERO, refused: done.is_err() });
        if let Err(error) = done {
            tracing::warn!("restart refused: {}", error.chain());
        }
    }
}

/// What can be read of this boot in [`LOOK_LIMIT`]: storage that hangs is as one that cannot be read.
fn look(config: Option<Config>) -> Glance {
    let (tell, told) = mpsc::channel();
    let looking = thread::Builder::new().spawn(move || {
        let _ = tell.send(match &config {
            Some(config) => known(config),
            None => Glance { record: record(Path::new(STATE)), ..Glance::default() },
        });
    });
    if let Err(error) = looking {
        tracing::warn!("the state is not looked at: {}", no_thread(&error));
    }
    told.recv_timeout(LOOK_LIMIT).unwrap_or_else(|_| {
        tracing::warn!("state and disk do not answer within {} s", LOOK_LIMIT.as_secs());
        Glance::default()
    })
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
