//! Rotations as other people see them: python-tuf, a node that slept, a new node.

use std::fs;

use racklet_tests::rig::{Done, Node, RepoServer, Run, World, program, venv};

/// `signer key new`.
#[track_caller]
fn new_key(world: &World, name: &str) -> String {
    let out = world.path("people").join(name);
    let _folder = fs::create_dir_all(world.path("people"));
    let _done = program("signer").args(["key", "new", "--out"]).arg(&out).ok();
    format!("{}.pub", out.display())
}

/// `signer COMMAND` with all keys at hand, of which the metadata choose.
#[track_caller]
fn with_people(world: &World, command: &[&str]) -> Done {
    let mut run = world.signer(command);
    let mut files: Vec<_> = fs::read_dir(world.path("people"))
        .expect("list the keys")
        .map(|entry| entry.expect("list the keys").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "key"))
        .collect();
    files.sort();
    for file in files {
        run = run.arg("--key").arg(file);
    }
    run.ok()
}

/// python-tuf from the first trust root, in a local folder of that name.
#[track_caller]
fn python_tuf(world: &World, server: &RepoServer, folder: &str) -> Run {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/witness/python_tuf.py");
    venv()
        .arg(script)
        .arg(format!("https://{}", server.authority))
        .arg(world.path("root.json"))
        .arg(world.path(folder))
        .env("SSL_CERT_FILE", racklet_tests::rig::Credentials::of(world).ca)
}

/// Threat case 188: every published version is accepted by python-tuf, by our node and by our
/// signer, both by those who follow step by step and by those who come from the first root.
#[test]
fn case_188_every_rotation_is_followed_by_everybody() {
    let world = World::with_repository();
    let release = world.publish_stable("1.0.0", 1);
    let server = RepoServer::start(&world);
    let node = Node::from_factory(&world, "node", &release, &server.reference());
    let slept = Node::from_factory(&world, "slept", &release, &server.reference());
    let _first = slept.agent(&["check"]).finish();
    let first_root = fs::read(world.path("keys/root.pub")).expect("read the first key");
    fs::create_dir_all(world.path("people")).expect("make a folder");
    fs::write(world.path("people/first.pub"), first_root).expect("keep the first key");
    let keys: Vec<String> =
        ["a", "b", "c", "d", "t", "s"].iter().map(|n| new_key(&world, n)).collect();
    let [a, b, c, d, t, s] = keys.as_slice() else { panic!("six keys") };
    let first = world.path("people/first.pub").display().to_string();
    let targets = world.path("keys/targets.pub").display().to_string();
    let snapshot = world.path("keys/snapshot.pub").display().to_string();

    let steps: Vec<(&str, Vec<&str>)> = vec![
        ("keys come", vec!["rotate", "--role", "root", "--add", a, "--add", b]),
        ("threshold up", vec!["rotate", "--role", "root", "--threshold", "3"]),
        ("one for another", vec!["rotate", "--role", "root", "--remove", &first, "--add", c]),
        ("threshold down", vec!["rotate", "--role", "root", "--threshold", "1"]),
        ("all but one go", vec!["rotate", "--role", "root", "--remove", a, "--remove", b]),
        ("all others", vec!["rotate", "--role", "root", "--remove", c, "--add", d, "--add", a]),
        ("targets keys", vec!["rotate", "--role", "targets", "--remove", &targets, "--add", t]),
        (
            "targets 2 of 2",
            vec!["rotate", "--role", "targets", "--add", &targets, "--threshold", "2"],
        ),
        ("snapshot key", vec!["revoke", &snapshot, "--replace", s]),
        ("nothing but time", vec!["renew", "root", "targets"]),
    ];
    let mut version = 1;
    for (i, (name, command)) in steps.iter().enumerate() {
        let done = with_people(&world, command).json();
        version = done["root_version"].as_u64().expect("a version");
        assert_eq!(version, i as u64 + 2, "{name}: {done}");
        for folder in ["follows", &format!("fresh-{i}")] {
            let report = python_tuf(&world, &server, folder).arg("demo/1.0.0").ok().json();
            assert_eq!(report["versions"]["root"], version, "{name}: {report}");
        }
        let checked = node.agent(&["check"]).finish();
        assert!(checked.code <= 1, "{name}: {}", checked.output());
        let trusted = &node.status()["metadata"]["root"];
        assert_eq!(*trusted, version, "{name}: {}", node.status());
        let _verified = program("signer")
            .args(["verify", world.repository().reference().as_str(), "--root"])
            .arg(world.path("root.json"))
            .ok();
    }
    assert!(version >= 11);

    // A node ten roots behind installs what was published meanwhile.
    let next = world.release("1.1.0", 2);
    let component = |name: &str, path: &std::path::Path| {
        format!("{name}={},hw={}", path.display(), racklet_tests::rig::HARDWARE)
    };
    let (os, firmware) =
        (component("os", &next.os.path), component("firmware", &next.firmware.path));
    let publish = ["publish", "--product", "demo", "--version", "1.1.0", "--channel", "stable"];
    let publish = [&publish[..], &["--component", &os, "--component", &firmware]].concat();
    let _done = with_people(&world, &publish);
    let _applied = slept.apply(&[]);
    assert_eq!(slept.status()["metadata"]["root"], version);
    assert_eq!(slept.boot(), "b");
}

/// Delegations that `signer` writes are followed by python-tuf and by a node.
#[test]
fn delegated_releases_reach_python_tuf_and_nodes() {
    let world = World::with_repository();
    let release = world.publish_stable("1.0.0", 1);
    let server = RepoServer::start(&world);
    let node = Node::from_factory(&world, "node", &release, &server.reference());
    let (r, c) = (new_key(&world, "releases"), new_key(&world, "channels"));
    let _done = with_people(
        &world,
        &["delegate", "--role", "demo-releases", "--path", "demo/*", "--role-keys", &r],
    );
    let channels = ["delegate", "--role", "demo-channels", "--path", "demo/channels/*"];
    let _done =
        with_people(&world, &[&channels[..], &["--terminating", "--role-keys", &c]].concat());

    let next = world.release("1.1.0", 2);
    let component = |name: &str, path: &std::path::Path| {
        format!("{name}={},hw={}", path.display(), racklet_tests::rig::HARDWARE)
    };
    let (os, firmware) =
        (component("os", &next.os.path), component("firmware", &next.firmware.path));
    let publish = ["publish", "--product", "demo", "--version", "1.1.0", "--role", "demo-releases"];
    let publish = [&publish[..], &["--component", &os, "--component", &firmware]].concat();
    let before = targets_version(&world);
    let _done = with_people(&world, &publish);
    let set = ["channel", "set", "--product", "demo", "--channel", "beta", "--release", "1.1.0"];
    let _done = with_people(&world, &[&set[..], &["--role", "demo-channels"]].concat());
    assert_eq!(targets_version(&world), before, "the top level signed nothing");

    let names = ["demo/1.0.0", "demo/1.1.0", "demo/channels/beta.json"];
    let report = python_tuf(&world, &server, "python").args(names).ok().json();
    let index = report["targets"]["demo/1.1.0"].as_str().expect("a digest");
    assert_eq!(format!("sha256:{index}"), world.repository().tagged("demo:1.1.0"), "{report}");

    node.reconfigure("channel = \"stable\"", "channel = \"beta\"");
    let _applied = node.apply(&[]);
    assert_eq!(node.boot(), "b");
}

fn targets_version(world: &World) -> u64 {
    let reference = world.repository().reference();
    let status = program("signer").args(["status", &reference, "--json"]).ok().json();
    status["roles"][1]["version"].as_u64().expect("a version")
}
