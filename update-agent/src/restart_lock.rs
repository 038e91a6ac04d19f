//! The client of the FleetLock protocol: asks a server whether this node may restart, and tells it when it has.
//!
//! ```text
//!  before a restart into a release ──► POST BASE/v1/pre-reboot   ──► 200: it may │ anything else: not now
//!  the update has ended            ──► POST BASE/v1/steady-state ──► 200: done   │ anything else: again later
//! ```
//!
//! The specification is <https://coreos.github.io/zincati/development/fleetlock/protocol/>. Only 200 grants
//! anything. What a server says is another machine's text: one line, without control characters, shortened.
//! `update_core::restart_lock` says when the lock is given back.

use std::time::Duration;

use formats::reason::Reason;
use formats::report::shown;
use serde::{Deserialize, Serialize};

use crate::config::RestartLockConfig;
use crate::error::AgentError;
use crate::http::{Client, HttpError, Limits, Request, Sent, Url};
use crate::source::{self, FetchError};

/// The largest answer that is read.
const ANSWER_LIMIT: usize = 4 << 10;
/// All of an exchange: it happens in a round, which waits for it.
const TIME: Duration = Duration::from_secs(30);
/// Characters of a server's sentence that are kept.
const SENTENCE: usize = 300;
/// The code of a server that answers, and grants nothing.
const LOCKED: Reason = Reason::RestartLocked;

/// What a server is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockRequest {
    /// To restart.
    PreReboot,
    /// To let others restart.
    SteadyState,
}

/// Why a server did not grant something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotGranted {
    /// `restart_locked` where the server said so, otherwise why it could not be asked.
    pub code: String,
    /// In words: the server's, where it has any.
    pub message: String,
}

/// A lock that was asked for. It is the record of the state, and what `status` shows of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartLock {
    /// The server, as in the configuration.
    pub server: String,
    /// The group of this node there.
    pub group: String,
    /// What this node calls itself there.
    pub id: String,
    /// Unix seconds: since when it has been asked for.
    pub at: u64,
    /// Whether the server granted it.
    pub granted: bool,
    /// Why it was not granted, or not given back, the last time, as a code.
    pub code: Option<String>,
    /// The same in words.
    pub message: Option<String>,
}

impl RestartLock {
    /// Whether it is the same node's, of the same group, at the same server.
    pub(crate) fn is_of(&self, other: &RestartLock) -> bool {
        (&self.server, &self.group, &self.id) == (&other.server, &other.group, &other.id)
    }

    /// The same after an answer.
    pub(crate) fn after(self, granted: bool, why: Option<NotGranted>) -> Self {
        let (code, message) = why.map(|why| (why.code, why.message)).unzip();
        RestartLock { granted, code, message, ..self }
    }

    /// `not granted in group db of https://…: https://… says: … (restart_locked)`
    pub(crate) fn sentence(&self) -> String {
        let RestartLock { server, group, granted, .. } = self;
        let why = match (&self.message, &self.code) {
            (Some(message), Some(code)) => format!(": {message} ({code})"),
            _ => String::new(),
        };
        match (granted, why.is_empty()) {
            (true, true) => {
                format!("held in group {group} of {server}, until the update has ended")
            }
            (true, false) => {
                format!("held in group {group} of {server}, and not given back yet{why}")
            }
            (false, _) => format!("not granted in group {group} of {server}{why}"),
        }
    }
}

/// Asks the server of a lock, which is reached as the configuration says.
pub(crate) fn ask(
    config: &RestartLockConfig,
    lock: &RestartLock,
    request: LockRequest,
) -> Result<(), NotGranted> {
    let asked = exchange(config, lock, request);
    asked.map_err(|error| {
        let error = AgentError::from(error);
        let (code, message) = (error.reason().code().to_owned(), shown(&error.chain(), SENTENCE));
        NotGranted { code, message }
    })?
}

fn exchange(
    config: &RestartLockConfig,
    lock: &RestartLock,
    request: LockRequest,
) -> Result<Result<(), NotGranted>, FetchError> {
    let limits = Limits { redirects: 0, patience: TIME, ..Limits::default() };
    let (base, options) = source::server(&config.as_source(&lock.server), limits)?;
    let client = Client::new(options)?;
    client.begin_attempt();
    Ok(post(&client, &base, lock, request)?)
}

fn post(
    client: &Client,
    base: &Url,
    lock: &RestartLock,
    request: LockRequest,
) -> Result<Result<(), NotGranted>, HttpError> {
    let path = match request {
        LockRequest::PreReboot => "v1/pre-reboot",
        LockRequest::SteadyState => "v1/steady-state",
    };
    let url = Url::new(base.origin(), &format!("{}/{path}", base.path().trim_end_matches('/')))?;
    let body = serde_json::json!({ "client_params": { "id": lock.id, "group": lock.group } });
    let post =
        Request { sent: Sent::Lock(body.to_string().into_bytes().into()), ..Request::new(&url) };
    let mut answer = client.get(&post)?;
    let status = answer.status().as_u16();
    if status == 200 {
        return Ok(Ok(()));
    }
    let body = answer.beginning(ANSWER_LIMIT)?;
    Ok(Err(refused(&lock.server, status, &body)))
}

/// What an answer that grants nothing says.
fn refused(server: &str, status: u16, body: &[u8]) -> NotGranted {
    // A document of the protocol has the texts `kind` and `value`.
    let document: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| document.get(name).and_then(serde_json::Value::as_str);
    let said = match (text("kind"), text("value")) {
        (Some(kind), Some(value)) if !value.is_empty() => {
            format!("{server} says: {} ({})", shown(value, SENTENCE), shown(kind, 64))
        }
        _ => format!("{server} answered with status {status}"),
    };
    NotGranted { code: LOCKED.code().to_owned(), message: said }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_the_servers_sentence_where_it_has_one() {
        let said = |body: &str| refused("https://s", 423, body.as_bytes());
        let good = said(r#"{"kind":"locked","value":"held by node-7"}"#);
        assert_eq!(good.code, "restart_locked");
        assert_eq!(good.message, "https://s says: held by node-7 (locked)");
        for body in ["", "<html>", "[]", r#"{"kind":"x"}"#, r#"{"kind":"x","value":""}"#] {
            assert_eq!(said(body).message, "https://s answered with status 423", "{body}");
        }
        let hostile = format!(r#"{{"kind":"\u001b[2J","value":"a\nb{}"}}"#, "x".repeat(1000));
        let hostile = said(&hostile).message;
        assert!(hostile.len() < 500 && !hostile.chars().any(char::is_control), "{hostile}");
    }
}
