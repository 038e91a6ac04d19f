//! One check, once.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use formats::reason::Reason;
use rustix::io::Errno;

use super::Probe;
use super::command::{self, End, Outcome};
use super::memory::Kills;
use super::period::rounded;
use crate::http::{Client, HttpError, Limits, Options, RetryPolicy, Url};
use crate::source::{self, FetchError, SourceConfig};

/// Why a check does not pass, in one line of printable text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Why {
    /// It was asked, and the answer is no.
    No(String),
    /// It could not be asked: what it needs is not there. No release could pass it.
    CannotRun(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Why::No(text) | Why::CannotRun(text)) = self;
        f.write_str(text)
    }
}

/// Runs a check.
pub(super) fn run(probe: &Probe, sources: &[SourceConfig], timeout: Duration) -> Result<(), Why> {
    match probe {
        Probe::Http { url, ca } => http(url, ca.as_deref(), timeout),
        Probe::Tcp { host, port } => client(None, timeout)?.reach(host, *port).map_err(no),
        Probe::Command(argv) => command(argv, timeout),
        Probe::Unit(unit) => is_active(unit, timeout),
        Probe::Repository => repository(sources, timeout),
        Probe::FreeSpace { path, mib } => free_space(path, *mib),
    }
}

fn no(why: impl fmt::Display) -> Why {
    Why::No(why.to_string())
}

fn http(url: &Url, ca: Option<&Path>, timeout: Duration) -> Result<(), Why> {
    let status = client(ca, timeout)?.status(url, timeout).map_err(no)?;
    if status.is_success() { Ok(()) } else { Err(no(format!("{url} answers {status}"))) }
}

/// For services of this system: a client that tries once, follows nothing and takes no proxy. It
/// shows nobody a secret, so plain HTTP is fine.
fn client(ca: Option<&Path>, timeout: Duration) -> Result<Client, Why> {
    let retry = RetryPolicy { attempts: 0, ..RetryPolicy::default() };
    let limits = Limits { connect: timeout, redirects: 0, retry, ..Limits::default() };
    let ca = ca.map(Path::to_path_buf);
    let options = Options { ca, plain_http: true, limits, ..Options::default() };
    Client::new(options).map_err(|error: HttpError| Why::CannotRun(error.to_string()))
}

/// Whether one of the sources can be asked for the next update, by the very way that updates take:
/// proxies, credentials and certificates included.
fn repository(sources: &[SourceConfig], timeout: Duration) -> Result<(), Why> {
    let begun = Instant::now();
    let mut refused = Vec::new();
    for (at, source) in sources.iter().enumerate() {
        // One that keeps silent leaves the others their share.
        let left = timeout.saturating_sub(begun.elapsed());
        let others = u32::try_from(sources.len() - at).unwrap_or(u32::MAX);
        match reach(source, rounded(left / others)) {
            Ok(()) => return Ok(()),
            Err(why) => refused.push(why),
        }
    }
    let told: Vec<String> = refused.iter().map(ToString::to_string).collect();
    match told.is_empty() {
        true => Err(Why::CannotRun("no source is configured".to_owned())),
        false if refused.iter().all(|why| matches!(why, Why::CannotRun(_))) => {
            Err(Why::CannotRun(told.join("; ")))
        }
        false => Err(no(told.join("; "))),
    }
}

/// Asks a source what is new, once.
fn reach(config: &SourceConfig, limit: Duration) -> Result<(), Why> {
    let retry = RetryPolicy { attempts: 0, ..RetryPolicy::default() };
    let limits = Limits {
        connect: limit,
        handshake: limit,
        first_byte: limit,
        idle: limit,
        patience: limit,
        // Bytes that come earn no more time: a source that drips would outlast the check.
        min_rate: u64::MAX,
        rate_window: Duration::MAX,
        retry,
        ..Limits::default()
    };
    let asked = source::open(config, limits).and_then(|source| source.tuf_state(None));
    asked.map(drop).or_else(|error| judged(&error))
}

