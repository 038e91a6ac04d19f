//! Sequences of changes, each signed and read as nodes read it.

#![cfg(test)]

use std::collections::BTreeSet;

use formats::digest::{Digest, Sha256};
use formats::release::{ComponentSummary, Summary, Withdrawal, target_name};
use formats::tuf::UnixTime;
use proptest::prelude::*;
use update_core::trust::{Reply, run};

use super::closed::CLOSED;
use super::*;
use crate::key::{KeyStore, example};
use crate::plan::{
    Change, ChannelEdit, NewRelease, Proposal, RepositoryId, RoleKeySet, Rollout, Rotation,
    UnsignedSnapshot, assemble, decide, lint_change,
};
use crate::policy::Policy;
use crate::signing::{finish, sign_payloads};
use crate::state::State;
use crate::verify::verify_metadata;

const NOW: UnixTime = UnixTime::from_secs(1_798_761_600);

/// A repository that nobody stores: each change is signed on top of the state before.
struct Repository {
    keys: KeyStore,
    state: State,
    trust_root: Vec<u8>,
    /// Roles of the last change.
    signed: Vec<Role>,
    now: UnixTime,
}

impl Repository {
    fn new() -> Self {
        let mut keys = KeyStore::default();
        for role in ["root", "targets", "snapshot", "timestamp"] {
            keys.add(example::key(role)).unwrap();
        }
        let set = |role: Role| RoleKeySet {
            keys: vec![example::key(role.name()).key().unwrap()],
            role,
            threshold: 1,
        };
        let sets = Role::TOP_LEVEL.map(set);
        let id = RepositoryId::Named("tests".to_owned());
        let proposal = Proposal::first(sets, &id, &Expiry::default(), NOW).unwrap();
        let state = sign(None, &keys, &proposal, NOW);
        let trust_root = state.roots.values().next().unwrap().clone();
        Repository { keys, state, trust_root, signed: Vec::new(), now: NOW }
    }

    /// Makes a change; whether there was something to change.
    fn change(&mut self, change: &Change) -> Result<bool, PlanError> {
        let Some(proposal) = decide(&self.state, change, &Expiry::default(), self.now)? else {
            return Ok(false);
        };
        let found = lint_change(Some(&self.state), &proposal, &Policy::default(), self.now)?;
        let refused = found.iter().find(|it| it.level == crate::plan::Level::Refused);
        if let Some(finding) = refused {
            return Err(PlanError::Lint(finding.clone()));
        }
        self.state = sign(Some(&self.state), &self.keys, &proposal, self.now);
        self.signed = proposal.payloads.iter().map(|it| it.role.clone()).collect();
        Ok(true)
    }

    fn publish(&mut self, product: &str, version: &str, channel: Option<&str>) -> bool {
        self.change(&publish(product, version, channel)).unwrap()
    }

    fn roles_of(&self, name: &str) -> Vec<Role> {
        let all = self.state.targets_roles();
        let lists = all.filter(|(_, signed)| signed.data.targets.contains_key(name));
        lists.map(|(role, _)| role.clone()).collect()
    }

    fn history(&self) -> Vec<&Role> {
        self.state.delegated.keys().filter(|role| is_history(role)).collect()
    }

    /// Looks for a name as a node does, in the files.
    fn node_finds(&self, name: &str) -> Option<(Role, TargetFile)> {
        let files = self.state.files();
        let files: BTreeMap<String, Vec<u8>> =
            files.into_iter().map(|(name, bytes)| (name, bytes.to_vec())).collect();
        let mut set = verify_metadata(&files, &self.trust_root, self.now).unwrap();
        let mut search = set.find_target(name).unwrap();
        let fetch = |wanted: &update_core::trust::Fetch| match files.get(&wanted.file_name) {
            Some(bytes) => Reply::Bytes(bytes.clone()),
            None => Reply::NotFound,
        };
        let found = run(&mut search, fetch, |_| {}).ok()?;
        Some((found.role().clone(), found.file().clone()))
    }
}

