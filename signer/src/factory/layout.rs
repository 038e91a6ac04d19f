//! A disk to be made, as [`plan`](super::plan) lays it out, and why it cannot be.

use std::path::PathBuf;

use formats::boot_record::Slot;
use formats::gpt::{Guid, NewPartition};
use formats::reason::Reason;
use formats::release::ComponentName;

use super::board::Size;

/// Why a disk cannot be laid out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Board and configuration name different boot loaders.
    #[error(
        "the board starts {loader}, but boot.backend of the configuration is {backend:?} and not {expected:?}"
    )]
    Backend {
        /// The board's loader.
        loader: &'static str,
        /// What the configuration says.
        backend: &'static str,
        /// What it would have to say.
        expected: &'static str,
    },
    /// The profile has names of a device tree, and the node does not ask for them.
    #[error(
        "the board has `hardware`, but the configuration has no node.hardware_from, so the node would not answer to \
         these names"
    )]
    NotAsked,
    /// Nothing says which images fit a node that asks its machine.
    #[error(
        "the node reads its hardware ids from its device tree (node.hardware_from); name them here, too: `hardware` of \
         the board, `update-agent config check` on such a board shows them"
    )]
    NoHardware,
    /// The loader needs a section of the profile.
    #[error("the board starts {loader} and has no [{section}]")]
    SectionMissing {
        /// The board's loader.
        loader: &'static str,
        /// Which section.
        section: &'static str,
    },
    /// The loader does not know a section of the profile.
    #[error("the board starts {loader}, which reads no [{section}]")]
    SectionUnread {
        /// The board's loader.
        loader: &'static str,
        /// Which section.
        section: &'static str,
    },
    /// A value that U-Boot or its script could not use.
    #[error("{key} must be {why}")]
    UBoot {
        /// Which value.
        key: &'static str,
        /// What it has to be.
        why: &'static str,
    },
    /// A place or length outside of partitions that is not of whole sectors.
    #[error("{what}: {bytes} bytes are no multiple of 512")]
    Sectors {
        /// Of what.
        what: String,
        /// Bytes.
        bytes: u64,
    },
    /// A program without a byte.
    #[error("{0} is empty")]
    Empty(String),
    /// Two things outside of partitions that share bytes.
    #[error("{one} ends at byte {end}, behind byte {at} where {other} begins")]
    Overlap {
        /// The first one on the disk.
        one: String,
        /// One past its last byte.
        end: u64,
        /// The one behind it.
        other: String,
        /// Its first byte.
        at: u64,
    },
    /// Something outside of partitions that reaches into them.
    #[error(
        "{what} ends at byte {end}, but partitions_from of the board is {from}: make it larger"
    )]
    NotBefore {
        /// What it is.
        what: String,
        /// One past its last byte.
        end: u64,
        /// Where the first partition begins.
        from: u64,
    },
    /// What the loader starts is no partition.
    #[error(
        "the component {0} must be a partition of this disk in [slots]: the board's loader starts it by number"
    )]
    NoPartition(ComponentName),
    /// A node whose chooser verifies slots, and an image that it cannot verify.
    #[error("boot.verity is set, but the image of {0} was published without --verity {0}")]
    NoVerity(ComponentName),
    /// A component without a size.
    #[error("the board gives no size for component {0}: add it to [slots]")]
    NoSize(ComponentName),
    /// A size that is not of whole MiB, or 0.
    #[error("{what} of {size} bytes is not a positive multiple of 1 MiB")]
    Unaligned {
        /// Of what.
        what: String,
        /// Bytes.
        size: u64,
    },
    /// A size that no file system fits in.
    #[error("{what} of {size} is too small: at least {least}")]
    TooSmall {
        /// Which part.
        what: &'static str,
        /// Its size.
        size: Size,
        /// The least it may be.
        least: Size,
    },
    /// An image does not fit.
    #[error("{component} needs {} bytes, but a slot of the board holds {slot}", .image.saturating_add(*.proof))]
    TooLarge {
        /// Of which component.
        component: ComponentName,
        /// Bytes of the image.
        image: u64,
        /// Bytes behind it for the proof of a chooser that verifies; 0 without one.
        proof: u64,
        /// Bytes of the place.
        slot: u64,
    },
    /// The release has no image for this node.
    #[error("the release has no {component} for {hardware}")]
    NoImage {
        /// Of which component.
        component: ComponentName,
        /// The node's hardware ids.
        hardware: String,
    },
    /// A component that lies differently in the two slots.
    #[error("component {0} is a partition in one slot and a file or device in the other")]
    Unlike(ComponentName),
    /// A kernel where the boot loader cannot read it.
    #[error(
        "UEFI reads the component {component} only from the ESP: place it below {esp} in [slots], as \
         {component} = {{ device = \"{esp}/racklet/a/{component}\" }}"
    )]
    NotOnEsp {
        /// The component.
        component: ComponentName,
        /// Where the ESP is mounted.
        esp: String,
    },
    /// A path that FAT or a boot entry would not keep.
    #[error("{0}: a file on the ESP is named with letters, digits and . _ - only")]
    EspName(PathBuf),
    /// The ESP is too small for its files.
    #[error("the ESP of {size} is too small for its files: at least {least}")]
    EspFull {
        /// Its size.
        size: Size,
        /// The least it may be.
        least: Size,
    },
    /// Something that must survive updates does not lie on the data partition.
    #[error("{what} {path} is not below {mount}, where the data partition is mounted")]
    OutsideData {
        /// Which setting.
        what: &'static str,
        /// Its value.
        path: PathBuf,
        /// The mount point.
        mount: PathBuf,
    },
    /// A label that is empty, too long, or there twice.
    #[error("the label {0:?} is empty, longer than 36 characters, or that of two partitions")]
    Label(String),
}

