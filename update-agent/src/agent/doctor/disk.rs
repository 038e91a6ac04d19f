//! The slots, their partitions and devices, and the state.

use std::path::Path;

use formats::boot_record::Slot;
use formats::reason::Reason;
use formats::release::ComponentName;
use storage::block::Access;
use update_core::update::next_slot;

use super::super::{Agent, MEND};
use super::{Answer, Level, good};
use crate::boot::BootControl as _;
use crate::error::{AgentError, Because as _};
use crate::place::{EmmcBoot, Place};

pub(super) fn partition_table(agent: &Agent) -> Answer {
    match agent.disk.damaged_copy()? {
        None => good("both copies are valid and agree"),
        Some(copy) => Ok((
            Level::Weak,
            format!("the {copy:?} copy is damaged or differs; the next boot or update rewrites it"),
        )),
    }
}

pub(super) fn slots(agent: &Agent) -> Answer {
    let mut texts = Vec::new();
    for slot in Slot::BOTH {
        for (component, size) in agent.disk.capacities(slot)? {
            texts.push(format!("{slot}/{component} {}", formats::size(size)));
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

pub(super) fn state(agent: &Agent) -> Answer {
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

/// The directory in which `dir` would be made.
fn above(dir: &Path) -> &Path {
    match dir.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    }
}

/// Components that start by themselves run from the bank of the slot that booted.
pub(super) fn update_set(agent: &Agent) -> Answer {
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
    let single = agent.disk.singles().map(|name| agent.parts().single_banks().judge(name));
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
