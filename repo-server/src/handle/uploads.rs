//! end-4, 5, 6, 11, 13, 14: uploads, whole, in pieces or by mounting.
//!
//! A session is a temporary file that is hashed as it grows. It becomes a blob when it is finished
//! with the digest it has, and is thrown away when that fails, when it is cancelled, when nobody
//! touches it for [`Limits::session_expiry`](crate::config::Limits) and when the server ends.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use formats::digest::{Algorithm, Digest};
use formats::oci::RepositoryName;
use http::{HeaderName, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use storage::layout::BlobWriter;
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit};

use super::{App, Asked, blocking, reply};
use crate::body::Body;
use crate::error::{ApiError, Code};
use crate::progress::RequestOpen;
use crate::route::SessionId;
use crate::store::StoreError;

/// 256 KiB: written at once, so that disk work is not done per network packet.
const BATCH: usize = 256 << 10;

const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// The open sessions.
#[derive(Debug)]
pub(crate) struct Uploads {
    sessions: Mutex<HashMap<SessionId, Arc<Session>>>,
    most: usize,
}

/// One upload under way.
#[derive(Debug)]
pub(super) struct Session {
    id: SessionId,
    name: RepositoryName,
    /// Held by the one request that writes; `None` once it is finished or thrown away.
    writer: Arc<tokio::sync::Mutex<Option<BlobWriter>>>,
    stored: AtomicU64,
    touched: Mutex<Instant>,
}

impl Session {
    fn location(&self) -> String {
        format!("/v2/{}/blobs/uploads/{}", self.name, self.id)
    }

    fn touch(&self) {
        *self.touched.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn stored(&self) -> u64 {
        self.stored.load(Ordering::Relaxed)
    }

    /// The right to write, which one request at a time has.
    fn lock(&self) -> Result<Writing, ApiError> {
        let busy = || {
            let text = "another request writes to this upload";
            ApiError::new(StatusCode::CONFLICT, Code::BlobUploadInvalid, text)
        };
        let guard = Arc::clone(&self.writer).try_lock_owned().map_err(|_| busy())?;
        if guard.is_none() { Err(unknown()) } else { Ok(guard) }
    }
}

type Writing = OwnedMutexGuard<Option<BlobWriter>>;

fn unknown() -> ApiError {
    ApiError::missing(Code::BlobUploadUnknown, "there is no such upload; it may have expired")
}

/// The body ended before its announced end.
pub(super) fn cut_off() -> ApiError {
    ApiError::bad(Code::BlobUploadInvalid, "the body ended early")
}

impl Uploads {
    pub(crate) fn new(most: usize) -> Self {
        Uploads { sessions: Mutex::new(HashMap::new()), most }
    }

    /// The session of that id in that repository.
    pub(super) fn find(
        &self,
        name: &RepositoryName,
        id: &SessionId,
    ) -> Result<Arc<Session>, ApiError> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let session = sessions.get(id).filter(|session| session.name == *name);
        let session = Arc::clone(session.ok_or_else(unknown)?);
        session.touch();
        Ok(session)
    }

    fn insert(&self, name: RepositoryName, writer: BlobWriter) -> Result<Arc<Session>, ApiError> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|_| ApiError::internal())?;
        let id = SessionId::from_random(random);
        let session = Arc::new(Session {
            id: id.clone(),
            name,
            writer: Arc::new(tokio::sync::Mutex::new(Some(writer))),
            stored: AtomicU64::new(0),
            touched: Mutex::new(Instant::now()),
        });
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.len() >= self.most {
            return Err(too_many("too many uploads are open"));
        }
        sessions.insert(id, Arc::clone(&session));
        Ok(session)
    }

    fn has_room(&self) -> Result<(), ApiError> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.len() < self.most { Ok(()) } else { Err(too_many("too many uploads are open")) }
    }

    fn remove(&self, id: &SessionId) {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// Throws away sessions that nobody touched for `expiry`; how many. Blocks.
    pub(crate) fn expire(&self, expiry: Duration) -> usize {
        let old: Vec<_> = {
            let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
            let stale = |session: &Session| {
                let touched = *session.touched.lock().unwrap_or_else(PoisonError::into_inner);
                touched.elapsed() > expiry && session.writer.try_lock().is_ok()
            };
            sessions.extract_if(|_, session| stale(session)).collect()
        };
        // Dropping the writers removes their files; that happens without the lock.
        old.len()
    }
}

