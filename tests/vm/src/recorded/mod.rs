//! The real agent on a disk whose every write is recorded: all states that a cut may leave.
//!
//! ```text
//!  guest: apply, restart, trial, confirm ─► blklogwrites ─► log      QEMU's own recorder
//!  disk before + log ─► every state between two flushes ─► judges    on this computer
//!                         └ a sample ─► the agent here goes on; machines boot
//! ```
//! The recording is kept in `target/vm-NAME`; `--state N` has one of its states again.

mod judge;
mod log;
mod record;
mod states;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use racklet_testkit::random::Random;
use racklet_tools::cmd::Cmd;
use racklet_tools::{paths, show};
use serde_json::Value;

use super::Cell;
use super::machine::{DISK, fresh};
use super::small::{Lab, Node, SECTOR, in_pairs, ranges};
use super::world::World;
use judge::{Judge, Verdict, check_data, env_config, sparse};
use log::Entry;
use states::{State, Walk};

pub(super) const CELLS: &[Cell] = &[
    Cell::new("recorded", "cgpt, sgdisk -v, veritysetup verify, e2fsck", |world, dir| {
        recorded(world, dir, Keeper::Tables)
    }),
    Cell::new("uboot-states", "fw_printenv, veritysetup verify, e2fsck", |world, dir| {
        recorded(world, dir, Keeper::Environment)
    }),
];

/// How many draws may pass until a faulty recording is noticed.
const FAULTY_DRAWS: usize = 50;

/// Seed of the draws, unless another is given: equal recordings give equal states.
const SEED: u64 = 1;
/// States on which the agent goes on here, for each that is booted.
const HERE: usize = 3;

/// Who keeps the boot flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeper {
    /// The partition tables, for the chooser.
    Tables,
    /// U-Boot's environment, in two copies.
    Environment,
}

impl Keeper {
    fn node(self) -> Node<'static> {
        let boot = match self {
            Keeper::Tables => "backend = \"gpt-attributes\"\n",
            Keeper::Environment => "backend = \"uboot-env\"\nenv_config = \"fw_env.config\"\n",
        };
        let files: &[_] = match self {
            Keeper::Tables => &[],
            Keeper::Environment => {
                &[("fw_env.config", "/dev/vda3 0x0 0x4000\n/dev/vda3 0x80000 0x4000\n")]
            }
        };
        Node { boot, files, ..Node::default() }
    }

    fn name(self) -> &'static str {
        match self {
            Keeper::Tables => "recorded",
            Keeper::Environment => "uboot-states",
        }
    }
}

/// A disk, and what was asked of it from then on.
struct Recording {
    base: Vec<u8>,
    entries: Vec<Entry>,
}

/// Everything about one cell.
struct Story<'a> {
    lab: Lab<'a>,
    keeper: Keeper,
    seed: u64,
    recordings: Vec<Recording>,
}

fn recorded(world: &World, dir: &Path, keeper: Keeper) -> Result<String> {
    let started = Instant::now();
    let kept = paths::target().join(format!("vm-{}", keeper.name()));
    let seed = world.proofs.seed.unwrap_or(SEED);
    let again = world.proofs.state;
    let lab = if world.proofs.keep_recording || again.is_some() {
        // With the chooser as it is now: this is also how a fix is tried.
        let lab = Lab::at(world, &kept);
        lab.chooser()?;
        lab
    } else {
        fresh(&kept)?;
        let lab = Lab::with_releases(world, &kept, &["1.0.0", "1.1.0"])?;
        record::record(&lab, keeper, dir)?;
        lab
    };
    let recordings = record::read(&kept)?;
    let story = Story { lab, keeper, seed, recordings };
    match again {
        Some(number) => story.again(number),
        None => story.all(dir, started),
    }
}

