//! A machine with one of the boot backends, and the agent on it.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use formats::boot_flags::SlotFlags;
use formats::boot_record::Slot;
use formats::boot_vars;
use formats::digest::Digest;
use formats::gpt::{Geometry, Guid, NewPartition, Table};
use formats::grub_env::GrubEnv;
use formats::oci::Descriptor;
use formats::uboot_env::{Env, EnvCopy, Layout};
use storage::block::{Access, Window};
use storage::files::{Files as _, PrivateDir};
use storage::host::Host as _;
use storage::partition_table;
use storage::sim::{Machine, Media, fat};
use update_agent::agent::{Agent, ApplyOptions, RevertOptions, RoundReport, Wish};
use update_agent::config::Config;
use update_agent::environment::Environment;
use update_agent::error::AgentError;
use update_agent::progress::{Progress, Silent};
use update_agent::source::{FetchError, Sink, Source, TufState};
use update_agent::stage::Pace;
use update_core::restart::{Means, Purpose};

use crate::repository::{CHANNEL, HARDWARE, PRODUCT, Snapshot};
use racklet_testkit::forge::NOW;

/// Who keeps the boot flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backend {
    /// Attribute bits of GPT entries.
    Gpt,
    /// U-Boot's redundant environment, copies that count up.
    Uboot,
    /// The same, one copy marked active.
    UbootActive,
    /// Names of entries on a FAT file system.
    SystemdBoot,
    /// GRUB's environment block, which promises less.
    Grub,
    /// `autoboot.txt` of a Raspberry Pi, whose boot loader has to be asked for a trial.
    Rpi,
    /// GPT entries for the system, and beside it firmware in two banks of NOR flash, which are erased
    /// in blocks and programmed once.
    FlashBank,
}

impl Backend {
    /// All of them.
    pub const ALL: [Backend; 7] = [
        Backend::Gpt,
        Backend::Uboot,
        Backend::UbootActive,
        Backend::SystemdBoot,
        Backend::Grub,
        Backend::Rpi,
        Backend::FlashBank,
    ];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Gpt => "gpt-attributes",
            Backend::Uboot => "uboot-env",
            Backend::UbootActive => "uboot-env (active)",
            Backend::SystemdBoot => "systemd-boot",
            Backend::Grub => "grub-env",
            Backend::Rpi => "rpi-tryboot",
            Backend::FlashBank => "flash-bank",
        }
    }

    /// Components of a release for such a node, when it would have so many otherwise.
    pub fn components(self, otherwise: usize) -> usize {
        if self == Backend::FlashBank { 2 } else { otherwise }
    }

    fn lines(self) -> &'static str {
        match self {
            Backend::Gpt | Backend::FlashBank => "backend = 'gpt-attributes'",
            Backend::Uboot => "backend = 'uboot-env'\nenv_config = 'fw_env.config'",
            Backend::UbootActive => {
                "backend = 'uboot-env'\nenv_config = 'fw_env.config'\nenv_flags = 'active-obsolete'"
            }
            Backend::SystemdBoot => "backend = 'systemd-boot'\nesp = 'esp'",
            Backend::Grub => "backend = 'grub-env'\ngrub_env = 'grubenv'",
            Backend::Rpi => "backend = 'rpi-tryboot'\nfirmware_node = 'kernel/bootloader'",
        }
    }
}

/// Trial boots of a new release.
pub const TRIES: u8 = 3;
/// The disk of every node.
pub const DISK: &str = "/disk";
/// Where the state is.
pub const STATE: &str = "/state";
const ENV_SIZE: u64 = 4096;
/// GRUB's environment block.
const GRUB_BLOCK: &str = "/grubenv";
/// Where systemd-boot looks for entries.
pub const ENTRIES: &str = "/esp/loader/entries";
/// Firmware of slots A and B on flash.
const BANKS: [&str; 2] = ["/bank-a", "/bank-b"];
const CMDLINE: &str = "/kernel/cmdline";
const BOOT_ID: &str = "/kernel/boot_id";
/// What a restart was asked for with; like the register of a Raspberry Pi, it does not survive a power cut.
const ARGUMENT: &str = "/kernel/bootloader/reboot-argument";
/// The partition with `autoboot.txt`.
const AUTOBOOT: &str = "autoboot";

