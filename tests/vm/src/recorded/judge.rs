//! Who judges a state, and each distinct part of a disk only once.
//!
//! | part | by us | by other people |
//! |---|---|---|
//! | both tables | `storage::partition_table`, `update_core::boot::select`; `boot-select --simulate` | `cgpt show` as it was left; `sgdisk -v` after the chooser |
//! | U-Boot's environment, where it has the flags | `storage::uboot_env`; `boot-select --simulate` | `fw_printenv` as it was left |
//! | each bootable slot | proof and tree, from the trust root | `veritysetup verify` |
//! | data | – | `e2fsck -p`, what a mount does with journal and orphans; then `e2fsck -fn`: nothing to mend |

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result, ensure};
use formats::boot_flags::{BootFlags, SlotFlags};
use formats::boot_record::{PerSlot, Slot};
use formats::boot_vars;
use formats::error_chain;
use formats::uboot_env::FlagRule;
use formats::verity::{BLOCK, Builder};
use racklet_tools::cmd::Cmd;
use storage::block::{Access, BlockDevice, DeviceError, FileDevice};
use storage::partition_table;
use storage::uboot_env::{Place, Places, UbootEnv};
use update_core::boot::select;
use update_core::chooser::{Machine, Proof, Trailer, approve, place};

use super::Keeper;
use super::states::{ENV, State, TABLES};
use crate::small::{Here, Lab, ranges};
use crate::world::{HARDWARE, PRODUCT};

const MIB: u64 = 1 << 20;
/// Bytes of a copy of U-Boot's environment.
pub(super) const ENV_SIZE: u64 = 0x4000;
/// Where the second copy lies in its partition.
pub(super) const ENV_OTHER: u64 = 0x8_0000;
/// Number of the data partition.
const DATA: usize = 4;

/// What a state is, to whoever boots it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Verdict {
    /// The slot that is booted.
    pub(super) slot: Slot,
    /// Whether it is on trial.
    pub(super) trial: bool,
    /// Its version.
    pub(super) version: String,
    /// The table that has to be written again.
    pub(super) repaired: Option<String>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdict { slot, trial, version, repaired } = self;
        let kind = if *trial { "on trial" } else { "confirmed" };
        write!(f, "slot {slot}, {version}, {kind}")?;
        match repaired {
            Some(copy) => write!(f, ", the {copy} table mended"),
            None => Ok(()),
        }
    }
}

/// What one table says.
#[derive(Debug, Clone)]
struct Seen {
    flags: BootFlags,
    repaired: Option<String>,
}

/// How often whom was asked.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Asked {
    pub(super) tables: usize,
    pub(super) environments: usize,
    pub(super) slots: usize,
    pub(super) data: usize,
}

/// All judges.
pub(super) struct Judge<'a> {
    lab: &'a Lab<'a>,
    keeper: Keeper,
    dir: PathBuf,
    root: Vec<u8>,
    here: Option<Here<'a>>,
    tables: HashMap<u128, Result<Seen, String>>,
    environments: HashMap<u128, Result<BootFlags, String>>,
    slots: HashMap<(Slot, u128), Result<String, String>>,
    data: HashMap<u128, Result<(), String>>,
    pub(super) asked: Asked,
}

