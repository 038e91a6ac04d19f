//! `boot-select --simulate`: what the boot loader does, on the same disk, without booting.

use std::path::Path;

use formats::boot_record::Slot;
use formats::digest::hex;
use formats::reason::{Exit, Reason};
use serde_json::json;

use crate::agent::Agent;
use crate::boot::BootControl as _;
use crate::config::Backend;
use crate::error::{AgentError, Because as _};
use crate::output::Output;

/// Repairs the table, picks a slot, spends its try, and leaves the simulated kernel's command line
/// and boot id where the configuration says, unless that is the real kernel's place.
pub(super) fn simulate(agent: &Agent, output: Output) -> Result<Exit, AgentError> {
    let selection = agent.disk.choose()?;
    let (slot, flags) = (selection.slot, *selection.flags.of(selection.slot));
    let boot = &agent.config.boot;
    let table = agent.disk.table()?;
    let partition = agent.disk.partition(&table, slot, &boot.component)?;
    let partuuid = partition.guid.to_string();
    let line = match boot.backend {
        // Its entries are fixed texts: they know the slot, and nothing of its tries.
        Backend::SystemdBoot => format!("root=PARTUUID={partuuid} ro racklet.slot={slot}"),
        _ => command_line(slot, &partuuid, flags.tries, flags.successful),
    };
    write_unless_real(agent, &boot.cmdline, &format!("{line}\n"))?;
    let mut id = [0; 16];
    getrandom::fill(&mut id)
        .map_err(|error| AgentError::new(Reason::StoreIo, format!("draw a boot id: {error}")))?;
    write_unless_real(agent, &boot.boot_id, &format!("{}\n", hex(&id)))?;
    let value = json!({
        "slot": slot,
        "priority": flags.priority,
        "tries": flags.tries,
        "successful": flags.successful,
        "cmdline": line,
    });
    let left = if flags.successful {
        "confirmed".to_owned()
    } else {
        format!("on trial, {} tries left", flags.tries)
    };
    output.result(value, &format!("slot {slot} boots ({left})"));
    Ok(Exit::Done)
}

/// What the chooser adds to the kernel's command line: the agent's evidence of what booted.
pub(super) fn command_line(slot: Slot, partuuid: &str, tries: u8, successful: bool) -> String {
    let kind = if successful { "confirmed" } else { "trial" };
    format!(
        "root=PARTUUID={partuuid} ro racklet.slot={slot} racklet.boot={kind} racklet.tries={tries}"
    )
}

fn write_unless_real(agent: &Agent, path: &Path, text: &str) -> Result<(), AgentError> {
    if path.starts_with("/proc") || path.starts_with("/sys") {
        return Ok(());
    }
    let shown = format!("write {}", path.display());
    agent.host.write_kernel(path, text).because(Reason::StoreIo, shown)
}