/// How a node is made: its configuration, and where its slots are.
#[derive(Debug)]
pub struct Kit {
    /// Who keeps its boot flags.
    pub backend: Backend,
    /// Components of its slots, 1 or 2.
    pub components: usize,
    single_copy: bool,
    config: Config,
    places: Vec<(Slot, usize, &'static str, u64, u64)>,
    /// Where `autoboot.txt` lies on the disk.
    autoboot: u64,
}

/// Names of components, in the order of a release.
const COMPONENTS: [&str; 2] = ["os", "firmware"];
/// Bytes of each component's partition.
const CAPACITY: [u64; 2] = [64 << 10, 24 << 10];

impl Kit {
    /// A kind of node.
    pub fn new(backend: Backend, components: usize) -> Self {
        let slots = |slot: &str| -> String {
            let line = |name: &&str| match (backend, *name) {
                (Backend::FlashBank, "firmware") => format!(
                    "firmware = {{ device = 'bank-{slot}', flash = {{ kind = 'nor', erase = 4096 }} }}\n"
                ),
                _ => format!("{name} = '{name}-{slot}'\n"),
            };
            COMPONENTS[..components].iter().map(line).collect()
        };
        let text = format!(
            "state_dir = 'state'\n\
             [node]\nproduct = '{PRODUCT}'\nchannel = '{CHANNEL}'\nhardware = ['{HARDWARE}']\n\
             id = 'node-1'\nos_release = 'os-release'\n\
             [trust]\nroot = 'root.json'\n\
             [[source]]\nurl = 'docker://memory.example/demo'\n\
             [boot]\n{}\ndisk = 'disk'\ntries = {TRIES}\ncmdline = 'kernel/cmdline'\n\
             boot_id = 'kernel/boot_id'\n\
             [slots.a]\n{}[slots.b]\n{}\
             [health]\naccept_no_checks = true\n[policy]\nmode = 'auto'\n",
            backend.lines(),
            slots("a"),
            slots("b"),
        );
        let config = match Config::parse(&text, Path::new("/")) {
            Ok(config) => config,
            Err(error) => panic!("the configuration of a simulated node: {}", error.chain()),
        };
        Kit { backend, components, single_copy: false, config, places: Vec::new(), autoboot: 0 }
    }

    /// One copy of U-Boot's environment, which is accepted.
    #[must_use]
    pub fn with_single_copy(mut self) -> Self {
        self.single_copy = true;
        self.config.boot.accept_single_env = true;
        self
    }

    /// A node from the factory: slot A holds these images and is confirmed, slot B holds nothing.
    pub fn factory(&mut self, root: &[u8], images: &[Vec<u8>]) -> Media {
        let guid = |number: u8| Guid([number; 16]);
        let on_disk = if self.backend == Backend::FlashBank { 1 } else { self.components };
        let of_slot = |slot: &'static str| {
            COMPONENTS[..on_disk].iter().map(move |name| format!("{name}-{slot}"))
        };
        let labels: Vec<String> = ["a", "b"].into_iter().flat_map(of_slot).collect();
        let mut partitions: Vec<NewPartition<'_>> = labels
            .iter()
            .enumerate()
            .map(|(nth, label)| NewPartition {
                label,
                type_guid: guid(0xee),
                guid: guid(u8::try_from(nth).expect("four at most") + 1),
                at: None,
                len: CAPACITY[nth % on_disk],
                attributes: match (self.backend, nth) {
                    (Backend::Gpt | Backend::FlashBank, 0) => attributes(confirmed(1)),
                    _ => 0,
                },
            })
            .collect();
        if self.backend == Backend::Rpi {
            let (number, len) = (0xaa, fat::VOLUME as u64);
            let (type_guid, guid) = (guid(0xee), guid(number));
            let (label, at, attributes) = (AUTOBOOT, None, 0);
            partitions.push(NewPartition { label, type_guid, guid, at, len, attributes });
        }
        let len = (partitions.len() as u64 + 2) << 20;
        let geometry = Geometry::new(len, 512).expect("a small disk");
        let table = Table::create(geometry, guid(0xdd), &partitions).expect("there is room");
        let mut media = Media::new()
            .with_bytes(DISK, &vec![0; usize::try_from(len).expect("a few MiB")])
            .with_bytes("/root.json", root)
            .with_folder(STATE);
        media = self.with_boot_record(media);
        let machine = Machine::on(&media, 0);
        let disk = machine.open_device(Path::new(DISK), Access::Write).expect("there is a disk");
        partition_table::format(&disk, &table).expect("a disk in memory takes a table");
        if let Ok(partition) = table.find(AUTOBOOT) {
            let volume = fat::with_autoboot(&autoboot());
            disk.write_at(&volume, partition.offset(geometry)).expect("it fits");
            self.autoboot = partition.offset(geometry) + fat::FILE as u64;
        }
        self.places = Slot::BOTH
            .into_iter()
            .flat_map(|slot| (0..on_disk).map(move |component| (slot, component)))
            .zip(table.partitions())
            .map(|((slot, component), partition)| {
                (slot, component, DISK, partition.offset(geometry), partition.len(geometry))
            })
            .collect();
        if self.backend == Backend::FlashBank {
            let banks = Slot::BOTH.into_iter().zip(BANKS);
            self.places.extend(banks.map(|(slot, bank)| (slot, 1, bank, 0, CAPACITY[1])));
        }
        for (component, image) in images.iter().enumerate() {
            let (path, offset, _) = self.place(Slot::A, component);
            let device = machine.open_device(Path::new(path), Access::Write);
            let device = device.expect("every component has a place");
            device.write_at(image, offset).expect("an image fits its place");
            device.sync().expect("memory is flushed");
        }
        disk.sync().expect("memory is flushed");
        machine.durable()
    }

