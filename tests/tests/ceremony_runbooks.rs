//! What the world is like after the runbooks in `docs/runbooks`: who can sign, which nodes follow.
//!
//! That each of them runs, as everybody's user, is tested in `documents.rs`.

use std::fs;
use std::path::{Path, PathBuf};

use formats::tuf::{MetaFile, Metadata, Role, UnixTime, envelope_bytes};
use racklet_testkit::forge::Node;
use racklet_tests::pages::Page;
use racklet_tests::rig::{Done, Run, World, program, tool};
use signer::key::{KeyStore, sign};
use signer::repository::{Access, ClientOptions, open};
use signer::state::State;
use update_core::trust::{Clock, Fetch, Limits, Reply, Stored};

fn runbooks() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/runbooks")
}

/// The commands of a runbook, one a line or more.
fn commands(name: &str) -> Vec<String> {
    let text = fs::read_to_string(runbooks().join(name)).expect("read the runbook");
    let page = Page::parse(name, &text).unwrap_or_else(|faults| panic!("{faults:?}"));
    page.steps.into_iter().map(|step| step.command).collect()
}

/// The answer of everybody who is asked here; how they are asked is in signer's own tests.
const YES: &str = "signer() {
    if [ \"$1\" = sign ]; then command signer \"$@\" --yes; else command signer \"$@\"; fi
}
";

