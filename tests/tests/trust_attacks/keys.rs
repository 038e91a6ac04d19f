//! Keys, thresholds and signatures.

use formats::json::Value;
use formats::reason::Reason;
use formats::tuf::{Envelope, Key, Role, RoleKeys, TufError, envelope_bytes};
use racklet_testkit::forge::{Forge, ForgeKey, Node, key_map, role_keys};
use update_core::trust::TrustError;

use crate::{ALL, recovers, refuses, settled};

/// Changes the file of a role after signing, as an envelope.
fn with_signatures(
    repo: &mut Forge,
    role: &Role,
    how: impl Fn(&mut Vec<formats::tuf::Signature>) + 'static,
) {
    repo.garble(role, move |bytes| {
        let envelope = Envelope::parse(&bytes).unwrap();
        let mut signatures = envelope.signatures().to_vec();
        how(&mut signatures);
        envelope_bytes(envelope.signed(), &signatures)
    });
}

fn untouched_by(role: &Role) -> &'static [Role] {
    match role {
        Role::Root | Role::Timestamp => ALL,
        Role::Snapshot => &[Role::Root, Role::Snapshot, Role::Targets],
        _ => &[Role::Root, Role::Targets],
    }
}

#[test]
fn case_32_one_signature_twice_in_every_role() {
    for role in Role::TOP_LEVEL {
        let (mut repo, mut node) = settled();
        with_signatures(&mut repo, &role, |signatures| {
            signatures.truncate(1);
            signatures.push(signatures[0].clone());
        });
        repo.publish(std::slice::from_ref(&role));
        refuses(&mut node, &repo, Reason::KeyDuplicate, untouched_by(&role));
        repo.mend(&role);
    }
}

#[test]
fn case_32_one_signature_twice_in_delegated_roles_of_depth_1_and_2() {
    for depth in [1, 2] {
        let (mut repo, mut node) = settled();
        let mut role = Role::Targets;
        let mut all = vec![role.clone()];
        for level in 0..depth {
            role = repo.delegate(&role, &format!("level-{level}"), &["ops/*"]);
            all.push(role.clone());
        }
        repo.add_target(&role, "ops/tool", b"tool");
        with_signatures(&mut repo, &role, |signatures| signatures.push(signatures[0].clone()));
        repo.publish(&all);
        let error = node.find(&repo, "ops/tool").unwrap_err();
        assert_eq!(error.reason(), Reason::KeyDuplicate, "depth {depth}");
        assert!(!node.stored.delegated.contains_key(role.name()));
    }
}

#[test]
fn case_33_one_key_id_nine_times_in_a_role() {
    let (mut repo, mut node) = settled();
    let key = ForgeKey::new(21);
    repo.root.set_role(&Role::Snapshot, role_keys(6, &vec![key; 9]));
    repo.publish(&[Role::Root]);
    refuses(&mut node, &repo, Reason::KeyDuplicate, ALL);
}

#[test]
fn case_34_one_key_under_two_ids() {
    let twins = [ForgeKey::new(21).marked("a"), ForgeKey::new(21).marked("b")];
    let (mut repo, mut node) = settled();
    repo.rekey(&Role::Snapshot, 2, &twins);
    repo.publish(&[Role::Root, Role::Snapshot]);
    refuses(&mut node, &repo, Reason::KeyDuplicate, ALL);
    // In a delegation.
    let (mut repo, mut node) = settled();
    let role = repo.delegate(&Role::Targets, "ops", &["*"]);
    repo.delegations(&Role::Targets).keys.extend(key_map(&twins));
    repo.last_delegated(&Role::Targets).keys = role_keys(2, &twins);
    repo.signers.insert(role.clone(), twins.to_vec());
    repo.publish(&[Role::Targets, role]);
    refuses(&mut node, &repo, Reason::KeyDuplicate, &[Role::Root, Role::Targets]);
}

