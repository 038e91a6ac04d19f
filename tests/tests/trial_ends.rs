//! A trial ends by its deadline, whatever fails: the real program, with a machine that does not restart.
//! And what a boot that the boot loader did not choose, or a channel on hold, does to an update that is next.
//!
//! No restart here is real: the kernel is never asked where files stand for the boot's own.

use std::fs;
use std::time::Duration;

use formats::reason::{Exit, Reason};
use racklet_tests::rig::{CLEAR, Node, PRODUCT, Run, TRIES, World, confirmed, tool, trial};

/// A busy machine may take long; what hangs takes forever.
const PATIENCE: Duration = Duration::from_secs(120);

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

/// The request is made again, forced at the third time, and `status` tells it. The daemon stays.
#[track_caller]
fn is_insisted_on(reboot: &str, refused: bool) {
    let world = World::with_repository();
    let node = on_trial(&world, reboot);
    node.set_healthy(false);
    let mut running = node.agent(&["run"]).start();
    running.await_file(&node.path("forced"), PATIENCE);
    assert!(running.is_running(), "{}", running.log());
    let status = node.status();
    let restart = &status["restart"];
    assert!(restart["times"].as_u64() >= Some(3), "{status}");
    let why = restart["why"].as_str().unwrap_or_default();
    assert!(why.contains("the trial failed: web: "), "{status}");
    assert!(restart["next"].as_str().is_some_and(|next| next.contains("touch")), "{status}");
    assert!(status["pending"]["failed"].as_str().is_some_and(|why| why.contains("web: ")));
    let text = node.agent_in_words(&["status"]).ok().text();
    let line = text.lines().find(|line| line.starts_with("restart "));
    assert!(line.is_some_and(|line| line.contains("times, last on ")), "{text}");
    assert!(text.contains("on trial, 2 tries left after this boot; it failed: web: "), "{text}");
    assert_eq!(running.log().contains("the restart failed: "), refused, "{}", running.log());
    running.kill();
    // The next boot begins anew, and can still prove itself.
    node.set_healthy(true);
    assert_eq!(node.boot(), "b");
    assert!(node.status()["restart"].is_null(), "in another boot the request was obeyed");
    assert_eq!(node.run_once().exits(Exit::Done).json()["did"], "confirmed");
}

#[test]
fn a_restart_that_does_nothing_is_asked_for_again_and_then_forced() {
    is_insisted_on("[\"true\"]", false);
}

#[test]
fn a_restart_command_that_hangs_is_ended_and_asked_again() {
    is_insisted_on("[\"sleep\", \"1000\"]", false);
}

#[test]
fn a_restart_command_that_is_missing_is_passed_by() {
    is_insisted_on("[\"/nope/reboot\"]", true);
}

#[test]
fn a_restart_command_that_refuses_is_passed_by() {
    is_insisted_on("[\"false\"]", true);
}

/// An agent that is started anew goes on where the one before it was.
#[test]
fn the_requests_of_a_boot_are_remembered() {
    let world = World::with_repository();
    let node = on_trial(&world, "[\"true\"]");
    node.set_healthy(false);
    let done = node.run_once().exits(Exit::Boot);
    assert!(done.stderr.contains("error[unhealthy]: the trial failed"), "{}", done.stderr);
    // It is lost, whatever the checks would say now.
    node.set_healthy(true);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(node.run_once().exits(Exit::Boot).json()["did"], "trial_failed");
    assert_eq!(node.status()["restart"]["times"], 2);
    node.disk.expect(confirmed(1), trial(TRIES - 1));
}

/// Nothing can be written, so nothing is recorded: the machine restarts all the same, and the tries count.
#[test]
fn a_state_that_cannot_be_written_ends_the_trial() {
    let world = World::with_repository();
    let node = on_trial(&world, &format!("[\"touch\", {:?}]", world.path("asked")));
    let read_only = || {
        let script = "mount --bind \"$0\" \"$0\" && mount -o remount,ro,bind \"$0\" && exec \"$@\"";
        let user: &[&str] =
            if rustix::process::geteuid().is_root() { &[] } else { &["--user", "--map-root-user"] };
        let wrapper = tool("unshare", "util-linux").args(user);
        wrapper.args(["--mount", "sh", "-c", script]).arg(node.state())
    };
    let running = node.agent(&["run"]).under(read_only()).start();
    running.await_file(&world.path("asked"), PATIENCE);
    running.await_file(&node.path("forced"), PATIENCE);
    running.kill();
    let done = node.agent(&["run", "--once"]).under(read_only()).finish().exits(Exit::Boot);
    assert!(done.stderr.contains("did not end by its deadline"), "{}", done.stderr);
    // Nobody confirmed it, and the tries end it.
    for left in (0..TRIES - 1).rev() {
        assert_eq!(node.boot(), "b");
        node.disk.expect(confirmed(1), trial(left));
    }
    assert_eq!(node.boot(), "a");
    assert_eq!(node.run_once().exits(Exit::Done).json()["did"], "reverted");
}

