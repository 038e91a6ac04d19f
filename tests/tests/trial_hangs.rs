//! A trial whose storage hangs: a call to the kernel that does not return, as on a dead disk or network file
//! system. The real program, whose calls strace holds; and `restart-trial`, which comes when an agent is given up.
//!
//! No restart here is real: the kernel is never asked where files stand for the boot's own. A guard fires a minute
//! after the deadline of the trial, so its tests take that long; they wait beside each other.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use formats::reason::Exit;
use racklet_tests::rig::{Node, Run, Running, TRIES, World, confirmed, tool, trial};
use rustix::process::{Pid, Signal, kill_process};

/// Twice the grace of the guard, and more.
const PATIENCE: Duration = Duration::from_secs(200);

/// A node whose slot b is on trial, restarted by this command, whose requests follow each other quickly.
fn on_trial(world: &World, reboot: &str) -> Node {
    let node = Node::with_next(world);
    let asked = format!("[\"touch\", {:?}]", node.path("reboot-asked"));
    let forced = format!("[\"touch\", {:?}]", node.path("forced"));
    let lines = format!("{reboot}\nreboot_wait = \"1s\"\nforced_reboot_command = {forced}");
    node.reconfigure(&asked, &lines);
    assert_eq!(node.boot(), "b");
    node
}

/// A program to restart with that is there, and works unless its file hangs.
fn reboot_program(node: &Path) -> PathBuf {
    let program = node.join("reboot");
    fs::copy("/bin/true", &program).expect("copy a program");
    program
}

/// strace that never lets these calls on these paths begin.
fn hanging(calls: &str, paths: &[&Path]) -> Run {
    // In microseconds: longer than every test. With `-D` the agent is the child of the test.
    let inject = format!("inject={calls}:delay_enter=1000000000");
    let strace = tool("strace", "strace").args(["-D", "-f", "-qq", "-o", "/dev/null"]);
    let strace = paths.iter().fold(strace, |strace, path| strace.arg("-P").arg(path));
    strace.args(["-e", &format!("trace={calls}"), "-e", &inject])
}

/// An agent under [`hanging`].
struct Hung(Option<Running>);

impl Hung {
    fn start(agent: Run, hangs: Run) -> Self {
        Hung(Some(agent.under(hangs).start()))
    }

    fn running(&mut self) -> &mut Running {
        self.0.as_mut().expect("it was not ended")
    }
}

impl Drop for Hung {
    /// It ends once nobody holds its calls any more, and must not go on with them: it is killed first.
    fn drop(&mut self) {
        let Some(running) = self.0.take() else { return };
        let status = fs::read_to_string(format!("/proc/{}/status", running.id()));
        running.signal(Signal::KILL);
        let tracer = status.ok().and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("TracerPid:"))?;
            Pid::from_raw(line.trim().parse().ok()?)
        });
        // Ours: it holds a child of ours that nobody has waited for.
        if let Some(tracer) = tracer {
            let _gone = kill_process(tracer, Signal::KILL);
        }
        running.kill();
    }
}

/// The guard restarts the machine, by force at last. `daemon`: the arguments of `run`.
#[track_caller]
fn is_guarded(node: &Node, hangs: Run, daemon: &[&str]) {
    let mut hung = Hung::start(node.agent(daemon), hangs);
    hung.running().await_file(&node.path("forced"), PATIENCE);
    assert!(hung.running().is_running(), "{}", hung.running().log());
    let log = hung.running().log();
    assert!(log.contains("the trial did not end by its deadline: the agent hangs"), "{log}");
    drop(hung);
    // The medium is as it was, and works in the next boot.
    node.disk.expect(confirmed(1), trial(TRIES - 1));
    assert_eq!(node.boot(), "b");
    assert_eq!(node.run_once().exits(Exit::Done).json()["did"], "confirmed");
}