fn sign(before: Option<&State>, keys: &KeyStore, proposal: &Proposal, now: UnixTime) -> State {
    let mut signatures = Default::default();
    sign_payloads(before, proposal, keys, &mut signatures).unwrap();
    let offline = assemble(before, proposal, &signatures).unwrap();
    let expiry = Expiry::default();
    finish(UnsignedSnapshot::new(before, offline, proposal, &expiry, None, now), keys).unwrap()
}

/// A release that is large in targets: two of them close a role.
fn publish(product: &str, version: &str, channel: Option<&str>) -> Change {
    let index = format!("{product} {version}").into_bytes();
    let component = ComponentSummary {
        name: "os".parse().unwrap(),
        compatible: vec!["cu-v1".to_owned()],
        manifest: Digest::Sha256(Sha256::of(&index)),
        raw_size: 1,
        verity: None,
        raw: Some("x".repeat(CLOSED / 2)),
    };
    let summary = Summary {
        version: version.parse().unwrap(),
        security_version: 1,
        components: vec![component],
        attachments: Vec::new(),
        mixed: Vec::new(),
        order: Vec::new(),
        withdrawn: None,
    };
    let release = NewRelease { product: product.to_owned(), summary, index };
    let channel = channel.map(str::to_owned);
    Change::Publish { release, channel, rollout: Rollout::default(), role: None }
}

fn offer(product: &str, channel: &str, version: &str) -> Change {
    let edit = ChannelEdit {
        product: product.to_owned(),
        channel: channel.to_owned(),
        release: Some(version.parse().unwrap()),
        ..ChannelEdit::default()
    };
    Change::SetChannel { edit, role: None }
}

fn withdraw(product: &str, version: &str) -> Change {
    let (product, because) = (product.to_owned(), "loses data".to_owned());
    Change::Withdraw { product, version: version.parse().unwrap(), because }
}

/// One step of a sequence; numbers choose among what is published.
#[derive(Debug, Clone)]
enum Step {
    Publish(bool, Option<bool>),
    Offer(usize, bool),
    Withdraw(usize),
    Unlist(usize),
    Archive(Option<u32>),
    Republish(usize),
    Renew,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (any::<bool>(), any::<Option<bool>>()).prop_map(|(a, b)| Step::Publish(a, b)),
        3 => (any::<usize>(), any::<bool>()).prop_map(|(at, b)| Step::Offer(at, b)),
        1 => any::<usize>().prop_map(Step::Withdraw),
        1 => any::<usize>().prop_map(Step::Unlist),
        1 => prop_oneof![Just(None), Just(Some(2)), Just(Some(3))].prop_map(Step::Archive),
        1 => any::<usize>().prop_map(Step::Republish),
        1 => Just(Step::Renew),
    ]
}

/// What was published, by target name; whether it was withdrawn.
type Model = BTreeMap<String, bool>;

