//! What the boot loader does, on the same disk, without booting.

use std::path::Path;

use formats::boot_record::Slot;
use formats::digest::hex;
use formats::reason::Reason;
use serde::Serialize;

use super::Agent;
use crate::boot::BootControl as _;
use crate::config::Backend;
use crate::error::{AgentError, Because as _};

/// The slot that a simulated boot chose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BootReport {
    /// The slot.
    pub slot: Slot,
    /// Its priority.
    pub priority: u8,
    /// The tries it has left after this boot.
    pub tries: u8,
    /// Whether it is confirmed.
    pub successful: bool,
    /// The kernel's command line.
    pub cmdline: String,
}

impl Agent {
    /// Repairs the table, picks a slot, spends its try, and leaves the simulated kernel's command line
    /// and boot id where the configuration says, unless that is the real kernel's place.
    pub fn simulate_boot(&self) -> Result<BootReport, AgentError> {
        let selection = self.disk.choose()?;
        let (slot, flags) = (selection.slot, *selection.flags.of(selection.slot));
        let boot = &self.config.boot;
        let line = match boot.backend {
            // Fixed texts: they know the slot, and nothing of its tries.
            Backend::SystemdBoot | Backend::RpiTryboot => format!("racklet.slot={slot}"),
            _ => command_line(slot, flags.tries, flags.successful),
        };
        let line = format!("{}{line}", self.root_words(slot)?);
        self.write_unless_real(&boot.cmdline, &format!("{line}\n"))?;
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|error| {
            AgentError::new(Reason::StoreIo, format!("draw a boot id: {error}"))
        })?;
        self.write_unless_real(&boot.boot_id, &format!("{}\n", hex(&id)))?;
        Ok(BootReport {
            slot,
            priority: flags.priority,
            tries: flags.tries,
            successful: flags.successful,
            cmdline: line,
        })
    }

    /// What says where `/` is; nothing where it is in memory.
    fn root_words(&self, slot: Slot) -> Result<String, AgentError> {
        if !self.disk.boots_from_partition(slot)? {
            return Ok(String::new());
        }
        let (table, component) = (self.disk.table()?, &self.config.boot.component);
        let partition = self.disk.partition(&table, slot, component)?;
        Ok(format!("root=PARTUUID={} ro ", partition.guid))
    }

    fn write_unless_real(&self, path: &Path, text: &str) -> Result<(), AgentError> {
        if path.starts_with("/proc") || path.starts_with("/sys") {
            return Ok(());
        }
        let shown = format!("write {}", path.display());
        self.host.write_kernel(path, text).because(Reason::StoreIo, shown)
    }
}

/// What the chooser adds to the kernel's command line: the agent's evidence of what booted.
fn command_line(slot: Slot, tries: u8, successful: bool) -> String {
    let kind = if successful { "confirmed" } else { "trial" };
    format!("racklet.slot={slot} racklet.boot={kind} racklet.tries={tries}")
}
