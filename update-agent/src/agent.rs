//! The driver: performs the effects the update machine asks for. What is decided is decided in
//! [`update_core`].

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use formats::boot_record::{BootRecord, HistoryEvent, Slot};
use formats::digest::Digest;
use formats::reason::Reason;
use formats::release::ComponentName;
use formats::tuf::{Metadata as _, Root};
use storage::host::{Host, System};
use update_core::boot::BootFlags;
use update_core::chooser::Proof;
use update_core::image::StagedSlot;
use update_core::resume::SlotJournal;
use update_core::update::{Effect, Event, Node, Outcome, Task, begin, step};

use crate::chooser;
use crate::config::Config;
use crate::disk::{BootControl, Disk};
use crate::error::{AgentError, Because as _};
use crate::health::watch::Watch;
use crate::outside::{Outside, RealWorld};
use crate::progress::Progress;
use crate::release::Resolved;
use crate::source::Source;
use crate::stage::{self, Image, JournalPoint, StageError, Written};
use crate::state::{Began, Held, State};

/// 1 MiB: a root with a hundred keys is a tenth of it.
pub(crate) const ROOT_LIMIT: u64 = 1 << 20;
/// The name that systemd gives a machine (machine-id(5)).
const MACHINE_ID: &str = "/etc/machine-id";
/// Seconds since the machine started, time in sleep included: no clock can be set there.
const UPTIME: &str = "/proc/uptime";

/// Everything a command works with.
pub struct Agent {
    /// The configuration.
    pub config: Config,
    /// The durable state.
    pub state: State,
    /// The disk.
    pub disk: Disk,
    /// The machine both are part of.
    pub host: Arc<dyn Host>,
    /// What is around it.
    pub outside: Arc<dyn Outside>,
    /// The watchdog over a trial whose checks have passed.
    watch: Mutex<Option<Watch>>,
}

/// What an apply needs beside the state.
pub struct Supply<'a> {
    /// What to install.
    pub resolved: &'a Resolved,
    /// Where its bytes may come from, in order of preference.
    pub sources: &'a [&'a dyn Source],
    /// Files and devices that may hold some of them.
    pub seeds: &'a [PathBuf],
    /// Whom to tell about progress.
    pub progress: &'a dyn Progress,
    /// In which order components that start by themselves are switched.
    pub order: &'a [ComponentName],
    /// What is kept behind the boot component, for a verifying chooser.
    pub proof: Option<Proof>,
}

/// How a task ended, and what it moved.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub outcome: Outcome,
    /// What was written, if anything was.
    pub written: Written,
}

impl Agent {
    /// Opens the state of a configuration on this system.
    pub fn open(config: Config) -> Result<Self, AgentError> {
        Self::open_on(Arc::new(System), Arc::new(RealWorld), config)
    }

    /// Opens the state of a configuration on this system to look at it: nothing is made.
    pub fn look(config: Config) -> Result<Self, AgentError> {
        let host: Arc<dyn Host> = Arc::new(System);
        let state = State::look(&config.state_dir, Arc::clone(&host))?;
        Ok(Self::with(host, Arc::new(RealWorld), config, state))
    }

    /// Opens the state of a configuration on a machine in its surroundings.
    pub fn open_on(
        host: Arc<dyn Host>,
        outside: Arc<dyn Outside>,
        config: Config,
    ) -> Result<Self, AgentError> {
        let state = State::open(&config.state_dir, Arc::clone(&host))?;
        Ok(Self::with(host, outside, config, state))
    }

    fn with(host: Arc<dyn Host>, outside: Arc<dyn Outside>, config: Config, state: State) -> Self {
        let disk = Disk::new(&config, Arc::clone(&host));
        Agent { config, state, disk, host, outside, watch: Mutex::default() }
    }

    /// The root metadata this node was given: by the last `reset --root`, otherwise by its image.
    pub fn shipped_root(&self) -> Result<Vec<u8>, AgentError> {
        if let Some(enrolled) = self.state.enrolled_root()? {
            return Ok(enrolled);
        }
        let path: &Path = &self.config.trust.root;
        self.host.read_trusted(path, ROOT_LIMIT).map_err(|error| {
            AgentError::from(error)
                .or_config()
                .context("trust.root")
                .or_hint("copy the root.json that `signer init` wrote to this path")
        })
    }

