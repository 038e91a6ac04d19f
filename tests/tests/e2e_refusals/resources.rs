//! Resources end: descriptors, bytes of a file, memory, threads, the reader of a report. Each time one
//! error with its code, the lock released, nothing half done.

use std::io::pipe;
use std::process::{Command, Stdio};

use formats::reason::{Exit, Reason};
use racklet_tests::rig::{Before, Done, Run, program, programs};

use super::Offered;

/// Exit codes that are answers; anything else is a signal, a panic or a defect.
const KNOWN: [Exit; 14] = [
    Exit::Done,
    Exit::Nothing,
    Exit::Usage,
    Exit::Trust,
    Exit::Freeze,
    Exit::Rollback,
    Exit::Limit,
    Exit::Transport,
    Exit::Content,
    Exit::Device,
    Exit::Busy,
    Exit::Boot,
    Exit::Config,
    Exit::Hardware,
];

/// A shell that sets a limit, then becomes the program.
fn limited(run: Run, limit: &str) -> Done {
    let script = format!("ulimit {limit} && exec \"$0\" \"$@\"");
    run.under(Run::new("sh").args(["-c", &script])).finish()
}

/// One error with its code, unless it went well.
#[track_caller]
fn answers(done: &Done, limit: &str) {
    // Before any line of ours, and nothing can catch it: a thread of the C library got no memory.
    if done.code == -1 && done.stderr.contains("Fatal glibc error: failed to register") {
        return;
    }
    let known = KNOWN.iter().any(|exit| i32::from(exit.code()) == done.code);
    assert!(known, "ulimit {limit}: {} ended with {}\n{}", done.shown, done.code, done.output());
    let errors = done.stderr.lines().filter(|line| line.starts_with("error[")).count();
    let expected = usize::from(done.code > 1);
    assert_eq!(errors, expected, "ulimit {limit}: {}\n{}", done.shown, done.output());
    assert!(!done.stderr.contains("panicked"), "ulimit {limit}: {}", done.output());
}

/// Runs what a node runs under each limit, from the tightest on; then the next honest run works.
#[track_caller]
fn sweep(limits: impl Iterator<Item = String>) {
    let it = Offered::new();
    let commands: [&[&str]; 4] = [&["status"], &["check"], &["apply", "--stage-only"], &["apply"]];
    let (mut refused, mut applied) = (0, false);
    for limit in limits {
        for command in commands {
            if applied && command[0] == "apply" {
                continue;
            }
            let done = limited(it.node.agent_in_words(command), &limit);
            answers(&done, &limit);
            refused += usize::from(done.code > 1);
            applied |= command == ["apply"] && done.code == 0;
        }
    }
    assert!(refused > 0, "no limit was tight enough to matter");
    if applied {
        it.node.expect_slot("b", &it.v2);
    } else {
        it.recovers();
    }
}

/// The fallback is not given up for an update that cannot be recorded.
#[test]
fn a_full_state_disk_takes_no_fallback_away() {
    let it = Offered::new();
    it.node.update(&[], "b");
    it.world.publish_stable("1.2.0", 3);
    let _known = it.node.agent(&["check"]).ok();
    let before = Before::of(&it.node, "b");
    let full = "state=$1; shift; mount -t tmpfs tmpfs /mnt; cp -a \"$state/.\" /mnt; \
        mount -t tmpfs -o size=8m,mode=700 tmpfs \"$state\"; cp -a /mnt/. \"$state\"; \
        dd if=/dev/zero of=\"$state/filler\" bs=1k 2>/dev/null; exec \"$@\"";
    let wrapper = Run::new("unshare").args(["-rm", "sh", "-c", full, "sh"]).arg(it.node.state());
    let done = it.node.agent(&["apply"]).under(wrapper).finish();
    done.refused(Reason::StoreIo);
    assert!(done.output().contains("nothing was changed"), "{}", done.output());
    before.untouched(&it.node, "SBF");
    let _applied = it.node.agent(&["apply"]).ok();
}

#[test]
fn descriptors_end() {
    sweep((4..=16).chain([20, 24, 32]).map(|count| format!("-n {count}")));
}

/// Blocks of 512 bytes. The disk of these nodes is a file, too: its writes fail like a disk's.
#[test]
fn files_may_grow_no_further() {
    sweep([0, 1, 2, 4, 8, 16, 64, 1024, 8192].iter().map(|blocks| format!("-f {blocks}")));
}

/// KiB of address space, from where the program starts at all. Threads need some as well.
#[test]
fn memory_and_threads_end() {
    let starts = |kib: &u64| {
        let run = program("update-agent").arg("--version");
        limited(run, &format!("-v {kib}")).code == 0
    };
    let first = (2048..=1 << 20).step_by(2048).find(starts).expect("it starts in 1 GiB");
    let further = [0, 1, 2, 4, 8, 16, 32, 64].map(|mib| first + 1024 * (2 + mib));
    sweep(further.iter().map(|kib| format!("-v {kib}")));
}

/// Every command, as text and as JSON, onto a full disk: what it did is done, and it is no success.
#[test]
fn a_report_that_could_not_be_printed_is_no_success() {
    let it = Offered::new();
    let full = || Run::new("sh").args(["-c", "exec \"$0\" \"$@\" >/dev/full"]);
    let commands: [&[&str]; 15] = [
        &["status"],
        &["history"],
        &["check"],
        &["explain"],
        &["plan"],
        &["doctor"],
        &["floor"],
        &["boot-select", "--simulate"],
        &["apply"],
        &["revert"],
        &["reset", "--yes"],
        &["run", "--once"],
        &["completions", "bash"],
        &["--version"],
        &["apply", "--help"],
    ];
    for command in commands {
        for json in [false, true] {
            let run = match json {
                false => it.node.agent_in_words(command),
                true => it.node.agent(command),
            };
            let done = run.under(full()).finish();
            let said = done.output();
            assert!(done.code > 1, "{command:?}, JSON {json}: exit code {}\n{said}", done.code);
            assert!(said.contains("error["), "{command:?}, JSON {json}: {said}");
            assert!(!said.contains("panicked"), "{command:?}: {said}");
            let refused = said.contains("error[report_lost]: ");
            // The second time there may be nothing to be done, and an error says so.
            assert!(refused || json, "{command:?}: {said}");
        }
        if command == ["apply"] {
            it.node.expect_slot("b", &it.v2);
        }
    }
    it.recovers();
    for words in [&["completions", "bash"][..], &["--help"], &["log", "--help"]] {
        let done = program("signer").args(words).under(full()).finish();
        assert!(done.stderr.contains("error[report_lost]: "), "{words:?}: {}", done.output());
        assert_eq!(done.code, i32::from(Reason::ReportLost.exit().code()));
    }
    let done = it.world.signer(&["refresh"]).under(full()).finish();
    assert!(done.stderr.contains("error[report_lost]: "), "{}", done.output());
}

/// `| head -1`: the reader has what it wanted.
#[test]
fn a_reader_that_went_away_is_no_error() {
    for (name, words) in [
        ("update-agent", ["completions", "bash"]),
        ("signer", ["completions", "bash"]),
        ("update-agent", ["apply", "--help"]),
        ("signer", ["sign", "--help"]),
    ] {
        let (reader, writer) = pipe().expect("a pipe");
        drop(reader);
        let mut command = Command::new(&programs()[name]);
        let command = command.args(words).stdout(writer).stderr(Stdio::piped());
        let done = command.output().expect("run it");
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!((done.status.code(), &*said), (Some(0), ""), "{name} {words:?}");
    }
}
