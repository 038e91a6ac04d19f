//! Opening connections and keeping idle ones.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use formats::error_chain;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use registry_auth::address::may_connect;
use registry_auth::explain;

use super::{Distance, HttpError, Options, Origin, Scheme, proxy};

/// 64 KiB: the read buffer of a connection, and with it the largest head of an answer.
const BUFFER: usize = 64 << 10;

/// 64 headers: registries send about fifteen.
const HEADERS: usize = 64;

/// 512 KiB: what an HTTP/2 server may send ahead; bounds memory per connection.
const H2_WINDOW: u32 = 512 << 10;

/// Idle connections kept per origin.
const IDLE: usize = 4;

/// A connection that can take the next request.
pub(crate) struct Connection {
    sender: Sender,
    /// Where its address is.
    pub(crate) distance: Distance,
    /// Whether it has carried a request before, so that its end says nothing about this one.
    pub(crate) reused: bool,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    pub(crate) fn is_http2(&self) -> bool {
        matches!(self.sender, Sender::Http2(_))
    }

    pub(crate) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> hyper::Result<Response<Incoming>> {
        match &mut self.sender {
            Sender::Http1(sender) => sender.send_request(request).await,
            Sender::Http2(sender) => sender.send_request(request).await,
        }
    }

    async fn is_ready(&mut self) -> bool {
        let ready = async {
            match &mut self.sender {
                Sender::Http1(sender) => sender.ready().await.is_ok(),
                Sender::Http2(sender) => sender.ready().await.is_ok(),
            }
        };
        // A connection that has been used up is ready at once; one that is not is left behind.
        timeout(Duration::from_millis(500), ready).await.unwrap_or(false)
    }
}

/// Idle connections per origin.
#[derive(Default)]
pub(crate) struct Pool(Mutex<BTreeMap<Origin, Vec<Connection>>>);

impl Pool {
    /// An idle connection that still lives. A shared HTTP/2 connection stays in the pool.
    pub(crate) async fn take(&self, origin: &Origin) -> Option<Connection> {
        loop {
            let mut connection = self.lock().get_mut(origin)?.pop()?;
            if connection.is_ready().await {
                connection.reused = true;
                if let Sender::Http2(sender) = &connection.sender {
                    let sender = Sender::Http2(sender.clone());
                    let shared = Connection { sender, ..connection };
                    self.put(origin, shared);
                }
                return Some(connection);
            }
        }
    }

    /// Keeps a connection whose last answer was read to its end.
    pub(crate) fn put(&self, origin: &Origin, connection: Connection) {
        let mut pool = self.lock();
        let idle = pool.entry(origin.clone()).or_default();
        if idle.len() < IDLE && !(connection.is_http2() && idle.iter().any(Connection::is_http2)) {
            idle.push(connection);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Origin, Vec<Connection>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who sent us here: the last origin, and the farthest distance on the way.
#[derive(Debug, Clone)]
pub(crate) struct Via {
    pub(crate) from: Origin,
    pub(crate) distance: Distance,
}

impl Via {
    /// Refuses addresses nearer than where we come from.
    pub(crate) fn check(&self, to: &Origin, distance: Distance) -> Result<(), HttpError> {
        may_connect(self.distance, distance).map_err(|why| HttpError::Redirect {
            from: self.from.to_string(),
            to: to.to_string(),
            why,
        })
    }
}

/// Connects, through a proxy where one is set, negotiates TLS and HTTP, and starts the task that
/// drives the connection.
pub(crate) async fn dial(
    origin: &Origin,
    via: Option<&Via>,
    options: &Options,
    tls: Option<Arc<ClientConfig>>,
) -> Result<Connection, HttpError> {
    let limits = &options.limits;
    let proxy = options.proxies.of(origin);
    let (mut stream, distance) = match proxy {
        None => {
            let (stream, address) = dial_tcp(origin, via, limits.connect).await?;
            (stream, Distance::of(address))
        }
        Some(proxy) => {
            // The proxy resolves names: ours is only what their text tells.
            let distance = Distance::of_host(origin.host());
            if let Some(via) = via {
                via.check(origin, distance)?;
            }
            let dialed = dial_tcp(proxy.origin(), None, limits.connect).await;
            let lost = |error| proxy::failed(proxy, origin, &format!("cannot be used: {error}"));
            (dialed.map_err(lost)?.0, distance)
        }
    };
    // Answers are requested one by one; delaying a small request only costs time.
    let _ = stream.set_nodelay(true);
    let late = || HttpError::Timeout {
        origin: origin.to_string(),
        phase: "TLS and HTTP handshake",
        after: limits.handshake,
    };
    let sender = timeout(limits.handshake, async {
        match (origin.scheme(), tls) {
            (Scheme::Http, _) => handshake_http1(origin, stream).await,
            (Scheme::Https, Some(config)) => {
                if let Some(proxy) = proxy {
                    proxy::tunnel(proxy, &mut stream, origin).await?;
                }
                handshake_tls(origin, stream, config).await
            }
            (Scheme::Https, None) => unreachable!("the client loads TLS before it dials https"),
        }
    });
    let sender = sender.await.map_err(|_| late())??;
    Ok(Connection { sender, distance, reused: false })
}

async fn handshake_tls(
    origin: &Origin,
    stream: TcpStream,
    config: Arc<ClientConfig>,
) -> Result<Sender, HttpError> {
    let fail = |why| HttpError::Tls { origin: origin.to_string(), why };
    let name = ServerName::try_from(origin.host().to_owned())
        .map_err(|_| fail("the host is no name a certificate could have".to_owned()))?;
    let stream = TlsConnector::from(config).connect(name, stream).await.map_err(|error| {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(inner) => fail(explain::tls(inner, &explain::SOURCE)),
            // The connection itself failed: trying again may help.
            None => HttpError::Broken { origin: origin.to_string(), why: error.to_string() },
        }
    })?;
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        handshake_http2(origin, stream).await
    } else {
        handshake_http1(origin, stream).await
    }
}

async fn handshake_http1<S>(origin: &Origin, stream: S) -> Result<Sender, HttpError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(BUFFER)
        .max_headers(HEADERS)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| from_hyper(origin, &error))?;
    tokio::spawn(connection);
    Ok(Sender::Http1(sender))
}