    /// The root that the chooser in the firmware has, where the configuration says it.
    pub fn chooser_root(&self) -> Result<Option<Vec<u8>>, AgentError> {
        let Some(path) = &self.config.chooser.root else { return Ok(None) };
        let root = self.host.read_trusted(path, ROOT_LIMIT).map_err(|error| {
            AgentError::from(error)
                .or_config()
                .context("chooser.root")
                .or_hint("copy the root.json that is in the firmware to this path")
        })?;
        Ok(Some(root))
    }

    /// Whether the given root trusts a published example key; said wherever it can be seen.
    pub fn trusts_example_keys(&self) -> bool {
        let Ok(bytes) = self.shipped_root() else { return false };
        let Ok(envelope) = formats::tuf::Envelope::parse(&bytes) else { return false };
        let Ok(root) = Root::parse(envelope.signed()) else { return false };
        crate::example::uses_example_keys(&root)
    }

    /// The name by which this node is put into waves: `node.id`, or the machine's. Whether it tells
    /// this node from others is [`shared_id`](update_core::policy::shared_id)'s to say.
    pub fn node_id(&self) -> String {
        let machine = || self.host.read_kernel(Path::new(MACHINE_ID)).unwrap_or_default();
        self.config.node.id.clone().unwrap_or_else(machine).trim().to_owned()
    }

    /// The node as it is now.
    pub fn node(&self) -> Result<Node, AgentError> {
        Ok(Node {
            record: self.state.boot_record()?,
            flags: self.disk.flags()?,
            booted: self.disk.booted()?,
            boot_id: self.disk.boot_id()?,
            floor: self.floor()?.floor,
            evidence: self.disk.evidence(),
        })
    }

    /// Brings the record up to date with what happened since: a trial that was lost, a confirm or
    /// a revert that was cut. Every command that changes something begins with it.
    pub fn settle(&self, held: &Held) -> Result<Outcome, AgentError> {
        self.settle_floor(held)?;
        let ended = self.run(held, Task::Settle, None)?;
        Ok(ended.outcome)
    }

    /// Runs a task to its end.
    pub fn run(
        &self,
        held: &Held,
        task: Task,
        supply: Option<&Supply<'_>>,
    ) -> Result<Ended, AgentError> {
        let node = self.node()?;
        let booted = node.booted;
        let before = node.record.clone();
        let (mut state, mut effect) = begin(node, task)?;
        let mut written = Written::default();
        loop {
            if let Effect::Finish(outcome) = effect {
                if matches!(outcome, Outcome::Confirmed(_)) {
                    self.disarm();
                }
                self.after(held, &before, &outcome)?;
                return Ok(Ended { outcome, written });
            }
            let event = match self.perform(held, &effect, booted, supply, &mut written) {
                Ok(event) => event,
                Err(error) => {
                    // The machine learns of it, the caller gets the whole error.
                    let _ = step(
                        state,
                        Event::Failed { reason: error.reason(), detail: error.chain() },
                        self.state.now(),
                    );
                    return Err(error);
                }
            };
            (state, effect) = step(state, event, self.state.now());
        }
    }

    fn perform(
        &self,
        held: &Held,
        effect: &Effect,
        booted: Slot,
        supply: Option<&Supply<'_>>,
        written: &mut Written,
    ) -> Result<Event, AgentError> {
        let needs_supply = || AgentError::new(Reason::Usage, "there is nothing to write");
        match effect {
            Effect::Persist(record) => self.state.save_boot_record(held, record)?,
            Effect::EditFlags(edit) => {
                self.disk.edit(*edit)?;
            }
            Effect::Switch { slot, order } => self.switch(held, *slot, booted, order)?,
            Effect::WriteSlot { slot, release, used } => {
                let supply = supply.ok_or_else(needs_supply)?;
                let components = &supply.resolved.components;
                let names = components.iter().map(|component| &component.identity.name);
                let found = self.state.journal();
                let journal = SlotJournal::new(found, *slot, release, *used, names);
                *written = self.write_slot(held, *slot, journal, booted, supply)?;
            }
            Effect::SyncAndReadBack { slot } => {
                let supply = supply.ok_or_else(needs_supply)?;
                let staged = self.read_back(*slot, booted, supply)?;
                self.keep_proof(*slot, booted, supply)?;
                return Ok(Event::ReadBack(staged));
            }
            Effect::CheckHealth => {
                return Ok(Event::Health(self.check_health(held)?));
            }
            Effect::RaiseFloor(floor) => self.raise_floor(held, *floor)?,
            Effect::Reboot => self.reboot()?,
            Effect::Finish(_) => {}
        }
        Ok(Event::Done)
    }

