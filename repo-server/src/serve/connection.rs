//! One accepted connection: TLS, HTTP/1.1 or HTTP/2, limits, the access log.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use formats::error_chain;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_rustls::TlsAcceptor;

use super::accept::UNSENT;
use super::linger::Lingering;
use crate::body::Body;
use crate::budget;
use crate::clients::ConnectionSlot;
use crate::handle::{App, RouteWord, handle};
use crate::memory;
use crate::progress::{CountedStream, Progress, Verdict};
use crate::tls;

/// 32 KiB: what a connection holds of what it reads, and what it has to have sent before it takes
/// another piece. A head is smaller, see [`Limits::head_bytes`](crate::config::Limits::head_bytes).
const BUFFER: usize = 32 << 10;

/// 16 KiB: the largest TLS record, which is what a session holds of what it has encrypted.
const RECORD: usize = 16 << 10;

/// One accepted connection.
pub(super) struct Connection {
    pub(super) app: Arc<App>,
    pub(super) peer: SocketAddr,
    pub(super) stopped: watch::Receiver<bool>,
    pub(super) crowded: bool,
    pub(super) client: Arc<ConnectionSlot>,
    pub(super) _place: OwnedSemaphorePermit,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.app.metrics.connections.dec();
    }
}

impl Connection {
    pub(super) async fn serve(self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        // Answers are written whole; waiting for more only delays the last packet.
        let _ = stream.set_nodelay(true);
        if self.crowded
            && let Err(error) = memory::bound_unsent(&stream, UNSENT / 8)
        {
            tracing::debug!(%error, "bound what is not sent");
        }
        let progress = Progress::new(Arc::clone(&self.app.metrics), self.app.budget.share());
        self.client.serves(&progress);
        let stream = CountedStream { inner: stream, progress: Arc::clone(&progress) };
        let stream = Lingering::new(stream, &progress);
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
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        Watched::new(&self, progress).drive(connection).await;
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
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        Watched::new(&self, progress).drive(connection).await;
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

    /// Runs the connection to its end, or to what the limits say of it.
    async fn drive(mut self, connection: impl GracefulConnection<Error = hyper::Error>) {
        let mut connection = pin!(connection);
        loop {
            tokio::select! {
                done = connection.as_mut() => return self.ended(done),
                verdict = self.next() => match verdict {
                    Verdict::Keep => {}
                    Verdict::Finish => connection.as_mut().graceful_shutdown(),
                    Verdict::Close(why) => return self.closing(why),
                },
            }
        }
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
    client: &ConnectionSlot,
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
