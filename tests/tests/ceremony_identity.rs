//! Case 50 with real repositories: two that share every key, made by `signer init`, and
//! nothing of one is accepted for the other.

use std::collections::BTreeMap;
use std::fs;

use formats::reason::Reason;
use formats::tuf::{Envelope, REPOSITORY, UnixTime};
use racklet_testkit::forge::Node;
use racklet_tests::rig::{Run, World, program};
use signer::repository::{Access, ClientOptions, open};
use signer::state::{State, StateError};
use update_core::trust::{Clock, Fetch, Limits, Reply, Stored};

type Files = BTreeMap<String, Vec<u8>>;

/// `signer` in the world's folder.
fn signer(world: &World, command: &str) -> Run {
    const PLACES: [&str; 3] = ["keys", "a-keys", "b-keys"];
    let path = |word: &str| match word.strip_prefix("oci:") {
        Some(rest) => format!("oci:{}", world.path(rest).display()),
        None if PLACES.iter().any(|start| word.starts_with(start)) => {
            world.path(word).display().to_string()
        }
        None => word.to_owned(),
    };
    program("signer").args(command.split(' ').map(path)).arg("--json")
}

fn files(world: &World, namespace: &str) -> Files {
    let reference = format!("oci:{}:{namespace}", world.path("repository").display());
    let reference = reference.parse().expect("a reference");
    let registry = open(&reference, Access::Read, &ClientOptions::default()).expect("open it");
    let found = signer::published::fetch(registry.as_ref()).expect("read it");
    found.expect("there is a repository").files
}

/// The id in every metadata file, which must be one.
#[track_caller]
fn id_of(files: &Files, after: &str) -> String {
    let mut ids = BTreeMap::new();
    for (name, bytes) in files.iter().filter(|(name, _)| !name.contains('/')) {
        let envelope = Envelope::parse(bytes).expect("metadata");
        let id = envelope.signed().get(REPOSITORY).and_then(|id| id.as_str());
        ids.insert(id.map(str::to_owned), name.clone());
    }
    assert_eq!(ids.len(), 1, "after {after}: {ids:?}");
    let id = ids.into_keys().next().flatten();
    id.unwrap_or_else(|| panic!("after {after}: no id"))
}

fn node_of(root: &[u8]) -> Node {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.expect("it is after 1970").as_secs();
    let now = UnixTime::from_secs(i64::try_from(now).expect("it is before 2262"));
    Node {
        shipped_root: root.to_vec(),
        stored: Stored::default(),
        clock: Clock { system: now, build: UnixTime::EPOCH },
        limits: Limits::default(),
        requests: Vec::new(),
        persisted: Vec::new(),
        forgetful: false,
    }
}

fn reply(files: &Files, wanted: &Fetch) -> Reply {
    files.get(&wanted.file_name).cloned().map_or(Reply::NotFound, Reply::Bytes)
}

/// Two repositories of the same four keys, in two namespaces of one directory.
fn twins() -> World {
    let world = World::empty();
    for name in ["root", "targets", "snapshot", "timestamp", "other"] {
        let _done = signer(&world, &format!("key new --out keys/{name}")).ok();
    }
    for folder in ["a-keys", "b-keys"] {
        fs::create_dir(world.path(folder)).expect("make a folder");
        for role in ["root", "targets", "snapshot", "timestamp"] {
            for ending in ["key", "pub"] {
                let name = format!("{role}.{ending}");
                fs::copy(world.path("keys").join(&name), world.path(folder).join(&name))
                    .expect("share a key");
            }
        }
    }
    fs::write(world.path("os.img"), b"an operating system".repeat(1000)).expect("write an image");
    world
}

