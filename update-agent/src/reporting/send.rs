//! One report to one server.

use std::time::Duration;

use formats::digest::Sha256;
use formats::reason::Reason;
use http::StatusCode;
use serde::Deserialize;

use crate::error::AgentError;
use crate::http::{Client, HttpError, Limits, Request, Sent, Url};
use crate::source::{self, FetchError, SourceConfig};

/// The largest answer that is read: a number or a sentence.
const ANSWER_LIMIT: usize = 4 << 10;
/// All of an exchange. Nothing waits for it; a server that is slower is as good as none.
const TIME: Duration = Duration::from_secs(30);

/// A server that takes reports.
pub(super) struct Server {
    client: Client,
    origin: crate::http::Origin,
    name: String,
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answered {
    /// It is durable there.
    Acknowledged,
    /// The server has a report of this node with that number, which is not lower.
    Behind(u64),
}

impl Server {
    /// The server of a source. Connects nowhere yet.
    pub(super) fn of(config: &SourceConfig) -> Result<Self, AgentError> {
        let limits = Limits { redirects: 0, patience: TIME, ..Limits::default() };
        let (origin, namespace, options) = source::registry(config, limits)?;
        let separator = if namespace.as_str().is_empty() { "" } else { "/" };
        let name = format!("docker://{}{separator}{}", origin.authority(), namespace.as_str());
        let client = Client::new(options).map_err(FetchError::from)?;
        Ok(Server { client, origin, name })
    }

    /// Its name, as the source's.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Sends a report, and waits for the answer.
    pub(super) fn put(&self, node: Sha256, document: Vec<u8>) -> Result<Answered, AgentError> {
        self.client.begin_attempt();
        let answered = self.exchange(node, document).map_err(FetchError::from);
        self.client.end_attempt();
        Ok(answered?)
    }

    fn exchange(&self, node: Sha256, document: Vec<u8>) -> Result<Answered, HttpError> {
        let url = Url::new(&self.origin, &format!("/fleet/v1/reports/{node}"))?;
        let put = Request { sent: Sent::Put(document.into()), ..Request::new(&url) };
        let mut answer = self.client.get(&put)?;
        let status = answer.status();
        let refusal = answer.refusal();
        let body = answer.beginning(ANSWER_LIMIT)?;
        match status {
            StatusCode::OK | StatusCode::CREATED | StatusCode::NO_CONTENT => {
                Ok(Answered::Acknowledged)
            }
            StatusCode::CONFLICT => match serde_json::from_slice(&body) {
                Ok(Known { sequence }) => Ok(Answered::Behind(sequence)),
                Err(_) => Err(refusal),
            },
            _ => Err(refusal),
        }
    }
}

/// What a server says of a report that is not newer than the one it has.
#[derive(Debug, Deserialize)]
struct Known {
    sequence: u64,
}

/// A number that no report of this node may have is no number.
pub(super) fn unbelievable(name: &str) -> AgentError {
    let text = format!("{name} claims to have reports of this node that it never made");
    AgentError::new(Reason::HttpStatus, text)
}
