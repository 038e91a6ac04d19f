//! A node, as the machine is given it.

use formats::boot_record::{BootRecord, Slot};

use super::evidence::Evidence;
use crate::boot::BootFlags;

/// Everything the machine needs to know of a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// The durable boot record.
    pub record: BootRecord,
    /// The boot flags, as just read.
    pub flags: BootFlags,
    /// The slot that runs.
    pub booted: Slot,
    /// Identifies this boot.
    pub boot_id: String,
    /// The durable security-version floor.
    pub floor: u64,
    /// What this boot shows of its boot loader.
    pub evidence: Evidence,
}
