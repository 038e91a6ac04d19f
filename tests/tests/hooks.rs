//! The operator's hooks, with the real program: what each of them decides, and when none is asked.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use formats::reason::{Exit, Reason};
use racklet_tests::rig::{Node, Release, Run, World, tool};

/// A node on 1.0.0 whose hooks all are one script, and the release 1.1.0.
struct Rig {
    world: World,
    node: Node,
    bad: Release,
}

impl Rig {
    /// `script` runs after its call has been logged as `HOOK VERSION`.
    fn new(script: &str, settings: &str) -> Self {
        let world = World::with_repository();
        let v1 = world.publish_stable("1.0.0", 1);
        let node = Node::from_factory(&world, "node", &v1, &world.repository().reference());
        let log = node.path("calls").display().to_string();
        let text = format!(
            "#!/bin/sh\necho \"$UPDATE_HOOK $UPDATE_VERSION from $UPDATE_FROM_VERSION in $UPDATE_SLOT\
             ${{UPDATE_REASON_CODE:+: $UPDATE_REASON ($UPDATE_REASON_CODE)}}\" >>{log}\n{script}\n"
        );
        executable(&node.path("hook"), &text);
        let names = ["before_apply", "before_restart", "after_confirm", "after_revert"];
        let hooks: String = names.iter().map(|name| format!("{name} = [\"./hook\"]\n")).collect();
        let config = fs::read_to_string(node.config()).expect("read");
        let config = config.replace("mode = \"notify\"", "mode = \"auto\"");
        fs::write(node.config(), format!("{config}\n[hooks]\n{hooks}{settings}")).expect("write");
        let bad = world.publish_stable("1.1.0", 2);
        Rig { world, node, bad }
    }

    /// The calls since the last time.
    fn calls(&self) -> Vec<String> {
        let log = self.node.path("calls");
        let text = fs::read_to_string(&log).unwrap_or_default();
        let _none = fs::remove_file(&log);
        text.lines().map(str::to_owned).collect()
    }

    /// What a round of the daemon did.
    #[track_caller]
    fn round(&self) -> String {
        let done = self.node.run_once();
        let did = done.json()["did"].as_str().unwrap_or_default().to_owned();
        let expected = if did == "trial_failed" { Exit::Boot } else { Exit::Done };
        let _done = done.exits(expected);
        did
    }
}

fn executable(path: &Path, text: &str) {
    fs::write(path, text).expect("write a script");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("make it executable");
}

#[test]
fn each_hook_runs_once_in_a_good_update_and_in_a_reverted_one() {
    let rig = Rig::new("exit 0", "");
    assert_eq!(rig.round(), "applied");
    assert!(rig.node.reboot_was_asked());
    let begun = "1.1.0 from 1.0.0 in b";
    assert_eq!(rig.calls(), [format!("before_apply {begun}"), format!("before_restart {begun}")]);
    rig.node.boot();
    assert_eq!(rig.round(), "confirmed");
    assert_eq!(rig.calls(), [format!("after_confirm {begun}")]);
    assert_eq!(rig.round(), "notified");
    assert_eq!(rig.calls(), Vec::<String>::new(), "it was told");

    rig.world.publish_stable("1.2.0", 3);
    assert_eq!(rig.round(), "applied");
    assert_eq!(rig.calls().len(), 2);
    rig.node.set_healthy(false);
    for _ in 0..3 {
        assert_eq!(rig.node.boot(), "a");
        assert_eq!(rig.round(), "trial_failed");
        assert!(rig.node.reboot_was_asked());
        assert_eq!(rig.calls(), Vec::<String>::new(), "nobody may put this restart off");
    }
    assert_eq!(rig.node.boot(), "b");
    assert_eq!(rig.round(), "reverted");
    let reverted = "after_revert 1.2.0 from 1.1.0 in a: web: exit status 1 (unhealthy)";
    assert_eq!(rig.calls(), [reverted]);
    rig.round();
    assert_eq!(rig.calls(), Vec::<String>::new(), "it was told");

    // What an operator reverts is told, too, once the other slot runs.
    rig.node.set_healthy(true);
    rig.world.publish_stable("1.3.0", 4);
    assert_eq!(rig.round(), "applied");
    rig.node.boot();
    assert_eq!(rig.round(), "confirmed");
    let _calls = rig.calls();
    rig.node.agent(&["revert"]).ok();
    assert_eq!(rig.calls(), Vec::<String>::new(), "1.3.0 still runs");
    rig.node.boot();
    rig.round();
    let calls = rig.calls();
    assert!(calls[0].starts_with("after_revert 1.3.0 "), "{calls:?}");
}

