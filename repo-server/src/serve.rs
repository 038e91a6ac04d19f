//! The listening socket and its connections: TLS, HTTP/1.1 and HTTP/2, limits, graceful end.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use formats::error_chain;
use formats::tuf::UnixTime;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio_rustls::TlsAcceptor;

use crate::alarm;
use crate::anchor::Anchor;
use crate::auth::Access;
use crate::body::Body;
use crate::budget::{self, Budget};
use crate::clients::{Clients, Place};
use crate::config::{Config, Limits};
use crate::error::ServerError;
use crate::handle::uploads::Uploads;
use crate::handle::{App, RouteWord, handle, lists};
use crate::memory::{self, Tide};
use crate::metrics::Metrics;
use crate::progress::{Counted, Progress, Verdict};
use crate::refresh::{self, Refresher};
use crate::store::gc::Collected;
use crate::store::{RELIST, Store};
use crate::tls;
use crate::tuf_tree::TufTree;

/// A server that is bound to its address and has opened its storage.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    metrics: Option<(TcpListener, SocketAddr)>,
    reloader: Reloader,
    app: Arc<App>,
}

/// Reads certificates and tokens again, for connections and requests that come after.
#[derive(Clone)]
pub struct Reloader {
    app: Arc<App>,
    tls: Arc<RwLock<Option<TlsAcceptor>>>,
    config: Arc<Config>,
}

impl std::fmt::Debug for Reloader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reloader of {}", self.config.dir.display())
    }
}

impl Reloader {
    /// Takes all files as they are now, or goes on with what it had when one of them is wrong.
    /// Blocks for as long as reading them takes.
    pub fn reload(&self) -> Result<(), ServerError> {
        let read = || {
            let access = Access::new(&self.config)?;
            let tls = self.config.tls.as_ref().map(tls::acceptor).transpose()?;
            Ok((access, tls))
        };
        let read = read();
        self.app.metrics.reloaded(read.is_ok());
        let (access, tls) = read?;
        *self.app.access.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(access);
        *self.tls.write().unwrap_or_else(PoisonError::into_inner) = tls;
        Ok(())
    }

    fn tls(&self) -> Option<TlsAcceptor> {
        self.tls.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
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
        let plain = config.listen;
        let plain = [config.tls.is_none().then_some(plain), config.metrics_listen];
        let open = |address: &SocketAddr| !address.ip().is_loopback() && !config.insecure_http;
        if let Some(address) = plain.into_iter().flatten().find(open) {
            return Err(ServerError::PlainHttp(address));
        }
        let access = Access::new(&config)?;
        let anchor = config.refresh.root.as_deref().map(Anchor::read).transpose()?;
        let refresher = Refresher::new(&config, anchor.as_ref())?;
        let tuf = TufTree::new(config.namespace.as_deref())?;
        let tls = config.tls.as_ref().map(tls::acceptor).transpose()?;
        let (dir, bucket) = (config.dir.clone(), config.bucket.clone());
        let (read_only, quota) = (config.read_only, config.quota);
        if bucket.is_some() && refresher.is_some() {
            let text = "--refresh-key works on a directory; run `signer refresh` beside a bucket";
            return Err(ServerError::Config(text.to_owned()));
        }
        let sessions = config.limits.sessions;
        let open = move || {
            let store = match &bucket {
                Some(place) => Store::open_bucket(place, read_only, quota)?,
                None => Store::open_with(&dir, read_only, quota)?,
            };
            let uploads = Uploads::new(&store, sessions)
                .map_err(|error| ServerError::Store { path: dir, why: error_chain(&error) })?;
            Ok((store, uploads))
        };
        // Work for a thread that cannot be started would wait for ever.
        let spawned = std::thread::Builder::new().spawn(|| {});
        spawned.map(drop).map_err(ServerError::io("start a thread of", "this process"))?;
        let opened = tokio::task::spawn_blocking(open).await;
        let (store, uploads) = opened.map_err(|panic| ServerError::Config(panic.to_string()))??;
        let (listener, address) = listen(config.listen)?;
        let metrics = match config.metrics_listen {
            Some(address) => Some(listen(address)?),
            None => None,
        };
        let limits = config.limits.clone();
        let client_ca = config.tls.as_ref().and_then(|tls| tls.client_ca.as_ref());
        let private = config.pull_tokens.is_some() || client_ca.is_some();
        let app = App {
            store: Arc::new(store),
            access: RwLock::new(Arc::new(access)),
            uploads,
            tuf,
            read_only,
            private,
            metrics: Arc::new(Metrics::new()),
            metrics_elsewhere: metrics.is_some(),
            fresh: RwLock::default(),
            alarm_before: config.alarm_before,
            anchor,
            refresher,
            signs: RwLock::default(),
            collect: config.collect,
            receiving: Arc::new(Semaphore::new(limits.uploads)),
            verifying: Semaphore::new(2),
            listing: Semaphore::new(2),
            budget: Budget::new(),
            limits,
        };
        let app = Arc::new(app);
        let tls = Arc::new(RwLock::new(tls));
        let reloader = Reloader { app: Arc::clone(&app), tls, config: Arc::new(config) };
        Ok(Server { listener, address, metrics, reloader, app })
    }

