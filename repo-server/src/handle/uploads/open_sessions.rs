//! The open sessions: found, closed when they rest, and deleted when nobody goes on with them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use formats::digest::Algorithm;
use formats::error_chain;
use formats::oci::RepositoryName;

use super::super::{App, blocking};
use super::session::{
    Content, OpenUpload, Session, Writing, abandon, discard_content, open, too_many, unknown,
};
use crate::error::ApiError;
use crate::lock::LockMutex as _;
use crate::route::SessionId;
use crate::store::backend::UploadKey;
use crate::store::{Store, StoreError};

/// The open sessions.
#[derive(Debug)]
pub(crate) struct Uploads {
    sessions: Mutex<HashMap<SessionId, Arc<Session>>>,
    most: usize,
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

    pub(super) fn insert(&self, session: &Arc<Session>) -> Result<(), ApiError> {
        let mut sessions = self.sessions.locked();
        if sessions.len() >= self.most {
            return Err(too_many("too many uploads are open"));
        }
        sessions.insert(session.key.id.clone(), Arc::clone(session));
        Ok(())
    }

    pub(super) fn has_room(&self) -> Result<(), ApiError> {
        let sessions = self.sessions.locked();
        if sessions.len() < self.most { Ok(()) } else { Err(too_many("too many uploads are open")) }
    }

    pub(super) fn remove(&self, id: &SessionId) {
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
pub(in crate::handle) async fn find(
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

/// Ends a session and throws its bytes away.
pub(super) async fn discard(
    app: &Arc<App>,
    session: &Arc<Session>,
    mut writing: Writing,
) -> Result<(), ApiError> {
    app.uploads.remove(&session.key.id);
    let session = Arc::clone(session);
    blocking(app, move |store| discard_content(store, &session, &mut writing)).await
}
