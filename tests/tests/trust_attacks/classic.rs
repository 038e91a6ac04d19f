//! §2.1: the eleven classic attacks (TUF §1.5.2), and what surrounds them.

use formats::reason::Reason;
use formats::tuf::{Header, MetaFile, Metadata, Role, Root, TargetFile, TufError, UnixTime};
use racklet_testkit::forge::{DAY, Forge, ForgeKey, NOW, Node};
use update_core::trust::{Limits, Reply, Stored, TrustError};

use crate::{ALL, recovers, refuses, settled};

#[test]
fn case_01_04_arbitrary_bytes_and_endless_data_as_target() {
    let (repo, mut node) = settled();
    let target = node.find(&repo, "demo/1.0.0").unwrap();
    target.file().check("demo/1.0.0", b"demo 1.0.0").unwrap();
    for (name, bytes, reason) in [
        ("replaced, length kept", &b"evil 1.0.0"[..], Reason::HashMismatch),
        ("one byte more", b"demo 1.0.0!", Reason::LengthMismatch),
        ("one byte less", b"demo 1.0.", Reason::LengthMismatch),
    ] {
        let error = target.file().check("demo/1.0.0", bytes).expect_err(name);
        assert_eq!(error.reason(), reason, "{name}");
    }
}

#[test]
fn case_02_arbitrary_metadata_of_every_role() {
    for role in Role::TOP_LEVEL {
        let (mut repo, mut node) = settled();
        repo.signers.insert(role.clone(), vec![ForgeKey::new(666)]);
        repo.publish(std::slice::from_ref(&role));
        // What is signed by the rest is accepted up to there, and is what the specification
        // wants kept; the role itself and everything after it are untouched.
        let untouched: &[Role] = match role {
            Role::Root | Role::Timestamp => ALL,
            Role::Snapshot => &[Role::Root, Role::Snapshot, Role::Targets],
            _ => &[Role::Root, Role::Targets],
        };
        refuses(&mut node, &repo, Reason::SigThreshold, untouched);
    }
}

#[test]
fn case_02_arbitrary_metadata_of_delegated_roles_of_depth_1_and_2() {
    for depth in [1, 2] {
        let (mut repo, mut node) = settled();
        let mut role = Role::Targets;
        let mut all = vec![role.clone()];
        for level in 0..depth {
            role = repo.delegate(&role, &format!("level-{level}"), &["ops/*"]);
            all.push(role.clone());
        }
        repo.add_target(&role, "ops/tool", b"tool");
        repo.publish(&all);
        node.find(&repo, "ops/tool").unwrap();
        let before = node.stored.delegated.clone();
        repo.signers.insert(role.clone(), vec![ForgeKey::new(666)]);
        repo.publish(std::slice::from_ref(&role));
        let error = node.find(&repo, "ops/tool").unwrap_err();
        assert_eq!(error.reason(), Reason::SigThreshold, "depth {depth}");
        assert_eq!(node.stored.delegated, before, "depth {depth}");
    }
}

#[test]
fn case_03_endless_metadata_stops_at_the_cap() {
    let limits = Limits::default();
    for (file, cap) in [("2.root.json", limits.root_len), ("timestamp.json", limits.timestamp_len)]
    {
        let (mut repo, mut node) = settled();
        repo.served.insert(file.into(), vec![b' '; cap as usize + 1]);
        let error = refuses(&mut node, &repo, Reason::MetaLimit, ALL);
        assert_eq!(error, TrustError::TooLong { file: file.into(), limit: cap, signed: false });
        // A driver that hands over more than it was asked for is found out as well.
        let error = node.update(|fetch| match fetch.file_name == file {
            true => Reply::Bytes(vec![b' '; cap as usize + 1]),
            false => repo.reply(fetch),
        });
        assert_eq!(error.unwrap_err().reason(), Reason::MetaLimit);
    }
    // Listed files end at their signed length.
    let (mut repo, mut node) = settled();
    repo.publish(&[Role::Snapshot]);
    let listed = repo.timestamp.snapshot.length.unwrap();
    repo.served.get_mut("3.snapshot.json").unwrap().push(b' ');
    let error = refuses(&mut node, &repo, Reason::LengthMismatch, &[Role::Snapshot, Role::Targets]);
    let file = "3.snapshot.json".to_owned();
    assert_eq!(error, TrustError::TooLong { file, limit: listed, signed: true });
}