#[test]
fn case_35_a_key_id_that_is_not_the_hash_of_its_key() {
    let (mut repo, mut node) = settled();
    let zero = "0".repeat(64);
    let object = ForgeKey::new(77).key().value().clone();
    repo.deform(&Role::Root, move |signed| {
        let Value::Object(root) = signed else { unreachable!() };
        let Some(Value::Object(keys)) = root.get_mut("keys") else { unreachable!() };
        keys.insert(zero.clone(), object.clone());
    });
    repo.publish(&[Role::Root]);
    refuses(&mut node, &repo, Reason::KeyidMismatch, ALL);
}

#[test]
fn case_36_thresholds_that_are_none() {
    let odd =
        [Value::Int(0), Value::Int(-1), Value::Int(1 << 32), Value::Bool(true), Value::from("1")];
    for role in Role::TOP_LEVEL {
        for threshold in &odd {
            let (mut repo, mut node) = settled();
            let (name, threshold) = (role.name().to_owned(), threshold.clone());
            repo.deform(&Role::Root, move |signed| {
                set(signed, &["roles", &name, "threshold"], threshold.clone());
            });
            repo.publish(&[Role::Root]);
            refuses(&mut node, &repo, Reason::MetaFormat, ALL);
        }
    }
    // 1.0 is no number here at all.
    let (mut repo, mut node) = settled();
    repo.garble(&Role::Root, |bytes| {
        let text = String::from_utf8(bytes).unwrap();
        text.replace("\"threshold\":2", "\"threshold\":2.0").into_bytes()
    });
    repo.publish(&[Role::Root]);
    refuses(&mut node, &repo, Reason::MetaFormat, ALL);
}

fn set(value: &mut Value, path: &[&str], to: Value) {
    let (Value::Object(members), Some((first, rest))) = (value, path.split_first()) else {
        panic!("no object on the way")
    };
    match rest {
        [] => drop(members.insert((*first).to_owned(), to)),
        _ => set(members.get_mut(first).unwrap(), rest, to),
    }
}

/// The root that says so is a good root and is kept: the next one can mend it. The role it
/// makes impossible is refused for its form, not for its signatures.
#[test]
fn case_37_a_threshold_above_the_number_of_keys() {
    let (mut repo, mut node) = settled();
    repo.root.set_role(&Role::Snapshot, role_keys(2, &[ForgeKey::new(21)]));
    repo.publish(&[Role::Root, Role::Snapshot]);
    refuses(&mut node, &repo, Reason::MetaFormat, &[Role::Snapshot, Role::Targets]);
    repo.root.set_role(&Role::Snapshot, role_keys(1, &[ForgeKey::new(21)]));
    repo.publish(&[Role::Root]);
    recovers(&mut node, &repo);
    // For the root role itself nobody could ever sign the mend: refused at once.
    repo.root.set_role(&Role::Root, role_keys(4, &[1, 2, 3].map(ForgeKey::new)));
    repo.publish(&[Role::Root]);
    refuses(&mut node, &repo, Reason::MetaFormat, ALL);
}

#[test]
fn case_38_a_missing_role_and_a_role_without_keys() {
    for role in Role::TOP_LEVEL {
        let (mut repo, mut node) = settled();
        let name = role.name().to_owned();
        repo.deform(&Role::Root, move |signed| {
            let Value::Object(root) = signed else { unreachable!() };
            let Some(Value::Object(roles)) = root.get_mut("roles") else { unreachable!() };
            roles.remove(&name);
        });
        repo.publish(&[Role::Root]);
        refuses(&mut node, &repo, Reason::MetaFormat, ALL);
    }
    let (mut repo, mut node) = settled();
    repo.root.set_role(&Role::Timestamp, role_keys(1, &[]));
    repo.publish(&[Role::Root, Role::Timestamp]);
    // The key is gone, so what it signed is forgotten (TUF §5.3.11).
    refuses(&mut node, &repo, Reason::MetaFormat, &[Role::Targets]);
}

