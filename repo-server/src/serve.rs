//! The listening socket and its connections: TLS, HTTP/1.1 and HTTP/2, limits, graceful end.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio_rustls::TlsAcceptor;

use crate::auth::Access;
use crate::body::Body;
use crate::config::{Config, Limits};
use crate::error::ServerError;
use crate::handle::uploads::Uploads;
use crate::handle::{App, handle};
use crate::progress::{Counted, Progress, Verdict};
use crate::store::{Store, chain};
use crate::tls;
use crate::tuf_tree::TufTree;

/// A server that is bound to its address and has opened its storage.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    app: Arc<App>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server at {}", self.url())
    }
}

impl Server {
    /// Opens the storage, reads tokens and certificates, and binds. Connections wait in the
    /// kernel's queue until [`Server::run`].
    pub async fn bind(config: Config) -> Result<Self, ServerError> {
        if config.tls.is_none() && !config.insecure_http && !config.listen.ip().is_loopback() {
            return Err(ServerError::PlainHttp(config.listen));
        }
        let access = Access::new(&config)?;
        let tls = config.tls.as_ref().map(tls::acceptor).transpose()?;
        let (dir, read_only, quota) = (config.dir.clone(), config.read_only, config.quota);
        let sessions = config.limits.sessions;
        let open = move || {
            let store = Store::open_with(&dir, read_only, quota)?;
            let uploads = Uploads::new(&store, sessions)
                .map_err(|error| ServerError::Store { path: dir, why: chain(&error) })?;
            Ok((store, uploads))
        };
        let opened = tokio::task::spawn_blocking(open).await;
        let (store, uploads) = opened.map_err(|panic| ServerError::Config(panic.to_string()))??;
        let failed = |source| ServerError::Listen { address: config.listen.to_string(), source };
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let limits = config.limits;
        let app = App {
            store: Arc::new(store),
            access,
            uploads,
            tuf: TufTree::new(config.namespace),
            read_only,
            collect: config.collect,
            receiving: Arc::new(Semaphore::new(limits.uploads)),
            verifying: Semaphore::new(2),
            limits,
        };
        Ok(Server { listener, address, tls, app: Arc::new(app) })
    }

    /// Where it listens, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// `https://…` or `http://…`.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Serves until `stop` resolves, then lets requests under way finish, for at most
    /// [`Limits::drain`].
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Server { listener, tls, app, .. } = self;
        let (stopping, stopped) = watch::channel(false);
        let connections = Arc::new(Semaphore::new(app.limits.connections));
        let mut stop = pin!(stop);
        let mut sweep = tokio::time::interval(sweep_every(&app.limits));
        let chores = tokio::spawn(collect_garbage(Arc::clone(&app)));
        loop {
            // A place first: who has to wait does so in the kernel's queue, not in our memory.
            let accepted = async {
                let place = Arc::clone(&connections).acquire_owned().await;
                (place, listener.accept().await)
            };
            tokio::select! {
                () = &mut stop => break,
                _ = sweep.tick() => sweep_uploads(&app),
                (place, accepted) = accepted => match (place, accepted) {
                    (Ok(place), Ok((stream, peer))) => {
                        let connection = Connection {
                            app: Arc::clone(&app),
                            peer,
                            stopped: stopped.clone(),
                            _place: place,
                        };
                        tokio::spawn(connection.serve(stream, tls.clone()));
                    }
                    (_, Err(error)) => {
                        // Out of file descriptors, mostly: old connections have to go first.
                        tracing::warn!(%error, "accept");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    (Err(_), _) => break,
                },
            }
        }
        drop(listener);
        drop(stopped);
        chores.abort();
        // Fails when there is no connection left to tell.
        let _ = stopping.send(true);
        let all_closed = stopping.closed();
        if tokio::time::timeout(app.limits.drain, all_closed).await.is_err() {
            tracing::warn!("stopped with requests under way");
        }
    }
}

fn sweep_every(limits: &Limits) -> Duration {
    (limits.session_expiry / 4).clamp(Duration::from_millis(50), Duration::from_secs(60))
}

fn sweep_uploads(app: &Arc<App>) {
    let app = Arc::clone(app);
    tokio::task::spawn_blocking(move || {
        let expired = app.uploads.expire(&app.store, app.limits.session_expiry);
        if expired > 0 {
            tracing::info!(expired, "uploads nobody finished");
        }
    });
}

/// Throws garbage away, now and then. Ends between two steps when the server does.
async fn collect_garbage(app: Arc<App>) {
    let Some(collect) = app.collect.filter(|_| !app.read_only) else { return };
    loop {
        tokio::time::sleep(collect.interval).await;
        let store = Arc::clone(&app.store);
        let work = move || store.collect(collect.grace, SystemTime::now(), false);
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(done)) => tracing::info!(
                links = done.links,
                blobs = done.blobs,
                bytes = done.bytes,
                kept = done.kept,
                "garbage collected"
            ),
            Ok(Err(error)) => tracing::error!(error = chain(&error), "garbage not collected"),
            Err(panic) => tracing::error!(%panic, "garbage not collected"),
        }
    }
}

