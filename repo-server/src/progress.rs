//! Is a connection worth keeping? Counts what moves on it and decides, at every tick, by
//! [`Limits`]. Only [`Progress`] knows the clock.
//!
//! | rule | closes |
//! |---|---|
//! | first head | a client that connects (and maybe shakes hands) and asks nothing |
//! | idle | a client that asks nothing more |
//! | stall | a body of which nothing moves, whichever side waits |
//! | rate | a body that moves, but slower than [`Limits::min_rate`] |
//! | age | politely, a connection that is old |

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::budget::ConnectionBudget;
use crate::config::Limits;
use crate::lock::LockMutex as _;
use crate::metrics::Metrics;

/// What moves on one connection.
#[derive(Debug)]
pub(crate) struct Progress {
    started: Instant,
    metrics: Arc<Metrics>,
    share: ConnectionBudget,
    /// Bytes in both directions.
    wire: AtomicU64,
    /// Requests begun.
    requests: AtomicU64,
    /// Requests begun and not yet answered to the last byte.
    open: AtomicUsize,
    /// Bodies on their way, in or out.
    bodies: AtomicUsize,
    /// The last request over HTTP/1.1 came with a body of which the end was not read.
    unread: AtomicBool,
    /// Milliseconds after `started`.
    last_request_end: AtomicU64,
    last_read: AtomicU64,
    last_write: AtomicU64,
    last_body: AtomicU64,
    window: Mutex<Option<Window>>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    since: Instant,
    wire: u64,
}

/// What to do with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing.
    Keep,
    /// Take no further request.
    Finish,
    /// Drop it now.
    Close(&'static str),
}

/// What a connection is about, for the choice of who makes room for a newcomer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Idleness {
    /// No request is under way.
    Idle {
        /// Since the last one was answered, or since it connected.
        asked: Duration,
        /// Since a byte was last sent.
        wrote: Duration,
    },
    /// A body is on its way, and nothing of it has moved for so long.
    Stalled(Duration),
    /// The server has something to do for it.
    Working,
}

impl Progress {
    pub(crate) fn new(metrics: Arc<Metrics>, share: ConnectionBudget) -> Arc<Self> {
        Arc::new(Progress {
            metrics,
            share,
            started: Instant::now(),
            wire: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            bodies: AtomicUsize::new(0),
            unread: AtomicBool::new(false),
            last_request_end: AtomicU64::new(0),
            last_read: AtomicU64::new(0),
            last_write: AtomicU64::new(0),
            last_body: AtomicU64::new(0),
            window: Mutex::new(None),
        })
    }

