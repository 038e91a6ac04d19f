//! Ctrl-C and SIGTERM: one line that says what stands, then the end that the sender expects.
//!
//! ```text
//!  SIGINT, SIGTERM ─► watcher ─┬ the work goes on:      its line, then death by the signal
//!                              ├ the work is finishing: a note; the command ends by itself
//!                              └ the outcome was told:  death by the signal, without a word
//!  a second one ─► death by the signal, at once
//! ```
//!
//! A program that dies by the signal ends the shell script around it, too; one that only exits with
//! 130 or 143 does not. Nothing here makes anything durable: everything durable is made for a kill at
//! any moment, and locks go with the process.
//!
//! A signal that was ignored when the program started (`nohup`, a job in the background) stays ignored.
//! What is said here is about the whole process, and so is what it is kept in.

use std::borrow::Cow;
use std::ffi::c_int;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fmt, fs, io, thread};

use rustix::process::{Pid, getpid, kill_process_group};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::{flag, low_level};

/// What is so when the work ends now, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stands {
    /// Say, `slot b is not next`.
    pub what: Cow<'static, str>,
    /// Say, `run it again`.
    pub next: Cow<'static, str>,
}

/// Who asks the process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl fmt::Display for Signal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Signal::Interrupt => "Ctrl-C (SIGINT)",
            Signal::Terminate => "SIGTERM",
        })
    }
}

/// What the watcher has to tell.
#[derive(Debug)]
pub enum Ending<'a> {
    /// The process dies as soon as this is told.
    Now(Signal, &'a Stands),
    /// The work is nearly done, and ends by itself.
    Later(Signal),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Working,
    Finishing,
    Told,
    Dying,
}