/// One accepted connection.
struct Connection {
    app: Arc<App>,
    peer: SocketAddr,
    stopped: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    async fn serve(self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        // Answers are written whole; waiting for more only delays the last packet.
        let _ = stream.set_nodelay(true);
        let progress = Progress::new();
        let stream = Counted { inner: stream, progress: Arc::clone(&progress) };
        let Some(tls) = tls else {
            return self.http1(stream, &progress).await;
        };
        let handshake = tokio::time::timeout(self.app.limits.handshake, tls.accept(stream)).await;
        match handshake {
            Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(tls::H2) => {
                self.http2(stream, &progress).await;
            }
            Ok(Ok(stream)) => self.http1(stream, &progress).await,
            Ok(Err(error)) => tracing::debug!(peer = %self.peer, %error, "TLS handshake"),
            Err(_) => tracing::debug!(peer = %self.peer, "TLS handshake took too long"),
        }
    }

    async fn http1(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        progress: &Arc<Progress>,
    ) {
        let limits = &self.app.limits;
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head)
            .max_header_size(usize::try_from(limits.head_bytes).unwrap_or(usize::MAX))
            .max_headers(limits.headers);
        let service = service_fn(|request| answer(&self.app, progress, self.peer, request));
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let mut watched = Watched::new(&self, progress);
        loop {
            tokio::select! {
                done = connection.as_mut() => return watched.ended(done),
                verdict = watched.next() => match verdict {
                    Verdict::Keep => {}
                    Verdict::Finish => connection.as_mut().graceful_shutdown(),
                    Verdict::Close(why) => return watched.closing(why),
                },
            }
        }
    }

    async fn http2(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        progress: &Arc<Progress>,
    ) {
        let limits = &self.app.limits;
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams)
            .max_header_list_size(limits.head_bytes)
            // Rapid reset and its relatives (RUSTSEC-2024-0003): the connection goes.
            .max_pending_accept_reset_streams(20)
            .max_local_error_reset_streams(20)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .max_send_buf_size(256 << 10)
            .keep_alive_interval(limits.idle / 2)
            .keep_alive_timeout(limits.head);
        let (app, peer) = (Arc::clone(&self.app), self.peer);
        let counted = Arc::clone(progress);
        let service = service_fn(move |request| {
            let (app, progress) = (Arc::clone(&app), Arc::clone(&counted));
            async move { answer(&app, &progress, peer, request).await }
        });
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let mut watched = Watched::new(&self, progress);
        loop {
            tokio::select! {
                done = connection.as_mut() => return watched.ended(done),
                verdict = watched.next() => match verdict {
                    Verdict::Keep => {}
                    Verdict::Finish => connection.as_mut().graceful_shutdown(),
                    Verdict::Close(why) => return watched.closing(why),
                },
            }
        }
    }
}

/// When to look at a connection, and what for.
struct Watched<'a> {
    connection: &'a Connection,
    progress: &'a Progress,
    ticks: tokio::time::Interval,
    stopped: watch::Receiver<bool>,
    finishing: bool,
}

impl<'a> Watched<'a> {
    fn new(connection: &'a Connection, progress: &'a Progress) -> Self {
        let ticks = tokio::time::interval(Progress::tick(&connection.app.limits));
        let stopped = connection.stopped.clone();
        Watched { connection, progress, ticks, stopped, finishing: false }
    }

    async fn next(&mut self) -> Verdict {
        let verdict = tokio::select! {
            _ = self.ticks.tick() => self.progress.verdict(&self.connection.app.limits),
            _ = self.stopped.changed(), if !self.finishing => Verdict::Finish,
        };
        match verdict {
            Verdict::Finish if self.finishing => Verdict::Keep,
            Verdict::Finish => {
                self.finishing = true;
                Verdict::Finish
            }
            other => other,
        }
    }

    fn ended(&self, done: hyper::Result<()>) {
        if let Err(error) = done {
            let error = chain(&error);
            tracing::debug!(peer = %self.connection.peer, error, "connection");
        }
    }

    fn closing(&self, why: &'static str) {
        tracing::info!(peer = %self.connection.peer, why, "connection closed");
    }
}

/// One request, with its line in the access log.
async fn answer(
    app: &Arc<App>,
    progress: &Arc<Progress>,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Body>, io::Error> {
    let begun = Instant::now();
    let open = progress.request();
    if !tracing::enabled!(target: "access", tracing::Level::INFO) {
        return Ok(handle(app, request, open).await);
    }
    let (method, target, version) =
        (request.method().clone(), request.uri().clone(), request.version());
    let response = handle(app, request, open).await;
    tracing::info!(
        target: "access",
        %peer,
        %method,
        // Only the path: queries hold nothing that helps, and may hold what should not be kept.
        path = target.path(),
        ?version,
        status = response.status().as_u16(),
        bytes = response.body().left(),
        micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX),
    );
    Ok(response)
}

/// A server on threads of its own, for programs that are not asynchronous: demos, tests. Stops
/// when dropped.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    url: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Starts a server and comes back when it accepts connections.
pub fn start(config: Config) -> Result<Running, ServerError> {
    let failed = |source| ServerError::Listen { address: "(runtime)".to_owned(), source };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(failed)?;
    let server = runtime.block_on(Server::bind(config))?;
    let (address, url) = (server.local_addr(), server.url());
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::spawn(move || {
        runtime.block_on(server.run(async {
            // A sender dropped without a word means the same.
            let _ = stopped.await;
        }));
    });
    Ok(Running { address, url, stop: Some(stop), thread: Some(thread) })
}

impl Running {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// `https://…` or `http://…`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Stops it and waits until it has.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(stop) = self.stop.take() {
            // It may have ended already.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the server's thread panicked");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}
