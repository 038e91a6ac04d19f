//! One slot: its proof, its blocks through dm-verity, its kernel into memory.

use std::ffi::CString;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use formats::bls::BootFiles;
use formats::gpt::Partition;
use formats::reason::Reason;
use formats::version::Version;
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, ResolveFlags, memfd_create, openat2};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use storage::block::BlockDevice;
use update_core::chooser::{
    Attempt, BelowFloor, Machine, Proof, ProofError, Trailer, approve, place,
};

use super::mapper::{VerityDevice, judge};
use super::sys;
use super::watchdog::Watchdog;
use super::words::{Told, Words};
use crate::config::Config;
use crate::disk::Disk;
use crate::error::{AgentError, Because as _};

/// What the slot says of how it boots, in the form of a Boot Loader Specification entry.
const ENTRY: &str = "/boot/racklet.conf";
/// 64 KiB: an entry is a few lines.
const ENTRY_LIMIT: u64 = 1 << 16;
/// 1 MiB: what a trust root may have.
const ROOT_LIMIT: u64 = 1 << 20;
/// The kernel's limit of a command line on x86 and arm64.
const COMMAND_LINE_LIMIT: usize = 2047;
/// One read of a whole slot; the watchdog is fed between.
const READ_SIZE: usize = 4 << 20;
/// Where the slot is mounted.
const MOUNT: &str = "/racklet-slot";

/// A slot whose kernel is loaded.
#[derive(Debug)]
pub(super) struct Ready {
    version: Version,
    trial: Option<u8>,
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.trial {
            Some(left) => write!(f, "{} verified, on trial, {left} tries left", self.version),
            None => write!(f, "{} verified, confirmed", self.version),
        }
    }
}

/// Verifies a slot and loads its kernel. Everything that is kept of it came through dm-verity.
pub(super) fn load(
    config: &Config,
    disk: &Disk,
    attempt: Attempt,
    told: Told<'_>,
    watchdog: &mut Watchdog,
) -> Result<Ready, AgentError> {
    let slot = attempt.slot;
    let component = &config.boot.component;
    let device = disk.open_to_read(slot, component)?;
    let root = storage::private::read_trusted(&config.trust.root, ROOT_LIMIT)
        .map_err(|error| AgentError::from(error).or_config().context("trust.root"))?;
    let proof = read_proof(device.as_ref())?;
    let approved = approve(&proof, &root, machine(config))?;
    told.floor.admit(&approved)?;
    let partition = disk.partition(&disk.table()?, slot, component)?;
    let number = device_number(disk.path(), &partition)?;
    let verity = VerityDevice::open(&format!("racklet-{slot}"), &number, approved.verity())?;
    if attempt.whole {
        read_all(&verity, watchdog)?;
    }
    let mounted = Mounted::at(MOUNT, &verity)?;
    let entry = mounted.text(ENTRY)?;
    let files = BootFiles::parse(&entry).because(Reason::BundleFormat, ENTRY)?;
    let kernel = mounted.open(&files.linux)?;
    let initrd = mounted.initrd(&files.initrd)?;
    let words = Words { config, attempt, approved: &approved, partition: &partition, told };
    let line = words.command_line(&files.options, watchdog);
    if line.len() > COMMAND_LINE_LIMIT {
        let text = format!("the kernel's command line has {} bytes", line.len());
        return Err(AgentError::new(Reason::MetaLimit, text));
    }
    let line = CString::new(line).because(Reason::BundleFormat, "the kernel's command line")?;
    sys::kexec_file_load(kernel.as_fd(), initrd.as_ref().map(OwnedFd::as_fd), &line)
        .map_err(|error| judge(&verity, "load the slot's kernel", error))?;
    let flags = attempt.flags.of(slot);
    let trial = (!flags.successful).then_some(flags.tries);
    Ok(Ready { version: approved.version().clone(), trial })
}

/// What this machine is, by its configuration.
pub fn machine(config: &Config) -> Machine<'_> {
    Machine {
        product: &config.node.product,
        hardware: &config.node.hardware,
        component: &config.boot.component,
    }
}

/// The proof at the end of a slot.
pub fn read_proof(slot: &dyn BlockDevice) -> Result<Proof, AgentError> {
    let (_, trailer_at) = place(0, slot.len(), 0).ok_or(ProofError::Form("has no room"))?;
    let mut block = vec![0; Trailer::LEN];
    slot.read_at(&mut block, trailer_at)?;
    let trailer = Trailer::parse(&block)?;
    let (at, _) = place(u64::from(trailer.len), slot.len(), 0)
        .ok_or(ProofError::Form("is longer than the slot"))?;
    let mut bytes = vec![0; trailer.len as usize];
    slot.read_at(&mut bytes, at)?;
    if Trailer::of(&bytes) != trailer {
        return Err(AgentError::new(Reason::HashMismatch, "the slot's proof is torn or altered"));
    }
    Ok(Proof::from_bytes(&bytes)?)
}

/// Puts a proof at the end of a slot whose image has `used` bytes, durably, and reads it back.
///
/// A crash leaves no proof or the whole one; a slot is not bootable before its proof is.
pub fn write_proof(slot: &dyn BlockDevice, proof: &Proof, used: u64) -> Result<(), AgentError> {
    let bytes = proof.to_bytes();
    let (at, trailer_at) = place(bytes.len() as u64, slot.len(), used).ok_or_else(|| {
        let text = format!(
            "{}: {} bytes of proof do not fit behind the image",
            slot.describe(),
            bytes.len()
        );
        AgentError::new(Reason::SlotSize, text).hint("make the slots larger by a MiB")
    })?;
    slot.write_at(&bytes, at)?;
    slot.sync()?;
    slot.write_at(&Trailer::of(&bytes).to_bytes(), trailer_at)?;
    slot.sync()?;
    slot.forget_cached(at, slot.len().saturating_sub(at));
    if read_proof(slot)? == *proof {
        return Ok(());
    }
    Err(AgentError::new(Reason::Readback, "the slot's proof reads back differently"))
}

