//! Responses: the headers that several answers share.

use bytes::Bytes;
use formats::digest::Digest;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Response, StatusCode};

use crate::body::Body;
use crate::error::ApiError;

/// `Docker-Content-Digest`, which OCI kept.
pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// A digest names its bytes for ever.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
/// Ask again, with the ETag.
const REVALIDATE: HeaderValue = HeaderValue::from_static("no-cache");

/// How long an answer stays true.
#[derive(Debug, Clone, Copy)]
pub(super) enum Keep {
    /// It was asked for by digest.
    ForEver,
    /// A tag or a file name, which may stand for something else next time.
    Ask,
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

/// What names bytes: digest, ETag, and how long it does.
pub(super) fn name_by(headers: &mut HeaderMap, digest: &Digest, keep: Keep) {
    headers.insert(CONTENT_DIGEST, value(&digest.to_string()));
    headers.insert(header::ETAG, value(&etag(digest)));
    let keep = match keep {
        Keep::ForEver => IMMUTABLE,
        Keep::Ask => REVALIDATE,
    };
    headers.insert(header::CACHE_CONTROL, keep);
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
pub(super) fn not_modified(digest: &Digest, keep: Keep) -> Response<Body> {
    let mut response = empty(StatusCode::NOT_MODIFIED);
    name_by(response.headers_mut(), digest, keep);
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
    if error.status == StatusCode::TOO_MANY_REQUESTS {
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
    if path.starts_with("/v2") {
        // Older clients take a server without it for something else.
        let version = HeaderName::from_static("docker-distribution-api-version");
        headers.insert(version, HeaderValue::from_static("registry/2.0"));
    }
}