impl LayoutError {
    /// The stable code of this error.
    pub fn reason(&self) -> Reason {
        match self {
            LayoutError::TooLarge { .. } => Reason::SlotSize,
            LayoutError::NoImage { .. } => Reason::HwMismatch,
            _ => Reason::Config,
        }
    }
}

/// A disk to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Bytes.
    pub len: u64,
    /// The GUID of the disk.
    pub guid: Guid,
    /// Its partitions in their order.
    pub partitions: Vec<Partition>,
    /// Programs outside of them.
    pub raw: Vec<RawPlace>,
    /// Files on the ESP that are places of components.
    pub esp_files: Vec<EspFile>,
    /// Components of the node that lie on no part of this disk.
    pub elsewhere: Vec<ComponentName>,
}

/// A partition to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its label.
    pub label: String,
    /// Its own GUID.
    pub guid: Guid,
    /// Its type.
    pub type_guid: Guid,
    /// Its attribute bits.
    pub attributes: u64,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// What it is for.
    pub holds: Holds,
}

/// A program outside of partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawPlace {
    /// Its file, on the machine that makes the disk.
    pub file: PathBuf,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// What a partition is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holds {
    /// The boot loader.
    Loader,
    /// A copy of U-Boot's environment, 1 or 2.
    Env(u32),
    /// A component of a slot.
    Component(ComponentName, Slot),
    /// What survives updates.
    Data,
}

/// A file on the ESP that holds a component of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EspFile {
    /// Its path on the ESP, without a leading slash.
    pub path: String,
    /// Bytes, of which the image may be fewer.
    pub len: u64,
    /// Which component.
    pub component: ComponentName,
    /// In which slot.
    pub slot: Slot,
}

impl Layout {
    /// The partition that holds this.
    pub fn partition(&self, holds: &Holds) -> Option<&Partition> {
        self.partitions.iter().find(|partition| partition.holds == *holds)
    }

    /// The number of the partition that holds this, from 1.
    pub fn number(&self, holds: &Holds) -> Option<u32> {
        let numbered = (1..).zip(&self.partitions);
        numbered.filter(|(_, found)| found.holds == *holds).map(|(number, _)| number).next()
    }

    /// The partitions as `formats::gpt` makes them.
    pub fn table(&self) -> Vec<NewPartition<'_>> {
        self.partitions.iter().map(Partition::new_partition).collect()
    }
}

impl Partition {
    fn new_partition(&self) -> NewPartition<'_> {
        let Partition { label, guid, type_guid, attributes, offset, len, .. } = self;
        let (guid, type_guid, at) = (*guid, *type_guid, Some(*offset));
        NewPartition { label, type_guid, guid, at, len: *len, attributes: *attributes }
    }
}
