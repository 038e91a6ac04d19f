//! end-8 and end-12: tags and referrers; and the health of the server.

use std::sync::Arc;

use formats::digest::Digest;
use formats::oci::{Descriptor, Index, MANIFEST_LIMIT, RepositoryName, Tag, media_type};
use http::{HeaderName, HeaderValue, Response, header};

use super::reply;
use super::{App, blocking};
use crate::alarm::TimestampState;
use crate::body::Body;
use crate::error::{ApiError, Code};
use crate::fill::Fill;
use crate::metrics::OPENMETRICS;
use crate::refresh::RefreshStatus;
use crate::route::TAGS_PAGE;
use crate::store::facts::annotations;
use crate::store::{Store, StoreError};

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

/// 1,000 descriptors, or 1 MiB of annotations: more is on the next page.
const PAGE: usize = 1000;
const ANNOTATIONS: usize = 1 << 20;

/// What a client asks of the referrers of a manifest.
pub(super) struct ReferrersQuery {
    pub(super) name: RepositoryName,
    pub(super) subject: Digest,
    pub(super) artifact_type: Option<String>,
    /// Only those that sort after this digest.
    pub(super) last: Option<String>,
}

/// end-12: what is attached to a manifest, sorted by digest, with a `Link` to the next page. A
/// subject that is unknown has no referrers; that is not an error.
pub(super) async fn referrers(
    app: &Arc<App>,
    wanted: ReferrersQuery,
) -> Result<Response<Body>, ApiError> {
    let filter = wanted.artifact_type.clone();
    let (name, subject) = (wanted.name.clone(), wanted.subject.clone());
    // Manifests are read for it, which can be much to do for one request: a few at once.
    let _turn = app.listing.acquire().await.map_err(|_| ApiError::internal())?;
    let (page, more) = blocking(app, move |store| {
        store.refresh()?;
        store.relist_manifests(&wanted.name)?;
        referrers_page(store, &wanted)
    })
    .await?;
    let link = page.last().filter(|_| more).map(|last| {
        let filter = filter.as_deref().map(|it| format!("artifactType={}&", percent_encoded(it)));
        let filter = filter.unwrap_or_default();
        format!("</v2/{name}/referrers/{subject}?{filter}last={}>; rel=\"next\"", last.digest)
    });
    let mut response = reply::bytes(media_type::INDEX, Index::new(None, page).to_bytes());
    if let Some(link) = link {
        response.headers_mut().insert(header::LINK, reply::value(&link));
    }
    if filter.is_some() {
        let filter = HeaderValue::from_static("artifactType");
        response.headers_mut().insert(FILTERS_APPLIED, filter);
    }
    Ok(response)
}

/// One page, and whether there are more.
fn referrers_page(
    store: &Store,
    wanted: &ReferrersQuery,
) -> Result<(Vec<Descriptor>, bool), StoreError> {
    let ReferrersQuery { name, subject, artifact_type, last } = wanted;
    let all = store.with(name, |it| it.referrers(subject, artifact_type.as_deref()));
    let after = |(it, _): &(Descriptor, bool)| {
        last.as_deref().is_none_or(|last| it.digest.to_string().as_str() > last)
    };
    let mut rest = all.unwrap_or_default().into_iter().filter(after);
    let (mut page, mut bytes) = (Vec::new(), 0);
    while page.len() < PAGE && bytes < ANNOTATIONS {
        let Some((mut descriptor, annotated)) = rest.next() else { return Ok((page, false)) };
        if annotated && let Some(document) = store.document(&descriptor.digest)? {
            // One that would need more than a manifest may have in all is listed without.
            let most = usize::try_from(MANIFEST_LIMIT).unwrap_or(usize::MAX);
            descriptor.annotations = annotations(&document, most).unwrap_or_default();
            let texts = descriptor.annotations.iter().map(|(key, value)| key.len() + value.len());
            bytes += texts.sum::<usize>();
        }
        page.push(descriptor);
    }
    Ok((page, rest.next().is_some()))
}

/// What of a media type cannot stand in a query.
fn percent_encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/+!$".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// `/healthz`.
///
/// A timestamp that runs out, or a list that fills up, is the signer's trouble: it is told, and the server still serves, so
/// that no load balancer takes it out of service for that.
pub(crate) fn health(app: &App) -> Response<Body> {
    let repositories = app.store.repositories();
    let fresh = app.fresh();
    let stale = fresh.iter().filter(|it| it.is_stale()).map(|it| {
        serde_json::json!({
            "repository": it.repository,
            "version": it.version,
            "expires": it.expires.to_string(),
            "expired": it.state == TimestampState::Expired,
            // Without --refresh-root, version and expiry are what somebody pushed.
            "verified": it.verified,
            "error": it.error,
        })
    });
    let stale: Vec<_> = stale.collect();
    let (signs, fills) = (app.signs(), app.fills());
    let filling: Vec<&Fill> = fills.short().collect();
    let refused = signs.iter().any(RefreshStatus::is_refused);
    reply::json(&serde_json::json!({
        "ok": true,
        "alarm": !stale.is_empty() || refused || !filling.is_empty(),
        "stale_timestamps": stale,
        "filling": filling,
        "version": env!("CARGO_PKG_VERSION"),
        "repositories": repositories.len(),
        "tags": repositories.iter().map(|(_, tags)| tags).sum::<usize>(),
        "uploads": app.uploads.len(),
        "read_only": app.read_only,
        // An attacker who takes over a server with a key can hold nodes back, so it is shown.
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
