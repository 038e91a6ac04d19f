//! A request to its answer: route, right, storage, response.
//!
//! ```text
//!  request ─► route (pure) ─► auth (pure) ─► blobs │ uploads │ manifests │ lists │ tuf ─► response
//!                                            └────────── store, on blocking threads ──────────┘
//! ```
//!
//! [`handle`] always answers. What went wrong inside is logged in full and told to the client in
//! one sentence.

mod blobs;
mod fleet;
mod heads;
pub(crate) mod lists;
mod lock;
mod login;
mod manifests;
mod reply;
mod tuf;
pub(crate) mod uploads;

use std::io;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use formats::error_chain;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version, header};
use hyper::body::{Body as _, Incoming};
use rustix::io::Errno;
use storage::FileError;
use storage::layout::LayoutError;
use tokio::sync::Semaphore;

use crate::alarm::Freshness;
use crate::anchor::Anchor;
use crate::auth::{Access, Grant};
use crate::body::Body;
use crate::budget::{Budget, ConnectionBudget};
use crate::config::{Collect, Limits};
use crate::error::{ApiError, Code};
use crate::fill::Fills;
use crate::fleet::Fleet;
use crate::fleet::session::Sessions;
use crate::lock::LockRw as _;
use crate::metrics::Metrics;
use crate::progress::RequestOpen;
use crate::refresh::{RefreshStatus, Refresher};
use crate::route::{self, Reference, Route, Start, Step, route};
use crate::store::facts::FactsError;
use crate::store::write::ManifestDestination;
use crate::store::{Store, StoreError};
use crate::tuf_tree::TufTree;

use self::uploads::Uploads;

/// What all requests share.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) store: Arc<Store>,
    /// Replaced as a whole when tokens are read again.
    pub(crate) access: RwLock<Arc<Access>>,
    pub(crate) limits: Limits,
    pub(crate) uploads: Uploads,
    pub(crate) tuf: TufTree,
    pub(crate) read_only: bool,
    /// Whether only some may read.
    pub(crate) private: bool,
    pub(crate) collect: Option<Collect>,
    /// Reports of nodes; absent: none are taken.
    pub(crate) fleet: Option<Fleet>,
    /// Browsers that read its pages.
    pub(crate) sessions: Mutex<Sessions>,
    /// Whether clients speak TLS with this server.
    pub(crate) secure: bool,
    pub(crate) metrics: Arc<Metrics>,
    /// `/metrics` is elsewhere.
    pub(crate) metrics_elsewhere: bool,
    /// As last looked at.
    pub(crate) fresh: RwLock<Arc<Vec<Freshness>>>,
    /// As last looked at.
    pub(crate) fills: RwLock<Arc<Fills>>,
    pub(crate) alarm_before: Duration,
    /// The root that it believes; absent: nothing is verified here.
    pub(crate) anchor: Option<Anchor>,
    /// What it signs itself; absent for a server without a key.
    pub(crate) refresher: Option<Refresher>,
    /// As last signed.
    pub(crate) signs: RwLock<Arc<Vec<RefreshStatus>>>,
    /// Bodies being received.
    pub(crate) receiving: Arc<Semaphore>,
    /// Large blobs being hashed before they are first served: few, or disks only seek.
    pub(crate) verifying: Semaphore,
    /// Lists of referrers being made, for which manifests are read.
    pub(crate) listing: Semaphore,
    /// What answers may take up in memory.
    pub(crate) budget: Arc<Budget>,
}

impl App {
    pub(crate) fn access(&self) -> Arc<Access> {
        Arc::clone(&self.access.read_locked())
    }

    pub(crate) fn signs(&self) -> Arc<Vec<RefreshStatus>> {
        Arc::clone(&self.signs.read_locked())
    }

    pub(crate) fn fills(&self) -> Arc<Fills> {
        Arc::clone(&self.fills.read_locked())
    }

    pub(crate) fn fresh(&self) -> Arc<Vec<Freshness>> {
        Arc::clone(&self.fresh.read_locked())
    }
}

/// What of a request's head the handlers look at.
struct RequestHead {
    method: Method,
    headers: HeaderMap,
    /// Of the address; HTTP/2 has it there, and not in a header.
    authority: Option<String>,
    /// The connection's room for what it sends.
    share: ConnectionBudget,
    /// Whether only some may read: then no cache may keep answers for all.
    private: bool,
}

/// What kind of request an answer is to; with the answer, for the metrics.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RouteWord(pub(crate) &'static str);

