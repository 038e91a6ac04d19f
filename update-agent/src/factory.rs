//! The state of a node that no agent has run on yet: what a factory writes beside the first slot.
//!
//! A first slot that was copied from a published release is known to the agent like one that it wrote itself: its
//! release counts for the floor, its chunks are reused, and `status` names its version.
//!
//! | record | says |
//! |---|---|
//! | `boot-record` | slot a holds the release, confirmed; no update is under way |
//! | `floor` | the security version of the release: nothing older may run here |
//! | `noted` | the lengths of the places in slot a |
//! | `history` | the release was confirmed, by a factory |
//! | `chunks/` | the chunk lists of slot a |
//!
//! Neither the disk nor a partition is noted by its GUID, because each node gets its own at its first boot. The
//! trust root stays the one of the configuration, and no metadata is trusted before the first check.

use std::path::Path;
use std::sync::Arc;

use formats::boot_record::{
    BootRecord, HistoryEvent, PerSlot, ReleaseId, Slot, SlotComponent, SlotContent,
};
use formats::chunks::ChunkList;
use formats::release::ComponentName;
use storage::files::{Files as _, PrivateDir};
use storage::host::System;

use crate::error::AgentError;
use crate::list::List;
use crate::state::{NotedComponent, NotedSlot, State};

/// U-Boot's script that boots a slot by the flags in its environment (`boot/uboot/boot.cmd`).
pub const UBOOT_SCRIPT: &str = include_str!("../boot/uboot/boot.cmd");
/// What comes before it on a U-Boot that does not keep two copies of its environment itself.
pub const UBOOT_REDUNDANT: &str = include_str!("../boot/uboot/redundant.cmd");

/// What the first slot of a node holds.
#[derive(Debug, Clone)]
pub struct FirstSlot {
    /// The release that it was copied from.
    pub release: ReleaseId,
    /// In which order that release switches the components that start by themselves.
    pub order: Vec<ComponentName>,
    /// What was copied.
    pub components: Vec<FirstComponent>,
    /// Unix seconds, for the history.
    pub at: u64,
}

/// A component of the first slot.
#[derive(Debug, Clone)]
pub struct FirstComponent {
    /// What the boot record says of it.
    pub identity: SlotComponent,
    /// The chunk list that `identity` names.
    pub list: ChunkList,
    /// Length in bytes of the partition or file that holds it.
    pub place: u64,
}

/// Writes the state into `dir`, which is made and must not hold a state yet; its parent must be there. The same
/// `first` gives the same files. After a crash, remove the directory and begin again.
///
/// Errors: as every write of the state (`store_io`, `insecure_perms`).
pub fn write_state(dir: &Path, first: &FirstSlot) -> Result<(), AgentError> {
    let state = State::open(dir, Arc::new(System))?;
    let held = state.hold()?;
    for component in &first.components {
        state.keep_chunk_list(&held, &List::from(component.list.clone()))?;
    }
    let mut noted = state.noted();
    noted.slots.a = Some(noted_slot(first));
    state.save_noted(&held, &noted)?;
    state.save_boot_record(&held, &boot_record(first))?;
    state.raise_floor(&held, first.release.security_version)?;
    state.remember(&held, confirmed(first))?;
    drop(held);
    // The lock names the process that held it.
    Ok(PrivateDir::open(dir)?.remove("lock")?)
}

fn boot_record(first: &FirstSlot) -> BootRecord {
    let content = SlotContent {
        release: first.release.clone(),
        components: first.components.iter().map(|one| one.identity.clone()).collect(),
        confirmed: true,
        order: first.order.clone(),
    };
    BootRecord { slots: PerSlot { a: Some(content), b: None }, ..BootRecord::default() }
}

fn noted_slot(first: &FirstSlot) -> NotedSlot {
    let of = |component: &FirstComponent| NotedComponent {
        name: component.identity.name.clone(),
        partition: None,
        len: component.place,
        lived_in: false,
    };
    let components = first.components.iter().map(of).collect();
    NotedSlot { index: first.release.index, components }
}

fn confirmed(first: &FirstSlot) -> HistoryEvent {
    HistoryEvent {
        at: first.at,
        event: "confirmed".to_owned(),
        release: Some(first.release.clone()),
        slot: Some(Slot::A),
        reason: None,
        detail: "installed by the factory".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use formats::chunks::{Builder, Content, FrameEntry, seekable_table_len};
    use formats::digest::{Digest, Sha256};

    use super::*;

    fn first() -> FirstSlot {
        let mut builder = Builder::default();
        builder.chunk(5, Content::Data(Sha256::of(b"image")));
        let frame = FrameEntry { len: 9, chunks: 1, sha256: Sha256::of(b"frame") };
        builder.encoding(Sha256::of(b"blob"), 9 + seekable_table_len(1), &[frame]);
        let list = builder.finish().unwrap();
        let identity = SlotComponent {
            name: "os".parse().unwrap(),
            manifest: Digest::sha256_of(b"manifest"),
            chunks: Digest::sha256_of(list.as_bytes()),
            raw_size: 5,
        };
        let version: formats::version::Version = "1.2.0".parse().unwrap();
        let release =
            ReleaseId { index: Sha256::of(b"index"), version: version.into(), security_version: 7 };
        let components = vec![FirstComponent { identity, list, place: 1 << 20 }];
        FirstSlot { release, order: Vec::new(), components, at: 1_800_000_000 }
    }

    fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(dir).unwrap().flatten().filter(|one| one.path().is_file());
        let name = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        entries.map(|entry| (name(&entry), fs::read(entry.path()).unwrap())).collect()
    }

    #[test]
    fn the_agent_knows_the_first_slot_as_if_it_had_written_it() {
        let dir = tempfile::tempdir().unwrap();
        let (path, first) = (dir.path().join("state"), first());
        write_state(&path, &first).unwrap();
        let state = State::look(&path, Arc::new(System)).unwrap();
        let record = state.boot_record().unwrap();
        let content = record.slots.a.unwrap();
        assert!(content.confirmed && content.release == first.release);
        assert_eq!((record.slots.b, record.update), (None, None));
        assert_eq!(state.floor().unwrap(), 7);
        assert!(state.chunk_list(&content.components[0].chunks).is_some());
        assert_eq!(state.noted().disk, None, "each disk has a GUID of its own");
        assert_eq!(state.flaws().unwrap(), []);
        assert_eq!(state.unread(), Vec::<String>::new());
    }

    #[test]
    fn the_same_first_slot_gives_the_same_files() {
        let dir = tempfile::tempdir().unwrap();
        let made = ["one", "two"].map(|name| {
            write_state(&dir.path().join(name), &first()).unwrap();
            files(&dir.path().join(name))
        });
        assert_eq!(made[0], made[1]);
        assert!(!made[0].contains_key("lock"));
    }
}
