//! One check, once.

use std::path::Path;
use std::time::Duration;

use super::Probe;
use super::command::{self, End, Outcome};
use crate::http::{Client, HttpError, Limits, Options, RetryPolicy, Url};

/// Runs a check; `Err` says in one line why it does not pass.
pub(super) fn run(probe: &Probe, timeout: Duration) -> Result<(), String> {
    match probe {
        Probe::Http { url, ca } => http(url, ca.as_deref(), timeout),
        Probe::Tcp { host, port } => {
            client(None, timeout)?.reach(host, *port).map_err(|error| error.to_string())
        }
        Probe::Command(argv) => explain(command::run(argv, timeout)),
        Probe::Unit(unit) => is_active(unit, timeout),
    }
}

fn http(url: &Url, ca: Option<&Path>, timeout: Duration) -> Result<(), String> {
    let status = client(ca, timeout)?.status(url, timeout).map_err(|error| error.to_string())?;
    if status.is_success() { Ok(()) } else { Err(format!("{url} answers {status}")) }
}

/// A client that tries once and follows nothing. It shows nobody a secret, so plain HTTP is fine.
fn client(ca: Option<&Path>, timeout: Duration) -> Result<Client, String> {
    let retry = RetryPolicy { attempts: 0, ..RetryPolicy::default() };
    let limits = Limits { connect: timeout, redirects: 0, retry, ..Limits::default() };
    let ca = ca.map(Path::to_path_buf);
    let options = Options { ca, plain_http: true, limits, ..Options::default() };
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

fn explain(outcome: Result<Outcome, String>) -> Result<(), String> {
    let Outcome { end, tail } = outcome?;
    let what = match end {
        End::Exit(0) => return Ok(()),
        End::Exit(code) => format!("exit status {code}"),
        End::Signal(signal) => format!("killed by signal {signal}"),
        End::TimedOut(after) => format!("still running after {after:?}, killed"),
    };
    Err(if tail.is_empty() { what } else { format!("{what}: {tail}") })
}
