//! A node's disk: a sparse file with a GPT that `sgdisk` makes and `cgpt` reads. Nothing here uses
//! our own GPT code, so that it can witness against it.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use formats::digest::Sha256;

use super::must;
use super::run::{Run, tool};

/// Labels in partition order: number 1 is the first.
const LABELS: [&str; 4] = ["root-a", "root-b", "fw-a", "fw-b"];

/// Bytes of a sector of these disks.
const SECTOR: u64 = 512;

/// Sectors of the partitions of a slot.
#[derive(Debug, Clone, Copy)]
pub struct SlotSizes {
    /// Sectors of `root-a` and `root-b`.
    pub root: u64,
    /// Sectors of `fw-a` and `fw-b`.
    pub firmware: u64,
}

impl Default for SlotSizes {
    /// 12 MiB and 1 MiB: more than the images here.
    fn default() -> Self {
        SlotSizes { root: 24_576, firmware: 2048 }
    }
}

/// The boot attributes of one partition, as `cgpt` reads them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags {
    /// 0 to 15; 0 is never booted.
    pub priority: u8,
    /// Boots left for a slot that is not successful.
    pub tries: u8,
    /// Whether the slot is confirmed.
    pub successful: bool,
}

/// No bit set: not bootable.
pub const CLEAR: Flags = Flags { priority: 0, tries: 0, successful: false };

/// A confirmed slot of this priority.
pub const fn confirmed(priority: u8) -> Flags {
    Flags { priority, tries: 0, successful: true }
}

/// A slot on trial, chosen before a confirmed one.
pub const fn trial(tries: u8) -> Flags {
    Flags { priority: 2, tries, successful: false }
}

impl fmt::Display for Flags {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Flags { priority, tries, successful } = self;
        write!(out, "priority {priority} tries {tries} successful {}", u8::from(*successful))
    }
}

