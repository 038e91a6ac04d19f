//! `metrics.listen`: answers `GET /metrics` while the daemon runs.
//!
//! One thread, whatever the daemon does meanwhile. Bounded in connections, in time and in memory: a page is
//! made at most once in [`PAGE_AGE`], for all who ask. The thread ends with the process.

use std::convert::Infallible;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::page::Page;
use crate::agent::Agent;
use crate::config::Listen;

/// At once: a Prometheus or two, and a person.
const CONNECTIONS: usize = 4;
/// Of a connection, from its first byte to its last, however many requests it has.
const CONNECTION_TIME: Duration = Duration::from_secs(30);
/// Of a request's head: a slow client holds one of [`CONNECTIONS`] no longer.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// Of a request's head, the smallest that hyper has.
const HEAD_BYTES: usize = 8192;
/// How old a page may be: the disk is not read for each of many requests.
const PAGE_AGE: Duration = Duration::from_secs(2);
/// A place that cannot be had is asked for again: its holder may end.
const AGAIN: Duration = Duration::from_secs(30);

/// The mode of a Unix socket: the agent's user and group.
const SOCKET_MODE: u32 = 0o660;

/// Begins to listen, if the configuration says where. Trouble is logged and changes nothing else.
pub(crate) fn start_listener(agent: &Agent) {
    let Some(listen) = agent.config.metrics.listen.clone() else { return };
    let started = agent.observer().map_err(|error| error.chain()).and_then(|agent| {
        let serve = move || serve(&listen, agent);
        std::thread::Builder::new()
            .name("metrics".to_owned())
            .spawn(serve)
            .map_err(|error| error.to_string())
    });
    if let Err(error) = started {
        tracing::warn!("metrics.listen is not served: {error}");
    }
}

fn serve(listen: &Listen, agent: Agent) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().max_blocking_threads(1).build();
    match runtime {
        Ok(runtime) => runtime.block_on(accept_all(listen, Arc::new(Pages::new(agent)))),
        Err(error) => tracing::warn!("metrics.listen is not served: {error}"),
    }
}

