//! The agent of one node, as a library: what can be asked of it, and what it reports.
//!
//! | operation | does | changes |
//! |---|---|---|
//! | [`Agent::check`] | refreshes trust, decides | trusted metadata |
//! | [`Agent::explain`] | decides again about what the last check found | nothing |
//! | [`Agent::plan`] | and fetches the release's documents | trusted metadata |
//! | [`Agent::apply`] | and writes the inactive slot, makes it next | the slot, the boot flags |
//! | [`Agent::confirm`], [`Agent::revert`], [`Agent::mark_bad`] | end a trial | the boot flags, the floor |
//! | [`Agent::round`] | what the daemon does after a boot and at each poll | as the mode allows |
//! | [`Agent::health`] | runs the health checks as a trial does | nothing |
//! | [`Agent::ask_checks`] | asks each health check once | nothing |
//! | [`Agent::status`], [`Agent::history`] | say how the node stands, and what happened | nothing |
//! | [`Agent::doctor`] | says whether this node can really update and revert | nothing |
//! | [`Agent::verify`] | compares slots with what was signed | nothing |
//! | [`Agent::floor`] | says what the security-version floor is, and what keeps it | nothing |
//! | [`Agent::renew_floor`] | begins anew with another TPM | the floor's file, the TPM |
//!
//! The stations of an update are in `update.rs`; `driver.rs` performs what the update machine
//! ([`update_core::update`]) asks for. Every operation that changes something takes the lock of the
//! state, first brings the record up to date with the last boot, and keeps its error for `status`. A
//! crash in any of them leaves a node that boots and that the next operation continues from.

mod apply;
mod bundle;
mod doctor;
mod driver;
mod floor;
mod history;
mod hooks;
mod judged;
mod look;
mod node;
mod noting;
mod operator;
mod precheck;
mod report;
mod reset;
mod restart;
mod restart_lock;
mod reuse;
mod round;
mod simulate;
mod single_bank;
mod slot_check;
mod status;
mod this_boot;
mod trial;
mod unread;
mod update;
mod withdrawn;

use std::path::Path;
use std::sync::Arc;

use formats::reason::Reason;
use formats::tuf::{Metadata as _, Root};
use storage::host::{Host, System};
use update_core::boot::BootFlags;
use update_core::restart::{Means, Purpose};
use update_core::update::{Node, Outcome, Standing, Task, stand};

pub use self::doctor::{DoctorReport, Finding, Level};
pub use self::floor::{FloorReport, KeptIn};
pub use self::look::{HistoryReport, VerifiedImage, VerifyReport};
pub use self::operator::{MarkBadOptions, RevertOptions};
pub use self::report::{
    ApplyOptions, ApplyReport, Attempt, Available, CheckReport, ComponentPlan, ConfirmReport,
    DecisionReport, Explanation, HealthReport, NothingKnown, Obstacle, PlanReport, RevertReport,
    RuleReport, UpToDate, Verdict, Wish,
};
pub use self::reset::ResetReport;
pub use self::round::{Offered, RoundReport};
pub use self::simulate::BootReport;
pub use self::status::{PendingUpdate, RestartReport, SlotReport, StatusReport};
pub use crate::health::{CheckResult, CheckState};
pub use crate::progress::Record;
pub use crate::state::{LastError, MetadataVersions, OfferReport, WithdrawnReport};

pub(crate) use self::doctor::sandbox;
pub(crate) use self::restart::Pending;
pub(crate) use self::slot_check::MEND;
pub(crate) use self::status::word as standing_word;
pub(crate) use self::trial::{Glance, leave, lost};
pub(crate) use self::update::{installed_version, version_of_os_release};

use self::driver::{Driver, Ended};
use self::judged::JudgedRelease;
use self::node::NodeParts;
use self::this_boot::ThisBoot;
use self::update::{Offer, Plan, Refreshed, Sources};

use crate::boot::BootControl as _;
use crate::config::Config;
use crate::disk::Disk;
use crate::environment::{Environment, RealWorld};
use crate::error::AgentError;
use crate::metrics::LastCheck;
use crate::progress::Progress;
use crate::state::{State, StateGuard};
use crate::trust;

