//! `boot-select` as `/init`: a LinuxBoot chooser.
//!
//! ```text
//!  modules, watchdog ─► disk ─► next slot (core) ─► repair the table ─► spend its try, durably
//!     ▲                           │ none   ▲                                │
//!     └── wait, longer each time ◄┘        │                                ▼
//!                                          └─ refused: proof (core) ─► dm-verity ─► mount ─► kexec
//! ```
//!
//! Nothing is written before a slot is chosen: of a disk that names no slot in its table the chooser
//! changes nothing. What a refusal costs a slot, and that the TPM's floor never keeps a node from
//! booting, is [`update_core::chooser::Round`].
//!
//! Nothing of a slot is read before its try is spent, and nothing of it is executed that did not
//! come through dm-verity with the root hash that the release signs. The watchdog is armed first and
//! never disarmed: it guards the chooser, the kexec, and the slot until its agent feeds it.
//!
//! What the kernel is told besides what the slot says: `racklet.slot`, `racklet.boot`,
//! `racklet.tries`, `racklet.version`, `racklet.refused=SLOT:CODE` for a slot refused in this boot,
//! `racklet.floor` and `racklet.root` ([`update_core::chooser::Root`]), by which the slot's initramfs
//! mounts `/`, and `roothash` with its companions, as systemd's veritysetup generator reads them.

mod floor;
mod mapper;
mod root;
mod slot;
mod sys;
mod watchdog;
mod words;

use std::fmt;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use formats::boot_record::Slot;
use formats::reason::Reason;
use rustix::mount::{MountFlags, mount};
use rustix::system::RebootCommand;
use storage::host::System;
use update_core::boot::{BootFlags, FlagEdit};
use update_core::chooser::{Attempt, ChooserFloor, Gap, Refused, Rescue, Round, rescue};

pub use root::{is_root_init, map_root, run_root};
pub use slot::{machine, read_proof, write_proof};

use crate::boot::BootControl as _;
use crate::config::{Backend, Config, RescueEnd};
use crate::disk::Disk;
use crate::error::{AgentError, Because as _};
use watchdog::Watchdog;
use words::Told;

/// Between two looks for a disk that has not appeared.
const DISK_POLL: Duration = Duration::from_millis(50);

/// Whether this process is the first one of a machine, started as `/init` of an initramfs.
pub fn is_init() -> bool {
    std::process::id() == 1
        && std::env::args_os().next().is_some_and(|name| Path::new(&name).ends_with("init"))
}

/// Boots a slot. Returns never: when no slot can be booted, the machine waits, restarts or is
/// switched off, as `[chooser]` says.
pub fn run(config: &Path) -> ! {
    // A panic would end the first process, and the kernel would restart the machine at once.
    let ended = catch_unwind(AssertUnwindSafe(|| boot(config)));
    let what = if ended.is_err() { "the chooser panicked" } else { "the chooser ended" };
    say(format_args!("{what}; restarting in 60 s"));
    std::thread::sleep(Duration::from_secs(60));
    end(RescueEnd::Reboot, &[]);
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}

/// Writes a line to the console. Errors are ignored: there may be no console.
pub(super) fn say(text: fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "racklet: {text}");
}

fn boot(path: &Path) {
    say(format_args!("chooser {}", env!("CARGO_PKG_VERSION")));
    system_mounts();
    let config = Config::load(path);
    let settings = config.as_ref().map(|config| config.chooser.clone()).unwrap_or_default();
    load_modules(&settings.modules);
    let mut watchdog = Watchdog::arm(&settings.watchdog, settings.watchdog_timeout);
    let mut round = 0;
    loop {
        let error = match &config {
            Ok(config) => one_round(config, &mut watchdog),
            Err(error) => format!("{}: {}", error.reason(), error.chain()),
        };
        match rescue(round, settings.rescue_rounds) {
            Rescue::Wait(wait) => {
                say(format_args!("rescue: {error}; again in {} s", wait.as_secs()));
                watchdog.sleep(wait);
            }
            Rescue::End => {
                say(format_args!("rescue: {error}; giving up: {:?}", settings.rescue));
                end(settings.rescue, &settings.shell);
                round = 0;
                continue;
            }
        }
        round += 1;
    }
}

/// Tries every slot once, and those that only the floor refused again. Returns only when none could be
/// booted, and says why.
fn one_round(config: &Config, watchdog: &mut Watchdog) -> String {
    let disk = match find_disk(config) {
        Ok(disk) => disk,
        Err(error) => return shown(&error),
    };
    let mut round = Round::begin(floor::ask(&config.floor, watchdog));
    let mut repaired = false;
    loop {
        watchdog.feed();
        let flags = match disk.flags() {
            Ok(flags) => flags,
            Err(error) => return shown(&error),
        };
        let Some(attempt) = round.next(flags) else { return none_left(&round) };
        if round.floor() == ChooserFloor::Open(Gap::AboveAll) {
            let slot = attempt.slot;
            say(format_args!(
                "floor above every slot; booting slot {slot} without, its flags stay"
            ));
        }
        if !std::mem::replace(&mut repaired, true) {
            repair_table(config, &disk);
        }
        let error = match try_slot(config, &disk, flags, attempt, &round, watchdog) {
            Ok(never) => match never {},
            Err(error) => error,
        };
        say(format_args!("slot {} refused: {}", attempt.slot, shown(&error)));
        if let Refused::Edit(edit) = round.refuse(flags, attempt, error.reason()) {
            write_edit(&disk, attempt.slot, edit);
        }
    }
}