#[test]
fn case_07_fast_forward_heals_by_rotating_the_online_keys() {
    let (mut repo, mut node) = settled();
    repo.header(&Role::Timestamp).version = 1_000_000_000;
    repo.header(&Role::Snapshot).version = 1_000_000_000;
    repo.publish(&[Role::Snapshot]);
    node.refresh(&repo).unwrap();
    // Back at version 1, the node rightly refuses …
    repo.header(&Role::Timestamp).version = 1;
    repo.header(&Role::Snapshot).version = 1;
    repo.issue(&Role::Snapshot);
    repo.issue(&Role::Timestamp);
    refuses(&mut node, &repo, Reason::VersionRollback, ALL);
    // … until the root takes the stolen keys away.
    repo.rekey(&Role::Snapshot, 1, &[ForgeKey::new(22)]);
    repo.rekey(&Role::Timestamp, 1, &[ForgeKey::new(32)]);
    repo.publish(&[Role::Root]);
    repo.issue(&Role::Snapshot);
    repo.issue(&Role::Timestamp);
    let set = node.refresh(&repo).unwrap();
    assert_eq!(set.timestamp().header.version, 1);
    assert_eq!(set.snapshot().header.version, 1);
}

#[test]
fn case_07_one_rotated_online_key_makes_both_forgotten() {
    for role in [Role::Timestamp, Role::Snapshot] {
        let (mut repo, mut node) = settled();
        repo.header(&Role::Timestamp).version = 500;
        repo.issue(&Role::Timestamp);
        node.refresh(&repo).unwrap();
        repo.rekey(&role, 1, &[ForgeKey::new(40)]);
        repo.header(&Role::Timestamp).version = 3;
        repo.publish(&[Role::Root, Role::Snapshot]);
        let set = node.refresh(&repo).unwrap();
        assert_eq!(set.timestamp().header.version, 4, "{role} rotated (TUF 5.3.11)");
    }
}

/// TUF forgets the snapshot with the timestamp, and with it which targets it listed; those targets
/// are still there, and their keys are still good.
#[test]
fn new_timestamp_keys_take_no_targets_back() {
    // Which online role is rotated, and whether targets may go back with it (TUF 5.3.11, (3)).
    for (role, may) in [(Role::Timestamp, false), (Role::Snapshot, true)] {
        let (mut repo, mut node) = settled();
        let old = repo.targets(&Role::Targets).clone();
        repo.publish(&[Role::Targets]);
        recovers(&mut node, &repo);
        repo.rekey(&role, 1, &[ForgeKey::new(40)]);
        *repo.targets(&Role::Targets) = old;
        repo.issue(&Role::Targets);
        repo.publish(&[Role::Root, Role::Snapshot]);
        if may {
            let set = node.refresh(&repo).unwrap();
            assert_eq!(set.targets().header.version, 2);
            continue;
        }
        let error = refuses(&mut node, &repo, Reason::VersionRollback, &[Role::Targets]);
        let expected = TrustError::Rollback { role: Role::Targets, offered: 2, trusted: 3 };
        assert_eq!(error, expected);
        // Nor at the next run, which finds the new root stored.
        refuses(&mut node, &repo, Reason::VersionRollback, ALL);
        repo.header(&Role::Targets).version = 3;
        repo.publish(&[Role::Targets]);
        recovers(&mut node, &repo);
    }
}

#[test]
fn new_timestamp_keys_take_no_delegated_targets_back() {
    for (role, may) in [(Role::Timestamp, false), (Role::Snapshot, true)] {
        let (mut repo, mut node) = settled();
        let team = repo.delegate(&Role::Targets, "team", &["team/*"]);
        repo.add_target(&team, "team/1", b"first");
        repo.publish(&[Role::Targets, team.clone()]);
        let old = repo.targets(&team).clone();
        repo.publish(std::slice::from_ref(&team));
        node.find(&repo, "team/1").unwrap();
        repo.rekey(&role, 1, &[ForgeKey::new(40)]);
        *repo.targets(&team) = old;
        repo.issue(&team);
        repo.publish(&[Role::Root, Role::Snapshot]);
        match node.find(&repo, "team/1") {
            Ok(_) => assert!(may),
            Err(error) => {
                assert!(!may);
                let expected = TrustError::Rollback { role: team, offered: 1, trusted: 2 };
                assert_eq!(error, expected);
            }
        }
    }
}

