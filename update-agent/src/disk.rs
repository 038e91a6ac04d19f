//! The node's disk: its slots, and which of them runs. Its boot flags are in [`crate::boot`].

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use formats::boot_flags::BootFlags;
use formats::boot_record::{PerSlot, Slot};
use formats::gpt::{Partition, Table};
use formats::reason::Reason;
use formats::release::ComponentName;
use storage::block::{Access, BlockDevice};
use storage::host::Host;
use update_core::chooser::ChooserFloor;
use update_core::update::{BootLoader, Evidence, next_slot};

use crate::config::{Backend, BootConfig, Config, SingleBank};
use crate::error::{AgentError, Because as _};
use crate::place::{Owner, Place};

/// A disk with a partition table.
#[derive(Debug)]
pub(crate) struct Disk {
    host: Arc<dyn Host>,
    path: PathBuf,
    boot: BootConfig,
    places: PerSlot<BTreeMap<ComponentName, Place>>,
    single: BTreeMap<ComponentName, SingleBank>,
}

impl Disk {
    /// The disk of a configuration. Opens nothing yet.
    pub(crate) fn new(config: &Config, host: Arc<dyn Host>) -> Self {
        Disk {
            host,
            path: config.boot.disk.clone(),
            boot: config.boot.clone(),
            places: config.slots.clone(),
            single: config.single.clone(),
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The machine it is part of.
    pub(crate) fn host(&self) -> &dyn Host {
        self.host.as_ref()
    }

    /// How it boots.
    pub(crate) fn boot(&self) -> &BootConfig {
        &self.boot
    }

    /// The table the boot loader would use, without repairing anything.
    pub(crate) fn table(&self) -> Result<Table, AgentError> {
        Ok(self.choice()?.table)
    }

    /// Which copy of the table is invalid or differs, if one does.
    pub(crate) fn damaged_copy(&self) -> Result<Option<formats::gpt::TableCopy>, AgentError> {
        Ok(self.choice()?.repair)
    }

    pub(crate) fn place(
        &self,
        slot: Slot,
        component: &ComponentName,
    ) -> Result<&Place, AgentError> {
        self.places.of(slot).get(component).ok_or_else(|| {
            AgentError::new(Reason::Config, format!("slot {slot} has no component {component}"))
        })
    }

    /// Makes a component with a switch of its own start from a slot. Done twice it is done once.
    pub(crate) fn switch(&self, slot: Slot, component: &ComponentName) -> Result<(), AgentError> {
        match self.place(slot, component)? {
            Place::Device(own) => own
                .switch(self.host())
                .map_err(|error| error.context(format!("{component}, slot {slot}"))),
            Place::Label(_) => Ok(()),
        }
    }

    /// The components of a slot, by name.
    pub(crate) fn components(&self, slot: Slot) -> impl Iterator<Item = &ComponentName> {
        self.places.of(slot).keys()
    }

    /// Components that start by themselves: those with a switch, and those with a single bank.
    pub(crate) fn switched(&self) -> Vec<&ComponentName> {
        let own = |place: &Place| matches!(place, Place::Device(own) if own.switch.is_some());
        let places = self.places.a.iter();
        let mine = places.filter(|(name, place)| own(place) || self.single.contains_key(*name));
        mine.map(|(name, _)| name).collect()
    }

    /// The only bank of a component.
    pub(crate) fn single(&self, component: &ComponentName) -> Option<&SingleBank> {
        self.single.get(component)
    }

    /// Components with a single bank.
    pub(crate) fn singles(&self) -> impl Iterator<Item = &ComponentName> {
        self.single.keys()
    }

    /// Opens the copy of a component with a single bank, in any slot: nothing runs from it.
    pub(crate) fn open_copy(
        &self,
        slot: Slot,
        component: &ComponentName,
        access: Access,
    ) -> Result<Box<dyn BlockDevice>, AgentError> {
        if access != Access::Read {
            self.check_alone(Owner::Slot(slot, component))?;
        }
        self.open_slot(slot, component, access)
    }

    /// Components that run from the bank of a slot, by the hardware's own word. An eMMC knows only what starts next:
    /// that is no mixture when the slot of that name does, too.
    pub(crate) fn running_in(
        &self,
        slot: Slot,
        flags: BootFlags,
    ) -> Result<Vec<&ComponentName>, AgentError> {
        let mut running = Vec::new();
        let starts = next_slot(flags) == Some(slot);
        for (component, place) in self.places.of(slot) {
            if let Place::Device(own) = place
                && !(own.is_emmc_boot() && starts)
                && own.runs(self.host())?
            {
                running.push(component);
            }
        }
        Ok(running)
    }

    /// The partition of a component in a slot.
    pub(crate) fn partition(
        &self,
        table: &Table,
        slot: Slot,
        component: &ComponentName,
    ) -> Result<Partition, AgentError> {
        let Place::Label(label) = self.place(slot, component)? else {
            let text = format!("{component} of slot {slot} is no partition of boot.disk");
            return Err(AgentError::new(Reason::Config, text));
        };
        table.find(label).because(
            Reason::GptInvalid,
            format!("partition {label:?} of slot {slot} on {}", self.path.display()),
        )
    }

    /// Capacity in bytes of each component's partition in a slot; refuses one that somebody else needs.
    pub(crate) fn capacities(
        &self,
        slot: Slot,
    ) -> Result<BTreeMap<ComponentName, u64>, AgentError> {
        self.check_slot(slot)?;
        let table = self.table()?;
        let capacity = |component: &ComponentName| {
            let len = match self.place(slot, component)? {
                Place::Device(own) => own.open(self.host(), Access::Read)?.len(),
                Place::Label(_) => self.partition(&table, slot, component)?.len(table.geometry()),
            };
            let len = match self.single(component) {
                Some(single) => len.min(single.bank.open(self.host(), Access::Read)?.len()),
                None => len,
            };
            Ok((component.clone(), len))
        };
        self.places.of(slot).keys().map(capacity).collect()
    }

    /// Opens the partition of a component for reading.
    pub(crate) fn open_to_read(
        &self,
        slot: Slot,
        component: &ComponentName,
    ) -> Result<Box<dyn BlockDevice>, AgentError> {
        self.open_slot(slot, component, Access::Read)
    }

    /// Opens the partition of a component for writing, claimed. `booted` is refused, whatever the
    /// configuration says, and so is a partition that is mounted or otherwise in use.
    pub(crate) fn open_to_write(
        &self,
        slot: Slot,
        component: &ComponentName,
        booted: Slot,
    ) -> Result<Box<dyn BlockDevice>, AgentError> {
        if slot == booted {
            let text = format!("slot {slot} ({component}) is the one that runs");
            return Err(AgentError::new(Reason::SlotActive, text)
                .hint("check [slots] in the configuration"));
        }
        self.check_alone(Owner::Slot(slot, component))?;
        self.open_slot(slot, component, Access::Exclusive)
    }

    fn open_slot(
        &self,
        slot: Slot,
        component: &ComponentName,
        access: Access,
    ) -> Result<Box<dyn BlockDevice>, AgentError> {
        let name = |error: AgentError| error.context(format!("slot {slot}, component {component}"));
        if let Place::Device(own) = self.place(slot, component)? {
            return own.open(self.host(), access).map_err(name);
        }
        let table = self.table()?;
        let partition = self.partition(&table, slot, component)?;
        let geometry = table.geometry();
        let (start, len) = (partition.offset(geometry), partition.len(geometry));
        self.host
            .open_partition(&self.path, partition.number, start, len, access)
            .map_err(|error| name(AgentError::from(error)))
    }

    pub(crate) fn open(&self, access: Access) -> Result<Box<dyn BlockDevice>, AgentError> {
        self.host.open_device(&self.path, access).map_err(|error| {
            AgentError::from(error)
                .context("boot.disk")
                .or_hint("the disk must exist before the agent runs; it never creates one")
        })
    }

    /// The slot that runs: by the boot loader's own word where it has one, by the command line of the running
    /// kernel, and, on a real disk, by what is mounted at `/`. Unknown or contradictory is an error: nothing is
    /// guessed.
    pub(crate) fn booted(&self) -> Result<Slot, AgentError> {
        let table = self.table()?;
        let said = self.slot_of_cmdline(&table)?;
        let booted = match self.boot.backend {
            Backend::RpiTryboot => self.slot_by_firmware(&table)?,
            _ => None,
        };
        if let (Some(booted), Some(said)) = (booted, said)
            && booted != said
        {
            let text = format!(
                "{} says slot {said} booted, but the boot loader booted slot {booted}",
                self.boot.cmdline.display()
            );
            return Err(AgentError::new(Reason::BootRecord, text)
                .hint("choose the command line by the partition, as boot/rpi/config.txt does"));
        }
        let said = said.or(booted);
        let mounted = self.slot_of_mounted_root(&table)?;
        match (said, mounted) {
            (Some(said), Some(mounted)) if said != mounted => Err(AgentError::new(
                Reason::BootRecord,
                format!(
                    "{} says slot {said} booted, but / is on slot {mounted}",
                    self.boot.cmdline.display()
                ),
            )
            .hint("nothing is written until they agree; run `update-agent doctor`")),
            (Some(slot), _) | (None, Some(slot)) => Ok(slot),
            (None, None) => Err(AgentError::new(
                Reason::BootRecord,
                format!("cannot tell which slot booted from {}", self.boot.cmdline.display()),
            )
            .hint("boot through `boot-select`, or pass racklet.slot=a or =b, or root=PARTUUID=…")),
        }
    }

    /// What the kernel was told by the boot loader of this boot. Of a command line that cannot be read:
    /// nothing.
    pub(crate) fn evidence(&self) -> Evidence {
        let text = self.host.read_kernel(&self.boot.cmdline).unwrap_or_default();
        let found = Evidence::of_command_line(&text, self.boot.backend.tells_the_kernel());
        match self.boot.backend.has_to_be_asked() {
            true => Evidence { loader: BootLoader::Asked, ..found },
            false => found,
        }
    }

    /// Whether a chooser that reads the flags told the kernel what they say.
    pub(crate) fn chooser_booted(&self) -> bool {
        self.evidence().loader == BootLoader::Told
    }

    /// Why the chooser did not boot a slot in this boot, if it told the kernel so.
    pub(crate) fn refused_by_chooser(&self, slot: Slot) -> Option<String> {
        self.evidence().refused.of(slot).clone()
    }

    /// What the chooser of this boot made of the TPM's floor, if it said so.
    pub(crate) fn chooser_floor(&self) -> ChooserFloor {
        let text = self.host.read_kernel(&self.boot.cmdline).unwrap_or_default();
        ChooserFloor::of_command_line(&text)
    }

    fn slot_of_cmdline(&self, table: &Table) -> Result<Option<Slot>, AgentError> {
        let text = match self.host.read_kernel(&self.boot.cmdline) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                let what = format!("read {}", self.boot.cmdline.display());
                return Err(AgentError::from_cause(Reason::BootRecord, what, error));
            }
        };
        let mut found = None;
        for word in text.split_whitespace() {
            let of_root = || self.slot_of_root(table, word.strip_prefix("root=")?);
            let said = slot_of_word(word).or_else(of_root);
            // The chooser names the slot and its partition: labels that were swapped in the
            // configuration since must not make the running partition the one to write.
            if let (Some(found), Some(said)) = (found, said)
                && found != said
            {
                let path = self.boot.cmdline.display();
                let text = format!("{path} names slot {found} and slot {said} as booted");
                return Err(AgentError::new(Reason::BootRecord, text)
                    .hint("compare [slots] of the configuration with the kernel command line"));
            }
            found = said.or(found);
        }
        Ok(found)
    }

