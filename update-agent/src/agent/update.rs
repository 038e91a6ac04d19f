//! An update, as a line of stations. Each is a value that only the station before it can make, and
//! takes what it needs: none of them has the agent.
//!
//! ```text
//!  Sources ─refresh─► Refreshed ─decide─► Offer ─resolve─► Plan ─install─► Installed
//!  opened once        verified            the rules'       documents,      read back (StagedSlot),
//!  per attempt        metadata            decision         proof           next when asked for
//!                                                                             │ restart
//!                                               Confirmed | Failed ◄─probe─ Trial
//! ```
//!
//! Everything up to [`Plan`] only reads: what speaks against an update ends it before a byte of an
//! image is fetched or a slot is touched. [`Plan::install`] and [`Trial::probe`] run the update
//! machine ([`update_core::update`]), which orders flags, writes and the record, and activates a slot
//! only for the [`StagedSlot`](update_core::image::StagedSlot) that its read-back made.
//!
//! An attempt has one start time (TUF §5.1), one refresh, one decision and one set of connections.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use formats::boot_record::{BootRecord, ReleaseId, Slot};
use formats::channel::Channel;
use formats::digest::Sha256;
use formats::reason::Reason;
use formats::release::ComponentName;
use formats::tuf::Role;
use formats::version::Version;
use storage::host::Host;
use update_core::chooser::{Proof, ProofError, approve, place};
use update_core::policy::{Decided, Decision, NodeFacts, Offered, decide, wave_of};
use update_core::trust::TrustError;
use update_core::update::{Node, Outcome, Standing, Task, begin, stand};
use update_core::withheld::withheld;

use super::driver::{ApplyInputs, Driver, Ended};
use super::floor::FloorKeeper;
use super::report::{ApplyReport, ComponentPlan, PlanReport, Verdict, Wish, rules};
use super::reuse::{ReuseFinder, operator_seeds};
use super::single_bank::SingleBanks;
use super::slot_check::SlotCheck;
use super::{ROOT_LIMIT, bundle, withdrawn};
use crate::boot::BootControl as _;
use crate::chooser;
use crate::config::Config;
use crate::disk::Disk;
use crate::environment::Environment;
use crate::error::AgentError;
use crate::events::{Event, Why};
use crate::output::time;
use crate::progress::{Progress, Recorded};
use crate::release::{Resolved, identity, resolve};
use crate::source::{NamedRelease, Source};
use crate::stage::Written;
use crate::state::{OfferReport, State, StateGuard};
use crate::trust::{self, SignedRelease, Trusted};

/// What the stations read of this node.
pub(super) struct NodeInputs<'a> {
    pub(super) config: &'a Config,
    pub(super) state: &'a State,
    pub(super) disk: &'a Disk,
    pub(super) host: &'a dyn Host,
    /// The name by which it is put into waves.
    pub(super) id: String,
}

/// The sources of one attempt, and when it began.
pub(super) struct Sources {
    all: Vec<Box<dyn Source>>,
    /// Unix seconds.
    started: u64,
}

/// Verified, unexpired metadata, and the source that served it.
pub(super) struct Refreshed<'a> {
    trusted: Trusted<'a>,
    best: &'a dyn Source,
    sources: &'a Sources,
}

/// A signed release, and what the rules say to it.
pub(super) struct JudgedRelease {
    /// The release.
    pub(super) signed: SignedRelease,
    /// The decision.
    pub(super) decided: Decided,
    /// The share of all nodes, in per cent, at which this one's wave begins.
    pub(super) wave: u8,
    /// Whether an operator chose it, by its version or in a bundle.
    named: bool,
}

/// What is offered to this node.
pub(super) struct Offer<'a> {
    refreshed: Refreshed<'a>,
    judged: JudgedRelease,
}

/// A release that may be installed, with every document of it and the proof for the chooser.
pub(super) struct Plan<'a> {
    judged: JudgedRelease,
    resolved: Resolved,
    sources: Vec<&'a dyn Source>,
    proof: Option<Proof>,
}

/// A release in the inactive slot, read back.
pub(super) struct Installed {
    slot: Slot,
    activated: bool,
    written: Written,
    judged: JudgedRelease,
}