    /// Runs the checks of a trial under the watchdog. Their deadline began with the first agent of
    /// this boot.
    fn check_health(&self, held: &Held) -> Result<Result<(), String>, AgentError> {
        let already = self.probation_age(held)?;
        let health = &self.config.health;
        let mut watch = Watch::arm(health);
        let left = health.deadline.saturating_sub(already);
        let ended = watch.over(left, || self.outside.check_health(&self.config, already))?;
        // Whatever comes next, it stays armed until the trial is confirmed durably.
        *self.watch.lock().unwrap_or_else(PoisonError::into_inner) = Some(watch);
        Ok(ended)
    }

    /// How long ago the checks of this boot began; they begin now when they have not.
    fn probation_age(&self, held: &Held) -> Result<Duration, AgentError> {
        let boot_id = self.disk.boot_id()?;
        // Without a clock of the boot the deadline is that of this process.
        let uptime = self.host.read_kernel(Path::new(UPTIME)).ok();
        let uptime = uptime.as_deref().and_then(|text| text.split_ascii_whitespace().next());
        let Some(now) = uptime.and_then(|text| text.parse::<f64>().ok()) else {
            return Ok(Duration::ZERO);
        };
        let now = Duration::try_from_secs_f64(now).unwrap_or_default();
        match self.state.probation() {
            Some(began) if began.boot_id == boot_id => {
                Ok(now.saturating_sub(Duration::from_millis(began.uptime_ms)))
            }
            _ => {
                let uptime_ms = u64::try_from(now.as_millis()).unwrap_or(0);
                self.state.save_probation(held, &Began { boot_id, uptime_ms })?;
                Ok(Duration::ZERO)
            }
        }
    }

