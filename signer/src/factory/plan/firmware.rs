//! What boot loaders need of a disk beside slots: a partition of their own, programs and an environment outside of
//! the others.

use formats::boot_record::Slot;
use formats::gpt::Guid;
use formats::uboot_env::SIZE_RANGE;

use super::super::board::{Board, Env, Loader, Size, UBoot, esp_type, fat_type};
use super::super::layout::{Holds, LayoutError, Partition, RawPlace};
use super::super::node::Node;

/// 512 bytes: a sector, in which places outside of partitions are counted.
const SECTOR: u64 = 512;
/// 17 KiB: protective MBR, header and entries of the partition table.
const TABLE: u64 = 34 * SECTOR;
/// 16 KiB: the copies that `redundant.cmd` reads and writes.
pub(super) const SCRIPT_ENV: u64 = 0x4000;

/// A loader's partition.
pub(super) struct Own {
    pub(super) label: String,
    pub(super) type_guid: Guid,
    pub(super) size: Size,
    /// The key of the profile that says how long it is.
    pub(super) key: &'static str,
    pub(super) what: &'static str,
}

/// The partition of the loader itself, if it has one.
pub(super) fn loader_partition(board: &Board, node: &Node) -> Option<Own> {
    let own = |label: &str, type_guid, size, key, what| {
        let label = label.to_owned();
        Some(Own { label, type_guid, size, key, what })
    };
    match board.loader {
        Loader::SystemdBoot => {
            own("esp", esp_type(), board.esp.as_ref()?.size, "esp.size", "the ESP")
        }
        // U-Boot looks for scripts on partitions of this type first.
        Loader::UBoot => {
            let size = board.uboot.as_ref()?.size;
            own("boot", esp_type(), size, "u-boot.size", "the partition of boot.scr")
        }
        Loader::RaspberryPi => {
            let (size, what) = (board.autoboot.as_ref()?.size, "the partition of autoboot.txt");
            own(&node.autoboot, fat_type(), size, "autoboot.size", what)
        }
        Loader::Chooser => None,
    }
}

/// Requires that board and node name the same boot loader, and that the board says what it needs and nothing else.
pub(super) fn check(board: &Board, node: &Node) -> Result<(), LayoutError> {
    let (loader, expected) = (board.loader.name(), board.loader.backend());
    if node.backend != expected {
        return Err(LayoutError::Backend { loader, backend: node.backend, expected });
    }
    let sections = [
        ("esp", board.esp.is_some(), Loader::SystemdBoot),
        ("u-boot", board.uboot.is_some(), Loader::UBoot),
        ("env", board.env.is_some(), Loader::UBoot),
        ("autoboot", board.autoboot.is_some(), Loader::RaspberryPi),
    ];
    for (section, there, of) in sections {
        match (there, of == board.loader) {
            (false, true) => return Err(LayoutError::SectionMissing { loader, section }),
            (true, false) => return Err(LayoutError::SectionUnread { loader, section }),
            _ => {}
        }
    }
    match (&board.uboot, &board.env) {
        (Some(uboot), Some(env)) => check_uboot(board, node, uboot, env),
        _ => Ok(()),
    }
}

/// What becomes part of U-Boot's script must not change its meaning there.
fn check_uboot(board: &Board, node: &Node, uboot: &UBoot, env: &Env) -> Result<(), LayoutError> {
    let wrong = |key, why| Err(LayoutError::UBoot { key, why });
    let quotable = |text: &str| !text.chars().any(|c| c == '\'' || c.is_control());
    if !quotable(&uboot.start) {
        return wrong("u-boot.start", "a text of one line without '");
    }
    if !quotable(&board.kernel.options) {
        return wrong("kernel.options", "a text of one line without '");
    }
    if uboot.interface().is_none() {
        return wrong("u-boot.device", "an interface and a number: \"mmc 0\"");
    }
    let hexadecimal = uboot.ram.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !hexadecimal || !(1..=11).contains(&uboot.ram.len()) {
        return wrong("u-boot.ram", "hexadecimal digits, without 0x: \"60\"");
    }
    if env.initial.is_none() && env.size.0 != SCRIPT_ENV {
        return wrong("env.size", "16KiB without env.initial: what the script keeps");
    }
    if !node.env_counts {
        return wrong("boot.env_flags", "\"incrementing\" on a disk");
    }
    if !SIZE_RANGE.contains(&env.size.0) {
        return wrong("env.size", "64 bytes to 1 MiB");
    }
    Ok(())
}

/// A range of the disk, for messages.
struct Taken {
    what: String,
    at: u64,
    end: u64,
}

/// The places of the board's programs, which have these lengths. Nothing outside of partitions may overlap the
/// partition table, anything else of it, or the first partition.
pub(super) fn outside(board: &Board, raw: &[u64]) -> Result<Vec<RawPlace>, LayoutError> {
    let mut places = Vec::new();
    let mut taken = vec![Taken { what: "the partition table".to_owned(), at: 0, end: TABLE }];
    for (program, len) in board.raw.iter().zip(raw) {
        let (file, offset) = (program.file.clone(), program.offset.0);
        taken.push(range(file.display().to_string(), offset, *len)?);
        places.push(RawPlace { file, offset, len: *len });
    }
    if let Some(env) = &board.env {
        for (copy, offset) in (1..).zip(env.offsets()) {
            let what = format!("copy {copy} of U-Boot's environment");
            in_sectors(&what, env.size.0)?;
            taken.push(range(what, offset, env.size.0)?);
        }
    }
    taken.sort_by_key(|one| one.at);
    for pair in taken.windows(2) {
        if let [one, other] = pair
            && one.end > other.at
        {
            let (one, end) = (one.what.clone(), one.end);
            return Err(LayoutError::Overlap { one, end, other: other.what.clone(), at: other.at });
        }
    }
    let from = board.partitions_from;
    match taken.into_iter().find(|one| one.end > from.0) {
        Some(Taken { what, end, .. }) => Err(LayoutError::NotBefore { what, end, from: from.0 }),
        None => Ok(places),
    }
}

fn range(what: String, at: u64, len: u64) -> Result<Taken, LayoutError> {
    in_sectors(&what, at)?;
    if len == 0 {
        return Err(LayoutError::Empty(what));
    }
    Ok(Taken { what, at, end: at.saturating_add(len) })
}

fn in_sectors(what: &str, bytes: u64) -> Result<(), LayoutError> {
    if bytes.is_multiple_of(SECTOR) {
        return Ok(());
    }
    Err(LayoutError::Sectors { what: what.to_owned(), bytes })
}

/// Requires partitions on this disk for what the loader starts by the number of a partition.
pub(super) fn check_slots(
    board: &Board,
    node: &Node,
    made: &[Partition],
) -> Result<(), LayoutError> {
    let started = match board.loader {
        Loader::UBoot => board.system(&node.boot),
        Loader::RaspberryPi => node.boot.clone(),
        Loader::SystemdBoot | Loader::Chooser => return Ok(()),
    };
    for slot in Slot::BOTH {
        let holds = Holds::Component(started.clone(), slot);
        let found = made.iter().find(|partition| partition.holds == holds);
        let label = &found.ok_or_else(|| LayoutError::NoPartition(started.clone()))?.label;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if board.loader == Loader::UBoot && !label.bytes().all(plain) {
            let key = "the label of a slot";
            return Err(LayoutError::UBoot { key, why: "letters, digits and . _ - only" });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
