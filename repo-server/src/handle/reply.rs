//! Responses: the headers that several answers share.

use bytes::Bytes;
use formats::digest::Digest;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Response, StatusCode};

use crate::body::Body;
use crate::budget::Budget;
use crate::error::{ApiError, Code};

/// `Docker-Content-Digest`, which OCI kept.
pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// How long an answer stays true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CachePolicy {
    /// It was asked for by digest.
    Immutable,
    /// A tag or a file name, which may stand for something else next time.
    Revalidate,
}

/// `Cache-Control`. A digest always names the same bytes; the rest is asked for again, with the ETag.
///
/// `public` lets a cache that many use hand an answer to others than who asked, also one that needed
/// a credential (RFC 9111 §3.5): never where only some may read.
pub(super) fn cache_control(keep: CachePolicy, private: bool) -> HeaderValue {
    HeaderValue::from_static(match (keep, private) {
        (CachePolicy::Immutable, false) => "public, max-age=31536000, immutable",
        (CachePolicy::Immutable, true) => "private, max-age=31536000, immutable",
        (CachePolicy::Revalidate, false) => "no-cache",
        (CachePolicy::Revalidate, true) => "private, no-cache",
    })
}

/// A text as a header's value; what cannot stand in one is left out.
pub(super) fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// 200 with a JSON document.
pub(super) fn json(document: &serde_json::Value) -> Response<Body> {
    bytes("application/json", document.to_string().into_bytes())
}

/// 200 with these bytes.
pub(super) fn bytes(media_type: &str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::bytes(bytes));
    response.headers_mut().insert(header::CONTENT_TYPE, value(media_type));
    response
}

/// Counts an answer that was made in memory, for as long as the client has not taken it; refuses it
/// when answers take up too much already.
pub(super) fn counted(answer: Response<Body>, budget: &Budget) -> Result<Response<Body>, ApiError> {
    let (head, body) = answer.into_parts();
    let body = body.counted(budget).ok_or_else(|| {
        let text = "the server's memory for answers is full; try again later";
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, Code::TooManyRequests, text)
    })?;
    Ok(Response::from_parts(head, body))
}

/// What names bytes: digest, ETag, and how long it does.
pub(super) fn name_by(headers: &mut HeaderMap, digest: &Digest, keep: CachePolicy, private: bool) {
    headers.insert(CONTENT_DIGEST, value(&digest.to_string()));
    headers.insert(header::ETAG, value(&etag(digest)));
    headers.insert(header::CACHE_CONTROL, cache_control(keep, private));
}

/// The strong validator of these bytes (RFC 9110 §8.8.3).
pub(super) fn etag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// Whether the client has these bytes already (RFC 9110 §13.1.2).
pub(super) fn is_known(headers: &HeaderMap, digest: &Digest) -> bool {
    let etag = etag(digest);
    let mut tags = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|tag| tag.trim().trim_start_matches("W/"));
    tags.any(|tag| tag == "*" || tag == etag)
}

/// 304 for [`is_known`].
pub(super) fn not_modified(digest: &Digest, keep: CachePolicy, private: bool) -> Response<Body> {
    let mut response = empty(StatusCode::NOT_MODIFIED);
    name_by(response.headers_mut(), digest, keep, private);
    response
}

/// The answer of an error.
pub(super) fn error(error: &ApiError) -> Response<Body> {
    let mut response = bytes("application/json", error.body());
    *response.status_mut() = error.status;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(allow) = error.allow {
        headers.insert(header::ALLOW, HeaderValue::from_static(allow));
    }
    if error.status == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Basic realm=\"repo-server\", charset=\"UTF-8\"");
        headers.insert(header::WWW_AUTHENTICATE, challenge);
    }
    if matches!(error.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
    }
    if let Some(length) = error.length {
        headers.insert(header::CONTENT_RANGE, value(&format!("bytes */{length}")));
    }
    if let Some((location, stored)) = &error.upload {
        headers.insert(header::LOCATION, value(location));
        headers.insert(header::RANGE, value(&received(*stored)));
    }
    response
}

/// `Range` of an upload: the bytes that are there. Of none, the specification has no spelling;
/// `0-0` is what registries have always said.
pub(super) fn received(stored: u64) -> String {
    format!("0-{}", stored.saturating_sub(1))
}

/// Headers of every answer.
pub(super) fn finish(response: &mut Response<Body>, path: &str) {
    let left = response.body().left();
    let has_body = !matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let headers = response.headers_mut();
    if has_body {
        headers.entry(header::CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(left));
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Bytes that clients pushed come from here: no browser takes any of them for a page of ours.
    let inert = HeaderValue::from_static("default-src 'none'; sandbox");
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(inert);
    if path.starts_with("/v2") {
        // Older clients take a server without it for something else.
        let version = HeaderName::from_static("docker-distribution-api-version");
        headers.insert(version, HeaderValue::from_static("registry/2.0"));
    }
}