    /// Takes the watchdog off a trial that is confirmed.
    fn disarm(&self) {
        let watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner).take();
        watch.unwrap_or_default().disarm();
    }

    fn write_slot(
        &self,
        held: &Held,
        slot: Slot,
        mut journal: SlotJournal,
        booted: Slot,
        supply: &Supply<'_>,
    ) -> Result<Written, AgentError> {
        let record = self.state.boot_record()?;
        let operator_seeds = self.operator_seeds(supply.seeds, supply.progress);
        let mut total = Written::default();
        for (number, component) in supply.resolved.components.iter().enumerate() {
            let name = &component.identity.name;
            let target = self.disk.open_to_write(slot, name, booted)?;
            // Kept first: what is cut in the middle goes on without fetching it again.
            self.state.keep_chunk_list(held, &component.list)?;
            let reuse = self.reuse(
                &record,
                booted,
                component,
                &operator_seeds,
                supply.sources,
                supply.progress,
            );
            let (seeds, deltas) = (reuse.seeds(), reuse.deltas());
            let image = Image {
                component: name,
                product: &self.config.node.product,
                list: &component.list,
                blobs: &component.images,
                deltas: &deltas,
                target: target.as_ref(),
            };
            // From here on the slot may hold parts of this image, whatever happens: the next run
            // looks, even when this one is cut before its first flush.
            let resume = journal.begin(number);
            self.state.save_journal(held, Some(journal.journal()))?;
            let so_far = total.fetched;
            let mut note = |point: JournalPoint| {
                journal.flushed(number, point.next_chunk, so_far + point.fetched);
                self.state.save_journal(held, Some(journal.journal())).map_err(StageError::journal)
            };
            let done = stage::write_image_at(
                &self.outside.pace(),
                &image,
                supply.sources,
                &seeds,
                resume,
                supply.progress,
                &mut note,
            )?;
            // The header of a flash bank, now that the rest is there.
            target.complete()?;
            total += done;
        }
        Ok(total)
    }

    fn read_back(
        &self,
        slot: Slot,
        booted: Slot,
        supply: &Supply<'_>,
    ) -> Result<StagedSlot, AgentError> {
        let mut proofs = Vec::new();
        for component in &supply.resolved.components {
            let name = &component.identity.name;
            let target = self.disk.open_to_write(slot, name, booted)?;
            target.sync()?;
            proofs.push(stage::read_back(name, target.as_ref(), &component.list, supply.progress)?);
        }
        let components =
            supply.resolved.components.iter().map(|component| component.identity.clone()).collect();
        StagedSlot::new(slot, supply.resolved.release.clone(), components, proofs)
            .map(|staged| staged.ordered(supply.order.to_vec()))
            .because(Reason::Readback, format!("slot {slot}"))
    }

    /// Puts the proof behind the image: without it a verifying chooser would refuse the slot.
    fn keep_proof(&self, slot: Slot, booted: Slot, supply: &Supply<'_>) -> Result<(), AgentError> {
        let Some(proof) = &supply.proof else { return Ok(()) };
        let name = &self.config.boot.component;
        let own = supply.resolved.components.iter().find(|one| one.identity.name == *name);
        let used = own.map_or(0, |own| own.identity.raw_size);
        let target = self.disk.open_to_write(slot, name, booted)?;
        chooser::write_proof(target.as_ref(), proof, used)
    }

    /// Restarts the machine.
    pub fn reboot(&self) -> Result<(), AgentError> {
        self.outside.restart(&self.config)
    }

    /// Writes the history and clears away what nobody needs any more.
    fn after(&self, held: &Held, before: &BootRecord, outcome: &Outcome) -> Result<(), AgentError> {
        let record = self.state.boot_record()?;
        let release_of = |record: &BootRecord, slot: Slot| {
            let pending = record.update.as_ref().filter(|update| update.slot == slot);
            let content = record.slots.of(slot).as_ref();
            pending
                .map(|update| update.release.clone())
                .or(content.map(|content| content.release.clone()))
        };
        let (event, slot, reason, detail) = match outcome {
            Outcome::Settled => return Ok(()),
            Outcome::Staged(slot) => ("staged", *slot, None, String::new()),
            Outcome::Activated(slot) => ("activated", *slot, None, String::new()),
            Outcome::Confirmed(slot) => ("confirmed", *slot, None, String::new()),
            Outcome::Reverted { slot, reason, detail, .. } => {
                ("reverted", *slot, Some(*reason), detail.clone())
            }
            Outcome::TrialFailed(detail) => {
                ("trial failed", self.disk.booted()?, Some(Reason::Unhealthy), detail.clone())
            }
            Outcome::Failed { reason, detail } => {
                ("failed", self.disk.booted()?.other(), Some(*reason), detail.clone())
            }
        };
        let release = release_of(before, slot).or_else(|| release_of(&record, slot));
        let release = match outcome {
            Outcome::Staged(_) | Outcome::Activated(_) => release_of(&record, slot),
            _ => release,
        };
        if matches!(outcome, Outcome::Staged(_) | Outcome::Activated(_) | Outcome::Confirmed(_)) {
            let contents = [&record.slots.a, &record.slots.b].into_iter().flatten();
            let needed: Vec<Digest> = contents
                .flat_map(|content| content.components.iter().map(|own| own.chunks.clone()))
                .collect();
            self.state.forget_chunk_lists(held, &needed)?;
        }
        let at = self.state.now();
        let slot = Some(slot);
        self.state.remember(
            held,
            HistoryEvent { at, event: event.to_owned(), release, slot, reason, detail },
        )
    }

    /// The flags of both slots.
    pub fn flags(&self) -> Result<BootFlags, AgentError> {
        self.disk.flags()
    }
}
