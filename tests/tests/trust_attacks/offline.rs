//! Case 110: what a bundle's offline statement may do, and everything it must not.

use formats::reason::Reason;
use formats::tuf::{MetaFile, Offline, OfflineRule, Role, TargetFile, envelope_bytes};
use racklet_testkit::forge::{DAY, Forge, ForgeKey, NOW, Node, role_keys};
use update_core::trust::{
    Fetch, OfflineError, Refresh, Reply, Stored, TrustError, TrustedSet, run,
};

/// A repository whose targets allow 30 days, and a node that knows it.
fn settled(role: Option<&str>) -> (Forge, Node) {
    let mut repo = Forge::new();
    let rule = OfflineRule { longest: 30 * DAY as u64, role: role.map(str::to_owned) };
    rule.write(&mut repo.targets(&Role::Targets).unknown);
    repo.publish(&[Role::Targets]);
    let mut node = Node::of(&repo);
    node.refresh(&repo).expect("an honest repository");
    (repo, node)
}

/// What an honest signer would say of what is served now, for `days`.
fn statement(repo: &Forge, days: i64) -> Offline {
    let file = |name: &str, version| MetaFile::of(version, &repo.served[name]);
    let snapshot = repo.timestamp.snapshot.version;
    let name = format!("{snapshot}.snapshot.json");
    Offline {
        issued: NOW,
        expires: NOW.plus(days * DAY),
        timestamp: file("timestamp.json", repo.timestamp.header.version),
        snapshot: file(&name, snapshot),
        targets: [("demo/1.0.0".to_owned(), TargetFile::of(b"demo 1.0.0", None))].into(),
        unknown: Default::default(),
    }
}

fn signed(statement: &Offline, keys: &[ForgeKey]) -> Vec<u8> {
    let value = statement.to_value();
    envelope_bytes(&value, &keys.iter().map(|key| key.sign(&value)).collect::<Vec<_>>())
}

/// Updates from a bundle of `repo` with that statement, on the day after `NOW` that is given.
fn from_bundle(
    node: &mut Node,
    repo: &Forge,
    statement: &[u8],
    day: i64,
) -> Result<TrustedSet, TrustError> {
    node.clock.system = NOW.plus(day * DAY);
    let stored: Stored = node.stored.clone();
    let refresh = Refresh::begin(stored, &node.shipped_root, node.clock, node.limits)?;
    let mut refresh = refresh.with_offline(statement.to_vec());
    let fetch = |fetch: &Fetch| -> Reply { repo.reply(fetch) };
    run(&mut refresh, fetch, |stored| node.stored = stored)
}

fn why(error: TrustError) -> OfflineError {
    match error {
        TrustError::Offline { source, .. } => *source,
        other => panic!("not refused for its statement: {other:?}"),
    }
}

#[test]
fn a_statement_outlasts_timestamp_and_snapshot_and_nothing_else() {
    let (repo, mut node) = settled(None);
    let keys = repo.signers[&Role::Targets].clone();
    let bytes = signed(&statement(&repo, 30), &keys);
    let before = node.stored.clone();
    assert_eq!(node.refresh(&repo).map(|set| set.offline().is_some()), Ok(false), "not needed");
    let set = from_bundle(&mut node, &repo, &bytes, 0).unwrap();
    assert_eq!(set.offline(), None, "not needed");
    assert_eq!(set.offline_until(), Some(NOW.plus(30 * DAY)), "and said");
    assert_eq!(set.first_expiry().1, NOW.plus(DAY));
    let set = from_bundle(&mut node, &repo, b"{}", 0).unwrap();
    assert_eq!(set.offline_until(), None, "what does not count is no error while it is not needed");

    let mut set = from_bundle(&mut node, &repo, &bytes, 20).unwrap();
    assert_eq!(set.offline().map(|offline| offline.expires()), Some(NOW.plus(30 * DAY)));
    assert_eq!(set.first_expiry().1, NOW.plus(30 * DAY));
    assert_eq!(set.last_alive(), NOW.plus(DAY - 1));
    assert_eq!(node.stored.known_time, before.known_time, "a statement proves no time");
    assert!(node.find_in(&mut set, &repo, "demo/1.0.0").is_ok());

    let error = from_bundle(&mut node, &repo, &bytes, 31).unwrap_err();
    assert_eq!(
        (error.reason(), why(error)),
        (Reason::Expired, OfflineError::Ended { expires: NOW.plus(30 * DAY) })
    );
    // Without it the same metadata is as old as it is.
    node.clock.system = NOW.plus(2 * DAY);
    assert_eq!(node.refresh(&repo).unwrap_err().reason(), Reason::Expired);
    // A clock that was wrong on the day of the bundle does no lasting harm.
    node.clock.system = NOW;
    node.refresh(&repo).expect("the right time is believed again");
}

