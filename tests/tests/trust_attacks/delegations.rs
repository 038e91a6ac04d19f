//! Delegations: patterns, limits, cycles and cached roles.

use formats::digest::Sha256;
use formats::json::Value;
use formats::reason::Reason;
use formats::tuf::{DelegatedTo, Delegations, Paths, Role, SuccinctRoles, TufError};
use racklet_testkit::forge::{DAY, Forge, ForgeKey, NOW, Node, key_map, role_keys};
use update_core::trust::TrustError;

use crate::{refuses, settled};

/// The delegated roles a node asked for, in order.
fn visited(node: &Node) -> Vec<&str> {
    let top = ["root", "timestamp", "snapshot", "targets"];
    let names = node.requests.iter().filter_map(|file| file.strip_suffix(".json"));
    names
        .filter_map(|name| name.split_once('.').map(|(_, role)| role))
        .filter(|role| !top.contains(role))
        .collect()
}

fn everything(repo: &Forge) -> Vec<Role> {
    repo.targets.keys().cloned().collect()
}

fn not_found(node: &mut Node, repo: &Forge, name: &str) {
    let error = node.find(repo, name).unwrap_err();
    assert_eq!(error, TrustError::TargetNotFound { name: name.into() });
}

#[test]
fn case_70_cycles_end() {
    let (mut repo, mut node) = settled();
    let a = repo.delegate(&Role::Targets, "a", &["*/*"]);
    let b = repo.delegate(&a, "b", &["*/*"]);
    repo.delegate(&b, "a", &["*/*"]);
    repo.delegate(&b, "b", &["*/*"]);
    let roles = everything(&repo);
    repo.publish(&roles);
    not_found(&mut node, &repo, "demo/x");
    assert_eq!(visited(&node), ["a", "b"]);
}

#[test]
fn case_71_fan_out_and_depth_stop_at_the_limit() {
    let (mut repo, mut node) = settled();
    for i in 0..1000 {
        let role = repo.delegate(&Role::Targets, &format!("role-{i:04}"), &["*/*"]);
        if i >= 40 {
            repo.targets.remove(&role);
        }
    }
    let roles = everything(&repo);
    repo.publish(&roles);
    let error = node.find(&repo, "demo/x").unwrap_err();
    assert_eq!(error, TrustError::DelegationLimit { name: "demo/x".into(), limit: 32 });
    assert_eq!(error.reason(), Reason::DelegationLimit);
    assert_eq!(visited(&node).len(), 32);

    let (mut repo, mut node) = settled();
    let mut last = Role::Targets;
    for i in 0..33 {
        last = repo.delegate(&last, &format!("deep-{i}"), &["*/*"]);
    }
    repo.add_target(&last, "demo/deep", b"too deep");
    let roles = everything(&repo);
    repo.publish(&roles);
    assert_eq!(node.find(&repo, "demo/deep").unwrap_err().reason(), Reason::DelegationLimit);
    node.limits.delegations = 33;
    assert_eq!(node.find(&repo, "demo/deep").unwrap().role(), &last);
}

#[test]
fn case_72_nobody_is_asked_after_a_terminating_role() {
    let (mut repo, mut node) = settled();
    repo.delegate(&Role::Targets, "first", &["demo/*"]);
    repo.delegate(&Role::Targets, "last", &["demo/*"]);
    repo.last_delegated(&Role::Targets).terminating = true;
    let after = repo.delegate(&Role::Targets, "after", &["demo/*"]);
    let below = Role::delegated("last").unwrap();
    repo.delegate(&below, "below", &["demo/*"]);
    repo.add_target(&after, "demo/x", b"x");
    repo.add_target(&after, "other/x", b"x");
    let roles = everything(&repo);
    repo.publish(&roles);
    not_found(&mut node, &repo, "demo/x");
    assert_eq!(visited(&node), ["first", "last", "below"]);
}

