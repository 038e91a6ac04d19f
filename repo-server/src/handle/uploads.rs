//! end-4, 5, 6, 11, 13, 14: uploads, whole, in pieces or by mounting.
//!
//! A session is bytes that the storage keeps and that are hashed as they come. It becomes a blob
//! when it is finished with the digest it has, and is deleted when that fails, when it is
//! cancelled and when it is idle for [`Limits::session_expiry`](crate::config::Limits). Long
//! before that, after [`Limits::upload_rest`](crate::config::Limits), nothing of it is open any
//! more: no descriptor, no buffer. A
//! server that ends, whichever way, leaves it: the client asks the next one how much is there
//! (end-13) and goes on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use formats::digest::{Algorithm, Digest};
use formats::error_chain;
use formats::oci::RepositoryName;
use http::{HeaderName, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit};

use super::{App, RequestHead, blocking, reply};
use crate::body::Body;
use crate::error::{ApiError, Code};
use crate::lock::LockMutex as _;
use crate::progress::RequestOpen;
use crate::route::SessionId;
use crate::store::backend::{Upload, UploadKey};
use crate::store::quota::Charge;
use crate::store::{Store, StoreError};

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
    key: UploadKey,
    /// Held by the one request that writes.
    content: Arc<tokio::sync::Mutex<Content>>,
    stored: AtomicU64,
    touched: Mutex<Instant>,
}

#[derive(Debug)]
enum Content {
    /// Begun by an earlier server or another one, or idle: nothing is open.
    Closed(Charge),
    /// Being written.
    Open(OpenUpload),
    /// Finished or deleted.
    Gone,
}

/// Bytes and their place in the quotas.
#[derive(Debug)]
struct OpenUpload {
    upload: Box<dyn Upload>,
    charge: Charge,
}

impl Session {
    fn new(key: UploadKey, content: Content, stored: u64, idle: Duration) -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Session {
            key,
            content: Arc::new(tokio::sync::Mutex::new(content)),
            stored: AtomicU64::new(stored),
            touched: Mutex::new(now.checked_sub(idle).unwrap_or(now)),
        })
    }

    fn location(&self) -> String {
        format!("/v2/{}/blobs/uploads/{}", self.key.name, self.key.id)
    }

    fn touch(&self) {
        *self.touched.locked() = Instant::now();
    }

    fn stored(&self) -> u64 {
        self.stored.load(Ordering::Relaxed)
    }

    /// The right to write, which one request at a time has.
    fn lock(&self) -> Result<Writing, ApiError> {
        let busy = || {
            let text = "another request is writing to this upload";
            ApiError::new(StatusCode::CONFLICT, Code::BlobUploadInvalid, text)
        };
        let guard = Arc::clone(&self.content).try_lock_owned().map_err(|_| busy())?;
        if matches!(*guard, Content::Gone) { Err(unknown()) } else { Ok(guard) }
    }
}

type Writing = OwnedMutexGuard<Content>;

/// Opens an upload that is closed; `None` when somebody else deleted it. Blocks.
fn open<'a>(
    store: &Store,
    session: &Session,
    content: &'a mut Content,
) -> Result<Option<&'a mut OpenUpload>, StoreError> {
    if let Content::Closed(charge) = content {
        let Some(upload) = store.resume_upload(&session.key)? else {
            *content = Content::Gone;
            return Ok(None);
        };
        let charge = std::mem::replace(charge, store.usage().charge(&session.key.name, 0));
        session.stored.store(upload.stored(), Ordering::Relaxed);
        *content = Content::Open(OpenUpload { upload, charge });
    }
    match content {
        Content::Open(growing) => Ok(Some(growing)),
        _ => Ok(None),
    }
}

/// Takes the bytes out of a session, which is over then. Blocks.
fn take(
    store: &Store,
    session: &Session,
    content: &mut Content,
) -> Result<Option<OpenUpload>, StoreError> {
    open(store, session, content)?;
    match std::mem::replace(content, Content::Gone) {
        Content::Open(growing) => Ok(Some(growing)),
        _ => Ok(None),
    }
}

fn unknown() -> ApiError {
    ApiError::missing(Code::BlobUploadUnknown, "no such upload session; it may have expired")
}

/// The body ended before its announced end.
pub(super) fn cut_off() -> ApiError {
    ApiError::bad(Code::BlobUploadInvalid, "the request body ended early")
}

impl Uploads {
    /// The sessions that servers before this one left. Blocks.
    pub(crate) fn new(store: &Store, most: usize) -> Result<Self, StoreError> {
        let now = SystemTime::now();
        if store.is_shared() {
            // They may be another server's; they are looked up when a client asks for one.
            return Ok(Uploads { sessions: Mutex::default(), most });
        }
        let left = store.uploads()?.into_iter().map(|(key, stored, grown)| {
            let idle = now.duration_since(grown).unwrap_or_default();
            let charge = store.usage().charge(&key.name, stored);
            (key.id.clone(), Session::new(key, Content::Closed(charge), stored, idle))
        });
        Ok(Uploads { sessions: Mutex::new(left.collect()), most })
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.sessions.locked().len()
    }