impl<'a> Judge<'a> {
    /// With other people's tools, or alone.
    pub(super) fn new(
        lab: &'a Lab<'a>,
        keeper: Keeper,
        dir: &Path,
        with_others: bool,
    ) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let here = match with_others {
            true => {
                fs::write(dir.join("cmdline"), "racklet.slot=a\n")?;
                fs::write(dir.join("root.json"), lab.root()?)?;
                fs::write(dir.join("fw_env.config"), env_config(&dir.join("env.img"), 0))?;
                let disk = dir.join("tables.img");
                Some(lab.host(dir, &disk, "state", "root.json", &keeper.node())?)
            }
            false => None,
        };
        Ok(Judge {
            lab,
            keeper,
            dir: dir.to_owned(),
            root: lab.root()?,
            here,
            tables: HashMap::new(),
            environments: HashMap::new(),
            slots: HashMap::new(),
            data: HashMap::new(),
            asked: Asked::default(),
        })
    }

    /// What is booted, or what is wrong with the state.
    pub(super) fn judge(&mut self, state: &State<'_>) -> Result<Result<Verdict, String>> {
        let mut seen = match self.table(state)? {
            Ok(seen) => seen,
            Err(why) => return Ok(Err(why)),
        };
        if self.keeper == Keeper::Environment {
            match self.environment(state)? {
                Ok(flags) => seen.flags = flags,
                Err(why) => return Ok(Err(why)),
            }
        }
        let Some(selection) = select(seen.flags) else {
            return Ok(Err("no slot is bootable".to_owned()));
        };
        if !Slot::BOTH.iter().any(|slot| seen.flags.of(*slot).confirmed()) {
            return Ok(Err("no slot is confirmed".to_owned()));
        }
        let mut version = String::new();
        for slot in Slot::BOTH.into_iter().filter(|slot| seen.flags.of(*slot).bootable()) {
            match self.slot(state, slot)? {
                Ok(found) if slot == selection.slot => version = found,
                Ok(_) => {}
                Err(why) => return Ok(Err(format!("slot {slot} is bootable, and {why}"))),
            }
        }
        if let Err(why) = self.data(state)? {
            return Ok(Err(why));
        }
        let trial = !seen.flags.of(selection.slot).successful;
        Ok(Ok(Verdict { slot: selection.slot, trial, version, repaired: seen.repaired }))
    }

    fn table(&mut self, state: &State<'_>) -> Result<Result<Seen, String>> {
        let key = state.parts[TABLES];
        if let Some(known) = self.tables.get(&key) {
            return Ok(known.clone());
        }
        let len = state.len();
        let tables =
            Tables { len, ends: Mutex::new([state.bytes(0..MIB), state.bytes(len - MIB..len)]) };
        let found = match &self.here {
            Some(here) => {
                let file = self.dir.join("tables.img");
                tables.write_to(&file)?;
                match tables.seen() {
                    Ok(seen) => match others(here, self.keeper, &file, &self.dir, &seen)? {
                        Some(why) => Err(format!("{why}; we saw {seen:?}")),
                        None => Ok(seen),
                    },
                    Err(why) => Err(why),
                }
            }
            None => tables.seen(),
        };
        self.asked.tables += 1;
        self.tables.insert(key, found.clone());
        Ok(found)
    }

    fn environment(&mut self, state: &State<'_>) -> Result<Result<BootFlags, String>> {
        let key = state.parts[ENV];
        if let Some(known) = self.environments.get(&key) {
            return Ok(known.clone());
        }
        let content = state.bytes(ranges()["env"].clone());
        let file = self.dir.join("env.img");
        sparse(&file, &content)?;
        let ours = environment(&file);
        let found = match (&self.here, ours) {
            (Some(here), Ok((env, flags))) => match read_by_uboot(&self.dir, &env)? {
                Some(why) => Err(why),
                None => chosen_by(here, &self.dir, flags)?.map_or(Ok(flags), Err),
            },
            (_, ours) => ours.map(|(_, flags)| flags),
        };
        self.asked.environments += 1;
        self.environments.insert(key, found.clone());
        Ok(found)
    }

    fn slot(&mut self, state: &State<'_>, slot: Slot) -> Result<Result<String, String>> {
        let number = if slot == Slot::A { 1 } else { 2 };
        let key = (slot, state.parts[number]);
        if let Some(known) = self.slots.get(&key) {
            return Ok(known.clone());
        }
        let label = if slot == Slot::A { "root-a" } else { "root-b" };
        let content = state.bytes(ranges()[label].clone());
        let mut found = whole(&content, &self.root).map_err(|error| format!("{error:#}"));
        if let (Ok(release), true) = (&found, self.here.is_some()) {
            let file = self.dir.join("slot.img");
            sparse(&file, &content)?;
            let judged = self
                .lab
                .world
                .tools
                .program("sbin/veritysetup")
                .arg("verify")
                .args([&file, &file])
                .arg(&release.root_hash)
                .arg(format!("--hash-offset={}", release.hash_offset))
                .finish()?;
            if judged.code != 0 {
                found = Err(format!("veritysetup: {}{}", judged.stdout, judged.stderr));
            }
        }
        self.asked.slots += 1;
        let found = found.map(|release| release.version);
        self.slots.insert(key, found.clone());
        Ok(found)
    }

    fn data(&mut self, state: &State<'_>) -> Result<Result<(), String>> {
        let key = state.parts[DATA];
        if let Some(known) = self.data.get(&key) {
            return Ok(known.clone());
        }
        if self.here.is_none() {
            return Ok(Ok(()));
        }
        let file = self.dir.join("data.img");
        sparse(&file, &state.bytes(ranges()["data"].clone()))?;
        let found = check_data(&file)?;
        self.asked.data += 1;
        self.data.insert(key, found.clone());
        Ok(found)
    }
}

/// The journal is replayed and orphans are freed, as a mount does it; then nothing may be wrong.
pub(super) fn check_data(file: &Path) -> Result<Result<(), String>> {
    let mounted = Cmd::new("e2fsck").arg("-p").arg(file).finish()?;
    if !matches!(mounted.code, 0 | 1) {
        return Ok(Err(format!("e2fsck -p: {}{}", mounted.stdout, mounted.stderr)));
    }
    let checked = Cmd::new("e2fsck").arg("-fn").arg(file).finish()?;
    Ok(match checked.code {
        0 => Ok(()),
        code => Err(format!("e2fsck -fn ended with {code}: {}", checked.stdout)),
    })
}