#[test]
fn case_08_freeze_is_noticed_at_the_expiry_of_each_role() {
    for role in Role::TOP_LEVEL {
        let mut repo = Forge::new();
        for other in Role::TOP_LEVEL.iter().filter(|other| **other != role) {
            repo.header(other).expires = NOW.plus(1000 * DAY);
        }
        repo.publish(&[Role::Root, Role::Targets]);
        let mut node = Node::of(&repo);
        recovers(&mut node, &repo);
        // From here on the same valid files are served.
        let expires = repo.header(&role).expires;
        node.clock.system = expires.plus(-1);
        recovers(&mut node, &repo);
        node.clock.system = expires;
        let version = repo.header(&role).version;
        let error = refuses(&mut node, &repo, Reason::Expired, ALL);
        assert_eq!(error, TrustError::Expired { role, version, expires, now: expires });
    }
}

#[test]
fn case_09_withheld_root_ends_with_its_expiry() {
    let (mut repo, mut node) = settled();
    repo.publish(&[Role::Root]);
    repo.served.remove("2.root.json");
    node.clock.system = NOW.plus(365 * DAY);
    let error = refuses(&mut node, &repo, Reason::Expired, ALL);
    assert!(matches!(error, TrustError::Expired { role: Role::Root, version: 1, .. }));
    assert_eq!(node.requests.last().unwrap(), "2.root.json", "nothing is asked for after it");
}

#[test]
fn case_11_old_snapshot_under_a_new_timestamp() {
    for (list_hashes, reason) in [(true, Reason::HashMismatch), (false, Reason::VersionRollback)] {
        let (mut repo, mut node) = settled();
        repo.list_hashes = list_hashes;
        repo.publish(&[Role::Snapshot]);
        let old = repo.served["2.snapshot.json"].clone();
        let wanted = repo.served["3.snapshot.json"].len();
        assert!(!list_hashes || old.len() == wanted, "same length, so that the hash decides");
        repo.served.insert("3.snapshot.json".into(), old);
        refuses(&mut node, &repo, reason, &[Role::Root, Role::Snapshot, Role::Targets]);
    }
}

#[test]
fn case_12_old_targets_under_a_new_snapshot() {
    for (list_hashes, reason) in [(true, Reason::HashMismatch), (false, Reason::VersionRollback)] {
        let (mut repo, mut node) = settled();
        repo.list_hashes = list_hashes;
        repo.publish(&[Role::Targets]);
        let old = repo.served["2.targets.json"].clone();
        repo.served.insert("3.targets.json".into(), old);
        refuses(&mut node, &repo, reason, &[Role::Root, Role::Targets]);
    }
}

/// Newer than listed is as wrong as older: files of two states are mixed.
#[test]
fn case_12_newer_targets_than_the_snapshot_lists() {
    let (mut repo, mut node) = settled();
    repo.list_hashes = false;
    repo.publish(&[Role::Targets]);
    repo.publish(&[Role::Targets]);
    let newer = repo.served["4.targets.json"].clone();
    let frozen = repo.history("timestamp.json")[2].clone();
    repo.served.insert("timestamp.json".into(), frozen);
    repo.served.insert("3.targets.json".into(), newer);
    let error = refuses(&mut node, &repo, Reason::VersionRollback, &[Role::Targets]);
    assert_eq!(error, TrustError::VersionMismatch { role: Role::Targets, offered: 4, listed: 3 });
}

/// The attacks of cases 13 and 15 to 17: repository states that go back.
fn rollbacks() -> Vec<(&'static str, Forge, Node, Role)> {
    let scene = |change: &dyn Fn(&mut Forge)| {
        let (mut repo, mut node) = settled();
        let extra = repo.delegate(&Role::Targets, "ops", &["ops/*"]);
        repo.publish(&[Role::Targets, extra]);
        node.refresh(&repo).unwrap();
        change(&mut repo);
        (repo, node)
    };
    let (timestamp, n13) = scene(&|repo| {
        let old = repo.history("timestamp.json")[1].clone();
        repo.served.insert("timestamp.json".into(), old);
    });
    let (snapshot, n15) = scene(&|repo| {
        repo.header(&Role::Snapshot).version = 1;
        repo.issue(&Role::Snapshot);
        repo.publish(&[Role::Timestamp]);
    });
    let (targets, n16) = scene(&|repo| {
        repo.header(&Role::Targets).version = 1;
        repo.issue(&Role::Targets);
        repo.publish(&[Role::Snapshot]);
    });
    let (removed, n17) = scene(&|repo| {
        repo.snapshot.meta.remove("ops.json");
        repo.publish(&[Role::Snapshot]);
    });
    vec![
        ("case 13: timestamp", timestamp, n13, Role::Timestamp),
        ("case 15: snapshot in a newer timestamp", snapshot, n15, Role::Timestamp),
        ("case 16: targets in a newer snapshot", targets, n16, Role::Snapshot),
        ("case 17: role gone from the snapshot", removed, n17, Role::Snapshot),
    ]
}

