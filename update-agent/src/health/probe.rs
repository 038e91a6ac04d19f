//! One check, once.

use std::path::Path;
use std::time::Duration;

use formats::reference::Reference;

use super::Probe;
use super::command::{self, End, Outcome};
use crate::http::{Client, HttpError, Limits, Options, RetryPolicy, Url};
use crate::source::{SourceConfig, parse_place};

/// Runs a check; `Err` says in one line why it does not pass.
pub(super) fn run(
    probe: &Probe,
    sources: &[SourceConfig],
    timeout: Duration,
) -> Result<(), String> {
    match probe {
        Probe::Http { url, ca } => http(url, ca.as_deref(), timeout),
        Probe::Tcp { host, port } => {
            client(None, timeout)?.reach(host, *port).map_err(|error| error.to_string())
        }
        Probe::Command(argv) => explain(command::run(argv, timeout)),
        Probe::Unit(unit) => is_active(unit, timeout),
        Probe::Repository => repository(sources, timeout),
        Probe::FreeSpace { path, mib } => free_space(path, *mib),
    }
}

fn http(url: &Url, ca: Option<&Path>, timeout: Duration) -> Result<(), String> {
    let status = client(ca, timeout)?.status(url, timeout).map_err(|error| error.to_string())?;
    if status.is_success() { Ok(()) } else { Err(format!("{url} answers {status}")) }
}

/// Whether one of the sources can be asked for the next update. Whatever a registry answers will do:
/// its content is checked when it is used.
fn repository(sources: &[SourceConfig], timeout: Duration) -> Result<(), String> {
    let mut why = "no source is configured".to_owned();
    for source in sources {
        let reached = match parse_place(&source.url) {
            Ok(Reference::Registry { authority, .. }) => {
                let scheme = if source.plain_http { "http" } else { "https" };
                Url::parse(&format!("{scheme}://{authority}/v2/"))
                    .map_err(|error| error.to_string())
                    .and_then(|url| {
                        let client = client_of(options(source), timeout)?;
                        client.status(&url, timeout).map_err(|error| error.to_string())
                    })
                    .map(|_status| ())
            }
            Ok(Reference::Layout { path, .. } | Reference::Archive { path, .. }) => {
                let shown = path.display();
                std::fs::metadata(&path).map(|_| ()).map_err(|error| format!("{shown}: {error}"))
            }
            Err(error) => Err(error.to_string()),
        };
        match reached {
            Ok(()) => return Ok(()),
            Err(error) => why = error,
        }
    }
    Err(why)
}

fn free_space(path: &Path, mib: u64) -> Result<(), String> {
    let found =
        rustix::fs::statvfs(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let free = found.f_bavail.saturating_mul(found.f_frsize) >> 20;
    if free >= mib { Ok(()) } else { Err(format!("{} has {free} MiB free", path.display())) }
}

/// How a source's server is reached, without its credential.
fn options(source: &SourceConfig) -> Options {
    Options {
        ca: source.ca.clone(),
        client_cert: source.client_cert.clone(),
        client_key: source.client_key.clone(),
        ..Options::default()
    }
}

fn client(ca: Option<&Path>, timeout: Duration) -> Result<Client, String> {
    client_of(Options { ca: ca.map(Path::to_path_buf), ..Options::default() }, timeout)
}

/// A client that tries once and follows nothing. It shows nobody a secret, so plain HTTP is fine.
fn client_of(options: Options, timeout: Duration) -> Result<Client, String> {
    let retry = RetryPolicy { attempts: 0, ..RetryPolicy::default() };
    let limits = Limits { connect: timeout, redirects: 0, retry, ..Limits::default() };
    let options = Options { plain_http: true, limits, ..options };
    Client::new(options).map_err(|error: HttpError| error.to_string())
}

fn is_active(unit: &str, timeout: Duration) -> Result<(), String> {
    let argv = ["systemctl", "is-active", "--", unit].map(str::to_owned);
    match command::run(&argv, timeout) {
        Ok(Outcome { end: End::Exit(0), .. }) => Ok(()),
        Ok(Outcome { end: End::Exit(_), tail }) if !tail.is_empty() => {
            Err(format!("unit {unit} is {tail}"))
        }
        other => explain(other),
    }
}

/// Whether the kernel has killed something for the memory limit of this service (cgroup v2).
fn out_of_memory() -> bool {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let groups = read("/proc/self/cgroup");
    let Some(own) = groups.lines().find_map(|line| line.strip_prefix("0::")) else { return false };
    killed_for_memory(&read(&format!("/sys/fs/cgroup{own}/memory.events")))
}

fn killed_for_memory(events: &str) -> bool {
    let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
    kills.is_some_and(|count| count.trim() != "0")
}

/// How a program ended, in one line; `Ok` with exit status 0.
pub(crate) fn explain(outcome: Result<Outcome, String>) -> Result<(), String> {
    let Outcome { end, tail } = outcome?;
    let what = match end {
        End::Exit(0) => return Ok(()),
        End::Exit(code) => format!("exit status {code}"),
        End::Signal(9) if out_of_memory() => {
            "killed: the agent's service has no more memory, see MemoryMax= of its unit".to_owned()
        }
        End::Signal(signal) => format!("killed by signal {signal}"),
        End::TimedOut(after) => format!("still running after {after:?}, killed"),
    };
    Err(if tail.is_empty() { what } else { format!("{what}: {tail}") })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_kernels_count_says_who_killed() {
        let events = "low 0\nhigh 0\nmax 31\noom 1\noom_kill 1\noom_group_kill 0\n";
        assert!(super::killed_for_memory(events));
        assert!(!super::killed_for_memory(&events.replace("oom_kill 1", "oom_kill 0")));
        assert!(!super::killed_for_memory(""));
    }
}