fn key(keytype: &str, scheme: &str, public: &str) -> Key {
    Key::read(&Value::object([
        ("keytype", Value::from(keytype)),
        ("scheme", Value::from(scheme)),
        ("keyval", Value::object([("public", Value::from(public))])),
    ]))
    .unwrap()
}

#[test]
fn case_39_40_keys_nobody_can_use_count_zero() {
    let hex = |seed| {
        let key = ForgeKey::new(seed);
        let public = key.key().value().get("keyval").unwrap().get("public").unwrap();
        public.as_str().unwrap().to_owned()
    };
    for odd in [
        key("ml-dsa", "ml-dsa-65", "future"),
        key("ecdsa", "ecdsa-sha2-nistp256", &hex(21)),
        key("rsa", "rsassa-pkcs1v15-sha256", &hex(21)),
        key("ed25519", "ed25519-sha3", &hex(21)),
    ] {
        // Beside a good key it does no harm …
        let (mut repo, mut node) = settled();
        let good = ForgeKey::new(21).id();
        repo.root.keys.insert(odd.id(), odd.clone());
        repo.root.set_role(&Role::Snapshot, RoleKeys::new(1, [odd.id(), good]));
        repo.publish(&[Role::Root, Role::Snapshot]);
        recovers(&mut node, &repo);
        // … and does not count, not even with the signature of the material it claims.
        repo.root.set_role(&Role::Snapshot, RoleKeys::new(2, [odd.id(), good]));
        let id = odd.id().to_string();
        with_signatures(&mut repo, &Role::Snapshot, move |signatures| {
            let mut forged = signatures[0].clone();
            forged.keyid = id.clone();
            signatures.push(forged);
        });
        repo.publish(&[Role::Root, Role::Snapshot]);
        refuses(&mut node, &repo, Reason::SigThreshold, &[Role::Snapshot, Role::Targets]);
    }
}

#[test]
fn case_40_42_keys_nobody_should_trust_refuse_the_root() {
    // An ed25519 point of order 4, and an RSA key whose modulus is 128 bytes of c5.
    let weak = "0".repeat(64);
    let rsa_1024 = "-----BEGIN PUBLIC KEY-----\n\
        MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDFxcXFxcXFxcXFxcXFxcXFxcXF\n\
        xcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXF\n\
        xcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXF\n\
        xcXFxcXFxcXFxcXFxQIDAQAB\n\
        -----END PUBLIC KEY-----\n";
    for (keytype, scheme, public) in
        [("ed25519", "ed25519", weak.as_str()), ("rsa", "rsassa-pss-sha256", rsa_1024)]
    {
        let (mut repo, mut node) = settled();
        let object = Value::object([
            ("keytype", Value::from(keytype)),
            ("scheme", Value::from(scheme)),
            ("keyval", Value::object([("public", Value::from(public))])),
        ]);
        let id = formats::digest::Sha256::of(&object.canonical()).to_hex();
        repo.deform(&Role::Root, move |signed| set(signed, &["keys", &id], object.clone()));
        repo.publish(&[Role::Root]);
        refuses(&mut node, &repo, Reason::KeyInvalid, ALL);
    }
}