/// What the failure of a source says of this system. A server that says of itself that it is out of
/// order was reached: its trouble is no fault of a release.
fn judged(error: &FetchError) -> Result<(), Why> {
    if let FetchError::Http(http @ HttpError::Status { .. }) = error
        && http.is_transient()
    {
        return Ok(());
    }
    let text = formats::error_chain(error);
    Err(match error.reason() {
        Reason::Config | Reason::Usage | Reason::InsecurePerms => Why::CannotRun(text),
        _ => Why::No(text),
    })
}

fn free_space(path: &Path, mib: u64) -> Result<(), Why> {
    let shown = path.display();
    let found = rustix::fs::statvfs(path).map_err(|error| {
        Why::CannotRun(match error {
            Errno::NOENT => format!("there is no {shown}"),
            _ => format!("{shown}: {error}"),
        })
    })?;
    let free = found.f_bavail.saturating_mul(found.f_frsize) >> 20;
    if free >= mib { Ok(()) } else { Err(no(format!("{shown} has {free} MiB free"))) }
}

fn is_active(unit: &str, timeout: Duration) -> Result<(), Why> {
    // As sd_booted(3).
    if !Path::new("/run/systemd/system").exists() {
        return Err(Why::CannotRun(format!("unit {unit}: systemd does not run here")));
    }
    let argv = ["systemctl", "is-active", "--", unit].map(str::to_owned);
    let before = Kills::now();
    match command::run(&argv, timeout).map_err(Why::CannotRun)? {
        Outcome { end: End::Exit(0), .. } => Ok(()),
        Outcome { end: End::Exit(4), .. } => Err(no(format!("systemd knows no unit {unit}"))),
        Outcome { end: End::Exit(_), tail } if !tail.is_empty() => {
            Err(no(format!("unit {unit} is {tail}")))
        }
        other => Err(no(explain(&other, before))),
    }
}

fn command(argv: &[String], timeout: Duration) -> Result<(), Why> {
    let before = Kills::now();
    match command::run(argv, timeout).map_err(Why::CannotRun)? {
        Outcome { end: End::Exit(0), .. } => Ok(()),
        other => Err(no(explain(&other, before))),
    }
}

/// Why a program that ran does not pass. `before`: the kills for memory up to its start.
pub(crate) fn explain(outcome: &Outcome, before: Kills) -> String {
    let Outcome { end, tail } = outcome;
    let memory = Kills::now().since(before);
    let what = match (end, memory) {
        (End::Signal(9), Some(memory)) => format!("killed: {memory}"),
        (End::Exit(code), Some(memory)) => {
            format!("exit status {code}, and a process of it was killed: {memory}")
        }
        (End::Exit(code), None) => format!("exit status {code}"),
        (End::Signal(signal), _) => format!("killed by signal {signal}"),
        (End::TimedOut(after), _) => format!("still running after {after:?}, killed"),
    };
    if tail.is_empty() { what } else { format!("{what}: {tail}") }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn what_a_source_answers_says_whether_updates_can_come() {
        let status = |code: u16| {
            FetchError::Http(HttpError::Status {
                url: "https://h/v2/tuf/manifests/latest".to_owned(),
                status: StatusCode::from_u16(code).unwrap(),
                hint: String::new(),
                retry_after: None,
            })
        };
        let setup = HttpError::Setup { what: "CA file".to_owned(), why: "is not there".to_owned() };
        let timeout = HttpError::Timeout {
            origin: "https://h".to_owned(),
            phase: "answer",
            after: Duration::from_secs(1),
        };
        // (the error, whether the way works, whether it could not even be asked)
        let rows = [
            (status(401), false, false),
            (status(403), false, false),
            (status(404), false, false),
            (status(429), true, false),
            (status(500), true, false),
            (status(503), true, false),
            (FetchError::Http(timeout), false, false),
            (FetchError::Http(setup), false, true),
            (FetchError::NoSuchPlace("/media/usb/b.tar".into()), false, false),
        ];
        for (error, works, cannot) in rows {
            let found = judged(&error);
            assert_eq!(found.is_ok(), works, "{error}");
            assert_eq!(matches!(found, Err(Why::CannotRun(_))), cannot, "{error}");
        }
    }
}