/// The booted slot is on trial.
pub(super) struct Trial {
    slot: Slot,
    version: Option<String>,
    tries_left: u8,
    counted: bool,
}

/// How a trial ended.
pub(super) enum Probed {
    /// The slot is confirmed, durably.
    Confirmed(Slot),
    /// A check failed, for that reason; the machine is restarting.
    Failed(String),
}

impl Sources {
    /// Opens the source that was named, or the configured ones. A registry is not contacted yet.
    pub(super) fn open(
        environment: &dyn Environment,
        config: &Config,
        named: Option<&str>,
        now: u64,
    ) -> Result<Self, AgentError> {
        Ok(Sources { all: environment.sources(config, named)?, started: now })
    }

    /// Refreshes the trusted metadata from the first source that has a verified repository.
    pub(super) fn refresh<'a>(
        &'a self,
        state: &'a State,
        held: &StateGuard,
        root: &[u8],
    ) -> Result<Refreshed<'a>, AgentError> {
        let (trusted, best) = trust::refresh(state, held, root, &self.all, self.started)?;
        Ok(Refreshed { trusted, best, sources: self })
    }
}

impl<'a> Refreshed<'a> {
    /// The source that served the metadata, without credentials.
    pub(super) fn source(&self) -> String {
        self.best.describe()
    }

    /// Why a release that the channel offered before must not be tried for now.
    pub(super) fn withheld(
        &mut self,
        node: &NodeInputs<'_>,
        held: &StateGuard,
        release: &ReleaseId,
    ) -> Result<Option<String>, AgentError> {
        let own = &node.config.node;
        let channel = self.trusted.channel(held, &own.product, &own.channel)?;
        Ok(withheld(&channel, release))
    }

    /// Finds the release that is wished for, and asks the rules. `None`: the channel offers nothing.
    pub(super) fn decide(
        mut self,
        node: &NodeInputs<'_>,
        held: &StateGuard,
        wish: &Wish,
    ) -> Result<Option<Offer<'a>>, AgentError> {
        // A bundle that was carried here means its own content; configured sources go by the channel.
        let bundle = wish.from.as_ref().map(|_| self.best.bundled()).transpose()?.flatten();
        let started = self.sources.started;
        withdrawn::note(node, held, &mut self.trusted)?;
        let judged = judge(node, held, &mut self.trusted, wish, bundle.as_deref(), started)?;
        Ok(judged.map(|judged| Offer { refreshed: self, judged }))
    }
}

/// The release that a bundle, a version or, without either, the channel means, and what the rules
/// say to it; kept for `status`. `None`: the channel offers nothing.
pub(super) fn judge(
    node: &NodeInputs<'_>,
    held: &StateGuard,
    trusted: &mut Trusted<'_>,
    wish: &Wish,
    bundle: Option<&[NamedRelease]>,
    started: u64,
) -> Result<Option<JudgedRelease>, AgentError> {
    let own = &node.config.node;
    let (signed, channel) = match (bundle, &wish.version) {
        (Some(bundle), Some(version)) => {
            (bundle::named(node, held, trusted, bundle, version)?, None)
        }
        (Some(bundle), None) => (bundle::meant(node, held, trusted, bundle)?, None),
        (None, Some(version)) => (trusted.release(held, &own.product, version)?, None),
        (None, None) => {
            let channel = trusted.channel(held, &own.product, &own.channel)?;
            let Some(offered) = &channel.release else { return Ok(None) };
            let signed = trusted.release(held, &own.product, &offered.version.clone())?;
            (signed, Some(channel))
        }
    };
    check_channel(channel.as_ref(), &signed)?;
    let wave = wave_of(&node.id, signed.index);
    let offered = Offered {
        index: signed.index,
        summary: &signed.summary,
        channel: channel.as_ref(),
        retry: wish.retry,
    };
    let named = channel.is_none();
    let decided = ask_rules(node, &offered, wave, started)?;
    let mut report = node.state.report();
    let offer = Some(OfferReport {
        version: signed.summary.version.to_string(),
        decision: Verdict::from(&decided.decision).code().to_owned(),
        why: decided.why().to_owned(),
        rule: decided
            .answers
            .iter()
            .find(|answer| !answer.passed)
            .map(|answer| answer.rule.name().to_owned()),
        wave: channel.is_some_and(|channel| !channel.waves.is_empty()).then_some(wave),
    });
    if report.offer != offer {
        report.offer = offer;
        node.state.save_report(held, &report)?;
    }
    Ok(Some(JudgedRelease { signed, decided, wave, named }))
}

