//! What bytes a configuration's places stand for, and who else needs them.
//!
//! A name proves nothing: a partition is reached by its label, its node, a link, its offset on the disk, a loop
//! device or the file below that. So a place is compared by the bytes it [stands for](storage::block::extent) with
//! those of every other place and of every mounted file system, before it is written.

use std::path::Path;

use formats::boot_record::Slot;
use formats::gpt::Table;
use formats::reason::Reason;
use formats::release::ComponentName;
use storage::block::extent::{Extent, shared};

use crate::config::Backend;
use crate::disk::Disk;
use crate::error::AgentError;
use crate::place::{Owner, Place};

/// Bytes that somebody needs.
struct Occupied<'a> {
    owner: Owner<'a>,
    /// For messages.
    what: String,
    extents: Vec<Extent>,
    /// It runs, or is mounted.
    runs: bool,
}

impl Disk {
    /// Refuses a place that somebody else needs a byte of.
    ///
    /// # Errors
    ///
    /// `slot_active` when it runs or is mounted, `config` when another place of the configuration covers it.
    pub(crate) fn check_alone(&self, owner: Owner<'_>) -> Result<(), AgentError> {
        alone(owner, &self.occupied()?)
    }

    /// [`Disk::check_alone`] of every component of a slot that does not run.
    pub(crate) fn check_slot(&self, slot: Slot) -> Result<(), AgentError> {
        if slot == self.booted()? {
            return Ok(());
        }
        let occupied = self.occupied()?;
        self.components(slot).try_for_each(|name| alone(Owner::Slot(slot, name), &occupied))
    }

    /// Everything that this configuration and this boot need.
    fn occupied(&self) -> Result<Vec<Occupied<'_>>, AgentError> {
        let table = &self.table()?;
        let booted = self.booted()?;
        let mut occupied = Vec::new();
        for slot in Slot::BOTH {
            for name in self.components(slot) {
                let extents = match self.place(slot, name)? {
                    Place::Device(own) => self.host().extents(&own.device),
                    Place::Label(_) => self.extents_of_partition(table, slot, name)?,
                };
                let (owner, what) = (Owner::Slot(slot, name), format!("{name} of slot {slot}"));
                occupied.push(Occupied { owner, what, extents, runs: slot == booted });
            }
        }
        for name in self.singles() {
            let Some(single) = self.single(name) else { continue };
            occupied.push(Occupied {
                owner: Owner::Bank(name),
                what: format!("the bank of {name}"),
                extents: self.host().extents(&single.bank.device),
                runs: true,
            });
        }
        let other =
            |what: String, extents, runs| Occupied { owner: Owner::Other, what, extents, runs };
        for extent in self.extents_of_table(table) {
            occupied.push(other("the partition table of boot.disk".to_owned(), vec![extent], true));
        }
        if self.boot().backend == Backend::UbootEnv {
            let extents = crate::boot::uboot_env_extents(self.host(), self.boot());
            occupied.push(other("U-Boot's environment".to_owned(), extents, true));
        }
        for (point, extents) in self.host().mounted() {
            occupied.push(other(format!("the file system at {}", point.display()), extents, true));
        }
        Ok(occupied)
    }

    /// Whether a file system on a component can be written by the system that runs. One that cannot be asked
    /// can.
    pub(crate) fn is_mounted_writable(
        &self,
        table: &Table,
        slot: Slot,
        name: &ComponentName,
    ) -> bool {
        let own = match self.place(slot, name) {
            Ok(Place::Device(own)) => self.host().extents(&own.device),
            Ok(Place::Label(_)) => self.extents_of_partition(table, slot, name).unwrap_or_default(),
            Err(_) => return false,
        };
        let writable = |point: &Path| {
            let found = rustix::fs::statvfs(point);
            found.is_ok_and(|found| !found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
        };
        let mounted = self.host().mounted();
        mounted.iter().any(|(point, other)| shared(&own, other).is_some() && writable(point))
    }

    fn extents_of_partition(
        &self,
        table: &Table,
        slot: Slot,
        name: &ComponentName,
    ) -> Result<Vec<Extent>, AgentError> {
        let partition = self.partition(table, slot, name)?;
        let geometry = table.geometry();
        let (start, len) = (partition.offset(geometry), partition.len(geometry));
        Ok(self.of_disk(start, len))
    }

    /// What lies before the first usable byte and behind the last one.
    fn extents_of_table(&self, table: &Table) -> Vec<Extent> {
        let (start, end) = table.usable();
        let mut extents = self.of_disk(0, start);
        extents.extend(self.of_disk(end, u64::MAX));
        extents
    }

    fn of_disk(&self, start: u64, len: u64) -> Vec<Extent> {
        let disk: &Path = self.path();
        self.host().extents(disk).iter().map(|extent| extent.part(start, len)).collect()
    }
}

/// Refuses what `owner` needs when somebody else does, too.
fn alone(owner: Owner<'_>, occupied: &[Occupied<'_>]) -> Result<(), AgentError> {
    let Some(wanted) = occupied.iter().find(|one| one.owner == owner) else { return Ok(()) };
    let others = occupied.iter().filter(|one| one.owner != owner);
    let conflicts = others.filter(|one| shared(&wanted.extents, &one.extents).is_some());
    // What runs first: it is the worse mistake.
    let Some(other) = conflicts.min_by_key(|one| !one.runs) else { return Ok(()) };
    let text = format!("{} and {} are the same bytes", wanted.what, other.what);
    let reason = if other.runs { Reason::SlotActive } else { Reason::Config };
    Err(AgentError::new(reason, text)
        .hint("give each place of [slots] and [single] a partition or device of its own"))
}
