//! What went wrong between us and a registry.

use std::io;
use std::time::Duration;

use formats::error_chain;
use formats::reason::Reason;
use registry_auth::Proxy;
use registry_auth::explain::{self, COMMAND, Exchange};
use registry_auth::realm::RealmError;

use super::super::RegistryError;

use super::pulse::BodyProgress;
use crate::progress::bytes;

/// What a failed request leaves, to those who wanted to change something.
pub(super) const NOTHING_VISIBLE: &str = "nothing became visible, run again";

/// Why a request brought nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The registry says no.
    #[error("{status}{}", said(.text))]
    Status {
        /// What was asked for.
        at: Exchange,
        status: u16,
        /// The first error code of the answer.
        code: String,
        /// What it says, cut and escaped.
        text: String,
        /// When to come back.
        retry_after: Option<Duration>,
    },
    /// The network, or TLS.
    #[error("{}", explained(.0))]
    Transport(reqwest::Error),
    /// A proxy that is down or refuses.
    #[error("the proxy {proxy} cannot be used: {}", error_chain(.error))]
    Proxy {
        /// Without its password.
        proxy: String,
        error: reqwest::Error,
    },
    /// An answer that makes no sense.
    #[error("the answer {0}")]
    Answer(&'static str),
    /// An upload is sent where it must not go.
    #[error("the registry sends the upload to {0}")]
    Location(String),
    /// Nothing moved for so long.
    #[error("{}", stalled(*.taken, *.limit))]
    Stalled { taken: BodyProgress, limit: Duration },
    /// Tokens.
    #[error("{0}")]
    Token(String),
    /// A token server that is not asked.
    #[error("{0}")]
    Realm(#[from] RealmError),
    /// A token server that says no.
    #[error("the token server {url} gives no token: {failure}")]
    TokenServer { url: String, failure: Box<Failure> },
    /// The credentials, once they were asked for.
    #[error("{0}")]
    Credential(Box<RegistryError>),
    /// The file to be uploaded.
    #[error("read what is to be uploaded: {0}")]
    File(#[from] io::Error),
}

fn said(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

/// What did not move, and what would help.
fn stalled(taken: BodyProgress, limit: Duration) -> String {
    let limit = limit.as_secs_f64();
    match taken {
        BodyProgress { len: 0, .. } => format!("no answer for {limit} s"),
        BodyProgress { sent, len } if sent < len => format!(
            "nothing was taken for {limit} s; for a line that stops for longer, give --stall-limit"
        ),
        BodyProgress { len, .. } => format!(
            "{} were sent, and no answer came for {limit} s; smaller requests are answered sooner: \
             give --chunk-size",
            bytes(len)
        ),
    }
}

impl Failure {
    /// The status of an answer and what its body says (distribution-spec §"Error Codes").
    pub(super) fn status(
        at: Exchange,
        status: u16,
        body: &[u8],
        retry_after: Option<Duration>,
    ) -> Self {
        let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let first = json.pointer("/errors/0");
        let field = |name: &str| {
            let text = first.and_then(|it| it.get(name)).and_then(|it| it.as_str());
            text.unwrap_or_default().chars().take(200).collect::<String>()
        };
        let (code, message) = (field("code"), field("message"));
        let text = format!("{code} {message}").trim().escape_debug().to_string();
        Failure::Status { at, status, code, text, retry_after }
    }

    /// A request that got no answer, on its way through a proxy or not.
    pub(super) fn lost(error: reqwest::Error, proxy: Option<&Proxy>) -> Self {
        match proxy {
            // What TLS says, it says of the registry.
            Some(proxy) if error.is_connect() && !is_tls(&error) => {
                Failure::Proxy { proxy: proxy.to_string(), error }
            }
            _ => Failure::Transport(error),
        }
    }

    /// What to do next. `refused` says which credential a registry's 401 was about.
    pub(super) fn hint(&self, refused: &dyn Fn() -> String) -> String {
        let text = match self {
            Failure::Status { status: 401, at, .. } if *at != Exchange::Token => return refused(),
            Failure::Status { at, status, code, .. } => {
                return explain::status(*at, *status, code, &COMMAND);
            }
            Failure::TokenServer { failure, .. } => return failure.hint(refused),
            Failure::Realm(error) => match error.token_host() {
                Some(host) => {
                    return format!("if {host} is its token server, give --token-host {host}");
                }
                None => "the registry's configuration names its token server",
            },
            Failure::Proxy { .. } => {
                "https_proxy names the proxy; no_proxy lists registries that need none"
            }
            Failure::Location(_) => {
                "a proxy before the registry has to hand on Host, and X-Forwarded-Proto: https"
            }
            Failure::Credential(error) if error.reason() == Reason::InsecurePerms => {
                "log in again if others may have read it"
            }
            Failure::Credential(_) => "mend or remove that entry, or give --token-file",
            Failure::Transport(error) if is_tls(error) => {
                "docs/server.md makes a CA, a server certificate and a push token"
            }
            Failure::Transport(_) => {
                return format!("is the address right, and does it answer? {NOTHING_VISIBLE}");
            }
            Failure::Stalled { .. } => NOTHING_VISIBLE,
            Failure::Answer(_) => "is this the address of a registry? another server may answer",
            Failure::Token(_) | Failure::File(_) => "",
        };
        text.to_owned()
    }

    /// Whether the registry says, in so many words, that there is no such thing.
    pub(super) fn is_not_found(&self) -> bool {
        match self {
            Failure::Status { status, code, .. } => {
                let known = ["MANIFEST_UNKNOWN", "NAME_UNKNOWN", "BLOB_UNKNOWN", "NOT_FOUND"];
                *status == 404 || known.contains(&code.as_str())
            }
            _ => false,
        }
    }

    /// Whether the registry has no such repository: where one pushes, it makes none by itself.
    pub(super) fn is_missing_repository(&self) -> bool {
        matches!(self, Failure::Status { status: 404, code, .. } if code == "NAME_UNKNOWN")
    }

    /// Whether what was to be removed is not there.
    pub(super) fn is_gone(&self) -> bool {
        match self {
            Failure::Status { status: 404, code, .. } => {
                matches!(code.as_str(), "MANIFEST_UNKNOWN" | "NAME_UNKNOWN" | "NOT_FOUND")
            }
            _ => false,
        }
    }

    /// Whether the registry does not do such a thing, or not for us (distribution-spec §"Deleting
    /// Tags": 400 or 405 where that is switched off).
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Failure::Status { status: 400 | 401 | 403 | 404 | 405 | 501, .. })
    }

    /// Whether the same request may go better a little later.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Failure::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
            Failure::Transport(error) => {
                !(error.is_builder()
                    || error.is_redirect()
                    || is_tls(error)
                    || error_chain(error).contains(NO_HTTP))
            }
            Failure::Proxy { .. } | Failure::Stalled { .. } => true,
            Failure::TokenServer { failure, .. } => failure.is_passing(),
            Failure::Answer(_)
            | Failure::Location(_)
            | Failure::Token(_)
            | Failure::Realm(_)
            | Failure::Credential(_)
            | Failure::File(_) => false,
        }
    }

    /// How long the registry asks us to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Failure::Status { retry_after, .. } => *retry_after,
            Failure::TokenServer { failure, .. } => failure.retry_after(),
            _ => None,
        }
    }

    /// The stable code.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Failure::Stalled { .. } => Reason::Timeout,
            Failure::Transport(error) if error.is_timeout() => Reason::Timeout,
            Failure::Transport(error) if error.is_redirect() => Reason::RedirectRefused,
            Failure::Transport(error) if is_tls(error) => Reason::Tls,
            Failure::Transport(_) => Reason::Unreachable,
            Failure::Proxy { error, .. } if error.is_timeout() => Reason::Timeout,
            Failure::Proxy { .. } => Reason::Unreachable,
            Failure::Location(_) | Failure::Realm(_) => Reason::RedirectRefused,
            Failure::Credential(error) => error.reason(),
            Failure::Status { .. }
            | Failure::Answer(_)
            | Failure::Token(_)
            | Failure::TokenServer { .. } => Reason::HttpStatus,
            Failure::File(_) => Reason::StoreIo,
        }
    }
}

