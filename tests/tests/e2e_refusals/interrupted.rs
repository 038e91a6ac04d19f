//! A second agent, and `kill -9`, Ctrl-C and SIGTERM in the middle.

use formats::reason::{Exit, Reason};
use racklet_tests::rig::{
    Before, CLEAR, NAMESPACE, Node, PRODUCT, Release, RepoServer, Tap, UNRELATED, World, confirmed,
    program,
};
use rustix::process::Signal;

/// What a kill may cost: a part of a large frame, which is verified as a whole (512 KiB), and what is
/// on its way (four requests of 256 KiB).
const LOST: u64 = 2 << 20;

/// A node that is offered 1.1.0 over TLS, through a tap.
struct Tapped {
    world: World,
    v1: Release,
    v2: Release,
    tap: Tap,
    node: Node,
    _server: RepoServer,
}

impl Tapped {
    #[track_caller]
    fn new() -> Self {
        let world = World::with_repository();
        let (v1, v2) = (world.publish_stable("1.0.0", UNRELATED), world.publish_stable("1.1.0", 2));
        let server = RepoServer::start(&world);
        let tap = Tap::to(&server.authority);
        let source = format!("docker://{}/{NAMESPACE}", tap.authority);
        let node = Node::from_factory(&world, "node", &v1, &source);
        // Trust is refreshed, so that what follows on the line is the image.
        let _checked = node.agent(&["check"]).ok();
        Tapped { world, v1, v2, tap, node, _server: server }
    }

    /// Compressed bytes of both images.
    #[track_caller]
    fn compressed(&self) -> u64 {
        let blob = |component| self.world.repository().image_blob("demo:1.1.0", component);
        let len = |component| std::fs::metadata(blob(component)).expect("a blob").len();
        len("os") + len("firmware")
    }
}

#[test]
fn second_agent_at_the_same_time() {
    let it = Tapped::new();
    it.tap.stop_after(1 << 20);
    let first = it.node.agent(&["apply"]).start();
    it.tap.await_stop();

    let before = Before::of(&it.node, "a");
    for args in
        [&["apply"][..], &["confirm"], &["revert"], &["plan"], &["check"], &["run", "--once"]]
    {
        it.node.agent(args).finish().refused(Reason::Busy);
    }
    before.untouched(&it.node, "MBF");
    // Reading never waits.
    let status = it.node.status();
    assert_eq!(status["standing"], "interrupted", "{status}");
    let _history = it.node.agent(&["history"]).ok();
    assert!(status["last_error"].is_null(), "a busy agent is no error of the node: {status}");

    it.tap.open();
    let report = first.finish().exits(Exit::Done).json();
    assert_eq!(report["version"], "1.1.0", "{report}");
    it.node.expect_slot("b", &it.v2);
}

#[test]
fn killed_while_writing_then_resumed() {
    // Where the line stops: at the documents, at the first chunks, in the middle, near the end.
    for thousandths in [1, 100, 500, 950] {
        let it = Tapped::new();
        let whole = it.compressed();
        let before = Before::of(&it.node, "a");
        it.tap.stop_after(whole * thousandths / 1000);
        let killed = it.node.agent(&["apply"]).start();
        it.tap.await_stop();
        killed.await_idle();
        killed.kill();
        it.tap.open();

        it.node.disk.expect(confirmed(1), CLEAR);
        before.untouched(&it.node, "F");
        assert_eq!(it.node.boot(), "a", "{thousandths}: the boot after the cut");
        let cut = it.tap.passed();

        // A killed agent never blocks the next (S10), and what it wrote is not fetched again.
        let report = it.node.update(&[], "b");
        it.node.expect_slot("b", &it.v2);
        it.node.expect_slot("a", &it.v1);
        it.node.disk.expect(confirmed(1), confirmed(2));
        let resumed = report["fetched"].as_u64().expect("a number");
        // What was received but not yet written is lost.
        let saved = (whole * thousandths / 1000).saturating_sub(LOST);
        assert!(
            resumed <= whole - saved,
            "cut at {thousandths} ‰ of {whole}, then fetched {resumed}: {report}"
        );
        let passed = it.tap.passed() - cut;
        assert!(passed < resumed + 250_000, "{passed} bytes passed, {resumed} were told");
    }
}

#[test]
fn killed_again_and_again() {
    let it = Tapped::new();
    let whole = it.compressed();
    let before = it.tap.passed();
    for _ in 0..4 {
        // Four sixths in all: the line stops each time, whatever is fetched twice.
        it.tap.stop_after(whole / 6);
        let killed = it.node.agent(&["apply"]).start();
        it.tap.await_stop();
        killed.await_idle();
        killed.kill();
        it.tap.open();
        it.node.disk.expect(confirmed(1), CLEAR);
        assert_eq!(it.node.status()["standing"], "interrupted");
    }
    it.node.update(&[], "b");
    it.node.expect_slot("b", &it.v2);
    let passed = it.tap.passed() - before;
    assert!(passed < whole + 4 * LOST, "{passed} bytes passed for an image of {whole}");
}