fn too_many(text: &str) -> ApiError {
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, Code::TooManyRequests, text)
}

/// The right to send a body: only so many at once.
pub(super) fn permit(app: &App) -> Result<OwnedSemaphorePermit, ApiError> {
    let permit = Arc::clone(&app.receiving).try_acquire_owned();
    permit.map_err(|_| too_many("too many uploads are being received"))
}

/// end-4a, 4c: opens a session.
pub(super) async fn start(
    app: &Arc<App>,
    name: RepositoryName,
    algorithm: Algorithm,
) -> Result<Response<Body>, ApiError> {
    app.uploads.has_room()?;
    let writer = blocking(app, move |store| store.new_blob(algorithm)).await?;
    let session = app.uploads.insert(name, writer)?;
    Ok(progress(&session, StatusCode::ACCEPTED))
}

/// end-11: makes a blob of another repository visible, or opens a session as if not asked to.
pub(super) async fn mount(
    app: &Arc<App>,
    name: RepositoryName,
    digest: Digest,
    from: Option<RepositoryName>,
) -> Result<Response<Body>, ApiError> {
    let (to, wanted) = (name.clone(), digest.clone());
    let mounted = blocking(app, move |store| {
        let there = match from {
            Some(from) => store.shows_blob(&from, &wanted)?,
            None => store.anywhere(&wanted),
        };
        if !there || store.open_blob(&wanted)?.is_none() {
            return Ok(false);
        }
        store.show_blob(&to, &wanted)?;
        Ok(true)
    })
    .await?;
    if mounted { Ok(created(&name, &digest)) } else { start(app, name, digest.algorithm()).await }
}

/// end-4b: the whole blob in one request.
pub(super) async fn whole(
    app: &Arc<App>,
    asked: &Asked,
    name: RepositoryName,
    digest: Digest,
    body: Incoming,
    open: &RequestOpen,
) -> Result<Response<Body>, ApiError> {
    app.uploads.has_room()?;
    let algorithm = digest.algorithm();
    let writer = blocking(app, move |store| store.new_blob(algorithm)).await?;
    let session = app.uploads.insert(name, writer)?;
    let done = finish(app, asked, Arc::clone(&session), digest, body, open).await;
    app.uploads.remove(&session.id);
    done
}

/// end-5: more bytes, in order. What arrived before a connection broke stays: the client asks how
/// much that is (end-13) and goes on from there.
pub(super) async fn append(
    app: &Arc<App>,
    asked: &Asked,
    session: Arc<Session>,
    body: Incoming,
    open: &RequestOpen,
) -> Result<Response<Body>, ApiError> {
    let writing = session.lock()?;
    receive(app, asked, &session, writing, body, open).await?;
    Ok(progress(&session, StatusCode::ACCEPTED))
}

/// end-6: the last bytes, if any; then the blob is there, or the session is gone.
pub(super) async fn finish(
    app: &Arc<App>,
    asked: &Asked,
    session: Arc<Session>,
    digest: Digest,
    body: Incoming,
    open: &RequestOpen,
) -> Result<Response<Body>, ApiError> {
    let writing = session.lock()?;
    let mut writing = receive(app, asked, &session, writing, body, open).await?;
    let writer = writing.take().ok_or_else(unknown)?;
    app.uploads.remove(&session.id);
    let (name, wanted) = (session.name.clone(), digest.clone());
    blocking(app, move |store| store.commit_blob(&name, writer, &wanted)).await?;
    Ok(created(&session.name, &digest))
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
    let mut writing = session.lock()?;
    let writer = writing.take();
    app.uploads.remove(&session.id);
    blocking(app, move |_| {
        drop(writer);
        Ok(())
    })
    .await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

fn progress(session: &Session, status: StatusCode) -> Response<Body> {
    let mut response = reply::empty(status);
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, reply::value(&session.location()));
    headers.insert(header::RANGE, reply::value(&reply::received(session.stored())));
    headers.insert(UPLOAD_UUID, reply::value(session.id.as_str()));
    response
}

