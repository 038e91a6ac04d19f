//! The trusted state survives a cut at any of its writes: the trust core on sealed records on
//! simulated files, cut at every operation, with writes torn at many places and writes lost.
//!
//! ```text
//!  session: updates, one after the other ──► log of writes
//!  every crash state of the log ──► what survived was trusted once, whole
//!                               ──► old states of the repository are refused all the same
//!                               ──► the next honest update ends where an uncut node is
//! ```

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use formats::reason::Reason;
use formats::tuf::{Envelope, Role};
use racklet_testkit::forge::{Forge, ForgeKey, Node};
use storage::StoreError;
use storage::files::Files;
use storage::record;
use storage::sim::{FilesFault, Interrupted, MemFiles};
use update_core::trust::{Refresh, Step, Stored, TrustError, Workflow};

const NAME: &str = "trust";
type Tree = BTreeMap<String, Vec<u8>>;

/// Files that note what is written to them.
#[derive(Default)]
struct Logged {
    files: MemFiles,
    log: Mutex<Vec<(String, Vec<u8>)>>,
}

impl Files for Logged {
    fn read(&self, name: &str, max: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.files.read(name, max)
    }

    fn write_atomic(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.files.write_atomic(name, bytes)?;
        self.log.lock().unwrap().push((name.to_owned(), bytes.to_vec()));
        Ok(())
    }

    fn remove(&self, _: &str) -> Result<(), StoreError> {
        panic!("trusted state is never removed by an update")
    }

    fn list(&self) -> Result<Vec<String>, StoreError> {
        self.files.list()
    }
}

/// How an update on files ended.
#[derive(Debug)]
enum Ended {
    Updated,
    Refused(TrustError),
    /// The files failed: the power is off.
    Off,
}

fn stored(files: &dyn Files) -> Result<Stored, StoreError> {
    let found = record::read(files, NAME)?;
    Ok(found.map_or_else(Stored::default, |found| {
        Stored::from_bytes(&found.record.payload).expect("a whole record holds a whole state")
    }))
}

/// One update, as the agent does it: state from the files, every persist to the files.
fn update(node: &Node, files: &dyn Files, served: &Tree) -> Ended {
    let state = stored(files).expect("files that can be read");
    let refresh = Refresh::begin(state, &node.shipped_root, node.clock, node.limits);
    let mut refresh = match refresh {
        Ok(refresh) => refresh,
        Err(error) => return Ended::Refused(error),
    };
    loop {
        match refresh.next() {
            Ok(Step::Fetch(fetch)) => refresh.respond(match served.get(&fetch.file_name) {
                Some(bytes) => update_core::trust::Reply::Bytes(bytes.clone()),
                None => update_core::trust::Reply::NotFound,
            }),
            Ok(Step::Persist(stored)) => {
                if record::write(files, NAME, &stored.to_bytes()).is_err() {
                    return Ended::Off;
                }
            }
            Ok(Step::Done(_)) => return Ended::Updated,
            Err(error) => return Ended::Refused(error),
        }
    }
}

/// A repository that changes between the updates of a node. Every state it ever had is kept.
struct Session {
    name: &'static str,
    repo: Forge,
    node: Node,
    /// Before the first update, then before each further one.
    eras: Vec<Tree>,
}

impl Session {
    fn new(name: &'static str) -> Self {
        let mut repo = Forge::new();
        repo.publish(&[Role::Targets]);
        let node = Node::of(&repo);
        let eras = vec![repo.freeze()];
        Session { name, repo, node, eras }
    }

    fn then(mut self, change: impl Fn(&mut Forge)) -> Self {
        change(&mut self.repo);
        self.eras.push(self.repo.freeze());
        self
    }

    /// All updates without a cut: the log of writes, and the state in the end.
    fn run(&self) -> (Vec<(String, Vec<u8>)>, Stored) {
        let files = Logged::default();
        for era in &self.eras {
            assert!(matches!(update(&self.node, &files, era), Ended::Updated), "{}", self.name);
        }
        let end = stored(&files).unwrap();
        (files.log.into_inner().unwrap(), end)
    }
}