#[test]
fn targets_and_root_expire_all_the_same() {
    for (role, day) in [(Role::Targets, 100), (Role::Root, 400)] {
        let mut repo = Forge::new();
        let rule = OfflineRule { longest: 1000 * DAY as u64, role: None };
        rule.write(&mut repo.targets(&Role::Targets).unknown);
        repo.publish(&[Role::Targets]);
        let mut node = Node::of(&repo);
        let bytes = signed(&statement(&repo, 1000), &repo.signers[&Role::Targets].clone());
        match from_bundle(&mut node, &repo, &bytes, day).unwrap_err() {
            TrustError::Expired { role: found, .. } => assert_eq!(found, role),
            other => panic!("{role}: {other:?}"),
        }
        assert_eq!(node.stored.timestamp, None, "{role}: nothing expired is kept on parole");
    }
}

#[test]
fn statements_that_do_not_count() {
    type Edit = fn(&Forge, &mut Offline);
    let others = |repo: &Forge, role: Role| repo.signers[&role].clone();
    let rows: &[(&str, Edit, Option<Role>, Reason)] = &[
        (
            "longer than targets allow",
            |_, said| said.expires = NOW.plus(31 * DAY),
            None,
            Reason::Expired,
        ),
        (
            "issued later than the timestamp lived",
            |_, said| {
                (said.issued, said.expires) = (NOW.plus(DAY), NOW.plus(31 * DAY));
            },
            None,
            Reason::Expired,
        ),
        (
            "another timestamp",
            |_, said| said.timestamp = MetaFile::of(said.timestamp.version, b"other"),
            None,
            Reason::Expired,
        ),
        ("another version of it", |_, said| said.timestamp.version += 1, None, Reason::Expired),
        (
            "another snapshot",
            |_, said| said.snapshot = MetaFile::of(said.snapshot.version, b"other"),
            None,
            Reason::Expired,
        ),
        ("by the root keys", |_, _| {}, Some(Role::Root), Reason::SigThreshold),
        ("by the snapshot key", |_, _| {}, Some(Role::Snapshot), Reason::SigThreshold),
        ("by the timestamp key", |_, _| {}, Some(Role::Timestamp), Reason::SigThreshold),
    ];
    for (name, edit, signer, reason) in rows {
        let (repo, mut node) = settled(None);
        let mut said = statement(&repo, 30);
        edit(&repo, &mut said);
        let keys = others(&repo, signer.clone().unwrap_or(Role::Targets));
        let before = node.stored.clone();
        let error = from_bundle(&mut node, &repo, &signed(&said, &keys), 20).expect_err(name);
        assert_eq!(error.reason(), *reason, "{name}: {error:?}");
        assert!(matches!(error, TrustError::Offline { .. }), "{name}: {error:?}");
        assert_eq!(node.stored, before, "{name}");
    }
}

#[test]
fn too_few_keys_and_other_documents_do_not_count() {
    let (repo, mut node) = settled(None);
    let keys = repo.signers[&Role::Targets].clone();
    let said = statement(&repo, 30);
    let too_few = signed(&said, &keys[..1]);
    let twice = signed(&said, &[keys[0].clone(), keys[0].marked("again")]);
    let targets = repo.served
        [&format!("{}.targets.json", repo.targets[&Role::Targets].header.version)]
        .clone();
    for (name, bytes, reason) in [
        ("one of two keys", too_few, Reason::SigThreshold),
        ("one key twice", twice, Reason::SigThreshold),
        ("targets metadata, well signed", targets, Reason::MetaType),
        ("no JSON", b"statement".to_vec(), Reason::MetaFormat),
    ] {
        let error = from_bundle(&mut node, &repo, &bytes, 20).expect_err(name);
        assert_eq!(error.reason(), reason, "{name}: {error:?}");
    }
}

