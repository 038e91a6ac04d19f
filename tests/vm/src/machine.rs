//! One virtual machine: QEMU without KVM, its serial line, and a limit on its life.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::tools::Tools;

/// How every guest's disk begins. What a guest has written outlives its resets and the end of QEMU
/// in the host's page cache, so its flushes need not wait for the host's disk: on a busy one they
/// took longer than the watchdog waits. That flushes are there is the power-cut proof's to show.
pub(super) const DISK: &str = "if=none,id=d0,format=raw,cache=unsafe,file=";

/// A machine that runs. Killed when dropped, and when its life is over.
pub(super) struct Machine {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    /// Everything it said, for failures and for searching again.
    pub(super) said: Vec<String>,
    started: Instant,
    life: Duration,
    log: PathBuf,
    _permit: Permit,
}

/// How a machine is put together.
pub(super) struct Hardware<'a> {
    pub(super) tools: &'a Tools,
    /// Beside processor, memory and serial line.
    pub(super) arguments: Vec<String>,
    /// MiB.
    pub(super) memory: u32,
    /// It is killed after that, whatever it does.
    pub(super) life: Duration,
    /// Where the serial line is kept.
    pub(super) log: PathBuf,
}

impl Hardware<'_> {
    /// Switches it on.
    pub(super) fn start(self) -> Result<Machine> {
        let Hardware { tools, arguments, memory, life, log } = self;
        let mut command = tools.emulator();
        command
            .arg("-L")
            .arg(tools.file("usr/share/qemu"))
            .arg("-L")
            .arg(tools.file("usr/share/seabios"))
            // Never KVM: hosts that are machines themselves offer one that hangs.
            .args(["-accel", "tcg", "-smp", "1"])
            .args(tools.platform.board)
            .args(["-m", &memory.to_string(), "-nodefaults", "-nographic"])
            .args(["-serial", "stdio", "-monitor", "none"])
            .args(&arguments);
        Machine::begin(command, tools, life, log)
    }
}

impl Machine {
    /// Starts QEMU by a command whose standard input and output are the serial line.
    pub(super) fn begin(
        mut command: Command,
        tools: &Tools,
        life: Duration,
        log: PathBuf,
    ) -> Result<Self> {
        let permit = tools.permits.take();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start QEMU")?;
        let input = child.stdin.take().context("QEMU's input")?;
        let output = child.stdout.take().context("QEMU's output")?;
        let errors = child.stderr.take().context("QEMU's errors")?;
        let (tell, lines) = channel();
        let mut kept = File::create(&log).with_context(|| format!("make {}", log.display()))?;
        let started = Instant::now();
        let told = tell.clone();
        std::thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut bytes = Vec::new();
            while output.read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
                let line = String::from_utf8_lossy(&bytes).trim_end().replace('\r', "");
                let at = started.elapsed().as_secs_f64();
                drop(writeln!(kept, "{at:8.2} {line}"));
                if told.send(line).is_err() {
                    return;
                }
                bytes.clear();
            }
        });
        std::thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                drop(tell.send(format!("qemu: {line}")));
            }
        });
        Ok(Machine { child, input, lines, said: Vec::new(), started, life, log, _permit: permit })
    }

    /// Waits for a line with this in it, and gives the line.
    pub(super) fn expect(&mut self, marker: &str) -> Result<String> {
        self.expect_any(&[marker])
    }

    /// Waits for a line with one of these in it, and gives the line.
    pub(super) fn expect_any(&mut self, markers: &[&str]) -> Result<String> {
        loop {
            let line = self.line(markers)?;
            if markers.iter().any(|marker| line.contains(marker)) {
                return Ok(line);
            }
            // What comes next is waiting.
            ensure!(!line.contains("racklet: rescue:"), "it does not boot: {line}");
            ensure!(!line.contains("@@ready"), "{markers:?} did not come before {line}");
        }
    }

    fn line(&mut self, awaited: &[&str]) -> Result<String> {
        let left = self.life.saturating_sub(self.started.elapsed());
        let line = match self.lines.recv_timeout(left) {
            Ok(line) => line,
            Err(why) => {
                let ended = match why {
                    RecvTimeoutError::Timeout => format!("after {:?}", self.life),
                    RecvTimeoutError::Disconnected => "because QEMU ended".to_owned(),
                };
                let tail: Vec<String> = self.said.iter().rev().take(25).rev().cloned().collect();
                bail!(
                    "{ended} there was no line with {awaited:?}; the last lines of {}:\n    {}",
                    self.log.display(),
                    tail.join("\n    ")
                );
            }
        };
        self.said.push(line.clone());
        Ok(line)
    }

    /// Runs a shell command in the guest; its exit code and what it printed.
    pub(super) fn run(&mut self, command: &str) -> Result<(i32, String)> {
        self.send(command)?;
        let mut text = String::new();
        loop {
            let line = self.line(&["@@rc"])?;
            if let Some((before, code)) = line.split_once("@@rc ") {
                text.push_str(before);
                let code = code.trim().parse().with_context(|| format!("{line:?}"))?;
                return Ok((code, text));
            }
            text.push_str(&line);
            text.push('\n');
        }
    }

    /// [`Machine::run`], which has to end with 0.
    pub(super) fn ok(&mut self, command: &str) -> Result<String> {
        match self.run(command)? {
            (0, text) => Ok(text),
            (code, text) => bail!("`{command}` in the guest ended with {code}:\n{text}"),
        }
    }

    /// A command whose end is not awaited.
    pub(super) fn send(&mut self, command: &str) -> Result<()> {
        writeln!(self.input, "{command}").and_then(|()| self.input.flush()).context("to the guest")
    }

    /// Waits until the machine is off, which ends QEMU.
    pub(super) fn ended(&mut self) -> Result<()> {
        loop {
            let left = self.life.saturating_sub(self.started.elapsed());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.said.push(line),
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => bail!("it still runs after {:?}", self.life),
            }
        }
    }

    /// How long it has been running.
    pub(super) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Cuts the power: what the guest had not handed to its disk is lost.
    pub(super) fn cut(mut self) -> Vec<String> {
        self.kill();
        while let Ok(line) = self.lines.recv() {
            self.said.push(line);
        }
        std::mem::take(&mut self.said)
    }

    fn kill(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How many machines may run at once, whichever cells they belong to.
#[derive(Debug, Clone)]
pub(super) struct Permits(Arc<(Mutex<usize>, Condvar)>);

impl Permits {
    pub(super) fn new(machines: usize) -> Self {
        Permits(Arc::new((Mutex::new(machines.max(1)), Condvar::new())))
    }

    /// Waits for one. Who holds one must not wait for another: nobody might give one back.
    fn take(&self) -> Permit {
        let (left, given) = &*self.0;
        let left = left.lock().unwrap_or_else(|held| held.into_inner());
        let mut left =
            given.wait_while(left, |left| *left == 0).unwrap_or_else(|held| held.into_inner());
        *left -= 1;
        Permit(self.clone())
    }
}

/// Leave for one machine; given back when dropped.
#[derive(Debug)]
struct Permit(Permits);

impl Drop for Permit {
    fn drop(&mut self) {
        let (left, given) = &*self.0.0;
        *left.lock().unwrap_or_else(|held| held.into_inner()) += 1;
        given.notify_one();
    }
}

/// Folder of a cell, emptied.
pub(super) fn fresh(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))
}