    /// What reads certificates and tokens again while the server runs.
    pub fn reloader(&self) -> Reloader {
        self.reloader.clone()
    }

    /// Where metrics have an address of their own, with the real port.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(|(_, address)| *address)
    }

    /// Where it listens, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// `https://…` or `http://…`.
    pub fn url(&self) -> String {
        let scheme = if self.reloader.config.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Serves until `stop` resolves, then lets requests under way finish, for at most
    /// [`Limits::drain`].
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Server { listener, metrics, reloader, app, .. } = self;
        let (stopping, stopped) = watch::channel(false);
        let connections = Arc::new(Semaphore::new(app.limits.connections));
        let mut stop = pin!(stop);
        let mut sweep = tokio::time::interval(sweep_every(&app.limits));
        let clients = Clients::new(&app.limits);
        let (mut tide, mut look) = (Tide::default(), tokio::time::interval(memory::LOOK));
        let mut newcomer = None;
        let mut chores = tokio::task::JoinSet::new();
        chores.spawn(collect_garbage(Arc::clone(&app)));
        chores.spawn(renew_timestamps(Arc::clone(&app)));
        chores.spawn(watch_timestamps(Arc::clone(&app)));
        chores.spawn(relist(Arc::clone(&app)));
        chores.spawn(rest_uploads(Arc::clone(&app)));
        if let Some((listener, _)) = metrics {
            chores.spawn(serve_metrics(listener, Arc::clone(&app)));
        }
        loop {
            let next = seat(&listener, &mut newcomer, &clients, &connections, &app);
            tokio::select! {
                () = &mut stop => break,
                _ = sweep.tick() => {
                    clients.forget();
                    sweep_uploads(&app);
                }
                _ = look.tick() => {
                    let free = connections.available_permits();
                    if tide.ebbs(app.limits.connections.saturating_sub(free)) {
                        tokio::task::spawn_blocking(memory::give_back);
                    }
                }
                seated = next => match seated {
                    Ok(Some(seated)) => {
                        app.metrics.connections.inc();
                        let crowded = crowded(&app.limits, connections.available_permits());
                        let Seated { stream, peer, client, place } = seated;
                        let connection = Connection {
                            app: Arc::clone(&app),
                            peer,
                            stopped: stopped.clone(),
                            crowded,
                            client: Arc::new(client),
                            _place: place,
                        };
                        tokio::spawn(connection.serve(stream, reloader.tls()));
                    }
                    Ok(None) => {}
                    Err(error) => {
                        // Out of file descriptors, mostly: old connections have to go first.
                        tracing::warn!(%error, "accept");
                        clients.make_room(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
            }
        }
        drop(listener);
        drop(stopped);
        chores.abort_all();
        // Fails when there is no connection left to tell.
        let _ = stopping.send(true);
        let all_closed = stopping.closed();
        if tokio::time::timeout(app.limits.drain, all_closed).await.is_err() {
            tracing::warn!("stopped with requests under way");
        }
    }
}

/// Connections that wait in the kernel: a fleet that comes back after an outage comes at once.
const BACKLOG: u32 = 4096;

fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServerError> {
    let failed = |source| ServerError::Listen { address: address.to_string(), source };
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        // Connections inherit it.
        memory::bound_unsent(&socket, UNSENT)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    let listener = bind().map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// How often a newcomer without a place looks again whether somebody else should leave.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A newcomer that has a place.
struct Seated {
    stream: TcpStream,
    peer: SocketAddr,
    client: Place,
    place: OwnedSemaphorePermit,
}

/// The next connection that gets a place; `None` for one that is refused. One newcomer waits here,
/// others in the kernel's queue, not in our memory. Nothing is lost when this is dropped and called
/// again with the same `newcomer`.
async fn seat(
    listener: &TcpListener,
    newcomer: &mut Option<(TcpStream, SocketAddr, Place)>,
    clients: &Arc<Clients>,
    connections: &Arc<Semaphore>,
    app: &App,
) -> io::Result<Option<Seated>> {
    if newcomer.is_none() {
        let (stream, peer) = listener.accept().await?;
        let Some(client) = clients.connect(peer.ip()) else {
            tracing::debug!(%peer, "too many connections of one client");
            app.metrics.limited("client connections");
            return Ok(None);
        };
        *newcomer = Some((stream, peer, client));
    }
    let place = loop {
        if connections.available_permits() == 0
            && let Some((_, peer, _)) = newcomer
        {
            clients.make_room(peer.ip());
        }
        let free = Arc::clone(connections).acquire_owned();
        if let Ok(place) = tokio::time::timeout(LOOK_AGAIN, free).await {
            break place.map_err(io::Error::other)?;
        }
    };
    let seated = newcomer.take();
    Ok(seated.map(|(stream, peer, client)| Seated { stream, peer, client, place }))
}

/// Whether a new connection is one of a crowd, and gets less of what costs memory for as long as
/// nobody reads: fewer requests at once, smaller records.
fn crowded(limits: &Limits, free: usize) -> bool {
    limits.connections.saturating_sub(free) > limits.crowd
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

/// Closes uploads that nobody has touched lately.
async fn rest_uploads(app: Arc<App>) {
    let every = (app.limits.upload_rest / 3).max(Duration::from_millis(50));
    loop {
        tokio::time::sleep(every).await;
        let app = Arc::clone(&app);
        let work = move || app.uploads.rest(&app.store, app.limits.upload_rest);
        if let Err(panic) = tokio::task::spawn_blocking(work).await {
            tracing::error!(%panic, "uploads not closed");
        }
    }
}

/// Looks, now and then, what other servers on the same storage did.
async fn relist(app: Arc<App>) {
    while app.store.is_shared() {
        tokio::time::sleep(RELIST).await;
        let store = Arc::clone(&app.store);
        match tokio::task::spawn_blocking(move || store.relist()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(error = error_chain(&error), "storage not listed"),
            Err(panic) => tracing::error!(%panic, "storage not listed"),
        }
    }
}

/// Throws garbage away, now and then. Ends between two steps when the server does.
async fn collect_garbage(app: Arc<App>) {
    let Some(collect) = app.collect.filter(|_| !app.read_only) else { return };
    loop {
        tokio::time::sleep(collect.interval).await;
        let store = Arc::clone(&app.store);
        let work = move || store.collect(collect.grace, SystemTime::now(), false);
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(done)) => {
                app.metrics.collection(true, done.bytes);
                let Collected { links, blobs, bytes, kept, .. } = done;
                tracing::info!(links, blobs, bytes, kept, "garbage collected");
            }
            Ok(Err(error)) => {
                app.metrics.collection(false, 0);
                tracing::error!(error = error_chain(&error), "garbage not collected");
            }
            Err(panic) => tracing::error!(%panic, "garbage not collected"),
        }
    }
}

fn unix_now() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs());
    UnixTime::from_secs(i64::try_from(since).unwrap_or(i64::MAX))
}

