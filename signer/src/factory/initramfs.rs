//! Files of a system that runs from memory, read by `cpio` from the initramfs of the first slot.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use super::error::FactoryError;
use super::tools::CPIO;

/// What a file that `zstd` made begins with.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// What an archive begins with that the kernel unpacks (`newc`, without and with checksums).
const NEWC: [&[u8]; 2] = [b"070701", b"070702"];
/// 2 GiB: more than a node has memory for its system; bounds what is unpacked here.
const LIMIT: u64 = 2 << 30;

/// Prints files of an archive. A colon in its name means no other machine.
const EXTRACT: [&str; 5] = ["--extract", "--to-stdout", "--quiet", "--force-local", "-F"];

/// An archive, unpacked as far as `cpio` reads it: one after it, which the kernel would read, too, is not looked at.
pub(super) struct Initramfs {
    archive: PathBuf,
    names: BTreeSet<String>,
    epoch: u64,
}

impl Initramfs {
    /// The archive in the first `len` bytes of `file`, plain or packed by zstd. `work` is a directory of its own for
    /// it. `None`: it is packed otherwise, or is no system that begins with `/init`.
    pub(super) fn open(
        file: &Path,
        len: u64,
        work: &Path,
        epoch: u64,
    ) -> Result<Option<Self>, FactoryError> {
        let archive = work.join("initramfs.cpio");
        if !plain(file, len, &archive)? {
            return Ok(None);
        }
        let shown = archive.display().to_string();
        let said = CPIO.run(["--list", "--quiet", "--force-local", "-F", &shown], epoch, "")?;
        let listed = String::from_utf8_lossy(&said.output).into_owned();
        let names: BTreeSet<String> = listed.lines().map(bare).map(str::to_owned).collect();
        let found = names.contains("init");
        Ok(found.then_some(Initramfs { archive, names, epoch }))
    }

    /// The bytes of a file, by its path on the node; `None`: there is no such file.
    pub(super) fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, FactoryError> {
        let name = path.strip_prefix("/").unwrap_or(path).display().to_string();
        if !self.names.contains(&name) {
            return Ok(None);
        }
        let archive = self.archive.display().to_string();
        let (name, dotted) = (pattern(&name), format!("./{}", pattern(&name)));
        let options = [&EXTRACT[..], &[&archive, &name, &dotted]].concat();
        Ok(Some(CPIO.run(options, self.epoch, "")?.output))
    }
}

/// A name as other lists have it: some makers write `./etc/fstab`.
fn bare(name: &str) -> &str {
    name.strip_prefix("./").unwrap_or(name)
}

/// A name as a pattern of `cpio` that means it alone.
fn pattern(name: &str) -> String {
    let special = |c: char| if "*?[\\".contains(c) { format!("\\{c}") } else { c.to_string() };
    name.chars().map(special).collect()
}

/// Writes the archive without its packing; whether it is one that is known here.
fn plain(file: &Path, len: u64, archive: &Path) -> Result<bool, FactoryError> {
    let read = FactoryError::file("read", file);
    let mut packed = File::open(file).map_err(&read)?.take(len);
    let mut start = [0; 6];
    match packed.read_exact(&mut start) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        Err(error) => return Err(read(error)),
    }
    let whole = start.as_slice().chain(packed);
    let written = FactoryError::file("write", archive);
    let mut out = File::create(archive).map_err(&written)?;
    let copied = if NEWC.contains(&start.as_slice()) {
        io::copy(&mut whole.take(LIMIT), &mut out)
    } else if start.starts_with(&ZSTD) {
        let unpacked = zstd::stream::read::Decoder::new(whole).map_err(&read)?;
        io::copy(&mut unpacked.take(LIMIT), &mut out)
    } else {
        return Ok(false);
    };
    copied.and_then(|_| out.flush()).map_err(&read)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_no_pattern() {
        assert_eq!(pattern("etc/a*[b].toml"), "etc/a\\*\\[b].toml");
        assert_eq!(bare("./etc/fstab"), bare("etc/fstab"));
    }

    #[test]
    fn what_is_no_archive_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        for bytes in [&b""[..], b"0707", b"\x1f\x8b\x08 gzip", b"MZ a kernel"] {
            let file = dir.path().join("initrd.img");
            std::fs::write(&file, bytes).unwrap();
            let len = bytes.len() as u64;
            assert!(Initramfs::open(&file, len, dir.path(), 0).unwrap().is_none(), "{bytes:?}");
        }
    }
}
