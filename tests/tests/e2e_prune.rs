//! Releases that nobody needs any more are unlisted and removed: nodes that run one go on, and nodes
//! that were off meanwhile catch up, from a directory and from a server.

use formats::reason::Exit;
use racklet_tests::rig::{Node, PRODUCT, Run, World, confirmed, program};
use serde_json::Value;

/// Which targets are listed.
fn listed(world: &World) -> Vec<String> {
    let status = world.signer(&["release", "list"]).ok().json();
    let releases = status["releases"].as_array().cloned().unwrap_or_default();
    releases.iter().filter_map(|it| it["target"].as_str().map(str::to_owned)).collect()
}

fn prune(world: &World) -> Run {
    world.signer(&["prune", "--keep", "1", "--states", "16", "--grace", "0s"])
}

/// The bytes of all blobs in the directory.
fn stored(world: &World) -> u64 {
    let blobs = std::fs::read_dir(world.path("repository/blobs/sha256"));
    let sizes = blobs.expect("the directory of the repository").flatten();
    sizes.filter_map(|it| it.metadata().ok()).map(|it| it.len()).sum()
}

#[test]
fn nodes_go_on_and_catch_up() {
    let world = World::with_repository();
    let source = world.repository().reference();
    let v1 = world.publish_stable("1.0.0", 1);
    let runs = Node::from_factory(&world, "runs", &v1, &source);
    let sleeps = Node::from_factory(&world, "sleeps", &v1, &source);
    for number in 2..=4 {
        world.publish_stable(&format!("1.{number}.0"), number);
    }
    // A root that the sleeper has never seen.
    let _renewed = world.signer(&["renew", "root"]).ok();

    let report = prune(&world).ok().json();
    let gone = ["demo/1.0.0", "demo/1.2.0", "demo/1.3.0"];
    assert_eq!(report["unlisted"], serde_json::json!(gone), "{report}");
    assert_eq!(listed(&world), [format!("{PRODUCT}/1.4.0")]);
    let before = stored(&world);
    for _ in 0..17 {
        let _refreshed = world.signer(&["refresh"]).ok();
    }
    let report = prune(&world).ok().json();
    assert_eq!((&report["changed"], &report["warnings"]), (&false.into(), &serde_json::json!([])));
    assert!(report["removed"]["tags"].as_u64() >= Some(3), "{report}");
    assert!(stored(&world) < before * 6 / 10, "{} of {before}", stored(&world));
    let root = world.path("root.json");
    let verify = program("signer").args(["--json", "verify", source.as_str(), "--root"]).arg(root);
    let _verified = verify.ok();

    // It runs what is listed no more, and is offered the next one.
    let check = runs.agent(&["check"]).finish().exits(Exit::Done).json();
    assert_eq!(check["withdrawn"], Value::Null, "{check}");
    runs.disk.expect(confirmed(1), racklet_tests::rig::CLEAR);
    for node in [&runs, &sleeps] {
        node.update(&[], "b");
        node.disk.expect(confirmed(1), confirmed(2));
    }
    let _nothing = runs.agent(&["check"]).finish().exits(Exit::Nothing);
}