/// A shell in the world's folder, with our programs and a token store of its own.
fn shell(world: &World, script: &str) -> Run {
    // Built if they are older than their sources.
    let _built = program("signer");
    let _there = tool("softhsm2-util", "softhsm2");
    let programs = std::env::current_exe().expect("where this test is");
    let programs = programs.ancestors().nth(2).expect("target/<profile>/deps/<test>").to_owned();
    let tokens = world.path("tokens");
    if !tokens.exists() {
        fs::create_dir(&tokens).expect("make the token store");
        let conf = format!("directories.tokendir = {}\n", tokens.display());
        fs::write(world.path("softhsm2.conf"), conf).expect("configure the token store");
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let script = format!("{YES}{script}");
    Run::new("env")
        .arg("-C")
        .arg(world.dir())
        .args(["sh", "-eu", "-c", &script])
        .env("PATH", format!("{}:{path}", programs.display()))
        .env("SOFTHSM2_CONF", world.path("softhsm2.conf"))
}

/// Runs a runbook as one script; a failing command ends it.
fn follow(world: &World, name: &str) -> Done {
    shell(world, &commands(name).join("\n")).ok()
}

fn first_repository() -> World {
    let world = World::empty();
    let _done = follow(&world, "first-repository.md");
    world
}

fn json(world: &World, command: &str) -> serde_json::Value {
    shell(world, &format!("{command} --json")).ok().json()
}

#[test]
fn first_repository_md() {
    let commands = commands("first-repository.md");
    assert!(commands.len() <= 12, "{} commands", commands.len());
    let world = first_repository();
    let status = json(&world, "signer status oci:repository --keys online");
    let thresholds: Vec<(u64, usize)> = status["roles"]
        .as_array()
        .expect("roles")
        .iter()
        .map(|role| {
            let keys = role["keyids"].as_array().expect("keys").len();
            (role["threshold"].as_u64().expect("a threshold"), keys)
        })
        .collect();
    assert_eq!(thresholds, [(2, 3), (2, 2), (1, 1), (1, 1)]);
    let keys = json(&world, "signer key list --keys carol");
    assert_eq!(keys["keys"][0]["kind"], "pkcs11");
    // The machine that renews timestamps has nothing else.
    let _done = shell(&world, "signer refresh --repo oci:repository --keys online").ok();
}

#[test]
fn add_signer_md() {
    let world = first_repository();
    let _done = follow(&world, "add-signer.md");
    let status = json(&world, "signer status oci:repository --keys frank");
    assert_eq!(status["roles"][0]["keyids"].as_array().expect("keys").len(), 4);
    // Frank counts from now on.
    let _done = shell(
        &world,
        "signer stage renew root --repo oci:repository --keys online --out next.json\n\
         signer sign next.json --keys frank\nsigner sign next.json --keys alice\n\
         signer commit next.json --repo oci:repository --keys online",
    )
    .ok();
}

#[test]
fn lost_root_key_md() {
    let world = first_repository();
    // Really lost.
    fs::remove_dir_all(world.path("tokens")).expect("lose the token");
    fs::create_dir(world.path("tokens")).expect("an empty token store");
    let _done = follow(&world, "lost-root-key.md");
    let status = json(&world, "signer status oci:repository --keys alice");
    assert_eq!(status["roles"][0]["version"], 2);
}

#[test]
fn stolen_online_key_md() {
    let world = first_repository();
    let alice = world.path("alice/root.json");
    // A node of that time, and one that saw what the thief signed.
    let before = files(&world);
    steal(&world);
    let thief = files(&world);
    let _done = follow(&world, "stolen-online-key.md");
    let after = files(&world);
    let root = fs::read(alice).expect("read the trust root");
    for (name, seen) in [("honest", &before), ("misled", &thief)] {
        let mut node = node_of(&root);
        let _set = node.update(|wanted| reply(seen, wanted)).expect("it was signed well");
        let set = node.update(|wanted| reply(&after, wanted));
        let set = set.unwrap_or_else(|error| panic!("a node that saw {name} metadata: {error}"));
        assert_eq!(set.root().header.version, 2, "{name}");
        assert!(set.timestamp().header.version < 10, "{name}");
    }
}

#[test]
fn delegate_md() {
    let world = first_repository();
    let _done = follow(&world, "delegate.md");
    let status = json(&world, "signer status oci:repository --keys online");
    let roles: Vec<&str> = status["roles"]
        .as_array()
        .expect("roles")
        .iter()
        .filter_map(|r| r["role"].as_str())
        .collect();
    assert_eq!(roles, ["root", "targets", "snapshot", "timestamp", "cu-v1-channels"]);
}

#[test]
fn expired_metadata_md() {
    let world = first_repository();
    let _there = tool("faketime", "faketime");
    let late = |script: &str| {
        shell(&world, &format!("faketime -f +400d sh -eu <<'END'\n{YES}{script}\nEND"))
    };
    let status = late("signer verify oci:repository --keys online --json").finish();
    assert_eq!(status.json()["code"], "expired", "{}", status.output());
    let due = late("signer status oci:repository --keys online --expires-within 14 --json");
    let due = due.finish().exits(formats::reason::Exit::Freeze).json();
    assert_eq!(due["message"], "root, targets, snapshot, timestamp expires within 14 days");
    let _done = late(&commands("expired-metadata.md").join("\n")).ok();
}

/// With a fleet of nodes, and time that passes: `roll_out.rs`.
#[test]
fn roll_out_md() {
    let world = first_repository();
    let _done = follow(&world, "roll-out.md");
    let status = json(&world, "signer status oci:repository --keys online");
    let offered: Vec<_> = status["channels"].as_array().expect("channels").iter().collect();
    assert!(offered.iter().all(|channel| channel["release"] == "1.2.0"), "{offered:?}");
}

#[test]
fn wrong_clock_md() {
    let world = first_repository();
    let root = fs::read(world.path("alice/root.json")).expect("read the trust root");
    let mut nodes = [node_of(&root), node_of(&root)];
    let [before, after] = nodes.each_mut();
    let now = files(&world);
    let _set = before.update(|wanted| reply(&now, wanted)).expect("the node updates");
    let refresh = "signer refresh --repo oci:repository --keys online --json";
    let _there = tool("faketime", "faketime");
    let ahead = shell(&world, &format!("exec faketime -f +40d {refresh}")).ok();
    assert!(ahead.stderr.contains("40 days old by this clock"), "{}", ahead.stderr);
    let refused = shell(&world, refresh).finish().exits(formats::reason::Exit::Freeze);
    assert_eq!(refused.json()["code"], "clock_untrusted", "{}", refused.output());
    let future = files(&world);
    let _set = after.update(|wanted| reply(&future, wanted)).expect("it was signed well");
    let _done = follow(&world, "wrong-clock.md");
    let mended = files(&world);
    for node in &mut nodes {
        let set = node.update(|wanted| reply(&mended, wanted)).expect("the node updates");
        assert_eq!(set.root().header.version, 2);
        assert!(set.timestamp().header.expires < node.clock.system.plus(2 * 86_400));
    }
}

#[test]
fn air_gap_md() {
    let world = first_repository();
    let _done = follow(&world, "air-gap.md");
    let status = json(&world, "signer status oci:repository --keys online");
    assert_eq!(status["channels"][0]["release"], "1.1.0");
}

/// The whole story with its transcript (`--nocapture` shows it): twelve commands to a published
/// release, a lost root key rotated out, a node three roots behind.
#[test]
fn from_nothing_to_a_release_a_lost_key_and_a_late_node() {
    let world = World::empty();
    let mut count = 0;
    let mut tell = |commands: &[String]| {
        for command in commands {
            count += 1;
            let done = shell(&world, command).ok();
            println!("{count:2} $ {command}\n{}", done.text());
        }
    };
    tell(&commands("first-repository.md"));
    let mut node = node_of(&fs::read(world.path("dave/root.json")).expect("read the trust root"));
    let now = files(&world);
    let set = node.update(|wanted| reply(&now, wanted)).expect("the node updates");
    assert_eq!(set.root().header.version, 1);
    tell(&commands("lost-root-key.md"));
    for round in ["second", "third"] {
        tell(&[
            format!(
                "signer stage renew root --repo oci:repository --keys online --out {round}.json"
            ),
            format!("signer sign {round}.json --keys alice"),
            format!("signer sign {round}.json --key frank/root.key --keys bob"),
            format!("signer commit {round}.json --repo oci:repository --keys online"),
        ]);
    }
    node.requests.clear();
    let now = files(&world);
    let set = node.update(|wanted| reply(&now, wanted)).expect("the node updates");
    println!("the node asked for {}", node.requests.join(", "));
    assert_eq!(set.root().header.version, 4);
    let roots: Vec<&str> = node.requests.iter().take(4).map(String::as_str).collect();
    assert_eq!(roots, ["2.root.json", "3.root.json", "4.root.json", "5.root.json"]);
}

/// A node that was shipped with that root, today.
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

type Files = std::collections::BTreeMap<String, Vec<u8>>;

fn files(world: &World) -> Files {
    let reference = format!("oci:{}", world.path("repository").display());
    let reference = reference.parse().expect("a reference");
    let registry = open(&reference, Access::Read, &ClientOptions::default()).expect("open it");
    let found = signer::published::fetch(registry.as_ref()).expect("read it");
    found.expect("there is a repository").files
}

/// What a thief of the online keys does: the largest versions there are, and a frozen timestamp.
fn steal(world: &World) {
    let reference = format!("oci:{}", world.path("repository").display());
    let reference = reference.parse().expect("a reference");
    let registry = open(&reference, Access::Write, &ClientOptions::default()).expect("open it");
    let found = signer::published::fetch(registry.as_ref()).expect("read it").expect("it is there");
    let mut state = State::verify(&found.files, None).expect("it is right");
    let keys = KeyStore::open(&world.path("online")).expect("open the stolen keys");
    let signed = |role: Role, value: &formats::json::Value| {
        let id = state.root.role(&role).expect("a role").keyids[0];
        let key = keys.find(&id).expect("it was stolen");
        envelope_bytes(value, &[sign(key, &value.canonical()).expect("sign")])
    };
    let last = i64::MAX.unsigned_abs();
    let mut snapshot = state.snapshot.data.clone();
    snapshot.header.version = last;
    let snapshot_bytes = signed(Role::Snapshot, &snapshot.to_value());
    let mut timestamp = state.timestamp.data.clone();
    timestamp.header.version = last;
    timestamp.snapshot = MetaFile::of(last, &snapshot_bytes);
    let timestamp_bytes = signed(Role::Timestamp, &timestamp.to_value());
    (state.snapshot.data, state.snapshot.bytes) = (snapshot, snapshot_bytes);
    (state.timestamp.data, state.timestamp.bytes) = (timestamp, timestamp_bytes);
    signer::published::publish(registry.as_ref(), Some(&found.manifest), &state, None)
        .expect("the thief publishes");
}