#[test]
fn case_13_15_16_17_18_rollbacks_are_refused_by_what_is_stored() {
    for (name, repo, mut node, first) in rollbacks() {
        let untouched: &[Role] = match first {
            Role::Timestamp => ALL,
            // The timestamp is newer and good; it alone is kept (TUF §5.4.5).
            _ => &[Role::Root, Role::Snapshot, Role::Targets],
        };
        // 18: state goes through its bytes, as between two processes.
        node.stored = Stored::from_bytes(&node.stored.to_bytes()).unwrap();
        let error = refuses(&mut node, &repo, Reason::VersionRollback, untouched);
        assert_eq!(error.reason().exit().code(), 12, "{name}");
        // Again: the refusal left nothing behind that makes the attack succeed.
        refuses(&mut node, &repo, Reason::VersionRollback, ALL);
    }
}

#[test]
fn a_node_that_forgets_falls_for_the_rollbacks() {
    for (name, repo, mut node, _) in rollbacks() {
        node.forgetful = true;
        node.refresh(&repo).unwrap_or_else(|error| panic!("{name} would be no attack: {error}"));
    }
}

#[test]
fn case_14_equal_timestamp_version_is_no_news() {
    let (mut repo, mut node) = settled();
    repo.timestamp.snapshot = MetaFile::of(100, b"another");
    repo.issue(&Role::Timestamp);
    let before = node.stored.clone();
    node.requests.clear();
    node.refresh(&repo).unwrap();
    assert_eq!(node.stored, before);
    assert_eq!(node.requests, ["2.root.json", "timestamp.json"]);
}

#[test]
fn case_19_a_refused_cycle_does_not_spoil_the_next() {
    for (name, repo, mut node, _) in rollbacks() {
        node.refresh(&repo).expect_err(name);
        let mut repo = repo;
        repo.snapshot.meta.insert("ops.json".into(), MetaFile::of(1, b""));
        for role in [Role::Targets, Role::Snapshot, Role::Timestamp] {
            repo.header(&role).version = 50;
        }
        let ops = Role::delegated("ops").unwrap();
        repo.publish(&[Role::Targets, ops]);
        recovers(&mut node, &repo);
    }
}

#[test]
fn case_20_fewer_keys_than_the_threshold() {
    let (mut repo, mut node) = settled();
    repo.signers.get_mut(&Role::Targets).unwrap().truncate(1);
    repo.add_target(&Role::Targets, "demo/9.9.9", b"evil");
    repo.publish(&[Role::Targets]);
    let error = refuses(&mut node, &repo, Reason::SigThreshold, &[Role::Root, Role::Targets]);
    let source = TufError::Threshold { role: Role::Targets, valid: 1, threshold: 2 };
    assert_eq!(error, TrustError::Refused { file: "3.targets.json".into(), source });
}

#[test]
fn case_21_a_target_of_another_name_is_another_target() {
    let (mut repo, mut node) = settled();
    repo.add_target(&Role::Targets, "demo/2.0.0", b"demo 2.0.0");
    repo.publish(&[Role::Targets]);
    let target = node.find(&repo, "demo/2.0.0").unwrap();
    assert_eq!(target.name(), "demo/2.0.0");
    let error = target.file().check(target.name(), b"demo 1.0.0").unwrap_err();
    assert_eq!(error.reason(), Reason::HashMismatch);
    assert_eq!(
        node.find(&repo, "demo/3.0.0").unwrap_err(),
        TrustError::TargetNotFound { name: "demo/3.0.0".into() }
    );
}

