//! What must be true of every state that a power cut leaves: S1 to S5 and L3 of
//! `docs/threat-model.md`.

use std::path::Path;

use formats::autoboot;
use formats::bls::SlotEntry;
use formats::boot_record::Slot;
use formats::tuf::{Envelope, Role};
use storage::esp::ENTRY_LIMIT;
use storage::files::{Files as _, PrivateDir};
use storage::sim::Media;
use update_core::boot::{BootFlags, select};

use crate::node::{self, Backend, ENTRIES, Kit, Node};
use crate::repository::Release;

/// What was true before the run that was cut.
#[derive(Debug, Clone)]
pub struct Before {
    /// Versions of root, timestamp, snapshot and targets; 0 for none.
    pub trusted: [i64; 4],
    /// After a reset, which forgets them: the versions that its repository has. Then nothing at all
    /// may be trusted, or these; not a mixture with what was forgotten.
    pub relearned: Option<[i64; 4]>,
    /// The floor.
    pub floor: u64,
    /// The slot that ran, and what it held.
    pub running: Option<(Slot, Vec<u64>)>,
}

/// All releases of a repository, to be found in slots again.
#[derive(Debug)]
pub struct Known {
    releases: Vec<(u64, Vec<(u64, u64)>)>,
}

impl Known {
    /// The releases, and first what the factory wrote, of security version 0.
    pub fn new(factory: &[Vec<u8>], releases: &[Release]) -> Self {
        let hashes = |images: Vec<&Vec<u8>>| -> Vec<(u64, u64)> {
            let hash = |bytes: &Vec<u8>| {
                let len = bytes.len() as u64;
                (Media::new().with_bytes("/image", bytes).hash_of("/image", 0, len), len)
            };
            images.into_iter().map(hash).collect()
        };
        let first = (0, hashes(factory.iter().collect()));
        let others = releases.iter().map(|release| {
            let images = release.images.iter().map(|(_, image)| image).collect();
            (release.security_version, hashes(images))
        });
        Known { releases: std::iter::once(first).chain(others).collect() }
    }

    /// Which of them a slot holds, whole and all of its components; 0 is the factory's.
    pub fn held(&self, kit: &Kit, media: &Media, slot: Slot) -> Option<usize> {
        self.releases.iter().position(|(_, images)| {
            images.iter().enumerate().all(|(component, (hash, len))| {
                let (path, offset, _) = kit.place(slot, component);
                media.hash_of(path, offset, *len) == *hash
            })
        })
    }

    fn security_version(&self, release: usize) -> u64 {
        self.releases.get(release).map_or(0, |release| release.0)
    }
}

/// Hashes of what a slot's partitions hold.
pub fn slot_hashes(kit: &Kit, media: &Media, slot: Slot) -> Vec<u64> {
    (0..kit.components)
        .map(|component| {
            let (path, offset, len) = kit.place(slot, component);
            media.hash_of(path, offset, len)
        })
        .collect()
}

/// Versions of the trusted metadata of a node, the floor, and what its running slot holds.
pub fn before(node: &Node<'_>) -> Result<Before, String> {
    let agent = node.agent().map_err(|error| error.chain())?;
    let trusted = trusted(&agent)?;
    let floor = agent.state.floor().map_err(|error| error.chain())?;
    let media = node.machine.media();
    let running = node.booted.map(|slot| (slot, slot_hashes(node.kit(), &media, slot)));
    Ok(Before { trusted, relearned: None, floor, running })
}

fn trusted(agent: &update_agent::agent::Agent) -> Result<[i64; 4], String> {
    let stored = agent.state.trust().map_err(|error| error.chain())?;
    let version = |role: &Role| -> Result<i64, String> {
        let Some(bytes) = stored.file(role) else { return Ok(0) };
        let envelope = Envelope::parse(bytes).map_err(|error| error.to_string())?;
        let version = envelope.signed().get("version").and_then(formats::json::Value::as_int);
        version.ok_or_else(|| format!("{role} has no version"))
    };
    Ok([
        version(&Role::Root)?,
        version(&Role::Timestamp)?,
        version(&Role::Snapshot)?,
        version(&Role::Targets)?,
    ])
}