/// Renews timestamps, if there is a key for it.
async fn renew_timestamps(app: Arc<App>) {
    let Some(refresher) = app.refresher.clone() else { return };
    let mut turns = tokio::time::interval(app.limits.alarm_every);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        let (store, refresher) = (Arc::clone(&app.store), refresher.clone());
        match tokio::task::spawn_blocking(move || refresher.turn(&store, unix_now())).await {
            Ok(signs) => {
                let signs = vec![signs];
                refresh::tell(&app.signs(), &signs);
                app.metrics.signs(&signs);
                *app.signs.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(signs);
            }
            Err(panic) => tracing::error!(%panic, "timestamps not renewed"),
        }
    }
}

/// Looks, now and then, how fresh the TUF timestamps are.
async fn watch_timestamps(app: Arc<App>) {
    let mut turns = tokio::time::interval(app.limits.alarm_every);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        let looking = Arc::clone(&app);
        let look = move || {
            let App { store, tuf, anchor, alarm_before, .. } = &*looking;
            alarm::look(store, tuf, anchor.as_ref(), unix_now(), *alarm_before)
        };
        match tokio::task::spawn_blocking(look).await {
            Ok(Ok(found)) => {
                alarm::tell(&app.fresh(), &found);
                app.metrics.fresh(&found);
                *app.fresh.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(found);
            }
            Ok(Err(error)) => tracing::error!(error = error_chain(&error), "timestamps not read"),
            Err(panic) => tracing::error!(%panic, "timestamps not read"),
        }
    }
}

