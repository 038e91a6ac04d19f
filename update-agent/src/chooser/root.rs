//! The other end of the chooser's word: `/` of the slot that it started, through dm-verity.
//!
//! ```text
//!  racklet.root=… on the command line ─► partition ─► dm-verity `root` ─► read-only /sysroot
//!                                                                            └─ becomes /, its init runs
//! ```
//!
//! Two ways to the same: this program is `/init` of the slot's initramfs, which then holds
//! [`CONFIG`] and needs nothing else; or an initramfs by others calls `update-agent map-root` and
//! mounts the device itself (`boot/initramfs-tools`). Either way the root hash comes from the
//! chooser, which has it from the signed release, and a block that is not what was signed is an I/O
//! error, at any time. Nothing is guessed: without the word there is no `/`.

use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use formats::reason::Reason;
use rustix::mount::{MountFlags, mount_move};
use rustix::process::{chdir, chroot};
use rustix::system::RebootCommand;
use serde::Deserialize;
use storage::block::{Access, FileDevice};
use storage::partition_table;
use update_core::chooser::{Root, init_of_command_line};

use super::mapper::VerityDevice;
use super::slot::{device_number, mount_slot};
use super::{DISK_POLL, load_modules, say, system_mounts};
use crate::error::{AgentError, Because as _};
use crate::health::deserialize_period;

/// In the slot's initramfs; that it is there tells this `/init` from the chooser's.
const CONFIG: &str = "/etc/update-agent/initramfs.toml";
/// 64 KiB: a list of modules.
const CONFIG_LIMIT: u64 = 1 << 16;
/// The name that systemd gives a root file system on verity, so that it finds it in place.
const NAME: &str = "root";
/// Where `/` is put together.
const SYSROOT: &str = "/sysroot";
/// Before a machine that cannot mount `/` restarts: what is wrong can be read, and nothing loops fast.
const FAILED_WAIT: Duration = Duration::from_secs(5);

/// `initramfs.toml`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RootConfig {
    /// Kernel modules to load first, in this order, each with its parameters: `FILE [NAME=VALUE]…`.
    modules: Vec<String>,
    /// How long the disk may take to appear.
    #[serde(deserialize_with = "deserialize_period")]
    disk_wait: Duration,
    /// The program that runs when the command line names none.
    init: String,
}

impl Default for RootConfig {
    fn default() -> Self {
        RootConfig {
            modules: Vec::new(),
            disk_wait: Duration::from_secs(30),
            init: "/sbin/init".to_owned(),
        }
    }
}

impl RootConfig {
    fn load() -> Result<Self, AgentError> {
        let bytes = storage::private::read_trusted(Path::new(CONFIG), CONFIG_LIMIT)
            .map_err(|error| AgentError::from(error).or_config())?;
        let text = String::from_utf8(bytes).because(Reason::Config, CONFIG)?;
        toml::from_str(&text).because(Reason::Config, CONFIG)
    }
}

/// Whether this `/init` is that of a slot's initramfs.
pub fn is_root_init() -> bool {
    super::is_init() && Path::new(CONFIG).exists()
}

/// Mounts the slot and becomes its init. Returns never: when `/` cannot be mounted, the machine
/// restarts, and the chooser counts the try or tries again.
pub fn run_root() -> ! {
    let ended = catch_unwind(AssertUnwindSafe(start));
    match ended {
        Ok(Ok(never)) => match never {},
        Ok(Err(error)) => say(format_args!("no root: {}: {}", error.reason(), error.chain())),
        Err(_) => say(format_args!("no root: this program panicked")),
    }
    say(format_args!("restarting in {} s", FAILED_WAIT.as_secs()));
    std::thread::sleep(FAILED_WAIT);
    loop {
        let _ = rustix::system::reboot(RebootCommand::Restart);
        std::thread::sleep(FAILED_WAIT);
    }
}

fn start() -> Result<Infallible, AgentError> {
    system_mounts();
    let config = RootConfig::load()?;
    load_modules(&config.modules);
    let line = command_line()?;
    let root = Root::of_command_line(&line).because(Reason::BootRecord, "what to mount")?;
    let device = map(&root, config.disk_wait)?;
    // It may exist.
    let _ = fs::create_dir(SYSROOT);
    mount_slot(&device, SYSROOT, MountFlags::empty())?;
    say(format_args!(
        "root: slot {}, {}, every block verified",
        root.slot,
        device.node().display()
    ));
    device.keep().because(Reason::SlotIo, "name the root device")?;
    become_root(init_of_command_line(&line).unwrap_or(&config.init))
}

