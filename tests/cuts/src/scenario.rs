//! What is cut, and what must come of it.
//!
//! A scenario is prepared by uncut runs, then acts; every state its action may leave has to be
//! brought, by at most two further runs, to where the uncut run ends.

use std::sync::OnceLock;

use formats::boot_record::Slot;
use formats::digest::Sha256;
use formats::reason::Reason;
use storage::sim::Media;
use storage::sim::machine::{CallKind, Operation, Recording};
use update_agent::error::AgentError;

use crate::case::Case;
use crate::faults::{self, Ended, Fault};
use crate::node::{Backend, DISK, Kit, Node};
use crate::promises::{self, Before, Known};
use crate::repository::{Repository, Snapshot};
use crate::variants::Variant;

/// The trust root of another repository, as an operator brings it.
const OTHER_ROOT: &str = "/other-root.json";

/// A kind of work that is cut.
pub struct Scenario {
    /// Its name in tables.
    pub name: &'static str,
    /// In a sentence.
    pub about: &'static str,
    /// Few enough operations for every second cut of every first one.
    pub small: bool,
    components: usize,
    healthy: bool,
    prepare: fn(&mut Past) -> Result<Snapshot, String>,
    act: fn(&mut Node<'_>) -> Result<(), String>,
    again: fn(&mut Node<'_>) -> Result<(), String>,
}

/// All scenarios of nodes.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "first apply",
        about: "the factory's system writes its first release and makes it next",
        small: false,
        components: 1,
        healthy: true,
        prepare: |past| Ok(past.offers[0].clone()),
        act: boot_and_apply,
        again: daemon,
    },
    Scenario {
        name: "apply",
        about: "a release over an older one, parts of it reused, made next",
        small: false,
        components: 1,
        healthy: true,
        prepare: |past| past.first_release(),
        act: boot_and_apply,
        again: daemon,
    },
    Scenario {
        name: "resume",
        about: "an apply that goes on where another was cut in the middle of the slot",
        small: false,
        components: 1,
        healthy: true,
        prepare: |past| {
            let offer = past.first_release()?;
            past.cut_in_the_middle(&offer)?;
            Ok(offer)
        },
        act: boot_and_apply,
        again: daemon,
    },
    Scenario {
        name: "set commit",
        about: "a release of two components: both or none",
        small: false,
        components: 2,
        healthy: true,
        prepare: |past| past.first_release(),
        act: boot_and_apply,
        again: daemon,
    },
    Scenario {
        name: "confirm",
        about: "a trial boots, passes its checks, is confirmed; the floor rises",
        small: true,
        components: 1,
        healthy: true,
        prepare: |past| past.second_release_next(),
        act: boot_and_run,
        again: daemon,
    },
    Scenario {
        name: "trial fails",
        about: "a trial fails its checks until its tries are used up, and is given up",
        small: true,
        components: 1,
        healthy: false,
        prepare: |past| past.second_release_next(),
        act: daemon,
        again: daemon,
    },
    Scenario {
        name: "revert next",
        about: "what was just made next is cancelled",
        small: false,
        components: 1,
        healthy: true,
        prepare: |past| past.first_release(),
        act: |node| {
            boot_and_apply(node)?;
            done(node.revert())
        },
        again: give_up_next,
    },
    Scenario {
        name: "revert booted",
        about: "an operator leaves the confirmed slot that runs",
        small: true,
        components: 1,
        healthy: true,
        prepare: |past| past.second_release_confirmed(),
        act: leave_a,
        again: leave_a,
    },
    Scenario {
        name: "root rotation",
        about: "two new roots with new targets and timestamp keys, and all metadata",
        small: true,
        components: 1,
        healthy: true,
        prepare: |past| {
            let _ = past.second_release_confirmed()?;
            Ok(past.offers[2].clone())
        },
        act: boot_and_run,
        again: daemon,
    },
    Scenario {
        name: "adopt",
        about: "the factory's system is marked as working",
        small: true,
        components: 1,
        healthy: true,
        prepare: |past| Ok(past.offers[0].clone()),
        act: |node| {
            boot(node)?;
            done(node.adopt())
        },
        again: |node| {
            boot(node)?;
            done(node.adopt())
        },
    },
    Scenario {
        name: "factory reset",
        about: "an operator makes the node forget its repository, which then serves an older state",
        small: true,
        components: 1,
        healthy: true,
        prepare: |past| {
            let _ = past.second_release_confirmed()?;
            past.third_release_failed()?;
            Ok(past.offers[0].clone())
        },
        act: |node| {
            boot(node)?;
            done(node.reset(None))
        },
        again: |node| reset_and_look(node, None),
    },
    Scenario {
        name: "re-enroll",
        about: "an operator resets the node to the trust root of another repository",
        small: true,
        components: 1,
        healthy: true,
        prepare: |past| {
            let _ = past.second_release_confirmed()?;
            Ok(past.foreign.clone())
        },
        act: |node| {
            boot(node)?;
            done(node.reset(Some(OTHER_ROOT)))
        },
        again: |node| reset_and_look(node, Some(OTHER_ROOT)),
    },
    Scenario {
        name: "whole update",
        about: "poll, rotated root, apply, restart, trial, confirm, floor, by the daemon alone",
        small: false,
        components: 1,
        healthy: true,
        prepare: |past| {
            let _ = past.second_release_confirmed()?;
            Ok(past.offers[3].clone())
        },
        act: daemon,
        again: daemon,
    },
];