    fn with_boot_record(&self, media: Media) -> Media {
        let flags = formats::boot_record::PerSlot { a: confirmed(1), b: SlotFlags::CLEARED };
        let variables = boot_vars::variables(None, flags);
        match self.backend {
            // In the partition, once there is one.
            Backend::Gpt | Backend::Rpi => media,
            Backend::FlashBank => {
                let erased = vec![0xff; usize::try_from(CAPACITY[1]).expect("a few KiB")];
                media.with_bytes(BANKS[0], &erased).with_bytes(BANKS[1], &erased)
            }
            Backend::Uboot | Backend::UbootActive => {
                let mut env = Env::default();
                for (name, value) in &variables {
                    env.set(name, value).expect("a variable fits");
                }
                if self.single_copy {
                    let copy = EnvCopy { env, flag: 0 };
                    let copy = copy.encode(ENV_SIZE, Layout::Single).expect("it fits");
                    let place = format!("/env0 0x0 {ENV_SIZE:#x}\n");
                    return media
                        .with_bytes("/fw_env.config", place.as_bytes())
                        .with_bytes("/env0", &copy);
                }
                let copy = |flag| {
                    let copy = EnvCopy { env: env.clone(), flag };
                    copy.encode(ENV_SIZE, Layout::Redundant).expect("an environment fits")
                };
                let flags = if self.backend == Backend::Uboot { [2, 1] } else { [1, 0] };
                let places = format!("/env0 0x0 {ENV_SIZE:#x}\n/env1 0x0 {ENV_SIZE:#x}\n");
                media
                    .with_bytes("/fw_env.config", places.as_bytes())
                    .with_bytes("/env0", &copy(flags[0]))
                    .with_bytes("/env1", &copy(flags[1]))
            }
            Backend::Grub => {
                let mut env = GrubEnv::new(1024).expect("the usual size");
                // What changes lies across the two sectors, where a cut can part it.
                env.set("padding", &"x".repeat(440)).expect("it fits");
                for (name, value) in &variables {
                    env.set(name, value).expect("a variable fits");
                }
                media.with_bytes("/grubenv", &env.encode().expect("it fits"))
            }
            Backend::SystemdBoot => {
                let media = media
                    .with_fat_folder("/esp/loader/entries")
                    .with_bytes("/esp/loader/racklet/a.conf", &entry("a"))
                    .with_bytes("/esp/loader/racklet/b.conf", &entry("b"));
                let machine = Machine::on(&media, 0);
                let folder = PrivateDir::open_on(&machine, Path::new("/esp/loader/entries"));
                let folder = folder.expect("it was just made");
                folder.write_atomic("racklet-1-a.conf", &entry("a")).expect("a folder in memory");
                machine.durable()
            }
        }
    }

    /// Where the boot flags lie that have one copy and no checksum: device, offset and length in bytes.
    pub fn only_copy(&self) -> Option<(&'static str, u64, u64)> {
        match self.backend {
            Backend::Grub => Some((GRUB_BLOCK, 0, 1024)),
            Backend::Rpi => Some((DISK, self.autoboot, 512)),
            _ => None,
        }
    }

