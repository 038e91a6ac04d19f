//! One external command: shown, run without a terminal, its exit and output checked.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::paths;

/// A command about to run. Standard input is empty: nothing here can wait for a person.
pub struct Cmd {
    command: Command,
    input: Option<Vec<u8>>,
    /// Printed when it begins, see [`Cmd::aloud`].
    aloud: bool,
    /// See [`Cmd::silent_for`].
    silence: Option<Duration>,
}

/// What a finished command left behind.
#[derive(Debug)]
pub struct Finished {
    /// The command as typed, for messages.
    pub shown: String,
    /// Exit code; −1 when a signal ended it.
    pub code: i32,
    /// Standard output, lossily decoded.
    pub stdout: String,
    /// Standard error, lossily decoded.
    pub stderr: String,
    /// Wall time.
    pub took: Duration,
}

impl Cmd {
    /// A program by its name on `PATH`, or by its path.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self { command: Command::new(program), input: None, aloud: false, silence: None }
    }

    /// cargo, as whoever called us would call it. What it tells a program that it runs is taken away: build
    /// scripts (ring's) ask for some of it, and everything above them would be compiled again, each time
    /// from here and each time from a shell.
    pub fn cargo() -> Self {
        let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        Self::cargo_runs(&program).env("CARGO_TERM_COLOR", "never").current_dir(&paths::root())
    }

    /// A program as cargo would run it for whoever called us, without what cargo told us of ourselves.
    pub fn cargo_runs(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|start| text.starts_with(start)) {
                command.env_remove(&name);
            }
        }
        Self { command, input: None, aloud: false, silence: None }
    }

    /// One more argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// More arguments.
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    /// A variable of its environment.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// The folder that it runs in.
    pub fn current_dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Bytes for standard input (a script, so that no temporary file is needed).
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self
    }

    /// Prints itself when it begins, as `     $ command` that can be copied into a shell.
    pub fn aloud(mut self) -> Self {
        self.aloud = true;
        self
    }

    /// In [`Cmd::follow`]: after so long without a line, what the command runs is killed, and a line says so; the
    /// command itself, once it runs nothing.
    pub fn silent_for(mut self, limit: Duration) -> Self {
        self.silence = Some(limit);
        self
    }

    fn announce(&self) {
        if self.aloud {
            println!("     $ {self}");
        }
    }

    /// The same command as the argument of `wrapper`, with the last argument of its own (say, `time -o FILE`).
    /// It is announced without the wrapper.
    pub fn under(self, wrapper: &str, options: &[&str], last: impl AsRef<OsStr>) -> Self {
        self.announce();
        let mut command = Command::new(wrapper);
        command.args(options).arg(last).arg(self.command.get_program());
        command.args(self.command.get_args());
        for (name, value) in self.command.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        if let Some(dir) = self.command.get_current_dir() {
            command.current_dir(dir);
        }
        Self { command, aloud: false, ..self }
    }

    /// Runs to the end, capturing both streams; any exit code is an answer.
    pub fn finish(mut self) -> Result<Finished> {
        self.announce();
        let shown = self.to_string();
        let started = Instant::now();
        let stdin = if self.input.is_some() { Stdio::piped() } else { Stdio::null() };
        let mut child = self
            .command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start `{shown}`"))?;
        if let (Some(bytes), Some(mut stdin)) = (self.input, child.stdin.take()) {
            // A thread, because a child that fills its output before reading all input would
            // block us; a broken pipe only means that it did not want the rest.
            std::thread::spawn(move || drop(stdin.write_all(&bytes)));
        }
        let output = child.wait_with_output().with_context(|| format!("wait for `{shown}`"))?;
        Ok(Finished {
            shown,
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            took: started.elapsed(),
        })
    }

    /// Runs to the end and requires exit code 0; otherwise the error shows all output.
    pub fn run(self) -> Result<Finished> {
        self.finish()?.expect(0)
    }

    /// Like [`Cmd::run`], for its standard output without the last newline.
    pub fn read(self) -> Result<String> {
        Ok(self.run()?.stdout.trim_end().to_string())
    }

    /// Runs with the caller's output streams, for long commands a person wants to watch.
    pub fn watch(self) -> Result<()> {
        self.start()?.wait().map(drop)
    }

    /// Like [`Cmd::watch`], beside what the caller does next.
    pub fn start(mut self) -> Result<Running> {
        self.announce();
        let shown = self.to_string();
        let started = Instant::now();
        let mut child = (self.command.stdin(Stdio::null()).spawn())
            .with_context(|| format!("start `{shown}`"))?;
        let (stop, stopped) = mpsc::channel();
        let waiter = thread::spawn(move || {
            let status = wait_or_kill(&mut child, &stopped)?;
            Ok((status, started.elapsed()))
        });
        Ok(Running { shown, stop, waiter: Some(waiter) })
    }

    /// Runs to the end with both streams in one pipe, so that the lines of a command and of its children keep
    /// their order, and hands each to `each` as it comes. All of them are in `stdout` afterwards.
    pub fn follow(mut self, mut each: impl FnMut(&str)) -> Result<Finished> {
        self.announce();
        let shown = self.to_string();
        let started = Instant::now();
        let (reader, writer) = std::io::pipe().context("make a pipe")?;
        self.command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        let mut child = self.command.spawn().with_context(|| format!("start `{shown}`"))?;
        // It holds two writing ends, which would keep the pipe open for ever.
        drop(self.command);
        let (tell, told) = mpsc::channel();
        // Ends with the pipe; on its own where a process that nobody waits for keeps that open.
        thread::spawn(move || tell_lines(reader, &tell));
        let mut all = String::new();
        loop {
            // Without a limit: about as long as a machine lives.
            let line = told.recv_timeout(self.silence.unwrap_or(Duration::from_secs(1 << 32)));
            let text = match line {
                Ok(line) => line.context("read its output")?,
                Err(RecvTimeoutError::Timeout) => match end_what_it_runs(&mut child)? {
                    Some(what) => {
                        format!("error: nothing was said for so long: {what} was killed\n")
                    }
                    None => break,
                },
                Err(RecvTimeoutError::Disconnected) => break,
            };
            each(text.trim_end_matches('\n'));
            all.push_str(&text);
        }
        let status = child.wait().with_context(|| format!("wait for `{shown}`"))?;
        Ok(Finished {
            shown,
            code: status.code().unwrap_or(-1),
            stdout: all,
            stderr: String::new(),
            took: started.elapsed(),
        })
    }

    /// The command itself, for those who keep the process.
    pub fn into_command(self) -> Command {
        self.announce();
        self.command
    }
}