fn boot(node: &mut Node<'_>) -> Result<(), String> {
    node.boot().map(drop).map_err(|error| format!("S3: the boot loader: {}", error.chain()))
}

fn done<T>(result: Result<T, AgentError>) -> Result<(), String> {
    result.map(drop).map_err(|error| format!("error[{}]: {}", error.reason(), error.chain()))
}

fn boot_and_apply(node: &mut Node<'_>) -> Result<(), String> {
    boot(node)?;
    done(node.apply())
}

/// What a faulty program does: the floor of the release that was just made next.
fn raise_floor(node: &Node<'_>) -> Result<(), String> {
    let agent = node.agent().map_err(|error| error.chain())?;
    let held = agent.state.hold().map_err(|error| error.chain())?;
    agent.state.raise_floor(&held, 2).map_err(|error| error.chain())
}

/// Into what is next, and a round there. A boot loader that has to be asked for it is asked by the daemon.
fn boot_and_run(node: &mut Node<'_>) -> Result<(), String> {
    if node.kit().backend == Backend::Rpi {
        return daemon(node);
    }
    boot(node)?;
    done(node.run_once())
}

/// The daemon from one boot on, through the restarts it asks for, until it has nothing to do.
fn daemon(node: &mut Node<'_>) -> Result<(), String> {
    boot(node)?;
    for _ in 0..8 {
        let restarting = match node.run_once() {
            Ok(report) => report.is_restarting(),
            // What failed here is not tried again: that is the goal of some scenarios.
            Err(error) if error.reason() == Reason::FailedBefore => false,
            Err(error) => return Err(format!("error[{}]: {}", error.reason(), error.chain())),
        };
        if !node.restarted() {
            // The daemon goes on asking; this one ends, as `run --once` does, with an error.
            return if restarting { Err("the restart was refused".to_owned()) } else { Ok(()) };
        }
        boot(node)?;
    }
    Err("L1: the daemon restarts for ever".to_owned())
}

/// An operator who resets, unless that is under way, and the daemon after it. What the repository
/// offers is older than what runs.
fn reset_and_look(node: &mut Node<'_>, root: Option<&str>) -> Result<(), String> {
    boot(node)?;
    let agent = node.agent().map_err(|error| error.chain())?;
    let under_way = agent.state.is_resetting().map_err(|error| error.chain())?;
    drop(agent);
    if !under_way {
        done(node.reset(root))?;
    }
    match node.run_once() {
        Ok(_) => Ok(()),
        Err(error) if error.reason() == Reason::SecverFloor => Ok(()),
        Err(error) => Err(format!("error[{}]: {}", error.reason(), error.chain())),
    }
}

/// An operator who wants to be rid of release 2.0.0 in slot A.
fn leave_a(node: &mut Node<'_>) -> Result<(), String> {
    boot(node)?;
    if node.booted == Some(Slot::A) {
        done(node.revert())?;
        boot(node)?;
    }
    done(node.run_once())
}