#[test]
fn case_73_74_a_role_cannot_sign_for_what_it_was_not_given() {
    let (mut repo, mut node) = settled();
    let a = repo.delegate(&Role::Targets, "a", &["*/*"]);
    let b = repo.delegate(&a, "b", &["team-a/*"]);
    let c = repo.delegate(&b, "c", &["*/*", "*"]);
    for role in [&b, &c] {
        repo.add_target(role, "team-b/x", b"evil");
    }
    repo.add_target(&c, "team-a/x", b"good");
    let roles = everything(&repo);
    repo.publish(&roles);
    not_found(&mut node, &repo, "team-b/x");
    assert_eq!(visited(&node), ["a"]);
    assert_eq!(node.find(&repo, "team-a/x").unwrap().role(), &c);
}

#[test]
fn case_75_76_patterns() {
    let (mut repo, mut node) = settled();
    let bomb = format!("{}b", "*a".repeat(1500));
    let role = repo.delegate(&Role::Targets, "r", &[&bomb, "docs/*.md", "foo-?.tgz", "[a-z]/x"]);
    for name in
        ["docs/a.md", "docs/a/b.md", "foo-1.tgz", "foo-12.tgz", "b/x", "[a-z]/x", "Docs/a.md"]
    {
        repo.add_target(&role, name, b"x");
    }
    repo.publish(&[Role::Targets, role]);
    for name in ["docs/a.md", "foo-1.tgz", "[a-z]/x"] {
        node.find(&repo, name).unwrap();
    }
    for name in ["docs/a/b.md", "foo-12.tgz", "b/x", "Docs/a.md", &"a".repeat(1000)] {
        not_found(&mut node, &repo, name);
    }
}

/// Changes the first delegation of the top-level targets before it is signed.
fn with_delegation(how: fn(&mut formats::json::Object)) -> (Forge, Node) {
    let (mut repo, node) = settled();
    let role = repo.delegate(&Role::Targets, "ops", &["ops/*"]);
    repo.deform(&Role::Targets, move |signed| {
        let Value::Object(targets) = signed else { unreachable!() };
        let Some(Value::Object(delegations)) = targets.get_mut("delegations") else {
            unreachable!()
        };
        let Some(Value::Array(roles)) = delegations.get_mut("roles") else { unreachable!() };
        let Some(Value::Object(role)) = roles.first_mut() else { unreachable!() };
        how(role);
        let copy = role.clone();
        if copy.contains_key("x-twice") {
            roles.push(Value::Object(copy));
        }
    });
    repo.publish(&[Role::Targets, role]);
    (repo, node)
}

#[test]
fn case_36_77_78_delegations_of_odd_form() {
    type Change = fn(&mut formats::json::Object);
    let rows: [(&str, Change); 9] = [
        ("77: both", |r| {
            drop(r.insert("path_hash_prefixes".into(), vec![Value::from("00")].into()))
        }),
        ("77: neither", |r| drop(r.remove("paths"))),
        ("77: odd hex", |r| prefixes(r, "0g")),
        ("77: upper case", |r| prefixes(r, "0A")),
        ("77: empty prefix", |r| prefixes(r, "")),
        ("36: threshold 0", |r| drop(r.insert("threshold".into(), Value::Int(0)))),
        ("36: threshold true", |r| drop(r.insert("threshold".into(), Value::Bool(true)))),
        ("78: one name twice", |r| drop(r.insert("x-twice".into(), Value::Null))),
        ("61: a top-level name", |r| drop(r.insert("name".into(), Value::from("root")))),
    ];
    for (name, how) in rows {
        let (repo, mut node) = with_delegation(how);
        let error = refuses(&mut node, &repo, Reason::MetaFormat, &[Role::Root, Role::Targets]);
        assert!(matches!(error, TrustError::Refused { .. }), "{name}: {error}");
    }
}

fn prefixes(role: &mut formats::json::Object, prefix: &str) {
    role.remove("paths");
    role.insert("path_hash_prefixes".into(), vec![Value::from(prefix)].into());
}

/// Two parents know one role name by different keys. `team-a/*` is signed by A's, `team-b/*`
/// was never signed by B's.
fn diamond() -> (Forge, Node) {
    let (mut repo, node) = settled();
    for team in ["a", "b"] {
        let parent =
            repo.delegate(&Role::Targets, &format!("parent-{team}"), &[&format!("team-{team}/*")]);
        repo.delegate(&parent, "release", &[&format!("team-{team}/*")]);
    }
    let release = Role::delegated("release").unwrap();
    repo.signers.get_mut(&release).unwrap().truncate(1);
    repo.add_target(&release, "team-a/x", b"trusted");
    repo.add_target(&release, "team-b/x", b"malicious");
    let roles = everything(&repo);
    repo.publish(&roles);
    (repo, node)
}