#[test]
fn case_50_repositories_that_share_every_key_are_told_apart() {
    let world = twins();
    let mut ids = Vec::new();
    for name in ["a", "b"] {
        let at = format!("--repo oci:repository:{name} --keys {name}-keys");
        let made = signer(&world, &format!("init {at}")).ok().json();
        let id = id_of(&files(&world, name), "init");
        assert_eq!(made["repository_id"], id.as_str());
        ids.push(id);
    }
    assert_ne!(ids[0], ids[1], "made in the same second of the same keys");

    let image = format!("os={},hw=cu-v1", world.path("os.img").display());
    let publish = format!("publish --product demo --version 1.0.0 --component {image}");
    let commands = [
        publish.as_str(),
        "channel set --product demo --channel stable --release 1.0.0",
        "delegate --role beta --path beta/* --role-keys keys/other.pub --key keys/other.key",
        "rotate --role root --add keys/other.pub",
        "rotate --role targets --add keys/other.pub",
        "revoke keys/targets.pub --key keys/other.key",
        "renew root targets beta --key keys/other.key",
        "refresh",
    ];
    for (name, id) in ["a", "b"].into_iter().zip(&ids) {
        let first_root = fs::read(world.path(&format!("{name}-keys/root.json"))).expect("a root");
        let mut node = node_of(&first_root);
        for command in commands {
            let at = format!("--repo oci:repository:{name} --keys {name}-keys");
            let _done = signer(&world, &format!("{command} {at}")).ok();
            let now = files(&world, name);
            assert_eq!(id_of(&now, command), *id);
            node.update(|wanted| reply(&now, wanted))
                .unwrap_or_else(|error| panic!("{name} after {command}: {error}"));
        }
    }

    // The roots differ, so each role of one is put into the other by itself.
    let (of_a, of_b) = (files(&world, "a"), files(&world, "b"));
    let root = |files: &Files| State::verify(files, None).expect("it is right").roots[&1].clone();
    for name in of_b.keys().filter(|name| !name.contains("root.json") && !name.contains('/')) {
        let mut mixed = of_a.clone();
        mixed.insert(name.clone(), of_b[name].clone());
        // Below the timestamp, the listing's hash is looked at first.
        let expected =
            if name == "timestamp.json" { Reason::MetaType } else { Reason::HashMismatch };
        if !name.contains("beta") {
            let mut node = node_of(&root(&of_a));
            let refused = node.update(|wanted| reply(&mixed, wanted)).map(drop).expect_err(name);
            assert_eq!(refused.reason(), expected, "{name}: {refused}");
        }
        let refused = State::verify(&mixed, Some(&root(&of_a))).expect_err(name);
        assert_eq!(StateError::reason(&refused), expected, "{name}: {refused}");
    }
    // A whole mirror of the other one, below this one's roots.
    let mut mirror = of_b;
    mirror.retain(|name, _| !name.ends_with("root.json"));
    mirror.extend(of_a.clone().into_iter().filter(|(name, _)| name.ends_with("root.json")));
    let mut node = node_of(&root(&of_a));
    let refused = node.update(|wanted| reply(&mirror, wanted)).expect_err("a mirror of b");
    assert_eq!(refused.reason(), Reason::MetaType, "{refused}");
    let set = node.update(|wanted| reply(&of_a, wanted)).expect("the honest one heals it");
    assert_eq!(set.root().header.version, 5);
}

/// What was made before there were ids goes on without one.
#[test]
fn a_repository_without_an_id_stays_as_it_is() {
    let world = twins();
    let at = "--repo oci:repository:a --keys a-keys";
    // As an older signer made it: a root without an id, signed by its key.
    let _done = signer(&world, &format!("init {at}")).ok();
    let path = world.path("a-keys/root.json");
    let root = fs::read(&path).expect("a root");
    let mut value = Envelope::parse(&root).expect("a root").signed().clone();
    if let formats::json::Value::Object(members) = &mut value {
        members.remove(REPOSITORY).expect("init gave it an id");
    }
    fs::write(&path, world.signed_in("a-keys", "root", &value)).expect("write the root");
    fs::remove_dir_all(world.path("repository")).expect("begin again");
    fs::remove_file(world.path("a-keys/signer.log")).expect("begin again");
    let made = signer(&world, &format!("init {at}")).ok().json();
    assert!(made["repository_id"].is_null(), "{made}");
    for command in ["rotate --role root --add keys/other.pub", "renew targets", "refresh"] {
        let _done = signer(&world, &format!("{command} {at}")).ok();
        for (name, bytes) in files(&world, "a") {
            let envelope = Envelope::parse(&bytes).expect("metadata");
            assert_eq!(envelope.signed().get(REPOSITORY), None, "{name} after {command}");
        }
    }
}

/// Two from one script, in one second, of one root key: they can be named.
#[test]
fn a_repository_can_be_named() {
    let world = twins();
    let at = "--repo oci:repository:a --keys a-keys";
    let refused = signer(&world, &format!("init --id Not/A/Word {at}")).finish();
    refused.refused(Reason::Config);
    let made = signer(&world, &format!("init --id racklet-staging {at}")).ok().json();
    assert_eq!(made["repository_id"], "racklet-staging");
    assert_eq!(id_of(&files(&world, "a"), "init"), "racklet-staging");
}
