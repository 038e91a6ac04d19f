//! The floor in a TPM: an old disk put back, a TPM cleared, gone, or used by others before. The TPM is
//! swtpm, which other people wrote; raw commands through its socket, no kernel needed.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use formats::reason::{Exit, Reason};
use racklet_tests::rig::{Node, Release, World};
use update_agent::tpm::{Counter, Found};

/// A TPM in software, with its state in a folder of the node.
struct Tpm {
    child: Child,
    dir: PathBuf,
}

impl Tpm {
    fn start(node: &Node) -> Self {
        let dir = node.path("tpm");
        if !dir.exists() {
            fs::create_dir(&dir).expect("make the TPM's folder");
        }
        let socket = node.path("tpm/sock");
        let _absent = fs::remove_file(&socket);
        let child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
            .arg("--tpmstate")
            .arg(format!("dir={}", dir.display()))
            .arg("--server")
            .arg(format!("type=unixio,path={}", socket.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("swtpm is missing: install the package swtpm (`cargo xtask setup` does)");
        let until = Instant::now() + Duration::from_secs(120);
        while !socket.exists() {
            assert!(Instant::now() < until, "swtpm does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Tpm { child, dir }
    }

    /// Power off. Its memory stays.
    fn stop(mut self) -> PathBuf {
        self.end();
        self.dir.clone()
    }

    fn end(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        self.end();
    }
}

/// What a TPM that was cleared remembers.
fn clear(tpm: Tpm, node: &Node) -> Tpm {
    let dir = tpm.stop();
    fs::remove_dir_all(dir).expect("clear the TPM");
    Tpm::start(node)
}

const INDEX: u32 = 0x0180_5241;

fn with_tpm(node: &Node) {
    node.reconfigure("[health]\n", "[floor]\ntpm = \"tpm/sock\"\n\n[health]\n");
}

fn floor(node: &Node) -> (u64, String, bool) {
    let status = node.status();
    let floor = &status["floor"];
    let number = floor["security_version"].as_u64().expect("a number");
    let kept_in = floor["kept_in"].as_str().expect("a word").to_owned();
    (number, kept_in, floor["older_state"].as_bool().expect("yes or no"))
}

/// A release on channel stable, with its own security version.
fn publish(world: &World, version: &str, number: u64) -> Release {
    let release = world.release(version, number);
    let number = number.to_string();
    world.publish(&release, &["--channel", "stable", "--security-version", &number]);
    release
}

/// A node whose floor is 3, and what a thief or a careful operator copied of it when it was 0.
fn node_and_copy(world: &World, tpm: bool) -> (Node, Option<Tpm>, PathBuf, Vec<&str>) {
    let v1 = publish(world, "1.0.0", 1);
    let node = Node::from_factory(world, "node", &v1, &world.repository().reference());
    let tpm = tpm.then(|| {
        with_tpm(&node);
        Tpm::start(&node)
    });
    publish(world, "1.1.0", 2);
    node.update(&[], "b");
    let copy = world.path("copy");
    fs::create_dir(&copy).expect("make a folder");
    for name in ["disk.img", "cmdline"] {
        fs::copy(node.path(name), copy.join(name)).expect("copy the disk");
    }
    copy_state(&node.state(), &copy.join("state"));
    // Newer by its version, older by its security version: say, an old branch with an old hole.
    let old_branch = world.release("1.1.5", 2);
    world.publish(&old_branch, &["--security-version", "2"]);
    for (version, number, slot) in [("1.2.0", 3, "a"), ("1.3.0", 4, "b")] {
        publish(world, version, number);
        node.update(&[], slot);
    }
    (node, tpm, copy, vec!["disk.img", "cmdline"])
}

fn copy_state(from: &std::path::Path, to: &std::path::Path) {
    let options = ["-a", "--no-target-directory"];
    let done = Command::new("cp").args(options).arg(from).arg(to).status().expect("run cp");
    assert!(done.success());
}

fn put_back(node: &Node, copy: &std::path::Path, files: &[&str]) {
    for name in files {
        fs::copy(copy.join(name), node.path(name)).expect("put the disk back");
    }
    fs::remove_dir_all(node.state()).expect("remove the state");
    copy_state(&copy.join("state"), &node.state());
}

#[test]
fn an_old_disk_put_back_is_noticed_and_older_releases_are_refused() {
    let world = World::with_repository();
    let (node, tpm, copy, files) = node_and_copy(&world, true);
    let tpm = tpm.expect("asked for");
    assert_eq!(floor(&node), (3, "tpm".to_owned(), false));
    put_back(&node, &copy, &files);
    assert_eq!(node.boot(), "b", "it boots: nothing is bricked");
    assert_eq!(floor(&node), (3, "tpm".to_owned(), true), "the floor is the TPM's");
    let output = node.agent_in_words(&["doctor"]).finish().output();
    assert!(output.contains("an old disk was put back"), "{output}");
    node.agent(&["apply", "--version", "1.1.5"]).finish().refused(Reason::SecverFloor);
    // Noticed for good, and newer releases install.
    assert!(node.status()["floor"]["older_since"].is_u64());
    node.update(&["--version", "1.3.0"], "a");
    assert_eq!(floor(&node).0, 3);
    drop(tpm);
}

/// What the same copy does on a node without a TPM: the test above can fail.
#[test]
fn without_a_tpm_an_old_disk_lowers_the_floor_and_status_says_that_it_may() {
    let world = World::with_repository();
    let (node, _, copy, files) = node_and_copy(&world, false);
    assert_eq!(floor(&node), (3, "file".to_owned(), false));
    assert!(
        node.status()["floor"]["guarantee"].as_str().is_some_and(|g| g.contains("replaced disk"))
    );
    put_back(&node, &copy, &files);
    assert_eq!(node.boot(), "b");
    assert_eq!(floor(&node).0, 0);
    node.update(&["--version", "1.1.5"], "a");
}

#[test]
fn a_cleared_tpm_refuses_updates_and_nothing_else() {
    let world = World::with_repository();
    let (node, tpm, ..) = node_and_copy(&world, true);
    publish(&world, "1.4.0", 5);
    // On trial when it happens: it is still confirmed.
    node.apply(&[]);
    assert_eq!(node.boot(), "a");
    let tpm = clear(tpm.expect("asked for"), &node);
    let done = node.run_once().exits(Exit::Done).json();
    assert_eq!(done["did"], "confirmed", "{done}");
    assert_eq!(floor(&node), (4, "lost".to_owned(), false), "the file's floor stands");
    publish(&world, "1.5.0", 6);
    for _ in 0..2 {
        node.agent(&["apply"]).finish().refused(Reason::FloorLost);
    }
    let output = node.agent_in_words(&["doctor"]).finish().output();
    assert!(output.contains("floor --renew"), "{output}");
    let _lost = node.agent(&["floor"]).finish().exits(Reason::FloorLost.exit());
    // Reverting is always possible.
    node.agent(&["revert", "--reason", "because it can"]).ok();
    assert_eq!(node.boot(), "b");
    let renewed = node.agent(&["floor", "--renew"]).ok().json();
    assert_eq!((&renewed["kept_in"], &renewed["security_version"]), (&"tpm".into(), &4.into()));
    node.update(&[], "a");
    assert_eq!(floor(&node).1, "tpm");
    drop(tpm);
}

#[test]
fn a_tpm_that_is_gone_refuses_updates_and_nothing_else() {
    let world = World::with_repository();
    let (node, tpm, ..) = node_and_copy(&world, true);
    publish(&world, "1.4.0", 5);
    let _dir = tpm.expect("asked for").stop();
    node.agent(&["apply"]).finish().refused(Reason::FloorLost);
    assert_eq!(floor(&node).1, "lost");
    assert_eq!(node.boot(), "b");
    let _polled = node.run_once().exits(Exit::Done);
    node.agent(&["revert"]).ok();
    // It comes back, with its memory.
    let tpm = Tpm::start(&node);
    assert_eq!(node.boot(), "a");
    assert_eq!(floor(&node), (3, "tpm".to_owned(), false));
    node.update(&["--retry"], "b");
    drop(tpm);
}

#[test]
fn a_tpm_with_a_past_counts_from_where_it_stands() {
    let world = World::with_repository();
    let v1 = publish(&world, "1.0.0", 1);
    let node = Node::from_factory(&world, "node", &v1, &world.repository().reference());
    with_tpm(&node);
    let tpm = Tpm::start(&node);
    let socket = node.path("tpm/sock");
    {
        let mut others = Counter::open(&socket, INDEX + 1, Vec::new()).expect("open");
        let (_, value) = others.make(0).expect("make");
        others.raise(value, 40).expect("count");
        // Deleted and made anew: what a TPM counted once it never counts again.
        let (again, _) = others.make(0).expect("make it again");
        assert!(again.base > 41, "{again:?}");
    }
    for (version, number, slot) in [("1.1.0", 7, "b"), ("1.2.0", 9, "a")] {
        publish(&world, version, number);
        node.update(&[], slot);
    }
    assert_eq!(floor(&node), (7, "tpm".to_owned(), false));
    let mut ours = Counter::open(&socket, INDEX, Vec::new()).expect("open");
    let Ok(Found::Counter { mark, value }) = ours.look() else { panic!("no counter") };
    assert!(mark.base > 41, "a TPM never begins below what it counted: {mark:?}");
    assert_eq!(mark.floor(value), Some(7));
    // swtpm serves one client at a time.
    drop(ours);
    // A leap that would wear the TPM out is refused before anything is written.
    let leap = world.release("1.3.0", 10);
    world.publish(&leap, &["--channel", "stable", "--security-version", "9000000"]);
    node.agent(&["apply"]).finish().refused(Reason::MetaLimit);
    drop(tpm);
}