#[test]
fn case_79_a_cached_role_is_verified_against_the_delegator_at_hand() {
    let (repo, mut node) = diamond();
    let mut set = node.refresh(&repo).unwrap();
    node.find_in(&mut set, &repo, "team-a/x").unwrap();
    let before = node.stored.clone();
    let error = node.find_in(&mut set, &repo, "team-b/x").unwrap_err();
    assert_eq!(error.reason(), Reason::SigThreshold);
    assert_eq!(node.stored.delegated["release"], before.delegated["release"]);
    // The first path still works, from the cache.
    node.requests.clear();
    node.find_in(&mut set, &repo, "team-a/x").unwrap();
    assert_eq!(visited(&node), Vec::<&str>::new());
}

#[test]
fn case_80_delegated_roles_are_judged_like_the_top_level() {
    let scene = || {
        let (mut repo, mut node) = settled();
        let role = repo.delegate(&Role::Targets, "ops", &["ops/*"]);
        repo.add_target(&role, "ops/tool", b"tool");
        repo.publish(&[Role::Targets, role.clone()]);
        node.find(&repo, "ops/tool").unwrap();
        (repo, node, role)
    };
    let check = |name: &str, repo: &Forge, node: &mut Node, reason: Reason| {
        let before = node.stored.delegated.clone();
        let error = node.find(repo, "ops/tool").expect_err(name);
        assert_eq!(error.reason(), reason, "{name}: {error}");
        assert_eq!(node.stored.delegated, before, "{name}");
    };
    let (mut repo, mut node, role) = scene();
    repo.header(&role).expires = NOW;
    repo.publish(std::slice::from_ref(&role));
    check("expired", &repo, &mut node, Reason::Expired);

    let (mut repo, mut node, role) = scene();
    repo.publish(std::slice::from_ref(&role));
    repo.served.get_mut("2.ops.json").unwrap().push(b' ');
    check("too long", &repo, &mut node, Reason::LengthMismatch);

    let (mut repo, mut node, role) = scene();
    repo.publish(std::slice::from_ref(&role));
    let old = repo.served["1.ops.json"].clone();
    repo.served.insert("2.ops.json".into(), old);
    check("older, hashes listed", &repo, &mut node, Reason::HashMismatch);

    let (mut repo, mut node, role) = scene();
    repo.list_hashes = false;
    repo.publish(std::slice::from_ref(&role));
    let old = repo.served["1.ops.json"].clone();
    repo.served.insert("2.ops.json".into(), old);
    check("older", &repo, &mut node, Reason::VersionRollback);

    let (mut repo, mut node, role) = scene();
    repo.header(&role).version = 0;
    repo.publish(&[Role::Targets]);
    repo.header(&role).version = 9;
    repo.publish(std::slice::from_ref(&role));
    node.find(&repo, "ops/tool").unwrap();
    repo.header(&role).version = 8;
    repo.issue(&role);
    repo.publish(&[Role::Snapshot]);
    check("older in the snapshot", &repo, &mut node, Reason::VersionRollback);

    let (mut repo, mut node, role) = scene();
    repo.signers.insert(role.clone(), vec![ForgeKey::new(666)]);
    repo.publish(std::slice::from_ref(&role));
    check("another key", &repo, &mut node, Reason::SigThreshold);

    let (mut repo, mut node, role) = scene();
    repo.deform(&role, |signed| {
        let Value::Object(members) = signed else { unreachable!() };
        members.insert("_type".into(), Value::from("snapshot"));
    });
    repo.publish(std::slice::from_ref(&role));
    check("another type", &repo, &mut node, Reason::MetaType);

    let (mut repo, mut node, _) = scene();
    node.stored.delegated.clear();
    repo.served.remove("1.ops.json");
    check("not there", &repo, &mut node, Reason::Unreachable);

    // A cached role that expires meanwhile is as expired as a fetched one.
    let (mut repo, mut node, _) = scene();
    for role in [Role::Timestamp, Role::Snapshot, Role::Targets] {
        repo.header(&role).expires = NOW.plus(100 * DAY);
    }
    repo.publish(&[Role::Targets]);
    node.clock.system = NOW.plus(30 * DAY);
    node.refresh(&repo).unwrap();
    check("cached and expired", &repo, &mut node, Reason::Expired);
}

