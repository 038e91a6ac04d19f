//! A program with a time limit, killed with all its children, the end of its output kept.
//!
//! Its end is noticed by a pidfd. Linux has them since 5.3, and filters of system calls refuse them;
//! there it is asked for every [`TICK`].

use std::collections::VecDeque;
use std::io::{PipeReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid,
};

use storage::interrupt::Cleanup;

use super::program;

/// 4 KiB: the last screen of output, small enough for a report.
const TAIL: usize = 4 << 10;

/// How long a killed program may take to go; only an uninterruptible one takes any time.
const GRACE: Duration = Duration::from_secs(2);

/// 20 ms between two looks at a program without a pidfd: no time beside a check, no load either.
const TICK: Duration = Duration::from_millis(20);

/// How a program ended, and the last it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) end: End,
    /// The end of stdout and stderr, at most 4 KiB before escaping; one line of printable text.
    pub(crate) tail: String,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself.
    Exit(i32),
    /// By a signal.
    Signal(i32),
    /// By us, after this time.
    TimedOut(Duration),
}

/// Runs `argv` in its own process group, without input. `Err` when it cannot be started.
///
/// Whatever is left of the group when the program ends or its time is up is killed. When memory is
/// short the kernel kills it before the agent.
pub(crate) fn run(argv: &[String], limit: Duration) -> Result<Outcome, String> {
    run_in(argv, limit, |_| {})
}