#[test]
fn case_22_the_first_role_in_order_wins() {
    let (mut repo, mut node) = settled();
    let first = repo.delegate(&Role::Targets, "z-first", &["ops/*"]);
    let second = repo.delegate(&Role::Targets, "a-second", &["ops/*"]);
    repo.add_target(&first, "ops/tool", b"first");
    repo.add_target(&second, "ops/tool", b"second");
    // The later role is published, and cached, before the first one exists.
    repo.publish(&[Role::Targets, first.clone(), second]);
    let target = node.find(&repo, "ops/tool").unwrap();
    assert_eq!(target.role(), &first);
    assert_eq!(target.file(), &TargetFile::of(b"first", None));
    assert!(!node.requests.iter().any(|file| file.contains("a-second")));
}

#[test]
fn case_23_49_a_root_of_another_version_under_the_next_name() {
    for (name, version) in [("skipped", 3), ("again", 1), ("ahead", 4)] {
        let (mut repo, mut node) = settled();
        repo.header(&Role::Root).version = version;
        let bytes = repo.file_of(&Role::Root);
        repo.served.insert("2.root.json".into(), bytes);
        let error = refuses(&mut node, &repo, Reason::VersionRollback, ALL);
        assert_eq!(error.reason().exit().code(), 12, "{name}");
    }
    // 49: an old root's very bytes.
    let (mut repo, mut node) = settled();
    for _ in 0..3 {
        repo.publish(&[Role::Root]);
    }
    node.refresh(&repo).unwrap();
    let old = repo.served["2.root.json"].clone();
    repo.served.insert("5.root.json".into(), old);
    refuses(&mut node, &repo, Reason::VersionRollback, ALL);
}

#[test]
fn case_24_25_a_new_root_needs_both_thresholds() {
    let fresh = [ForgeKey::new(4), ForgeKey::new(5)];
    for (name, signers, valid) in [
        ("24: old keys only", vec![1, 2], false),
        ("25: new keys only", vec![4, 5], false),
        ("old below its threshold", vec![1, 4, 5], false),
        ("new below its threshold", vec![1, 2, 4], false),
        ("both", vec![1, 2, 4, 5], true),
    ] {
        let (mut repo, mut node) = settled();
        repo.rekey(&Role::Root, 2, &fresh);
        let signers = signers.into_iter().map(ForgeKey::new).collect();
        repo.signers.insert(Role::Root, signers);
        repo.publish(&[Role::Root]);
        if valid {
            recovers(&mut node, &repo);
            continue;
        }
        refuses(&mut node, &repo, Reason::SigThreshold, ALL);
        // "Is not trusted on the next run" (CVE-2020-15163): the refusal stays.
        node.stored = Stored::from_bytes(&node.stored.to_bytes()).unwrap();
        refuses(&mut node, &repo, Reason::SigThreshold, ALL);
        repo.served.remove("2.root.json");
        assert_eq!(node.refresh(&repo).unwrap().root().header.version, 1, "{name}");
    }
}

#[test]
fn case_26_a_long_chain_of_roots_is_walked_in_two_runs() {
    let (mut repo, mut node) = settled();
    for _ in 0..25 {
        repo.publish(&[Role::Root]);
    }
    node.limits.roots = 10;
    for kept in [11, 21] {
        let error = node.refresh(&repo).unwrap_err();
        assert_eq!(error, TrustError::RootChain { limit: 10 });
        assert_eq!(error.reason(), Reason::MetaLimit);
        let root = node.stored.file(&Role::Root).unwrap();
        assert_eq!(**root, repo.served[&format!("{kept}.root.json")][..]);
    }
    assert_eq!(node.refresh(&repo).unwrap().root().header.version, 26);
    // A chain of exactly the limit is no error.
    let mut exact = Node::of(&repo);
    exact.limits.roots = 25;
    recovers(&mut exact, &repo);
}

/// The default limit, with a chain of its real length: what one run costs in writes.
#[test]
fn case_26_l4_a_node_off_for_years_walks_a_thousand_roots() {
    let (mut repo, mut node) = settled();
    for _ in 0..1024 {
        repo.publish(&[Role::Root]);
    }
    node.persisted.clear();
    assert_eq!(node.refresh(&repo).unwrap().root().header.version, 1025);
    assert_eq!(node.persisted.len(), 1024 / 32);
    repo.publish(&[Role::Root]);
    let mut late = Node::of(&repo);
    assert_eq!(late.refresh(&repo).unwrap_err(), TrustError::RootChain { limit: 1024 });
    recovers(&mut late, &repo);
}

