//! Health checks as an operator meets them before and in a trial: tried, explained, asked before an
//! update, on old kernels, through a proxy, and short of memory.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use formats::reason::{Exit, Reason};
use racklet_tests::rig::{CLEAR, Node, RepoServer, Run, World, confirmed, tool};

/// A node at 1.0.0 to which 1.1.0 is offered, with one more check.
fn node_with(world: &World, name: &str, check: &str) -> Node {
    let v1 = world.publish_stable("1.0.0", 1);
    let node = Node::from_factory(world, name, &v1, &world.repository().reference());
    world.publish_stable("1.1.0", 2);
    add_check(&node, check);
    node
}

fn add_check(node: &Node, check: &str) {
    let text = fs::read_to_string(node.config()).expect("read");
    let text = format!("{text}\n[[health.check]]\nname = \"own\"\n{check}\n");
    fs::write(node.config(), text).expect("write");
}

#[test]
fn each_check_is_asked_once_and_told() {
    let world = World::with_repository();
    let node = node_with(&world, "node", "command = [\"sh\", \"-c\", \"echo no disk; exit 3\"]");
    let done = node.agent(&["health"]).finish().exits(Reason::Unhealthy.exit());
    let said = done.json();
    assert_eq!((&said["ok"], &said["passed"]), (&true.into(), &false.into()), "{said}");
    let states: Vec<_> = (0..2).map(|n| said["checks"][n]["state"].clone()).collect();
    assert_eq!(states, ["ok", "failed"], "{said}");
    assert_eq!(said["checks"][1]["why"], "exit status 3: no disk", "{said}");
    assert!(said["checks"][1]["took_ms"].is_u64(), "{said}");
    let text = node.agent_in_words(&["health"]).finish().text();
    assert!(text.lines().any(|line| line.starts_with("ok         web ")), "{text}");
    assert!(text.contains("exit status 3: no disk"), "{text}");

    node.reconfigure("[\"sh\", \"-c\", \"echo no disk; exit 3\"]", "[\"./crlf.sh\"]");
    fs::write(node.path("crlf.sh"), "#!/bin/sh\r\nexit 0\r\n").expect("write");
    Run::new("chmod").arg("+x").arg(node.path("crlf.sh")).ok();
    let said = node.agent(&["health"]).finish().exits(Reason::Config.exit()).json();
    assert_eq!(said["checks"][1]["state"], "cannot_run", "{said}");
    let why = said["checks"][1]["why"].as_str().unwrap_or_default();
    assert!(why.contains("line ends of Windows"), "{why}");

    fs::write(node.path("crlf.sh"), "#!/bin/sh\nexit 0\n").expect("write");
    let said = node.agent(&["health"]).ok().json();
    assert_eq!(said["passed"], true, "{said}");
}

#[test]
fn a_broken_check_is_found_before_anything_is_written() {
    let world = World::with_repository();
    let node = node_with(&world, "node", "command = [\"/nope/check\"]");
    let refused = node.agent(&["apply"]).finish();
    refused.refused(Reason::Unhealthy);
    assert!(refused.output().contains("own cannot run"), "{}", refused.output());
    assert!(refused.output().contains("there is no /nope/check"), "{}", refused.output());
    node.disk.expect(confirmed(1), CLEAR);

    // The daemon, too, and it says why.
    node.reconfigure("mode = \"notify\"", "mode = \"auto\"");
    let round = node.run_once();
    round.refused(Reason::Unhealthy);
    node.disk.expect(confirmed(1), CLEAR);

    // One that says no may be what the release mends: named, not refused.
    node.reconfigure("[\"/nope/check\"]", "[\"false\"]");
    node.reconfigure("[health]\n", "[health]\nbefore_apply = \"refuse\"\n");
    node.agent(&["apply"]).finish().refused(Reason::Unhealthy);
    node.disk.expect(confirmed(1), CLEAR);
    node.reconfigure("before_apply = \"refuse\"\n", "");
    let done = node.agent(&["apply"]).ok();
    let note = done.json()["notes"].to_string();
    assert!(note.contains("own does not pass on the running system: exit status 1"), "{note}");
    assert!(!done.stderr.contains("own does not pass"), "told twice: {}", done.stderr);
}

/// What came after Linux 4.14, and `statx` and others that filters refuse. `?`: strace may not know it.
const NEWER: &str = "?io_pgetevents,?rseq,?pidfd_send_signal,?io_uring_setup,?io_uring_enter,\
    ?io_uring_register,?open_tree,?move_mount,?fsopen,?fsconfig,?fsmount,?fspick,?pidfd_open,?clone3,\
    ?close_range,?openat2,?pidfd_getfd,?faccessat2,?process_madvise,?epoll_pwait2,?mount_setattr,\
    ?landlock_create_ruleset,?memfd_secret,?process_mrelease,?futex_waitv,?cachestat,?fchmodat2,\
    ?map_shadow_stack,?futex_wake,?futex_wait,?futex_requeue,?statmount,?listmount,?mseal,\
    ?statx,?copy_file_range,?getrandom,?fallocate,?renameat2,?preadv2,?pwritev2,?memfd_create";