#[test]
fn case_81_a_cached_role_of_a_removed_key_is_not_used() {
    let (mut repo, mut node) = settled();
    let role = repo.delegate(&Role::Targets, "ops", &["ops/*"]);
    repo.add_target(&role, "ops/tool", b"tool");
    repo.publish(&[Role::Targets, role.clone()]);
    node.find(&repo, "ops/tool").unwrap();
    let fresh = ForgeKey::new(900);
    repo.delegations(&Role::Targets).keys.extend(key_map([&fresh]));
    repo.last_delegated(&Role::Targets).keys = role_keys(1, std::slice::from_ref(&fresh));
    repo.publish(&[Role::Targets]);
    let error = node.find(&repo, "ops/tool").unwrap_err();
    let source = TufError::Threshold { role: role.clone(), valid: 0, threshold: 1 };
    assert_eq!(error, TrustError::Refused { file: "1.ops.json".into(), source });
    repo.signers.insert(role.clone(), vec![fresh]);
    repo.publish(&[role]);
    node.find(&repo, "ops/tool").unwrap();
}

#[test]
fn hash_prefixes_and_succinct_bins_lead_to_one_role() {
    let name = "ops/tool";
    let hash = Sha256::of(name.as_bytes()).to_hex();
    let (mut repo, mut node) = settled();
    for digit in "0123456789abcdef".chars() {
        let bin = repo.delegate(&Role::Targets, &format!("hashed-{digit}"), &[]);
        repo.last_delegated(&Role::Targets).paths =
            Paths::HashPrefixes(vec![digit.to_string()].into());
        repo.add_target(&bin, name, b"tool");
    }
    let roles = everything(&repo);
    repo.publish(&roles);
    let found = node.find(&repo, name).unwrap();
    assert_eq!(found.role().name(), format!("hashed-{}", &hash[..1]));
    assert_eq!(visited(&node).len(), 1);

    let (mut repo, mut node) = settled();
    let key = ForgeKey::new(800);
    repo.targets(&Role::Targets).delegations = Some(Delegations {
        keys: key_map([&key]),
        to: DelegatedTo::Succinct(SuccinctRoles {
            keys: role_keys(1, std::slice::from_ref(&key)),
            bit_length: 8,
            name_prefix: "bin".into(),
        }),
        unknown: Default::default(),
    });
    let bin = Role::delegated(&format!("bin-{}", &hash[..2])).unwrap();
    let empty = repo.targets[&Role::Targets].clone();
    let empty = formats::tuf::Targets { delegations: None, targets: [].into(), ..empty };
    repo.targets.insert(bin.clone(), empty);
    repo.signers.insert(bin.clone(), vec![key]);
    repo.add_target(&bin, name, b"tool");
    repo.publish(&[Role::Targets, bin.clone()]);
    assert_eq!(node.find(&repo, name).unwrap().role(), &bin);
}

#[test]
fn roles_gone_from_the_snapshot_are_forgotten_when_their_key_is() {
    let (mut repo, mut node) = settled();
    let role = repo.delegate(&Role::Targets, "ops", &["ops/*"]);
    repo.add_target(&role, "ops/tool", b"tool");
    repo.publish(&[Role::Targets, role]);
    node.find(&repo, "ops/tool").unwrap();
    repo.rekey(&Role::Snapshot, 1, &[ForgeKey::new(22)]);
    repo.targets(&Role::Targets).delegations = None;
    repo.snapshot.meta.remove("ops.json");
    repo.publish(&[Role::Root, Role::Targets]);
    node.refresh(&repo).unwrap();
    assert!(node.stored.delegated.is_empty());
}