/// A channel names the content it offers, too: whoever may sign releases cannot change it.
fn check_channel(channel: Option<&Channel>, signed: &SignedRelease) -> Result<(), AgentError> {
    let offered = channel.and_then(|channel| channel.release.as_ref());
    match offered {
        Some(offered) if offered.sha256 != signed.index => {
            let text = format!("the channel offers another content of {}", offered.version);
            Err(AgentError::new(Reason::HashMismatch, text)
                .hint("tell the maintainers: channel and release disagree"))
        }
        _ => Ok(()),
    }
}

fn ask_rules(
    node: &NodeInputs<'_>,
    offered: &Offered<'_>,
    wave: u8,
    started: u64,
) -> Result<Decided, AgentError> {
    let record = node.state.boot_record()?;
    let booted = node.disk.booted()?;
    let capacity = node.disk.capacities(booted.other())?;
    let known = node.slot_check().foreign(&record, booted).of(booted).is_none();
    let installed = record.slots.of(booted).as_ref().filter(|_| known);
    let installed = installed.map(|content| content.release.clone());
    let installed_version = match installed {
        Some(_) => None,
        None => version_of_os_release(&node.config.node.os_release),
    };
    let facts = NodeFacts {
        now: started,
        hardware: &node.config.node.hardware,
        capacity: &capacity,
        installed: installed.as_ref(),
        installed_version: installed_version.as_ref(),
        floor: node.floor().judged()?.floor,
        switched: &node.disk.switched(),
        record: &record,
        id: &node.id,
        wave,
        require: &node.config.policy.require,
    };
    Ok(decide(&facts, offered))
}

/// The version of what a slot holds: of a release, or of the booted system that no agent installed.
pub(crate) fn installed_version(
    config: &Config,
    record: &BootRecord,
    booted: Slot,
) -> Option<Version> {
    match record.slots.of(booted) {
        Some(content) => Some(content.release.version.clone().into()),
        None => version_of_os_release(&config.node.os_release),
    }
}

/// `IMAGE_VERSION` of os-release(5), for a system that no agent installed.
pub(crate) fn version_of_os_release(path: &Path) -> Option<Version> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("IMAGE_VERSION="))?;
    line.trim_matches(['"', '\'']).parse().ok()
}

impl<'a> Offer<'a> {
    /// The release, and what was decided.
    pub(super) fn judged(&self) -> &JudgedRelease {
        &self.judged
    }

