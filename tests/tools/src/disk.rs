//! A node's disk: a sparse file with a GPT that `sgdisk` makes and `cgpt` reads. Nothing here uses
//! our own GPT code, so that it can witness against it.

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::cmd::{Cmd, which};

/// Labels in partition order: number 1 is the first.
const LABELS: [&str; 4] = ["root-a", "root-b", "fw-a", "fw-b"];

/// Room beside the image in a root partition, MiB: the slot need not be as large as the image.
const SPARE_MIB: u64 = 64;
/// A firmware partition, MiB.
const FIRMWARE_MIB: u64 = 4;

/// The boot attributes of one partition, as `cgpt` reads them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags {
    /// 0: not bootable; the higher one boots first.
    pub priority: u8,
    /// Boots that are left of a trial.
    pub tries: u8,
    /// Whether it was confirmed.
    pub successful: bool,
}

impl Flags {
    /// What the three values mean together.
    pub fn word(self) -> &'static str {
        match (self.priority, self.tries, self.successful) {
            (0, ..) => "not bootable",
            (_, _, true) => "confirmed",
            (_, 0, false) => "tries used up",
            _ => "on trial",
        }
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { priority, tries, successful } = self;
        let successful = u8::from(*successful);
        write!(out, "priority {priority} tries {tries} successful {successful} ({})", self.word())
    }
}

/// A disk image file.
pub struct Disk {
    path: PathBuf,
    /// Whether the commands that make it are shown.
    aloud: bool,
}

impl Disk {
    /// Makes an empty disk with both slots, each root partition a little larger than the image.
    pub fn create(path: &Path, image_size: u64) -> Result<Self> {
        Self { path: path.to_path_buf(), aloud: false }.made(image_size)
    }

    /// The same, and the commands are shown.
    pub fn create_aloud(path: &Path, image_size: u64) -> Result<Self> {
        Self { path: path.to_path_buf(), aloud: true }.made(image_size)
    }

    fn made(self, image_size: u64) -> Result<Self> {
        let root = (image_size >> 20) + SPARE_MIB;
        let total = 2 * (root + FIRMWARE_MIB) + 4;
        File::create_new(&self.path)?.set_len(total << 20)?;
        let mut cmd = self.shown(sbin("sgdisk")).arg("-o");
        for (index, label) in LABELS.iter().enumerate() {
            let mib = if label.starts_with("root") { root } else { FIRMWARE_MIB };
            let number = index + 1;
            cmd = cmd.args(["-n", &format!("{number}:0:+{mib}M"), "-t", &format!("{number}:8300")]);
            cmd = cmd.args(["-c", &format!("{number}:{label}")]);
        }
        cmd.arg(&self.path).run()?;
        Ok(self)
    }

    fn shown(&self, cmd: Cmd) -> Cmd {
        if self.aloud { cmd.aloud() } else { cmd }
    }

    /// The image file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What a factory does: writes an image into a partition, without any of our programs.
    pub fn preinstall(&self, label: &str, image: &Path) -> Result<()> {
        let (start, size) = self.extent(label)?;
        ensure!(std::fs::metadata(image)?.len() <= size, "{} does not fit", image.display());
        self.shown(Cmd::new("dd"))
            .arg(format!("if={}", image.display()))
            .arg(format!("of={}", self.path.display()))
            .args(["bs=1M", "oflag=seek_bytes", "conv=notrunc,sparse,fsync", "status=none"])
            .arg(format!("seek={start}"))
            .run()
            .map(drop)
    }

    /// Marks a slot as the factory leaves it: confirmed, and chosen before the other.
    pub fn mark_confirmed(&self, label: &str) -> Result<()> {
        let number = number(label)?.to_string();
        let flags = ["-P", "1", "-T", "0", "-S", "1"];
        let cgpt = self.shown(Cmd::new("cgpt")).args(["add", "-i", &number]);
        cgpt.args(flags).arg(&self.path).run().map(drop)
    }

    /// The attributes of a partition as `cgpt` reads them; fails when `cgpt` has a complaint.
    pub fn flags(&self, label: &str) -> Result<Flags> {
        let value = |option: &str| -> Result<u8> { Ok(self.cgpt(label, option)?.parse()?) };
        Ok(Flags { priority: value("-P")?, tries: value("-T")?, successful: value("-S")? == 1 })
    }