    fn find(&self, name: &RepositoryName, id: &SessionId) -> Option<Arc<Session>> {
        let sessions = self.sessions.locked();
        let session = sessions.get(id).filter(|session| session.key.name == *name)?;
        session.touch();
        Some(Arc::clone(session))
    }

    fn insert(&self, session: &Arc<Session>) -> Result<(), ApiError> {
        let mut sessions = self.sessions.locked();
        if sessions.len() >= self.most {
            return Err(too_many("too many uploads are open"));
        }
        sessions.insert(session.key.id.clone(), Arc::clone(session));
        Ok(())
    }

    fn has_room(&self) -> Result<(), ApiError> {
        let sessions = self.sessions.locked();
        if sessions.len() < self.most { Ok(()) } else { Err(too_many("too many uploads are open")) }
    }

    fn remove(&self, id: &SessionId) {
        self.sessions.locked().remove(id);
    }

    /// Deletes sessions that have been idle for `expiry`; how many. Blocks.
    pub(crate) fn expire(&self, store: &Store, expiry: Duration) -> usize {
        let old: Vec<_> = {
            let mut sessions = self.sessions.locked();
            let stale = |session: &Session| {
                let touched = *session.touched.locked();
                touched.elapsed() > expiry && session.content.try_lock().is_ok()
            };
            sessions.extract_if(|_, session| stale(session)).map(|(_, session)| session).collect()
        };
        for session in &old {
            // A request that got hold of it meanwhile finds it gone, or keeps it until that request ends.
            let Ok(mut content) = session.content.try_lock() else { continue };
            if let Err(error) = abandon(store, session, &mut content) {
                tracing::warn!(error = %error_chain(&error), "expired upload not deleted; retried at the next start");
            }
        }
        if store.is_shared() {
            self.expire_others(store, expiry).unwrap_or_else(|error| {
                tracing::warn!(error = %error_chain(&error), "could not list the uploads of other servers");
            });
        }
        old.len()
    }

    /// Closes sessions that have been idle for `rest`; how many. The bytes stay, and the client can go
    /// on. Blocks.
    pub(crate) fn rest(&self, store: &Store, rest: Duration) -> usize {
        let sessions: Vec<_> = {
            let sessions = self.sessions.locked();
            sessions.values().cloned().collect()
        };
        let mut closed = 0;
        for session in sessions {
            let touched = *session.touched.locked();
            if touched.elapsed() <= rest {
                continue;
            }
            // A request that writes to it holds the lock.
            let Ok(mut content) = session.content.try_lock() else { continue };
            if !matches!(*content, Content::Open(_)) {
                continue;
            }
            let without_upload = Content::Closed(store.usage().charge(&session.key.name, 0));
            if let Content::Open(OpenUpload { upload, charge }) =
                std::mem::replace(&mut *content, without_upload)
            {
                drop(upload);
                *content = Content::Closed(charge);
                closed += 1;
            }
        }
        closed
    }

    /// Throws away what servers that are no more left in a storage that is shared.
    fn expire_others(&self, store: &Store, expiry: Duration) -> Result<(), StoreError> {
        let now = SystemTime::now();
        for (key, _, grown) in store.uploads()? {
            let here = {
                let sessions = self.sessions.locked();
                sessions.contains_key(&key.id)
            };
            if !here
                && now.duration_since(grown).is_ok_and(|age| age > expiry)
                && let Some(upload) = store.resume_upload(&key)?
            {
                upload.abandon()?;
            }
        }
        Ok(())
    }
}

/// The session of that id in that repository, also when another server began it or went on with it.
pub(super) async fn find(
    app: &Arc<App>,
    name: &RepositoryName,
    id: &SessionId,
) -> Result<Arc<Session>, ApiError> {
    let known = app.uploads.find(name, id);
    if !app.store.is_shared() {
        return known.ok_or_else(unknown);
    }
    if let Some(session) = known {
        let Ok(mut writing) = session.lock() else { return Ok(session) };
        let looked = Arc::clone(&session);
        let there = blocking(app, move |store| {
            if let Content::Open(growing) = &mut *writing
                && !growing.upload.is_current()?
            {
                *writing = Content::Closed(store.usage().charge(&looked.key.name, 0));
            }
            Ok(open(store, &looked, &mut writing)?.is_some())
        });
        if there.await? {
            return Ok(session);
        }
        app.uploads.remove(id);
        return Err(unknown());
    }
    let (name, id) = (name.clone(), id.clone());
    let resumed = blocking(app, move |store| {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let key = UploadKey { name: name.clone(), id: id.clone(), algorithm };
            if let Some(upload) = store.resume_upload(&key)? {
                let stored = upload.stored();
                let charge = store.usage().charge(&key.name, stored);
                let content = Content::Open(OpenUpload { upload, charge });
                return Ok(Some(Session::new(key, content, stored, Duration::ZERO)));
            }
        }
        Ok(None)
    });
    let session = resumed.await?.ok_or_else(unknown)?;
    app.uploads.insert(&session)?;
    Ok(session)
}