/// hyper's words for an answer that is no HTTP: the same is answered again.
const NO_HTTP: &str = "invalid HTTP version";

fn is_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    explain::tls_cause(error).is_some()
}

/// An error of the network, and what it means where its words do not say so.
fn explained(error: &reqwest::Error) -> String {
    if let Some(tls) = explain::tls_cause(error) {
        return explain::tls(tls, &COMMAND);
    }
    let text = error_chain(error);
    let spoke_tls = error.url().is_some_and(|url| url.scheme() == "http")
        && (text.contains(NO_HTTP) || text.contains("connection closed before"));
    let means =
        if spoke_tls { "; it may speak TLS on this port: leave out --plain-http" } else { "" };
    text + means
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_registry_says_is_shown_without_its_tricks() {
        let body = br#"{"errors":[{"code":"DENIED","message":"no\u001b[2J\nerror[ok]"}]}"#;
        let failure = Failure::status(Exchange::Read, 403, body, None);
        assert_eq!(failure.to_string(), "403: DENIED no\\u{1b}[2J\\nerror[ok]");
        assert!(!failure.is_passing() && !failure.is_not_found());
        assert!(Failure::status(Exchange::Read, 404, b"<html>", None).is_not_found());
        for status in [429, 500, 503] {
            assert!(Failure::status(Exchange::Read, status, b"", None).is_passing(), "{status}");
        }
        assert_eq!(Failure::status(Exchange::Read, 500, b"", None).to_string(), "500");
    }
}
