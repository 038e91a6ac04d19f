//! What goes where on the disk of a node. Pure: facts in, a plan out.
//!
//! ```text
//!  0        protective MBR, GPT
//!           U-Boot, its environment outside of partitions, where the board has them
//!  1 MiB    esp, boot, autoboot     the loader's own, where it has one
//!           component a, b          the boot component first, the others by name
//!           data                    last, so that it can be made longer on a larger disk
//!  + 1 MiB  backup GPT
//! ```
//! All partitions begin and end at whole MiB, but for the copies of U-Boot's environment.

mod firmware;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component as PathPart, Path, PathBuf};

use formats::boot_flags::SlotFlags;
use formats::boot_record::{PerSlot, Slot};
use formats::gpt::Guid;
use formats::gpt::entry::LABEL_UNITS;
use formats::release::ComponentName;

use self::firmware::{loader_partition, outside};
use super::board::{Board, Loader, Size, fat_type, reserved_type};
use super::identity::Seed;
use super::layout::{EspFile, Holds, Layout, LayoutError, Partition};
use super::node::{Node, Where};

const MIB: u64 = 1 << 20;
/// 34 MiB: the least on which FAT32 has the clusters that make it FAT32 (65,525 of 512 bytes, and both tables).
const FAT_LEAST: u64 = 34 * MIB;
/// 8 MiB on the ESP for the boot loader, its entries, directories and the FAT itself.
const ESP_OVERHEAD: u64 = 8 * MIB;
/// 16 MiB: room for a journal of ext4 and the state.
const DATA_LEAST: u64 = 16 * MIB;
/// 1 MiB behind the image of a node whose chooser verifies slots: room for the proof of its release.
const PROOF: u64 = MIB;

/// The flags of the first slot; those of the other one are cleared.
pub const FIRST: SlotFlags = SlotFlags { priority: 1, tries: 0, successful: true };

/// An image of the release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image {
    /// Its length in bytes.
    pub len: u64,
    /// Whether the root of a dm-verity tree is signed for it.
    pub verity: bool,
}

/// Lays out the disk of a node. `images` are those of the release for this node, `raw` the lengths of the board's
/// programs outside of partitions, in its order.
pub fn plan(
    board: &Board,
    node: &Node,
    images: &BTreeMap<ComponentName, Image>,
    raw: &[u64],
    seed: Seed,
) -> Result<Layout, LayoutError> {
    firmware::check(board, node)?;
    let mut layout = Layout {
        len: 0,
        guid: seed.guid("disk"),
        partitions: Vec::new(),
        raw: outside(board, raw)?,
        esp_files: Vec::new(),
        elsewhere: Vec::new(),
    };
    let next = aligned("partitions_from", board.partitions_from)?;
    let mut partitions = Partitions { seed, next, made: Vec::new() };
    if let Some(own) = loader_partition(board, node) {
        let len = aligned(own.key, own.size)?;
        at_least(own.what, own.size, FAT_LEAST)?;
        partitions.add(&own.label, own.type_guid, 0, len, Holds::Loader);
    }
    let copies = board.env.iter().flat_map(|env| env.offsets().map(|offset| (offset, env.size.0)));
    for (copy, (offset, len)) in (1..).zip(copies) {
        partitions.add_at(&format!("env-{copy}"), reserved_type(), offset, len, Holds::Env(copy));
    }
    for (name, places) in in_order(node) {
        component(board, node, name, places, &mut partitions, &mut layout)?;
    }
    check_images(board, node, images, &layout)?;
    check_esp(board, node, &layout)?;
    firmware::check_slots(board, node, &partitions.made)?;
    let data = aligned("data.size", board.data.size)?;
    at_least("the data partition", board.data.size, DATA_LEAST)?;
    partitions.add(&board.data.label, Guid::LINUX, 0, data, Holds::Data);
    within_data(board, "state_dir", &node.state_dir)?;
    layout.len = partitions.next + MIB;
    layout.partitions = partitions.made;
    check_labels(&layout)?;
    Ok(layout)
}

