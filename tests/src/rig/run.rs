//! One external command: bounded in time, its exit and output kept.

use std::ffi::OsStr;
use std::fmt;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use formats::reason::{Exit, Reason};
use serde_json::Value;

use super::must;

/// A command that takes longer has hung: the slowest one here takes seconds, on a busy machine a minute.
const DEADLINE: Duration = Duration::from_secs(300);

/// A command about to run. Standard input is empty: nothing here can wait for a person.
#[derive(Debug)]
pub struct Run {
    command: Command,
}

impl Run {
    /// A program by its path or, for tools that every system has, by its name.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C").env_remove("RUST_LOG").env_remove("REPO_SERVER_LOG");
        Run { command }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// The same command as the last arguments of another program (say, `faketime`).
    #[must_use]
    pub fn under(self, wrapper: Run) -> Self {
        let mut command = wrapper.command;
        command.arg(self.command.get_program()).args(self.command.get_args());
        Run { command }
    }

    /// The same with the signals as at a terminal: a test that runs in the background ignores SIGINT, and
    /// what it starts would, too.
    #[must_use]
    pub fn at_a_terminal(self) -> Self {
        self.under(Run::new("env").arg("--default-signal"))
    }

    /// Starts it.
    #[track_caller]
    pub fn start(mut self) -> Running {
        let shown = self.to_string();
        let spawned =
            self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = must(spawned, &format!("start `{shown}`"));
        let stdout = child.stdout.take().expect("standard output was asked for as a pipe");
        let stderr = child.stderr.take().expect("standard error was asked for as a pipe");
        let (tell_out, out) = mpsc::channel();
        thread::spawn(move || {
            let mut bytes = Vec::new();
            let mut stdout = stdout;
            drop(stdout.read_to_end(&mut bytes));
            drop(tell_out.send(bytes));
        });
        let (tell_line, lines) = mpsc::channel();
        let log = Arc::new(Mutex::new(String::new()));
        let kept = Arc::clone(&log);
        // Reads on to the end, whoever listens: a full pipe never stops the program.
        thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.push_str(&line);
                kept.push('\n');
                drop(tell_line.send(line));
            }
        });
        Running { child, shown, out, lines, log }
    }

    /// Runs to the end; any exit code is an answer.
    #[track_caller]
    pub fn finish(self) -> Done {
        self.start().finish()
    }

    /// Runs to the end and requires exit code 0.
    #[track_caller]
    pub fn ok(self) -> Done {
        self.finish().exits(Exit::Done)
    }
}

impl fmt::Display for Run {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = Path::new(self.command.get_program());
        write!(out, "{}", program.file_name().unwrap_or(program.as_os_str()).to_string_lossy())?;
        for arg in self.command.get_args() {
            write!(out, " {}", arg.to_string_lossy())?;
        }
        Ok(())
    }
}

/// A running command; killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    shown: String,
    out: Receiver<Vec<u8>>,
    lines: Receiver<String>,
    log: Arc<Mutex<String>>,
}

impl Running {
    /// Waits for a line of standard error that `wanted` makes something of.
    #[track_caller]
    pub fn await_line<T>(&mut self, wanted: impl Fn(&str) -> Option<T>) -> T {
        loop {
            match self.lines.recv_timeout(DEADLINE) {
                Ok(line) => {
                    if let Some(found) = wanted(&line) {
                        return found;
                    }
                }
                Err(_) => panic!("`{}` did not say what it should:\n{}", self.shown, self.log()),
            }
        }
    }

