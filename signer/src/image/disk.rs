//! The image of a whole disk, where a slot wants one partition: recognised, and taken apart.
//!
//! Pure. Only enough of a partition table is read to say how its partitions are cut out.

use formats::gpt::header::Header;
use formats::gpt::{Geometry, Table, TableCopy};

use super::probe::{Probe, quoted};

/// The command, as the documentation has it.
pub(super) const MEND: &str = "dd if=IN of=OUT bs=… skip=… count=…";

/// 446: where the four partition entries of an MBR begin, 16 bytes each.
const ENTRIES: usize = 446;
/// An MBR knows no other sectors.
const SECTOR: u64 = 512;
/// The type of the entry that protects a GPT (UEFI 2.10 §5.2.3).
const PROTECTIVE: u8 = 0xee;
/// Partitions named in a message.
const NAMED: usize = 6;

/// Magic bytes of file systems that keep their first sector for a boot loader.
const FILE_SYSTEMS: [(usize, &[u8]); 14] = [
    (3, b"NTFS    "),
    (3, b"EXFAT   "),
    (54, b"FAT12   "),
    (54, b"FAT16   "),
    (54, b"FAT     "),
    (82, b"FAT32   "),
    (1080, b"\x53\xef"),         // ext2, ext3, ext4
    (1024, b"\x10\x20\xf5\xf2"), // f2fs
    (1024, b"\xe2\xe1\xf5\xe0"), // erofs
    (32_769, b"CD001"),          // ISO 9660
    (65_588, b"ReIsEr"),         // reiserfs
    (65_600, b"_BHRfS_M"),       // btrfs
    (512, b"LABELONE"),          // LVM
    (514, b"HdrS"),              // a Linux kernel for x86
];

/// A partition in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    number: u32,
    label: String,
    start: u64,
    len: u64,
}

/// Whether it has a partition table, and is no file system that only looks like it.
pub(super) fn is_disk(probe: &Probe<'_>) -> bool {
    let gpt = |sector: usize| probe.has(sector, b"EFI PART\0\0\x01\0");
    gpt(512) || gpt(4096) || !mbr(probe).is_empty()
}

/// How a partition is cut out.
pub(super) fn mend(path: &str, probe: &Probe<'_>) -> String {
    let parts = [512, 4096].into_iter().find_map(|sector| gpt(probe, sector));
    let parts = parts.unwrap_or_else(|| mbr(probe));
    let parts: Vec<Part> = parts.into_iter().filter(|part| part.len > 0).collect();
    let path_word = quoted(path);
    let Some(largest) = parts.iter().max_by_key(|part| part.len) else {
        return format!("`sgdisk -p {path_word}` to see its partitions, `dd` to copy one of them");
    };
    let out = quoted(&format!("{path}.part{}", largest.number));
    let unit = unit(largest);
    let command = format!(
        "`dd if={path_word} of={out} bs={unit} skip={} count={}`",
        largest.start / unit,
        largest.len / unit
    );
    if parts.len() == 1 {
        return format!("{command} for its partition");
    }
    let named: Vec<String> = parts.iter().take(NAMED).map(Part::named).collect();
    let more = if parts.len() > NAMED { ", …" } else { "" };
    format!("{command} for partition {} of {}{more}", largest.number, named.join(", "))
}

impl Part {
    fn named(&self) -> String {
        let label: String = self.label.chars().filter(|c| !c.is_control()).collect();
        let mib = self.len.div_ceil(1 << 20);
        if label.is_empty() {
            format!("{} ({mib} MiB)", self.number)
        } else {
            format!("{} ({label}, {mib} MiB)", self.number)
        }
    }
}

/// The largest block, at most 1 MiB, of which start and length are multiples.
fn unit(part: &Part) -> u64 {
    let zeros = (part.start | part.len).trailing_zeros().min(20);
    1 << zeros
}

/// Partitions of a GPT whose checksums hold.
fn gpt(probe: &Probe<'_>, sector: u32) -> Option<Vec<Part>> {
    let size = usize::try_from(sector).ok()?;
    let geometry = Geometry::new(probe.len, sector).ok()?;
    let bytes = probe.head.get(size..size.checked_mul(2)?)?;
    let header = Header::parse(geometry, TableCopy::Primary, 1, bytes).ok()?;
    let start = usize::try_from(geometry.offset(header.array_lba())).ok()?;
    let len = usize::try_from(header.array_len()).ok()?;
    let array = probe.head.get(start..start.checked_add(len)?)?;
    let table = Table::parse(geometry, header, array).ok()?;
    let part = |partition: formats::gpt::Partition| Part {
        number: partition.number,
        label: partition.label().unwrap_or_default().to_owned(),
        start: partition.offset(geometry),
        len: partition.len(geometry),
    };
    Some(table.partitions().map(part).collect())
}

