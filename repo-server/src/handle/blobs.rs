//! end-2 and end-10: blobs, whole or one range of them.

use std::sync::Arc;

use bytes::Bytes;
use formats::digest::Digest;
use formats::oci::RepositoryName;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use super::reply::{self, CachePolicy};
use super::{App, RequestHead, blocking};
use crate::body::Body;
use crate::error::{ApiError, Code};
use crate::range::{Part, part};
use crate::store::backend::Blob;
use crate::store::cache::SMALL;

/// Verified bytes: small ones in memory, others in their file.
pub(super) enum Source {
    Memory(Bytes),
    File(Arc<dyn Blob>),
}

impl Source {
    pub(super) fn len(&self) -> u64 {
        match self {
            Source::Memory(bytes) => bytes.len() as u64,
            Source::File(blob) => blob.len(),
        }
    }

    /// The bytes from `from` to `to`, which lie inside it.
    pub(super) fn body(self, asked: &RequestHead, from: u64, to: u64) -> Result<Body, ApiError> {
        Ok(match self {
            Source::File(blob) => {
                let pieces = blob.read(from, to).map_err(|error| ApiError::from(&error))?;
                Body::blob(pieces, to.saturating_sub(from), asked.share.clone())
            }
            Source::Memory(bytes) => {
                let at = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                Body::document(bytes.slice(at(from)..at(to)))
            }
        })
    }
}

/// `GET` and `HEAD` of a blob.
pub(super) async fn read(
    app: &Arc<App>,
    asked: &RequestHead,
    name: &RepositoryName,
    digest: &Digest,
) -> Result<Response<Body>, ApiError> {
    let unknown = || ApiError::missing(Code::BlobUnknown, format_args!("{name} has no {digest}"));
    if !app.store.with(name, |it| it.blobs.contains(digest)).unwrap_or(false) {
        let (name, digest) = (name.clone(), digest.clone());
        if !blocking(app, move |store| store.shows_blob(&name, &digest)).await? {
            return Err(unknown());
        }
    }
    let source = source(app, digest).await?.ok_or_else(unknown)?;
    send(asked, digest, source, "application/octet-stream", CachePolicy::Immutable)
}

/// The bytes of a digest; `None` when they are not there or not what the digest says.
///
/// A large file is hashed before it is first served after a start. That takes a moment once, and
/// in return no rot of the disk ever leaves under a digest it does not have.
pub(super) async fn source(app: &Arc<App>, digest: &Digest) -> Result<Option<Source>, ApiError> {
    if let Some(bytes) = app.store.small(digest)
        && let Ok(bytes) = app.budget.document(bytes)
    {
        return Ok(Some(Source::Memory(bytes)));
    }
    let (wanted, budget) = (digest.clone(), Arc::clone(&app.budget));
    let opened = blocking(app, move |store| {
        let Some(blob) = store.open_blob(&wanted)? else { return Ok(None) };
        if blob.len() <= SMALL {
            let Some(bytes) = store.document(&wanted)? else { return Ok(None) };
            if let Ok(bytes) = budget.document(bytes) {
                return Ok(Some((Source::Memory(bytes), true)));
            }
        }
        let verified = store.is_verified(&wanted, &*blob)?;
        Ok(Some((Source::File(blob), verified)))
    })
    .await?;
    let Some((Source::File(blob), false)) = opened else {
        return Ok(opened.map(|(source, _)| source));
    };
    let _turn = app.verifying.acquire().await.map_err(|_| ApiError::internal())?;
    // Somebody may have verified it while this request waited for its turn.
    let wanted = digest.clone();
    let verified = blocking(app, move |store| {
        let good = store.is_verified(&wanted, &*blob)? || store.verify(&wanted, &*blob)?;
        Ok(good.then_some(blob))
    });
    Ok(verified.await?.map(Source::File))
}

/// 200, 206, 304 or 416 with bytes that have `digest`.
pub(super) fn send(
    asked: &RequestHead,
    digest: &Digest,
    source: Source,
    media_type: &str,
    keep: CachePolicy,
) -> Result<Response<Body>, ApiError> {
    if reply::is_known(&asked.headers, digest) {
        return Ok(reply::not_modified(digest, keep, asked.private));
    }
    let length = source.len();
    let (status, from, to) = match wanted_part(asked, digest, length) {
        Part::Whole => (StatusCode::OK, 0, length),
        Part::Slice(slice) => (StatusCode::PARTIAL_CONTENT, slice.start, slice.end),
        Part::Unsatisfiable => {
            let text = format!("the range lies outside the blob of {length} bytes");
            let error = ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, Code::SizeInvalid, text);
            return Err(ApiError { length: Some(length), ..error });
        }
    };
    let mut response = Response::new(source.body(asked, from, to)?);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, reply::value(media_type));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    reply::name_by(headers, digest, keep, asked.private);
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {from}-{}/{length}", to.saturating_sub(1));
        headers.insert(header::CONTENT_RANGE, reply::value(&range));
    }
    Ok(response)
}

fn wanted_part(asked: &RequestHead, digest: &Digest, length: u64) -> Part {
    let text = |headers: &HeaderMap, name| {
        headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).map(str::to_owned)
    };
    // RFC 9110 §14.2: only GET has ranges; §13.1.5: and only of the bytes the client means.
    let same = text(&asked.headers, header::IF_RANGE).is_none_or(|it| it == reply::etag(digest));
    match text(&asked.headers, header::RANGE) {
        Some(range) if asked.method == Method::GET && same => part(&range, length),
        _ => Part::Whole,
    }
}

/// `DELETE` of a blob.
pub(super) async fn delete(
    app: &Arc<App>,
    name: RepositoryName,
    digest: Digest,
) -> Result<Response<Body>, ApiError> {
    let text = format!("{name} has no {digest}");
    if blocking(app, move |store| store.delete_blob(&name, &digest)).await? {
        Ok(reply::empty(StatusCode::ACCEPTED))
    } else {
        Err(ApiError::missing(Code::BlobUnknown, text))
    }
}