/// Answers one request.
pub(crate) async fn handle(
    app: &Arc<App>,
    request: Request<Incoming>,
    open: RequestOpen,
    admitted: bool,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let asked = RequestHead {
        method: head.method,
        headers: head.headers,
        authority: head.uri.authority().map(ToString::to_string),
        share: open.progress().share().clone(),
        private: app.private,
    };
    let is_head = asked.method == Method::HEAD;
    // Of HTTP/2, a stream ends without the others, and nothing is lost.
    let unread = head.version < Version::HTTP_2 && !body.is_end_stream();
    open.progress().set_unread_body(unread);
    let mut word = RouteWord("unknown");
    let answered = match admitted {
        true => {
            answer(app, &asked, head.uri.path(), head.uri.query(), body, &open, &mut word).await
        }
        false => Err(uploads::too_many("too many requests from this address; try again later")),
    };
    let counted = answered.and_then(|answer| reply::counted(answer, &app.budget));
    let mut response = counted.unwrap_or_else(|error| match route::lock(head.uri.path()) {
        Some(_) => lock::refused(&error),
        None => reply::error(&error),
    });
    response.extensions_mut().insert(word);
    reply::finish(&mut response, head.uri.path());
    if is_head { response.map(|_| Body::empty()) } else { response.map(|body| body.held(open)) }
}

async fn answer(
    app: &Arc<App>,
    asked: &RequestHead,
    path: &str,
    query: Option<&str>,
    body: Incoming,
    open: &RequestOpen,
    word: &mut RouteWord,
) -> Result<Response<Body>, ApiError> {
    heads::check(&asked.headers)?;
    let route = route(&asked.method, path, query)?;
    *word = RouteWord(route.word());
    let credential = asked.headers.get(header::AUTHORIZATION);
    let credential = credential.map(|value| value.as_bytes());
    let session = match (&route, credential) {
        (Route::Fleet(_), None) => login::grant(app, &asked.headers, route.right()),
        _ => None,
    };
    let in_session = session.is_some();
    let grant = match session {
        Some(grant) => Ok(grant),
        None => app.access().check(route.right(), route.repository(), credential),
    };
    let grant = match grant {
        Err(error) if error.status == StatusCode::UNAUTHORIZED => {
            return login::form_instead(asked, &route, path, query).ok_or(error);
        }
        other => other?,
    };
    let pushes = matches!(asked.method, Method::POST | Method::PUT | Method::PATCH);
    if pushes {
        refuse_encoding(&asked.headers)?;
    }
    match route {
        Route::PutManifest(name, reference, tags) => {
            let to = ManifestDestination { name, reference, tags, tagging: grant.tagging };
            manifests::put(app, asked, to, body, open).await
        }
        Route::StartUpload(name, Start::Whole(digest)) => {
            uploads::whole(app, asked, name, digest, body, open).await
        }
        Route::Upload(name, id, Step::Append) => {
            let session = uploads::find(app, &name, &id).await?;
            uploads::append(app, asked, session, body, open).await
        }
        Route::Upload(name, id, Step::Finish(digest)) => {
            let session = uploads::find(app, &name, &id).await?;
            uploads::finish(app, asked, session, digest, body, open).await
        }
        Route::PutReport(node) => fleet::put(app, node, body, open).await,
        Route::LogIn => login::log_in(app, asked, body, open).await,
        Route::Fleet(page) => {
            drop(body);
            fleet::page(app, asked, page, in_session).await
        }
        Route::Lock(wanted) => lock::post(app, wanted, &asked.headers, body, open).await,
        other => {
            // What comes with it is not waited for, and not kept while it is answered.
            drop(body);
            without_body(app, asked, other, &grant).await
        }
    }
}

/// Requests that are answered without a look at their body.
async fn without_body(
    app: &Arc<App>,
    asked: &RequestHead,
    route: Route,
    grant: &Grant,
) -> Result<Response<Body>, ApiError> {
    match route {
        Route::Ping => Ok(reply::json(&serde_json::json!({}))),
        Route::Health => Ok(lists::health(app)),
        Route::Metrics if app.metrics_elsewhere => Err(ApiError::missing(
            Code::Unsupported,
            "metrics are served on another address (--metrics-listen)",
        )),
        Route::Metrics => Ok(lists::metrics(app)),
        Route::Blob(name, digest) => blobs::read(app, asked, &name, &digest).await,
        Route::DeleteBlob(name, digest) => blobs::delete(app, name, digest).await,
        Route::Manifest(name, reference) => manifests::read(app, asked, name, reference).await,
        Route::DeleteManifest(name, reference) => match reference {
            Reference::Tag(tag) => manifests::delete_tag(app, name, tag).await,
            Reference::Digest(digest) => manifests::delete(app, name, digest).await,
        },
        Route::StartUpload(name, Start::Session(algorithm)) => {
            uploads::start(app, name, algorithm).await
        }
        // A mount makes bytes readable here: only of what the caller may read there.
        Route::StartUpload(name, Start::Mount(digest, from)) => match grant.reads(from.as_ref()) {
            true => uploads::mount(app, name, digest, from).await,
            false => uploads::start(app, name, digest.algorithm()).await,
        },
        Route::Upload(name, id, Step::Status) => {
            let session = uploads::find(app, &name, &id).await?;
            Ok(uploads::status(&session))
        }
        Route::Upload(name, id, Step::Cancel) => {
            uploads::cancel(app, uploads::find(app, &name, &id).await?).await
        }
        Route::Tags { name, n, last } => lists::tags(app, name, n, last).await,
        Route::Referrers { name, digest: subject, artifact_type, last } => {
            lists::referrers(app, lists::ReferrersQuery { name, subject, artifact_type, last })
                .await
        }
        Route::LoginForm(next) => login::form(app, asked, next.as_deref()),
        Route::LogOut => login::log_out(app, asked),
        Route::Metadata(file) => tuf::metadata(app, asked, file).await,
        Route::Target { dir, hash, name } => tuf::target(app, asked, dir, hash, name).await,
        // They have one.
        Route::PutManifest(..)
        | Route::PutReport(_)
        | Route::Lock(_)
        | Route::Fleet(_)
        | Route::LogIn
        | Route::StartUpload(_, Start::Whole(_))
        | Route::Upload(_, _, Step::Append | Step::Finish(_)) => Err(ApiError::internal()),
    }
}