/// `major:minor` of the kernel's own partition.
pub(super) fn device_number(disk: &Path, partition: &Partition) -> Result<String, AgentError> {
    let failed = || format!("find partition {} of {}", partition.number, disk.display());
    let rdev = fs::metadata(disk).because(Reason::SlotIo, failed())?.rdev();
    let (major, minor) = (rustix::fs::major(rdev), rustix::fs::minor(rdev));
    let sysfs = format!("/sys/dev/block/{major}:{minor}");
    for entry in fs::read_dir(sysfs).because(Reason::SlotIo, failed())?.flatten() {
        let field = |name| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        if field("partition").trim() == partition.number.to_string() {
            return Ok(field("dev").trim().to_owned());
        }
    }
    Err(AgentError::new(Reason::SlotIo, failed()))
}

/// Reads every block once: the kernel compares each with the tree.
fn read_all(verity: &VerityDevice, watchdog: &mut Watchdog) -> Result<(), AgentError> {
    let failed = |error| judge(verity, "read the slot", error);
    let mut file = File::open(verity.node()).map_err(failed)?;
    let mut buffer = vec![0; READ_SIZE];
    loop {
        watchdog.feed();
        if file.read(&mut buffer).map_err(failed)? == 0 {
            return Ok(());
        }
    }
}

/// A slot's file system, mounted from its verity device until dropped.
struct Mounted<'a> {
    place: &'static str,
    verity: &'a VerityDevice,
}

impl<'a> Mounted<'a> {
    fn at(place: &'static str, verity: &'a VerityDevice) -> Result<Self, AgentError> {
        // It may exist.
        let _ = fs::create_dir(place);
        mount_slot(verity, place, MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC)?;
        Ok(Mounted { place, verity })
    }

    /// A file of the slot; its links lead nowhere else.
    fn open(&self, path: &str) -> Result<File, AgentError> {
        let failed = |error: io::Error| judge(self.verity, &format!("open {path}"), error);
        let root = openat2(
            CWD,
            self.place,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::empty(),
        )
        .map_err(|errno| failed(errno.into()))?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)
            .map_err(|errno| failed(errno.into()))?;
        Ok(File::from(file))
    }

    fn text(&self, path: &str) -> Result<String, AgentError> {
        let mut text = String::new();
        self.open(path)?
            .take(ENTRY_LIMIT)
            .read_to_string(&mut text)
            .map_err(|error| judge(self.verity, &format!("read {path}"), error))?;
        Ok(text)
    }

    /// The initrds behind one another, as a loader would place them. `None` when there is none.
    fn initrd(&self, paths: &[String]) -> Result<Option<OwnedFd>, AgentError> {
        match paths {
            [] => Ok(None),
            [only] => Ok(Some(self.open(only)?.into())),
            several => {
                let memory = memfd_create(c"initrd", MemfdFlags::CLOEXEC)
                    .because(Reason::SlotIo, "make room for the initrds")?;
                let mut all = File::from(memory);
                for path in several {
                    let mut one = self.open(path)?;
                    io::copy(&mut one, &mut all)
                        .map_err(|error| judge(self.verity, &format!("read {path}"), error))?;
                }
                all.flush().because(Reason::SlotIo, "join the initrds")?;
                Ok(Some(all.into()))
            }
        }
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        // A busy file system stays mounted; the kernel that is started next does not mind.
        let _ = unmount(self.place, UnmountFlags::empty());
    }
}

/// Mounts a slot's file system, read-only.
pub(super) fn mount_slot(
    verity: &VerityDevice,
    place: &str,
    flags: MountFlags,
) -> Result<(), AgentError> {
    let kind = file_system(verity)?;
    mount(verity.node(), place, kind, MountFlags::RDONLY | flags, None)
        .map_err(|errno| judge(verity, "mount the slot", errno.into()))
}

/// Which file system a slot holds: the kernel's mount wants its name.
fn file_system(verity: &VerityDevice) -> Result<&'static str, AgentError> {
    let mut head = vec![0; 2048];
    File::open(verity.node())
        .and_then(|mut file| file.read_exact(&mut head))
        .map_err(|error| judge(verity, "read the slot's file system", error))?;
    let at = |offset: usize, magic: &[u8]| head.get(offset..offset + magic.len()) == Some(magic);
    if at(1080, &[0x53, 0xef]) {
        Ok("ext4")
    } else if at(0, b"hsqs") {
        Ok("squashfs")
    } else if at(1024, &[0xe2, 0xe1, 0xf5, 0xe0]) {
        Ok("erofs")
    } else {
        let text = "the slot holds neither ext4 nor squashfs nor erofs";
        Err(AgentError::new(Reason::BundleFormat, text))
    }
}

impl From<ProofError> for AgentError {
    fn from(error: ProofError) -> Self {
        let (reason, hint) = (error.reason(), error.hint());
        let error = AgentError::new(reason, crate::error::chain_of(&error));
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

impl From<BelowFloor> for AgentError {
    fn from(error: BelowFloor) -> Self {
        AgentError::new(Reason::SecverFloor, error.to_string())
    }
}