/// The first thing that is read of a boot hangs already: the boot loader's word is all that is known of it.
#[test]
fn a_disk_that_hangs_before_anything_is_known_ends_the_trial() {
    let world = World::with_repository();
    let node = on_trial(&world, "[\"true\"]");
    let disk = node.disk.path().to_path_buf();
    is_guarded(&node, hanging("pread64", &[&disk]), &["run"]);
}

/// The state hangs in the middle of a round, under the lock.
#[test]
fn a_state_that_hangs_in_a_round_ends_the_trial() {
    let world = World::with_repository();
    let node = on_trial(&world, "[\"true\"]");
    let state = node.state();
    is_guarded(&node, hanging("fsync", &[&state]), &["run", "--once"]);
}

/// So does the command that is to restart: its program cannot be read, either.
#[test]
fn a_restart_command_on_a_disk_that_hangs_is_passed_by() {
    let world = World::with_repository();
    let program = reboot_program(world.dir());
    let node = on_trial(&world, &format!("[{program:?}]"));
    let disk = node.disk.path().to_path_buf();
    is_guarded(&node, hanging("pread64,execve", &[&disk, &program]), &["run"]);
}

/// An agent that was given up because its storage hangs: who looks next must not hang with it.
#[test]
fn restart_trial_goes_by_the_boot_loaders_word_where_storage_hangs() {
    let world = World::with_repository();
    let asked = world.path("asked");
    let node = on_trial(&world, &format!("[\"touch\", {asked:?}]"));
    let disk = node.disk.path().to_path_buf();
    let restart_trial =
        || Hung::start(node.agent_in_words(&["restart-trial"]), hanging("pread64", &[&disk]));
    let no_answer = |line: &str| line.contains("do not answer within 30 s").then_some(());
    let mut hung = restart_trial();
    hung.running().await_line(no_answer);
    hung.running().await_file(&node.path("forced"), PATIENCE);
    assert!(asked.exists(), "the command comes first");
    drop(hung);
    // On a boot that is no trial it does nothing.
    assert_eq!(node.boot(), "b");
    assert_eq!(node.run_once().exits(Exit::Done).json()["did"], "confirmed");
    assert_eq!(node.boot(), "b");
    fs::remove_file(&asked).expect("forget the request");
    let mut hung = restart_trial();
    hung.running().await_line(no_answer);
    drop(hung);
    assert!(!asked.exists(), "a confirmed boot is not restarted");
}

/// What `restart-trial` asks for, in this order, by what the commands answer.
#[test]
fn restart_trial_insists_until_no_means_is_left() {
    // (how the command ends, whether there is a forced one, what is asked for, exit code)
    let rows: [(&str, bool, &str, Exit); 5] = [
        ("exit 0", true, "command command forced ", Exit::Done),
        ("exit 1", true, "command command forced ", Exit::Done),
        ("sleep 1000", true, "command command forced ", Exit::Done),
        ("exit 0", false, "command ", Exit::Done),
        ("exit 1", false, "command ", Exit::Config),
    ];
    for (ends, has_forced, expected, exit) in rows {
        let world = World::with_repository();
        let log = world.path("asked");
        let sh = |word: &str, then: &str| {
            format!("[\"sh\", \"-c\", \"printf '{word} ' >> {}; {then}\"]", log.display())
        };
        let node = on_trial(&world, &sh("command", ends));
        let forced = format!("forced_reboot_command = [\"touch\", {:?}]", node.path("forced"));
        let command = match has_forced {
            true => format!("forced_reboot_command = {}", sh("forced", "exit 0")),
            false => "forced_reboot_command = []".to_owned(),
        };
        node.reconfigure(&forced, &command);
        let done = node.agent(&["restart-trial"]).finish();
        let asked = fs::read_to_string(&log).expect("what was asked for");
        assert_eq!(asked, expected, "{ends} {has_forced}\n{}", done.output());
        assert_eq!(done.code, i32::from(exit.code()), "{ends} {has_forced}\n{}", done.output());
        // One report, whatever was asked for.
        if exit == Exit::Done {
            assert_eq!(done.json()["restarting"], true, "{ends}");
        }
    }
}
