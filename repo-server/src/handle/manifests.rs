//! end-3, end-7 and end-9: manifests, byte for byte as they were pushed.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use formats::digest::Digest;
use formats::oci::{MANIFEST_LIMIT, RepositoryName, Tag};
use http::{HeaderName, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};

use super::reply::{self, CachePolicy};
use super::{App, RequestHead, blobs, blocking, uploads};
use crate::body::Body;
use crate::budget::Reservation;
use crate::error::{ApiError, Code};
use crate::progress::RequestOpen;
use crate::route::Reference;
use crate::store::catalog::Visible;
use crate::store::facts;
use crate::store::write::ManifestDestination;

const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
/// What a manifest is served as whose media type is none of a manifest.
const OPAQUE: &str = "application/octet-stream";

const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");

/// `GET` and `HEAD` of a manifest.
pub(super) async fn read(
    app: &Arc<App>,
    asked: &RequestHead,
    name: RepositoryName,
    reference: Reference,
) -> Result<Response<Body>, ApiError> {
    let keep = match &reference {
        Reference::Tag(_) => CachePolicy::Revalidate,
        Reference::Digest(_) => CachePolicy::Immutable,
    };
    let unknown = || {
        ApiError::missing(Code::ManifestUnknown, format_args!("{name} has no manifest {reference}"))
    };
    // A poll ends here when nothing changed: on this thread, and without reading the manifest.
    let found = match app.store.resolve_known(&name, &reference) {
        Some(found) => Some(found),
        None => {
            let (name, reference) = (name.clone(), reference.clone());
            blocking(app, move |store| store.resolve(&name, &reference)).await?
        }
    };
    let (digest, Visible { media_type, .. }) = found.ok_or_else(unknown)?;
    if reply::is_known(&asked.headers, &digest) {
        return Ok(reply::not_modified(&digest, keep, asked.private));
    }
    let source = blobs::source(app, &digest).await?.ok_or_else(unknown)?;
    let length = source.len();
    let mut response = Response::new(source.body(asked, 0, length)?);
    let headers = response.headers_mut();
    // The media type is that of `index.json` or of an index that lists this manifest.
    let media_type =
        if facts::is_manifest_type(&media_type) { media_type.as_str() } else { OPAQUE };
    headers.insert(header::CONTENT_TYPE, reply::value(media_type));
    reply::name_by(headers, &digest, keep, asked.private);
    Ok(response)
}

/// `PUT` of a manifest, with any further tags.
pub(super) async fn put(
    app: &Arc<App>,
    asked: &RequestHead,
    to: ManifestDestination,
    body: Incoming,
    open: &RequestOpen,
) -> Result<Response<Body>, ApiError> {
    let content_type = content_type(asked)?;
    let _permit = uploads::permit(app)?;
    let (bytes, room) = read_document(app, body, open).await?;
    let (name, tags) = (to.name.clone(), to.tags.clone());
    let (digest, facts) =
        blocking(app, move |store| store.put_manifest(&to, content_type.as_deref(), &bytes))
            .await?;
    drop(room);
    let mut response = reply::empty(StatusCode::CREATED);
    let headers = response.headers_mut();
    let location = format!("/v2/{name}/manifests/{digest}");
    headers.insert(header::LOCATION, reply::value(&location));
    headers.insert(reply::CONTENT_DIGEST, reply::value(&digest.to_string()));
    if let Some(subject) = &facts.subject {
        headers.insert(OCI_SUBJECT, reply::value(&subject.to_string()));
    }
    for tag in tags {
        headers.append(OCI_TAG, reply::value(tag.as_str()));
    }
    Ok(response)
}

/// The media type of the request, without parameters.
fn content_type(asked: &RequestHead) -> Result<Option<String>, ApiError> {
    let Some(value) = asked.headers.get(header::CONTENT_TYPE) else { return Ok(None) };
    let bad = || ApiError::bad(Code::ManifestInvalid, "Content-Type is not a media type");
    let text = value.to_str().map_err(|_| bad())?;
    let text = text.split_once(';').map_or(text, |(before, _)| before).trim();
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+/".contains(&byte);
    if !text.is_empty() && text.len() <= 255 && text.bytes().all(good) {
        Ok(Some(text.to_owned()))
    } else {
        Err(bad())
    }
}

/// All of a document, and the room that it takes up.
async fn read_document(
    app: &App,
    mut body: Incoming,
    open: &RequestOpen,
) -> Result<(Bytes, Option<Reservation>), ApiError> {
    let too_large = || {
        let text = format!("the manifest exceeds the limit of {MANIFEST_LIMIT} bytes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, Code::SizeInvalid, text)
    };
    if body.size_hint().lower() > MANIFEST_LIMIT {
        return Err(too_large());
    }
    let moving = open.progress().body();
    let (mut bytes, mut room) = (BytesMut::new(), None::<Reservation>);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| uploads::cut_off())?;
        moving.moved();
        let Ok(data) = frame.into_data() else { continue };
        let more = app.budget.receive(data.len());
        let more =
            more.ok_or_else(|| uploads::too_many("too many manifests are being received"))?;
        match &mut room {
            Some(room) => room.merge(more),
            None => room = Some(more),
        }
        bytes.extend_from_slice(&data);
        if bytes.len() as u64 > MANIFEST_LIMIT {
            return Err(too_large());
        }
    }
    open.progress().set_unread_body(false);
    Ok((bytes.freeze(), room))
}

/// `DELETE` of a tag.
pub(super) async fn delete_tag(
    app: &Arc<App>,
    name: RepositoryName,
    tag: Tag,
) -> Result<Response<Body>, ApiError> {
    let text = format!("{name} has no tag {tag}");
    let deleted = blocking(app, move |store| store.delete_tag(&name, &tag)).await?;
    accepted(deleted, text)
}

/// `DELETE` of a manifest.
pub(super) async fn delete(
    app: &Arc<App>,
    name: RepositoryName,
    digest: Digest,
) -> Result<Response<Body>, ApiError> {
    let text = format!("{name} has no manifest {digest}");
    let deleted = blocking(app, move |store| store.delete_manifest(&name, &digest)).await?;
    accepted(deleted, text)
}

fn accepted(deleted: bool, text: String) -> Result<Response<Body>, ApiError> {
    if deleted {
        Ok(reply::empty(StatusCode::ACCEPTED))
    } else {
        Err(ApiError::missing(Code::ManifestUnknown, text))
    }
}