fn sessions() -> Vec<Session> {
    let publish = |repo: &mut Forge| repo.publish(&[Role::Targets]);
    vec![
        Session::new("first run"),
        Session::new("poll, release, poll")
            .then(publish)
            .then(|repo| repo.publish(&[Role::Timestamp]))
            .then(publish),
        Session::new("delegations and a snapshot alone")
            .then(|repo| {
                let role = repo.delegate(&Role::Targets, "ops", &["ops/*"]);
                repo.publish(&[Role::Targets, role]);
            })
            .then(|repo| repo.publish(&[Role::Snapshot])),
        Session::new("forty roots").then(|repo| (0..40).for_each(|_| repo.publish(&[Role::Root]))),
        Session::new("fast-forward, then new online keys")
            .then(|repo| {
                repo.header(&Role::Timestamp).version = 1_000_000_000;
                repo.header(&Role::Snapshot).version = 1_000_000_000;
                repo.publish(&[Role::Snapshot]);
            })
            .then(|repo| {
                repo.rekey(&Role::Snapshot, 1, &[ForgeKey::new(22)]);
                repo.rekey(&Role::Timestamp, 1, &[ForgeKey::new(32)]);
                repo.header(&Role::Timestamp).version = 0;
                repo.header(&Role::Snapshot).version = 0;
                repo.publish(&[Role::Root, Role::Targets]);
            })
            .then(publish),
        Session::new("new root and targets keys")
            .then(|repo| {
                repo.rekey(&Role::Root, 2, &[ForgeKey::new(4), ForgeKey::new(5)]);
                repo.rekey(&Role::Targets, 1, &[ForgeKey::new(13)]);
                repo.publish(&[Role::Root, Role::Targets]);
            })
            .then(publish),
    ]
}

/// Where a write of that many bytes is torn: in the head of the record, in its checksum, and at
/// places between.
fn tears(len: usize) -> BTreeSet<usize> {
    let ends = (0..=24).chain(len.saturating_sub(32)..=len);
    ends.chain((1..16).map(|nth| len * nth / 16)).filter(|at| *at <= len).collect()
}

/// Every state in which the power may leave the files: all writes before one, and of that one
/// nothing, all or a part; and each of these with one earlier write lost that had been reported
/// done.
fn crash_states(log: &[(String, Vec<u8>)]) -> BTreeSet<Tree> {
    let apply = |tree: &mut Tree, (name, bytes): &(String, Vec<u8>)| {
        tree.insert(name.clone(), bytes.clone());
    };
    let mut states = BTreeSet::new();
    for cut in 0..log.len() {
        for lost in (0..cut).map(Some).chain([None]) {
            let mut tree = Tree::new();
            let kept = log.iter().enumerate().take(cut).filter(|(nth, _)| Some(*nth) != lost);
            kept.for_each(|(_, write)| apply(&mut tree, write));
            let (name, bytes) = &log[cut];
            let old = tree.get(name).cloned().unwrap_or_default();
            states.insert(tree.clone());
            // A lying disk and a torn write at once are two faults, beyond what is promised.
            let tears = if lost.is_none() { tears(bytes.len()) } else { BTreeSet::new() };
            for at in tears.into_iter().chain([bytes.len()]) {
                let torn = bytes.iter().take(at).chain(old.iter().skip(at)).copied().collect();
                let mut tree = tree.clone();
                tree.insert(name.clone(), torn);
                states.insert(tree);
            }
        }
    }
    states
}

fn mem_files(tree: &Tree) -> MemFiles {
    let files = MemFiles::new();
    tree.iter().for_each(|(name, bytes)| files.write_atomic(name, bytes).unwrap());
    files
}

fn version_of(bytes: &[u8]) -> i64 {
    let envelope = Envelope::parse(bytes).unwrap();
    envelope.signed().get("version").and_then(|version| version.as_int()).unwrap()
}

fn versions(state: &Stored) -> Vec<Option<i64>> {
    Role::TOP_LEVEL.iter().map(|role| state.file(role).map(|bytes| version_of(bytes))).collect()
}

/// Serves every older state of the repository to what survived: nothing goes down.
fn old_states_are_refused(session: &Session, tree: &Tree, survived: &Stored, what: &str) -> usize {
    let Some(timestamp) = &survived.timestamp else { return 0 };
    let known = versions(survived);
    let mut refused = 0;
    let nth = session.eras.iter().position(|era| era["timestamp.json"][..] == timestamp[..]);
    for era in &session.eras[..nth.expect("what is trusted was served once")] {
        let files = mem_files(tree);
        match update(&session.node, &files, era) {
            Ended::Refused(error) => {
                // Keys that a newer root took away count no more: their metadata is foreign.
                let expected = [Reason::VersionRollback, Reason::SigThreshold];
                assert!(expected.contains(&error.reason()), "{what}: {error}");
                let foreign = error.reason() == Reason::SigThreshold;
                assert!(!foreign || era.len() < session.repo.served.len(), "{what}: {error}");
            }
            other => panic!("{what}: an old state was accepted: {other:?}"),
        }
        assert_eq!(versions(&stored(&files).unwrap()), known, "{what}");
        refused += 1;
    }
    refused
}