    /// Fetches the documents of the release, and its proof where the chooser verifies.
    ///
    /// Errors: the decision where it is not to install; a floor that could not follow; a single bank
    /// that was not accepted; a document that no source has as signed; a proof that the chooser would
    /// refuse.
    pub(super) fn resolve(self, node: &NodeInputs<'_>) -> Result<Plan<'a>, AgentError> {
        let Offer { mut refreshed, judged } = self;
        let chosen = match &judged.decided.decision {
            Decision::Install(chosen) => chosen,
            Decision::Refuse(reason @ Reason::VersionRollback) => {
                let error = AgentError::new(*reason, judged.decided.why());
                return Err(match way_back(node, judged.signed.index) {
                    Some(hint) => error.hint(hint),
                    None => error,
                });
            }
            other => return Err(not_now(other, judged.decided.why())),
        };
        // The source whose metadata was good comes first.
        let best = refreshed.best;
        let place = best.describe();
        let all = refreshed.sources.all.iter().map(AsRef::as_ref);
        let others = all.filter(|source| source.describe() != place);
        let sources: Vec<&dyn Source> = std::iter::once(best).chain(others).collect();
        node.check()?;
        node.floor().check(judged.signed.summary.security_version)?;
        let (product, require) = (&node.config.node.product, &node.config.policy.require);
        let kept = |digest: &_| node.state.chunk_list(digest);
        let resolved = resolve(product, &judged.signed, chosen, require, &sources, &kept)?;
        let proof = match node.config.boot.verity {
            true => {
                let version = &judged.signed.summary.version;
                Some(proof(node, &mut refreshed.trusted, version, &resolved)?)
            }
            false => None,
        };
        Ok(Plan { judged, resolved, sources, proof })
    }
}

/// How an operator who wants an older release gets it: without an update, where the other slot holds
/// it and boots.
fn way_back(node: &NodeInputs<'_>, wanted: Sha256) -> Option<String> {
    let other = node.disk.booted().ok()?.other();
    let record = node.state.boot_record().ok()?;
    if !node.disk.flags().ok()?.of(other).confirmed() {
        return None;
    }
    match record.slots.of(other) {
        Some(content) if content.release.index == wanted => {
            let version = &content.release.version;
            Some(format!(
                "slot {other} still holds {version}: `update-agent revert` goes back to it"
            ))
        }
        Some(_) => None,
        None => Some(format!(
            "slot {other} still holds what was there before this agent's first update: `update-agent \
             revert` goes back to it"
        )),
    }
}

fn not_now(decision: &Decision, why: &str) -> AgentError {
    match decision {
        Decision::DeferUntil(until) => {
            let when = until.map_or_else(String::new, |at| format!(" (until {})", time(at)));
            AgentError::new(Reason::Deferred, format!("{why}{when}"))
                .hint("to install it now, name it: --version")
        }
        Decision::Refuse(reason) => AgentError::new(*reason, why),
        Decision::UpToDate | Decision::Install(_) => AgentError::new(Reason::UpToDate, why),
    }
}

/// What a verifying chooser will ask for, asked before anything is written: the same walk from its
/// root, and whether it fits behind the image.
fn proof(
    node: &NodeInputs<'_>,
    trusted: &mut Trusted<'_>,
    version: &Version,
    resolved: &Resolved,
) -> Result<Proof, AgentError> {
    let proof = approved_proof(node, trusted, version)
        .map_err(|error| error.context("the chooser would refuse this release"))?;
    let component = &node.config.boot.component;
    let slot = node.disk.booted()?.other();
    let capacity = node.disk.capacities(slot)?.get(component).copied().unwrap_or(0);
    let own = resolved.components.iter().find(|one| one.identity.name == *component);
    let used = own.map_or(0, |own| own.identity.raw_size);
    if place(proof.to_bytes().len() as u64, capacity, used).is_none() {
        let text = format!("slot {slot} has no room for the release's proof behind the image");
        return Err(AgentError::new(Reason::SlotSize, text).hint("make the slots larger by a MiB"));
    }
    Ok(proof)
}

/// The proof of a release, once the chooser's root has led to it. Where `chooser.root` does not say
/// which one that is, every root the firmware could have had: from the first one on.
fn approved_proof(
    node: &NodeInputs<'_>,
    trusted: &mut Trusted<'_>,
    version: &Version,
) -> Result<Proof, AgentError> {
    let machine = chooser::machine(node.config);
    if let Some(root) = chooser_root(node.config, node.host)? {
        let proof = trusted.proof(trust::root_version(&root)?, version)?;
        approve(&proof, &root, machine)?;
        return Ok(proof);
    }
    let proof = trusted.proof(1, version)?;
    let first = Role::Root.file_name(Some(1));
    let root = proof.files.get(&first).map_or(&[][..], Vec::as_slice);
    let approved = approve(&proof, root, machine);
    approved.map_err(|error| match error {
        // It is the source's, no file of this node.
        ProofError::Trust(TrustError::ShippedRoot { source }) => {
            TrustError::Refused { file: first, source }.into()
        }
        error => error,
    })?;
    Ok(proof)
}

/// The root that the chooser in the firmware has, where the configuration says it.
fn chooser_root(config: &Config, host: &dyn Host) -> Result<Option<Vec<u8>>, AgentError> {
    let Some(path) = &config.chooser.root else { return Ok(None) };
    let root = host.read_trusted(path, ROOT_LIMIT).map_err(|error| {
        AgentError::from(error)
            .or_config()
            .context("chooser.root")
            .or_hint("copy the root.json that is in the firmware to this path")
    })?;
    Ok(Some(root))
}

impl Plan<'_> {
    /// What [`Plan::install`] would fetch and write on a node that stands like `now`.
    pub(super) fn preview(
        &self,
        node: &NodeInputs<'_>,
        now: Node,
        seeds: &[PathBuf],
        stage_only: bool,
        progress: &dyn Progress,
    ) -> Result<PlanReport, AgentError> {
        let slot = now.booted.other();
        let capacity: BTreeMap<ComponentName, u64> = node.disk.capacities(slot)?;
        begin(now, self.judged.task(node.config, stage_only))?;
        let seeds = operator_seeds(node.host, &seed_paths(node.config, seeds), progress);
        let product = &node.config.node.product;
        let finder = ReuseFinder { product, state: node.state, disk: node.disk };
        let mut components = Vec::new();
        for component in &self.resolved.components {
            let name = component.identity.name.clone();
            let planned = finder.planned(component, &seeds, &self.sources, progress)?;
            components.push(ComponentPlan {
                raw_size: component.identity.raw_size,
                capacity: capacity.get(&name).copied(),
                fetch: planned.fetch,
                delta: planned.delta,
                reuse: planned.reuse,
                zeros: planned.zeros,
                name,
            });
        }
        Ok(PlanReport {
            version: self.judged.signed.summary.version.clone(),
            slot,
            decision: Verdict::from(&self.judged.decided.decision),
            rules: rules(&self.judged.decided),
            components,
            sources: self.sources.iter().map(|source| source.describe()).collect(),
        })
    }