/// Another program has the lock and never gives it back.
#[test]
fn a_lock_that_is_never_free_ends_the_trial() {
    let world = World::with_repository();
    let node = on_trial(&world, &format!("[\"touch\", {:?}]", world.path("asked")));
    let ready = node.path("locked");
    let holder = tool("flock", "util-linux")
        .arg("--no-fork")
        .arg(node.state().join("lock"))
        .args(["sh", "-c", "touch \"$0\"; exec sleep 1000"])
        .arg(&ready)
        .start();
    holder.await_file(&ready, PATIENCE);
    let running = node.agent(&["run"]).start();
    running.await_file(&world.path("asked"), PATIENCE);
    running.await_file(&node.path("forced"), PATIENCE);
    assert_eq!(running.log().matches("ERROR").count(), 1, "told once:\n{}", running.log());
    running.kill();
    let done = node.run_once().exits(Exit::Boot);
    assert!(done.stderr.contains("did not end by its deadline"), "{}", done.stderr);
    holder.kill();
    // A lock that is free again in time costs nothing.
    assert_eq!(node.boot(), "b");
    assert_eq!(node.run_once().exits(Exit::Done).json()["did"], "confirmed");
}

/// A boot whose command line and flags are those of the one before: kexec.
fn kexec(node: &Node, nth: u8) {
    fs::write(node.path("boot_id"), format!("kexec-{nth}\n")).expect("write the boot id");
}

#[test]
fn one_boot_past_the_boot_loader_leaves_the_update_next() {
    let world = World::with_repository();
    let node = Node::with_next(&world);
    kexec(&node, 1);
    for _ in 0..2 {
        let _done = node.run_once().exits(Exit::Done);
        let status = node.status();
        assert_eq!(status["standing"], "awaiting_reboot", "{status}");
        assert_eq!(status["pending"]["passed_over"], 1, "once in a boot: {status}");
        assert_eq!(status["failures"].as_array().map(Vec::len), Some(0), "{status}");
        node.disk.expect(confirmed(1), trial(TRIES));
    }
    let text = node.agent_in_words(&["status"]).ok().text();
    assert!(text.contains("kexec") && text.contains("update-agent revert"), "{text}");
    let history = node.agent_in_words(&["history"]).ok().text();
    assert!(history.contains("passed over 1.1.0 slot b"), "{history}");
    // The boot loader's own choice tries it.
    assert_eq!(node.boot(), "b");
    assert_eq!(node.run_once().exits(Exit::Done).json()["did"], "confirmed");
}

#[test]
fn two_boots_past_the_boot_loader_give_the_update_up_and_blame_no_release() {
    let world = World::with_repository();
    let node = Node::with_next(&world);
    // A boot loader that says nothing of the flags, as after kexec without its words.
    let words = fs::read_to_string(node.path("cmdline")).unwrap_or_default();
    let silent = words.split_whitespace().filter(|word| !word.starts_with("racklet.boot="));
    fs::write(node.path("cmdline"), silent.collect::<Vec<_>>().join(" ")).expect("write");
    kexec(&node, 1);
    let _done = node.run_once().exits(Exit::Done);
    node.disk.expect(confirmed(1), trial(TRIES));
    kexec(&node, 2);
    let done = node.run_once().exits(Exit::Done).json();
    assert_eq!((&done["did"], &done["reason"]), (&"reverted".into(), &"counting_inactive".into()));
    node.disk.expect(confirmed(1), CLEAR);
    assert_eq!(node.status()["failures"].as_array().map(Vec::len), Some(0));
    node.agent(&["apply"]).finish().refused(Reason::CountingInactive);
    // The boot loader is back: the release is as good as before.
    assert_eq!(node.boot(), "a");
    node.update(&[], "b");
}

fn hold(world: &World, flag: &str) -> Run {
    let set = ["channel", "set", "--product", PRODUCT, "--channel", "stable"];
    world.signer(&set).arg(flag)
}

/// The hold reaches a node where the release is next; released again, it is next again.
#[test]
fn a_hold_takes_back_what_is_next_and_its_end_gives_it_back() {
    let world = World::with_repository();
    let node = Node::with_next(&world);
    let _held = hold(&world, "--hold").ok();
    let done = node.run_once().exits(Exit::Done).json();
    assert_eq!(done["did"], "withheld", "{done}");
    node.disk.expect(confirmed(1), CLEAR);
    let status = node.status();
    assert_eq!(status["standing"], "staged", "{status}");
    let text = node.agent_in_words(&["status"]).ok().text();
    assert!(text.contains("not next for now: channel stable is held by its maintainers"), "{text}");
    let history = node.agent_in_words(&["history"]).ok().text();
    assert!(history.contains("withheld 1.1.0 slot b: channel stable is held"), "{history}");
    assert_eq!(node.boot(), "a", "what is held is not booted");
    let _done = node.run_once().exits(Exit::Done);
    assert_eq!(node.status()["standing"], "staged");
    let _released = hold(&world, "--no-hold").ok();
    let _done = node.run_once().exits(Exit::Done);
    assert_eq!(node.status()["standing"], "awaiting_reboot", "in the mode that only notifies, too");
    assert_eq!(node.boot(), "b");
    assert_eq!(node.run_once().exits(Exit::Done).json()["did"], "confirmed");
}

/// What an operator chose by its version, and what has been booted, a hold does not reach.
#[test]
fn a_hold_does_not_reach_what_an_operator_chose_or_what_runs() {
    let world = World::with_repository();
    let v1 = world.publish_stable("1.0.0", 1);
    let node = Node::from_factory(&world, "node", &v1, &world.repository().reference());
    world.publish_stable("1.1.0", 2);
    let _held = hold(&world, "--hold").ok();
    node.apply(&["--version", "1.1.0"]);
    let _done = node.run_once().exits(Exit::Done);
    node.disk.expect(confirmed(1), trial(TRIES));
    assert_eq!(node.boot(), "b");
    assert_eq!(node.run_once().exits(Exit::Done).json()["did"], "confirmed");
}