/// Where a file of the node lies on the data partition; `None`: in the slot, or elsewhere.
pub fn on_data(board: &Board, path: &Path) -> Option<PathBuf> {
    let below = path.strip_prefix(&board.data.mount).ok()?;
    let plain = below.components().all(|part| matches!(part, PathPart::Normal(_)));
    (plain && !below.as_os_str().is_empty()).then(|| below.to_owned())
}

/// The partitions as far as they are laid out.
struct Partitions {
    seed: Seed,
    next: u64,
    made: Vec<Partition>,
}

impl Partitions {
    fn add(&mut self, label: &str, type_guid: Guid, attributes: u64, len: u64, holds: Holds) {
        let offset = self.next;
        self.next = self.next.saturating_add(len);
        self.add_at(label, type_guid, offset, len, holds);
        self.made.iter_mut().rev().take(1).for_each(|made| made.attributes = attributes);
    }

    /// One before the others.
    fn add_at(&mut self, label: &str, type_guid: Guid, offset: u64, len: u64, holds: Holds) {
        let number = self.made.len() + 1;
        let guid = self.seed.guid(&format!("partition {number}"));
        let label = label.to_owned();
        self.made.push(Partition { label, guid, type_guid, attributes: 0, offset, len, holds });
    }
}

/// The components, the one that carries the boot flags first.
fn in_order(node: &Node) -> Vec<(&ComponentName, &PerSlot<Where>)> {
    let mut places: Vec<_> = node.places.iter().collect();
    places.sort_by_key(|(name, _)| **name != node.boot);
    places
}

fn component(
    board: &Board,
    node: &Node,
    name: &ComponentName,
    places: &PerSlot<Where>,
    partitions: &mut Partitions,
    layout: &mut Layout,
) -> Result<(), LayoutError> {
    let size = || board.slots.get(name).ok_or_else(|| LayoutError::NoSize(name.clone()));
    let on_esp = |path: &Path| path.strip_prefix(&node.esp).ok().map(Path::to_owned);
    match (&places.a, &places.b) {
        (Where::Partition(a), Where::Partition(b)) => {
            let len = aligned(&format!("slots.{name}"), *size()?)?;
            for (label, slot) in [(a, Slot::A), (b, Slot::B)] {
                let (type_guid, attributes) = kind(board, node, name, slot);
                let holds = Holds::Component(name.clone(), slot);
                partitions.add(label, type_guid, attributes, len, holds);
            }
        }
        (Where::Path(a), Where::Path(b)) if board.esp.is_some() => match (on_esp(a), on_esp(b)) {
            (Some(a), Some(b)) => {
                let len = aligned(&format!("slots.{name}"), *size()?)?;
                for (path, slot) in [(a, Slot::A), (b, Slot::B)] {
                    let (path, component) = (esp_path(&path)?, name.clone());
                    layout.esp_files.push(EspFile { path, len, component, slot });
                }
            }
            _ => layout.elsewhere.push(name.clone()),
        },
        (Where::Partition(_), _) | (_, Where::Partition(_)) => {
            return Err(LayoutError::Unlike(name.clone()));
        }
        _ => layout.elsewhere.push(name.clone()),
    }
    Ok(())
}

/// Type and attributes of a component's partition.
fn kind(board: &Board, node: &Node, name: &ComponentName, slot: Slot) -> (Guid, u64) {
    let boot = *name == node.boot;
    let type_guid = match board.loader {
        _ if *name == board.system(&node.boot) => board.architecture.root_type(),
        Loader::RaspberryPi if boot => fat_type(),
        _ => Guid::LINUX,
    };
    let flags = match (board.loader, slot) {
        (Loader::Chooser, Slot::A) if boot => FIRST.put_into(0),
        _ => 0,
    };
    (type_guid, flags)
}

