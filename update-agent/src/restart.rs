//! Restarting the machine: by a command within a time limit, or by the kernel.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use formats::reason::Reason;
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::system::RebootCommand;
use update_core::restart::{Available, COMMAND_LIMIT, Means, Purpose};

use crate::config::BootConfig;
use crate::error::AgentError;
use crate::events::Event;
use crate::health::program::not_started;

/// 10 s: what the agent needs is durable already; a medium that hangs must not keep the machine.
const SYNC_LIMIT: Duration = Duration::from_secs(10);
/// 5 s: a program that can be read has begun by then.
const START_LIMIT: Duration = Duration::from_secs(5);
/// 50 ms: a restart command takes longer than that.
const LOOK: Duration = Duration::from_millis(50);

/// Which means a node has beside `reboot_command`.
pub(crate) fn available(boot: &BootConfig) -> Available {
    let forced = !boot.forced_command().is_empty();
    // A rehearsal with files for the kernel's own must never restart the machine it runs on.
    Available { forced, kernel: forced && boot.is_of_this_machine() }
}

/// Restarts the machine for this purpose, by these means.
pub(crate) fn by(boot: &BootConfig, purpose: Purpose, means: Means) -> Result<(), AgentError> {
    let limit = COMMAND_LIMIT.min(boot.reboot_wait);
    match means {
        Means::Command => {
            let (key, argv) = boot.command_for(purpose);
            command(key, argv, limit)
        }
        Means::Forced => command("boot.forced_reboot_command", &boot.forced_command(), limit),
        Means::Kernel if available(boot).kernel => kernel(),
        Means::Kernel => Err(AgentError::new(Reason::Config, "the kernel must not be asked here")),
    }
}

/// The same on a machine whose configuration cannot be read.
pub(crate) fn by_default(means: Means) -> Result<(), AgentError> {
    match means {
        Means::Command => command("reboot", &BootConfig::default_restart(), COMMAND_LIMIT),
        Means::Forced => {
            command("forced reboot", &BootConfig::default_forced_restart(), COMMAND_LIMIT)
        }
        Means::Kernel => kernel(),
    }
}

/// How people read the means.
pub(crate) fn shown(boot: &BootConfig, purpose: Purpose, means: Means) -> String {
    match means {
        Means::Command => format!("`{}`", boot.command_for(purpose).1.join(" ")),
        Means::Forced => format!("`{}`", boot.forced_command().join(" ")),
        Means::Kernel => "reboot(2)".to_owned(),
    }
}

/// Restarts the machine by a command. One that does not end in time is killed; it has asked. One that cannot
/// even begin in time, because its file system hangs, is left behind and counts like that.
pub(crate) fn command(key: &str, argv: &[String], limit: Duration) -> Result<(), AgentError> {
    let (done, ended) = mpsc::channel();
    let (name, words) = (key.to_owned(), argv.to_vec());
    // Whoever starts a program waits until the kernel has read its first page.
    let starting = thread::Builder::new().spawn(move || {
        let _ = done.send(start_and_wait(&name, &words, limit));
    });
    if starting.is_err() {
        return start_and_wait(key, argv, limit);
    }
    ended.recv_timeout(limit + START_LIMIT).unwrap_or_else(|_| {
        tracing::warn!("{key} `{}` could not be started: its file hangs", argv.join(" "));
        Ok(())
    })
}

fn start_and_wait(key: &str, argv: &[String], limit: Duration) -> Result<(), AgentError> {
    let shown = argv.join(" ");
    let Some((program, arguments)) = argv.split_first() else {
        return Err(AgentError::new(Reason::Config, format!("{key} is empty")));
    };
    Event::Restarting { command: &shown }.tell();
    let not_run = |why: String| AgentError::new(Reason::Config, format!("{key}: {why}"));
    let mut child = Command::new(program)
        .args(arguments)
        .process_group(0)
        .stdin(Stdio::null())
        // Standard output belongs to `--json`.
        .stdout(std::io::stderr())
        .spawn()
        .map_err(|error| not_run(not_started(argv, &error)))?;
    let ended =
        wait(&mut child, limit).map_err(|error| not_run(format!("wait for {program}: {error}")))?;
    match ended {
        Some(status) if status.success() => Ok(()),
        Some(status) => {
            let text = format!("{key} `{shown}` ended with {status}");
            Err(AgentError::new(Reason::Config, text).hint("restart the machine by hand"))
        }
        None => {
            tracing::warn!("{key} `{shown}` did not end within {} s", limit.as_secs());
            Ok(())
        }
    }
}

/// Waits for a program. `None`: its time was up, and it was killed with its children.
fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= end {
            // It has not been reaped yet, so the number of the group is still its own.
            let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
            // One that the kernel cannot kill is left to it.
            let _ = child.try_wait();
            return Ok(None);
        }
        thread::sleep(LOOK);
    }
}

/// reboot(2): nothing is stopped first, so file systems are flushed as far as they can be.
fn kernel() -> Result<(), AgentError> {
    tracing::warn!("restarting by the kernel: no command did");
    let (done, synced) = mpsc::channel();
    let syncing = thread::Builder::new().spawn(move || {
        rustix::fs::sync();
        let _ = done.send(());
    });
    if syncing.is_ok() {
        let _ = synced.recv_timeout(SYNC_LIMIT);
    }
    rustix::system::reboot(RebootCommand::Restart).map_err(|error| {
        AgentError::from_cause(Reason::Config, "reboot(2)", std::io::Error::from(error))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Vec<String> {
        ["sh", "-c", script].map(str::to_owned).to_vec()
    }

    #[test]
    fn a_command_that_hangs_is_ended_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let pids = dir.path().join("pids");
        let script = format!("sleep 1000 & echo $! > {}; wait", pids.display());
        let mut child = Command::new("sh").args(["-c", &script]).process_group(0).spawn().unwrap();
        let written = || std::fs::read_to_string(&pids).is_ok_and(|text| text.ends_with('\n'));
        while !written() {
            thread::sleep(LOOK);
        }
        assert_eq!(wait(&mut child, Duration::ZERO).unwrap(), None);
        let pid = std::fs::read_to_string(&pids).unwrap();
        let stat = format!("/proc/{}/stat", pid.trim());
        let lives = || {
            let state = std::fs::read_to_string(&stat).unwrap_or_default();
            state.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
        };
        let end = Instant::now() + COMMAND_LIMIT;
        while lives() {
            assert!(Instant::now() < end, "it still runs");
            thread::sleep(LOOK);
        }
        let _ = child.wait();
    }

    #[test]
    fn a_command_has_asked_or_says_why_it_has_not() {
        assert!(command("key", &sh("exit 0"), COMMAND_LIMIT).is_ok());
        let refused = command("key", &sh("exit 1"), COMMAND_LIMIT).unwrap_err().chain();
        assert!(refused.contains("key `sh -c exit 1` ended with exit status: 1"), "{refused}");
        let missing =
            command("key", &["/nope/reboot".to_owned()], COMMAND_LIMIT).unwrap_err().chain();
        assert!(missing.contains("key: there is no /nope/reboot"), "{missing}");
        // What it leaves behind may be what restarts the machine.
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("later");
        let later = format!("(sleep 0.3; touch {}) &", file.display());
        command("key", &sh(&later), COMMAND_LIMIT).unwrap();
        let end = Instant::now() + COMMAND_LIMIT;
        while !file.exists() {
            assert!(Instant::now() < end, "it was ended");
            thread::sleep(LOOK);
        }
    }
}