#[test]
fn killed_then_another_release() {
    let it = Tapped::new();
    // Whatever a kill costs, much of it is there.
    it.tap.stop_after(it.compressed() * 9 / 10);
    let killed = it.node.agent(&["apply"]).start();
    it.tap.await_stop();
    killed.await_idle();
    killed.kill();
    it.tap.open();
    // The half-written slot is of use to the next release, but never taken for it.
    let v3 = it.world.publish_stable("1.2.0", 3);
    let report = it.node.update(&[], "b");
    assert_eq!(report["version"], "1.2.0", "{report}");
    it.node.expect_slot("b", &v3);
    let fetched = report["fetched"].as_u64().expect("a number");
    assert!(fetched < it.compressed() * 4 / 5, "nothing was reused: {report}");
}

#[test]
fn connection_lost_while_writing() {
    let it = Tapped::new();
    // The server goes away for good; the bundle on a stick completes what it began.
    let bundle = it.world.path("usb.tar");
    it.world.bundle("1.1.0", &bundle);
    it.tap.stop_after(it.compressed() / 2);
    let first = it.node.agent(&["apply"]).start();
    it.tap.await_stop();
    first.await_idle();
    first.kill();
    let report = it.node.update(&[&bundle.display().to_string()], "b");
    it.node.expect_slot("b", &it.v2);
    let reused = report["reused"].as_u64().expect("a number");
    assert!(reused > 1 << 20, "what was written before is not used: {report}");
}

#[test]
fn ctrl_c_says_what_stands_and_apply_goes_on_from_there() {
    let stands = [
        "slot b is not next, and keeps what was written",
        "`update-agent apply` goes on from here",
    ];
    for (signal, json) in [(Signal::INT, false), (Signal::TERM, true)] {
        let it = Tapped::new();
        let whole = it.compressed();
        it.tap.stop_after(whole / 2);
        let apply =
            if json { it.node.agent(&["apply"]) } else { it.node.agent_in_words(&["apply"]) };
        let apply = apply.at_a_terminal().start();
        it.tap.await_stop();
        apply.await_idle();
        apply.signal(signal);
        apply.finish().interrupted(signal, stands, json);
        it.tap.open();

        it.node.disk.expect(confirmed(1), CLEAR);
        let status = it.node.status();
        assert_eq!(status["standing"], "interrupted", "{status}");
        assert!(
            status["last_error"].is_null(),
            "whoever ends it is no error of the node: {status}"
        );
        let report = it.node.update(&[], "b");
        let resumed = report["fetched"].as_u64().expect("a number");
        assert!(
            resumed <= whole - (whole / 2).saturating_sub(LOST),
            "{resumed} of {whole}: {report}"
        );
    }
}

#[test]
fn ctrl_c_before_anything_is_written_says_that_nothing_was() {
    for command in ["check", "plan", "apply"] {
        let it = Tapped::new();
        it.tap.stop_after(1);
        let running = it.node.agent(&[command]).at_a_terminal().start();
        it.tap.await_stop();
        running.await_idle();
        running.signal(Signal::INT);
        let said = ["no slot was changed", "run it again"];
        running.finish().interrupted(Signal::INT, said, true);
        it.tap.open();
        let _lock_released = it.node.agent(&["plan"]).ok();
    }
}

/// Beside the bundle that was there lies no other, and no part of one.
#[test]
fn ctrl_c_leaves_no_part_of_a_bundle() {
    let it = Tapped::new();
    let stick = it.world.path("stick");
    std::fs::create_dir(&stick).expect("a folder");
    let bundle = stick.join("usb.tar");
    it.world.bundle("1.0.0", &bundle);
    let before = std::fs::read(&bundle).expect("the bundle");
    it.tap.stop_after(it.compressed() / 2);
    let reference = format!("docker://{}/{NAMESPACE}", it.tap.authority);
    let running = program("signer")
        .args([
            "bundle",
            "--json",
            "--product",
            PRODUCT,
            "--version",
            "1.1.0",
            "--repo",
            &reference,
        ])
        .arg("--ca")
        .arg(it.world.path("ca.pem"))
        .arg("--keys")
        .arg(it.world.path("keys"))
        .arg("-o")
        .arg(&bundle)
        .at_a_terminal()
        .start();
    it.tap.await_stop();
    running.await_idle();
    running.signal(Signal::TERM);
    let said = ["the bundle is not complete", "run it again"];
    running.finish().interrupted(Signal::TERM, said, true);
    it.tap.open();
    let left: Vec<_> = std::fs::read_dir(&stick).expect("the folder").flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(std::fs::read(&bundle).expect("the bundle") == before);
}