/// 1 MiB: a root with a hundred keys is a tenth of it.
pub(crate) const ROOT_LIMIT: u64 = 1 << 20;

/// The agent of one node.
pub struct Agent {
    /// The configuration.
    pub config: Config,
    /// The durable state.
    #[doc(hidden)]
    pub state: State,
    /// The disk.
    pub(crate) disk: Disk,
    /// The machine both are part of.
    pub(crate) host: Arc<dyn Host>,
    /// What is around it.
    pub(crate) environment: Arc<dyn Environment>,
    /// What is known of this boot.
    boot: ThisBoot,
    /// The last check of this process.
    pub(crate) last_check: Arc<LastCheck>,
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

    /// Opens the state of a configuration on a machine in an environment, which may be simulated.
    pub fn open_on(
        host: Arc<dyn Host>,
        environment: Arc<dyn Environment>,
        config: Config,
    ) -> Result<Self, AgentError> {
        let state = State::open(&config.state_dir, Arc::clone(&host))?;
        Ok(Self::with(host, environment, config, state))
    }

    fn with(
        host: Arc<dyn Host>,
        environment: Arc<dyn Environment>,
        config: Config,
        state: State,
    ) -> Self {
        let disk = Disk::new(&config, Arc::clone(&host));
        let (boot, last_check) = (ThisBoot::default(), Arc::default());
        Agent { config, state, disk, host, environment, boot, last_check }
    }

    /// The same node, for another thread that only looks at it.
    pub(crate) fn observer(&self) -> Result<Self, AgentError> {
        let (host, environment) = (Arc::clone(&self.host), Arc::clone(&self.environment));
        let state = State::look(&self.config.state_dir, Arc::clone(&host))?;
        let observer = Self::with(host, environment, self.config.clone(), state);
        Ok(Agent { last_check: Arc::clone(&self.last_check), ..observer })
    }

    /// Refreshes trust, and decides about what the channel offers.
    pub fn check(&self) -> Result<CheckReport, AgentError> {
        self.noting(|| {
            let held = self.begin()?;
            let sources = self.sources(&Wish::default())?;
            let refreshed = self.refresh(&held, &sources)?;
            let (node, source) = (self.parts(), refreshed.source());
            let offer = refreshed.decide(node, &held, &Wish::default())?;
            let obstacle = |judged: &_| self.obstacle(judged);
            let judged = offer.as_ref().map(Offer::judged);
            let report = CheckReport::new(source, node.id(), judged, obstacle);
            Ok(CheckReport { withdrawn: self.withdrawn(), ..report })
        })
    }

    /// Decides about what the channel offered at the last check; no source is asked.
    pub fn explain(&self) -> Result<Explanation, AgentError> {
        let held = self.state.hold()?;
        let root = self.shipped_root()?;
        if self.state.trust()?.timestamp.is_none() {
            return Ok(Explanation::NothingKnown(NothingKnown::new()));
        }
        let unknown = |error: AgentError| error.hint("run `update-agent check` first");
        let (node, now) = (self.parts(), self.state.now());
        let mut trusted = trust::offline(&self.state, &held, &root, now).map_err(unknown)?;
        let wish = Wish::default();
        let judged = update::judge(node, &held, &mut trusted, &wish, None, now);
        let judged = judged.map_err(unknown)?;
        let source = "what is trusted already".to_owned();
        let obstacle = |judged: &_| self.obstacle(judged);
        let report = CheckReport::new(source, node.id(), judged.as_ref(), obstacle);
        let mut report = CheckReport { withdrawn: self.withdrawn(), ..report };
        let waits = self.state.restart_lock().filter(|lock| !lock.granted);
        if let (Some(judged), Some(lock)) = (&mut report.judged, waits) {
            judged
                .notes
                .push(format!("the restart waits for the restart lock, {}", lock.sentence()));
        }
        Ok(Explanation::Known(Box::new(report)))
    }

