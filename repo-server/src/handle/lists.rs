//! end-8 and end-12: tags and referrers; and the health of the server.

use std::sync::Arc;

use formats::digest::Digest;
use formats::oci::{Index, RepositoryName, Tag, media_type};
use http::{HeaderName, HeaderValue, Response, header};

use super::reply;
use super::{App, blocking};
use crate::body::Body;
use crate::error::{ApiError, Code};
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
pub(super) fn health(app: &App) -> Response<Body> {
    let repositories = app.store.repositories();
    reply::json(&serde_json::json!({
        "ok": true,
        "version": env!("CARGO_PKG_VERSION"),
        "repositories": repositories.len(),
        "tags": repositories.iter().map(|(_, tags)| tags).sum::<usize>(),
        "uploads": app.uploads.len(),
        "read_only": app.read_only,
    }))
}
