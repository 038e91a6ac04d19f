//! `doctor`: what would go wrong at the first update, found before it.
//!
//! It opens what an update writes as an update does, and changes and makes nothing.

use std::path::Path;

use formats::boot_record::Slot;
use formats::reason::{Exit, Reason};
use formats::release::ComponentName;
use formats::tuf::BUILD_TIME;
use serde_json::json;
use storage::block::Access;
use update_core::chooser::ChooserFloor;
use update_core::floor::Guarantee;
use update_core::policy::shared_id;
use update_core::trust::{CLOCK_TOLERANCE, Clock, Limits, Refresh, Stored};
use update_core::update::{next_slot, stand};

use super::sandbox;
use crate::agent::{Agent, CheckState, MEND, floor_guarantee};
use crate::boot::BootControl as _;
use crate::boot::bypass;
use crate::config::Backend;
use crate::error::{AgentError, Because as _};
use crate::health::program;
use crate::hooks::Hook;
use crate::output::{Output, time};
use crate::place::{EmmcBoot, Place};
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
    let checks: [(&'static str, Check); 18] = [
        ("sandbox", limits),
        ("trust root", trust_root),
        ("clock", clock),
        ("partition table", partition_table),
        ("boot flags", boot_flags),
        ("slots", slots),
        ("booted slot", booted),
        ("boot counting", counting),
        ("state", state),
        ("health checks", health),
        ("restart", restart),
        (HOOKS, hooks),
        ("sources", reachable),
        ("kernel", kernel),
        ("floor", floor),
        ("watchdog", watchdog),
        ("update set", update_set),
        ("node id", node_id),
    ];
    let mut causes: Vec<(&str, String)> = Vec::new();
    let has_hooks = Hook::ALL.iter().any(|hook| !agent.config.hooks.command(*hook).is_empty());
    for (check, ask) in checks.into_iter().filter(|(check, _)| has_hooks || *check != HOOKS) {
        let (level, text) = match ask(agent) {
            Ok(answer) => answer,
            Err(error) => {
                let chain = error.chain();
                let known = causes.iter().find(|(_, cause)| same_cause(cause, &chain));
                let text = match known {
                    Some((first, _)) => format!("for the same reason as {first}"),
                    None => {
                        let hint =
                            error.advice().map_or_else(String::new, |hint| format!("; {hint}"));
                        format!("{chain} [{}]{hint}", error.reason())
                    }
                };
                causes.push((check, chain));
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

/// Whether one error is the other with more of what was being done before it.
fn same_cause(one: &str, other: &str) -> bool {
    let (short, long) = if one.len() <= other.len() { (one, other) } else { (other, one) };
    long.strip_suffix(short).is_some_and(|before| before.is_empty() || before.ends_with(": "))
}

type Answer = Result<(Level, String), AgentError>;
type Check = fn(&Agent) -> Answer;

fn good(text: impl Into<String>) -> Answer {
    Ok((Level::Good, text.into()))
}

fn limits(_: &Agent) -> Answer {
    match sandbox::here() {
        sandbox::Place::Inside => good("judged inside the limits of the agent's units"),
        sandbox::Place::NoDaemon => good("no unit of the agent is installed here"),
        sandbox::Place::Outside => Ok((Level::Weak, sandbox::outside())),
    }
}

/// The directory in which `dir` would be made.
fn above(dir: &Path) -> &Path {
    match dir.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    }
}

fn trust_root(agent: &Agent) -> Answer {
    let root = agent.shipped_root()?;
    // Whether it signs itself; the clock is a question of its own.
    let whenever = Clock { system: BUILD_TIME, build: BUILD_TIME };
    Refresh::begin(Stored::default(), &root, whenever, Limits::default())
        .because(Reason::Config, root_in_use(agent)?)
        .map_err(|error| error.hint("it is the root.json that `signer init` wrote"))?;
    if agent.trusts_example_keys() {
        return Ok((Level::Weak, crate::example::WARNING.to_owned()));
    }
    good(root_in_use(agent)?)
}

/// The trust root that counts, which after a reset is not the one that the configuration names.
fn root_in_use(agent: &Agent) -> Result<String, AgentError> {
    let configured = agent.config.trust.root.display();
    Ok(match agent.state.enrolled_root()? {
        Some(_) => format!("that of the last `reset --root`; {configured} counts no more"),
        None => configured.to_string(),
    })
}

fn clock(agent: &Agent) -> Answer {
    let stored = agent.state.trust()?;
    let now = agent.state.now();
    update_core::trust::start_time(trust::clock(now), stored.known_time)?;
    // No proof: what it said then may have been wrong.
    let last = agent.state.report().last_success.unwrap_or_default();
    if last > now.saturating_add(CLOCK_TOLERANCE.unsigned_abs()) {
        let (last, now) = (time(last), time(now));
        let text =
            format!("it says {now}, and at the last check it said {last}: see that it is set");
        return Ok((Level::Weak, text));
    }
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
    agent.disk.can_write()?;
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
    let starts = next_slot(agent.disk.flags()?) == Some(booted.other());
    for (component, place) in agent.config.slots.of(booted.other()) {
        // Boots next with its slot: it is switched back before that is written.
        if starts && matches!(place, Place::Device(own) if own.is_emmc_boot()) {
            continue;
        }
        // Claims and releases it: a mounted partition is found now, not at the update.
        agent.disk.open_to_write(booted.other(), component, booted)?;
    }
    let foreign = agent.node()?.evidence.foreign;
    let foreign = Slot::BOTH.into_iter().filter_map(|slot| {
        let how = (*foreign.of(slot))?;
        Some(format!("slot {slot} was written by another program since: {how}"))
    });
    let foreign: Vec<String> = foreign.collect();
    if !foreign.is_empty() {
        return Ok((Level::Weak, format!("{}; {MEND}", foreign.join("; "))));
    }
    good(texts.join(", "))
}

fn booted(agent: &Agent) -> Answer {
    agent.disk.check_root()?;
    agent.check_disk()?;
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
    let tells = agent.config.boot.backend.tells_the_kernel();
    let backend = agent.config.boot.backend;
    if let Some(update) = record.update.as_ref().filter(|update| update.passed_over > 0) {
        return Ok((Level::Weak, bypass::sentence(&agent.config.boot, update.slot)));
    }
    match (record.counting, agent.disk.chooser_booted()) {
        (_, false) if record.chooser && tells => Err(AgentError::new(
            Reason::CountingInactive,
            "earlier boots were counted, this one was not: another boot loader started it",
        )
        .hint(
            "put back the chooser or boot script; if this is how the node boots from now on, run \
             `update-agent confirm --adopt`",
        )),
        (_, true) if agent.config.boot.backend == Backend::GptAttributes => {
            good("boot-select booted this system")
        }
        (_, true) => good("the boot loader that reads these flags booted this system"),
        (Some(true), false) => good("a try was spent at the last trial"),
        (Some(false), false) => Err(AgentError::new(
            Reason::CountingInactive,
            format!(
                "the last trial was booted without spending a try, or two boots in a row passed it \
                 over ({})",
                bypass::causes(backend)
            ),
        )
        .hint(
            "install boot-select as the chooser, or the boot loader of boot.backend; if it is \
             there, run `update-agent confirm --adopt` once",
        )),
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
    let dir = &agent.config.state_dir;
    // Made by the first command that keeps something, where it can be made.
    let there = dir.exists();
    let place = if there { dir.as_path() } else { above(dir) };
    // Every file of it is replaced, never written in place.
    let may = rustix::fs::access(place, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK);
    may.map_err(std::io::Error::from)
        .because(Reason::StoreIo, format!("write {}", place.display()))?;
    let flaws = if there { agent.state.flaws()? } else { Vec::new() };
    if !flaws.is_empty() {
        let flaws: Vec<String> = flaws.iter().map(ToString::to_string).collect();
        let text = format!(
            "{}; the other copy counts, and the next run writes it again: check the medium's health",
            flaws.join("; ")
        );
        return Ok((Level::Weak, text));
    }
    let unread = if there { agent.state.unread() } else { Vec::new() };
    match there {
        true if !unread.is_empty() => good(format!(
            "{} can be read and written; not known to this version, and kept: {}",
            dir.display(),
            unread.join(", ")
        )),
        true => good(format!("{} can be read and written", dir.display())),
        false => good(format!("{} is not there yet and can be made", dir.display())),
    }
}

fn restart(agent: &Agent) -> Answer {
    let commands = agent.config.boot.restart_commands();
    for (key, argv) in &commands {
        program::startable(argv).map_err(|why| {
            AgentError::new(Reason::Config, format!("{key}: {why}"))
                .hint(format!("without it no update begins and no trial ends: set {key}"))
        })?;
    }
    good(commands.iter().map(|(_, argv)| argv.join(" ")).collect::<Vec<_>>().join("; "))
}

/// The row that only nodes with hooks have.
const HOOKS: &str = "hooks";

fn hooks(agent: &Agent) -> Answer {
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

/// Asks each check once: what fails here, before an update, is no fault of the update.
fn health(agent: &Agent) -> Answer {
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

fn reachable(agent: &Agent) -> Answer {
    if agent.config.sources.is_empty() {
        return good("none configured: updates come by bundle");
    }
    let mut texts = Vec::new();
    for source in agent.environment.sources(&agent.config, None)? {
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
    let judged = agent.judged_floor()?;
    let text = floor_guarantee(&judged);
    // Only a verifying chooser could look at it.
    let chooser = agent.config.boot.verity && agent.disk.chooser_booted();
    match judged.guarantee {
        Guarantee::Tpm if judged.open => Ok((Level::Weak, text)),
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
    let behind = agent.disk.running_in(booted.other(), agent.disk.flags()?)?;
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
    let single = agent.disk.singles().map(|name| agent.single_banks().judge(name));
    let single: Vec<String> = single.collect::<Result<_, _>>()?;
    let names: Vec<&str> = switched.iter().map(|name| name.as_str()).collect();
    let mut texts = vec![format!("{} switched beside the boot flags", names.join(", "))];
    let mut weak = !single.is_empty();
    texts.extend(single);
    for name in switched {
        if let Some((text, less)) = emmc_boot(agent, booted.other(), name)? {
            texts.push(format!("{name}: {text}"));
            weak |= less;
        }
    }
    Ok((if weak { Level::Weak } else { Level::Good }, texts.join("; ")))
}

/// What the card says of a component's boot partition in a slot.
fn emmc_boot(
    agent: &Agent,
    slot: Slot,
    name: &ComponentName,
) -> Result<Option<(String, bool)>, AgentError> {
    match agent.disk.place(slot, name)? {
        Place::Device(own) if own.is_emmc_boot() => {
            EmmcBoot::needed(own, agent.disk.host(), Access::Read)?.judge().map(Some)
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::same_cause;

    #[test]
    fn one_cause_is_one_whatever_was_being_done() {
        let disk = "boot.disk: /dev/sdx does not exist; check the configured disk";
        let rows = [
            (disk.to_owned(), disk.to_owned(), true),
            (disk.to_owned(), format!("slot a, component os: {disk}"), true),
            (format!("slot a, component os: {disk}"), disk.to_owned(), true),
            (disk.to_owned(), format!("other{disk}"), false),
            (disk.to_owned(), "boot.grub_env: open /boot/grub/grubenv".to_owned(), false),
        ];
        for (one, other, same) in rows {
            assert_eq!(same_cause(&one, &other), same, "{one} | {other}");
        }
    }
}