    /// Requires these attributes of `root-a` and `root-b`.
    pub fn expect(&self, a: Flags, b: Flags) -> Result<()> {
        for (label, wanted) in [("root-a", a), ("root-b", b)] {
            let found = self.flags(label)?;
            ensure!(found == wanted, "cgpt finds {label}: {found}; expected {wanted}");
        }
        self.tables_valid()
    }

    /// Both tables valid and equal, by `sgdisk -v` and `cgpt show`.
    pub fn tables_valid(&self) -> Result<()> {
        let done = sbin("sgdisk").arg("-v").arg(&self.path).run()?;
        ensure!(
            done.stdout.contains("No problems found") && !done.output().contains("differ"),
            "sgdisk -v has a complaint:\n{}",
            done.output()
        );
        let done = Cmd::new("cgpt").arg("show").arg(&self.path).run()?;
        let complaint =
            done.output().lines().any(|l| l.contains("INVALID") || l.contains("WARNING"));
        ensure!(!complaint, "cgpt show has a complaint:\n{}", done.output());
        Ok(())
    }

    /// SHA-256 of the first `length` bytes of a partition, read from the file itself.
    pub fn digest(&self, label: &str, length: u64) -> Result<String> {
        let (start, size) = self.extent(label)?;
        ensure!(length <= size, "{label} holds {size} bytes, not {length}");
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(start))?;
        sha256(file.take(length))
    }

    /// First byte and length in bytes of a partition, as `cgpt` reads them.
    pub fn extent(&self, label: &str) -> Result<(u64, u64)> {
        let sectors = |option: &str| -> Result<u64> { Ok(self.cgpt(label, option)?.parse()?) };
        Ok((sectors("-b")? * 512, sectors("-s")? * 512))
    }

    fn cgpt(&self, label: &str, option: &str) -> Result<String> {
        let number = number(label)?.to_string();
        let done = Cmd::new("cgpt").args(["show", "-i", &number, option]).arg(&self.path).run()?;
        ensure!(done.stderr.is_empty(), "cgpt: {}", done.stderr.trim());
        Ok(done.stdout.trim().to_string())
    }
}

/// SHA-256 of a whole file, in hex.
pub fn file_digest(path: &Path) -> Result<String> {
    sha256(File::open(path).with_context(|| format!("open {}", path.display()))?)
}

fn sha256(mut from: impl Read) -> Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match from.read(&mut buffer)? {
            0 => break,
            count => hash.update(&buffer[..count]),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn number(label: &str) -> Result<usize> {
    match LABELS.iter().position(|known| *known == label) {
        Some(index) => Ok(index + 1),
        None => bail!("no partition is labelled {label}"),
    }
}

/// A program that Debian keeps out of a user's PATH.
fn sbin(program: &str) -> Cmd {
    Cmd::new(which(program).unwrap_or_else(|| program.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgpt_reads_back_what_the_factory_wrote() {
        if which("sgdisk").is_none() || which("cgpt").is_none() {
            panic!("sgdisk and cgpt are needed: run `cargo xtask setup`");
        }
        let dir = tempfile::tempdir().expect("a temporary folder");
        let image = dir.path().join("image");
        std::fs::write(&image, vec![7; 3 << 20]).expect("write the image");
        let disk = Disk::create(&dir.path().join("disk"), 3 << 20).expect("make the disk");
        disk.preinstall("root-a", &image).expect("write the slot");
        disk.mark_confirmed("root-a").expect("mark the slot");

        let confirmed = Flags { priority: 1, tries: 0, successful: true };
        let clear = Flags { priority: 0, tries: 0, successful: false };
        disk.expect(confirmed, clear).expect("tables and flags are right");
        let error = disk.expect(clear, clear).expect_err("flags differ").to_string();
        assert!(error.contains("root-a: priority 1 tries 0 successful 1 (confirmed)"), "{error}");
        let digests = (disk.digest("root-a", 3 << 20), file_digest(&image));
        assert_eq!(digests.0.expect("readable"), digests.1.expect("readable"));
    }
}
