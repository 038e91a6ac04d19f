//! The agent as a library: the example program that embeds it, run as a user would run it.

use std::path::Path;
use std::process::Command;

use racklet_tests::rig::{Node, Run, TRIES, World, confirmed, trial};

/// `update-agent/examples/embed.rs`, built as `cargo test` builds it: with the features of the whole
/// workspace, so that nothing is compiled twice.
fn embed() -> Run {
    let test = std::env::current_exe().expect("where this test is");
    // target/<profile>/deps/<test>
    let profile = test.ancestors().nth(2).expect("a test lies two folders below target");
    let target = profile.parent().expect("the profile's folder lies in the target folder");
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--locked", "--workspace", "--example", "embed", "--target-dir"])
        .arg(target)
        .arg("--manifest-path")
        .arg(manifest);
    if profile.file_name().is_some_and(|name| name == "release") {
        cargo.arg("--release");
    }
    let built = cargo.output().expect("cargo is there");
    let log = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "build the example:\n{log}");
    Run::new(profile.join("examples/embed"))
}

#[test]
fn the_example_checks_plans_and_applies() {
    let world = World::with_repository();
    let v1 = world.publish_stable("1.0.0", 1);
    let v2 = world.publish_stable("1.1.0", 2);
    let node = Node::from_factory(&world, "node", &v1, &world.repository().reference());

    let first = embed().arg(node.config()).ok();
    let text = first.output();
    assert!(text.contains("slot a runs, the floor is "), "{text}");
    assert!(text.contains("os: fetch at most "), "{text}");
    assert!(text.contains("1.1.0 is in slot b and next"), "{text}");
    node.expect_slot("b", &v2);
    node.disk.expect(confirmed(1), trial(TRIES));

    // Next is not installed: the same again ends without a word of an image.
    assert_eq!(node.boot(), "b");
    assert_eq!(node.run_once().exits(formats::reason::Exit::Done).json()["did"], "confirmed");
    let again = embed().arg(node.config()).ok();
    assert!(again.output().contains("nothing to do: "), "{}", again.output());
}
