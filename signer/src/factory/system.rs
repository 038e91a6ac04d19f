//! The system in the first slot of a disk, as far as its files are looked at: an ext file system, or an initramfs.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use formats::boot_record::Slot;
use formats::release::ComponentName;

use super::Inputs;
use super::error::FactoryError;
use super::filesystem::{esp_file, read_ext};
use super::initramfs::Initramfs;
use super::layout::Holds;

/// Offset and value of the magic of ext2 to ext4.
const EXT_MAGIC: (u64, [u8; 2]) = (1080, [0x53, 0xef]);

/// What an initramfs has to be.
const ARCHIVE: &str =
    "initramfs of one archive, packed by zstd or not at all, that begins with /init";

/// What an image must not have, because every node would: a path, and what to do. An empty file is none.
const SHARED: [(&str, &str); 4] = [
    ("/etc/machine-id", "empty it"),
    ("/var/lib/dbus/machine-id", "remove it"),
    ("/etc/ssh/ssh_host_ed25519_key", "remove it"),
    ("/etc/ssh/ssh_host_rsa_key", "remove it"),
];

/// The files of the system in slot a.
pub(super) enum System {
    /// An ext file system in a partition of the disk.
    Ext {
        /// The disk.
        disk: PathBuf,
        /// Where the partition begins, in bytes.
        offset: u64,
        /// The time that `debugfs` is told.
        epoch: u64,
    },
    /// An initramfs.
    InMemory(Initramfs),
    /// Nothing that is read here; what it would have to be.
    Unknown(&'static str),
}

impl System {
    /// Those of its partition, or of the initramfs on the ESP that is all of it. `None`: it lies on no part of this
    /// disk.
    pub(super) fn open(
        inputs: &Inputs<'_>,
        system: &ComponentName,
        disk: &Path,
        work: &Path,
    ) -> Result<Option<Self>, FactoryError> {
        let Inputs { layout, chosen, epoch, .. } = inputs;
        if let Some(part) = layout.partition(&Holds::Component(system.clone(), Slot::A)) {
            let (disk, offset, epoch) = (disk.to_owned(), part.offset, *epoch);
            return Ok(Some(match is_ext(&disk, offset)? {
                true => System::Ext { disk, offset, epoch },
                false => System::Unknown("ext file system"),
            }));
        }
        let on_esp = layout.esp_files.iter().any(|file| file.component == *system);
        let own = chosen.iter().find(|one| one.name == *system).filter(|_| on_esp);
        let Some(own) = own else { return Ok(None) };
        let opened = Initramfs::open(&esp_file(work, own), own.raw_size, work, *epoch)?;
        Ok(Some(opened.map_or(System::Unknown(ARCHIVE), System::InMemory)))
    }

    /// The bytes of a file, by its path on the node; `None`: there is no such file.
    pub(super) fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, FactoryError> {
        match self {
            System::Ext { disk, offset, epoch } => read_ext(disk, *offset, path, *epoch),
            System::InMemory(initramfs) => initramfs.read(path),
            System::Unknown(_) => Ok(None),
        }
    }

    /// What all nodes with this image would have in common and should not.
    pub(super) fn shared(&self) -> Result<Vec<String>, FactoryError> {
        let mut notes = Vec::new();
        for (path, remedy) in SHARED {
            let found = self.read(Path::new(path))?.unwrap_or_default();
            if !found.trim_ascii().is_empty() && found.trim_ascii() != b"uninitialized" {
                notes.push(format!(
                    "the image has {path}, the same on every node: {remedy} before you publish"
                ));
            }
        }
        Ok(notes)
    }
}

fn is_ext(disk: &Path, offset: u64) -> Result<bool, FactoryError> {
    let failed = FactoryError::file("read", disk);
    let (at, magic) = EXT_MAGIC;
    let mut found = [0; 2];
    File::open(disk)
        .and_then(|file| file.read_exact_at(&mut found, offset + at))
        .map_err(failed)?;
    Ok(found == magic)
}