#[test]
fn a_hook_before_apply_refuses_and_is_asked_again() {
    let rig =
        Rig::new("[ -e \"$0.agrees\" ] || { echo 'the database is being copied'; exit 1; }", "");
    let before = rig.node.disk.content("root-b", 1 << 20);
    for _ in 0..2 {
        let error = rig.node.run_once();
        error.refused(Reason::HookRefused);
        assert!(error.output().contains("the database is being copied"), "{}", error.output());
        assert_eq!(rig.calls(), ["before_apply 1.1.0 from 1.0.0 in b"]);
    }
    assert!(rig.node.disk.content("root-b", 1 << 20) == before, "nothing was written");
    let status = rig.node.status();
    assert_eq!(status["last_error"]["code"], "hook_refused", "{status}");
    fs::write(rig.node.path("hook.agrees"), "").expect("agree");
    assert_eq!(rig.round(), "applied");
    rig.node.expect_slot("b", &rig.bad);
}

#[test]
fn a_restart_is_put_off_for_a_limited_time() {
    let script = "[ $UPDATE_HOOK != before_restart ] || { echo $UPDATE_WAITED of $UPDATE_WAIT_LIMIT; exit 75; }";
    let rig = Rig::new(script, "restart_delay_limit = \"3s\"\n");
    let begun = std::time::Instant::now();
    assert_eq!(rig.round(), "notified");
    assert!(!rig.node.reboot_was_asked(), "it said not now");
    let status = rig.node.status();
    assert_eq!(status["next"], "b", "{status}");
    // The next program goes on counting where this one began.
    while !rig.node.reboot_was_asked() {
        assert_eq!(rig.round(), "notified");
    }
    let took = begun.elapsed();
    assert!(took.as_secs() >= 3, "{took:?}");
    assert_eq!(rig.node.boot(), "b");
    assert_eq!(rig.round(), "confirmed");
}

#[test]
fn apply_waits_for_the_hook_and_hooks_that_hang_are_killed() {
    let script =
        "[ $UPDATE_HOOK != before_restart ] || { sleep 1000 & echo $! >\"$0.child\"; wait; }";
    let rig = Rig::new(script, "restart_delay_limit = \"1s\"\ntimeout = \"1s\"\n");
    let done = rig.node.agent_in_words(&["apply", "--reboot"]).ok();
    assert!(rig.node.reboot_was_asked(), "{}", done.output());
    for said in ["hooks.before_restart: still running", "put the restart off"] {
        assert!(done.output().contains(said), "{}", done.output());
    }
    let child = fs::read_to_string(rig.node.path("hook.child")).expect("the hook ran");
    let status = fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
    assert!(status.is_empty() || status.contains(") Z "), "it lives: {status}");
    assert!(rig.calls().iter().any(|call| call.starts_with("before_restart")));
}

/// What is told is told in the end: a hook that says "not now", and an agent that dies in it.
#[test]
fn the_end_of_an_update_is_told_at_least_once() {
    let script = "[ $UPDATE_HOOK != after_confirm ] || {\n\
                  [ -e \"$0.died\" ] || { touch \"$0.died\"; kill -9 $PPID; exit 0; }\n\
                  [ -e \"$0.later\" ] || { touch \"$0.later\"; exit 75; }\n}";
    let rig = Rig::new(script, "");
    assert_eq!(rig.round(), "applied");
    rig.node.boot();
    let _calls = rig.calls();
    let _killed = rig.node.run_once();
    for _ in 0..3 {
        rig.round();
    }
    assert_eq!(rig.calls(), ["after_confirm 1.1.0 from 1.0.0 in b"; 3], "died, later, done");
}

