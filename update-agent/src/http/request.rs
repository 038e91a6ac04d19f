//! One request.

use std::ops::RangeInclusive;

use bytes::Bytes;
use http::Method;
use http::header::{self, HeaderValue};
use http_body_util::Full;

use super::{HttpError, Url};

/// One request.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// What to ask for.
    pub url: &'a Url,
    /// Media types to accept; none sends no `Accept`.
    pub accept: &'a [&'a str],
    /// The entity tag we have.
    pub if_none_match: Option<&'a str>,
    /// The bytes wanted, first and last.
    pub range: Option<RangeInclusive<u64>>,
    /// What to ask a token server for, for instance `repository:ns/tuf:pull`.
    pub scope: &'a str,
    /// What to send there instead of asking for anything.
    pub sent: Sent,
}

/// JSON that goes with a request.
#[derive(Debug, Clone)]
pub enum Sent {
    /// None: it asks for something.
    Nothing,
    /// It is put there.
    Put(Bytes),
    /// It is posted there, as the FleetLock protocol has it.
    Lock(Bytes),
}

impl<'a> Request<'a> {
    /// A request for all of a resource.
    pub fn new(url: &'a Url) -> Self {
        Request {
            url,
            accept: &[],
            if_none_match: None,
            range: None,
            scope: "",
            sent: Sent::Nothing,
        }
    }

    /// The request's bytes for this URL, which a redirect may have made another one than ours: no
    /// `Accept-Encoding`, one closed range at most.
    pub(super) fn build(
        &self,
        url: &Url,
        authorization: Option<&str>,
        http2: bool,
    ) -> Result<http::Request<Full<Bytes>>, HttpError> {
        const AGENT: &str = concat!("update-agent/", env!("CARGO_PKG_VERSION"));
        let target = if http2 { url.to_request() } else { url.path().to_owned() };
        let (method, body) = match &self.sent {
            Sent::Nothing => (Method::GET, None),
            Sent::Put(body) => (Method::PUT, Some(body)),
            Sent::Lock(body) => (Method::POST, Some(body)),
        };
        let mut request = http::Request::builder().method(method).uri(target);
        if !http2 {
            request = request.header(header::HOST, url.origin().authority());
        }
        request = request.header(header::USER_AGENT, AGENT);
        if !self.accept.is_empty() {
            request = request.header(header::ACCEPT, self.accept.join(", "));
        }
        if let Some(tag) = self.if_none_match {
            request = request.header(header::IF_NONE_MATCH, tag);
        }
        if let Some(range) = &self.range {
            let value = format!("bytes={}-{}", range.start(), range.end());
            request = request.header(header::RANGE, value);
        }
        if matches!(self.sent, Sent::Lock(_)) {
            request = request.header("fleet-lock-protocol", "true");
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let unfit = |_| HttpError::Url { url: url.to_string(), why: "it does not fit a request" };
        if let Some(secret) = authorization {
            let mut value = HeaderValue::from_str(secret).map_err(|error| unfit(error.into()))?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        request.body(Full::new(body.cloned().unwrap_or_default())).map_err(unfit)
    }
}
