//! One upload under way: its bytes, its place in the quotas, and who may write.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::sync::OwnedMutexGuard;

use crate::error::{ApiError, Code};
use crate::lock::LockMutex as _;
use crate::store::backend::{Upload, UploadKey};
use crate::store::quota::Charge;
use crate::store::{Store, StoreError};

/// One upload under way.
#[derive(Debug)]
pub(in crate::handle) struct Session {
    pub(super) key: UploadKey,
    /// Held by the one request that writes.
    pub(super) content: Arc<tokio::sync::Mutex<Content>>,
    pub(super) stored: AtomicU64,
    pub(super) touched: Mutex<Instant>,
}

#[derive(Debug)]
pub(super) enum Content {
    /// Begun by an earlier server or another one, or idle: nothing is open.
    Closed(Charge),
    /// Being written.
    Open(OpenUpload),
    /// Finished or deleted.
    Gone,
}

/// Bytes and their place in the quotas.
#[derive(Debug)]
pub(super) struct OpenUpload {
    pub(super) upload: Box<dyn Upload>,
    pub(super) charge: Charge,
}

impl Session {
    pub(super) fn new(key: UploadKey, content: Content, stored: u64, idle: Duration) -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Session {
            key,
            content: Arc::new(tokio::sync::Mutex::new(content)),
            stored: AtomicU64::new(stored),
            touched: Mutex::new(now.checked_sub(idle).unwrap_or(now)),
        })
    }

    pub(super) fn location(&self) -> String {
        format!("/v2/{}/blobs/uploads/{}", self.key.name, self.key.id)
    }

    pub(super) fn touch(&self) {
        *self.touched.locked() = Instant::now();
    }

    pub(super) fn stored(&self) -> u64 {
        self.stored.load(Ordering::Relaxed)
    }

    /// The right to write, which one request at a time has.
    pub(super) fn lock(&self) -> Result<Writing, ApiError> {
        let busy = || {
            let text = "another request is writing to this upload";
            ApiError::new(StatusCode::CONFLICT, Code::BlobUploadInvalid, text)
        };
        let guard = Arc::clone(&self.content).try_lock_owned().map_err(|_| busy())?;
        if matches!(*guard, Content::Gone) { Err(unknown()) } else { Ok(guard) }
    }
}

pub(super) type Writing = OwnedMutexGuard<Content>;

/// Opens an upload that is closed; `None` when somebody else deleted it. Blocks.
pub(super) fn open<'a>(
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
pub(super) fn take(
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

pub(super) fn unknown() -> ApiError {
    ApiError::missing(Code::BlobUploadUnknown, "no such upload session; it may have expired")
}

/// Throws it away, unless another server goes on with it.
pub(super) fn abandon(
    store: &Store,
    session: &Session,
    content: &mut Content,
) -> Result<(), StoreError> {
    if let Content::Open(growing) = content
        && !growing.upload.is_current()?
    {
        *content = Content::Gone;
        return Ok(());
    }
    discard_content(store, session, content)
}

pub(super) fn discard_content(
    store: &Store,
    session: &Session,
    content: &mut Content,
) -> Result<(), StoreError> {
    match take(store, session, content)? {
        Some(OpenUpload { upload, .. }) => upload.abandon(),
        None => Ok(()),
    }
}

pub(in crate::handle) fn too_many(text: &str) -> ApiError {
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, Code::TooManyRequests, text)
}