#[test]
fn without_a_rule_in_targets_nobody_can_make_one() {
    for rule in [None, Some(OfflineRule { longest: 0, role: None })] {
        let (mut repo, mut node) = settled(None);
        let members = &mut repo.targets(&Role::Targets).unknown;
        *members = Default::default();
        if let Some(rule) = &rule {
            rule.write(members);
        }
        repo.publish(&[Role::Targets]);
        let bytes = signed(&statement(&repo, 1), &repo.signers[&Role::Targets].clone());
        let error = from_bundle(&mut node, &repo, &bytes, 2).unwrap_err();
        assert_eq!(why(error), OfflineError::NotAllowed, "{rule:?}");
    }
}

#[test]
fn only_targets_that_it_names_are_found() {
    let (mut repo, mut node) = settled(None);
    repo.add_target(&Role::Targets, "demo/1.1.0", b"demo 1.1.0");
    repo.publish(&[Role::Targets]);
    let mut said = statement(&repo, 30);
    said.targets.insert("demo/1.1.0".to_owned(), TargetFile::of(b"another", None));
    let bytes = signed(&said, &repo.signers[&Role::Targets].clone());
    let mut set = from_bundle(&mut node, &repo, &bytes, 20).unwrap();
    assert!(node.find_in(&mut set, &repo, "demo/1.0.0").is_ok());
    let error = node.find_in(&mut set, &repo, "demo/1.1.0").unwrap_err();
    assert_eq!(error.reason(), Reason::Expired, "other content: {error:?}");
}

#[test]
fn versions_never_go_back_whatever_is_stated() {
    let (mut repo, mut node) = settled(None);
    let old = repo.freeze();
    let bytes = signed(&statement(&repo, 30), &repo.signers[&Role::Targets].clone());
    repo.publish(&[Role::Targets]);
    node.refresh(&repo).expect("newer metadata");
    repo.served = old;
    let error = from_bundle(&mut node, &repo, &bytes, 20).unwrap_err();
    assert_eq!(error.reason(), Reason::VersionRollback, "{error:?}");
}

#[test]
fn a_role_that_targets_name_signs_instead_of_them() {
    let (mut repo, mut node) = settled(Some("bundles"));
    let said = |repo: &Forge| statement(repo, 30);
    let by_targets = signed(&said(&repo), &repo.signers[&Role::Targets].clone());
    let error = from_bundle(&mut node, &repo, &by_targets, 20).unwrap_err();
    assert_eq!(why(error), OfflineError::NoRole("bundles".to_owned()));

    let key = ForgeKey::new(77);
    let role = repo.delegate(&Role::Targets, "bundles", &["offline/*"]);
    let delegations = repo.delegations(&Role::Targets);
    delegations.keys.insert(key.id(), key.key().clone());
    repo.last_delegated(&Role::Targets).keys = role_keys(1, std::slice::from_ref(&key));
    repo.signers.insert(role.clone(), vec![key.clone()]);
    repo.publish(&[Role::Targets, role]);
    let by_role = signed(&said(&repo), &[key]);
    assert!(from_bundle(&mut node, &repo, &by_role, 20).is_ok());
    let by_targets = signed(&said(&repo), &repo.signers[&Role::Targets].clone());
    let error = from_bundle(&mut node, &repo, &by_targets, 20).unwrap_err();
    assert_eq!(error.reason(), Reason::SigThreshold, "one role, not two: {error:?}");
}

#[test]
fn a_statement_of_another_repository_does_not_count() {
    let mut repo = Forge::new();
    repo.repository = Some("one".to_owned());
    OfflineRule { longest: 30 * DAY as u64, role: None }
        .write(&mut repo.targets(&Role::Targets).unknown);
    repo.publish(&[Role::Root]);
    repo.publish(&[Role::Targets]);
    let mut node = Node::of(&repo);
    node.refresh(&repo).expect("an honest repository");
    let keys = repo.signers[&Role::Targets].clone();
    for (id, accepted) in [("one", true), ("two", false)] {
        let mut said = statement(&repo, 30);
        said.unknown.insert(formats::tuf::REPOSITORY.to_owned(), id.into());
        let found = from_bundle(&mut node, &repo, &signed(&said, &keys), 20);
        assert_eq!(found.is_ok(), accepted, "{id}: {:?}", found.err());
    }
}

#[test]
fn the_clock_is_judged_as_ever() {
    let (repo, mut node) = settled(None);
    let bytes = signed(&statement(&repo, 30), &repo.signers[&Role::Targets].clone());
    node.stored.known_time = NOW.plus(25 * DAY);
    let error = from_bundle(&mut node, &repo, &bytes, 20).unwrap_err();
    assert_eq!(error.reason(), Reason::ClockUntrusted);
}