/// Pushed bytes are stored as they are; a body that has to be unpacked first is not taken.
fn refuse_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    match headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Code::Unsupported,
            "Content-Encoding is not supported; send the plain bytes",
        )),
        _ => Ok(()),
    }
}

/// Runs storage work where it may block.
async fn blocking<T: Send + 'static>(
    app: &Arc<App>,
    work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, ApiError> {
    let store = Arc::clone(&app.store);
    match tokio::task::spawn_blocking(move || work(&store)).await {
        Ok(done) => done.map_err(|error| ApiError::from(&error)),
        Err(panic) => {
            tracing::error!(%panic, "storage");
            Err(ApiError::internal())
        }
    }
}

impl From<&StoreError> for ApiError {
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::Layout(LayoutError::BlobDigest { .. }) | StoreError::Digest { .. } => {
                ApiError::bad(Code::DigestInvalid, error)
            }
            StoreError::Manifest(FactsError::TooLarge) => {
                ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, Code::SizeInvalid, error)
            }
            StoreError::Manifest(_) => ApiError::bad(Code::ManifestInvalid, error),
            StoreError::Incomplete(_) => ApiError::bad(Code::ManifestBlobUnknown, error),
            StoreError::Needed(_) => ApiError::bad(Code::Denied, error),
            StoreError::Quota { .. } | StoreError::TagExists(_) => {
                ApiError::new(StatusCode::FORBIDDEN, Code::Denied, error)
            }
            StoreError::ReadOnly => ApiError::new(StatusCode::FORBIDDEN, Code::Denied, error),
            StoreError::Layout(LayoutError::Write(FileError::Io { source, .. }))
            | StoreError::Link(FileError::Io { source, .. })
            | StoreError::Blob(source)
                if source.kind() == io::ErrorKind::FileTooLarge =>
            {
                tracing::error!(error = %error_chain(error), "file size limit of this process");
                let text = "the blob exceeds the file size limit of the server process";
                ApiError::new(StatusCode::INSUFFICIENT_STORAGE, Code::Denied, text)
            }
            StoreError::Layout(
                LayoutError::Write(FileError::Io { source, .. })
                | LayoutError::Read(FileError::Io { source, .. }),
            )
            | StoreError::Link(FileError::Io { source, .. })
            | StoreError::Blob(source)
                if is_exhausted(source) =>
            {
                tracing::error!(error = %error_chain(error), "out of descriptors or memory");
                let text = "the server is out of file descriptors or memory; try again later";
                ApiError::new(StatusCode::SERVICE_UNAVAILABLE, Code::TooManyRequests, text)
            }
            StoreError::Layout(LayoutError::Write(FileError::Io { source, .. }))
            | StoreError::Link(FileError::Io { source, .. })
            | StoreError::Blob(source)
                if is_full(source) =>
            {
                tracing::error!(error = %error_chain(error), "storage is full");
                let text = "the server's storage is full";
                ApiError::new(StatusCode::INSUFFICIENT_STORAGE, Code::Denied, text)
            }
            StoreError::Layout(LayoutError::IndexTooLarge(_)) => {
                tracing::error!(error = %error_chain(error), "index of tags is full");
                let text = "the index of tags is full; delete old tags";
                ApiError::new(StatusCode::INSUFFICIENT_STORAGE, Code::Denied, text)
            }
            StoreError::TooManyManifests => {
                tracing::error!(error = %error_chain(error), "limit of manifests is reached");
                let text = "the server's limit of manifests is reached; delete old ones";
                ApiError::new(StatusCode::INSUFFICIENT_STORAGE, Code::Denied, text)
            }
            StoreError::Conflict(_) => {
                ApiError::new(StatusCode::CONFLICT, Code::BlobUploadInvalid, error)
            }
            StoreError::Bucket { .. } => {
                tracing::error!(error = %error_chain(error), "bucket");
                let text = "the storage behind this server is unreachable; try again later";
                ApiError::new(StatusCode::SERVICE_UNAVAILABLE, Code::Unsupported, text)
            }
            StoreError::Layout(_)
            | StoreError::Link(_)
            | StoreError::Blob(_)
            | StoreError::UnreadableReferences(_) => {
                tracing::error!(error = %error_chain(error), "storage");
                ApiError::internal()
            }
        }
    }
}

/// What the system has no more of now, and will have when others are done.
fn is_exhausted(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    let gone = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN, Errno::NOBUFS];
    errno.is_some_and(|errno| gone.contains(&errno))
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