/// An operator who applies and thinks better of it, from wherever the cut left the node.
fn give_up_next(node: &mut Node<'_>) -> Result<(), String> {
    boot(node)?;
    let agent = node.agent().map_err(|error| error.chain())?;
    let record = agent.state.boot_record().map_err(|error| error.chain())?;
    drop(agent);
    if node.booted == Some(Slot::A) {
        done(node.revert())?;
        boot(node)?;
        return done(node.run_once());
    }
    let reverting = |update: &formats::boot_record::Update| {
        matches!(update.phase, formats::boot_record::Phase::Reverting { .. })
    };
    let is_next = |update: &formats::boot_record::Update| {
        matches!(update.phase, formats::boot_record::Phase::Trial { .. })
            && node.kit().backend == Backend::Rpi
    };
    let done_with = record.update.as_ref().is_some_and(|it| reverting(it) || is_next(it));
    if record.failures.is_empty() && !done_with {
        done(node.apply())?;
    }
    if record.failures.is_empty() {
        return done(node.revert());
    }
    done(node.run_once())
}

/// A node and its repository while a scenario is prepared.
pub struct Past {
    kit: Kit,
    media: Media,
    boots: u32,
    /// What the repository serves: 1.0.0, 2.0.0, 2.0.0 under rotated keys, 3.0.0.
    offers: Vec<Snapshot>,
    /// What another repository serves: a 1.0.0 of its own.
    foreign: Snapshot,
}

impl Past {
    fn run(
        &mut self,
        offer: &Snapshot,
        act: impl FnOnce(&mut Node<'_>) -> Result<(), String>,
    ) -> Result<Recording, String> {
        let mut node = Node::on(&self.kit, &self.media, offer, true, self.boots);
        act(&mut node)?;
        let (recording, media, boots) =
            (node.machine.recording(), node.machine.media(), node.boots());
        self.media = media;
        self.boots = boots;
        Ok(recording)
    }

    /// 1.0.0 is confirmed in slot B and runs; 2.0.0 is offered.
    fn first_release(&mut self) -> Result<Snapshot, String> {
        let offer = self.offers[0].clone();
        self.run(&offer, |node| {
            boot_and_apply(node)?;
            boot_and_run(node)
        })?;
        Ok(self.offers[1].clone())
    }

    /// And 2.0.0 is next, in slot A.
    fn second_release_next(&mut self) -> Result<Snapshot, String> {
        let offer = self.first_release()?;
        self.run(&offer, boot_and_apply)?;
        Ok(offer)
    }

    /// And 2.0.0 is confirmed in slot A.
    fn second_release_confirmed(&mut self) -> Result<Snapshot, String> {
        let offer = self.second_release_next()?;
        self.run(&offer, boot_and_run)?;
        Ok(offer)
    }

    /// And 3.0.0 was given up before it ever ran: it is not tried again.
    fn third_release_failed(&mut self) -> Result<(), String> {
        let offer = self.offers[3].clone();
        self.run(&offer, |node| {
            boot_and_apply(node)?;
            done(node.revert())
        })
        .map(drop)
    }

    /// The power failed in the middle of an apply: what was flushed is there, nothing else.
    fn cut_in_the_middle(&mut self, offer: &Snapshot) -> Result<(), String> {
        let base = self.media.clone();
        let recording = self.run(offer, boot_and_apply)?;
        let disk = |nth: &usize| {
            let Operation::Write { object, .. } = &recording.operations()[*nth] else {
                return false;
            };
            base.name_of(*object) == DISK
        };
        let writes: Vec<usize> = (0..recording.operations().len()).filter(disk).collect();
        let cut = writes.get(writes.len() / 2).copied().unwrap_or(0);
        let kept = storage::sim::machine::Kept::Some(std::collections::BTreeSet::new());
        let tear = storage::sim::machine::Tear::Whole;
        self.media = recording.after(&storage::sim::machine::Crash { cut, kept, tear });
        Ok(())
    }
}

/// Where a node stands in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    booted: Slot,
    releases: Vec<(Slot, Option<String>, bool)>,
    idle: bool,
    failures: Vec<String>,
    floor: u64,
    trusted: [i64; 4],
    /// The root its trust begins with.
    root: Sha256,
}