/// A disk image file.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Makes an empty disk with the partitions of both slots. Its GUIDs are always the same.
    #[track_caller]
    pub fn create(path: &Path, sizes: SlotSizes) -> Self {
        let file = must(File::create_new(path), "create the disk");
        // Partitions begin on whole MiB; the two tables take less than one each.
        let mib = |sectors: u64| sectors.div_ceil(2048);
        let total = 2 * (mib(sizes.root) + mib(sizes.firmware)) + 2;
        must(file.set_len(total << 20), "size the disk");
        let guid = |n: usize| format!("5AC4E700-0000-4000-8000-00000000000{n}");
        let mut sgdisk = tool("sgdisk", "gdisk").args(["-o", "-U", &guid(0)]);
        for (index, label) in LABELS.iter().enumerate() {
            let number = index + 1;
            let sectors = if index < 2 { sizes.root } else { sizes.firmware };
            sgdisk = sgdisk.args(["-n", &format!("{number}:0:+{sectors}")]);
            sgdisk = sgdisk.args(["-t", &format!("{number}:8300")]);
            sgdisk = sgdisk.args(["-c", &format!("{number}:{label}")]);
            sgdisk = sgdisk.args(["-u", &format!("{number}:{}", guid(number))]);
        }
        let _made = sgdisk.arg(path).ok();
        Disk { path: path.to_path_buf() }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What a factory does: writes an image into a partition, without any of our programs.
    #[track_caller]
    pub fn preinstall(&self, label: &str, image: &[u8]) {
        let (start, size) = self.extent(label);
        assert!(image.len() as u64 <= size, "the image does not fit {label}");
        let file = must(OpenOptions::new().write(true).open(&self.path), "open the disk");
        must(file.write_all_at(image, start), "write the partition");
    }

    /// Sets the attributes of a partition with `cgpt`.
    #[track_caller]
    pub fn set_flags(&self, label: &str, flags: Flags) {
        let Flags { priority, tries, successful } = flags;
        let successful = u8::from(successful);
        let values = [format!("-P{priority}"), format!("-T{tries}"), format!("-S{successful}")];
        let number = format!("-i{}", number(label));
        let _done = cgpt("add").arg(number).args(values).arg(&self.path).ok();
    }

    /// The attributes of a partition as `cgpt` reads them.
    #[track_caller]
    pub fn flags(&self, label: &str) -> Flags {
        let value = |option: &str| must(self.show(label, option).parse::<u8>(), "read cgpt");
        Flags { priority: value("-P"), tries: value("-T"), successful: value("-S") == 1 }
    }

    /// The attributes of a partition after a kill, which may have left one of the two tables torn: `cgpt`
    /// reads the other one and says so.
    #[track_caller]
    pub fn flags_of_a_valid_table(&self, label: &str) -> Flags {
        let value = |option: &str| {
            let number = format!("-i{}", number(label));
            let done = cgpt("show").arg(number).arg(option).arg(&self.path).ok();
            must(done.text().trim().parse::<u8>(), "read cgpt")
        };
        Flags { priority: value("-P"), tries: value("-T"), successful: value("-S") == 1 }
    }

    /// Requires these attributes of `root-a` and `root-b`, in two tables that are valid and equal.
    #[track_caller]
    pub fn expect(&self, a: Flags, b: Flags) {
        for (label, wanted) in [("root-a", a), ("root-b", b)] {
            let found = self.flags(label);
            assert!(found == wanted, "cgpt finds {label}: {found}; expected {wanted}");
        }
        self.expect_valid();
    }

    /// Both tables valid and equal, by `sgdisk -v` and `cgpt show`.
    #[track_caller]
    pub fn expect_valid(&self) {
        let done = tool("sgdisk", "gdisk").arg("-v").arg(&self.path).ok();
        let output = done.output();
        let content = output.contains("No problems found") && !output.contains("differ");
        assert!(content, "sgdisk -v has a complaint:\n{output}");
        let output = cgpt("show").arg(&self.path).ok().output();
        let complaint = ["INVALID", "WARNING", "ERROR"].iter().any(|word| output.contains(word));
        assert!(!complaint, "cgpt show has a complaint:\n{output}");
        // Neither of them compares the copies entry by entry: the arrays are the same bytes.
        let sectors = must(std::fs::metadata(&self.path), "stat the disk").len() / SECTOR;
        let (primary, backup) = (self.read(2 * SECTOR, 32), self.read((sectors - 33) * SECTOR, 32));
        assert!(primary == backup, "the two partition arrays differ");
    }

    /// Bytes of a partition, from its beginning.
    #[track_caller]
    pub fn content(&self, label: &str, len: u64) -> Vec<u8> {
        let (start, size) = self.extent(label);
        assert!(len <= size, "{label} holds {size} bytes, not {len}");
        let mut bytes = vec![0; usize::try_from(len).expect("test disks are small")];
        let file = must(File::open(&self.path), "open the disk");
        must(file.read_exact_at(&mut bytes, start), "read the partition");
        bytes
    }

    /// SHA-256 of a whole partition.
    #[track_caller]
    pub fn digest(&self, label: &str) -> Sha256 {
        let (_, size) = self.extent(label);
        Sha256::of(&self.content(label, size))
    }

    /// First byte and length in bytes of a partition, as `cgpt` reads them.
    #[track_caller]
    pub fn extent(&self, label: &str) -> (u64, u64) {
        let bytes = |option: &str| must(self.show(label, option).parse::<u64>(), "read cgpt");
        (bytes("-b") * SECTOR, bytes("-s") * SECTOR)
    }

    fn read(&self, offset: u64, sectors: u64) -> Vec<u8> {
        let len = usize::try_from(sectors * SECTOR).expect("a table is small");
        let mut bytes = vec![0; len];
        let file = must(File::open(&self.path), "open the disk");
        must(file.read_exact_at(&mut bytes, offset), "read the disk");
        bytes
    }

    #[track_caller]
    fn show(&self, label: &str, option: &str) -> String {
        let number = format!("-i{}", number(label));
        let done = cgpt("show").arg(number).arg(option).arg(&self.path).ok();
        assert!(done.stderr.is_empty(), "cgpt: {}", done.stderr);
        done.text().trim().to_owned()
    }
}

#[track_caller]
fn cgpt(command: &str) -> Run {
    tool("cgpt", "cgpt").arg(command)
}

#[track_caller]
fn number(label: &str) -> usize {
    match LABELS.iter().position(|known| *known == label) {
        Some(index) => index + 1,
        None => panic!("no partition is labelled {label}"),
    }
}