/// A command that runs beside us; it ends with us.
pub struct Running {
    shown: String,
    /// Dropped, or told: the command is killed.
    stop: Sender<()>,
    waiter: Option<thread::JoinHandle<std::io::Result<(ExitStatus, Duration)>>>,
}

impl Running {
    /// Waits for its end and requires exit code 0; how long it ran.
    pub fn wait(mut self) -> Result<Duration> {
        let waiter = self.waiter.take().context("it was waited for already")?;
        let ended = waiter.join().map_err(|_| anyhow!("whoever waited for it panicked"))?;
        let (status, took) = ended.with_context(|| format!("wait for `{}`", self.shown))?;
        if status.success() { Ok(took) } else { bail!("`{}` ended with {status}", self.shown) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter.take() {
            let _ = self.stop.send(());
            drop(waiter.join());
        }
    }
}

/// Every line, until the end of the stream or an error.
fn tell_lines(stream: impl Read, tell: &Sender<std::io::Result<String>>) {
    let (mut reader, mut line) = (BufReader::new(stream), Vec::new());
    loop {
        line.clear();
        let told = match reader.read_until(b'\n', &mut line) {
            Ok(0) => return,
            Ok(_) => tell.send(Ok(String::from_utf8_lossy(&line).into_owned())),
            Err(error) => return drop(tell.send(Err(error))),
        };
        if told.is_err() {
            return;
        }
    }
}

/// Kills the children of a command, or the command when it has none; what was killed. `None` when the command
/// itself has ended.
fn end_what_it_runs(command: &mut Child) -> Result<Option<String>> {
    if command.try_wait()?.is_some() {
        return Ok(None);
    }
    let own = command.id();
    // One thread of the command may have started them, or another.
    let mut pids = Vec::new();
    for thread in fs::read_dir(format!("/proc/{own}/task")).into_iter().flatten().flatten() {
        let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        pids.extend(children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
    }
    if pids.is_empty() {
        pids.push(i32::try_from(own)?);
    }
    let mut killed = Vec::new();
    for pid in pids {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if let Some(process) = Pid::from_raw(pid) {
            // It may have ended by itself meanwhile.
            let _ended = kill_process(process, Signal::KILL);
        }
        killed.push(format!("{} (pid {pid})", name.trim_end()));
    }
    Ok(Some(killed.join(", ")))
}

/// Looks now and then whether the child ended or is not wanted any more.
fn wait_or_kill(child: &mut Child, stopped: &Receiver<()>) -> std::io::Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if stopped.recv_timeout(Duration::from_millis(50)).is_ok() {
            child.kill()?;
            return child.wait();
        }
    }
}

impl Finished {
    /// Requires this exit code.
    pub fn expect(self, code: i32) -> Result<Self> {
        if self.code == code {
            return Ok(self);
        }
        bail!("`{}` exited {}, not {code}\n{}", self.shown, self.code, self.output())
    }