/// Where a node stands now.
pub fn end(node: &Node<'_>) -> Result<End, String> {
    let agent = node.agent().map_err(|error| error.chain())?;
    let found = agent.node().map_err(|error| error.chain())?;
    let release = |slot: Slot| {
        let content = found.record.slots.of(slot).as_ref();
        content.map(|content| content.release.version.to_string())
    };
    let bootable = Slot::BOTH.into_iter().filter(|slot| found.flags.of(*slot).bootable());
    let before = promises::before(node)?;
    Ok(End {
        booted: found.booted,
        releases: bootable
            .map(|slot| (slot, release(slot), found.flags.of(slot).confirmed()))
            .collect(),
        idle: found.record.update.is_none(),
        failures: found
            .record
            .failures
            .iter()
            .map(|failure| failure.release.version.to_string())
            .collect(),
        floor: before.floor,
        trusted: before.trusted,
        root: Sha256::of(&agent.shipped_root().map_err(|error| error.chain())?),
    })
}

/// A scenario on a backend, ready to be cut.
pub struct Row {
    /// What is cut.
    pub scenario: &'static Scenario,
    /// What kind of node.
    pub kit: Kit,
    /// The media when it begins.
    pub base: Media,
    /// What must not fall.
    pub before: Before,
    /// The uncut run.
    pub recording: Recording,
    /// Where every run must end.
    pub goal: End,
    /// All releases.
    pub known: Known,
    repository: Snapshot,
    boots: u32,
    variant: Option<&'static Variant>,
    /// Where an uncut run stands, by what is durable.
    success: OnceLock<End>,
}

impl Case for Row {
    fn scenario(&self) -> &str {
        self.scenario.name
    }

    fn place(&self) -> &str {
        self.kit.backend.name()
    }

    fn about(&self) -> &str {
        self.scenario.about
    }

    fn is_small(&self) -> bool {
        self.scenario.small
    }

    fn base(&self) -> &Media {
        &self.base
    }

    fn recording(&self) -> &Recording {
        &self.recording
    }

    fn judge(&self, media: &Media, in_step: bool, _done: bool) -> Result<Recovered, String> {
        Row::judge(self, media, in_step)
    }

    /// GRUB's block has one copy and no checksum, and so has `autoboot.txt`: a state in which it is neither what it
    /// was nor what was being written is lost, and documented as such. A sector that is written whole or not at all
    /// never leaves one of the latter. Everything else has to hold there, too.
    fn is_documented(&self, media: &Media, recordings: &[Recording]) -> bool {
        let Some((device, offset, len)) = self.kit.only_copy() else { return false };
        let there = |media: &Media| media.hash_of(device, offset, len);
        let now = there(media);
        let mut bytes = vec![0; usize::try_from(len).expect("a few sectors")];
        media.read(device, offset, &mut bytes);
        let written = |recording: &Recording| {
            recording.operations().iter().any(|operation| match operation {
                Operation::Write { object, offset: at, bytes: written } => {
                    recording.base().name_of(*object) == device
                        && *at == offset
                        && written[..] == bytes[..]
                }
                _ => false,
            })
        };
        !recordings.iter().any(|recording| there(recording.base()) == now || written(recording))
    }

    fn calls(&self) -> Result<Vec<CallKind>, String> {
        let (calls, success) = faults::calls_of_node(self)?;
        let _ = self.success.set(success);
        Ok(calls)
    }

    fn with_fault(&self, fault: Fault, nth: usize, for_good: bool) -> Result<Ended, String> {
        let success = self.success.get().ok_or("calls were not counted")?;
        faults::one(self, success, fault, nth, for_good)
    }
}

/// What a run that goes on after a cut did.
pub struct Recovered {
    /// Everything it asked its media for.
    pub recording: Recording,
    /// What kept the first run from the goal, if it took two.
    pub first: Option<String>,
}

/// Runs of the agent that a recovery may take (L1).
const RUNS: usize = 2;

impl Row {
    /// Prepares a scenario on a backend and runs it uncut.
    pub fn new(scenario: &'static Scenario, backend: Backend) -> Result<Row, String> {
        Row::of(scenario, backend, None)
    }

