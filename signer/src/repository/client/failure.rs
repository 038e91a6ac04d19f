//! What went wrong between us and a registry.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use formats::reason::Reason;

use super::patience::Taken;
use crate::progress::bytes;

/// Why a request brought nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The registry says no.
    #[error("{status}{}", said(.text))]
    Status {
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
    /// An answer that makes no sense.
    #[error("the answer {0}")]
    Answer(&'static str),
    /// Nothing moved for so long.
    #[error("{}", stalled(*.taken, *.limit))]
    Stalled { taken: Taken, limit: Duration },
    /// Tokens.
    #[error("{0}")]
    Token(String),
    /// The file to be uploaded.
    #[error("read what is to be uploaded: {0}")]
    File(#[from] io::Error),
}

fn said(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

/// What did not move, and what would help.
fn stalled(taken: Taken, limit: Duration) -> String {
    let limit = limit.as_secs_f64();
    match taken {
        Taken { len: 0, .. } => format!("no answer for {limit} s"),
        Taken { sent, len } if sent < len => format!(
            "nothing was taken for {limit} s; for a line that stops for longer, give --stall-limit"
        ),
        Taken { len, .. } => format!(
            "{} were sent, and no answer came for {limit} s; smaller requests are answered sooner: \
             give --chunk-size",
            bytes(len)
        ),
    }
}

impl Failure {
    /// The status of an answer and what its body says (distribution-spec §"Error Codes").
    pub(super) fn status(status: u16, body: &[u8], retry_after: Option<Duration>) -> Self {
        let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let first = json.pointer("/errors/0");
        let field = |name: &str| {
            let text = first.and_then(|it| it.get(name)).and_then(|it| it.as_str());
            text.unwrap_or_default().chars().take(200).collect::<String>()
        };
        let (code, message) = (field("code"), field("message"));
        let text = format!("{code} {message}").trim().escape_debug().to_string();
        Failure::Status { status, code, text, retry_after }
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

    /// Whether the same request may go better a little later.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Failure::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
            Failure::Transport(error) => {
                !(error.is_builder() || error.is_redirect() || is_tls(error))
            }
            Failure::Stalled { .. } => true,
            Failure::Answer(_) | Failure::Token(_) | Failure::File(_) => false,
        }
    }

    /// How long the registry asks us to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Failure::Status { retry_after, .. } => *retry_after,
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
            Failure::Status { .. } | Failure::Answer(_) | Failure::Token(_) => Reason::HttpStatus,
            Failure::File(_) => Reason::StoreIo,
        }
    }
}

fn is_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    tls_error(error).is_some()
}

/// The error of TLS below another one.
fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref() {
            return Some(error);
        }
        next = match error.downcast_ref::<io::Error>() {
            // An io::Error names its content's source as its own and hides the content.
            Some(error) => error.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static)),
            None => error.source(),
        };
    }
    None
}

/// An error of the network, and what it means where its words do not say so.
fn explained(error: &reqwest::Error) -> String {
    if let Some(tls) = tls_error(error) {
        return explained_tls(tls);
    }
    let text = chain(error);
    let spoke_tls = error.url().is_some_and(|url| url.scheme() == "http")
        && (text.contains("invalid HTTP version") || text.contains("connection closed before"));
    let means =
        if spoke_tls { "; it may speak TLS on this port: leave out --plain-http" } else { "" };
    text + means
}

/// What a failed handshake means.
fn explained_tls(error: &rustls::Error) -> String {
    use rustls::{CertificateError, Error};
    match error {
        Error::InvalidMessage(_) => format!(
            "{error}: the server may speak plain HTTP on this port; give --plain-http (loopback only)"
        ),
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            format!("{error}: name the CA that signed the server's certificate with --ca")
        }
        // webpki's own words, which rustls hands on as a debug text.
        Error::InvalidCertificate(CertificateError::Other(other))
            if format!("{other:?}").contains("CaUsedAsEndEntity") =>
        {
            "the server's certificate is a CA itself: sign a server certificate with it, see \
             docs/server.md"
                .to_owned()
        }
        _ => error.to_string(),
    }
}

/// An error with its causes; each part once.
pub(super) fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_registry_says_is_shown_without_its_tricks() {
        let body = br#"{"errors":[{"code":"DENIED","message":"no\u001b[2J\nerror[ok]"}]}"#;
        let failure = Failure::status(403, body, None);
        assert_eq!(failure.to_string(), "403: DENIED no\\u{1b}[2J\\nerror[ok]");
        assert!(!failure.is_passing() && !failure.is_not_found());
        assert!(Failure::status(404, b"<html>", None).is_not_found());
        for status in [429, 500, 503] {
            assert!(Failure::status(status, b"", None).is_passing(), "{status}");
        }
        assert_eq!(Failure::status(500, b"", None).to_string(), "500");
    }
}