struct Watched {
    phase: Phase,
    asked: bool,
    stands: Stands,
    cleanups: Vec<Left>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Left {
    Path(PathBuf),
    Group(Pid),
}

static WATCHED: Mutex<Watched> = Mutex::new(Watched {
    phase: Phase::Working,
    asked: false,
    stands: Stands { what: Cow::Borrowed(""), next: Cow::Borrowed("") },
    cleanups: Vec::new(),
});

fn watched() -> MutexGuard<'static, Watched> {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Begins to watch; `tell` prints. It must not wait for a lock that the work may hold while it prints.
/// Where the system gives no thread or descriptor for this, a signal ends the process without a word.
pub fn watch(tell: impl Fn(Ending<'_>) + Send + 'static) {
    let ignored = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let numbers: Vec<c_int> =
        [SIGINT, SIGTERM].into_iter().filter(|number| !is_ignored(&ignored, *number)).collect();
    let (armed, ready) = channel();
    let watching = thread::Builder::new()
        .name("signals".to_owned())
        .stack_size(256 << 10)
        .spawn(move || drop(follow(&numbers, armed, &tell)));
    if watching.is_ok() {
        // The sender goes when it is armed, and when it could not be.
        let _ = ready.recv();
    }
}

/// Whether `/proc/self/status` says that a signal is ignored (proc_pid_status(5)).
fn is_ignored(status: &str, number: c_int) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (number - 1) & 1 == 1
}

fn follow(numbers: &[c_int], armed: Sender<()>, tell: &dyn Fn(Ending<'_>)) -> io::Result<()> {
    let second = Arc::new(AtomicBool::new(false));
    // A handler that nobody follows would swallow the signal: without the rest, the first one ends it.
    let mut signals =
        handlers(numbers, &second).inspect_err(|_| second.store(true, Ordering::SeqCst))?;
    drop(armed);
    if let Some(number) = signals.forever().next() {
        // Whatever printing waits for, another one ends it.
        second.store(true, Ordering::SeqCst);
        obey(number, tell);
    }
    Ok(())
}

fn handlers(numbers: &[c_int], second: &Arc<AtomicBool>) -> io::Result<Signals> {
    for number in numbers {
        flag::register_conditional_default(*number, Arc::clone(second))?;
    }
    Signals::new(numbers)
}

fn obey(number: c_int, tell: &dyn Fn(Ending<'_>)) {
    let signal = if number == SIGINT { Signal::Interrupt } else { Signal::Terminate };
    let (phase, stands) = ask();
    match phase {
        Phase::Working => tell(Ending::Now(signal, &stands)),
        Phase::Finishing => return tell(Ending::Later(signal)),
        Phase::Told | Phase::Dying => {}
    }
    clean_up();
    die(number);
}

/// Notes that the process was asked to end, and that it does so where it is at work; gives what it was
/// at, and what stands.
fn ask() -> (Phase, Stands) {
    let mut it = watched();
    it.asked = true;
    let phase = it.phase;
    if phase == Phase::Working {
        it.phase = Phase::Dying;
    }
    (phase, it.stands.clone())
}

fn die(number: c_int) -> ! {
    // The kernel spares the first process of a container what a signal does by default.
    if !getpid().is_init() {
        let _ = low_level::emulate_default_handler(number);
    }
    std::process::exit(128 + number);
}

/// Says what stands from here on.
pub fn stands(what: impl Into<Cow<'static, str>>, next: impl Into<Cow<'static, str>>) {
    watched().stands = Stands { what: what.into(), next: next.into() };
}

/// The work goes to its end from here on: what is left takes a moment, and its outcome is told.
pub fn finishing() {
    advance(Phase::Finishing);
}

/// To be called before an outcome is told, and before the process ends: from here on no interruption is
/// told. Does not return when one is being told.
pub fn outcome() {
    advance(Phase::Told);
}

fn advance(phase: Phase) {
    let mut it = watched();
    if it.phase == Phase::Dying {
        drop(it);
        loop {
            thread::park();
        }
    }
    it.phase = phase;
}

/// Whether the process was asked to end and still works.
pub fn was_asked() -> bool {
    watched().asked
}

/// What an interruption takes along, as the end of the work would have: until this is dropped.
#[derive(Debug)]
pub struct Cleanup(Left);

impl Cleanup {
    /// A temporary file or directory, which a kill leaves behind.
    pub fn path(path: &Path) -> Self {
        Cleanup::begin(Left::Path(path.to_owned()))
    }

    /// The process group of a program that works for this one: nobody would end it in time any more.
    pub fn group(leader: Pid) -> Self {
        Cleanup::begin(Left::Group(leader))
    }

    fn begin(left: Left) -> Self {
        watched().cleanups.push(left.clone());
        Cleanup(left)
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        watched().cleanups.retain(|left| *left != self.0);
    }
}

fn clean_up() {
    let cleanups = std::mem::take(&mut watched().cleanups);
    for left in cleanups {
        match left {
            Left::Group(leader) => drop(kill_process_group(leader, rustix::process::Signal::KILL)),
            Left::Path(path) => remove(&path),
        }
    }
}

/// The work still writes, so a directory may not be empty at once.
fn remove(path: &Path) {
    for _ in 0..20 {
        let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                thread::sleep(Duration::from_millis(5));
            }
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Command, Output};

    use super::*;

    /// Set in the process that is to be interrupted: this test, once more.
    const ACTS: &str = "RACKLET_TEST_INTERRUPTED";

    /// In one piece: a second signal may end the process at any moment.
    fn say(text: &str) {
        let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
    }

    /// What the interrupted process does, word by word; at the end it succeeds.
    fn act(words: &str) {
        for word in words.split(' ') {
            match word {
                "watch" => watch(|ending| match ending {
                    Ending::Now(signal, stands) => say(&format!("{signal}: {}", stands.what)),
                    Ending::Later(signal) => say(&format!("{signal}: a moment")),
                }),
                "writing" => stands("half written", "run it again"),
                "finishing" => finishing(),
                "told" => {
                    outcome();
                    say("outcome");
                }
                "INT" => low_level::raise(SIGINT).unwrap(),
                "TERM" => low_level::raise(SIGTERM).unwrap(),
                // Until the watcher has seen it.
                "asked" => {
                    while !was_asked() {
                        thread::yield_now();
                    }
                }
                // Until it is over with this process, or a minute has passed.
                "wait" => thread::sleep(Duration::from_secs(60)),
                _ => unreachable!("{word}"),
            }
        }
    }

    fn again(words: &str, before: &str) -> Output {
        let exe = std::env::current_exe().unwrap();
        let name = "interrupt::tests::a_signal_is_told_once_and_obeyed";
        let line = format!("{before} exec \"$0\" --exact {name} --nocapture");
        // A job in the background ignores SIGINT, and tests may be one.
        let mut shell = Command::new("env");
        shell.args(["--default-signal", "sh", "-c", &line]).arg(exe);
        shell.env(ACTS, words).output().unwrap()
    }

    #[test]
    fn a_signal_is_told_once_and_obeyed() {
        if let Ok(words) = std::env::var(ACTS) {
            return act(&words);
        }
        let (interrupted, terminated) = (Some(SIGINT), Some(SIGTERM));
        for (words, said, signal) in [
            ("watch writing INT wait", "Ctrl-C (SIGINT): half written\n", interrupted),
            ("watch writing TERM wait", "SIGTERM: half written\n", terminated),
            // What the work finds out meanwhile is not told beside it.
            ("watch writing INT asked told wait", "Ctrl-C (SIGINT): half written\n", interrupted),
            ("watch told INT wait", "outcome\n", interrupted),
            ("watch finishing INT asked told", "outcome\n", None),
            ("watch finishing TERM asked TERM wait", "", terminated),
            ("writing INT wait", "", interrupted),
        ] {
            let ended = again(words, "");
            let text =
                String::from_utf8_lossy(&ended.stderr).replace("Ctrl-C (SIGINT): a moment\n", "");
            let text = text.replace("SIGTERM: a moment\n", "");
            assert_eq!((text.as_str(), ended.status.signal()), (said, signal), "{words}");
        }
        let ended = again("watch writing INT told", "trap '' INT;");
        assert_eq!(String::from_utf8_lossy(&ended.stderr), "outcome\n");
        assert!(ended.status.success(), "it was ignored before: {}", ended.status);
    }

    #[test]
    fn the_mask_of_ignored_signals_is_read() {
        let status = "Name:\tx\nSigBlk:\tffffffffffffffff\nSigIgn:\t0000000000001002\n";
        let rows = [(SIGINT, true), (SIGTERM, false), (13, true), (1, false), (64, false)];
        for (number, ignored) in rows {
            assert_eq!(is_ignored(status, number), ignored, "{number}");
        }
        assert!(!is_ignored("", SIGINT));
    }

    #[test]
    fn an_interruption_cleans_up_what_still_has_an_owner() {
        use std::os::unix::process::CommandExt as _;
        let dir = tempfile::tempdir().unwrap();
        let (kept, gone) = (dir.path().join("kept"), dir.path().join("gone"));
        for path in [&kept, &gone] {
            fs::create_dir(path).unwrap();
            fs::write(path.join("blob"), "x").unwrap();
        }
        drop(Cleanup::path(&kept));
        let _path = Cleanup::path(&gone);
        let mut helper = Command::new("sleep").arg("600").process_group(0).spawn().unwrap();
        let _group = Cleanup::group(Pid::from_child(&helper));
        clean_up();
        assert_eq!((kept.exists(), gone.exists()), (true, false));
        let ended = helper.wait().unwrap();
        assert_eq!(ended.signal(), Some(signal_hook::consts::SIGKILL));
    }
}