/// Throws it away, unless another server goes on with it.
fn abandon(store: &Store, session: &Session, content: &mut Content) -> Result<(), StoreError> {
    if let Content::Open(growing) = content
        && !growing.upload.is_current()?
    {
        *content = Content::Gone;
        return Ok(());
    }
    discard_content(store, session, content)
}

fn discard_content(
    store: &Store,
    session: &Session,
    content: &mut Content,
) -> Result<(), StoreError> {
    match take(store, session, content)? {
        Some(OpenUpload { upload, .. }) => upload.abandon(),
        None => Ok(()),
    }
}

pub(super) fn too_many(text: &str) -> ApiError {
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

/// Ends a session and throws its bytes away.
async fn discard(
    app: &Arc<App>,
    session: &Arc<Session>,
    mut writing: Writing,
) -> Result<(), ApiError> {
    app.uploads.remove(&session.key.id);
    let session = Arc::clone(session);
    blocking(app, move |store| discard_content(store, &session, &mut writing)).await
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

/// What follows a body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AfterBody {
    /// The upload goes on with another request.
    KeepOpen,
    /// All of it is there.
    Finish,
}

/// Writes a body to the end of the session.
async fn receive(
    app: &Arc<App>,
    asked: &RequestHead,
    session: &Arc<Session>,
    mut writing: Writing,
    mut body: Incoming,
    open: &RequestOpen,
    then: AfterBody,
) -> Result<Writing, ApiError> {
    if body.is_end_stream() {
        return Ok(writing);
    }
    let _permit = permit(app)?;
    let announced = expect_in_order(asked, session)?;
    if let (Some(announced), Some(exact)) = (announced, body.size_hint().exact())
        && announced != exact
    {
        // Before a byte of it is written.
        return Err(other_length(announced, exact));
    }
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
        if frame.is_none() {
            open.progress().set_unread_body(false);
        }
        if let Some(Ok(frame)) = frame
            && let Ok(data) = frame.into_data()
        {
            waiting += data.len();
            total += data.len() as u64;
            batch.push(data);
        }
        let over = total > most;
        if (waiting >= BATCH || ended) && !over {
            let pause = ended && (broken || then == AfterBody::KeepOpen);
            writing = write(app, session, writing, std::mem::take(&mut batch), pause).await?;
            waiting = 0;
        }
        match (over, broken, ended) {
            (true, _, _) => {
                discard(app, session, writing).await?;
                return Err(too_large(app));
            }
            (_, true, _) => return Err(cut_off()),
            (_, _, true) => break,
            _ => {}
        }
    }
    match announced {
        Some(announced) if announced != total => {
            // A body without a length: what came cannot be told from what was meant.
            discard(app, session, writing).await?;
            Err(other_length(announced, total))
        }
        _ => Ok(writing),
    }
}

async fn write(
    app: &Arc<App>,
    session: &Arc<Session>,
    mut writing: Writing,
    batch: Vec<Bytes>,
    pause: bool,
) -> Result<Writing, ApiError> {
    let session = Arc::clone(session);
    let written = blocking(app, move |store| {
        let Some(growing) = open(store, &session, &mut writing)? else { return Ok(None) };
        let OpenUpload { upload, charge } = growing;
        let written = batch.iter().try_for_each(|piece| {
            charge.grow(piece.len() as u64)?;
            upload.write(piece)
        });
        let paused = if pause { upload.pause() } else { Ok(()) };
        session.stored.store(upload.stored(), Ordering::Relaxed);
        written.and(paused)?;
        session.touch();
        Ok(Some(writing))
    });
    written.await?.ok_or_else(unknown)
}

fn other_length(announced: u64, comes: u64) -> ApiError {
    let text = format!("Content-Range announces {announced} bytes, but the body has {comes}");
    ApiError::bad(Code::SizeInvalid, text)
}

fn too_large(app: &App) -> ApiError {
    let text = format!("the blob exceeds the limit of {} bytes", app.limits.blob_bytes);
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, Code::SizeInvalid, text)
}

/// Checks `Content-Range: <first>-<last>` against what is there; gives the announced length.
fn expect_in_order(asked: &RequestHead, session: &Session) -> Result<Option<u64>, ApiError> {
    let Some(value) = asked.headers.get(header::CONTENT_RANGE) else { return Ok(None) };
    let bad = || ApiError::bad(Code::BlobUploadInvalid, "expected Content-Range: <first>-<last>");
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