/// A hook is never run for what is not verified.
#[test]
fn no_hook_runs_for_a_repository_that_is_not_trusted() {
    let rig = Rig::new("exit 0", "");
    let stranger = World::with_repository();
    let _theirs = stranger.publish_stable("1.1.0", 2);
    let place = stranger.repository().reference();
    let _refused = rig.node.agent(&["apply", &place]).finish().exits(Exit::Trust);
    assert_eq!(rig.calls(), Vec::<String>::new());
}

/// The recipe for Kubernetes, with a `kubectl` that keeps a node in a file.
#[test]
fn the_kubernetes_hook_drains_and_uncordons() {
    let world = World::empty();
    let hook = Path::new(env!("CARGO_MANIFEST_DIR")).join("../update-agent/hooks/kubernetes-node");
    tool("shellcheck", "shellcheck").arg(&hook).ok();
    let bin = world.path("bin");
    fs::create_dir(&bin).expect("make a folder");
    executable(&bin.join("kubectl"), include_str!("hooks/kubectl"));
    let node = world.path("node");
    fs::create_dir(&node).expect("make a folder");
    let run = |name: &str| -> i32 {
        let path = format!("{}:/usr/bin:/bin", bin.display());
        let run = Run::new(&hook).arg("rack-3-node-07").env("PATH", path).env("NODE", &node);
        let run = run.env("UPDATE_HOOK", name).env("UPDATE_VERSION", "1.1.0");
        run.env("UPDATE_WAITED", "0").env("UPDATE_WAIT_LIMIT", "3600").finish().code
    };
    let is = |name: &str| node.join(name).exists();
    let set = |name: &str| fs::write(node.join(name), "").expect("write");

    set("pods");
    assert_eq!(run("before_restart"), 75, "pods are still there");
    assert!(is("cordoned") && is("mark"));
    fs::remove_file(node.join("pods")).expect("the pods leave");
    assert_eq!(run("before_restart"), 0);
    set("unreachable");
    assert_eq!(run("after_confirm"), 75, "the node would stay cordoned");
    fs::remove_file(node.join("unreachable")).expect("the server is back");
    assert_eq!(run("after_confirm"), 0);
    assert!(!is("cordoned") && !is("mark"));

    set("cordoned");
    assert_eq!(run("before_restart"), 0);
    assert_eq!(run("after_revert"), 0);
    assert!(is("cordoned"), "an administrator did that");
    assert_eq!(run("before_apply"), 0);
}

/// A hook that can never run is found before it costs anything.
#[test]
fn doctor_names_a_hook_that_cannot_run() {
    let rig = Rig::new("exit 0", "");
    let said = rig.node.agent_in_words(&["doctor"]).finish().output();
    let all = "ok   hooks            before_apply, before_restart, after_confirm, after_revert";
    assert!(said.lines().any(|line| line == all), "{said}");
    fs::set_permissions(rig.node.path("hook"), fs::Permissions::from_mode(0o644)).expect("chmod");
    let said = rig.node.agent_in_words(&["doctor"]).finish().output();
    let line = said.lines().find(|line| line.starts_with("BAD  hooks"));
    assert!(line.is_some_and(|line| line.contains("is not executable")), "{said}");
}

/// A path is that of the configuration, wherever the agent is started.
#[test]
fn relative_hooks_are_beside_the_configuration() {
    let rig = Rig::new("exit 0", "");
    let elsewhere: PathBuf = rig.world.path("elsewhere");
    fs::create_dir(&elsewhere).expect("make a folder");
    let config = rig.node.config().display().to_string();
    let agent = racklet_tests::rig::programs()["update-agent"].display().to_string();
    let line = format!("cd {} && exec {agent} --config {config} run --once", elsewhere.display());
    Run::new("sh").args(["-c", &line]).ok();
    assert_eq!(rig.calls().len(), 2);
}
