//! The floor in a TPM: an old disk put back, a TPM cleared, gone, or used by others before. The TPM is
//! swtpm, which other people wrote; raw commands through its socket, no kernel needed.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use formats::reason::{Exit, Reason};
use formats::tpm::{Command as ToTpm, Mark, Shape, TpmError, parse_counter, parse_done};
use racklet_tests::rig::{Node, Release, World};
use storage::files::PrivateDir;
use storage::record;
use update_agent::tpm::{Counter, Found, Keys};
use update_core::floor::Hold;

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
        // There is a moment between its name and its first connection, in which it refuses.
        while UnixStream::connect(&socket).is_err() {
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

/// The machine restarts: the TPM keeps its memory, and what was locked opens.
fn restart(tpm: Tpm, node: &Node) -> Tpm {
    drop(tpm);
    Tpm::start(node)
}

/// An update through a real restart: apply, boot, confirm.
fn update(node: &Node, tpm: Tpm, args: &[&str], slot: &str) -> Tpm {
    let report = node.apply(args);
    assert_eq!(report["slot"], slot, "the slot that was written: {report}");
    let tpm = restart(tpm, node);
    assert_eq!(node.boot(), slot, "the slot on trial");
    let done = node.run_once().exits(Exit::Done).json();
    assert_eq!(done["did"], "confirmed", "{done}");
    tpm
}

/// Another program of this machine that may open the TPM, and knows no password: the owner's is empty,
/// as on most machines.
struct Stranger(UnixStream);

impl Stranger {
    fn open(node: &Node) -> Self {
        Stranger(UnixStream::connect(node.path("tpm/sock")).expect("open the TPM"))
    }

    fn send(&mut self, command: ToTpm<'_>) -> Vec<u8> {
        self.0.write_all(&command.to_bytes()).expect("send a command");
        let mut answer = vec![0; 4096];
        let len = self.0.read(&mut answer).expect("read the answer");
        answer.truncate(len);
        answer
    }

    /// Counts with a password.
    fn count(&mut self, secret: &[u8]) -> Result<(), TpmError> {
        parse_done(&self.send(ToTpm::Increment { index: INDEX, secret }))
    }

    fn remove(&mut self, index: u32) {
        parse_done(&self.send(ToTpm::Undefine { index, owner: b"" })).expect("delete an index");
    }

    /// A counter, and what it stands for when it was made and counted `steps` times.
    fn define(&mut self, shape: Shape<'_>, secret: &[u8], steps: u64) -> u64 {
        parse_done(&self.send(ToTpm::Define { index: INDEX, shape, owner: b"" })).expect("define");
        for _ in 0..=steps {
            self.count(secret).expect("count");
        }
        parse_counter(&self.send(ToTpm::Read { index: INDEX, secret })).expect("read")
    }
}

/// The counter that an agent made before counters were guarded: the same floor, and open to everybody.
fn age(node: &Node, mark: Mark, steps: u64) {
    let mut tpm = Stranger::open(node);
    tpm.remove(INDEX);
    tpm.remove(INDEX + 1);
    let value = tpm.define(Shape::Open(mark), b"", 0);
    tpm.remove(INDEX);
    let made = tpm.define(Shape::Open(Mark { base: value + 1, ..mark }), b"", steps);
    assert_eq!(made, value + 1 + steps, "a TPM counts on from where it was");
    drop(tpm);
    // The record of that agent: the counter of then, and no secret.
    fs::remove_file(node.state().join("tpm-secret.0")).expect("remove the secret");
    fs::remove_file(node.state().join("tpm-secret.1")).expect("remove the secret");
    let floor = serde_json::json!({
        "security_version": mark.origin + steps,
        "tpm": { "index": INDEX, "base": value + 1, "origin": mark.origin, "counter": made },
    });
    let dir = PrivateDir::open(&node.state()).expect("open the state");
    record::write(&dir, "floor", floor.to_string().as_bytes()).expect("write the floor");
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
    let tpm = update_with(&node, tpm, "b");
    let copy = world.path("copy");
    fs::create_dir(&copy).expect("make a folder");
    for name in ["disk.img", "cmdline"] {
        fs::copy(node.path(name), copy.join(name)).expect("copy the disk");
    }
    copy_state(&node.state(), &copy.join("state"));
    // Newer by its version, older by its security version: say, an old branch with an old hole.
    let old_branch = world.release("1.1.5", 2);
    world.publish(&old_branch, &["--security-version", "2"]);
    let mut tpm = tpm;
    for (version, number, slot) in [("1.2.0", 3, "a"), ("1.3.0", 4, "b")] {
        publish(world, version, number);
        tpm = update_with(&node, tpm, slot);
    }
    (node, tpm, copy, vec!["disk.img", "cmdline"])
}

fn update_with(node: &Node, tpm: Option<Tpm>, slot: &str) -> Option<Tpm> {
    match tpm {
        Some(tpm) => Some(update(node, tpm, &[], slot)),
        None => {
            node.update(&[], slot);
            None
        }
    }
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
    let mut tpm = tpm.expect("asked for");
    assert_eq!(floor(&node), (3, "tpm".to_owned(), false));
    tpm = restart(tpm, &node);
    put_back(&node, &copy, &files);
    assert_eq!(node.boot(), "b", "it boots: nothing is bricked");
    assert_eq!(floor(&node), (3, "tpm".to_owned(), true), "the floor is the TPM's");
    let output = node.agent_in_words(&["doctor"]).finish().output();
    assert!(output.contains("an old disk was put back"), "{output}");
    node.agent(&["apply", "--version", "1.1.5"]).finish().refused(Reason::SecverFloor);
    // Noticed for good, and newer releases install.
    assert!(node.status()["floor"]["older_since"].is_u64());
    tpm = update(&node, tpm, &["--version", "1.3.0"], "a");
    assert_eq!(floor(&node).0, 3);
    let _polled = node.run_once();
    assert_eq!(update_agent_floor(&node), 3, "the file follows as far as what runs");
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
    let mut tpm = clear(tpm.expect("asked for"), &node);
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
    tpm = update(&node, tpm, &[], "a");
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
    drop(update(&node, tpm, &["--retry"], "b"));
}

#[test]
fn a_tpm_with_a_past_counts_from_where_it_stands() {
    let world = World::with_repository();
    let v1 = publish(&world, "1.0.0", 1);
    let node = Node::from_factory(&world, "node", &v1, &world.repository().reference());
    with_tpm(&node);
    let mut tpm = Tpm::start(&node);
    let socket = node.path("tpm/sock");
    {
        let keys = Keys { owner: Vec::new(), secret: Some(b"theirs".to_vec()) };
        let mut others = Counter::open(&socket, INDEX + 2, keys).expect("open");
        let (_, value) = others.make(0).expect("make");
        others.raise(value, 40, Hold::Own).expect("count");
        // Deleted and made anew: what a TPM counted once it never counts again.
        let (again, _) = others.make(0).expect("make it again");
        assert!(again.base > 41, "{again:?}");
    }
    for (version, number, slot) in [("1.1.0", 7, "b"), ("1.2.0", 9, "a")] {
        publish(&world, version, number);
        tpm = update(&node, tpm, &[], slot);
    }
    assert_eq!(floor(&node), (7, "tpm".to_owned(), false));
    let mut ours = Counter::open(&socket, INDEX, Keys::default()).expect("open");
    let Ok(Found::Counter { mark, value, hold, locked }) = ours.look() else {
        panic!("no counter")
    };
    assert_eq!((hold, locked), (Hold::Unknown, true), "who has no secret reads, after the boot");
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

/// The floor of the file alone.
fn update_agent_floor(node: &Node) -> u64 {
    let dir = PrivateDir::open(&node.state()).expect("open the state");
    let found = record::read(&dir, "floor").expect("read").expect("a floor");
    let floor = formats::boot_record::Floor::parse(&found.record.payload).expect("a floor");
    floor.security_version
}

fn secret(node: &Node) -> Vec<u8> {
    let dir = PrivateDir::open(&node.state()).expect("open the state");
    record::read(&dir, "tpm-secret").expect("read").expect("a secret").record.payload
}

/// Another program can open the TPM, and cannot count: not without the secret, and after the boot has
/// settled not with it either. The next boot counts again.
#[test]
fn another_process_cannot_count_and_nobody_after_the_boot() {
    let world = World::with_repository();
    let (node, tpm, ..) = node_and_copy(&world, true);
    let mut tpm = tpm.expect("asked for");
    let secret = secret(&node);
    let mode = fs::metadata(node.state().join("tpm-secret.0")).expect("the secret's file");
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    let mut stranger = Stranger::open(&node);
    assert!(matches!(stranger.count(b""), Err(TpmError::Auth(_))));
    assert!(matches!(stranger.count(b"guessed"), Err(TpmError::Auth(_))));
    assert_eq!(stranger.count(&secret), Err(TpmError::Locked), "the agent has settled");
    drop(stranger);
    tpm = restart(tpm, &node);
    let mut stranger = Stranger::open(&node);
    assert!(matches!(stranger.count(b""), Err(TpmError::Auth(_))), "before the agent runs");
    drop(stranger);
    assert_eq!(floor(&node), (3, "tpm".to_owned(), false));
    publish(&world, "1.4.0", 5);
    tpm = update(&node, tpm, &[], "a");
    assert_eq!(floor(&node), (4, "tpm".to_owned(), false));
    drop(tpm);
}

/// Who has the owner's password, which is empty on most machines, can replace the counter. That is noticed,
/// never believed, and ends with a node that updates.
#[test]
fn a_counter_that_was_replaced_is_not_believed_and_can_be_renewed() {
    let world = World::with_repository();
    let (node, tpm, ..) = node_and_copy(&world, true);
    let mut tpm = tpm.expect("asked for");
    publish(&world, "1.4.0", 5);
    let own = {
        let mut counter =
            Counter::open(&node.path("tpm/sock"), INDEX, Keys::default()).expect("open");
        let Ok(Found::Counter { mark, .. }) = counter.look() else { panic!("no counter") };
        mark
    };
    // Of the same form, with the mark left as it was: ahead by what the TPM counted since.
    let mut stranger = Stranger::open(&node);
    stranger.remove(INDEX);
    let value = stranger.define(Shape::Counter(b"theirs"), b"theirs", 0);
    drop(stranger);
    assert!(own.floor(value).is_some_and(|claimed| claimed > 3), "{value} claims more");
    expect_renewal(&node, 3);
    tpm = update(&node, tpm, &[], "a");
    assert_eq!(floor(&node).1, "tpm");
    // With another mark: a million releases ahead.
    publish(&world, "1.5.0", 6);
    let mut stranger = Stranger::open(&node);
    stranger.remove(INDEX);
    stranger.remove(INDEX + 1);
    let value = stranger.define(Shape::Counter(b"theirs"), b"theirs", 0);
    let shape = Shape::Mark(Mark { base: value, origin: 1_000_000 });
    let defined = stranger.send(ToTpm::Define { index: INDEX + 1, shape, owner: b"" });
    parse_done(&defined).expect("define the mark");
    drop(stranger);
    let before = floor(&node).0;
    expect_renewal(&node, before);
    drop(tpm);
}

/// Updates stop with a name, nothing is believed, and one command mends it.
fn expect_renewal(node: &Node, number: u64) {
    for _ in 0..2 {
        let _polled = node.run_once();
        let _lost = node.agent(&["floor"]).finish().exits(Reason::FloorLost.exit());
        assert_eq!(floor(node), (number, "lost".to_owned(), false));
        assert_eq!(update_agent_floor(node), number, "the file");
        node.agent(&["apply"]).finish().refused(Reason::FloorLost);
    }
    let output = node.agent_in_words(&["doctor"]).finish().output();
    assert!(output.contains("floor --renew"), "{output}");
    let renewed = node.agent(&["floor", "--renew"]).ok().json();
    assert_eq!(
        (&renewed["kept_in"], &renewed["security_version"]),
        (&"tpm".into(), &number.into())
    );
}

/// A counter of an older agent goes on working, `doctor` names it, and what others count in it is not
/// believed beyond what runs.
#[test]
fn an_open_counter_is_named_and_not_believed_beyond_what_runs() {
    let world = World::with_repository();
    let (node, tpm, ..) = node_and_copy(&world, true);
    let mut tpm = tpm.expect("asked for");
    // 1.3.0 with security version 4 runs, 1.2.0 with 3 is behind it.
    age(&node, Mark { base: 0, origin: 1 }, 2);
    assert_eq!(floor(&node), (3, "tpm".to_owned(), false), "it works as it did");
    let output = node.agent_in_words(&["doctor"]).finish().output();
    assert!(output.contains("weak floor") && output.contains("floor --renew"), "{output}");
    publish(&world, "1.4.0", 5);
    tpm = update(&node, tpm, &[], "a");
    assert_eq!(floor(&node), (4, "tpm".to_owned(), false), "it is raised as it was");
    publish(&world, "1.5.0", 6);
    // As far as what runs: no harm is done.
    Stranger::open(&node).count(b"").expect("everybody counts");
    let _polled = node.run_once();
    assert_eq!((floor(&node).1, update_agent_floor(&node)), ("tpm".to_owned(), 5));
    // Beyond it.
    Stranger::open(&node).count(b"").expect("everybody counts");
    expect_renewal(&node, 5);
    let mut stranger = Stranger::open(&node);
    assert!(matches!(stranger.count(b""), Err(TpmError::Auth(_))), "it is guarded now");
    drop(stranger);
    let tpm = update(&node, tpm, &[], "b");
    assert_eq!(floor(&node).1, "tpm");
    drop(tpm);
}

/// What an older agent wrote into its file after others had counted: a floor above everything there is.
/// `floor --renew` after clearing the TPM ends it, with a node that updates.
#[test]
fn a_floor_that_others_raised_ends_with_a_node_that_updates() {
    let world = World::with_repository();
    let (node, tpm, ..) = node_and_copy(&world, true);
    let tpm = tpm.expect("asked for");
    age(&node, Mark { base: 0, origin: 1 }, 3000);
    assert_eq!(floor(&node), (3001, "tpm".to_owned(), false));
    publish(&world, "1.4.0", 5);
    node.agent(&["apply"]).finish().refused(Reason::SecverFloor);
    let tpm = clear(tpm, &node);
    let _lost = node.agent(&["floor"]).finish().exits(Reason::FloorLost.exit());
    let renewed = node.agent(&["floor", "--renew"]).ok().json();
    assert_eq!(renewed["security_version"], 4, "that of what runs: {renewed}");
    let tpm = update(&node, tpm, &[], "a");
    assert_eq!(floor(&node), (4, "tpm".to_owned(), false));
    drop(tpm);
}

/// Ahead with the secret: an older state, or somebody who was root. Older releases are refused, the file
/// follows no further than what runs, and further than releases go nothing is believed.
#[test]
fn a_counter_ahead_of_what_runs_does_not_raise_the_file() {
    let world = World::with_repository();
    let (node, tpm, ..) = node_and_copy(&world, true);
    let mut tpm = restart(tpm.expect("asked for"), &node);
    let secret = secret(&node);
    let count = |steps| {
        let mut stranger = Stranger::open(&node);
        for _ in 0..steps {
            stranger.count(&secret).expect("count");
        }
    };
    count(2);
    assert_eq!(floor(&node), (5, "tpm".to_owned(), true));
    let _polled = node.run_once();
    assert_eq!((floor(&node).0, update_agent_floor(&node)), (5, 4), "1.3.0 with 4 runs");
    publish(&world, "1.4.0", 5);
    tpm = update(&node, tpm, &[], "a");
    assert_eq!((floor(&node), update_agent_floor(&node)), ((5, "tpm".to_owned(), true), 4));
    tpm = restart(tpm, &node);
    count(update_core::floor::STEPS_LIMIT + 1);
    publish(&world, "1.5.0", 6);
    expect_renewal(&node, 4);
    drop(update(&node, tpm, &[], "b"));
}

/// A flipped bit in either copy of the floor lowers nothing, whoever looks; it is named and mended.
#[test]
fn a_damaged_copy_of_the_floor_is_named_and_mended() {
    let world = World::with_repository();
    let (node, ..) = node_and_copy(&world, false);
    for file in ["floor.0", "floor.1"] {
        let path = node.state().join(file);
        let whole = fs::read(&path).expect("read the floor");
        let mut bytes = whole.clone();
        bytes[20] ^= 4;
        fs::write(&path, &bytes).expect("damage it");
        assert_eq!(floor(&node).0, 3, "{file}");
        let output = node.agent_in_words(&["doctor"]).finish().output();
        assert!(output.contains(&format!("{file} is damaged")), "{output}");
        assert_eq!(fs::read(&path).expect("read the floor"), bytes, "looking changes nothing");
        let run = node.agent_in_words(&["run", "--once"]).finish();
        assert!(run.stderr.contains(&format!("{file} is damaged")), "{}", run.output());
        assert_eq!(fs::read(&path).expect("read the floor"), whole, "{file} is mended");
        assert_eq!(floor(&node).0, 3, "{file}");
    }
}
