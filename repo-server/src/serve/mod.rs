//! A server, from its configuration to its end.
//!
//! | module | does |
//! |---|---|
//! | here | opens storage, tokens and certificates; accepts until it is stopped, then lets requests end |
//! | `accept` | the listening socket, and which newcomers get a place |
//! | `connection` | TLS, HTTP/1.1, HTTP/2, limits, the access log |
//! | `linger` | lets a client read its answer before the connection ends |
//! | `chores` | garbage, timestamps, expired uploads, figures |
//! | `running` | the same on threads of its own |

mod accept;
mod chores;
mod connection;
mod linger;
mod running;

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use formats::error_chain;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use self::accept::{Admitted, admit, crowded, listen};
use self::connection::Connection;
pub use self::running::{Running, start, threads};
use crate::anchor::Anchor;
use crate::auth::Access;
use crate::budget::Budget;
use crate::clients::Clients;
use crate::config::Config;
use crate::error::ServerError;
use crate::fleet::{Fleet, FleetConfig};
use crate::handle::App;
use crate::handle::uploads::Uploads;
use crate::lock::LockRw as _;
use crate::memory::{self, CrowdWatch};
use crate::metrics::Metrics;
use crate::refresh::Refresher;
use crate::store::Store;
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
            self.app.fleet.as_ref().map(Fleet::reload).transpose()?;
            let access = Access::new(&self.config)?;
            let tls = self.config.tls.as_ref().map(tls::acceptor).transpose()?;
            Ok((access, tls))
        };
        let read = read();
        self.app.metrics.reloaded(read.is_ok());
        let (access, tls) = read?;
        *self.app.access.write_locked() = Arc::new(access);
        *self.tls.write_locked() = tls;
        Ok(())
    }

    fn tls(&self) -> Option<TlsAcceptor> {
        self.tls.read_locked().clone()
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
        refuse_open_plain_http(&config)?;
        let access = Access::new(&config)?;
        let anchor = config.refresh.root.as_deref().map(Anchor::read).transpose()?;
        let refresher = Refresher::new(&config, anchor.as_ref())?;
        let tuf = TufTree::new(config.namespace.as_deref())?;
        let tls = config.tls.as_ref().map(tls::acceptor).transpose()?;
        if config.bucket.is_some() && refresher.is_some() {
            let text =
                "--refresh-key works on a directory; run `signer refresh` for a bucket instead";
            return Err(ServerError::Config(text.to_owned()));
        }
        // A server that cannot listen makes no repository.
        let (listener, address) = listen(config.listen)?;
        let metrics = match config.metrics_listen {
            Some(address) => Some(listen(address)?),
            None => None,
        };
        let (store, uploads) = open_storage(&config).await?;
        let fleet = open_fleet(config.fleet.clone()).await?;
        let limits = config.limits.clone();
        let client_ca = config.tls.as_ref().and_then(|tls| tls.client_ca.as_ref());
        let private = config.pull_tokens.is_some() || client_ca.is_some();
        let app = App {
            store: Arc::new(store),
            access: RwLock::new(Arc::new(access)),
            uploads,
            tuf,
            read_only: config.read_only,
            private,
            metrics: Arc::new(Metrics::new()),
            metrics_elsewhere: metrics.is_some(),
            fresh: RwLock::default(),
            fills: RwLock::default(),
            alarm_before: config.alarm_before,
            anchor,
            refresher,
            signs: RwLock::default(),
            collect: config.collect,
            fleet,
            sessions: Mutex::default(),
            secure: config.tls.is_some(),
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
    /// [`Limits::drain`](crate::Limits::drain).
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Server { listener, metrics, reloader, app, .. } = self;
        let (stopping, stopped) = watch::channel(false);
        let connections = Arc::new(Semaphore::new(app.limits.connections));
        let mut stop = pin!(stop);
        let mut sweep = tokio::time::interval(chores::sweep_every(&app.limits));
        let clients = Clients::new(&app.limits);
        let (mut crowd, mut look) =
            (CrowdWatch::default(), tokio::time::interval(memory::CHECK_INTERVAL));
        let mut newcomer = None;
        let mut chores = chores::start(&app, metrics.map(|(listener, _)| listener));
        loop {
            let next = admit(&listener, &mut newcomer, &clients, &connections, &app);
            tokio::select! {
                () = &mut stop => break,
                _ = sweep.tick() => {
                    clients.forget();
                    chores::sweep_uploads(&app);
                }
                _ = look.tick() => {
                    let free = connections.available_permits();
                    if crowd.has_gone(app.limits.connections.saturating_sub(free)) {
                        tokio::task::spawn_blocking(memory::give_back);
                    }
                }
                admitted = next => match admitted {
                    Ok(Some(admitted)) => {
                        app.metrics.connections.inc();
                        let crowded = crowded(&app.limits, connections.available_permits());
                        let Admitted { stream, peer, client, place } = admitted;
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

/// Tokens and updates cross a network under TLS, unless the operator says that a proxy speaks it.
fn refuse_open_plain_http(config: &Config) -> Result<(), ServerError> {
    let plain = [config.tls.is_none().then_some(config.listen), config.metrics_listen];
    let is_open = |address: &SocketAddr| !address.ip().is_loopback() && !config.insecure_http;
    match plain.into_iter().flatten().find(is_open) {
        Some(address) => Err(ServerError::PlainHttp(address)),
        None => Ok(()),
    }
}

/// The fleet's database, if reports are taken.
async fn open_fleet(config: Option<FleetConfig>) -> Result<Option<Fleet>, ServerError> {
    let Some(config) = config else { return Ok(None) };
    let opened = tokio::task::spawn_blocking(move || Fleet::open(&config)).await;
    opened.map_err(|panic| ServerError::Config(panic.to_string()))?.map(Some)
}

/// The storage, and the uploads that earlier servers left there.
async fn open_storage(config: &Config) -> Result<(Store, Uploads), ServerError> {
    let (dir, bucket) = (config.dir.clone(), config.bucket.clone());
    let (read_only, quota, sessions) = (config.read_only, config.quota, config.limits.sessions);
    let open = move || {
        let store = match &bucket {
            Some(place) => Store::open_bucket(place, read_only, quota)?,
            None => Store::open_with(&dir, read_only, quota)?,
        };
        let uploads = Uploads::new(&store, sessions)
            .map_err(|error| ServerError::Store { path: dir, why: error_chain(&error) })?;
        Ok((store, uploads))
    };
    // Work for a thread that cannot be started would never be done.
    let spawned = std::thread::Builder::new().spawn(|| {});
    spawned.map(drop).map_err(ServerError::io("start a thread of", "this process"))?;
    let opened = tokio::task::spawn_blocking(open).await;
    opened.map_err(|panic| ServerError::Config(panic.to_string()))?
}