fn shown(error: &AgentError) -> String {
    format!("{}: {}", error.reason(), error.chain())
}

/// Why neither slot could be booted.
fn none_left(round: &Round) -> String {
    let told = |slot: Slot| match round.refused().iter().find(|(one, _)| *one == slot) {
        Some((_, reason)) => format!("slot {slot} was refused ({reason})"),
        None => format!("slot {slot} is not bootable"),
    };
    format!("{}: {}, {}", Reason::BootRecord, told(Slot::A), told(Slot::B))
}

fn write_edit(disk: &Disk, slot: Slot, edit: FlagEdit) {
    if let Err(error) = disk.edit(edit) {
        say(format_args!("slot {slot} keeps its flags: {}", shown(&error)));
    }
}

/// The disk, once it is there. Nothing is written to it yet.
fn find_disk(config: &Config) -> Result<Disk, AgentError> {
    if config.boot.backend != Backend::GptAttributes {
        let text = format!("the chooser reads gpt-attributes, not {}", config.boot.backend.name());
        return Err(AgentError::new(Reason::Config, text));
    }
    let until = Instant::now() + config.chooser.disk_wait;
    while !config.boot.disk.exists() && Instant::now() < until {
        std::thread::sleep(DISK_POLL);
    }
    Ok(Disk::new(config, Arc::new(System)))
}

/// Writes a damaged copy of the table again, from the one by which a slot was chosen. A disk that
/// does not take it may still boot.
fn repair_table(config: &Config, disk: &Disk) {
    match disk.repair_table() {
        Ok(None) => {}
        Err(error) => say(format_args!("the partition table is not repaired: {}", shown(&error))),
        Ok(Some(copy)) => {
            say(format_args!("the {copy:?} partition table was damaged and is written again"));
            // Without a primary table the kernel found no partitions: it does not look at the backup.
            let reread = std::fs::File::open(&config.boot.disk)
                .and_then(|disk| sys::reread_partitions(&disk));
            if let Err(error) = reread {
                say(format_args!("the kernel keeps the partitions that it knows: {error}"));
            }
        }
    }
}

/// Spends the slot's try, then boots it. Returns only when it must not be booted, or cannot.
fn try_slot(
    config: &Config,
    disk: &Disk,
    before: BootFlags,
    attempt: Attempt,
    round: &Round,
    watchdog: &mut Watchdog,
) -> Result<std::convert::Infallible, AgentError> {
    if attempt.flags != before {
        let after = disk.edit(FlagEdit::Spend(attempt.slot))?;
        if after != attempt.flags {
            let text = "the try was not spent: the flags are not what was written";
            return Err(AgentError::new(Reason::Readback, text));
        }
    }
    let told = Told { floor: round.floor(), refused: round.refused() };
    let ready = slot::load(config, disk, attempt, told, watchdog)?;
    for edit in round.ready() {
        write_edit(disk, attempt.slot.other(), edit);
    }
    say(format_args!("slot {}, {ready}; starting", attempt.slot));
    watchdog.feed();
    rustix::fs::sync();
    rustix::system::reboot(RebootCommand::Kexec).because(Reason::SlotIo, "kexec")?;
    Err(AgentError::new(Reason::SlotIo, "kexec returned"))
}

/// What every other step needs. Some kernels mount a devtmpfs themselves.
fn system_mounts() {
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        // It may exist, and it may be mounted: what is missing shows when the disk is looked for.
        let _ = std::fs::create_dir(place);
        let flags = if kind == "devtmpfs" { MountFlags::NOSUID } else { flags };
        let _ = mount(kind, place, kind, flags, None);
    }
}

fn load_modules(modules: &[String]) {
    for module in modules {
        let (file, parameters) = module.split_once(' ').unwrap_or((module, ""));
        if let Err(error) = load_module(Path::new(file), parameters) {
            say(format_args!("module {file}: {error}"));
        }
    }
}

fn load_module(file: &Path, parameters: &str) -> std::io::Result<()> {
    let parameters = std::ffi::CString::new(parameters)?;
    let file = std::fs::File::open(file)?;
    match rustix::system::finit_module(&file, &parameters, 0) {
        Err(rustix::io::Errno::EXIST) | Ok(()) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Ends this boot without a slot.
fn end(how: RescueEnd, shell: &[String]) {
    rustix::fs::sync();
    if how == RescueEnd::Shell
        && let Some((program, arguments)) = shell.split_first()
    {
        // Whoever leaves it wants the disk to be looked at again.
        let _ = Command::new(program).args(arguments).status();
        return;
    }
    let command = match how {
        RescueEnd::PowerOff => RebootCommand::PowerOff,
        _ => RebootCommand::Restart,
    };
    let _ = rustix::system::reboot(command);
}