/// `/metrics` and `/healthz` on an address of their own, which the operator keeps to himself.
async fn serve_metrics(listener: TcpListener, app: Arc<App>) {
    let places = Arc::new(Semaphore::new(16));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let app = Arc::clone(&app);
        tokio::spawn(async move {
            let _place = place;
            let limits = app.limits.clone();
            let service = service_fn(|request: Request<Incoming>| {
                let found = match request.uri().path() {
                    "/metrics" => lists::metrics(&app),
                    "/healthz" => lists::health(&app),
                    _ => {
                        let mut nothing = Response::new(Body::empty());
                        *nothing.status_mut() = StatusCode::NOT_FOUND;
                        nothing
                    }
                };
                std::future::ready(Ok::<_, io::Error>(found))
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(limits.head);
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            // A scraper that goes away in the middle has what it wanted.
            let _ = tokio::time::timeout(limits.idle, connection).await;
        });
    }
}

/// 32 KiB: what a connection holds of what it reads, and what it has to have sent before it takes
/// another piece. A head is smaller, see [`Limits::head_bytes`].
const BUFFER: usize = 32 << 10;

/// 16 KiB: the largest TLS record, which is what a session holds of what it has encrypted.
const RECORD: usize = 16 << 10;

/// 128 KiB: what a connection's socket takes of an answer before the network takes it.
const UNSENT: u32 = 128 << 10;

/// One accepted connection.
struct Connection {
    app: Arc<App>,
    peer: SocketAddr,
    stopped: watch::Receiver<bool>,
    crowded: bool,
    client: Arc<Place>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.app.metrics.connections.dec();
    }
}

