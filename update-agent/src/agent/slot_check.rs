//! Looks whether the slots still hold what the record says, and notes what to compare with.
//!
//! What is compared, and how many bytes are read, is in [`update_core::update::slot_check`].

use formats::boot_record::{BootRecord, PerSlot, Slot, SlotComponent, SlotContent};
use formats::digest::Sha256;
use formats::gpt::Table;
use formats::reason::Reason;
use storage::block::BlockDevice;
use update_core::update::slot_check::{Foreign, Found, Noted, Sample, judge, samples};
use update_core::update::{Evidence, Node};

use crate::boot::BootControl as _;
use crate::disk::Disk;
use crate::error::AgentError;
use crate::state::{NotedComponent, NotedSlot, State, StateGuard};

/// The slots, and what is known of them.
#[derive(Clone, Copy)]
pub(crate) struct SlotCheck<'a> {
    pub(crate) state: &'a State,
    pub(crate) disk: &'a Disk,
}

/// What to do about a slot that another program wrote.
pub(crate) const MEND: &str = "the next `update-agent apply` writes the slot that does not run; \
                               `update-agent confirm --adopt` takes both as they are";

impl SlotCheck<'_> {
    /// The node with this record and this floor, as it is now.
    pub(crate) fn node(&self, record: BootRecord, floor: u64) -> Result<Node, AgentError> {
        let booted = self.disk.booted()?;
        Ok(Node {
            evidence: Evidence { foreign: self.foreign(&record, booted), ..self.disk.evidence() },
            record,
            flags: self.disk.flags()?,
            booted,
            boot_id: self.disk.boot_id()?,
            floor,
        })
    }

    /// Which slots another program has written. Of what cannot be read now nothing is concluded: who
    /// needs it says why it cannot.
    pub(crate) fn foreign(&self, record: &BootRecord, booted: Slot) -> PerSlot<Option<Foreign>> {
        let Ok(table) = self.disk.table() else { return PerSlot::default() };
        let noted = self.state.noted();
        let of = |slot: Slot| {
            let content = record.slots.of(slot).as_ref()?;
            let noted = noted.slots.of(slot).as_ref().filter(|noted| is_of(noted, content));
            content.components.iter().find_map(|component| {
                let noted = noted.and_then(|noted| {
                    let own = noted.components.iter().find(|own| own.name == component.name)?;
                    let (partition, len) = (own.partition.clone(), own.len);
                    Some(Noted { partition, len, lived_in: own.lived_in })
                });
                let found = self.look(&table, slot, slot == booted, component).ok()?;
                judge(noted.as_ref(), &found)
            })
        };
        PerSlot { a: of(Slot::A), b: of(Slot::B) }
    }

    /// Refuses to go back to a slot that another program wrote.
    pub(crate) fn check_fallback(
        &self,
        slot: Slot,
        found: Option<Foreign>,
    ) -> Result<(), AgentError> {
        let Some(foreign) = found else { return Ok(()) };
        let text = format!("slot {slot} was written by another program since: {foreign}");
        Err(AgentError::new(Reason::BootRecord, text).hint(
            "if what it holds is good, run `update-agent confirm --adopt`, then try again; \
             otherwise `update-agent apply` writes it anew",
        ))
    }

    /// Notes what was written to a slot, before the record says that it is there.
    pub(super) fn note_written<'c>(
        &self,
        held: &StateGuard,
        slot: Slot,
        index: Sha256,
        components: impl Iterator<Item = &'c SlotComponent>,
    ) -> Result<(), AgentError> {
        let table = self.disk.table()?;
        let mut noted = self.state.noted();
        let of = |component: &SlotComponent| {
            Ok::<_, AgentError>(NotedComponent {
                name: component.name.clone(),
                partition: self.partition_of(&table, slot, component),
                len: self.disk.open_to_read(slot, &component.name)?.len(),
                lived_in: false,
            })
        };
        let components = components.map(of).collect::<Result<_, _>>()?;
        *noted.slots.of_mut(slot) = Some(NotedSlot { index, components });
        self.state.save_noted(held, &noted)
    }

    /// Notes the disk, if none was, and which components of the booted slot its system has mounted writable.
    pub(super) fn note_use(
        &self,
        held: &StateGuard,
        record: &BootRecord,
        booted: Slot,
    ) -> Result<(), AgentError> {
        let table = self.disk.table()?;
        let before = self.state.noted();
        let mut noted = before.clone();
        noted.disk.get_or_insert_with(|| table.disk_guid().to_string());
        let content = record.slots.of(booted).as_ref();
        if let (Some(slot), Some(content)) = (noted.slots.of_mut(booted), content)
            && is_of(slot, content)
        {
            for own in &mut slot.components {
                own.lived_in |= self.disk.is_mounted_writable(&table, booted, &own.name);
            }
        }
        if noted == before { Ok(()) } else { self.state.save_noted(held, &noted) }
    }

    /// Refuses a disk that is not the one that this state is about: exchanged, or a state directory that was
    /// copied from another node or that two of them share.
    pub(super) fn same_disk(&self) -> Result<(), AgentError> {
        let Some(noted) = self.state.noted().disk else { return Ok(()) };
        let found = self.disk.table()?.disk_guid().to_string();
        if found == noted {
            return Ok(());
        }
        let path = self.disk.path().display();
        let text = format!("{path} is the disk {found}, and this state is about the disk {noted}");
        Err(AgentError::new(Reason::BootRecord, text).hint(
            "give each node a state_dir of its own; if the disk was exchanged, run \
             `update-agent confirm --adopt` once",
        ))
    }

    /// Notes the disk, on an operator's word.
    pub(super) fn accept_disk(&self, held: &StateGuard) -> Result<(), AgentError> {
        let mut noted = self.state.noted();
        noted.disk = Some(self.disk.table()?.disk_guid().to_string());
        self.state.save_noted(held, &noted)
    }

    fn look(
        &self,
        table: &Table,
        slot: Slot,
        booted: bool,
        component: &SlotComponent,
    ) -> Result<Found, AgentError> {
        let device = self.disk.open_to_read(slot, &component.name)?;
        let list = self.state.chunk_list(&component.chunks);
        let samples = list.and_then(|list| samples(&list, component).ok()).unwrap_or_default();
        let differs = samples.iter().map(|sample| differs(device.as_ref(), sample));
        let differs = differs.collect::<Result<Vec<bool>, _>>()?;
        Ok(Found {
            partition: self.partition_of(table, slot, component),
            len: device.len(),
            lived_in: booted && self.disk.is_mounted_writable(table, slot, &component.name),
            sampled: differs.len(),
            differing: differs.iter().filter(|differs| **differs).count(),
        })
    }

    /// The GUID of its partition, where it has one.
    fn partition_of(&self, table: &Table, slot: Slot, component: &SlotComponent) -> Option<String> {
        let partition = self.disk.partition(table, slot, &component.name).ok()?;
        Some(partition.guid.to_string())
    }
}

/// Whether this was noted of that content.
fn is_of(noted: &NotedSlot, content: &SlotContent) -> bool {
    noted.index == content.release.index
}

fn differs(device: &dyn BlockDevice, sample: &Sample) -> Result<bool, AgentError> {
    let end = sample.offset.checked_add(u64::from(sample.len));
    if end.is_none_or(|end| end > device.len()) {
        return Ok(true);
    }
    // What another program wrote through a handle of its own.
    device.forget_cached(sample.offset, u64::from(sample.len));
    let mut buffer = Vec::new();
    // At most `SAMPLE_MAX`.
    let len = usize::try_from(sample.len).unwrap_or(usize::MAX);
    let bytes = device.read_medium(&mut buffer, sample.offset, len)?;
    Ok(Sha256::of(bytes) != sample.digest)
}