    /// The slot that boots from a partition: the first components are the first partitions.
    pub fn slot_on(&self, partition: u32) -> Option<Slot> {
        let slot = |nth: usize| Slot::BOTH.into_iter().nth(nth / self.components);
        let nth = usize::try_from(partition).ok()?.checked_sub(1)?;
        slot(nth).filter(|_| nth % self.components == 0)
    }

    /// Where a component of a slot is: device, offset and length in bytes.
    pub fn place(&self, slot: Slot, component: usize) -> (&'static str, u64, u64) {
        let found = self.places.iter().find(|place| (place.0, place.1) == (slot, component));
        found.map_or((DISK, 0, 0), |place| (place.2, place.3, place.4))
    }
}

/// `autoboot.txt` as a factory leaves it: slot A is partition 1, and nothing else boots.
fn autoboot() -> Vec<u8> {
    let text = b"[all]\ntryboot_a_b=1\nboot_partition=1\n[tryboot]\nboot_partition=1\n";
    let mut bytes = text.to_vec();
    bytes.resize(256, b'\n');
    bytes
}

/// What systemd-boot's entry of a slot says.
pub fn entry(slot: &str) -> Vec<u8> {
    format!("title Racklet\nsort-key racklet\nlinux /{slot}/vmlinuz\n").into_bytes()
}

fn confirmed(priority: u8) -> SlotFlags {
    SlotFlags { priority, tries: 0, successful: true }
}

fn attributes(attrs: SlotFlags) -> u64 {
    attrs.put_into(0)
}

/// What the agent meets: a repository in memory, and a health check that says what it is told.
pub struct Surroundings {
    repository: Snapshot,
    healthy: bool,
    restarted: AtomicBool,
    machine: Machine,
    in_step: Option<Machine>,
    /// How often the sources were opened, and what they were asked for.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Environment for Surroundings {
    fn sources(&self, _: &Config, _: Option<&str>) -> Result<Vec<Box<dyn Source>>, AgentError> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push("open".to_owned());
        let (repository, asked) = (self.repository.clone(), Arc::clone(&self.asked));
        Ok(vec![Box::new(Recording { repository, asked })])
    }

    fn check_health(
        &self,
        _: &Config,
        _: std::time::Duration,
    ) -> Result<Result<(), String>, AgentError> {
        Ok(if self.healthy { Ok(()) } else { Err("web: no answer".to_owned()) })
    }

    fn restart(&self, _: &Config, purpose: Purpose, _: Means) -> Result<(), AgentError> {
        self.restarted.store(true, Ordering::SeqCst);
        let argument = if purpose == Purpose::Try { "0 tryboot" } else { "" };
        self.machine.write_kernel(Path::new(ARGUMENT), argument).expect("memory");
        Ok(())
    }

    fn pace(&self) -> Pace {
        // Eight chunks between two flushes: a journal point in the middle of a small image, and few
        // enough writes in flight for every subset of them.
        Pace { threads: NonZeroUsize::MIN, sync_every: SYNC_EVERY }
    }
}

/// A repository that remembers what it was asked for.
struct Recording {
    repository: Snapshot,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Recording {
    fn note(&self, what: String) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }
}

impl Source for Recording {
    fn describe(&self) -> String {
        self.repository.describe()
    }

    fn tuf_state(&self, known: Option<&str>) -> Result<TufState, FetchError> {
        self.note("state".to_owned());
        self.repository.tuf_state(known)
    }

    fn tuf_file(&self, file: &Descriptor, max: u64) -> Result<Vec<u8>, FetchError> {
        self.note(format!("metadata {}", file.digest));
        self.repository.tuf_file(file, max)
    }

    fn manifest(&self, product: &str, digest: &Digest, max: u64) -> Result<Vec<u8>, FetchError> {
        self.note(format!("manifest {digest}"));
        self.repository.manifest(product, digest, max)
    }

    fn blob(&self, product: &str, blob: &Descriptor, max: u64) -> Result<Vec<u8>, FetchError> {
        self.note(format!("blob {}", blob.digest));
        self.repository.blob(product, blob, max)
    }

    fn ranges(
        &self,
        product: &str,
        blob: &Descriptor,
        ranges: &[Range<u64>],
        sink: &mut Sink<'_>,
    ) -> Result<(), FetchError> {
        self.note(format!("ranges of {}", blob.digest));
        self.repository.ranges(product, blob, ranges, sink)
    }

    fn bytes_fetched(&self) -> u64 {
        self.repository.bytes_fetched()
    }
}

