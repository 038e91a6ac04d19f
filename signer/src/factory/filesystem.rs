//! The two file systems of a disk: ext4 for what survives updates, FAT for boot loaders. Each is made in a file of
//! its own, the same bytes from the same inputs.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use formats::release::ComponentSummary;

use super::error::FactoryError;
use super::identity::Seed;
use super::tools::{DEBUGFS, MCOPY, MKE2FS, MKFS_VFAT, MMD, last_lines};
use super::tree::Tree;

/// What Debian's `mke2fs -t ext4` chooses, without `metadata_csum`: with it, a superblock that a power cut tears
/// prevents mounting.
const EXT4: &str = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,\
                    sparse_super,large_file,huge_file,dir_nlink,extra_isize";

/// Makes an ext4 of `len` bytes with these files.
pub(super) fn ext4(
    file: &Path,
    len: u64,
    label: &str,
    tree: &Tree,
    seed: Seed,
    epoch: u64,
) -> Result<(), FactoryError> {
    create(file, len)?;
    let hash = seed.guid("ext4 directories");
    let extended = format!("hash_seed={hash},root_owner=0:0,nodiscard");
    let uuid = seed.guid("ext4").to_string();
    // Labels of ext4 have 16 bytes.
    let label: String = label.chars().take(16).collect();
    let options = ["-q", "-F", "-b", "4096", "-I", "256", "-i", "16384", "-m", "1", "-O", EXT4];
    let named = ["-U", &uuid, "-E", &extended, "-L", &label];
    let file = file.display().to_string();
    MKE2FS.run(options.iter().chain(&named).copied().chain([file.as_str()]), epoch, "")?;
    let said = DEBUGFS.run(["-w", "-f", "-", &file], epoch, &tree.script()?)?;
    // It ends with 0 whatever a command of the script comes to, and begins with its name and version.
    let failed: Vec<&str> =
        said.errors.lines().filter(|line| !line.starts_with("debugfs ")).collect();
    match failed.is_empty() {
        true => Ok(()),
        false => Err(DEBUGFS.failed(&last_lines(&failed.join("\n")))),
    }
}

/// A file for a FAT: its path there, and the file with its bytes.
pub(super) type FatContent = (String, PathBuf);

/// Where the bytes of a component lie until they are copied to the ESP.
pub(super) fn esp_file(work: &Path, summary: &ComponentSummary) -> PathBuf {
    work.join(format!("component-{}", summary.name))
}

/// Makes a FAT32 of `len` bytes with these files.
pub(super) fn fat(
    file: &Path,
    len: u64,
    label: &str,
    content: &[FatContent],
    seed: Seed,
    epoch: u64,
) -> Result<(), FactoryError> {
    create(file, len)?;
    let image = file.display().to_string();
    let volume = seed.volume_id();
    let options = ["--invariant", "-F", "32", "-n", label, "-i", &volume, &image];
    MKFS_VFAT.run(options, epoch, "")?;
    for folder in folders(content) {
        MMD.run(["-i", &image, &format!("::/{folder}")], epoch, "")?;
    }
    for (path, from) in content {
        let from = from.display().to_string();
        MCOPY.run(["-i", &image, &from, &format!("::/{path}")], epoch, "")?;
    }
    Ok(())
}

/// The directories of these files, each after the one it is in.
fn folders(content: &[FatContent]) -> BTreeSet<String> {
    let above = |(path, _): &FatContent| {
        let parts: Vec<PathBuf> = Path::new(path).ancestors().skip(1).map(Path::to_owned).collect();
        parts.into_iter().filter_map(|part| part.to_str().map(str::to_owned))
    };
    content.iter().flat_map(above).filter(|path| !path.is_empty()).collect()
}

fn create(file: &Path, len: u64) -> Result<(), FactoryError> {
    let failed = FactoryError::file("write", file);
    File::create(file).and_then(|made| made.set_len(len)).map_err(failed)
}

/// The bytes of a file in the ext file system that begins at `offset` of a disk; `None`: there is no such file.
pub(super) fn read_ext(
    disk: &Path,
    offset: u64,
    path: &Path,
    epoch: u64,
) -> Result<Option<Vec<u8>>, FactoryError> {
    let image = format!("{}?offset={offset}", disk.display());
    let command = format!("cat \"{}\"", path.display());
    let said = DEBUGFS.run(["-R", &command, &image], epoch, "")?;
    let there = !said.errors.contains("File not found");
    Ok(there.then_some(said.output))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_comes_after_the_one_it_is_in() {
        let content = |path: &str| (path.to_owned(), PathBuf::from("/x"));
        let made = folders(&[content("a/b/c"), content("EFI/BOOT/X.EFI"), content("top")]);
        assert_eq!(made.into_iter().collect::<Vec<_>>(), ["EFI", "EFI/BOOT", "a", "a/b"]);
    }
}