/// The same in surroundings that `prepare` makes.
pub(crate) fn run_in(
    argv: &[String],
    limit: Duration,
    prepare: impl FnOnce(&mut Command),
) -> Result<Outcome, String> {
    run_watched(argv, limit, prepare, &|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
}

fn run_watched(
    argv: &[String],
    limit: Duration,
    prepare: impl FnOnce(&mut Command),
    open_pidfd: &dyn Fn(Pid) -> Option<OwnedFd>,
) -> Result<Outcome, String> {
    let (name, arguments) = argv.split_first().ok_or("no program")?;
    let failed = |error: std::io::Error| format!("cannot watch {name}: {error}");
    let (reader, writer) = std::io::pipe().map_err(failed)?;
    let mut command = Command::new(name);
    command
        .args(arguments)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(writer.try_clone().map_err(failed)?)
        .stderr(writer);
    prepare(&mut command);
    let mut child = command.spawn().map_err(|error| program::not_started(argv, &error))?;
    // Drops our copies of the writing end, so that the pipe ends with its last writer.
    drop(command);
    let pid = Pid::from_child(&child);
    let cleanup = Cleanup::group(pid);
    offer_to_oom_killer(pid);
    let watched = Watch::new(pid, open_pidfd(pid), reader).run(limit);
    // The leader has not been reaped yet, so the group's number is still its own.
    let _ = kill_process_group(pid, Signal::KILL);
    drop(cleanup);
    let mut watch = match watched {
        Ok(watch) => watch,
        Err(error) => {
            let _ = child.wait();
            return Err(failed(error));
        }
    };
    let end = if watch.exited {
        reap(&mut child).map_err(failed)?
    } else {
        if watch.wait_for_exit(GRACE).map_err(failed)? {
            reap(&mut child).map_err(failed)?;
        }
        End::TimedOut(limit)
    };
    Ok(Outcome { end, tail: watch.tail() })
}

/// Whatever its size beside the agent's: a check may fail for memory, a trial that loses its agent
/// ends without a reason. Its children inherit it.
fn offer_to_oom_killer(pid: Pid) {
    // Anybody may raise it; where that is refused, size decides as before.
    let _ = std::fs::write(format!("/proc/{}/oom_score_adj", pid.as_raw_nonzero()), "1000");
}

fn reap(child: &mut Child) -> std::io::Result<End> {
    let status = child.wait()?;
    Ok(match status.code() {
        Some(code) => End::Exit(code),
        None => End::Signal(status.signal().unwrap_or_default()),
    })
}

/// Waits for a process and reads what it says meanwhile.
struct Watch {
    pid: Pid,
    /// `None`: the kernel has none, or refuses it.
    pidfd: Option<OwnedFd>,
    reader: PipeReader,
    output: VecDeque<u8>,
    exited: bool,
    /// Whether somebody may still write.
    open: bool,
}

impl Watch {
    fn new(pid: Pid, pidfd: Option<OwnedFd>, reader: PipeReader) -> Self {
        let output = VecDeque::with_capacity(TAIL);
        Watch { pid, pidfd, reader, output, exited: false, open: true }
    }

    fn run(mut self, limit: Duration) -> std::io::Result<Self> {
        self.wait_for_exit(limit)?;
        // What the program said last may still be in the pipe; a pipe holds 64 KiB.
        for _ in 0..16 {
            if !self.open || !self.observe(Duration::ZERO)? {
                break;
            }
        }
        Ok(self)
    }

    /// Whether it has ended, after `limit` at the latest.
    fn wait_for_exit(&mut self, limit: Duration) -> std::io::Result<bool> {
        let start = Instant::now();
        while !self.exited {
            let left = limit.saturating_sub(start.elapsed());
            if left.is_zero() {
                break;
            }
            self.observe(if self.pidfd.is_some() { left } else { left.min(TICK) })?;
        }
        Ok(self.exited)
    }

    /// Waits until something happens and takes note of it; `false` when nothing did.
    fn observe(&mut self, wait: Duration) -> std::io::Result<bool> {
        let wait = Timespec::try_from(wait).unwrap_or(Timespec { tv_sec: 3600, tv_nsec: 0 });
        let mut fds = Vec::with_capacity(2);
        if self.open {
            fds.push(PollFd::new(&self.reader, PollFlags::IN));
        }
        if let Some(pidfd) = self.pidfd.as_ref().filter(|_| !self.exited) {
            fds.push(PollFd::new(pidfd, PollFlags::IN));
        }
        match poll(&mut fds, Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let happened: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        let mut happened = happened.into_iter();
        let readable = self.open && happened.next().unwrap_or(false);
        let exited = !self.exited
            && match self.pidfd {
                Some(_) => happened.next().unwrap_or(false),
                None => self.has_exited()?,
            };
        if readable {
            let mut buffer = [0; TAIL];
            let count = self.reader.read(&mut buffer)?;
            self.open = count > 0;
            self.output.extend(buffer.iter().take(count));
            let surplus = self.output.len().saturating_sub(TAIL);
            self.output.drain(..surplus);
        }
        self.exited |= exited;
        Ok(readable || exited)
    }

    /// Asks without waiting, and leaves it to be reaped.
    fn has_exited(&self) -> std::io::Result<bool> {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match waitid(WaitId::Pid(self.pid), look) {
            Ok(status) => Ok(status.is_some()),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The output as one line in which nothing can move a cursor or turn text around.
    fn tail(&mut self) -> String {
        let text = String::from_utf8_lossy(self.output.make_contiguous());
        let mut line = String::new();
        for c in text.trim().chars() {
            if matches!(c, '"' | '\'') {
                line.push(c);
            } else {
                line.extend(c.escape_debug());
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same with a pidfd and without one, as on old kernels.
    fn sh(script: &str, limit: Duration) -> Outcome {
        let argv = ["sh", "-c", script].map(str::to_owned);
        let without = run_watched(&argv, limit, |_| {}, &|_| None).unwrap();
        let with = run(&argv, limit).unwrap();
        assert_eq!(with.end, without.end, "{script}");
        with
    }

    /// Without a pidfd.
    fn sh_ticking(script: &str, limit: Duration) -> Outcome {
        run_watched(&["sh", "-c", script].map(str::to_owned), limit, |_| {}, &|_| None).unwrap()
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn the_end_and_the_last_words_are_told() {
        let told = |end, tail: &str| Outcome { end, tail: tail.to_owned() };
        assert_eq!(
            sh_ticking("echo out; echo err >&2; exit 7", LONG),
            told(End::Exit(7), "out\\nerr")
        );
        assert_eq!(sh_ticking("exec >&- 2>&-; exit 3", LONG), told(End::Exit(3), ""));
        assert_eq!(sh("exit 0", LONG), told(End::Exit(0), ""));
        assert_eq!(sh("echo out; echo err >&2; exit 7", LONG), told(End::Exit(7), "out\\nerr"));
        assert_eq!(sh("kill -9 $$", LONG), told(End::Signal(9), ""));
        assert_eq!(sh("read x || echo 'no input'", LONG).tail, "no input");
        let missing = run(&["/no/such/program".to_owned()], LONG).unwrap_err();
        assert_eq!(missing, "there is no /no/such/program");
    }

    #[test]
    fn output_is_bounded_and_harmless() {
        let flood = sh("yes abcdefg | head -c 1000000; printf '\\033[2J\\342\\200\\256 end'", LONG);
        assert_eq!(flood.end, End::Exit(0));
        assert!(flood.tail.ends_with("\\u{1b}[2J\\u{202e} end"), "{}", flood.tail);
        assert!(!flood.tail.chars().any(char::is_control));
        assert!(flood.tail.len() <= 2 * TAIL, "{}", flood.tail.len());
        let endless = sh("while :; do echo x; done", Duration::from_millis(200));
        assert_eq!(endless.end, End::TimedOut(Duration::from_millis(200)));
    }

    #[test]
    fn a_hanging_program_is_killed_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let pids = dir.path().join("pids");
        let script = format!("sleep 1000 & echo $! $$ > {}; echo waiting; wait", pids.display());
        // On a busy machine the program may need longer to come up: give it more and more.
        let mut limit = Duration::from_millis(250);
        let outcome = loop {
            let outcome = sh(&script, limit);
            assert_eq!(outcome.end, End::TimedOut(limit));
            if outcome.tail == "waiting" || limit > LONG {
                break outcome;
            }
            limit *= 2;
        };
        assert_eq!(outcome.tail, "waiting");
        for pid in std::fs::read_to_string(&pids).unwrap().split_whitespace() {
            assert_gone(pid);
        }
    }

    #[test]
    fn the_kernel_kills_a_check_before_the_agent() {
        let offered = || sh("sleep 0.2; cat /proc/self/oom_score_adj", LONG).tail;
        assert_eq!(offered(), "1000");
        let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
        assert_ne!(own.trim(), "1000");
    }

    #[test]
    fn what_a_program_leaves_behind_is_killed() {
        let outcome = sh("sleep 1000 & echo $!", LONG);
        assert_eq!(outcome.end, End::Exit(0));
        assert_gone(&outcome.tail);
    }

    /// A killed process is gone, or dead and waiting for its new parent to reap it.
    fn assert_gone(pid: &str) {
        let start = Instant::now();
        loop {
            let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let letter = state.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
            if matches!(letter, None | Some('Z' | 'X')) {
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(120), "{pid} still lives: {state}");
            std::thread::yield_now();
        }
    }
}