#[test]
fn case_27_only_the_last_root_must_not_be_expired() {
    let (mut repo, mut node) = settled();
    repo.header(&Role::Root).expires = NOW.plus(-DAY);
    repo.publish(&[Role::Root]);
    let error = node.clone().refresh(&repo).unwrap_err();
    assert_eq!(error.reason(), Reason::Expired);
    repo.header(&Role::Root).expires = NOW.plus(DAY);
    repo.publish(&[Role::Root]);
    recovers(&mut node, &repo);
    // An expired root is kept all the same (TUF §5.3.10 comes after §5.3.8).
    repo.header(&Role::Root).expires = NOW;
    repo.publish(&[Role::Root]);
    node.refresh(&repo).unwrap_err();
    assert_eq!(**node.stored.file(&Role::Root).unwrap(), repo.served["4.root.json"][..]);
}

#[test]
fn case_28_metadata_of_another_type() {
    // One key for snapshot and targets, the worst case.
    let (mut repo, mut node) = settled();
    let shared = [ForgeKey::new(21)];
    repo.rekey(&Role::Targets, 1, &shared);
    repo.publish(&[Role::Root, Role::Targets]);
    recovers(&mut node, &repo);
    repo.list_hashes = false;
    repo.publish(&[Role::Targets]);
    let snapshot = repo.served["4.snapshot.json"].clone();
    repo.served.insert("4.targets.json".into(), snapshot);
    refuses(&mut node, &repo, Reason::MetaType, &[Role::Root, Role::Targets]);
}

#[test]
fn case_29_names_follow_consistent_snapshot() {
    let (mut repo, mut node) = settled();
    repo.root.consistent_snapshot = false;
    repo.publish(&[Role::Root, Role::Targets]);
    node.requests.clear();
    node.refresh(&repo).unwrap();
    let plain = ["2.root.json", "3.root.json", "timestamp.json", "snapshot.json", "targets.json"];
    assert_eq!(node.requests, plain);
    repo.root.consistent_snapshot = true;
    repo.publish(&[Role::Root, Role::Targets]);
    node.requests.clear();
    node.refresh(&repo).unwrap();
    let versioned =
        ["3.root.json", "4.root.json", "timestamp.json", "4.snapshot.json", "4.targets.json"];
    assert_eq!(node.requests, versioned);
}

#[test]
fn case_30_a_delegated_role_that_is_not_in_the_snapshot() {
    let (mut repo, mut node) = settled();
    let role = repo.delegate(&Role::Targets, "ops", &["ops/*"]);
    repo.publish(&[Role::Targets]);
    let error = node.find(&repo, "ops/tool").unwrap_err();
    assert_eq!(error, TrustError::RoleNotInSnapshot { name: "ops/tool".into(), role });
    assert_eq!(error.reason(), Reason::TargetNotFound);
    assert!(!node.requests.iter().any(|file| file.contains("ops")));
}

#[test]
fn case_31_stored_files_are_the_served_bytes() {
    let (mut repo, mut node) = settled();
    for role in [Role::Targets, Role::Snapshot, Role::Timestamp, Role::Root] {
        repo.garble(&role, |mut bytes| {
            bytes.extend(b" \n\t");
            bytes
        });
    }
    repo.publish(&[Role::Root, Role::Targets]);
    node.refresh(&repo).unwrap();
    for role in Role::TOP_LEVEL {
        let version = repo.header(&role).version;
        let served = &repo.served[&repo.root.file_name(&role, version)];
        assert_eq!(**node.stored.file(&role).unwrap(), served[..], "{role}");
        assert!(served.ends_with(b" \n\t"));
    }
}

#[test]
fn the_requests_of_an_update_are_exactly_those_of_the_specification() {
    let (repo, _) = settled();
    let mut node = Node::of(&repo);
    node.refresh(&repo).unwrap();
    let first = ["2.root.json", "timestamp.json", "2.snapshot.json", "2.targets.json"];
    assert_eq!(node.requests, first);
    node.requests.clear();
    node.refresh(&repo).unwrap();
    assert_eq!(node.requests, ["2.root.json", "timestamp.json"], "nothing is fetched twice");
}

