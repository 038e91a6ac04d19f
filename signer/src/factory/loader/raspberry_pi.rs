//! The boot loader in a Raspberry Pi: `autoboot.txt`. Pure.

use formats::autoboot::{Autoboot, AutobootError};
use formats::boot_flags::SlotFlags;
use formats::boot_record::{PerSlot, Slot};

use super::super::layout::{Holds, Layout};
use super::super::node::Node;
use super::super::plan::FIRST;
use super::LoaderFile;

/// 256 bytes: what the agent writes in place for good, with room for its lines.
const LENGTH: usize = 256;

/// The files of the first partition: slot a confirmed, and the `config.txt` without which the boot loader may not
/// take the partition for one of its own.
pub fn files(node: &Node, layout: &Layout) -> Result<Vec<LoaderFile>, AutobootError> {
    let number =
        |slot| layout.number(&Holds::Component(node.boot.clone(), slot)).unwrap_or_default();
    let partitions = PerSlot { a: number(Slot::A), b: number(Slot::B) };
    let mut file = Autoboot::new(partitions.a);
    file.set(&partitions, PerSlot { a: FIRST, b: SlotFlags::CLEARED }, None)?;
    let text = String::from_utf8_lossy(&file.encode(LENGTH)?).into_owned();
    let file = |path: &str, text| LoaderFile { path: path.to_owned(), text };
    Ok(vec![file("autoboot.txt", text), file("config.txt", String::new())])
}
