//! `/metadata` and `/targets`: the same bytes as a classic TUF repository (TUF §6.2).

use std::sync::Arc;

use formats::digest::{Digest, Sha256};
use http::Response;

use super::blobs::{self, Source};
use super::reply::CachePolicy;
use super::{App, RequestHead, blocking};
use crate::body::Body;
use crate::error::{ApiError, Code};
use crate::tuf_tree::Ambiguous;

/// A metadata file of the current TUF state, or of one before: a client that began to refresh
/// when the state moved must be able to finish.
pub(super) async fn metadata(
    app: &Arc<App>,
    asked: &RequestHead,
    file: String,
) -> Result<Response<Body>, ApiError> {
    // Only timestamp.json changes under its name; `no-cache` for all of them costs little.
    let text = format!("the TUF state has no {file:?}");
    let inside = Arc::clone(app);
    let found = blocking(app, move |store| inside.tuf.metadata(store, &file)).await?;
    send(app, asked, found, "application/json", text, CachePolicy::Revalidate).await
}

/// A target by its hash.
pub(super) async fn target(
    app: &Arc<App>,
    asked: &RequestHead,
    dir: String,
    hash: Sha256,
    name: String,
) -> Result<Response<Body>, ApiError> {
    let text = format!("no target {dir:?} / {name:?} with hash {hash}");
    let inside = Arc::clone(app);
    let found = blocking(app, move |store| inside.tuf.target(store, &dir, hash)).await?;
    send(app, asked, found, "application/octet-stream", text, CachePolicy::Immutable).await
}

async fn send(
    app: &Arc<App>,
    asked: &RequestHead,
    found: Result<Option<Digest>, Ambiguous>,
    media_type: &str,
    text: String,
    keep: CachePolicy,
) -> Result<Response<Body>, ApiError> {
    let missing = |text: String| ApiError::missing(Code::ManifestUnknown, text);
    let digest = found.map_err(|error| missing(error.to_string()))?;
    let digest = digest.ok_or_else(|| missing(text.clone()))?;
    let source: Option<Source> = blobs::source(app, &digest).await?;
    blobs::send(asked, &digest, source.ok_or_else(|| missing(text))?, media_type, keep)
}