    /// What [`Agent::apply`] would fetch and write. Writes no slot.
    pub fn plan(
        &self,
        wish: &Wish,
        options: &ApplyOptions,
        progress: &dyn Progress,
    ) -> Result<Attempt<PlanReport>, AgentError> {
        self.noting(|| {
            let held = self.begin()?;
            let sources = self.sources(wish)?;
            let plan = match attempt(self.planned(&held, &sources, wish))? {
                Attempt::Made(plan) => plan,
                Attempt::UpToDate(why) => return Ok(Attempt::UpToDate(why)),
            };
            let ApplyOptions { stage_only, seeds } = options;
            let report = plan.preview(self.parts(), self.node()?, seeds, *stage_only, progress);
            report.map(Attempt::Made)
        })
    }

    /// Refreshes trust, writes the inactive slot, reads it back, and makes it next unless the options
    /// say otherwise. The caller restarts the machine, with [`Agent::reboot`] or by its own means.
    pub fn apply(
        &self,
        wish: &Wish,
        options: &ApplyOptions,
        progress: &dyn Progress,
    ) -> Result<Attempt<ApplyReport>, AgentError> {
        self.noting(|| {
            let held = self.begin()?;
            if !options.stage_only {
                // A release that could never be confirmed would only come back.
                self.config.health.usable()?;
            }
            let sources = self.sources(wish)?;
            attempt(self.planned(&held, &sources, wish).and_then(|plan| {
                let ApplyOptions { stage_only, seeds } = options;
                let warnings = if *stage_only { Vec::new() } else { self.ask_before_apply()? };
                let installed = plan.install(&self.driver(&held), seeds, *stage_only, progress)?;
                let mut report = installed.report();
                report.notes.extend(warnings);
                Ok(report)
            }))
        })
    }

    /// Runs the health checks of a trial once to their end. Changes nothing; `Ok` also when they fail.
    pub fn health(&self) -> Result<HealthReport, AgentError> {
        let ended = self.environment.check_health(&self.config, std::time::Duration::ZERO)?;
        Ok(HealthReport { passed: ended.is_ok(), why: ended.err().unwrap_or_default() })
    }

    /// Restarts the machine by the configured command: into the release that is next, if one is. `Ok`: it was
    /// asked for.
    pub fn reboot(&self) -> Result<(), AgentError> {
        let mut purpose = Purpose::Leave;
        if self.config.boot.backend.has_to_be_asked() {
            let _held = self.state.hold()?;
            if stand(&self.node()?) == Standing::AwaitingReboot {
                purpose = Purpose::Try;
                self.disk.before_try()?;
            }
        }
        self.environment.restart(&self.config, purpose, Means::Command)
    }

    /// Why [`Agent::apply`] would not install a release that the rules let through, as this node
    /// stands: whoever is told of the release learns it with it.
    fn obstacle(&self, judged: &JudgedRelease) -> Option<Obstacle> {
        let error = match self.node() {
            Ok(node) => judged.check_node(self.parts(), node).err()?,
            Err(error) => error,
        };
        let why = match error.advice() {
            Some(advice) => format!("{}; {advice}", error.chain()),
            None => error.chain(),
        };
        Some(Obstacle { reason: error.reason(), why })
    }

    /// That the release in the booted slot was withdrawn, as far as the last check knew.
    pub(crate) fn withdrawn(&self) -> Option<WithdrawnReport> {
        let known = self.state.report().withdrawn?;
        let record = self.state.boot_record().ok()?;
        let booted = self.disk.booted().ok()?;
        let runs = record.slots.of(booted).as_ref()?;
        (runs.release.index == known.index).then_some(known)
    }