    /// The room this connection has for what it sends.
    pub(crate) fn share(&self) -> &ConnectionBudget {
        &self.share
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn since(&self, mark: &AtomicU64) -> Duration {
        let at = Duration::from_millis(mark.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(at)
    }

    /// A request has begun; it ends when the value is dropped.
    pub(crate) fn request(self: &Arc<Self>) -> RequestOpen {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        RequestOpen(Arc::clone(self))
    }

    /// Whether a request comes with a body, and its end is still to be read.
    pub(crate) fn set_unread_body(&self, unread: bool) {
        self.unread.store(unread, Ordering::Relaxed);
    }

    /// Whether the client may still be sending a body that the server does not read.
    pub(crate) fn has_unread_body(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// A body is on its way until the value is dropped.
    pub(crate) fn body(self: &Arc<Self>) -> BodyOpen {
        self.moved();
        self.bodies.fetch_add(1, Ordering::Relaxed);
        BodyOpen(Arc::clone(self))
    }

    fn moved(&self) {
        self.last_body.store(self.now(), Ordering::Relaxed);
    }

    /// What it is about now.
    pub(crate) fn idleness(&self) -> Idleness {
        if self.open.load(Ordering::Relaxed) == 0 {
            let (asked, wrote) = (self.since(&self.last_request_end), self.since(&self.last_write));
            Idleness::Idle { asked, wrote }
        } else if self.bodies.load(Ordering::Relaxed) == 0 {
            Idleness::Working
        } else {
            let moved = [&self.last_read, &self.last_write].map(|mark| self.since(mark));
            Idleness::Stalled(moved.into_iter().fold(self.since(&self.last_body), Duration::min))
        }
    }

    /// How often to ask [`Progress::verdict`].
    pub(crate) fn tick(limits: &Limits) -> Duration {
        let shortest = limits.head.min(limits.idle).min(limits.stall).min(limits.rate_window);
        (shortest / 4).clamp(Duration::from_millis(10), Duration::from_secs(5))
    }

    /// What the limits say about this connection now.
    pub(crate) fn verdict(&self, limits: &Limits) -> Verdict {
        let age = self.started.elapsed();
        if self.open.load(Ordering::Relaxed) == 0 {
            *self.window.locked() = None;
            if self.requests.load(Ordering::Relaxed) == 0 {
                return if age > limits.head {
                    Verdict::Close("no request")
                } else {
                    Verdict::Keep
                };
            }
            // Writing on after the last request is the rest of an answer leaving our buffers;
            // answering pings is not, so there is an end to that as well.
            let quiet = self.since(&self.last_request_end);
            let written = self.since(&self.last_write);
            if quiet > limits.idle * 4 || (quiet > limits.idle && written > limits.idle) {
                return Verdict::Close("idle");
            }
        } else if self.bodies.load(Ordering::Relaxed) == 0 {
            // We are working, the client waits.
            *self.window.locked() = None;
        } else {
            if self.since(&self.last_body) > limits.stall {
                return Verdict::Close("stalled");
            }
            if self.too_slow(limits) {
                return Verdict::Close("too slow");
            }
        }
        if age > limits.max_age { Verdict::Finish } else { Verdict::Keep }
    }

    fn too_slow(&self, limits: &Limits) -> bool {
        let wire = self.wire.load(Ordering::Relaxed);
        let mut window = self.window.locked();
        let begun = *window.get_or_insert(Window { since: Instant::now(), wire });
        let lasted = begun.since.elapsed();
        if lasted < limits.rate_window {
            return false;
        }
        *window = Some(Window { since: Instant::now(), wire });
        let wanted = u128::from(limits.min_rate) * lasted.as_millis() / 1000;
        u128::from(wire.saturating_sub(begun.wire)) < wanted
    }
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct RequestOpen(Arc<Progress>);

impl RequestOpen {
    pub(crate) fn progress(&self) -> &Arc<Progress> {
        &self.0
    }
}

impl Drop for RequestOpen {
    fn drop(&mut self) {
        self.0.last_request_end.store(self.0.now(), Ordering::Relaxed);
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A body on its way.
#[derive(Debug)]
pub(crate) struct BodyOpen(Arc<Progress>);

impl BodyOpen {
    /// A piece of it has moved.
    pub(crate) fn moved(&self) {
        self.0.moved();
    }
}

impl Drop for BodyOpen {
    fn drop(&mut self) {
        self.0.bodies.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection whose bytes are counted.
#[derive(Debug)]
pub(crate) struct CountedStream<T> {
    pub(crate) inner: T,
    pub(crate) progress: Arc<Progress>,
}

impl<T> CountedStream<T> {
    fn wrote(&self, bytes: usize) {
        self.progress.wire.fetch_add(bytes as u64, Ordering::Relaxed);
        self.progress.metrics.sent.inc_by(bytes as u64);
        self.progress.last_write.store(self.progress.now(), Ordering::Relaxed);
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for CountedStream<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        let read = buf.filled().len().saturating_sub(before) as u64;
        if read > 0 {
            self.progress.last_read.store(self.progress.now(), Ordering::Relaxed);
        }
        self.progress.wire.fetch_add(read, Ordering::Relaxed);
        self.progress.metrics.received.inc_by(read);
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for CountedStream<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        if let Poll::Ready(Ok(bytes)) = polled {
            self.wrote(bytes);
        }
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(bytes)) = polled {
            self.wrote(bytes);
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
