//! `systemd-boot`: counters in the names of entries (`formats::bls`, `storage::esp`).
//!
//! ```text
//!  ESP/loader/racklet/a.conf, b.conf        what an entry of the slot says; yours, never written
//!  ESP/loader/entries/racklet-7-a.conf      ours: made of them, named by generation and slot
//! ```
//! The two must agree in `sort-key` and `machine-id` and have no `version`: those would decide
//! before the name does. An entry may start a kernel (`linux`) or a unified kernel image (`efi`).

use formats::bls::{self, EntryFields, SlotEntry, entry_of, menu_order};
use formats::boot_record::Slot;
use formats::reason::Reason;
use storage::esp::{ENTRY_LIMIT, Entries};
use storage::files::{Files as _, PrivateDir};
use storage::host::Host;
use update_core::boot::{BootFlags, FlagEdit};

use super::{BootControl, same};
use crate::config::BootConfig;
use crate::error::AgentError;

/// The entries on an EFI system partition.
#[derive(Debug)]
pub(super) struct SystemdBoot<'a> {
    host: &'a dyn Host,
    boot: &'a BootConfig,
}

impl<'a> SystemdBoot<'a> {
    pub(super) fn new(host: &'a dyn Host, boot: &'a BootConfig) -> Self {
        SystemdBoot { host, boot }
    }

    /// The folder must be there: making it would hide that the ESP is not mounted.
    fn folder(&self) -> Result<PrivateDir, AgentError> {
        PrivateDir::open_on(self.host, &self.boot.esp.join("loader/entries")).map_err(|error| {
            AgentError::from(error)
                .context("boot.esp")
                .or_hint("mount the EFI system partition there, writable by root alone")
        })
    }

    fn entries(&self) -> Result<Entries<PrivateDir>, AgentError> {
        Ok(Entries::new(self.folder()?))
    }

    /// What a slot's entry says, checked against the other slot's.
    fn content(&self, slot: Slot) -> Result<Vec<u8>, AgentError> {
        let read = |slot: Slot| {
            let path = self.boot.esp.join(format!("loader/racklet/{slot}.conf"));
            let shown = path.display().to_string();
            let bytes = self.host.read_trusted(&path, ENTRY_LIMIT).map_err(|error| {
                AgentError::from(error)
                    .or_config()
                    .context(&shown)
                    .hint("write what boots the slot into it, without `version`")
            })?;
            let fields = EntryFields::parse(&String::from_utf8_lossy(&bytes));
            let wrong = |why: &str| {
                let text = format!("{shown} {why}");
                Err(AgentError::new(Reason::Config, text).hint("see boot/systemd-boot/a.conf"))
            };
            match &fields {
                EntryFields { boots: false, .. } => wrong("has neither `linux` nor `efi`"),
                EntryFields { version: Some(_), .. } => {
                    wrong("has a `version`, which would decide instead of the entry's name")
                }
                _ => Ok((bytes, fields)),
            }
        };
        let ((own, fields), (_, other)) = (read(slot)?, read(slot.other())?);
        let key = |fields: &EntryFields| (fields.sort_key.clone(), fields.machine_id.clone());
        if key(&fields) != key(&other) {
            let text = "sort-key or machine-id differ in loader/racklet/a.conf and b.conf";
            return Err(AgentError::new(Reason::Config, text).hint("make them the same"));
        }
        Ok(own)
    }

    /// What the slot's entry says now: it has been booted, and is confirmed as it is.
    fn present(&self, slot: Slot) -> Result<Vec<u8>, AgentError> {
        let folder = self.folder()?;
        let entries = Entries::new(self.folder()?).load()?;
        let name = entry_of(&entries, slot).map(|entry| entry.to_string());
        let present = match name {
            Some(name) => folder.read(&name, ENTRY_LIMIT)?,
            None => None,
        };
        present.map_or_else(|| self.content(slot), Ok)
    }

    /// An entry of somebody else that systemd-boot boots before ours.
    fn preferred_stranger(&self) -> Result<Option<String>, AgentError> {
        let folder = self.folder()?;
        let mut entries = Vec::new();
        for name in folder.list()?.into_iter().filter(|name| bls::EntryName::parse(name).is_some())
        {
            let content = folder.read(&name, ENTRY_LIMIT)?.unwrap_or_default();
            let fields = EntryFields::parse(&String::from_utf8_lossy(&content));
            if fields.boots {
                entries.push((name, fields));
            }
        }
        let first = entries.iter().min_by(|a, b| menu_order((&a.0, &a.1), (&b.0, &b.1)));
        Ok(first.map(|(name, _)| name.clone()).filter(|name| SlotEntry::parse(name).is_none()))
    }
}

impl BootControl for SystemdBoot<'_> {
    fn flags(&self) -> Result<BootFlags, AgentError> {
        Ok(bls::slots(&self.entries()?.load()?))
    }

    fn write(&self, edit: FlagEdit, wanted: BootFlags) -> Result<BootFlags, AgentError> {
        let entries = self.entries()?;
        match edit {
            // An entry has no name that says "refused"; only the chooser asks for it.
            FlagEdit::Clear(slot) | FlagEdit::Refuse(slot) => entries.clear(slot)?,
            FlagEdit::Activate { slot, tries } => {
                entries.activate(slot, tries, &self.content(slot)?)?;
            }
            FlagEdit::Spend(slot) => entries.spend(slot)?,
            FlagEdit::Confirm(slot) => entries.confirm(slot, &self.present(slot)?)?,
            FlagEdit::Prefer(slot) => entries.prefer(slot, &self.present(slot)?)?,
        }
        same(wanted, self.flags()?, &self.boot.esp.display().to_string())
    }

    fn can_write(&self) -> Result<(), AgentError> {
        let entries = self.boot.esp.join("loader/entries");
        // On a machine of memory there is no such path, and nothing to be read-only.
        if entries.exists()
            && let Err(errno) = rustix::fs::access(&entries, rustix::fs::Access::WRITE_OK)
        {
            let text = format!("{} cannot be written", entries.display());
            let refused = std::io::Error::from(errno);
            return Err(AgentError::from_cause(Reason::BootRecord, text, refused)
                .hint("mount the ESP read-write; after errors check it with fsck.vfat"));
        }
        Ok(())
    }

    fn weakness(&self) -> Result<Option<String>, AgentError> {
        for slot in Slot::BOTH {
            self.content(slot)?;
        }
        if let Some(name) = self.preferred_stranger()? {
            return Ok(Some(format!(
                "systemd-boot boots {name} before our entries: remove it, or give ours a smaller \
                 sort-key in loader/racklet/"
            )));
        }
        let config = self.boot.esp.join("loader/loader.conf");
        let text = self.host.read_trusted(&config, ENTRY_LIMIT).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let default = text.lines().find(|line| line.trim_start().starts_with("default"));
        Ok(default.map(|line| {
            format!(
                "{} says `{}`, which overrides the order of entries",
                config.display(),
                line.trim()
            )
        }))
    }
}