#[test]
fn case_44_47_malformed_signatures_do_no_harm_and_no_good() {
    for (name, sig) in [
        ("empty", String::new()),
        ("odd length", "0".repeat(127)),
        ("upper case", "AB".repeat(64)),
        ("spaces", " ".repeat(128)),
        ("zero bytes", "00".repeat(64)),
        ("4 KiB", "00".repeat(2048)),
    ] {
        let (mut repo, mut node) = settled();
        let keys = [ForgeKey::new(31), ForgeKey::new(32)];
        repo.rekey(&Role::Timestamp, 1, &keys);
        repo.publish(&[Role::Root, Role::Timestamp]);
        recovers(&mut node, &repo);
        let other = sig.clone();
        with_signatures(&mut repo, &Role::Timestamp, move |signatures| {
            signatures[0].sig = other.clone();
        });
        repo.publish(&[Role::Timestamp]);
        recovers(&mut node, &repo);
        with_signatures(&mut repo, &Role::Timestamp, move |signatures| {
            signatures.iter_mut().for_each(|signature| signature.sig = sig.clone());
        });
        repo.publish(&[Role::Timestamp]);
        let error = refuses(&mut node, &repo, Reason::SigThreshold, ALL);
        assert!(error.to_string().contains("timestamp.json"), "{name}: {error}");
    }
}

#[test]
fn case_45_two_hundred_thousand_signatures() {
    let (mut repo, mut node) = settled();
    repo.publish(&[Role::Targets]);
    let list = "{\"keyid\":\"x\",\"sig\":\"\"},".repeat(200_000);
    let bytes = format!("{{\"signatures\":[{}],\"signed\":{{}}}}", &list[..list.len() - 1]);
    repo.list_hashes = false;
    repo.publish(&[Role::Targets]);
    repo.served.insert("4.targets.json".into(), bytes.into_bytes());
    refuses(&mut node, &repo, Reason::MetaLimit, &[Role::Root, Role::Targets]);
}

#[test]
fn case_46_ten_thousand_keys() {
    let (mut repo, mut node) = settled();
    let many = (0..2000).map(|i| key("future", "future", &i.to_string()));
    repo.root.keys.extend(many.map(|key| (key.id(), key)));
    repo.publish(&[Role::Root]);
    refuses(&mut node, &repo, Reason::MetaLimit, ALL);
}

#[test]
fn case_48_a_removed_key_is_refused_at_once() {
    let (mut repo, mut node) = settled();
    let old = repo.signers[&Role::Targets].clone();
    repo.rekey(&Role::Targets, 2, &[ForgeKey::new(12), ForgeKey::new(13)]);
    repo.publish(&[Role::Root, Role::Targets]);
    recovers(&mut node, &repo);
    repo.signers.insert(Role::Targets, old);
    repo.publish(&[Role::Targets]);
    refuses(&mut node, &repo, Reason::SigThreshold, &[Role::Root, Role::Targets]);
    // Also when the removal and the attack arrive in one update.
    let mut late = Node::of(&repo);
    refuses(&mut late, &repo, Reason::SigThreshold, &[Role::Targets]);
}

/// Stored targets are judged by the keys of the day as well: no request, no trust.
#[test]
fn case_48_stored_targets_of_a_removed_key_are_not_used() {
    let (mut repo, mut node) = settled();
    repo.rekey(&Role::Targets, 1, &[ForgeKey::new(13)]);
    repo.publish(&[Role::Root]);
    refuses(&mut node, &repo, Reason::SigThreshold, &[Role::Targets]);
    repo.publish(&[Role::Targets]);
    recovers(&mut node, &repo);
}

/// Delegated metadata offered as top-level, both signed by one key. The listing decides.
#[test]
fn case_50_delegated_metadata_as_top_level() {
    for (list_hashes, reason) in [(true, Reason::LengthMismatch), (false, Reason::VersionRollback)]
    {
        let (mut repo, mut node) = settled();
        repo.list_hashes = list_hashes;
        let keys = repo.signers[&Role::Targets].clone();
        let role = repo.delegate(&Role::Targets, "ops", &["*"]);
        repo.signers.insert(role.clone(), keys);
        repo.add_target(&role, "demo/1.0.0", b"evil");
        repo.publish(&[Role::Targets, role]);
        let foreign = repo.served["1.ops.json"].clone();
        repo.served.insert("3.targets.json".into(), foreign);
        refuses(&mut node, &repo, reason, &[Role::Root, Role::Targets]);
    }
}

