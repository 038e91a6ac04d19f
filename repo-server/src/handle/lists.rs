//! end-8 and end-12: tags and referrers; and the health of the server.

use std::sync::Arc;

use formats::digest::Digest;
use formats::oci::{Index, RepositoryName, Tag, media_type};
use http::{HeaderName, HeaderValue, Response, header};

use super::reply;
use super::{App, blocking};
use crate::alarm::State;
use crate::body::Body;
use crate::error::{ApiError, Code};
use crate::metrics::OPENMETRICS;
use crate::refresh::Signs;
use crate::route::TAGS_PAGE;

const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// end-8: the tags after `last`, at most `n`, in ASCII order, with a `Link` to the next page.
pub(super) async fn tags(
    app: &Arc<App>,
    name: RepositoryName,
    n: Option<usize>,
    last: Option<String>,
) -> Result<Response<Body>, ApiError> {
    let most = n.unwrap_or(TAGS_PAGE).min(TAGS_PAGE);
    let wanted = name.clone();
    let page = blocking(app, move |store| {
        store.refresh()?;
        Ok(store.with(&wanted, |repository| {
            let after = |tag: &&Tag| last.as_deref().is_none_or(|last| tag.as_str() > last);
            let mut rest = repository.tags.keys().filter(after);
            let page: Vec<String> = rest.by_ref().take(most).map(Tag::to_string).collect();
            (page, rest.next().is_some())
        }))
    })
    .await?;
    let unknown = || ApiError::missing(Code::NameUnknown, format_args!("no repository {name}"));
    let (page, more) = page.ok_or_else(unknown)?;
    let link = page
        .last()
        .filter(|_| more)
        .map(|last| format!("</v2/{name}/tags/list?n={most}&last={last}>; rel=\"next\""));
    let mut response = reply::json(&serde_json::json!({ "name": name.as_str(), "tags": page }));
    if let Some(link) = link {
        response.headers_mut().insert(header::LINK, reply::value(&link));
    }
    Ok(response)
}

/// end-12: what is attached to a manifest. A subject nobody knows has no referrers; that is not an
/// error.
pub(super) async fn referrers(
    app: &Arc<App>,
    name: RepositoryName,
    digest: Digest,
    artifact_type: Option<String>,
) -> Result<Response<Body>, ApiError> {
    let filtered = artifact_type.is_some();
    let found = blocking(app, move |store| {
        store.refresh()?;
        store.relist_manifests(&name)?;
        Ok(store.with(&name, |it| it.referrers(&digest, artifact_type.as_deref())))
    })
    .await?;
    let index = Index::new(None, found.unwrap_or_default());
    let mut response = reply::bytes(media_type::INDEX, index.to_bytes());
    if filtered {
        let filter = HeaderValue::from_static("artifactType");
        response.headers_mut().insert(FILTERS_APPLIED, filter);
    }
    Ok(response)
}

/// `/healthz`.
///
/// A timestamp that runs out is the signer's trouble: it is told, and the server still serves, so
/// that nobody takes it out of service for that.
pub(crate) fn health(app: &App) -> Response<Body> {
    let repositories = app.store.repositories();
    let fresh = app.fresh();
    let stale = fresh.iter().filter(|it| it.is_stale()).map(|it| {
        serde_json::json!({
            "repository": it.repository,
            "version": it.version,
            "expires": it.expires.to_string(),
            "expired": it.state == State::Expired,
            // Without --refresh-root, version and expiry are what somebody pushed.
            "verified": it.verified,
            "error": it.error,
        })
    });
    let stale: Vec<_> = stale.collect();
    let signs = app.signs();
    let refused = signs.iter().any(Signs::is_refused);
    reply::json(&serde_json::json!({
        "ok": true,
        "alarm": !stale.is_empty() || refused,
        "stale_timestamps": stale,
        "version": env!("CARGO_PKG_VERSION"),
        "repositories": repositories.len(),
        "tags": repositories.iter().map(|(_, tags)| tags).sum::<usize>(),
        "uploads": app.uploads.len(),
        "read_only": app.read_only,
        // Who takes a server with a key can hold nodes back: to be seen by whoever looks.
        "holds_online_keys": app.refresher.is_some(),
        "signs": *signs,
    }))
}

/// `/metrics`.
pub(crate) fn metrics(app: &App) -> Response<Body> {
    let number = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    app.metrics.uploads.set(number(app.uploads.len()));
    app.metrics.repositories.set(number(app.store.repositories().len()));
    let stored = app.store.usage().total().unwrap_or(0);
    app.metrics.stored.set(i64::try_from(stored).unwrap_or(i64::MAX));
    let mut response = reply::bytes(OPENMETRICS, app.metrics.text().into_bytes());
    let keep = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, keep);
    response
}