#[test]
fn a_missing_file_is_named_and_keeps_what_came_before() {
    for (file, untouched) in [
        ("timestamp.json", ALL),
        ("3.snapshot.json", &[Role::Root, Role::Snapshot, Role::Targets]),
        ("3.targets.json", &[Role::Root, Role::Targets]),
    ] {
        let (mut repo, mut node) = settled();
        repo.publish(&[Role::Targets]);
        let whole = repo.freeze();
        repo.served.remove(file);
        let error = refuses(&mut node, &repo, Reason::Unreachable, untouched);
        assert_eq!(error, TrustError::NotServed { file: file.into() });
        repo.served = whole;
        recovers(&mut node, &repo);
    }
}

#[test]
fn an_unchanged_source_is_known_without_it() {
    let (_, mut node) = settled();
    let stored = node.stored.clone();
    let set = node.update(|fetch| stored.as_unchanged_source(fetch)).unwrap();
    assert_eq!(set.targets().header.version, 2);
    assert_eq!(set.first_expiry(), (Role::Timestamp, NOW.plus(DAY)));
    node.clock.system = NOW.plus(DAY);
    let error = node.update(|fetch| stored.as_unchanged_source(fetch)).unwrap_err();
    assert_eq!(error.reason(), Reason::Expired, "a frozen source still shows");
}

#[test]
fn the_configured_root_counts_when_it_is_newer() {
    let (mut repo, mut node) = settled();
    for _ in 0..3 {
        repo.publish(&[Role::Root]);
    }
    node.shipped_root = repo.served["3.root.json"].clone();
    node.requests.clear();
    node.refresh(&repo).unwrap();
    assert_eq!(node.requests[0], "4.root.json");
    // An older one, as in the other slot after a revert, changes nothing.
    node.shipped_root = repo.served["1.root.json"].clone();
    node.requests.clear();
    node.refresh(&repo).unwrap();
    assert_eq!(node.requests[0], "5.root.json");
    let ids: Vec<_> = (1..=3).map(|seed| ForgeKey::new(seed).id()).collect();
    assert_eq!(node.refresh(&repo).unwrap().root_key_ids(), ids);
}

#[test]
fn the_configured_root_must_be_a_root_and_the_same_repository() {
    let (mut repo, node) = settled();
    let mut stranger = node.clone();
    repo.header(&Role::Root).expires = NOW.plus(9 * DAY);
    stranger.shipped_root = repo.file_of(&Role::Root);
    let error = refuses(&mut stranger, &repo, Reason::Config, ALL);
    assert_eq!(error, TrustError::RootConflict { version: 1 });
    let mut unsigned = node.clone();
    repo.signers.get_mut(&Role::Root).unwrap().truncate(1);
    unsigned.shipped_root = repo.file_of(&Role::Root);
    refuses(&mut unsigned, &repo, Reason::SigThreshold, ALL);
    let mut garbage = node.clone();
    garbage.shipped_root = b"{}".to_vec();
    refuses(&mut garbage, &repo, Reason::Config, ALL);
    let mut damaged = node;
    damaged.stored.root = Some((*b"{}").into());
    refuses(&mut damaged, &repo, Reason::StoreCorrupt, ALL);
}

/// A root with the largest version there is: no arithmetic goes round (case 56).
#[test]
fn case_56_versions_at_the_maximum() {
    let (mut repo, mut node) = settled();
    for role in [Role::Timestamp, Role::Snapshot] {
        repo.header(&role).version = i64::MAX as u64;
    }
    repo.issue(&Role::Snapshot);
    repo.issue(&Role::Timestamp);
    recovers(&mut node, &repo);
    repo.rekey(&Role::Timestamp, 1, &[ForgeKey::new(32)]);
    repo.rekey(&Role::Snapshot, 1, &[ForgeKey::new(22)]);
    repo.header(&Role::Timestamp).version = 0;
    repo.header(&Role::Snapshot).version = 0;
    repo.publish(&[Role::Root, Role::Snapshot]);
    assert_eq!(node.refresh(&repo).unwrap().timestamp().header.version, 1);
    // And a shipped root of that version.
    let mut last = Forge::new();
    last.header(&Role::Root).version = i64::MAX as u64;
    let bytes = last.file_of(&Role::Root);
    let mut node = Node::of(&last);
    node.shipped_root = bytes;
    recovers(&mut node, &last);
    assert_eq!(node.requests[0], "9223372036854775808.root.json");
    let header = Header::new(1, UnixTime::MAX);
    assert!(header.is_alive(NOW) && Root::parse(&repo.root.to_value()).is_ok());
}