/// Until the process ends.
async fn accept_all(listen: &Listen, pages: Arc<Pages>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let listener = bind_at_last(listen).await;
    tracing::info!("metrics are at {}", listener.place(listen));
    loop {
        // Never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { continue };
        let accepted = match &listener {
            Listener::Tcp(tcp) => tcp.accept().await.map(|(stream, _)| Stream::Tcp(stream)),
            Listener::Unix(unix) => unix.accept().await.map(|(stream, _)| Stream::Unix(stream)),
        };
        let pages = Arc::clone(&pages);
        match accepted {
            Ok(Stream::Tcp(stream)) => drop(tokio::spawn(answer(stream, pages, place))),
            Ok(Stream::Unix(stream)) => drop(tokio::spawn(answer(stream, pages, place))),
            // Out of descriptors, or a client that left already.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

enum Stream {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

impl Listener {
    async fn bind(listen: &Listen) -> io::Result<Self> {
        match listen {
            Listen::Tcp(address) => Ok(Listener::Tcp(TcpListener::bind(address).await?)),
            Listen::Unix(path) => {
                remove_abandoned(path)?;
                let listener = UnixListener::bind(path)?;
                fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))?;
                Ok(Listener::Unix(listener))
            }
        }
    }

    /// With the port that the system chose, where that was asked for.
    fn place(&self, listen: &Listen) -> String {
        match self {
            Listener::Tcp(tcp) => {
                tcp.local_addr().map_or_else(|_| listen.to_string(), |at| at.to_string())
            }
            Listener::Unix(_) => listen.to_string(),
        }
    }
}

async fn bind_at_last(listen: &Listen) -> Listener {
    let mut told = None;
    loop {
        match Listener::bind(listen).await {
            Ok(listener) => return listener,
            Err(error) => {
                let text = format!("metrics.listen {listen} is not served yet: {error}");
                if told.as_ref() != Some(&text) {
                    tracing::warn!("{text}");
                }
                told = Some(text);
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Removes a socket that nobody listens on, which a killed agent leaves. Anything else stays.
fn remove_abandoned(path: &Path) -> io::Result<()> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    match is_socket && UnixStream::connect(path).is_err_and(refused) {
        true => fs::remove_file(path),
        false => Ok(()),
    }
}

async fn answer<S>(stream: S, pages: Arc<Pages>, place: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let place = Arc::new(place);
    let service = service_fn(|request| respond(request, Arc::clone(&pages), Arc::clone(&place)));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(HEAD_BYTES);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    // Who goes away in the middle had what he wanted.
    let _ = tokio::time::timeout(CONNECTION_TIME, connection).await;
}

async fn respond(
    request: Request<Incoming>,
    pages: Arc<Pages>,
    place: Arc<OwnedSemaphorePermit>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() != "/metrics" {
        return Ok(plain(StatusCode::NOT_FOUND, "the metrics are at /metrics\n"));
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n");
        refused.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
        return Ok(refused);
    }
    // On a thread of its own: a disk may take its time. It keeps the connection's place, so that pages which
    // nobody waits for any more do not queue up.
    let made = tokio::task::spawn_blocking(move || {
        let page = pages.newest();
        drop(place);
        page
    });
    let Ok(page) = made.await else {
        return Ok(plain(StatusCode::INTERNAL_SERVER_ERROR, "the page could not be made\n"));
    };
    let (media_type, text) = match wants_openmetrics(request.headers()) {
        true => (Page::OPENMETRICS_TYPE, page.openmetrics()),
        false => (Page::TEXT_TYPE, page.text()),
    };
    let mut response = plain(StatusCode::OK, text);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Prometheus names what it can read, and prefers OpenMetrics; curl and browsers get text.
fn wants_openmetrics(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut named = accepted.flat_map(|value| value.split(','));
    named.any(|one| {
        let mut parts = one.split(';').map(str::trim);
        let is_it = parts
            .next()
            .is_some_and(|kind| kind.eq_ignore_ascii_case("application/openmetrics-text"));
        is_it && !parts.any(|parameter| matches!(parameter, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
}

/// The newest page.
struct Pages {
    agent: Agent,
    newest: Mutex<Option<(Instant, Page)>>,
}

impl Pages {
    fn new(agent: Agent) -> Self {
        Pages { agent, newest: Mutex::default() }
    }

    fn newest(&self) -> Page {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        match &*newest {
            Some((made, page)) if made.elapsed() < PAGE_AGE => page.clone(),
            _ => {
                let page = Page::of(&self.agent);
                *newest = Some((Instant::now(), page.clone()));
                page
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_for_who_asks_for_it() {
        for (accept, wanted) in [
            (None, false),
            (Some("*/*"), false),
            (Some("text/html,application/xhtml+xml"), false),
            (
                Some(
                    "application/openmetrics-text;version=1.0.0;q=0.75,\
                     text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                ),
                true,
            ),
            (Some("text/plain;version=0.0.4, Application/OpenMetrics-Text"), true),
            (Some("application/openmetrics-text; q=0, */*"), false),
            (Some("application/openmetrics-text-not"), false),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(header::ACCEPT, accept.parse().unwrap());
            }
            assert_eq!(wants_openmetrics(&headers), wanted, "{accept:?}");
        }
    }

    #[test]
    fn only_a_socket_without_a_listener_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.sock");
        remove_abandoned(&path).unwrap();
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        remove_abandoned(&path).unwrap();
        assert!(path.exists(), "somebody listens on it");
        drop(listener);
        remove_abandoned(&path).unwrap();
        assert!(!path.exists());
        fs::write(&path, "a file").unwrap();
        remove_abandoned(&path).unwrap();
        assert!(path.exists(), "it is no socket");
    }
}
