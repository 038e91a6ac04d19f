//! end-4, 5, 6, 11, 13, 14: uploads, whole, in pieces or by mounting.
//!
//! A session is bytes that the storage keeps and that are hashed as they come. It becomes a blob
//! when it is finished with the digest it has, and is deleted when that fails, when it is
//! cancelled and when it is idle for [`Limits::session_expiry`](crate::config::Limits). Long
//! before that, after [`Limits::upload_rest`](crate::config::Limits), nothing of it is open any
//! more: no descriptor, no buffer. A
//! server that ends, whichever way, leaves it: the client asks the next one how much is there
//! (end-13) and goes on.

mod open_sessions;
mod receive;
mod session;

use std::sync::Arc;
use std::time::Duration;

use formats::digest::{Algorithm, Digest};
use formats::oci::RepositoryName;
use http::{HeaderName, Response, StatusCode, header};
use hyper::body::{Body as _, Incoming};

use self::open_sessions::discard;
use self::receive::{AfterBody, receive, too_large, write};
use self::session::{Content, OpenUpload, Session, take, unknown};
use super::{App, RequestHead, blocking, reply};
use crate::body::Body;
use crate::error::ApiError;
use crate::progress::RequestOpen;
use crate::route::SessionId;
use crate::store::backend::UploadKey;

pub(crate) use self::open_sessions::Uploads;
pub(super) use self::open_sessions::find;
pub(super) use self::receive::{cut_off, permit};
pub(super) use self::session::too_many;

const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// end-4a, 4c: opens a session.
pub(super) async fn start(
    app: &Arc<App>,
    name: RepositoryName,
    algorithm: Algorithm,
) -> Result<Response<Body>, ApiError> {
    let session = begin(app, name, algorithm).await?;
    // Another server may get the next request.
    write(app, &session, session.lock()?, Vec::new(), true).await?;
    Ok(progress(&session, StatusCode::ACCEPTED))
}

async fn begin(
    app: &Arc<App>,
    name: RepositoryName,
    algorithm: Algorithm,
) -> Result<Arc<Session>, ApiError> {
    app.uploads.has_room()?;
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|_| ApiError::internal())?;
    let key = UploadKey { name, id: SessionId::from_random(random), algorithm };
    let session = blocking(app, move |store| {
        let charge = store.usage().charge(&key.name, 0);
        let upload = store.new_upload(&key)?;
        Ok(Session::new(key, Content::Open(OpenUpload { upload, charge }), 0, Duration::ZERO))
    })
    .await?;
    if let Err(full) = app.uploads.insert(&session) {
        discard(app, &session, session.lock()?).await?;
        return Err(full);
    }
    Ok(session)
}

/// end-11: makes a blob of another repository visible, or opens a session as if not asked to.
pub(super) async fn mount(
    app: &Arc<App>,
    name: RepositoryName,
    digest: Digest,
    from: Option<RepositoryName>,
) -> Result<Response<Body>, ApiError> {
    let (to, wanted) = (name.clone(), digest.clone());
    let mounted = blocking(app, move |store| store.mount_blob(&to, from.as_ref(), &wanted)).await?;
    if mounted { Ok(created(&name, &digest)) } else { start(app, name, digest.algorithm()).await }
}

/// end-4b: the whole blob in one request. The client does not know the session's name, so it
/// cannot go on with it: what does not become a blob is deleted.
pub(super) async fn whole(
    app: &Arc<App>,
    asked: &RequestHead,
    name: RepositoryName,
    digest: Digest,
    body: Incoming,
    open: &RequestOpen,
) -> Result<Response<Body>, ApiError> {
    // What can be refused is refused before anything is made for it.
    if body.size_hint().lower() > app.limits.blob_bytes {
        return Err(too_large(app));
    }
    drop(permit(app)?);
    let announced = body.size_hint().lower();
    let room = name.clone();
    blocking(app, move |store| store.usage().expect_room(&room, announced)).await?;
    let session = begin(app, name, digest.algorithm()).await?;
    let done = finish(app, asked, Arc::clone(&session), digest, body, open).await;
    if done.is_err()
        && let Ok(writing) = session.lock()
    {
        discard(app, &session, writing).await?;
    }
    done
}

/// end-5: more bytes, in order. What arrived before a connection broke stays: the client asks how
/// much that is (end-13) and goes on from there.
pub(super) async fn append(
    app: &Arc<App>,
    asked: &RequestHead,
    session: Arc<Session>,
    body: Incoming,
    open: &RequestOpen,
) -> Result<Response<Body>, ApiError> {
    let writing = session.lock()?;
    receive(app, asked, &session, writing, body, open, AfterBody::KeepOpen).await?;
    Ok(progress(&session, StatusCode::ACCEPTED))
}

/// end-6: the last bytes, if any; then the blob is there, or the session is gone.
pub(super) async fn finish(
    app: &Arc<App>,
    asked: &RequestHead,
    session: Arc<Session>,
    digest: Digest,
    body: Incoming,
    open: &RequestOpen,
) -> Result<Response<Body>, ApiError> {
    let writing = session.lock()?;
    let mut writing = receive(app, asked, &session, writing, body, open, AfterBody::Finish).await?;
    app.uploads.remove(&session.key.id);
    let (ending, wanted) = (Arc::clone(&session), digest.clone());
    let there = blocking(app, move |store| {
        let Some(grown) = take(store, &ending, &mut writing)? else { return Ok(false) };
        store.commit_blob(&ending.key.name, grown.upload, &wanted)?;
        Ok(true)
    });
    if there.await? { Ok(created(&session.key.name, &digest)) } else { Err(unknown()) }
}

/// end-13: how many bytes are there.
pub(super) fn status(session: &Session) -> Response<Body> {
    progress(session, StatusCode::NO_CONTENT)
}

/// end-14: throws the session away.
pub(super) async fn cancel(
    app: &Arc<App>,
    session: Arc<Session>,
) -> Result<Response<Body>, ApiError> {
    let writing = session.lock()?;
    discard(app, &session, writing).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

fn progress(session: &Session, status: StatusCode) -> Response<Body> {
    let mut response = reply::empty(status);
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, reply::value(&session.location()));
    headers.insert(header::RANGE, reply::value(&reply::received(session.stored())));
    headers.insert(UPLOAD_UUID, reply::value(session.key.id.as_str()));
    response
}

fn created(name: &RepositoryName, digest: &Digest) -> Response<Body> {
    let mut response = reply::empty(StatusCode::CREATED);
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, reply::value(&format!("/v2/{name}/blobs/{digest}")));
    headers.insert(reply::CONTENT_DIGEST, reply::value(&digest.to_string()));
    response
}