    /// Waits until a file is there.
    #[track_caller]
    pub fn await_file(&self, path: &Path, patience: Duration) {
        let end = Instant::now() + patience;
        while !path.exists() {
            assert!(Instant::now() < end, "no {}:\n{}", path.display(), self.log());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until no thread of it runs and its processor time stands still: with its line
    /// stopped, it has done all it can with what it received.
    #[track_caller]
    pub fn await_idle(&self) {
        let until = Instant::now() + DEADLINE;
        let mut last = None;
        let mut still = 0;
        while still < 5 {
            assert!(Instant::now() < until, "`{}` never became idle:\n{}", self.shown, self.log());
            let now = idle_at(self.child.id());
            still = if now.is_some() && now == last { still + 1 } else { 0 };
            last = now;
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// `kill -9`, as a power cut is for a process.
    pub fn kill(mut self) {
        self.end();
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal. It is our own child and not waited for yet, so the id is still its own.
    #[track_caller]
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("our own child");
    }

    /// Asks it to end, and waits until it has.
    #[track_caller]
    pub fn terminate(self) -> Done {
        self.signal(rustix::process::Signal::TERM);
        self.finish()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn finish(self) -> Done {
        self.finish_within(DEADLINE)
    }

    /// Waits for its end, for so long.
    #[track_caller]
    pub fn finish_within(mut self, deadline: Duration) -> Done {
        let Ok(stdout) = self.out.recv_timeout(deadline) else {
            panic!("`{}` has hung:\n{}", self.shown, self.log());
        };
        let status = must(self.child.wait(), &format!("wait for `{}`", self.shown));
        // The other reader ends with the program's last line.
        while self.lines.recv_timeout(DEADLINE).is_ok() {}
        Done {
            shown: self.shown.clone(),
            // A signal is no answer of ours.
            code: status.code().unwrap_or(-1),
            signal: status.signal(),
            stdout,
            stderr: self.log(),
        }
    }

    /// What it said on standard error so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn end(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// What a finished command left behind.
#[derive(Debug)]
pub struct Done {
    /// The command as typed, for messages.
    pub shown: String,
    /// Exit code; −1 when a signal ended it.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error, lossily decoded.
    pub stderr: String,
}

impl Done {
    /// Requires this exit code.
    #[track_caller]
    #[must_use]
    pub fn exits(self, exit: Exit) -> Self {
        self.exits_with(i32::from(exit.code()))
    }

    /// Requires this exit code, of a foreign program.
    #[track_caller]
    #[must_use]
    pub fn exits_with(self, code: i32) -> Self {
        assert_eq!(self.code, code, "exit code of `{}`\n{}", self.shown, self.output());
        self
    }

    /// Requires that this signal ended one of our programs, that one error said what stood, and what was
    /// to be done, and that with `--json` one object said so, too.
    #[track_caller]
    pub fn interrupted(&self, signal: rustix::process::Signal, said: [&str; 2], json: bool) {
        let context = format!("`{}`\n{}", self.shown, self.output());
        assert_eq!(self.signal, Some(signal.as_raw()), "{context}");
        let name =
            if signal == rustix::process::Signal::INT { "Ctrl-C (SIGINT)" } else { "SIGTERM" };
        let mut lines = self.stderr.lines().skip_while(|line| !line.starts_with("error["));
        let error = format!("error[interrupted]: ended by {name}: {}", said[0]);
        assert_eq!(lines.next(), Some(error.as_str()), "{context}");
        let hint = lines.next().map(|hint| hint.trim_start().trim_start_matches("hint: "));
        assert_eq!(hint, Some(said[1]), "{context}");
        assert_eq!(lines.next(), None, "{context}");
        if json {
            let object = self.json();
            assert_eq!(
                (&object["ok"], &object["code"]),
                (&false.into(), &"interrupted".into()),
                "{context}"
            );
        }
    }

    /// Requires that one of our programs, run with `--json`, refused for this reason: by its exit
    /// code, by the code on standard error, and by the object on standard output.
    #[track_caller]
    pub fn refused(&self, reason: Reason) {
        let context = format!("`{}`\n{}", self.shown, self.output());
        let line = self.stderr.lines().find(|line| line.starts_with("error["));
        let said = line.and_then(|line| line.strip_prefix("error[")?.split(']').next());
        assert_eq!(said, Some(reason.code()), "code on standard error of {context}");
        assert_eq!(self.code, i32::from(reason.exit().code()), "exit code of {context}");
        let object = self.json();
        assert_eq!(object["ok"], Value::Bool(false), "{context}");
        assert_eq!(object["code"], reason.code(), "{context}");
        assert!(object["message"].is_string(), "{context}");
    }

    /// Standard output as one JSON document.
    #[track_caller]
    pub fn json(&self) -> Value {
        match serde_json::from_slice(&self.stdout) {
            Ok(value) => value,
            Err(error) => panic!("`{}` printed no JSON ({error}):\n{}", self.shown, self.output()),
        }
    }

    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Both streams, for a message.
    pub fn output(&self) -> String {
        format!("{}{}", self.text(), self.stderr)
    }
}

/// A tool of other people, from a Debian package.
///
/// Debian keeps some of them out of a user's PATH, so the sbin folders are looked at, too.
#[track_caller]
pub fn tool(program: &str, package: &str) -> Run {
    if program == "faketime" {
        racklet_tools::rig::forget_dead_clocks();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(program))
        .find(|file| file.is_file());
    match found {
        Some(file) => Run::new(file),
        None => {
            panic!("{program} is missing: install the package {package} (`cargo xtask setup` does)")
        }
    }
}

/// Python with the witnesses from PyPI, as `cargo xtask setup` makes it.
#[track_caller]
pub fn venv() -> Run {
    // Isolated: no variable and no folder of the user changes what is imported.
    Run::new(venv_bin().join("python")).arg("-I")
}

/// The folder of that Python.
#[track_caller]
pub(crate) fn venv_bin() -> PathBuf {
    let python = racklet_tools::setup::python();
    let python = python.expect("the Python packages tuf and oras: run `cargo xtask setup`");
    python.parent().expect("it is in a folder").to_owned()
}

/// The folder above this crate's.
pub(crate) fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Processor time of a process whose threads all sleep; `None` while one runs or waits for a disk.
fn idle_at(pid: u32) -> Option<u64> {
    let mut ticks = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let stat = std::fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
        // proc(5): the state is the first field after the name in brackets, utime the 12th.
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        if fields.first() != Some(&"S") {
            return None;
        }
        for at in [11, 12] {
            ticks += fields.get(at)?.parse::<u64>().ok()?;
        }
    }
    Some(ticks)
}