    /// Both streams, for an error message.
    pub fn output(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// Standard output as one JSON document.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(self.stdout.trim()).with_context(|| {
            format!("`{}` did not print one JSON document: {}", self.shown, self.stdout)
        })
    }
}

impl fmt::Display for Cmd {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = Path::new(self.command.get_program());
        // The file name alone: where a build directory lies tells a reader nothing.
        let name = program.file_name().unwrap_or(program.as_os_str());
        write!(out, "{}", quoted(&name.to_string_lossy()))?;
        for arg in self.command.get_args() {
            write!(out, " {}", quoted(&arg.to_string_lossy()))?;
        }
        Ok(())
    }
}

/// A word as a POSIX shell reads it back: in single quotes, unless every character stands for itself.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Where `program` lies on PATH (with the sbin folders, which a user's PATH leaves out).
pub fn which(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_and_output_are_kept() {
        let done = Cmd::new("sh").args(["-c", "cat; echo e >&2; exit 3"]).input("in").finish();
        let done = done.expect("sh starts");
        assert_eq!((done.code, done.stdout.as_str(), done.stderr.as_str()), (3, "in", "e\n"));
        let error = done.expect(0).expect_err("3 is not 0").to_string();
        assert!(error.contains("exited 3, not 0"), "{error}");
    }

    #[test]
    fn what_is_shown_can_be_copied_into_a_shell() {
        for word in ["", "plain", "os=v1.ext4,hw=x", "two words", "it's", "$HOME;`id`", "a\nb", "~"]
        {
            let shown = Cmd::new("printf").args(["%s", word]).to_string();
            let done = Cmd::new("sh").args(["-c", &shown]).run().expect("a shell reads it");
            assert_eq!(done.stdout, word, "{shown}");
        }
    }

    #[test]
    fn both_streams_are_followed_in_their_order() {
        let script = "echo a; echo b >&2; printf 'c\\377'; exit 4";
        let mut lines = Vec::new();
        let done = Cmd::new("sh").args(["-c", script]).follow(|line| lines.push(line.to_owned()));
        let done = done.expect("sh starts");
        assert_eq!((lines.join("|").as_str(), done.code), ("a|b|c\u{fffd}", 4));
        assert_eq!(done.stdout, "a\nb\nc\u{fffd}");
    }

    /// Of a test that waits for ever, the next ones must not: cargo goes on with them when it is killed.
    #[test]
    fn what_says_nothing_for_too_long_is_killed_and_named() {
        let limit = Duration::from_millis(300);
        let mut lines = Vec::new();
        let done = Cmd::new("sh")
            .args(["-c", "echo first; (exec sleep 1000); echo \"$?, and on\""])
            .silent_for(limit)
            .follow(|line| lines.push(line.to_owned()))
            .expect("sh starts");
        // The shell, too, may say that it was killed.
        let [first, killed, .., on] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!((first.as_str(), on.as_str(), done.code), ("first", "137, and on", 0));
        assert!(killed.starts_with("error: nothing was said for so long: sleep (pid "), "{killed}");

        // One that runs nothing is killed itself, and one that left somebody behind is not waited for.
        let done = Cmd::new("sleep").arg("1000").silent_for(limit).follow(|_| ());
        assert_eq!(done.expect("sleep starts").code, -1);
        let script = "sleep 20 & echo left";
        let done = Cmd::new("sh").args(["-c", script]).silent_for(limit).follow(|_| ());
        let done = done.expect("sh starts");
        assert_eq!((done.stdout.as_str(), done.code), ("left\n", 0));
        assert!(done.took < Duration::from_secs(20), "{:?}", done.took);
    }

    #[test]
    fn what_runs_beside_us_ends_with_us() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let fifo = dir.path().join("fifo");
        Cmd::new("mkfifo").arg(&fifo).run().expect("a named pipe");
        // Opening a named pipe waits for the other side, reading it for the death of the writer.
        let script = "exec sleep 1000 >\"$0\"";
        let running = Cmd::new("sh").args(["-c", script]).arg(&fifo).start().expect("it starts");
        let reader = std::fs::File::open(&fifo).expect("it opens the pipe, too");
        drop(running);
        assert_eq!(std::io::read_to_string(reader).expect("its end is closed"), "");

        let took = Cmd::new("true").start().and_then(Running::wait);
        assert!(took.is_ok());
        let error = Cmd::new("false").start().and_then(Running::wait).expect_err("it failed");
        assert!(error.to_string().contains("`false` ended with"), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Cmd::new("/nonexistent/tool").run().expect_err("cannot start");
        assert!(format!("{error:#}").contains("start `tool`"), "{error:#}");
    }
}