    /// The same with a faulty program.
    pub fn of(
        scenario: &'static Scenario,
        backend: Backend,
        variant: Option<&'static Variant>,
    ) -> Result<Row, String> {
        let components = backend.components(scenario.components);
        let mut repository = Repository::new(components);
        let mut offers = vec![repository.publish("1.0.0", 1), repository.publish("2.0.0", 2)];
        offers.push(repository.rotate());
        offers.push(repository.publish("3.0.0", 3));
        let mut kit = Kit::new(backend, components);
        if variant.is_some_and(Variant::single_copy) {
            kit = kit.with_single_copy();
        }
        let factory: Vec<Vec<u8>> =
            (0..components).map(|nth| vec![0xfa; 20_480 - 4096 * nth]).collect();
        let mut foreign = Repository::of_others(components);
        let media = kit.factory(&repository.root(), &factory);
        let media = media.with_bytes(OTHER_ROOT, &foreign.root());
        let foreign = foreign.publish("1.0.0", 1);
        let known = Known::new(&factory, &repository.releases);
        let mut past = Past { kit, media, boots: 0, offers, foreign };
        let offer = (scenario.prepare)(&mut past)?;
        let Past { kit, media: base, boots, .. } = past;

        let mut node = Node::on(&kit, &base, &offer, scenario.healthy, boots);
        boot(&mut node)?;
        let mut before = promises::before(&node)?;
        let mut node = Node::on(&kit, &base, &offer, scenario.healthy, boots);
        promises::check(&node, &known, &before)?;
        if let Some(variant) = variant {
            variant.spoil(&node);
        }
        (scenario.act)(&mut node)?;
        if variant.is_some_and(Variant::raises_early) {
            raise_floor(&node)?;
        }
        let (recording, media) = (node.machine.recording(), node.machine.media());
        // Goals are those of the good program.
        let mut node = Node::on(&kit, &media, &offer, scenario.healthy, boots + 100);
        (scenario.again)(&mut node)?;
        let goal = end(&node)?;
        if ["factory reset", "re-enroll"].contains(&scenario.name) {
            before.relearned = Some(goal.trusted);
        }
        promises::check(&node, &known, &before)?;
        let boots = boots + 100;
        let repository = offer;
        Ok(Row {
            scenario,
            kit,
            base,
            before,
            recording,
            goal,
            known,
            repository,
            boots,
            variant,
            success: OnceLock::new(),
        })
    }

    /// What the table calls it.
    pub fn name(&self) -> String {
        Case::name(self)
    }

    /// The node when it begins.
    pub fn node(&self, media: &Media) -> Node<'_> {
        Node::on(&self.kit, media, &self.repository, self.scenario.healthy, self.boots)
    }

    /// Acts, as the uncut run did.
    pub fn act(&self, node: &mut Node<'_>) -> Result<(), String> {
        (self.scenario.act)(node)
    }

    /// Judges media that a cut has left, and goes on from there: the promises hold, the boot loader
    /// boots, and at most two runs reach the goal. In step, equal media give equal recordings.
    pub fn judge(&self, media: &Media, in_step: bool) -> Result<Recovered, String> {
        let node = self.node(media);
        let mut node = if in_step { node } else { node.out_of_step() };
        promises::check(&node, &self.known, &self.before)?;
        if let Some(variant) = self.variant {
            variant.spoil(&node);
        }
        let first = self.finish(&mut node)?;
        Ok(Recovered { recording: node.machine.recording(), first })
    }

    /// Goes on until the goal is reached; what kept the first run from it, if it took two.
    pub fn finish(&self, node: &mut Node<'_>) -> Result<Option<String>, String> {
        let later = Before { running: None, ..self.before.clone() };
        let mut first = None;
        let mut found = String::new();
        for _ in 0..RUNS {
            let done = (self.scenario.again)(node);
            promises::check(node, &self.known, &later)?;
            let stands = end(node)?;
            if stands == self.goal {
                return Ok(first);
            }
            found = match done {
                Ok(()) => format!("{stands:?}"),
                Err(error) => format!("{error}; {stands:?}"),
            };
            first.get_or_insert_with(|| found.clone());
        }
        Err(format!("L1: after {RUNS} runs: {found}, wanted {:?}", self.goal))
    }
}