impl Surroundings {
    fn progress(&self) -> Box<dyn Progress> {
        match &self.in_step {
            Some(machine) => Box::new(InStep { machine: machine.clone(), state: Mutex::default() }),
            None => Box::new(Silent),
        }
    }
}

const SYNC_EVERY: u64 = 32 << 10;

/// Lets the thread that writes wait for the one that flushes, so that equal runs are equal in the
/// order of their writes as well. They are allowed to overlap.
struct InStep {
    machine: Machine,
    state: Mutex<Steps>,
}

#[derive(Default)]
struct Steps {
    writing: bool,
    written: u64,
    journals: usize,
}

impl Progress for InStep {
    fn begin(&self, what: &str, _: u64) {
        let writing = what.starts_with("write");
        let journals = self.machine.flushes(STATE);
        *self.state.lock().expect("nothing panics under it") =
            Steps { writing, written: 0, journals };
    }

    fn advance(&self, bytes: u64) {
        let mut state = self.state.lock().expect("nothing panics under it");
        state.written += bytes;
        if !state.writing || state.written < SYNC_EVERY {
            return;
        }
        state.written = 0;
        state.journals += 1;
        self.machine.wait_for_flushes(STATE, state.journals, PATIENCE);
    }

    fn note(&self, _: &str) {}

    fn end(&self) {}
}

/// 2 s: longer than any flush of memory; a run that failed meanwhile never flushes.
const PATIENCE: Duration = Duration::from_secs(2);

/// A node that is switched on.
pub struct Node<'a> {
    kit: &'a Kit,
    /// Its media.
    pub machine: Machine,
    surroundings: Arc<Surroundings>,
    boots: u32,
    /// The slot that runs; none before the first boot.
    pub booted: Option<Slot>,
}

impl<'a> Node<'a> {
    /// Switches a node on that has these media. Nothing has booted yet; boots are counted on from
    /// `boots`, so that no two of them have the same id.
    pub fn on(
        kit: &'a Kit,
        media: &Media,
        repository: &Snapshot,
        healthy: bool,
        boots: u32,
    ) -> Self {
        let now = u64::try_from(NOW.secs()).expect("after 1970");
        let repository = repository.clone();
        let restarted = AtomicBool::new(false);
        let machine = Machine::on(media, now);
        let (in_step, asked) = (Some(machine.clone()), Arc::default());
        let of_its_own = machine.clone();
        Node {
            kit,
            machine,
            surroundings: Arc::new(Surroundings {
                repository,
                healthy,
                restarted,
                machine: of_its_own,
                in_step,
                asked,
            }),
            boots,
            booted: None,
        }
    }

    /// Its writes need not come in the same order every time.
    #[must_use]
    pub fn out_of_step(mut self) -> Self {
        if let Some(surroundings) = Arc::get_mut(&mut self.surroundings) {
            surroundings.in_step = None;
        }
        self
    }