    fn slot_of_root(&self, table: &Table, root: &str) -> Option<Slot> {
        let matches = |partition: &Partition| match root.split_once('=') {
            Some(("PARTUUID", guid)) => guid.eq_ignore_ascii_case(&partition.guid.to_string()),
            Some(("PARTLABEL", label)) => partition.label() == Some(label),
            _ => false,
        };
        Slot::BOTH.into_iter().find(|slot| {
            let partition = self.partition(table, *slot, &self.boot.component);
            partition.is_ok_and(|partition| matches(&partition))
        })
    }

    /// The slot whose boot partition is mounted at `/`, when the disk is a real one.
    fn slot_of_mounted_root(&self, table: &Table) -> Result<Option<Slot>, AgentError> {
        let Ok(disk) = fs::metadata(&self.path) else { return Ok(None) };
        if !disk.file_type().is_block_device() {
            return Ok(None);
        }
        let Ok(root) = fs::metadata("/") else { return Ok(None) };
        let name = |rdev: u64| format!("{}:{}", rustix::fs::major(rdev), rustix::fs::minor(rdev));
        let sysfs = PathBuf::from("/sys/dev/block").join(name(root.dev()));
        let field = |file: &Path| fs::read_to_string(file).ok();
        let parent = field(&sysfs.join("../dev")).unwrap_or_default();
        if parent.trim() != name(disk.rdev()) {
            return Ok(None);
        }
        if !self.boots_from_partition(Slot::A)? {
            return Ok(None);
        }
        let start = field(&sysfs.join("start")).and_then(|text| text.trim().parse::<u64>().ok());
        for slot in Slot::BOTH {
            let partition = self.partition(table, slot, &self.boot.component)?;
            if start.map(|start| start << 9) == Some(partition.offset(table.geometry())) {
                return Ok(Some(slot));
            }
        }
        Ok(None)
    }

    /// Whether what boots in a slot is a partition, and no file that the boot loader reads into memory.
    pub(crate) fn boots_from_partition(&self, slot: Slot) -> Result<bool, AgentError> {
        Ok(matches!(self.place(slot, &self.boot.component)?, Place::Label(_)))
    }

    /// Identifies this boot.
    pub(crate) fn boot_id(&self) -> Result<String, AgentError> {
        let path = &self.boot.boot_id;
        match self.host.read_kernel(path) {
            Ok(text) => Ok(text.trim().chars().take(64).collect()),
            Err(error) => {
                let what = format!("read boot.boot_id {}", path.display());
                Err(AgentError::from_cause(Reason::BootRecord, what, error)
                    .hint("in a simulation, run `update-agent boot-select --simulate` first"))
            }
        }
    }
}

/// The slot that a word of the kernel's command line names, where the partition table has no part in it.
pub(crate) fn slot_of_word(word: &str) -> Option<Slot> {
    match word {
        "racklet.slot=a" => Some(Slot::A),
        "racklet.slot=b" => Some(Slot::B),
        _ => None,
    }
}