fn check_images(
    board: &Board,
    node: &Node,
    images: &BTreeMap<ComponentName, Image>,
    layout: &Layout,
) -> Result<(), LayoutError> {
    for name in node.places.keys().filter(|name| !layout.elsewhere.contains(name)) {
        let hardware = || node.hardware.join(", ");
        let image = images.get(name).copied().ok_or_else(|| {
            let component = name.clone();
            LayoutError::NoImage { component, hardware: hardware() }
        })?;
        let slot = board.slots.get(name).map_or(0, |size| size.0);
        let proved = node.verity && *name == node.boot;
        if proved && !image.verity {
            return Err(LayoutError::NoVerity(name.clone()));
        }
        let proof = if proved { PROOF } else { 0 };
        if image.len.saturating_add(proof) > slot {
            let (component, image) = (name.clone(), image.len);
            return Err(LayoutError::TooLarge { component, image, proof, slot });
        }
    }
    Ok(())
}

/// What systemd-boot starts has to be on the ESP, and all files have to fit there.
fn check_esp(board: &Board, node: &Node, layout: &Layout) -> Result<(), LayoutError> {
    let Some(esp) = &board.esp else { return Ok(()) };
    let has = |name: &ComponentName| layout.esp_files.iter().any(|file| file.component == *name);
    let (kernel, initrd) = (&board.kernel.linux, &board.kernel.initrd);
    let missing = match (has(kernel), node.places.contains_key(initrd) && !has(initrd)) {
        (false, _) => Some(kernel),
        (_, true) => Some(initrd),
        _ => None,
    };
    if let Some(component) = missing {
        let (component, esp) = (component.clone(), node.esp.display().to_string());
        return Err(LayoutError::NotOnEsp { component, esp });
    }
    let files = layout.esp_files.iter().map(|file| file.len);
    let least = files.fold(ESP_OVERHEAD, u64::saturating_add);
    if least > esp.size.0 {
        return Err(LayoutError::EspFull { size: esp.size, least: Size(least) });
    }
    Ok(())
}

/// A path on the ESP, as boot entries and FAT keep it.
fn esp_path(path: &Path) -> Result<String, LayoutError> {
    let plain = |part: PathPart<'_>| {
        match part {
            PathPart::Normal(name) => name.to_str().filter(|name| {
                name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
            }),
            _ => None,
        }
        .map(str::to_owned)
    };
    let parts: Option<Vec<String>> = path.components().map(plain).collect();
    let parts = parts.filter(|parts| !parts.is_empty());
    parts.map(|parts| parts.join("/")).ok_or_else(|| LayoutError::EspName(path.to_owned()))
}

/// Requires that a file or directory is kept through updates.
fn within_data(board: &Board, what: &'static str, path: &Path) -> Result<(), LayoutError> {
    match on_data(board, path) {
        Some(_) => Ok(()),
        None => {
            let (path, mount) = (path.to_owned(), board.data.mount.clone());
            Err(LayoutError::OutsideData { what, path, mount })
        }
    }
}

fn check_labels(layout: &Layout) -> Result<(), LayoutError> {
    let mut seen = BTreeSet::new();
    for Partition { label, .. } in &layout.partitions {
        let fits = (1..=LABEL_UNITS).contains(&label.encode_utf16().count());
        if !fits || !seen.insert(label) {
            return Err(LayoutError::Label(label.clone()));
        }
    }
    Ok(())
}

fn aligned(what: &str, Size(size): Size) -> Result<u64, LayoutError> {
    if size == 0 || size % MIB != 0 {
        return Err(LayoutError::Unaligned { what: what.to_owned(), size });
    }
    Ok(size)
}

fn at_least(what: &'static str, size: Size, least: u64) -> Result<(), LayoutError> {
    let least = Size(least);
    if size < least { Err(LayoutError::TooSmall { what, size, least }) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