impl Story<'_> {
    /// Calls `judge` for each distinct state of all recordings; gives states made and distinct ones.
    fn states(&self, judge: &mut dyn FnMut(&State<'_>) -> Result<bool>) -> Result<(usize, usize)> {
        let (mut made, mut distinct, mut goes_on) = (0, 0, true);
        for Recording { base, entries } in &self.recordings {
            let mut walk = Walk::new(base.clone(), entries, self.seed, distinct);
            walk.states(&mut |state| {
                goes_on = judge(state)?;
                Ok(goes_on)
            })?;
            made += walk.made;
            distinct += walk.distinct();
            if !goes_on {
                break;
            }
        }
        Ok((made, distinct))
    }

    fn all(&self, dir: &Path, started: Instant) -> Result<String> {
        let (name, seed) = (self.keeper.name(), self.seed);
        let requests: usize = self.recordings.iter().map(|one| one.entries.len()).sum();
        eprintln!(
            "{name}: {requests} requests after {}; seed {seed}",
            show::time(started.elapsed())
        );
        let mut judge = Judge::new(&self.lab, self.keeper, &dir.join("judge"), true)?;
        let mut kinds: BTreeMap<Verdict, Vec<usize>> = BTreeMap::new();
        let mut failures = Vec::new();
        let (made, distinct) = self.states(&mut |state| {
            match judge.judge(state)? {
                Ok(verdict) => kinds.entry(verdict).or_default().push(state.number),
                Err(why) => failures.push(format!(
                    "state {} (after {} requests; {}): {why}",
                    state.number, state.point, state.kept
                )),
            }
            Ok(failures.len() < 5)
        })?;
        ensure!(
            failures.is_empty(),
            "{} of the first {distinct} states, seed {seed}; one again: cargo xtask vm --cell \
             {name} --seed {seed} --state N\n{}",
            failures.len(),
            failures.join("\n")
        );
        eprintln!("{name}: {distinct} states judged after {}", show::time(started.elapsed()));
        for (verdict, states) in &kinds {
            eprintln!("{name}: {:>6} boot {verdict}", states.len());
        }
        let caught = match self.keeper {
            Keeper::Tables => self.faulty(&dir.join("faulty"))?,
            Keeper::Environment => String::new(),
        };
        let sample = choose(&kinds, self.lab.world.proofs.sample, seed);
        let here = choose(&kinds, self.lab.world.proofs.sample * HERE, seed + 1);
        let disks = self.disks(dir, sample.iter().chain(&here).map(|(number, _)| *number))?;
        let disk = |number: &usize| disks.get(number).context("a state was lost");
        for (number, _) in &here {
            self.goes_on(&dir.join("here"), disk(number)?)
                .with_context(|| format!("the agent on state {number}, seed {seed}"))?;
        }
        eprintln!("{name}: the agent went on here after {}", show::time(started.elapsed()));
        self.boot_all(dir, &sample, &disks)?;
        let asked = judge.asked;
        Ok(format!(
            "{} points, {made} states, {distinct} distinct, 0 failures; judged: {} tables, {} \
             environments, {} slots, {} file systems; {} updated on, {} booted{caught}",
            requests + self.recordings.len(),
            asked.tables,
            asked.environments,
            asked.slots,
            asked.data,
            here.len(),
            sample.len(),
        ))
    }

    /// Disks of these states.
    fn disks(
        &self,
        dir: &Path,
        wanted: impl Iterator<Item = usize>,
    ) -> Result<BTreeMap<usize, PathBuf>> {
        let wanted: HashSet<usize> = wanted.collect();
        let mut disks = BTreeMap::new();
        self.states(&mut |state| {
            if wanted.contains(&state.number) {
                let disk = dir.join(format!("state-{}.img", state.number));
                sparse(&disk, &state.bytes(0..state.len()))?;
                disks.insert(state.number, disk);
            }
            Ok(disks.len() < wanted.len())
        })?;
        Ok(disks)
    }

    /// Recordings of programs that flush too little: the judges have to notice.
    fn faulty(&self, dir: &Path) -> Result<String> {
        let Recording { base, entries } = self.recordings.first().context("no recording")?;
        let rows = record::faulty(base.len() as u64, entries)?;
        for (what, without) in &rows {
            let mut entries = entries.clone();
            for entry in &mut entries[without.clone()] {
                entry.flush = false;
            }
            let mut judge = Judge::new(&self.lab, self.keeper, dir, false)?;
            let mut found = None;
            // Only a cut between these requests shows it, and not every draw of what the disk kept.
            let shown = without.start..=without.end + 1;
            for seed in (self.seed..).take(FAULTY_DRAWS) {
                Walk::new(base.clone(), &entries, seed, 0).states(&mut |state| {
                    if shown.contains(&state.point) {
                        found = judge.judge(state)?.err();
                    }
                    Ok(found.is_none() && state.point <= *shown.end())
                })?;
                if found.is_some() {
                    break;
                }
            }
            match found {
                Some(why) => eprintln!("{}: caught: {what}: {why}", self.keeper.name()),
                None => bail!("a faulty recording was not noticed: {what}"),
            }
        }
        Ok(format!("; {} of {0} faulty recordings caught", rows.len()))
    }

    /// The agent itself on a state, on this computer: it settles what the cut left, and the next run
    /// ends with the new release confirmed.
    fn goes_on(&self, dir: &Path, disk: &Path) -> Result<()> {
        fresh(dir)?;
        let copy = dir.join("disk.img");
        Cmd::new("cp").arg("--sparse=always").args([disk, &copy]).run()?;
        let data = dir.join("data.img");
        let range = ranges()["data"].clone();
        sparse(&data, &fs::read(&copy)?[range.start as usize..range.end as usize])?;
        check_data(&data)?.map_err(anyhow::Error::msg)?;
        fs::create_dir(dir.join("data"))?;
        let dump = format!("rdump /state {}", dir.join("data").display());
        Cmd::new("debugfs").args(["-R", &dump]).arg(&data).run()?;
        let here = self.here(dir, &copy)?;
        let boot = || -> Result<Value> {
            here.agent(&["boot-select", "--simulate"]).run()?;
            here.agent(&["run", "--once", "--json"]).run()?;
            let status = here.agent(&["status", "--json"]).read()?;
            serde_json::from_str(&status).context("its status")
        };
        let mut status = boot()?;
        if status["booted"] == "a" {
            let bundle = self.lab.bundle("1.1.0")?;
            here.agent(&["apply", "--version", "1.1.0"]).arg(bundle).run()?;
            status = boot()?;
        }
        let runs = &status["slots"]["b"];
        let done = runs["version"] == "1.1.0" && runs["confirmed"] == true;
        ensure!(done && status["booted"] == "b", "it ends with {status:#}");
        Ok(())
    }

    /// The agent and the boot loader's model for a disk that is a file here.
    fn here(&self, dir: &Path, disk: &Path) -> Result<super::small::Here<'_>> {
        fs::create_dir_all(dir.join("data"))?;
        fs::write(dir.join("data/root.json"), self.lab.root()?)?;
        fs::write(dir.join("cmdline"), "")?;
        fs::write(dir.join("fw_env.config"), env_config(disk, ranges()["env"].start))?;
        self.lab.host(dir, disk, "data/state", "data/root.json", &self.keeper.node())
    }

    /// Boots states, as many at a time as there is leave for.
    fn boot_all(
        &self,
        dir: &Path,
        sample: &[(usize, Verdict)],
        disks: &BTreeMap<usize, PathBuf>,
    ) -> Result<()> {
        in_pairs(sample.iter().collect(), &|(number, verdict)| {
            let disk = disks.get(number).context("a state was lost")?;
            self.boot(disk, verdict, &dir.join(format!("state-{number}.log")))
                .with_context(|| format!("state {number}, seed {}: {verdict}", self.seed))
        })
    }

    /// A machine boots the state as foreseen, and its agent has nothing left to do.
    fn boot(&self, disk: &Path, verdict: &Verdict, log: &Path) -> Result<()> {
        let Verdict { slot, trial, version, repaired } = verdict;
        let mut arguments = match self.keeper {
            Keeper::Tables => self.lab.board(None)?,
            Keeper::Environment => {
                let dir = disk.with_extension("boot");
                fresh(&dir)?;
                self.here(&dir, disk)?.agent(&["boot-select", "--simulate"]).run()?;
                let line = fs::read_to_string(dir.join("cmdline"))?;
                self.lab.direct(version, line.trim(), None)?
            }
        };
        arguments.extend(["-drive".to_owned(), format!("{DISK}{}", disk.display())]);
        let mut machine = self.lab.start(arguments, 60, log)?;
        if let Some(copy) = repaired {
            let line = machine.expect("table was damaged and is written again")?;
            ensure!(line.to_lowercase().contains(copy), "{copy} was to be mended: {line}");
        }
        if self.keeper == Keeper::Tables {
            let kind = if *trial { "on trial" } else { "confirmed" };
            machine.expect(&format!("racklet: slot {slot}, {version} verified, {kind}"))?;
        }
        machine.expect(&format!("@@ready slot={slot} version={version}"))?;
        machine.ok("grep -q ' /data ext4 rw' /proc/mounts")?;
        Ok(())
    }

    /// `--state N`: one state of the last recording, in words and as a disk; booted.
    fn again(&self, number: usize) -> Result<String> {
        let dir = &self.lab.dir;
        let disk = dir.join(format!("state-{number}.img"));
        let mut judge = Judge::new(&self.lab, self.keeper, &dir.join("judge"), true)?;
        let mut found = None;
        self.states(&mut |state| {
            if state.number == number {
                println!("state {number}: the power fails after {} requests", state.point);
                println!("not flushed then, by the number of the request: {}", state.kept);
                sparse(&disk, &state.bytes(0..state.len()))?;
                found = Some(judge.judge(state)?);
            }
            Ok(found.is_none())
        })?;
        let kept = disk.display();
        match found.with_context(|| format!("there are no {number} states"))? {
            Err(why) => bail!("{why}; its disk: {kept}"),
            Ok(verdict) => {
                println!("judged: it boots {verdict}");
                let copy = dir.join("booted.img");
                Cmd::new("cp").arg("--sparse=always").args([&disk, &copy]).run()?;
                self.boot(&copy, &verdict, &dir.join(format!("state-{number}.log")))?;
                Ok(format!("booted; its disk as the cut left it: {kept}"))
            }
        }
    }
}

/// Some states of each kind, then others.
fn choose(kinds: &BTreeMap<Verdict, Vec<usize>>, count: usize, seed: u64) -> Vec<(usize, Verdict)> {
    let mut draw = Random::seeded(seed);
    let mut left: Vec<(Verdict, Vec<usize>)> =
        kinds.iter().map(|(verdict, states)| (verdict.clone(), states.clone())).collect();
    let mut chosen = Vec::new();
    while chosen.len() < count && !left.is_empty() {
        for (verdict, states) in &mut left {
            if chosen.len() < count {
                chosen.push((states.swap_remove(draw.below(states.len())), verdict.clone()));
            }
        }
        left.retain(|(_, states)| !states.is_empty());
    }
    chosen
}