/// What the sweep saw.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Crash states of all sessions; those of a first run are in each of them.
    states: usize,
    /// The first record ever, torn: nothing to fall back to, and nothing to lose.
    first_torn: usize,
    attacks: usize,
    recovered: usize,
    cut_again: usize,
}

/// Brings files to the newest state, in one honest update.
fn recovers(session: &Session, files: &dyn Files, end: &Stored, what: &str) {
    let newest = session.eras.last().expect("a session has a beginning");
    match update(&session.node, files, newest) {
        Ended::Updated => {}
        other => panic!("{what}: an honest repository is refused: {other:?}"),
    }
    let state = stored(files).unwrap();
    assert_eq!(versions(&state), versions(end), "{what}");
    assert_eq!(state, *end, "{what}: not where an uncut node is");
}

fn sweep(session: &Session, seen: &mut Seen) {
    let (log, end) = session.run();
    let trusted: BTreeSet<Vec<u8>> = log.iter().map(|(_, bytes)| payload(bytes)).collect();
    for (nth, tree) in crash_states(&log).into_iter().enumerate() {
        let what = format!("{}, crash state {nth}", session.name);
        seen.states += 1;
        let files = mem_files(&tree);
        let survived = match stored(&files) {
            Ok(survived) => survived,
            Err(error) => {
                assert_eq!(error.reason(), Reason::StoreCorrupt, "{what}");
                assert_eq!(tree.keys().collect::<Vec<_>>(), ["trust.0"], "{what}: {error}");
                seen.first_torn += 1;
                record::remove(&files, NAME).unwrap();
                recovers(session, &files, &end, &what);
                seen.recovered += 1;
                continue;
            }
        };
        let none = survived == Stored::default();
        assert!(none || trusted.contains(&survived.to_bytes()), "{what}: half a state");
        seen.attacks += old_states_are_refused(session, &tree, &survived, &what);
        recovers(session, &files, &end, &what);
        seen.recovered += 1;
        // The power fails again, during the writes of the recovery.
        if nth % 16 == 0 {
            for write in 0.. {
                let files = mem_files(&tree);
                let before = files.operations();
                let files = files.with_fault(FilesFault::CutDuring(before + write));
                let newest = session.eras.last().expect("a session has a beginning");
                let Ended::Off = update(&session.node, &files, newest) else { break };
                for how in [Interrupted::Before, Interrupted::After, Interrupted::Torn(700)] {
                    let again = files.after_power_loss(how);
                    if stored(&again).is_err() {
                        record::remove(&again, NAME).unwrap();
                    }
                    recovers(session, &again, &end, &what);
                    seen.cut_again += 1;
                }
            }
        }
    }
}

fn payload(copy: &[u8]) -> Vec<u8> {
    formats::record::Record::parse(copy).expect("a record that was written").payload
}

#[test]
fn every_cut_of_the_trusted_state_is_recovered() {
    let mut seen = Seen::default();
    let mut distinct = BTreeSet::new();
    for session in sessions() {
        let before = (seen.states, seen.attacks);
        sweep(&session, &mut seen);
        distinct.extend(crash_states(&session.run().0));
        let (states, attacks) = (seen.states - before.0, seen.attacks - before.1);
        println!("{}: {states} crash states, {attacks} rollbacks refused", session.name);
    }
    println!("{} distinct crash states; {seen:?}", distinct.len());
    assert_eq!(seen.recovered, seen.states);
    assert!(distinct.len() > 1500 && seen.attacks > 1000 && seen.cut_again > 1000, "{seen:?}");
}

/// A faulty node that writes one copy in place is caught: the sweep can fail.
#[test]
fn a_state_in_one_file_would_be_lost() {
    let (log, _) = Session::new("one file").run();
    let one_file: Vec<_> = log.iter().map(|(_, bytes)| (NAME.to_owned(), payload(bytes))).collect();
    let half = crash_states(&one_file)
        .iter()
        .filter_map(|tree| tree.get(NAME))
        .filter(|bytes| Stored::from_bytes(bytes).is_err())
        .count();
    assert!(half > 100, "{half}");
}