async fn handshake_http2<S>(origin: &Origin, stream: S) -> Result<Sender, HttpError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(H2_WINDOW)
        .initial_connection_window_size(H2_WINDOW)
        .max_header_list_size(BUFFER as u32)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| from_hyper(origin, &error))?;
    tokio::spawn(connection);
    Ok(Sender::Http2(sender))
}

/// Resolves the host and connects to the first of its addresses that answers, all within `limit`.
pub(crate) async fn dial_tcp(
    origin: &Origin,
    via: Option<&Via>,
    limit: Duration,
) -> Result<(TcpStream, IpAddr), HttpError> {
    let late =
        || HttpError::Timeout { origin: origin.to_string(), phase: "connection", after: limit };
    let start = Instant::now();
    let found = timeout(limit, resolve(origin)).await.map_err(|_| late())??;
    let mut refused = None;
    let mut addresses = Vec::new();
    for address in found {
        match via.map_or(Ok(()), |via| via.check(origin, Distance::of(address.ip()))) {
            Ok(()) => addresses.push(address),
            Err(error) => refused = Some(error),
        }
    }
    let mut last = refused.unwrap_or_else(|| HttpError::Unreachable {
        origin: origin.to_string(),
        why: "the name has no address".to_owned(),
    });
    for (tried, address) in addresses.iter().enumerate() {
        // An address that swallows packets must leave time for the next one.
        let left = limit.saturating_sub(start.elapsed());
        let share = left / u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        last = match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok((stream, address.ip())),
            Ok(Err(error)) => {
                HttpError::Unreachable { origin: origin.to_string(), why: error.to_string() }
            }
            Err(_) => late(),
        };
    }
    Err(last)
}

async fn resolve(origin: &Origin) -> Result<Vec<SocketAddr>, HttpError> {
    if let Ok(ip) = origin.host().parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, origin.port())]);
    }
    let name = (origin.host().to_owned(), origin.port());
    let (tell, told) = tokio::sync::oneshot::channel();
    // Of our own: tokio's panics where the system starts no thread. A hanging one is left behind.
    let asked = std::thread::Builder::new().spawn(move || {
        // Eight: a name with more addresses is tried no longer.
        let found = name.to_socket_addrs().map(|found| found.take(8).collect());
        // The receiver is gone once the wait has timed out.
        let _ = tell.send(found);
    });
    let found = match asked {
        Ok(_) => told.await.unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into())),
        Err(error) => Err(error),
    };
    found.map_err(|error| HttpError::Unreachable {
        origin: origin.to_string(),
        why: format!("its name cannot be resolved: {error}"),
    })
}

/// What an error of the connection means: HTTP broken, or the connection gone.
pub(crate) fn from_hyper(origin: &Origin, error: &hyper::Error) -> HttpError {
    // In TLS 1.3 a server refuses a client's certificate after the handshake.
    if let Some(tls) = explain::tls_cause(error) {
        let why = explain::tls(tls, &explain::SOURCE);
        return HttpError::Tls { origin: origin.to_string(), why };
    }
    let mut why = error_chain(error);
    let origin = origin.to_string();
    // A TLS alert is no HTTP version, and it is the first that a TLS server answers.
    if why.contains("invalid HTTP version") && origin.starts_with("http://") {
        why.push_str("; it may speak TLS on this port: leave out plain_http");
    }
    if error.is_parse() || error.is_parse_too_large() {
        HttpError::Protocol { origin, why }
    } else {
        HttpError::Broken { origin, why }
    }
}