fn take(repository: &mut Repository, model: &mut Model, number: &mut u32, step: &Step) {
    let chosen = |model: &Model, at: usize| {
        let name = model.keys().nth(at.checked_rem(model.len())?)?;
        let (product, version) = name.split_once('/')?;
        Some((product.to_owned(), version.to_owned()))
    };
    let channel = |second: bool| if second { "beta" } else { "stable" };
    match step {
        Step::Publish(second, offered) => {
            *number += 1;
            let (product, version) = (if *second { "b" } else { "a" }, format!("1.{number}"));
            assert!(repository.publish(product, &version, offered.map(channel)));
            model.insert(format!("{product}/{version}"), false);
        }
        Step::Offer(at, second) => {
            let Some((product, version)) = chosen(model, *at) else { return };
            let change = offer(&product, channel(*second), &version);
            let withdrawn = model[&format!("{product}/{version}")];
            match repository.change(&change) {
                Ok(_) => {
                    let name = format!("{product}/{version}");
                    assert_eq!(repository.roles_of(&name), [Role::Targets], "{name}");
                }
                Err(error) => assert!(withdrawn, "{error}"),
            }
        }
        Step::Withdraw(at) => {
            let Some((product, version)) = chosen(model, *at) else { return };
            repository.change(&withdraw(&product, &version)).unwrap();
            model.insert(format!("{product}/{version}"), true);
        }
        Step::Unlist(at) => {
            let Some((product, version)) = chosen(model, *at) else { return };
            let name = format!("{product}/{version}");
            match repository.change(&Change::Unlist(vec![name.clone()])) {
                Ok(_) => drop(model.remove(&name)),
                Err(PlanError::Offered { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
        Step::Archive(keep) => drop(repository.change(&Change::Archive { keep: *keep }).unwrap()),
        Step::Republish(at) => {
            let Some((product, version)) = chosen(model, *at) else { return };
            match repository.change(&publish(&product, &version, None)) {
                Ok(changed) => assert!(!changed || repository.signed.contains(&Role::Targets)),
                Err(PlanError::Withdrawn { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
        Step::Renew => {
            assert!(repository.change(&Change::Renew(vec![Role::Targets])).unwrap());
        }
    }
}

fn check(repository: &Repository, model: &Model) {
    let listed = repository.state.releases().unwrap();
    let names: BTreeMap<String, bool> =
        listed.iter().map(|it| (it.target.clone(), it.summary.withdrawn.is_some())).collect();
    assert_eq!(names, *model);
    for (name, withdrawn) in model {
        let roles = repository.roles_of(name);
        let (role, file) = repository.state.find(name).unwrap();
        assert_eq!(roles, std::slice::from_ref(&role), "{name}");
        assert_eq!(repository.node_finds(name), Some((role, file.clone())), "{name}");
        assert_eq!(file.hashes.as_sha256(), Some(Sha256::of(name.replace('/', " ").as_bytes())));
        let custom = file.custom.as_ref().unwrap().to_bytes();
        let mark: Option<Withdrawal> = Summary::parse_custom(&custom).unwrap().withdrawn;
        assert_eq!(mark.is_some(), *withdrawn, "{name}");
    }
    for channel in repository.state.channels.values() {
        if let Some(offer) = &channel.data.release {
            let name = target_name(&channel.data.product, &offer.version);
            assert_eq!(repository.roles_of(&name), [Role::Targets], "{name} is offered");
        }
    }
    for absent in ["a/0", "b/0", "a/channels/none.json"] {
        assert_eq!(repository.state.find(absent), None);
        assert_eq!(repository.node_finds(absent), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Whatever is done, each release is listed once, nodes find it with its content, and those that
    /// are offered are found at once.
    #[test]
    fn no_release_is_lost_or_twice(steps in prop::collection::vec(step(), 1..40)) {
        let (mut repository, mut model, mut number) = (Repository::new(), Model::new(), 0);
        for step in &steps {
            take(&mut repository, &mut model, &mut number, step);
        }
        check(&repository, &model);
        // The first archive of a repository, at the end at the latest.
        repository.change(&Change::Archive { keep: None }).unwrap();
        check(&repository, &model);
    }
}

#[test]
fn a_publish_signs_few_roles_and_targets_stay_short() {
    let mut repository = Repository::new();
    repository.change(&Change::Archive { keep: Some(4) }).unwrap();
    assert_eq!(repository.signed.len(), 3, "targets, history, history-recent");
    let mut model = Model::new();
    for n in 1..=60 {
        repository.publish("a", &format!("1.{n}"), Some("stable"));
        model.insert(format!("a/1.{n}"), false);
        assert!(repository.signed.len() <= 6, "{n}: {:?}", repository.signed);
        let releases = repository.state.targets.data.targets.len() - 1;
        assert!(releases <= 7, "{n}: {releases}");
    }
    // Two releases close a role here, and eight roles become one.
    assert!(repository.history().len() <= 2 + 8 + 60 / 16, "{:?}", repository.history());
    check(&repository, &model);
}

#[test]
fn one_change_moves_all_that_is_old() {
    let mut repository = Repository::new();
    let mut model = Model::new();
    for n in 1..=40 {
        repository.publish("a", &format!("1.{n}"), (n == 3).then_some("stable"));
        model.insert(format!("a/1.{n}"), false);
    }
    let before = repository.state.clone();
    assert!(repository.change(&Change::Archive { keep: None }).unwrap());
    check(&repository, &model);
    assert_eq!(repository.state.roots, before.roots);
    assert_eq!(repository.state.targets.data.targets.len(), 16 + 2, "the channel and its offer");
    assert!(!repository.change(&Change::Archive { keep: None }).unwrap(), "nothing is left");
    assert!(repository.change(&Change::Archive { keep: Some(8) }).unwrap());
    assert_eq!(repository.state.targets.data.targets.len(), 8 + 2);
    check(&repository, &model);
    repository.change(&publish("a", "1.1", Some("stable"))).unwrap();
    assert_eq!(repository.roles_of("a/1.1"), [Role::Targets], "it is offered again");
    check(&repository, &model);
}

/// After most of what large roles list was unlisted, they become one of others, eight at a time.
#[test]
fn many_roles_that_shrank_do_not_become_one_that_nodes_refuse() {
    let mut repository = Repository::new();
    repository.change(&Change::Archive { keep: Some(1) }).unwrap();
    let mut model = Model::new();
    for n in 1..=240 {
        repository.publish("a", &format!("1.{n}"), Some("stable"));
        model.insert(format!("a/1.{n}"), false);
    }
    let gone: Vec<String> = (1..240).filter(|n| n % 5 != 0).map(|n| format!("a/1.{n}")).collect();
    for name in &gone {
        model.remove(name);
    }
    repository.change(&Change::Unlist(gone)).unwrap();
    for n in 241..=260 {
        assert!(repository.publish("a", &format!("1.{n}"), Some("stable")));
        model.insert(format!("a/1.{n}"), false);
        let longest = repository.state.targets_roles().map(|(_, it)| it.bytes.len()).max();
        assert!(longest < Some(1 << 20), "{longest:?}");
    }
    check(&repository, &model);
}

/// Who publishes now and then never has to think of what was archived long ago.
#[test]
fn publishing_keeps_the_history_alive() {
    const DAY: i64 = 86_400;
    // All of it ends on one day, 90 days after this.
    for every in [2, 7, 25] {
        let mut repository = Repository::new();
        for n in 1..=14 {
            repository.publish("a", &format!("1.{n}"), None);
        }
        repository.change(&Change::Archive { keep: Some(1) }).unwrap();
        let roles = repository.history().len();
        assert_eq!(roles, 2 + 6);
        let mut most = 0;
        for n in 1..=200 / every {
            repository.now = NOW.plus(n * every * DAY);
            repository.publish("a", &format!("2.{n}"), None);
            most = most.max(repository.signed.len());
            for (role, signed) in repository.state.targets_roles() {
                let left = signed.data.header.expires.secs() - repository.now.secs();
                assert!(left >= 30 * DAY, "{role} after {n} times {every} days");
            }
        }
        assert!(every > 7 || most <= 8, "{most} roles in one publish, every {every} days");
    }
}

fn second_key() -> formats::tuf::Key {
    example::key("ops").key().unwrap()
}

fn rotate(role: Role, threshold: u32) -> Change {
    let (add, remove, threshold) = (vec![second_key()], Vec::new(), Some(threshold));
    Change::Rotate(vec![Rotation { role, add, remove, threshold }])
}

fn keys_of(repository: &Repository, role: &Role) -> usize {
    let all = repository.state.targets_roles().map(|(role, signed)| (role, &signed.data));
    crate::state::delegators(all, role).first().map_or(0, |(_, _, keys)| keys.keyids.len())
}

#[test]
fn the_keys_of_targets_sign_for_the_history_until_it_has_its_own() {
    let mut repository = Repository::new();
    repository.keys.add(example::key("ops")).unwrap();
    let mut model = Model::new();
    for n in 1..=9 {
        repository.publish("a", &format!("1.{n}"), None);
        model.insert(format!("a/1.{n}"), false);
    }
    repository.change(&Change::Archive { keep: Some(1) }).unwrap();
    let history: Vec<Role> = repository.history().into_iter().cloned().collect();
    assert_eq!(history.len(), 2 + 4, "{history:?}");

    repository.change(&rotate(Role::Targets, 2)).unwrap();
    for role in &history {
        assert_eq!(keys_of(&repository, role), 2, "{role}");
        assert!(repository.signed.contains(role), "{role} needs two signatures now");
    }
    check(&repository, &model);

    let remove = vec![second_key().id()];
    let own = Rotation { role: named(HISTORY), add: vec![], remove, threshold: Some(1) };
    repository.change(&Change::Rotate(vec![own])).unwrap();
    assert!(history.iter().all(|role| keys_of(&repository, role) == 1));
    assert_eq!(repository.state.root.role(&Role::Targets).unwrap().keyids.len(), 2);
    let back = Rotation {
        role: Role::Targets,
        add: vec![],
        remove: vec![example::key("targets").key().unwrap().id()],
        threshold: Some(1),
    };
    repository.change(&Change::Rotate(vec![back])).unwrap();
    assert!(history.iter().all(|role| keys_of(&repository, role) == 1), "they stay its own");
    check(&repository, &model);

    // Nobody believes a key any more, wherever it signed.
    let revoked = vec![example::key("targets").key().unwrap().id()];
    let change = Change::Revoke { keys: revoked.clone(), replacement: Some(second_key()) };
    repository.change(&change).unwrap();
    for (_, signed) in repository.state.targets_roles() {
        let delegations = signed.data.delegations.iter();
        assert!(delegations.clone().all(|it| !it.keys.contains_key(&revoked[0])));
    }
    check(&repository, &model);
}

#[test]
fn only_archive_changes_the_history() {
    let mut repository = Repository::new();
    let delegation = |name: &str, by: Role| crate::plan::Delegation {
        by,
        keys: RoleKeySet { role: named(name), keys: vec![second_key()], threshold: 1 },
        paths: vec!["c/*".to_owned()],
        terminating: true,
    };
    let refused = |result: Result<bool, PlanError>| {
        assert!(matches!(result, Err(PlanError::History(_))), "{result:?}");
    };
    refused(repository.change(&Change::Delegate(delegation(HISTORY, Role::Targets))));
    repository.change(&Change::Archive { keep: None }).unwrap();
    refused(repository.change(&Change::Delegate(delegation("c", named(HISTORY)))));
    refused(repository.change(&Change::Undelegate(named(HISTORY))));
    refused(repository.change(&rotate(named(RECENT), 1)));
    let (role, paths) = (named(RECENT), vec!["a/*".to_owned()]);
    refused(repository.change(&Change::Repath { role, paths, terminating: true }));
    let Change::Publish { release, .. } = publish("a", "1", None) else { unreachable!() };
    let (channel, rollout, role) = (None, Rollout::default(), Some(named(RECENT)));
    refused(repository.change(&Change::Publish { release, channel, rollout, role }));
}

/// What other people sign for stays theirs, and what a terminating role covers is not moved to where
/// nobody looks for it.
#[test]
fn names_of_other_roles_stay_where_nodes_find_them() {
    let mut repository = Repository::new();
    repository.keys.add(example::key("ops")).unwrap();
    let mut model = Model::new();
    for n in 1..=5 {
        for product in ["a", "b"] {
            repository.publish(product, &format!("1.{n}"), None);
            model.insert(format!("{product}/1.{n}"), false);
        }
    }
    let delegate = |name: &str, path: &str, terminating: bool| {
        Change::Delegate(crate::plan::Delegation {
            by: Role::Targets,
            keys: RoleKeySet { role: named(name), keys: vec![second_key()], threshold: 1 },
            paths: vec![path.to_owned()],
            terminating,
        })
    };
    repository.change(&delegate("closed", "a/*", true)).unwrap();
    repository.change(&Change::Archive { keep: Some(1) }).unwrap();
    repository.change(&delegate("open", "b/*", false)).unwrap();
    check(&repository, &model);
    let roles: BTreeSet<Role> =
        (1..=5).flat_map(|n| repository.roles_of(&format!("a/1.{n}"))).collect();
    assert_eq!(roles, [Role::Targets].into());
    assert!(is_history(&repository.roles_of("b/1.1")[0]));

    // A later delegation comes before the history, too, which is asked last.
    let Change::Publish { release, .. } = publish("b", "2", None) else { unreachable!() };
    let (channel, rollout, role) = (None, Rollout::default(), Some(named("open")));
    repository.change(&Change::Publish { release, channel, rollout, role }).unwrap();
    model.insert("b/2".to_owned(), false);
    for n in 6..=9 {
        repository.publish("b", &format!("1.{n}"), None);
        model.insert(format!("b/1.{n}"), false);
    }
    assert_eq!(repository.roles_of("b/2"), [named("open")]);
    check(&repository, &model);
}
