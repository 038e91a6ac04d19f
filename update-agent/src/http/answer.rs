//! One answer: its head, and its body under the limits of time and rate.

use std::time::Instant;

use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderName};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::connect::{self, Connection};
use super::rate::RateFloor;
use registry_auth::explain::{self, Exchange};
use registry_auth::retry;

use super::{Client, Distance, HttpError, Url};

/// 16 KiB: what is read of a redirect's or refusal's body so that the connection can be kept.
const DRAIN: u64 = 16 << 10;

/// The head of an answer, and its body piece by piece.
///
/// Dropping it before the end closes an HTTP/1.1 connection; reading to the end keeps it.
pub struct Answer<'c> {
    client: &'c Client,
    pub(super) url: Url,
    pub(super) parts: http::response::Parts,
    body: Incoming,
    /// Until the body's end.
    connection: Option<Connection>,
    floor: RateFloor,
}

impl<'c> Answer<'c> {
    pub(super) fn new(
        client: &'c Client,
        url: &Url,
        response: http::Response<Incoming>,
        connection: Connection,
    ) -> Self {
        let (parts, body) = response.into_parts();
        let limits = &client.options.limits;
        let floor = RateFloor::new(limits.min_rate, limits.rate_window);
        Answer { client, url: url.clone(), parts, body, connection: Some(connection), floor }
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.parts.status
    }

    /// A header's value, if it is there and visible ASCII.
    pub fn header(&self, name: HeaderName) -> Option<&str> {
        self.parts.headers.get(name)?.to_str().ok()
    }

    /// The announced length of the body, if one number is announced.
    pub fn content_length(&self) -> Option<u64> {
        self.header(header::CONTENT_LENGTH)?.parse().ok()
    }

    /// How far away the server is.
    pub(super) fn distance(&self) -> Distance {
        self.connection.as_ref().map_or(Distance::Public, |connection| connection.distance)
    }

    /// The next piece of the body, at most 64 KiB; `None` at its end.
    pub fn read(&mut self) -> Result<Option<Bytes>, HttpError> {
        self.client.block_on(self.piece())
    }

    /// The pieces of the body that have at most `limit` bytes together; what follows is not read.
    pub(crate) fn beginning(&mut self, limit: usize) -> Result<Vec<u8>, HttpError> {
        let mut body = Vec::new();
        while let Some(piece) = self.read()? {
            if body.len() + piece.len() > limit {
                break;
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    /// This answer as an error: its status, and what to do about it.
    pub fn refusal(&self) -> HttpError {
        let status = self.status();
        let hint = match (status.as_u16(), &self.client.options.credential_file) {
            (401, Some(file)) => {
                format!("the registry refuses the credential of {}", file.display())
            }
            (401, None) => {
                "no credential is configured: name a file with token_file, or allow anonymous pulls"
                    .to_owned()
            }
            (status, _) => explain::status(Exchange::Read, status, "", &explain::SOURCE),
        };
        HttpError::Status {
            url: self.url.to_string(),
            status,
            hint: if hint.is_empty() { hint } else { format!(": {hint}") },
            retry_after: self.header(header::RETRY_AFTER).and_then(retry::parse_retry_after),
        }
    }

    /// The error of a body longer than `limit`.
    pub(super) fn too_long(&self, limit: u64) -> HttpError {
        let found = self.content_length().unwrap_or(0).max(limit.saturating_add(1));
        HttpError::Length { url: self.url.to_string(), expected: limit, found }
    }

    /// Refuses an encoded body: its bytes would not be the ones that were signed.
    pub(super) fn plain(self) -> Result<Self, HttpError> {
        let encodings = self.parts.headers.get_all(header::CONTENT_ENCODING);
        match encodings.iter().find(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity")) {
            None => Ok(self),
            Some(value) => Err(HttpError::Protocol {
                origin: self.url.origin().to_string(),
                why: format!("Content-Encoding {value:?}, which nobody asked for"),
            }),
        }
    }

    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, HttpError> {
        let limits = &self.client.options.limits;
        let origin = || self.url.origin().to_string();
        loop {
            let start = Instant::now();
            let after = self.client.patience_left().unwrap_or(limits.idle).min(limits.idle);
            let frame = timeout(after, self.body.frame())
                .await
                .map_err(|_| HttpError::Timeout { origin: origin(), phase: "more bytes", after })?;
            let Some(frame) = frame else {
                if let Some(connection) = self.connection.take() {
                    self.client.pool.put(self.url.origin(), connection);
                }
                return Ok(None);
            };
            let frame = frame.map_err(|error| connect::from_hyper(self.url.origin(), &error))?;
            // Trailers mean nothing to us.
            let Ok(data) = frame.into_data() else { continue };
            let count = data.len() as u64;
            self.client.came(count);
            self.floor.record(start.elapsed(), count).map_err(|bytes| HttpError::TooSlow {
                origin: origin(),
                bytes,
                window: limits.rate_window,
                min_rate: limits.min_rate,
            })?;
            if !data.is_empty() {
                return Ok(Some(data));
            }
        }
    }

    /// Reads a short body to its end so that the connection can be kept; gives up on a long one.
    pub(super) async fn drain(mut self) {
        let mut left = DRAIN;
        while let Ok(Some(piece)) = self.piece().await {
            match left.checked_sub(piece.len() as u64) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    }
}
