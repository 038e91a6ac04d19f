//! Old releases leave what every node reads: nodes update across the change, and find an old release,
//! and what is said of it, when they ask.

use formats::reason::{Exit, Reason};
use racklet_tests::rig::{Node, PRODUCT, Release, World, confirmed};

/// 600 more boards of 40 letters: two such releases fill a closed role of the history.
fn publish(world: &World, version: &str, number: u64) -> Release {
    let release = world.release(version, number);
    let file = world.path("tool");
    std::fs::write(&file, b"a tool for other boards").expect("write a tool");
    let others: String = (0..600).map(|n| format!(",hw=board-{n:034}")).collect();
    let tool = format!("tool={}{others}", file.display());
    world.publish(&release, &["--component", &tool, "--channel", "stable"]);
    release
}

fn roles(world: &World) -> Vec<String> {
    let listed = world.signer(&["release", "list"]).ok().json();
    let releases = listed["releases"].as_array().cloned().unwrap_or_default();
    let roles = releases.iter().filter_map(|it| it["role"].as_str());
    // Without what says that it is a delegated one.
    let names = roles.map(|role| role.trim_start_matches("delegated role ").trim_matches('"'));
    names.map(str::to_owned).collect()
}

#[test]
fn nodes_update_across_the_change_and_find_old_releases() {
    let world = World::with_repository();
    let source = world.repository().reference();
    let v1 = publish(&world, "1.0.0", 1);
    let follows = Node::from_factory(&world, "follows", &v1, &source);
    let pinned = Node::from_factory(&world, "pinned", &v1, &source);
    let _checked = follows.agent(&["check"]).finish().exits(Exit::Nothing);
    let v2 = publish(&world, "1.1.0", 2);
    for number in 3..=5 {
        publish(&world, &format!("1.{number}.0"), number);
    }
    let _archived = world.signer(&["release", "archive", "--keep", "1"]).ok();
    let closed = roles(&world);
    assert_eq!(closed, ["history-1", "history-1", "history-2", "history-2", "targets"]);

    let report = follows.update(&[], "b");
    assert_eq!(report["version"], "1.5.0", "{report}");
    follows.disk.expect(confirmed(1), confirmed(2));

    // By its name, in a role that the node never read.
    let _staged = pinned.update(&["--version", "1.1.0"], "b");
    pinned.expect_slot("b", &v2);

    // A node that runs an old release is told what is said of it now.
    let because = ["--product", PRODUCT, "--because", "loses data"];
    let _done = world.signer(&[&["release", "withdraw", "1.1.0"][..], &because].concat()).ok();
    let check = pinned.agent(&["check"]).finish().exits(Exit::Done).json();
    assert_eq!(check["withdrawn"]["version"], "1.1.0", "{check}");
    assert_eq!(roles(&world)[1], "history-1");
    let _staged = pinned.update(&[], "a");
    assert_eq!(pinned.status()["withdrawn"], serde_json::Value::Null);
}

/// Of these roles, those whose metadata a node keeps: it read them. In the record of what it trusts, a
/// file of a delegated role begins with 5 and the length of its name.
fn read_by(node: &Node) -> Vec<&'static str> {
    let files = std::fs::read_dir(node.state()).expect("the state of the node").flatten();
    let kept: Vec<Vec<u8>> = files
        .filter(|it| it.file_name().to_string_lossy().starts_with("trust"))
        .filter_map(|it| std::fs::read(it.path()).ok())
        .collect();
    assert!(!kept.is_empty(), "the record is elsewhere by now");
    let has = |role: &&str| {
        let begin = [&[5, role.len() as u8, 0], role.as_bytes()].concat();
        kept.iter().any(|file| file.windows(begin.len()).any(|part| part == begin))
    };
    ["history", "history-1", "history-2", "history-recent"].into_iter().filter(has).collect()
}

#[test]
fn nobody_reads_the_history_without_asking_for_an_old_release() {
    let world = World::with_repository();
    let source = world.repository().reference();
    for number in 1..=3 {
        publish(&world, &format!("1.{number}.0"), number);
    }
    let v4 = publish(&world, "1.4.0", 4);
    let new = Node::from_factory(&world, "new", &v4, &source);
    let _archived = world.signer(&["release", "archive", "--keep", "2"]).ok();
    publish(&world, "1.5.0", 5);
    let _offered = new.agent(&["check"]).finish().exits(Exit::Done);
    assert_eq!(read_by(&new), [""; 0], "it runs, and is offered, what is in targets");
    let absent = new.agent(&["apply", "--version", "9.9.9"]).finish();
    absent.refused(Reason::TargetNotFound);
    assert_eq!(read_by(&new), ["history", "history-recent"]);
}