/// What ChromeOS' tool reads before the chooser was there, and what gdisk's finds after it. `None`:
/// they agree with us.
fn others(
    here: &Here<'_>,
    keeper: Keeper,
    file: &Path,
    dir: &Path,
    seen: &Seen,
) -> Result<Option<String>> {
    for (slot, number) in [(Slot::A, "1"), (Slot::B, "2")] {
        let flags = seen.flags.of(slot);
        let ours = [flags.priority, flags.tries, u8::from(flags.successful)];
        for (option, ours) in ["-P", "-T", "-S"].into_iter().zip(ours) {
            let show = ["show", "-i", number, option];
            let theirs = Cmd::new("cgpt").args(show).arg(file).finish()?;
            if theirs.code != 0 || theirs.stdout.trim() != ours.to_string() {
                let said = format!("{}{}", theirs.stdout.trim(), theirs.stderr.trim());
                return Ok(Some(format!("cgpt show {option} of slot {slot}: {said:?}")));
            }
        }
    }
    if keeper == Keeper::Tables
        && let Some(why) = chosen_by(here, dir, seen.flags)?
    {
        return Ok(Some(why));
    }
    let verified = Cmd::new("sgdisk").arg("-v").arg(file).finish()?;
    let clean = verified.code == 0 && verified.stdout.contains("No problems found");
    Ok((!clean).then(|| format!("sgdisk -v: {}{}", verified.stdout, verified.stderr)))
}

/// Whether the program picks the slot that we pick; it mends and spends as it does at a boot.
fn chosen_by(here: &Here<'_>, dir: &Path, flags: BootFlags) -> Result<Option<String>> {
    let chosen = here.agent(&["boot-select", "--simulate"]).finish()?;
    let line = fs::read_to_string(dir.join("cmdline"))?;
    let booted = line.split("racklet.slot=").nth(1).and_then(|rest| rest.get(..1));
    Ok(match select(flags).map(|selection| selection.slot.to_string()) {
        Some(slot) if chosen.code == 0 && booted == Some(&slot) => None,
        None if chosen.code != 0 => None,
        ours => Some(format!("boot-select: {line:?}, not {ours:?}; {}", chosen.stderr.trim())),
    })
}

/// The places of both copies, in a file whose environment partition begins there.
pub(super) fn env_config(file: &Path, at: u64) -> String {
    let line = |at: u64| format!("{} 0x{at:x} 0x{ENV_SIZE:x}\n", file.display());
    line(at) + &line(at + ENV_OTHER)
}