/// `update-agent map-root`: maps the device and gives its name. The caller mounts it.
pub fn map_root(disk_wait: Duration) -> Result<PathBuf, AgentError> {
    let line = command_line()?;
    let root = Root::of_command_line(&line)
        .because(Reason::BootRecord, "what to mount")
        .map_err(|error| error.hint("boot this slot through the chooser; see docs/vm.md"))?;
    map(&root, disk_wait)?.keep().because(Reason::SlotIo, "name the root device")
}

fn command_line() -> Result<String, AgentError> {
    fs::read_to_string("/proc/cmdline").because(Reason::BootRecord, "read the kernel command line")
}

/// Maps the partition once it is there. Where several disks have one of that GUID, the first on
/// which the signed tree begins: a copy is as good, anything else is not mapped.
fn map(root: &Root, disk_wait: Duration) -> Result<VerityDevice, AgentError> {
    let until = Instant::now() + disk_wait;
    let mut error = AgentError::new(
        Reason::SlotIo,
        format!("no disk has partition {} of slot {}", root.partition, root.slot),
    );
    loop {
        for number in partitions(root) {
            match VerityDevice::open(NAME, &number, &root.verity).and_then(|device| {
                device.check_first_block()?;
                Ok(device)
            }) {
                Ok(device) => return Ok(device),
                Err(failed) => error = failed.context(format!("partition {number}")),
            }
        }
        if Instant::now() >= until {
            return Err(error);
        }
        std::thread::sleep(DISK_POLL);
    }
}

/// `major:minor` of each partition with the GUID.
fn partitions(root: &Root) -> Vec<String> {
    let mut found = Vec::new();
    for disk in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        // sysfs writes `!` for a `/` in the name of a node.
        let path = Path::new("/dev").join(disk.file_name().to_string_lossy().replace('!', "/"));
        let Ok(device) = FileDevice::open(&path, Access::Read) else { continue };
        let Ok(choice) = partition_table::load(&device) else { continue };
        let ours = choice.table.partitions().find(|one| one.guid == root.partition);
        found.extend(ours.and_then(|one| device_number(&path, &one).ok()));
    }
    found
}

/// Makes [`SYSROOT`] the root of everything and runs its init with our arguments.
fn become_root(init: &str) -> Result<Infallible, AgentError> {
    for (place, kind) in [("dev", "devtmpfs"), ("proc", "proc"), ("sys", "sysfs")] {
        let (from, to) = (Path::new("/").join(place), Path::new(SYSROOT).join(place));
        mount_move(&from, &to)
            .because(Reason::BundleFormat, format!("the slot has no /{place} to put {kind} on"))?;
    }
    let failed = "switch to the slot's root";
    chdir(SYSROOT).because(Reason::SlotIo, failed)?;
    empty_initramfs();
    mount_move(".", "/").because(Reason::SlotIo, failed)?;
    chroot(".").because(Reason::SlotIo, failed)?;
    chdir("/").because(Reason::SlotIo, failed)?;
    let error = Command::new(init).args(std::env::args_os().skip(1)).exec();
    Err(AgentError::from_cause(Reason::BundleFormat, format!("run {init}"), error))
}

/// Gives the initramfs' memory back. Only that of an initramfs, and nothing that is mounted on it.
fn empty_initramfs() {
    const RAMFS: u64 = 0x8584_58f6;
    const TMPFS: u64 = 0x0102_1994;
    let in_memory = rustix::fs::statfs("/")
        .is_ok_and(|root| [RAMFS, TMPFS].contains(&u64::try_from(root.f_type).unwrap_or(0)));
    let Ok(root) = fs::metadata("/") else { return };
    if !in_memory {
        return;
    }
    for entry in fs::read_dir("/").into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.metadata() {
            Ok(found) if found.dev() != root.dev() || path == Path::new(SYSROOT) => {}
            Ok(found) if found.is_dir() => drop(fs::remove_dir_all(&path)),
            _ => drop(fs::remove_file(&path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_recipe_is_a_configuration() {
        let text = "modules = [\"/lib/modules/nvme.ko\"]\ndisk_wait = \"10s\"\ninit = \"/init\"\n";
        let config: RootConfig = toml::from_str(text).unwrap();
        assert_eq!(config.disk_wait, Duration::from_secs(10));
        assert_eq!(toml::from_str::<RootConfig>("").unwrap(), RootConfig::default());
        assert!(toml::from_str::<RootConfig>("module = []").is_err(), "a misspelt key");
    }
}
