//! Rotations as other people see them: python-tuf, a node that slept, a new node.

use formats::reason::Reason;
use racklet_tests::rig::{Node, RepoServer, Run, World, program, venv};

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

/// Case 188: every published version is accepted by python-tuf, by our node and by our
/// signer, both by those who follow step by step and by those who come from the first root.
#[test]
fn case_188_every_rotation_is_followed_by_everybody() {
    let world = World::with_repository();
    let release = world.publish_stable("1.0.0", 1);
    let server = RepoServer::start(&world);
    let node = Node::from_factory(&world, "node", &release, &server.reference());
    let slept = Node::from_factory(&world, "slept", &release, &server.reference());
    let _first = slept.agent(&["check"]).finish();
    let steps = world.rotations();
    let mut version = 1;
    for (i, (name, command)) in steps.iter().enumerate() {
        let done = world.with_people(command).json();
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
    let _done = world.with_people(&publish);
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
    let (r, c) = (world.person("releases"), world.person("channels"));
    let releases = ["delegate", "--role", "demo-releases", "--path", "demo/*", "--role-keys", &r];
    let _done = world.with_people(&releases);
    let channels = ["delegate", "--role", "demo-channels", "--path", "demo/channels/*"];
    let keys = ["--terminating", "--role-keys", &c];
    let _done = world.with_people(&[&channels[..], &keys].concat());

    let next = world.release("1.1.0", 2);
    let component = |name: &str, path: &std::path::Path| {
        format!("{name}={},hw={}", path.display(), racklet_tests::rig::HARDWARE)
    };
    let (os, firmware) =
        (component("os", &next.os.path), component("firmware", &next.firmware.path));
    let publish = ["publish", "--product", "demo", "--version", "1.1.0", "--role", "demo-releases"];
    let publish = [&publish[..], &["--component", &os, "--component", &firmware]].concat();
    let before = targets_version(&world);
    let _done = world.with_people(&publish);
    let set = ["channel", "set", "--product", "demo", "--channel", "beta", "--release", "1.1.0"];
    let _done = world.with_people(&[&set[..], &["--role", "demo-channels"]].concat());
    assert_eq!(targets_version(&world), before, "the top level signed nothing");

    let names = ["demo/1.0.0", "demo/1.1.0", "demo/channels/beta.json"];
    let report = python_tuf(&world, &server, "python").args(names).ok().json();
    let index = report["targets"]["demo/1.1.0"].as_str().expect("a digest");
    assert_eq!(format!("sha256:{index}"), world.repository().tagged("demo:1.1.0"), "{report}");

    node.reconfigure("channel = \"stable\"", "channel = \"beta\"");
    let _applied = node.apply(&[]);
    assert_eq!(node.boot(), "b");
}

/// One team signs for a product, another for the channels of a board; what either signs reaches a
/// node of that board, until its delegation is changed or ends.
#[test]
fn delegations_per_product_and_hardware_reach_nodes_until_they_end() {
    let world = World::with_repository();
    let release = world.publish_stable("1.0.0", 1);
    let server = RepoServer::start(&world);
    let node = Node::from_factory(&world, "node", &release, &server.reference());
    let (product, board) = (world.person("product"), world.person("board"));
    let delegate = |role: &str, path: &str, options: &[&str]| {
        let head = ["delegate", "--role", role, "--path", path];
        world.with_people(&[&head[..], options].concat())
    };
    let _done = delegate("demo-team", "demo/*", &["--role-keys", &product]);
    let of_board = "demo/channels/cu-v1-*.json";
    let _done = delegate("cu-v1-team", of_board, &["--terminating", "--role-keys", &board]);

    let next = world.release("1.1.0", 2);
    let component = |name: &str, path: &std::path::Path| {
        format!("{name}={},hw={}", path.display(), racklet_tests::rig::HARDWARE)
    };
    let (os, firmware) =
        (component("os", &next.os.path), component("firmware", &next.firmware.path));
    let publish = ["publish", "--product", "demo", "--version", "1.1.0", "--role", "demo-team"];
    let publish = [&publish[..], &["--component", &os, "--component", &firmware]].concat();
    let _done = world.with_people(&publish);
    let set = ["channel", "set", "--product", "demo", "--channel", "cu-v1-field"];
    let set = [&set[..], &["--release", "1.1.0", "--role", "cu-v1-team"]].concat();
    let _done = world.with_people(&set);

    node.reconfigure("channel = \"stable\"", "channel = \"cu-v1-field\"");
    let check = || node.agent(&["check"]).finish();
    assert_eq!(check().code, 0);
    // The board's team gets other names: what it signed for the old ones counts nothing.
    let _done = delegate("cu-v1-team", "demo/channels/cu-v2-*.json", &["--terminating"]);
    check().refused(Reason::TargetNotFound);
    let _done = delegate("cu-v1-team", of_board, &["--terminating"]);
    let _applied = node.apply(&[]);
    assert_eq!(node.boot(), "b");

    let _done = world.with_people(&["delegate", "--role", "cu-v1-team", "--remove"]);
    check().refused(Reason::TargetNotFound);
    let python = |names: &[&str]| python_tuf(&world, &server, "python").args(names).finish();
    assert_eq!(python(&["demo/1.1.0"]).code, 0);
    assert_ne!(python(&["demo/channels/cu-v1-field.json"]).code, 0);
    let _done = world.with_people(&["delegate", "--role", "demo-team", "--remove"]);
    assert_ne!(python(&["demo/1.1.0"]).code, 0);
    assert_eq!(python(&["demo/1.0.0", "demo/channels/stable.json"]).code, 0);
}

fn targets_version(world: &World) -> u64 {
    let reference = world.repository().reference();
    let status = program("signer").args(["status", &reference, "--json"]).ok().json();
    status["roles"][1]["version"].as_u64().expect("a version")
}