    /// Writes the inactive slot, reads it back and, unless it shall only be staged, makes it next.
    ///
    /// A crash leaves a slot that is not next, which the next attempt completes, or one that is.
    pub(super) fn install(
        self,
        driver: &Driver<'_>,
        seeds: &[PathBuf],
        stage_only: bool,
        progress: &dyn Progress,
    ) -> Result<Installed, AgentError> {
        let progress = Recorded::new(progress, &driver.config.state_dir);
        let inputs = ApplyInputs {
            resolved: &self.resolved,
            sources: &self.sources,
            seeds: &seed_paths(driver.config, seeds),
            progress: &progress,
            order: &self.judged.signed.summary.order,
            proof: self.proof.as_ref(),
        };
        // What cannot begin is no business of a hook, and nothing that was begun.
        begin(driver.node()?, self.judged.task(driver.config, stage_only))?;
        driver.check_room()?;
        driver.before_apply(&self.judged, stage_only)?;
        self.tell_begin(driver);
        let performed = self.perform(driver, &inputs, stage_only).map_err(|error| {
            let version = self.judged.version().to_string();
            let why = Why { code: error.reason().code(), text: &error.chain() };
            Event::InstallFailed { version: &version, why }.tell();
            error.told()
        });
        let (ended, slot, activated) = performed?;
        Ok(Installed { slot, activated, written: ended.written, judged: self.judged })
    }

    /// Runs the update machine: how it ended, the slot, and whether that is next.
    fn perform(
        &self,
        driver: &Driver<'_>,
        inputs: &ApplyInputs<'_>,
        stage_only: bool,
    ) -> Result<(Ended, Slot, bool), AgentError> {
        driver.single_banks().prepare(driver.held)?;
        let ended = driver.run(self.judged.task(driver.config, stage_only), Some(inputs));
        let sent = self.sources.iter().map(|source| (source.describe(), source.bytes_fetched()));
        driver.state.count_received(driver.held, sent);
        let ended = ended?;
        driver.state.save_journal(driver.held, None)?;
        match &ended.outcome {
            Outcome::Activated(slot) => Ok((*slot, true)),
            Outcome::Staged(slot) => Ok((*slot, false)),
            Outcome::Failed { reason, detail } => Err(AgentError::new(*reason, detail.clone())),
            other => Err(unexpected("apply", other)),
        }
        .map(|(slot, activated)| (ended, slot, activated))
    }