impl Connection {
    async fn serve(self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        // Answers are written whole; waiting for more only delays the last packet.
        let _ = stream.set_nodelay(true);
        if self.crowded
            && let Err(error) = memory::bound_unsent(&stream, UNSENT / 8)
        {
            tracing::debug!(%error, "bound what is not sent");
        }
        let progress = Progress::new(Arc::clone(&self.app.metrics), self.app.budget.share());
        self.client.seated(&progress);
        let stream = Counted { inner: stream, progress: Arc::clone(&progress) };
        let Some(tls) = tls else {
            return Box::pin(self.http1(stream, &progress)).await;
        };
        // Otherwise each session keeps 64 KiB that the socket does not take.
        let kept = if self.crowded { RECORD / 4 } else { RECORD };
        let accept = tls.accept_with(stream, |session| session.set_buffer_limit(Some(kept)));
        let accept = tokio::time::timeout(self.app.limits.handshake, accept);
        let handshake = tokio::select! {
            done = accept => done,
            () = self.client.leave() => return self.app.metrics.limited("made room"),
        };
        match handshake {
            Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(tls::H2) => {
                Box::pin(self.http2(stream, &progress)).await;
            }
            Ok(Ok(stream)) => Box::pin(self.http1(stream, &progress)).await,
            Ok(Err(error)) => tracing::debug!(peer = %self.peer, %error, "TLS handshake"),
            Err(_) => {
                self.app.metrics.limited("handshake");
                tracing::debug!(peer = %self.peer, "TLS handshake took too long");
            }
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
            // Otherwise it grows to 400 KiB in each direction.
            .max_buf_size(BUFFER)
            .max_headers(limits.headers);
        let service =
            service_fn(|request| answer(&self.app, progress, self.peer, &self.client, request));
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
        let streams = if self.crowded { (limits.streams / 4).max(1) } else { limits.streams };
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(streams)
            .max_header_list_size(limits.head_bytes)
            // Rapid reset and its relatives (RUSTSEC-2024-0003): the connection goes.
            .max_pending_accept_reset_streams(20)
            .max_local_error_reset_streams(20)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(1 << 20)
            .max_send_buf_size(budget::LARGE)
            .keep_alive_interval(limits.idle / 2)
            .keep_alive_timeout(limits.head);
        let (app, peer, client) = (Arc::clone(&self.app), self.peer, Arc::clone(&self.client));
        let counted = Arc::clone(progress);
        let service = service_fn(move |request| {
            let (app, progress) = (Arc::clone(&app), Arc::clone(&counted));
            let client = Arc::clone(&client);
            // A box: it is gone when the body begins, and a stream's task is as large as its
            // largest state.
            Box::pin(async move { answer(&app, &progress, peer, &client, request).await })
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
            () = self.connection.client.leave() => Verdict::Close("made room"),
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
            let error = error_chain(&error);
            tracing::debug!(peer = %self.connection.peer, error, "connection");
        }
    }

    fn closing(&self, why: &'static str) {
        self.connection.app.metrics.limited(why);
        tracing::info!(peer = %self.connection.peer, why, "connection closed");
    }
}

/// One request, with its line in the access log.
async fn answer(
    app: &Arc<App>,
    progress: &Arc<Progress>,
    peer: SocketAddr,
    client: &Place,
    request: Request<Incoming>,
) -> Result<Response<Body>, io::Error> {
    let begun = Instant::now();
    let open = progress.request();
    let admitted = client.admits();
    if !admitted {
        app.metrics.limited("client rate");
    }
    let count = |response: &Response<Body>| {
        let word = response.extensions().get().map_or("unknown", |RouteWord(word)| word);
        app.metrics.answered(word, response.status().as_u16(), begun.elapsed());
    };
    if !tracing::enabled!(target: "access", tracing::Level::INFO) {
        let response = handle(app, request, open, admitted).await;
        count(&response);
        return Ok(response);
    }
    let (method, target, version) =
        (request.method().clone(), request.uri().clone(), request.version());
    let response = handle(app, request, open, admitted).await;
    count(&response);
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

/// The threads of a server: some for the network, and at most 64 that wait for disks, which is more
/// than a disk has turns.
///
/// A thread that came once stays: where the system allows no further one later, work waits for those
/// that are there, and never for good.
pub fn threads() -> tokio::runtime::Builder {
    memory::share_heaps();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder
        .max_blocking_threads(64)
        .thread_keep_alive(Duration::from_secs(365 * 86_400))
        .enable_all();
    builder
}

/// A server on threads of its own, for programs that are not asynchronous: demos, tests. Stops
/// when dropped.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    metrics: Option<SocketAddr>,
    reloader: Reloader,
    url: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Starts a server and comes back when it accepts connections.
pub fn start(config: Config) -> Result<Running, ServerError> {
    let failed = |error| ServerError::io("start the threads of", "this process")(error);
    let runtime = threads().worker_threads(2).build().map_err(failed)?;
    let server = runtime.block_on(Server::bind(config))?;
    let (address, url) = (server.local_addr(), server.url());
    let (metrics, reloader) = (server.metrics_addr(), server.reloader());
    let (stop, stopped) = oneshot::channel();
    let serve = move || {
        runtime.block_on(server.run(async {
            // A sender dropped without a word means the same.
            let _ = stopped.await;
        }));
    };
    let thread = std::thread::Builder::new().spawn(serve).map_err(failed)?;
    Ok(Running { address, metrics, reloader, url, stop: Some(stop), thread: Some(thread) })
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

    /// Where metrics have an address of their own.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// Reads certificates and tokens again.
    pub fn reload(&self) -> Result<(), ServerError> {
        self.reloader.reload()
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