/// Two repositories whose online keys are the same, as one timer on one machine would have them.
fn neighbours(ids: Option<[&str; 2]>) -> (Forge, Forge) {
    let [a, b] = [0, 1].map(|nth| {
        let mut repo = Forge::new();
        if nth == 1 {
            // Another product's releases are signed by other people.
            repo.rekey(&Role::Targets, 1, &[ForgeKey::new(13)]);
        }
        repo.repository = ids.map(|ids| ids[nth].to_owned());
        repo.publish(&[Role::Root, Role::Targets]);
        repo
    });
    (a, b)
}

/// Timestamp and snapshot of repository B, signed by the key both have, offered to a node of A.
#[test]
fn case_50_another_repository_with_the_same_online_keys() {
    let (repo, mut other) = neighbours(Some(["a", "b"]));
    let mut node = Node::of(&repo);
    recovers(&mut node, &repo);
    for _ in 0..5 {
        other.publish(&[Role::Snapshot]);
    }
    let mut served = other.freeze();
    served.remove("3.root.json");
    let honest = repo.freeze();
    let mut attack = repo;
    attack.served = served;
    let error = refuses(&mut node, &attack, Reason::MetaType, ALL);
    let source = TufError::Repository { pinned: "\"a\"".into(), found: "\"b\"".into() };
    assert_eq!(error, TrustError::Refused { file: "timestamp.json".into(), source });
    // Metadata that says nothing is as foreign.
    attack.served = honest.clone();
    attack.repository = None;
    attack.publish(&[Role::Timestamp]);
    refuses(&mut node, &attack, Reason::MetaType, ALL);
    attack.served = honest;
    recovers(&mut node, &attack);
}

/// Every role is bound, delegated ones as well, also one whose listing is without hashes.
#[test]
fn case_50_every_role_is_bound_to_its_repository() {
    for role in [Role::Timestamp, Role::Snapshot, Role::Targets, Role::Delegated("ops".into())] {
        let mut repo = Forge::new();
        repo.list_hashes = false;
        repo.repository = Some("a".into());
        let ops = repo.delegate(&Role::Targets, "ops", &["ops/*"]);
        repo.add_target(&ops, "ops/tool", b"tool");
        repo.publish(&[Role::Root, Role::Targets, ops.clone()]);
        let mut node = Node::of(&repo);
        node.find(&repo, "ops/tool").unwrap();
        repo.deform(&role, |signed| {
            let Value::Object(members) = signed else { unreachable!() };
            members.insert(formats::tuf::REPOSITORY.into(), Value::from("b"));
        });
        repo.publish(std::slice::from_ref(&role));
        let before = node.stored.clone();
        let error = node.find(&repo, "ops/tool").unwrap_err();
        assert_eq!(error.reason(), Reason::MetaType, "{role}: {error}");
        assert_eq!(node.stored.file(&role), before.file(&role), "{role} was touched");
        repo.mend(&role);
        repo.publish(std::slice::from_ref(&role));
        node.find(&repo, "ops/tool").unwrap();
    }
}

/// Without ids, the shared timestamp key is enough to push the versions up: what the ids are for.
/// Targets are safe all the same, because their keys differ.
#[test]
fn case_50_without_ids_the_neighbour_can_stop_updates() {
    let (repo, mut other) = neighbours(None);
    let mut node = Node::of(&repo);
    recovers(&mut node, &repo);
    for _ in 0..5 {
        other.publish(&[Role::Snapshot]);
    }
    let mut attack = Forge::new();
    attack.served = other.freeze();
    attack.served.remove("2.root.json");
    let error = node.refresh(&attack).unwrap_err();
    assert_eq!(error.reason(), Reason::SigThreshold);
    assert_ne!(
        node.stored.file(&Role::Timestamp).map(|bytes| bytes.to_vec()),
        repo.served.get("timestamp.json").cloned(),
        "the foreign timestamp is taken for a newer one"
    );
}
