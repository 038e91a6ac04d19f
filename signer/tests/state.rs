//! Metadata that was re-signed, mixed or cut: nothing is built on what does not verify.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::collections::BTreeMap;

use common::{Fixture, NOW};
use formats::json::Value;
use formats::reason::Reason;
use formats::tuf::{
    Envelope, Header, Key, Metadata, Role, RoleKeys, Root, Signature, Timestamp, envelope_bytes,
};
use signer::key::{KeyStore, SecretKey, example, sign};
use signer::published::fetch;
use signer::state::State;

type Files = BTreeMap<String, Vec<u8>>;

/// One key, behind the one door through which keys sign.
struct Signer(Key, KeyStore);

fn signer(secret: SecretKey) -> Signer {
    let mut store = KeyStore::default();
    let key = secret.key().unwrap();
    store.add(secret).unwrap();
    Signer(key, store)
}

fn signed(value: &Value, keys: &[&Signer]) -> Vec<u8> {
    let message = value.canonical();
    let one = |Signer(key, store): &Signer| sign(store.find(&key.id()).unwrap(), &message).unwrap();
    let signatures: Vec<Signature> = keys.iter().map(|key| one(key)).collect();
    envelope_bytes(value, &signatures)
}

fn files(fixture: &Fixture) -> Files {
    fetch(fixture.readable().as_ref()).unwrap().unwrap().files
}

fn parsed<T: Metadata>(bytes: &[u8]) -> T {
    T::parse(Envelope::parse(bytes).unwrap().signed()).unwrap()
}

fn published() -> (Fixture, Files) {
    let fixture = Fixture::new();
    fixture.publish(&fixture.request("1.0.0", "os.img")).unwrap();
    let files = files(&fixture);
    (fixture, files)
}

fn refused(files: &Files, root: &[u8], name: &str) -> Reason {
    State::verify(files, Some(root)).map(drop).expect_err(name).reason()
}

/// Root version 2: another root key takes over.
fn next_root(root: &[u8], key: &Signer, version: u64) -> Root {
    let mut next: Root = parsed(root);
    next.header = Header::new(version, NOW.plus(1000));
    next.keys.insert(key.0.id(), key.0.clone());
    next.set_role(&Role::Root, RoleKeys::new(1, [key.0.id()]));
    next
}

#[test]
fn a_root_is_reached_through_every_version_before_it() {
    let (fixture, files) = published();
    let root = fixture.root();
    let (old, new) = (signer(example::key("root")), signer(SecretKey::from_seed(&[5; 32])));
    let second = next_root(&root, &new, 2).to_value();
    let third = next_root(&root, &new, 3).to_value();
    let with = |roots: &[(&str, Vec<u8>)]| {
        let mut files = files.clone();
        for (name, bytes) in roots {
            files.insert((*name).to_owned(), bytes.clone());
        }
        files
    };
    let good_second = ("2.root.json", signed(&second, &[&old, &new]));
    let good_third = ("3.root.json", signed(&third, &[&new]));
    let state =
        State::verify(&with(&[good_second.clone(), good_third.clone()]), Some(&root)).unwrap();
    assert_eq!((state.root.header.version, state.roots.len()), (3, 3));
    // A node, or signer, that trusts version 2 already.
    let ahead = with(&[good_second.clone(), good_third.clone()]);
    assert!(State::verify(&ahead, Some(&good_second.1)).is_ok());

    let rows = [
        ("a version is missing", with(&[good_third]), Reason::BundleFormat),
        (
            "not signed by the old key",
            with(&[("2.root.json", signed(&second, &[&new]))]),
            Reason::SigThreshold,
        ),
        (
            "not signed by its own key",
            with(&[("2.root.json", signed(&second, &[&old]))]),
            Reason::SigThreshold,
        ),
        (
            "another version than its name says",
            with(&[("2.root.json", signed(&third, &[&old, &new]))]),
            Reason::VersionRollback,
        ),
    ];
    for (name, files, reason) in rows {
        assert_eq!(refused(&files, &root, name), reason, "{name}");
    }
    assert_eq!(refused(&files, &good_second.1, "an older repository"), Reason::VersionRollback);
    let other = Fixture::new();
    std::fs::remove_file(other.keys().join("root.key")).unwrap();
    let foreign = signed(&next_root(&root, &new, 1).to_value(), &[&new]);
    assert_eq!(refused(&files, &foreign, "another root of version 1"), Reason::SigThreshold);
}

#[test]
fn metadata_of_other_keys_or_versions_is_refused() {
    let (fixture, files) = published();
    let root = fixture.root();
    let thief = signer(SecretKey::from_seed(&[6; 32]));
    let timestamp_key = signer(example::key("timestamp"));
    let timestamp: Timestamp = parsed(&files["timestamp.json"]);
    let with = |name: &str, bytes: Vec<u8>| {
        let mut files = files.clone();
        files.insert(name.to_owned(), bytes);
        files
    };
    let mut lying = timestamp.clone();
    lying.snapshot.version = 1;
    let snapshot = files["2.snapshot.json"].clone();
    let mut renamed = with("1.snapshot.json", snapshot);
    renamed.insert("timestamp.json".to_owned(), signed(&lying.to_value(), &[&timestamp_key]));
    let targets = files["2.targets.json"].clone();
    let mut shorter = files.clone();
    shorter.remove("2.targets.json");
    let rows = [
        (
            "timestamp of a stolen place",
            with("timestamp.json", signed(&timestamp.to_value(), &[&thief])),
            Reason::SigThreshold,
        ),
        (
            "timestamp without signature",
            with("timestamp.json", signed(&timestamp.to_value(), &[])),
            Reason::SigThreshold,
        ),
        (
            "targets in the place of the timestamp",
            with("timestamp.json", targets.clone()),
            Reason::SigThreshold,
        ),
        ("snapshot of another version", renamed, Reason::VersionRollback),
        (
            "targets with one more byte",
            with("2.targets.json", [targets, vec![b'\n']].concat()),
            Reason::LengthMismatch,
        ),
        ("targets missing", shorter, Reason::BundleFormat),
        (
            "channel of other content",
            with("targets/demo/channels/stable.json", b"{}".to_vec()),
            Reason::LengthMismatch,
        ),
    ];
    for (name, files, reason) in rows {
        assert_eq!(refused(&files, &root, name), reason, "{name}");
    }
    State::verify(&files, Some(&root)).unwrap();
}