    /// How it was made.
    pub fn kit(&self) -> &'a Kit {
        self.kit
    }

    /// `autoboot.txt` as the boot loader finds it, on a node that has one.
    pub fn autoboot(&self) -> Result<Option<Vec<u8>>, String> {
        if self.kit.backend != Backend::Rpi {
            return Ok(None);
        }
        let disk = self.machine.open_device(Path::new(DISK), Access::Read);
        let disk = disk.map_err(|error| format!("S3: {error}"))?;
        let table = partition_table::load(&disk).map_err(|error| format!("S3: {error}"))?.table;
        let partition = table.find(AUTOBOOT).map_err(|error| format!("S3: {error}"))?;
        let (start, len) = (partition.offset(table.geometry()), partition.len(table.geometry()));
        let window =
            Window::new(disk, start, len, AUTOBOOT).map_err(|error| format!("S3: {error}"))?;
        let bytes = storage::autoboot::read(&window).map_err(|error| format!("S3: {error}"))?;
        Ok(Some(bytes))
    }

    /// A fresh process of the agent.
    pub fn agent(&self) -> Result<Agent, AgentError> {
        let host = Arc::new(self.machine.clone());
        let environment = Arc::clone(&self.surroundings);
        Agent::open_on(host, environment, self.kit.config.clone())
    }

    fn perform<T>(
        &self,
        operation: impl FnOnce(&Agent, &dyn Progress) -> Result<T, AgentError>,
    ) -> Result<T, AgentError> {
        operation(&self.agent()?, self.surroundings.progress().as_ref())
    }

    /// `apply` of what the channel offers.
    pub fn apply(&self) -> Result<(), AgentError> {
        let (wish, options) = (Wish::default(), ApplyOptions::default());
        self.perform(|agent, progress| agent.apply(&wish, &options, progress)).map(drop)
    }

    /// One round of the daemon.
    pub fn run_once(&self) -> Result<RoundReport, AgentError> {
        self.perform(|agent, progress| agent.round(progress))
    }

    /// `reset`, with another trust root if one is given.
    pub fn reset(&self, root: Option<&str>) -> Result<(), AgentError> {
        self.perform(|agent, _| agent.reset(root.map(Path::new), || Ok(()))).map(drop)
    }

    /// `confirm --adopt`.
    pub fn adopt(&self) -> Result<(), AgentError> {
        self.perform(|agent, _| agent.adopt()).map(drop)
    }

    /// `revert --reboot`.
    pub fn revert(&self) -> Result<(), AgentError> {
        let options = RevertOptions { reason: "by the test".to_owned() };
        self.perform(|agent, _| {
            let report = agent.revert(&options)?;
            if report.reboot { agent.reboot() } else { Ok(()) }
        })
    }

    /// What the boot loader does, by the project's own chooser, and a kernel with a new boot id.
    pub fn boot(&mut self) -> Result<Slot, AgentError> {
        self.surroundings.restarted.store(false, Ordering::SeqCst);
        self.boots += 1;
        self.perform(|agent, _| agent.simulate_boot())?;
        // The only randomness of a boot; it would make equal runs different.
        let id = format!("boot-{}", self.boots);
        self.machine.write_kernel(Path::new(BOOT_ID), &id).expect("memory");
        let text = self.machine.read_kernel(Path::new(CMDLINE)).unwrap_or_default();
        let slot = if text.contains("racklet.slot=a") { Slot::A } else { Slot::B };
        self.booted = Some(slot);
        Ok(slot)
    }

    /// A kernel that runs already, from that slot, confirmed.
    pub fn running(mut self, slot: Slot) -> Self {
        let letter = slot.name();
        let text = format!("ro racklet.slot={letter} racklet.boot=confirmed racklet.tries=0");
        self.machine.write_kernel(Path::new(CMDLINE), &text).expect("memory");
        let id = format!("boot-{}", self.boots);
        self.machine.write_kernel(Path::new(BOOT_ID), &id).expect("memory");
        self.booted = Some(slot);
        self
    }

    /// Whether the agent restarted the machine since the last boot.
    pub fn restarted(&self) -> bool {
        self.surroundings.restarted.load(Ordering::SeqCst)
    }

    /// How often its sources were opened (`open`) and what they were asked for since it was switched
    /// on, in order.
    pub fn asked(&self) -> Vec<String> {
        self.surroundings.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Boots so far.
    pub fn boots(&self) -> u32 {
        self.boots
    }
}

/// Whether a path is that of a device, which is read back, and not of a file in a folder.
pub fn is_device(path: &str) -> bool {
    [DISK, "/env0", "/env1", "/grubenv", BANKS[0], BANKS[1]].contains(&path)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::repository::Repository;

    /// An install opens its sources once, refreshes once, and asks for every document once.
    fn asks_once(act: impl FnOnce(&Node<'_>) -> Result<(), AgentError>) {
        let mut repository = Repository::new(1);
        let offer = repository.publish("1.0.0", 1);
        let mut kit = Kit::new(Backend::Gpt, 1);
        let media = kit.factory(&repository.root(), &[vec![0xfa; 20_480]]);
        let mut node = Node::on(&kit, &media, &offer, true, 0);
        node.boot().expect("the factory's slot boots");
        act(&node).expect("1.0.0 is installed");
        let mut times: BTreeMap<String, usize> = BTreeMap::new();
        for what in node.asked() {
            *times.entry(what).or_default() += 1;
        }
        assert_eq!((times.get("open"), times.get("state")), (Some(&1), Some(&1)));
        assert!(times.values().all(|times| *times == 1), "{times:#?}");
        assert!(times.keys().any(|what| what.starts_with("ranges of ")), "{times:#?}");
    }

    #[test]
    fn an_apply_asks_its_source_for_everything_once() {
        asks_once(|node| node.apply());
    }

    #[test]
    fn an_install_by_the_daemon_asks_its_source_for_everything_once() {
        asks_once(|node| node.run_once().map(drop));
    }
}