/// Partitions of an MBR; none when any of its four entries is not one, or it is a file system's.
fn mbr(probe: &Probe<'_>) -> Vec<Part> {
    let is_file_system = FILE_SYSTEMS.iter().any(|(at, magic)| probe.has(*at, magic));
    if !probe.has(510, b"\x55\xaa") || is_file_system || probe.has(0, b"MZ") {
        return Vec::new();
    }
    let entries = probe.head.get(ENTRIES..ENTRIES + 64).unwrap_or_default();
    let mut parts: Vec<Part> = Vec::new();
    for (number, entry) in (1..).zip(entries.chunks_exact(16)) {
        match entry_of(number, entry, probe.len) {
            Ok(part) => parts.extend(part),
            Err(NoEntry) => return Vec::new(),
        }
    }
    let mut sorted: Vec<&Part> = parts.iter().collect();
    sorted.sort_by_key(|part| part.start);
    let overlap = |pair: &[&Part]| match pair {
        [one, next] => one.start.saturating_add(one.len) > next.start,
        _ => false,
    };
    if sorted.windows(2).any(overlap) { Vec::new() } else { parts }
}

/// Bytes that no partitioning tool writes.
struct NoEntry;

/// An entry in use, or none.
fn entry_of(number: u32, entry: &[u8], len: u64) -> Result<Option<Part>, NoEntry> {
    let byte = |at: usize| entry.get(at).copied().unwrap_or_default();
    let word = |at: usize| u64::from(u32::from_le_bytes([at, at + 1, at + 2, at + 3].map(byte)));
    let (status, kind) = (byte(0), byte(4));
    let (start, count) = (word(8), word(12));
    if status & 0x7f != 0 {
        return Err(NoEntry);
    }
    if kind == 0 {
        return if entry.iter().all(|byte| *byte == 0) { Ok(None) } else { Err(NoEntry) };
    }
    // The protective entry may say more than there is.
    let inside = kind == PROTECTIVE || start.saturating_mul(SECTOR) < len;
    if start == 0 || count == 0 || !inside {
        return Err(NoEntry);
    }
    // An image that was cut off keeps its entries; what protects a GPT is no partition.
    let room = len.saturating_sub(start * SECTOR);
    let len = if kind == PROTECTIVE { 0 } else { (count * SECTOR).min(room) };
    Ok(Some(Part { number, label: String::new(), start: start * SECTOR, len }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(status: u8, kind: u8, start: u32, count: u32) -> Vec<u8> {
        let (start, count) = (start.to_le_bytes(), count.to_le_bytes());
        [&[status, 0, 0, 0, kind, 0, 0, 0], &start[..], &count].concat()
    }

    fn disk(entries: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = vec![0; 4 << 20];
        bytes[0] = 0xfa;
        for (number, entry) in entries.iter().enumerate() {
            bytes[ENTRIES + 16 * number..][..16].copy_from_slice(entry);
        }
        bytes[510..512].copy_from_slice(b"\x55\xaa");
        bytes
    }

    fn probe(bytes: &[u8]) -> Probe<'_> {
        Probe { len: bytes.len() as u64, head: &bytes[..128 << 10], tail: &[] }
    }

    #[test]
    fn partition_entries_are_read_as_tools_write_them() {
        let linux = |start, count| entry(0x80, 0x83, start, count);
        let rows: &[(&str, &[Vec<u8>], bool)] = &[
            ("one partition", &[linux(2048, 4096)], true),
            ("two", &[entry(0, 0x0c, 2048, 2048), linux(4096, 4096)], true),
            ("the entry that protects a GPT", &[entry(0, PROTECTIVE, 1, u32::MAX)], true),
            ("none", &[], false),
            ("another status", &[entry(0x33, 0x83, 2048, 2048)], false),
            ("it begins at the table itself", &[linux(0, 4096)], false),
            ("it has no sector", &[linux(2048, 0)], false),
            ("it begins behind the end", &[linux(1 << 20, 1)], false),
            ("two that overlap", &[linux(2048, 4096), linux(4096, 2048)], false),
            (
                "code where an entry must be empty",
                &[linux(2048, 4096), vec![0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]],
                false,
            ),
        ];
        for (name, entries, expected) in rows {
            assert_eq!(is_disk(&probe(&disk(entries))), *expected, "{name}");
        }
        let mut short = disk(&[linux(2048, 4096)]);
        short.truncate(511);
        assert!(!is_disk(&Probe { len: 511, head: &short, tail: &[] }));
    }

    #[test]
    fn a_partition_is_cut_out_by_what_is_printed() {
        let one = disk(&[entry(0, 0x83, 2048, 4096)]);
        let command = "`dd if=d.img of=d.img.part1 bs=1048576 skip=1 count=2` for its partition";
        assert_eq!(mend("d.img", &probe(&one)), command);
        let two = disk(&[entry(0, 0x0c, 63, 100), entry(0, 0x83, 2049, 4097)]);
        let command = "`dd if=d.img of=d.img.part2 bs=512 skip=2049 count=4097` for partition 2 \
                       of 1 (1 MiB), 2 (3 MiB)";
        assert_eq!(mend("d.img", &probe(&two)), command);
        let lost = disk(&[entry(0, PROTECTIVE, 1, u32::MAX)]);
        assert!(mend("d.img", &probe(&lost)).starts_with("`sgdisk -p d.img`"));
    }
}
