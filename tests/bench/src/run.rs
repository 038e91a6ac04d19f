//! Running what is measured: a time limit on everything, and its use of processor and memory.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use racklet_tools::cmd::{Cmd, Finished};

/// What a command that exited 0 used.
pub(super) struct Measured {
    pub(super) done: Finished,
    /// Largest resident set of it or of one of its children, bytes.
    pub(super) peak: f64,
    /// Processor time of both, seconds.
    pub(super) processor: f64,
}

impl Measured {
    /// Wall time, seconds.
    pub(super) fn seconds(&self) -> f64 {
        self.done.took.as_secs_f64()
    }
}

/// Runs a command to exit 0, within `limit`, and measures it. `scratch` is a folder for a file.
pub(super) fn measure(cmd: Cmd, limit: Duration, scratch: &Path) -> Result<Measured> {
    let file = scratch.join("time");
    let timed = cmd.under("/usr/bin/time", &["-q", "-f", "%M %U %S", "-o"], &file);
    let done = limited(timed, limit).run()?;
    let text = fs::read_to_string(&file).context("/usr/bin/time wrote no figure")?;
    let figures: Vec<f64> = text.split_whitespace().flat_map(str::parse).collect();
    let [kib, user, system] = figures[..] else { bail!("/usr/bin/time wrote {text}") };
    Ok(Measured { done, peak: kib * 1024.0, processor: user + system })
}

/// The command under `timeout`, which ends it and all its children when `limit` is over.
pub(super) fn limited(cmd: Cmd, limit: Duration) -> Cmd {
    cmd.under("timeout", &["-k", "5"], limit.as_secs().max(1).to_string())
}

/// A program in the background; ended when dropped.
pub(super) struct Background {
    child: Child,
    name: String,
}

impl Background {
    /// Starts it with its output in `log`.
    pub(super) fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let out = fs::File::create(log).with_context(|| format!("create {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        Ok(Self { child, name })
    }

    /// Waits until `ready` is true; fails when the program ends or ten seconds pass.
    pub(super) fn until(mut self, log: &Path, ready: impl Fn() -> bool) -> Result<Self> {
        let limit = Instant::now() + Duration::from_secs(10);
        while !ready() {
            let ended = self.child.try_wait()?;
            if ended.is_some() || Instant::now() > limit {
                let log = fs::read_to_string(log).unwrap_or_default();
                bail!("{} is not ready ({ended:?}):\n{log}", self.name);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(self)
    }

    /// Ends it at once, as a power cut would.
    pub(super) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Its exit code when it has ended.
    pub(super) fn ended(&mut self) -> Result<Option<i32>> {
        Ok(self.child.try_wait()?.map(|status| status.code().unwrap_or(-1)))
    }

    /// Processor time used so far, seconds, and the largest resident set, bytes.
    pub(super) fn usage(&self) -> Result<(f64, f64)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
        let peak = kib.context("/proc/PID/status has VmHWM")? * 1024.0;
        Ok((processor(&self.child.id().to_string())?, peak))
    }

    /// Processor time used so far by it and by the processes that it started, seconds: of nginx, those that answer.
    pub(super) fn processor_of_all(&self) -> Result<f64> {
        let id = self.child.id().to_string();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
        children.split_whitespace().chain([id.as_str()]).map(processor).sum()
    }
}

/// Processor time that a process used so far, seconds.
fn processor(id: &str) -> Result<f64> {
    // proc(5): the name in parentheses may hold spaces; utime and stime are the 12th and 13th
    // fields after it, in clock ticks.
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    let fields = stat.rsplit_once(')').context("/proc/PID/stat has a name")?.1;
    let ticks: f64 = fields.split_whitespace().skip(11).take(2).flat_map(str::parse::<f64>).sum();
    Ok(ticks / rustix::param::clock_ticks_per_second() as f64)
}

impl Drop for Background {
    fn drop(&mut self) {
        // Both find nothing to do when it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A loop device; detached when dropped.
pub(super) struct Loop {
    device: String,
}

impl Loop {
    /// A loop device over a file; the kernel picks a free one.
    pub(super) fn over(file: &Path) -> Result<Self> {
        let device = Cmd::new("losetup").args(["-f", "--show"]).arg(file).read()?;
        Ok(Self { device })
    }

    pub(super) fn device(&self) -> &str {
        &self.device
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        drop(Cmd::new("losetup").args(["-d", &self.device]).run());
    }
}

/// Detaches loop devices over files below `dir`: left by a run that was killed.
pub(super) fn sweep_loops(dir: &Path) -> Result<()> {
    let list = Cmd::new("losetup").args(["-n", "-l", "-O", "NAME,BACK-FILE"]).read()?;
    for line in list.lines() {
        if let Some((device, file)) = line.trim().split_once(char::is_whitespace)
            && Path::new(file.trim().trim_end_matches(" (deleted)")).starts_with(dir)
        {
            Cmd::new("losetup").args(["-d", device]).run()?;
        }
    }
    Ok(())
}