fn created(name: &RepositoryName, digest: &Digest) -> Response<Body> {
    let mut response = reply::empty(StatusCode::CREATED);
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, reply::value(&format!("/v2/{name}/blobs/{digest}")));
    headers.insert(reply::CONTENT_DIGEST, reply::value(&digest.to_string()));
    response
}

/// Writes a body to the end of the session.
async fn receive(
    app: &Arc<App>,
    asked: &Asked,
    session: &Arc<Session>,
    mut writing: Writing,
    mut body: Incoming,
    open: &RequestOpen,
) -> Result<Writing, ApiError> {
    if body.is_end_stream() {
        return Ok(writing);
    }
    let _permit = permit(app)?;
    let announced = expect_in_order(asked, session)?;
    let most = app.limits.blob_bytes.saturating_sub(session.stored());
    if body.size_hint().lower() > most {
        return Err(too_large(app));
    }
    let moving = open.progress().body();
    let (mut batch, mut waiting, mut total) = (Vec::new(), 0, 0_u64);
    loop {
        let frame = body.frame().await;
        moving.moved();
        let ended = !matches!(frame, Some(Ok(_)));
        let broken = matches!(frame, Some(Err(_)));
        if let Some(Ok(frame)) = frame
            && let Ok(data) = frame.into_data()
        {
            waiting += data.len();
            total += data.len() as u64;
            batch.push(data);
        }
        let over = total > most;
        if (waiting >= BATCH || ended) && !over {
            writing = write(app, session, writing, std::mem::take(&mut batch)).await?;
            waiting = 0;
        }
        match (over, broken, ended) {
            (true, _, _) => {
                writing.take();
                app.uploads.remove(&session.id);
                return Err(too_large(app));
            }
            (_, true, _) => return Err(cut_off()),
            (_, _, true) => break,
            _ => {}
        }
    }
    match announced {
        Some(announced) if announced != total => {
            let text = format!("Content-Range announces {announced} bytes, {total} came");
            Err(ApiError::bad(Code::SizeInvalid, text))
        }
        _ => Ok(writing),
    }
}

async fn write(
    app: &Arc<App>,
    session: &Arc<Session>,
    mut writing: Writing,
    batch: Vec<Bytes>,
) -> Result<Writing, ApiError> {
    let session = Arc::clone(session);
    blocking(app, move |_| {
        if let Some(writer) = writing.as_mut() {
            for piece in &batch {
                writer.write_all(piece).map_err(StoreError::Blob)?;
            }
            session.stored.store(writer.len(), Ordering::Relaxed);
        }
        session.touch();
        Ok(writing)
    })
    .await
}

fn too_large(app: &App) -> ApiError {
    let text = format!("a blob has at most {} bytes here", app.limits.blob_bytes);
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, Code::SizeInvalid, text)
}

/// Checks `Content-Range: <first>-<last>` against what is there; gives the announced length.
fn expect_in_order(asked: &Asked, session: &Session) -> Result<Option<u64>, ApiError> {
    let Some(value) = asked.headers.get(header::CONTENT_RANGE) else { return Ok(None) };
    let bad = || ApiError::bad(Code::BlobUploadInvalid, "Content-Range reads <first>-<last>");
    let range = value.to_str().ok().and_then(chunk).ok_or_else(bad)?;
    let stored = session.stored();
    if range.0 != stored {
        let text = format!("the next byte of this upload is {stored}");
        let error = ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, Code::BlobUploadInvalid, text);
        return Err(ApiError { upload: Some((session.location(), stored)), ..error });
    }
    Ok(Some(range.1.saturating_sub(range.0).saturating_add(1)))
}

/// `0-99`, and `bytes 0-99/*` as some clients write it.
fn chunk(text: &str) -> Option<(u64, u64)> {
    let text = text.trim().trim_start_matches("bytes ");
    let text = text.split_once('/').map_or(text, |(range, _)| range);
    let (first, last) = text.split_once('-')?;
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u64>().ok()).flatten()
    };
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}