    fn tell_begin(&self, driver: &Driver<'_>) {
        let (Ok(booted), Ok(record)) = (driver.disk.booted(), driver.state.boot_record()) else {
            return;
        };
        let from = installed_version(driver.config, &record, booted);
        Event::Installing {
            version: &self.judged.version().to_string(),
            from: from.map(|version| version.to_string()).as_deref(),
            slot: booted.other(),
            source: &self.sources.first().map_or_else(String::new, |source| source.describe()),
        }
        .tell();
    }
}

/// What the operator named, then what is configured.
fn seed_paths<'a>(config: &'a Config, named: &'a [PathBuf]) -> Vec<&'a Path> {
    let configured = config.seeds.iter().map(|seed| seed.path.as_path());
    named.iter().map(PathBuf::as_path).chain(configured).collect()
}

impl Installed {
    /// What was done.
    pub(super) fn report(self) -> ApplyReport {
        let written = self.written;
        ApplyReport {
            slot: self.slot,
            version: self.judged.signed.summary.version,
            activated: self.activated,
            fetched: written.fetched,
            written: written.written,
            reused: written.reused_seed + written.reused_target,
            zeroed: written.zeroed,
            notes: self.judged.decided.notes,
        }
    }
}

impl JudgedRelease {
    fn task(&self, config: &Config, stage_only: bool) -> Task {
        let release: ReleaseId = identity(&self.signed);
        let (tries, named) = (config.boot.tries, self.named);
        Task::Apply { release, tries, activate: !stage_only, named }
    }

    /// Refuses what no source has a part in: a node that stands like `now` cannot install anything, or
    /// not this.
    pub(super) fn check_node(&self, node: &NodeInputs<'_>, now: Node) -> Result<(), AgentError> {
        node.config.health.usable()?;
        node.check()?;
        node.floor().check(self.signed.summary.security_version)?;
        begin(now, self.task(node.config, false))?;
        Ok(())
    }

    /// The version of the release.
    pub(super) fn version(&self) -> &Version {
        &self.signed.summary.version
    }
}

impl Trial {
    /// The trial that is under way, if one is.
    pub(super) fn under_way(node: &Node) -> Option<Self> {
        match stand(node) {
            Standing::OnTrial { tries_left, counted } => {
                let update = node.record.update.as_ref();
                let version = update.map(|update| update.release.version.to_string());
                Some(Trial { slot: node.booted, version, tries_left, counted })
            }
            _ => None,
        }
    }

    /// Checks health, and confirms the slot or restarts the machine.
    pub(super) fn probe(self, driver: &Driver<'_>) -> Result<Probed, AgentError> {
        if !self.counted {
            tracing::warn!("no try was spent for this boot: a hang would not revert");
        }
        let (slot, tries_left) = (self.slot, self.tries_left);
        Event::OnTrial { version: self.version.as_deref(), slot, tries_left }.tell();
        match driver.run(Task::Probe, None)?.outcome {
            Outcome::Confirmed(slot) => Ok(Probed::Confirmed(slot)),
            Outcome::TrialFailed(why) => Ok(Probed::Failed(why)),
            other => Err(unexpected("trial", &other)),
        }
    }
}

pub(super) fn unexpected(what: &str, outcome: &Outcome) -> AgentError {
    AgentError::new(Reason::BootRecord, format!("the {what} ended unexpectedly: {outcome:?}"))
}

impl NodeInputs<'_> {
    /// Refuses a node that must install nothing.
    fn check(&self) -> Result<(), AgentError> {
        self.disk.check_root()?;
        self.slot_check().same_disk()?;
        self.single_banks().accepted()
    }

    pub(super) fn floor(&self) -> FloorKeeper<'_> {
        let (state, disk, host) = (self.state, self.disk, self.host);
        FloorKeeper { config: &self.config.floor, state, disk, host }
    }

    pub(super) fn slot_check(&self) -> SlotCheck<'_> {
        SlotCheck { state: self.state, disk: self.disk }
    }

    pub(super) fn single_banks(&self) -> SingleBanks<'_> {
        SingleBanks { state: self.state, disk: self.disk }
    }
}