/// Fault injection, not such a kernel: each of these calls answers ENOSYS, in the agent and its checks.
#[test]
fn an_update_needs_no_system_call_after_linux_4_14() {
    let world = World::with_repository();
    let node = node_with(&world, "node", "command = [\"sh\", \"-c\", \"sleep 0.1\"]");
    node.reconfigure("deadline = \"600ms\"", "deadline = \"60s\"");
    let old = |args: &[&str]| {
        let strace = tool("strace", "strace").args(["-f", "-qq", "-o", "/dev/null"]);
        let inject = format!("inject={NEWER}:error=ENOSYS");
        let strace = strace.args(["-e", &format!("trace={NEWER}"), "-e", &inject]);
        node.agent(args).under(strace).finish()
    };
    let _health = old(&["health"]).exits(Exit::Done);
    let applied = old(&["apply"]).exits(Exit::Done).json();
    assert_eq!(applied["activated"], true, "{applied}");
    assert_eq!(node.boot(), "b");
    let ended = old(&["run", "--once"]).exits(Exit::Done).json();
    assert_eq!(ended["did"], "confirmed", "{ended}");
    let doctor = old(&["doctor"]).json();
    let level = |check: &str| {
        let found = doctor["findings"].as_array().expect("findings");
        found.iter().find(|one| one["check"] == check).map(|one| one["level"].clone())
    };
    assert_eq!(level("health checks"), Some("ok".into()), "{doctor}");
}

/// A proxy that writes down what it is asked for, and lets nothing through.
fn logging_proxy() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    // Ends with the process.
    thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let mut line = String::new();
            let mut reader = BufReader::new(client.try_clone().expect("a second handle"));
            let _ = reader.read_line(&mut line);
            seen.lock().unwrap_or_else(PoisonError::into_inner).push(line.trim().to_owned());
            let _ = client.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
        }
    });
    (address, asked)
}

#[test]
fn the_repository_is_asked_by_the_way_of_updates() {
    let (world, server) = RepoServer::with_repository();
    let v1 = world.publish_stable("1.0.0", 1);
    let node = Node::from_factory(&world, "node", &v1, &server.reference());
    add_check(&node, "repository = true");
    assert_eq!(node.agent(&["health"]).ok().json()["passed"], true);

    // A registry that only the proxy knows.
    let (proxy, asked) = logging_proxy();
    let ca = "ca = ";
    node.reconfigure(&server.authority, "registry.corp.invalid:5000");
    node.reconfigure(ca, &format!("proxy = {proxy:?}\nca = "));
    let _failed = node.agent(&["check"]).finish();
    let by_update = asked.lock().unwrap_or_else(PoisonError::into_inner).pop();
    assert!(by_update.as_ref().is_some_and(|line| line.contains("registry.corp.invalid:5000")));
    asked.lock().unwrap_or_else(PoisonError::into_inner).clear();
    let said = node.agent(&["health"]).finish().exits(Reason::Unhealthy.exit()).json();
    assert_eq!(asked.lock().unwrap_or_else(PoisonError::into_inner).pop(), by_update, "{said}");
}

/// In a real cgroup with a limit: the check dies, the agent tells why and lives.
#[test]
fn a_check_that_takes_all_memory_fails_alone_and_says_so() {
    let world = World::with_repository();
    // `tail` keeps the whole of a line that never ends.
    let node = node_with(&world, "node", "command = [\"sh\", \"-c\", \"exec tail /dev/zero\"]");
    let own = fs::read_to_string("/proc/self/cgroup").expect("read");
    let path = |line: &str| line.rsplit(':').next().unwrap_or_default().to_owned();
    let v1 = own.lines().find(|line| line.contains(":memory:")).map(path);
    let v2 = own.lines().find(|line| line.starts_with("0::")).map(path);
    let (parent, limit) = match (v1, v2) {
        (Some(path), _) => (format!("/sys/fs/cgroup/memory{path}"), "memory.limit_in_bytes"),
        (None, path) => (format!("/sys/fs/cgroup{}", path.unwrap_or_default()), "memory.max"),
    };
    let group = format!("{parent}/racklet-{}", std::process::id());
    let made = fs::create_dir(&group).and_then(|()| fs::write(format!("{group}/{limit}"), "96M"));
    if made.is_err() {
        let _ = fs::remove_dir(&group);
        eprintln!("skipped: no memory cgroup can be made here");
        return;
    }
    let inside = Run::new("sh").args(["-c", "echo $$ >\"$0/cgroup.procs\" && exec \"$@\"", &group]);
    let done = node.agent(&["health"]).under(inside).finish();
    let _removed = fs::remove_dir(&group);
    let said = done.exits(Reason::Unhealthy.exit()).json();
    let why = said["checks"][1]["why"].as_str().unwrap_or_default();
    assert!(why.starts_with("killed: the agent's service has no more memory"), "{said}");
}
