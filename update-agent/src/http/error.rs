//! Why an exchange over HTTP failed, and whether trying again can help.

use std::path::Path;
use std::time::Duration;

use formats::reason::Reason;
use http::StatusCode;
use registry_auth::realm::RealmError;
use registry_auth::{ProxyError, UrlError};
use storage::FileError;
use storage::StoreError;

/// Why an exchange failed. Texts name the origin, never a credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// The URL is not one we would ever ask.
    #[error("{url:?} is not an http or https URL: {why}")]
    Url {
        /// The URL, shortened.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Plain HTTP to another machine.
    #[error(
        "{origin} is plain HTTP on another machine: plain_http is for loopback only, use https"
    )]
    PlainHttp {
        /// Where the request would have gone.
        origin: String,
    },
    /// A file of the configuration (CA, token) or the system's roots cannot be used.
    #[error("{what}: {why}")]
    Setup {
        /// Which file or store.
        what: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// Others can read a secret, or change what decides who is believed.
    #[error("{what}: {path} {why}; run `{remedy}`")]
    InsecureFile {
        /// What it should hold.
        what: &'static str,
        /// The file, or a folder or link on the way to it.
        path: String,
        /// What is wrong with it.
        why: String,
        /// The command that mends it.
        remedy: String,
    },
    /// No connection.
    #[error("cannot reach {origin}: {why}")]
    Unreachable {
        /// Where to.
        origin: String,
        /// What the system said.
        why: String,
    },
    /// The connection ended before the answer did.
    #[error("{origin} ended the connection in the middle of an answer: {why}")]
    Broken {
        /// Where to.
        origin: String,
        /// How it ended.
        why: String,
    },
    /// Nothing came in time.
    #[error("{origin}: no {phase} within {after:?}")]
    Timeout {
        /// Where to.
        origin: String,
        /// What was waited for (`connection`, `TLS handshake`, `answer`, `more bytes`).
        phase: &'static str,
        /// For how long.
        after: Duration,
    },
    /// Bytes came, but more slowly than the minimum rate.
    #[error("{origin} sent {bytes} bytes in {window:?}, below the minimum of {min_rate} bytes/s")]
    TooSlow {
        /// Where from.
        origin: String,
        /// What came in the window.
        bytes: u64,
        /// The window.
        window: Duration,
        /// The configured minimum.
        min_rate: u64,
    },
    /// TLS could not be established; a retry will not help.
    #[error("TLS with {origin}: {why}")]
    Tls {
        /// With whom.
        origin: String,
        /// What is wrong and what to check.
        why: String,
    },
    /// A token server that is not asked.
    #[error("{error}{}", name_host(.error))]
    TokenServer {
        /// Which one, and why not.
        error: RealmError,
    },
    /// A proxy that is not written as one.
    #[error("{error}{}", instead(.error))]
    Proxy {
        /// Which one, and what is wrong with it.
        error: ProxyError,
    },
    /// A redirect that must not be followed.
    #[error("{from} sends us to {to}, which is refused: {why}")]
    Redirect {
        /// Who sent it.
        from: String,
        /// Where to.
        to: String,
        /// Which rule forbids it.
        why: &'static str,
    },
    /// An answer with an error status.
    #[error("{url} answers {status}{hint}")]
    Status {
        /// What was asked for.
        url: String,
        /// The status.
        status: StatusCode,
        /// What to do, starting with `: `, or nothing.
        hint: String,
        /// When the server wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// An answer that breaks HTTP or a rule of this client.
    #[error("{origin} does not answer as HTTP asks: {why}")]
    Protocol {
        /// Who.
        origin: String,
        /// Which rule.
        why: String,
    },
    /// The body is longer or shorter than what was signed or announced.
    #[error(
        "{url} has {found} bytes where {expected} belong: the copy there is not the signed one"
    )]
    Length {
        /// What was asked for.
        url: String,
        /// How many bytes belong there (at most, when only a limit is known).
        expected: u64,
        /// How many there are (at least).
        found: u64,
    },
}

impl From<UrlError> for HttpError {
    fn from(error: UrlError) -> Self {
        HttpError::Url { url: error.url, why: error.why }
    }
}

impl From<ProxyError> for HttpError {
    fn from(error: ProxyError) -> Self {
        HttpError::Proxy { error }
    }
}

impl From<RealmError> for HttpError {
    fn from(error: RealmError) -> Self {
        HttpError::TokenServer { error }
    }
}

fn name_host(error: &RealmError) -> String {
    match error.token_host() {
        Some(host) => {
            format!(": if this is the registry's token server, set token_host = {host:?}")
        }
        None => String::new(),
    }
}

/// How a variable that serves other programs, too, is left alone.
fn instead(error: &ProxyError) -> &'static str {
    match error.variable {
        Some(_) => "; `proxy` of the source is taken instead, and proxy = \"none\" takes no proxy",
        None => "",
    }
}

impl HttpError {
    /// What kept a file of the configuration from being read.
    pub(crate) fn unread(what: &'static str, path: &Path, error: StoreError) -> Self {
        let why = match error {
            StoreError::InsecurePerms { path, why, remedy } => {
                let path = path.display().to_string();
                return HttpError::InsecureFile { what, path, why, remedy };
            }
            StoreError::Read(FileError::Io { source, .. }) => source.to_string(),
            StoreError::Read(FileError::NotRegular(_)) => "it is not a regular file".to_owned(),
            other => other.to_string(),
        };
        HttpError::Setup { what: format!("{what} {}", path.display()), why }
    }

    /// The stable reason code.
    pub fn reason(&self) -> Reason {
        match self {
            HttpError::Url { .. }
            | HttpError::PlainHttp { .. }
            | HttpError::Proxy { .. }
            | HttpError::Setup { .. } => Reason::Config,
            HttpError::InsecureFile { .. } => Reason::InsecurePerms,
            HttpError::Unreachable { .. } | HttpError::Broken { .. } => Reason::Unreachable,
            HttpError::Timeout { .. } => Reason::Timeout,
            HttpError::TooSlow { .. } => Reason::TooSlow,
            HttpError::Tls { .. } => Reason::Tls,
            HttpError::Redirect { .. } | HttpError::TokenServer { .. } => Reason::RedirectRefused,
            HttpError::Status { .. } | HttpError::Protocol { .. } => Reason::HttpStatus,
            HttpError::Length { .. } => Reason::LengthMismatch,
        }
    }

    /// Whether the same request may succeed a moment later.
    pub fn is_transient(&self) -> bool {
        match self {
            HttpError::Unreachable { .. }
            | HttpError::Broken { .. }
            | HttpError::Timeout { .. } => true,
            HttpError::Status { status, .. } => matches!(status.as_u16(), 408 | 429 | 500..=504),
            _ => false,
        }
    }

    /// How long the server asks us to stay away.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            HttpError::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