/// The variables that count, and what they mean.
type Variables = (BTreeMap<&'static str, String>, BootFlags);

/// What the agent's own code reads.
fn environment(file: &Path) -> Result<Variables, String> {
    let place = |offset| -> Result<_, String> {
        let device = FileDevice::open(file, Access::Read).map_err(|error| error_chain(&error))?;
        Ok(Place { device, offset })
    };
    let places = Places::Redundant([place(0)?, place(ENV_OTHER)?]);
    let env = UbootEnv::new(places, ENV_SIZE, FlagRule::Incrementing);
    let env = env.load().map_err(|error| error_chain(&error))?.env;
    let flags = boot_vars::slots(|name| env.get(name));
    let names = ["BOOT_ORDER", "BOOT_A_LEFT", "BOOT_B_LEFT"];
    let read = |name| (name, env.get(name).unwrap_or_default().to_owned());
    Ok((names.map(read).into_iter().collect(), flags))
}

/// What U-Boot's own reader finds before anybody mended anything. `None`: the same.
fn read_by_uboot(dir: &Path, ours: &BTreeMap<&str, String>) -> Result<Option<String>> {
    for (name, value) in ours {
        let read = Cmd::new("fw_printenv").arg("-c").arg(dir.join("fw_env.config"));
        let theirs = read.args(["-n", name]).finish()?;
        if theirs.code != 0 || theirs.stdout.trim() != value {
            let said = format!("{}{}", theirs.stdout.trim(), theirs.stderr.trim());
            return Ok(Some(format!("fw_printenv {name}: {said:?}, not {value:?}")));
        }
    }
    Ok(None)
}

/// A release that a slot holds.
struct Release {
    version: String,
    root_hash: String,
    hash_offset: u64,
}

/// Whether a slot holds a whole signed release: the chooser's way to it, and every block.
fn whole(content: &[u8], root: &[u8]) -> Result<Release> {
    let len = content.len() as u64;
    let (_, trailer) = place(0, len, 0).context("the slot is too small")?;
    let trailer = Trailer::parse(content.get(trailer as usize..).context("no trailer")?)?;
    let (at, _) = place(u64::from(trailer.len), len, 0).context("its proof has no room")?;
    let bytes = content.get(at as usize..at as usize + trailer.len as usize).context("no proof")?;
    ensure!(Trailer::of(bytes) == trailer, "its proof is torn");
    let hardware = [HARDWARE.to_owned()];
    let component = "os".parse()?;
    let machine = Machine { product: PRODUCT, hardware: &hardware, component: &component };
    let proof = Proof::from_bytes(bytes)?;
    let approved = approve(&proof, root, machine)?;
    let verity = approved.verity();
    let salt = formats::digest::unhex(&verity.salt).unwrap_or_default();
    let mut builder = Builder::new(&salt);
    for block in content.get(..verity.data_len() as usize).context("no data")?.chunks(BLOCK) {
        builder.push(block);
    }
    let (found, tree) = builder.finish();
    ensure!(found.root_hash == verity.root_hash, "not every block is what was signed");
    let at = verity.hash_offset as usize;
    ensure!(content.get(at..at + tree.len()) == Some(&*tree), "its tree is not what was signed");
    Ok(Release {
        version: approved.version().to_string(),
        root_hash: verity.root_hash.to_hex(),
        hash_offset: verity.hash_offset,
    })
}

/// The ends of a disk in memory: its tables.
struct Tables {
    len: u64,
    ends: Mutex<[Vec<u8>; 2]>,
}

impl Tables {
    /// What the chooser sees, before it mends anything.
    fn seen(&self) -> Result<Seen, String> {
        let choice = partition_table::repair(self).map_err(|error| error_chain(&error))?;
        let after = partition_table::load(self).map_err(|error| error_chain(&error))?;
        if after.repair.is_some() {
            return Err("the chooser did not mend the tables".to_owned());
        }
        let of = |label: &str| -> Result<SlotFlags, String> {
            let partition = choice.table.find(label).map_err(|error| error_chain(&error))?;
            Ok(SlotFlags::of_attributes(partition.attributes))
        };
        let flags = PerSlot { a: of("root-a")?, b: of("root-b")? };
        Ok(Seen { flags, repaired: choice.repair.map(|copy| format!("{copy:?}").to_lowercase()) })
    }

    fn write_to(&self, file: &Path) -> Result<()> {
        let ends = self.ends.lock().unwrap_or_else(|held| held.into_inner());
        let mut out = File::create(file)?;
        out.set_len(self.len)?;
        out.write_all(&ends[0])?;
        out.seek(SeekFrom::Start(self.len - MIB))?;
        out.write_all(&ends[1])?;
        Ok(())
    }
}

impl BlockDevice for Tables {
    fn len(&self) -> u64 {
        self.len
    }

    fn sector_size(&self) -> u32 {
        crate::small::SECTOR as u32
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), DeviceError> {
        let ends = self.ends.lock().unwrap_or_else(|held| held.into_inner());
        let (end, at) = self.place(offset, buf.len())?;
        buf.copy_from_slice(&ends[end][at..at + buf.len()]);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), DeviceError> {
        let mut ends = self.ends.lock().unwrap_or_else(|held| held.into_inner());
        let (end, at) = self.place(offset, bytes.len())?;
        ends[end][at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn zero_range(&self, offset: u64, len: u64) -> Result<(), DeviceError> {
        self.write_at(&vec![0; len as usize], offset)
    }

    fn sync(&self) -> Result<(), DeviceError> {
        Ok(())
    }

    fn describe(&self) -> String {
        "the recorded disk".to_owned()
    }
}

impl Tables {
    /// Which end of the disk, and where in it.
    fn place(&self, offset: u64, len: usize) -> Result<(usize, usize), DeviceError> {
        let end = offset.saturating_add(len as u64);
        let last = self.len - MIB;
        match () {
            () if end <= MIB => Ok((0, offset as usize)),
            () if offset >= last && end <= self.len => Ok((1, (offset - last) as usize)),
            () => Err(DeviceError::Range { device: self.describe(), end, len: self.len }),
        }
    }
}

/// A file with these bytes and holes where they are zeros.
pub(super) fn sparse(path: &Path, bytes: &[u8]) -> Result<()> {
    const BLOCK: usize = 64 << 10;
    let mut file = File::create(path).with_context(|| format!("make {}", path.display()))?;
    file.set_len(bytes.len() as u64)?;
    let zeros = [0; BLOCK];
    for (number, block) in bytes.chunks(BLOCK).enumerate() {
        if block != &zeros[..block.len()] {
            file.seek(SeekFrom::Start((number * BLOCK) as u64))?;
            file.write_all(block)?;
        }
    }
    Ok(())
}
