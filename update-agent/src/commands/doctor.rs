//! `doctor`: what would go wrong at the first update, found before it.

use std::path::Path;

use formats::boot_record::Slot;
use formats::reason::{Exit, Reason};
use serde_json::json;
use update_core::chooser::ChooserFloor;
use update_core::floor::Guarantee;
use update_core::policy::shared_id;
use update_core::update::stand;

use super::offer::sources;
use crate::agent::Agent;
use crate::boot::BootControl as _;
use crate::config::Backend;
use crate::error::AgentError;
use crate::output::Output;
use crate::source::TufState;
use crate::trust;

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Good,
    /// Works, with less than the node could have.
    Weak,
    /// An update or a revert would fail.
    Bad,
}

struct Finding {
    check: &'static str,
    level: Level,
    text: String,
}

/// `doctor`: exits with the reason's code of the first bad finding.
pub(super) fn doctor(agent: &Agent, output: Output) -> Result<Exit, AgentError> {
    let mut findings = Vec::new();
    let mut first_bad = None;
    let checks: [(&'static str, Check); 15] = [
        ("trust root", trust_root),
        ("clock", clock),
        ("partition table", partition_table),
        ("boot flags", boot_flags),
        ("slots", slots),
        ("booted slot", booted),
        ("boot counting", counting),
        ("state", state),
        ("health checks", health),
        ("sources", reachable),
        ("kernel", kernel),
        ("floor", floor),
        ("watchdog", watchdog),
        ("update set", update_set),
        ("node id", node_id),
    ];
    for (check, ask) in checks {
        let (level, text) = match ask(agent) {
            Ok(answer) => answer,
            Err(error) => {
                let hint = error.advice().map_or_else(String::new, |hint| format!("; {hint}"));
                let text = format!("{} [{}]{hint}", error.chain(), error.reason());
                first_bad.get_or_insert(error);
                (Level::Bad, text)
            }
        };
        findings.push(Finding { check, level, text });
    }
    let word = |level| match level {
        Level::Good => "ok",
        Level::Weak => "weak",
        Level::Bad => "BAD",
    };
    let rows: Vec<_> = findings
        .iter()
        .map(|found| json!({ "check": found.check, "level": word(found.level).to_lowercase(), "text": found.text }))
        .collect();
    let lines: Vec<String> = findings
        .iter()
        .map(|found| format!("{:4} {:16} {}", word(found.level), found.check, found.text))
        .collect();
    let bad = findings.iter().any(|found| found.level == Level::Bad);
    output.result(json!({ "ready": !bad, "findings": rows }), &lines.join("\n"));
    Ok(match first_bad {
        Some(error) => error.reason().exit(),
        None if bad => Reason::CountingInactive.exit(),
        None => Exit::Done,
    })
}

type Answer = Result<(Level, String), AgentError>;
type Check = fn(&Agent) -> Answer;

fn good(text: impl Into<String>) -> Answer {
    Ok((Level::Good, text.into()))
}

fn trust_root(agent: &Agent) -> Answer {
    agent.shipped_root()?;
    if agent.trusts_example_keys() {
        return Ok((Level::Weak, crate::example::WARNING.to_owned()));
    }
    good(agent.config.trust.root.display().to_string())
}

fn clock(agent: &Agent) -> Answer {
    let stored = agent.state.trust()?;
    update_core::trust::start_time(trust::clock(agent.state.now()), stored.known_time)?;
    good("not behind what is known to have happened")
}

fn partition_table(agent: &Agent) -> Answer {
    match agent.disk.damaged_copy()? {
        None => good("both copies are valid and agree"),
        Some(copy) => Ok((
            Level::Weak,
            format!("the {copy:?} copy is damaged or differs; the next boot or update rewrites it"),
        )),
    }
}

fn boot_flags(agent: &Agent) -> Answer {
    agent.disk.flags()?;
    match agent.disk.weakness()? {
        None => good(agent.config.boot.backend.name()),
        Some(text) => Ok((Level::Weak, text)),
    }
}

fn slots(agent: &Agent) -> Answer {
    let mut texts = Vec::new();
    for slot in Slot::BOTH {
        for (component, size) in agent.disk.capacities(slot)? {
            texts.push(format!("{slot}/{component} {}", crate::output::bytes(size)));
        }
    }
    let booted = agent.disk.booted()?;
    for component in agent.config.slots.of(booted.other()).keys() {
        // Claims and releases it: a mounted partition is found now, not at the update.
        agent.disk.open_to_write(booted.other(), component, booted)?;
    }
    good(texts.join(", "))
}

fn booted(agent: &Agent) -> Answer {
    let slot = agent.disk.booted()?;
    let flags = *agent.disk.flags()?.of(slot);
    let node = agent.node()?;
    if !flags.confirmed() && stand(&node) == update_core::update::Standing::Idle {
        let text = format!("slot {slot} runs but is not marked successful");
        return Err(AgentError::new(Reason::BootRecord, text)
            .hint("if this system works, run `update-agent confirm --adopt` once"));
    }
    good(format!("slot {slot}"))
}

fn counting(agent: &Agent) -> Answer {
    let record = agent.state.boot_record()?;
    let tells = agent.config.boot.backend != Backend::SystemdBoot;
    match (record.counting, agent.disk.chooser_booted()) {
        (_, false) if record.chooser && tells => Err(AgentError::new(
            Reason::CountingInactive,
            "earlier boots were counted, this one was not: another boot loader started it",
        )
        .hint(
            "put back the chooser or boot script; if this is how the node boots from now on, run \
             `update-agent confirm --adopt`",
        )),
        (_, true) => good("boot-select booted this system"),
        (Some(true), false) => good("a try was spent at the last trial"),
        (Some(false), false) => Err(AgentError::new(
            Reason::CountingInactive,
            "the boot loader did not spend a try at the last trial",
        )
        .hint("install boot-select as the chooser, or the boot loader of boot.backend")),
        (None, false) => Ok((
            Level::Weak,
            "not proven yet: nothing shows that the boot loader reads these flags; the first \
             trial will"
                .to_owned(),
        )),
    }
}

fn state(agent: &Agent) -> Answer {
    agent.state.boot_record()?;
    agent.state.floor()?;
    agent.state.trust()?;
    let held = match agent.state.hold() {
        Ok(held) => held,
        Err(error) if error.reason() == Reason::Busy => {
            return good("another agent is at work");
        }
        Err(error) => return Err(error),
    };
    let report = agent.state.report();
    agent.state.save_report(&held, &report)?;
    good(format!("{} can be read and written", agent.config.state_dir.display()))
}

fn health(agent: &Agent) -> Answer {
    agent.config.health.usable()?;
    match agent.config.health.checks.len() {
        0 => Ok((Level::Weak, "none: every system that boots is confirmed".to_owned())),
        1 => good("1 check"),
        count => good(format!("{count} checks")),
    }
}

fn reachable(agent: &Agent) -> Answer {
    if agent.config.sources.is_empty() {
        return good("none configured: updates come by bundle");
    }
    let mut texts = Vec::new();
    for source in sources(agent, None)? {
        let state = source.tuf_state(None)?;
        let files = match state {
            TufState::Changed { files, .. } => files.len(),
            TufState::Unchanged => 0,
        };
        texts.push(format!("{} ({files} files)", source.describe()));
    }
    good(texts.join(", "))
}

/// Waves put nodes in order by their ids; those that share one go together.
fn node_id(agent: &Agent) -> Answer {
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

fn kernel(agent: &Agent) -> Answer {
    let missing = super::kernel::missing(Path::new("/"), &agent.config);
    if missing.is_empty() {
        return good("has what the configuration asks for");
    }
    Err(AgentError::new(Reason::Config, missing.join("; ")))
}

fn floor(agent: &Agent) -> Answer {
    let judged = agent.floor()?;
    let text = super::floor::guarantee(&judged);
    // Only a verifying chooser could look at it.
    let chooser = agent.config.boot.verity && agent.disk.chooser_booted();
    match judged.guarantee {
        Guarantee::Tpm if chooser => match agent.disk.chooser_floor() {
            ChooserFloor::At(_) if !judged.older_state => good(text),
            ChooserFloor::At(_) => Ok((Level::Weak, text)),
            ChooserFloor::Open(gap) => Ok((
                Level::Weak,
                format!("{text}; the chooser of this boot could not apply it: {}", gap.code()),
            )),
            ChooserFloor::Unset => Ok((
                Level::Weak,
                format!("{text}; the chooser does not look at it: set floor.tpm in its own file"),
            )),
        },
        Guarantee::Tpm if !judged.older_state => good(text),
        Guarantee::Lost(_) => Err(AgentError::new(Reason::FloorLost, text)
            .hint("when you know why the TPM changed, run `update-agent floor --renew`")),
        Guarantee::File if Path::new(TPM).exists() => {
            Ok((Level::Weak, format!("{text}; this machine has a TPM: set floor.tpm = {TPM:?}")))
        }
        _ => Ok((Level::Weak, text)),
    }
}

const TPM: &str = "/dev/tpmrm0";
const WATCHDOG: &str = "/dev/watchdog";

fn watchdog(agent: &Agent) -> Answer {
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

/// Components that start by themselves run from the bank of the slot that booted.
fn update_set(agent: &Agent) -> Answer {
    let booted = agent.disk.booted()?;
    let switched = agent.disk.switched();
    if switched.is_empty() {
        return good("every component is switched by the boot flags");
    }
    let behind = agent.disk.running_in(booted.other())?;
    if let Some(component) = behind.first() {
        return Ok((
            Level::Weak,
            format!(
                "{component} runs from slot {}, the system from {booted}: restart it before the \
                 next update",
                booted.other()
            ),
        ));
    }
    // Boards with one bank for a component: accepted, recoverable, and by whom.
    let single = agent.disk.singles().map(|name| agent.judge_single_bank(name));
    let single: Vec<String> = single.collect::<Result<_, _>>()?;
    let names: Vec<&str> = switched.iter().map(|name| name.as_str()).collect();
    let text = format!("{} switched beside the boot flags", names.join(", "));
    match single.is_empty() {
        true => good(text),
        false => Ok((Level::Weak, format!("{text}; {}", single.join("; ")))),
    }
}
