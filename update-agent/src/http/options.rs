//! How long to wait, how slow is too slow, whom to trust.

use std::path::PathBuf;
use std::time::Duration;

use super::{Credential, Origin, Proxies, RetryPolicy};

/// Times and rates. Each is measured by a real timer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Name resolution and TCP, over all addresses of the host.
    pub connect: Duration,
    /// TLS and the HTTP preface.
    pub handshake: Duration,
    /// From the request to the complete head of the answer.
    pub first_byte: Duration,
    /// Between two pieces of a body.
    pub idle: Duration,
    /// Bytes per second that a body must reach on average in every `rate_window`.
    pub min_rate: u64,
    /// How long the average is taken. A body shorter than one window is bounded by `idle` alone.
    pub rate_window: Duration,
    /// How long a source may keep us waiting in all while it is asked for metadata, bytes at
    /// `min_rate` not counted: see [`Client::begin_attempt`](super::Client::begin_attempt).
    pub patience: Duration,
    /// Redirects followed for one request; with 0 a redirect is an answer like any other.
    pub redirects: usize,
    /// Trying again.
    pub retry: RetryPolicy,
}

impl Default for Limits {
    /// For nodes behind slow lines: 1 KiB/s over half a minute. A silent source costs a minute, then
    /// the next one is asked.
    fn default() -> Self {
        Limits {
            connect: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
            first_byte: Duration::from_secs(30),
            idle: Duration::from_secs(30),
            min_rate: 1024,
            rate_window: Duration::from_secs(30),
            patience: Duration::from_secs(60),
            redirects: 5,
            retry: RetryPolicy::default(),
        }
    }
}

/// How a client connects and to whom it shows what.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// PEM file of the only CAs to trust; the system's when absent.
    pub ca: Option<PathBuf>,
    /// PEM file of the certificate that proves this node to the server, and its chain.
    pub client_cert: Option<PathBuf>,
    /// PEM file of its key.
    pub client_key: Option<PathBuf>,
    /// Plain HTTP to hosts other than this one: for health checks, which show nobody a secret and
    /// believe nothing. Sources never have it.
    pub plain_http: bool,
    /// A credential and the only origin that gets it.
    pub credential: Option<(Origin, Credential)>,
    /// The file that the credential is from, for messages.
    pub credential_file: Option<PathBuf>,
    /// A host that may receive the credential over HTTPS when the origin names it as its token
    /// server.
    pub token_host: Option<String>,
    /// Ways to other machines.
    pub proxies: Proxies,
    /// Times and rates.
    pub limits: Limits,
    /// Seed of the jitter; random when absent.
    pub seed: Option<u64>,
}