    /// The stations up to the plan.
    fn planned<'a>(
        &'a self,
        held: &StateGuard,
        sources: &'a Sources,
        wish: &Wish,
    ) -> Result<Plan<'a>, AgentError> {
        let refreshed = self.refresh(held, sources)?;
        let node = self.parts();
        match refreshed.decide(node, held, wish)? {
            Some(offer) => offer.resolve(node),
            None => Err(AgentError::new(Reason::UpToDate, "the channel offers nothing yet")),
        }
    }

    /// Takes the lock, and brings the record up to date with the last boot.
    fn begin(&self) -> Result<StateGuard, AgentError> {
        let held = self.state.hold()?;
        self.settle(&held)?;
        Ok(held)
    }

    /// Asks the sources, and notes when that succeeded.
    fn refresh<'a>(
        &'a self,
        held: &StateGuard,
        sources: &'a Sources,
    ) -> Result<Refreshed<'a>, AgentError> {
        let refreshed = sources.refresh(&self.state, held, &self.shipped_root()?)?;
        self.last_check.succeeded(self.state.now());
        Ok(refreshed)
    }

    fn sources(&self, wish: &Wish) -> Result<Sources, AgentError> {
        let named = wish.from.as_deref();
        // A medium that is not there fails here already.
        self.last_check.began(self.state.now());
        Sources::open(self.environment.as_ref(), &self.config, named, self.state.now())
    }

    fn parts(&self) -> NodeParts<'_> {
        let (config, state, disk) = (&self.config, &self.state, &self.disk);
        NodeParts { config, state, disk, host: self.host.as_ref() }
    }

    fn driver<'a>(&'a self, held: &'a StateGuard) -> Driver<'a> {
        Driver {
            parts: self.parts(),
            environment: self.environment.as_ref(),
            boot: &self.boot,
            held,
        }
    }

    /// Brings the record up to date with what happened since: a trial that was lost, a confirm or
    /// a revert that was cut. Every operation that changes something begins with it.
    fn settle(&self, held: &StateGuard) -> Result<Outcome, AgentError> {
        self.parts().floor().settle(held)?;
        let outcome = self.run(held, Task::Settle)?.outcome;
        let noted = self.parts().slot_check().note_use(
            held,
            &self.state.boot_record()?,
            self.disk.booted()?,
        );
        // It only informs: a trial on a full medium goes on.
        if let Err(error) = noted {
            tracing::warn!("what the slots are like could not be noted: {}", error.chain());
        }
        Ok(outcome)
    }

    /// Runs a task that writes no slot to its end.
    fn run(&self, held: &StateGuard, task: Task) -> Result<Ended, AgentError> {
        self.driver(held).run(task, None)
    }

    /// Refuses a state that is about another disk.
    pub(crate) fn check_disk(&self) -> Result<(), AgentError> {
        self.parts().slot_check().same_disk()
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

    /// Whether the given root trusts a published example key; said wherever it can be seen.
    pub(crate) fn trusts_example_keys(&self) -> bool {
        let Ok(bytes) = self.shipped_root() else { return false };
        let Ok(envelope) = formats::tuf::Envelope::parse(&bytes) else { return false };
        let Ok(root) = Root::parse(envelope.signed()) else { return false };
        crate::example::uses_example_keys(&root)
    }

    /// The name by which this node is put into waves.
    pub(crate) fn node_id(&self) -> String {
        self.parts().id()
    }

    /// The boot that runs; empty where nobody can tell.
    pub(crate) fn boot_id(&self) -> String {
        self.disk.boot_id().unwrap_or_default()
    }

    /// Seconds since the boot.
    pub(crate) fn uptime(&self) -> u64 {
        self::restart::uptime(self.host.as_ref()).map_or(0, |uptime| uptime.as_secs())
    }

    /// The node as it is now.
    pub fn node(&self) -> Result<Node, AgentError> {
        self.parts().node()
    }

    /// The boot flags of both slots, as the boot loader would read them now.
    pub fn flags(&self) -> Result<BootFlags, AgentError> {
        self.disk.flags()
    }
}

/// Nothing to do is no error for who asked.
fn attempt<T>(result: Result<T, AgentError>) -> Result<Attempt<T>, AgentError> {
    match result {
        Ok(made) => Ok(Attempt::Made(made)),
        Err(error) if error.reason() == Reason::UpToDate => {
            let (code, message) = (Reason::UpToDate, error.chain());
            Ok(Attempt::UpToDate(UpToDate { code, message }))
        }
        Err(error) => Err(error),
    }
}