/// Whether a state keeps the promises S1 to S5 and L3; the first that it breaks.
pub fn check(node: &Node<'_>, known: &Known, before: &Before) -> Result<(), String> {
    let media = node.machine.media();
    let kit = node.kit();
    if let Some((slot, held)) = &before.running
        && slot_hashes(kit, &media, *slot) != *held
    {
        return Err(format!("S1: slot {slot} was written while it ran"));
    }
    let agent = node.agent().map_err(|error| format!("S8: {}", error.chain()))?;
    let flags = agent.flags().map_err(|error| format!("S3: no boot flags: {}", error.chain()))?;
    let held = |slot: Slot| known.held(kit, &media, slot);
    let mut lowest = u64::MAX;
    for slot in Slot::BOTH {
        if !flags.of(slot).bootable() {
            continue;
        }
        let Some(release) = held(slot) else {
            return Err(format!("S2: slot {slot} is bootable and holds no whole release"));
        };
        lowest = lowest.min(known.security_version(release));
    }
    last_resort(flags)?;
    named_partitions(node, &flags, &held)?;
    whole_entries(node)?;
    let trusted = trusted(&agent).map_err(|error| format!("S8: trusted metadata: {error}"))?;
    // A newer root may have taken away the keys of timestamp and snapshot: then they begin again.
    let rooted = trusted[0] > before.trusted[0];
    let fell = |nth: usize| trusted[nth] < before.trusted[nth] && !(rooted && matches!(nth, 1 | 2));
    let forgotten = |relearned: [i64; 4]| {
        trusted.iter().zip(relearned).all(|(now, known)| [0, known].contains(now))
    };
    if (0..trusted.len()).any(fell) && !before.relearned.is_some_and(forgotten) {
        return Err(format!("S4: trusted versions fell from {:?} to {trusted:?}", before.trusted));
    }
    let floor = agent.state.floor().map_err(|error| format!("S8: floor: {}", error.chain()))?;
    if floor < before.floor {
        return Err(format!("S5: the floor fell from {} to {floor}", before.floor));
    }
    if floor > lowest {
        return Err(format!("S5: the floor {floor} is above security version {lowest} of a slot"));
    }
    Ok(())
}

/// What the boot loader of a Raspberry Pi finds, by the rules of its documentation: without being asked it boots a
/// confirmed slot, and whoever asks for a tryboot gets a whole release.
fn named_partitions(
    node: &Node<'_>,
    flags: &BootFlags,
    held: &dyn Fn(Slot) -> Option<usize>,
) -> Result<(), String> {
    let Some(bytes) = node.autoboot()? else { return Ok(()) };
    for tryboot in [false, true] {
        let number = autoboot::boots(&bytes, tryboot);
        let slot = node.kit().slot_on(number);
        let slot =
            slot.ok_or_else(|| format!("S3: partition {number} boots (tryboot: {tryboot})"))?;
        if held(slot).is_none() {
            return Err(format!("S2: slot {slot} boots (tryboot: {tryboot}), and is not whole"));
        }
        if !tryboot && !flags.of(slot).confirmed() {
            return Err(format!("S3: slot {slot} boots and is not confirmed"));
        }
    }
    Ok(())
}

/// An entry that systemd-boot sees is whole: its name alone boots nothing.
fn whole_entries(node: &Node<'_>) -> Result<(), String> {
    if node.kit().backend != Backend::SystemdBoot {
        return Ok(());
    }
    let folder = PrivateDir::open_on(&node.machine, Path::new(ENTRIES))
        .map_err(|error| error.to_string())?;
    for name in folder.list().map_err(|error| error.to_string())? {
        let Some(entry) = SlotEntry::parse(&name) else { continue };
        let content = folder.read(&name, ENTRY_LIMIT).map_err(|error| error.to_string())?;
        if content != Some(node::entry(entry.slot.name())) {
            return Err(format!("S2: the entry {name} is not whole"));
        }
    }
    Ok(())
}

/// Follows the boot loader while every trial fails: it has to end on a confirmed slot.
fn last_resort(flags: BootFlags) -> Result<(), String> {
    let mut flags = flags;
    for _ in 0..=16 {
        let Some(choice) = select(flags) else {
            return Err("S3: no slot boots".to_owned());
        };
        if flags.of(choice.slot).successful {
            return Ok(());
        }
        flags = choice.flags;
    }
    Err("L3: a trial never ends".to_owned())
}
