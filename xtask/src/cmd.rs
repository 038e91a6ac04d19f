//! One external command: shown, run without a terminal, its exit and output checked.

use std::ffi::OsStr;
use std::fmt;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::paths;

/// A command about to run. Standard input is empty: nothing here can wait for a person.
pub(crate) struct Cmd {
    command: Command,
    input: Option<Vec<u8>>,
}

/// What a finished command left behind.
#[derive(Debug)]
pub(crate) struct Finished {
    /// The command as typed, for messages.
    pub(crate) shown: String,
    /// Exit code; −1 when a signal ended it.
    pub(crate) code: i32,
    /// Standard output, lossily decoded.
    pub(crate) stdout: String,
    /// Standard error, lossily decoded.
    pub(crate) stderr: String,
    /// Wall time.
    pub(crate) took: Duration,
}

impl Cmd {
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        Self { command: Command::new(program), input: None }
    }

    /// cargo, as whoever called us would call it. What it tells a program that it runs is taken away: build
    /// scripts (ring's) ask for some of it, and everything above them would be compiled again, each time
    /// from here and each time from a shell.
    pub(crate) fn cargo() -> Self {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|start| text.starts_with(start)) {
                command.env_remove(&name);
            }
        }
        command.env("CARGO_TERM_COLOR", "never").current_dir(paths::root());
        Self { command, input: None }
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub(crate) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn current_dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Bytes for standard input (a script, so that no temporary file is needed).
    pub(crate) fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self
    }

    /// The same command as the argument of `wrapper`, with the last argument of its own (say, `time -o FILE`).
    pub(crate) fn under(self, wrapper: &str, options: &[&str], last: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(wrapper);
        command.args(options).arg(last).arg(self.command.get_program());
        command.args(self.command.get_args());
        for (name, value) in self.command.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        if let Some(dir) = self.command.get_current_dir() {
            command.current_dir(dir);
        }
        Self { command, input: self.input }
    }

    /// Runs to the end, capturing both streams; any exit code is an answer.
    pub(crate) fn finish(mut self) -> Result<Finished> {
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
    pub(crate) fn run(self) -> Result<Finished> {
        self.finish()?.expect(0)
    }

    /// Like [`Cmd::run`], for its standard output without the last newline.
    pub(crate) fn read(self) -> Result<String> {
        Ok(self.run()?.stdout.trim_end().to_string())
    }

    /// Runs with the caller's output streams, for long commands a person wants to watch.
    pub(crate) fn watch(mut self) -> Result<()> {
        let shown = self.to_string();
        let status = self
            .command
            .stdin(Stdio::null())
            .status()
            .with_context(|| format!("start `{shown}`"))?;
        if status.success() { Ok(()) } else { bail!("`{shown}` ended with {status}") }
    }
}

impl Finished {
    /// Requires this exit code.
    pub(crate) fn expect(self, code: i32) -> Result<Self> {
        if self.code == code {
            return Ok(self);
        }
        bail!("`{}` exited {}, not {code}\n{}", self.shown, self.code, self.output())
    }

    /// Both streams, for an error message.
    pub(crate) fn output(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// Standard output as one JSON document.
    pub(crate) fn json(&self) -> Result<serde_json::Value> {
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
        write!(out, "{}", name.to_string_lossy())?;
        for arg in self.command.get_args() {
            let arg = arg.to_string_lossy();
            if arg.is_empty() || arg.contains([' ', '"', '\'', '\n', '$', '*']) {
                write!(out, " '{arg}'")?;
            } else {
                write!(out, " {arg}")?;
            }
        }
        Ok(())
    }
}

/// Where `program` lies on PATH (with the sbin folders, which a user's PATH leaves out).
pub(crate) fn which(program: &str) -> Option<std::path::PathBuf> {
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
    fn a_missing_program_is_named() {
        let error = Cmd::new("/nonexistent/tool").run().expect_err("cannot start");
        assert!(format!("{error:#}").contains("start `tool`"), "{error:#}");
    }
}
