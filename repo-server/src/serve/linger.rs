//! A clean end of an answer (lingering close, as nginx calls it).
//!
//! A server that closes a connection while the client is still sending makes the kernel answer the
//! client's next bytes with a reset, and the client loses the answer that it had not read yet: a push
//! with a wrong token sees "connection reset" instead of 401. So only the sending side is closed at
//! first. What still comes is read and dropped, at most [`BYTES`]; after [`TIME`], or when the client
//! closes, the connection ends. It counts as idle meanwhile: it makes room for a newcomer.

use std::future::Future as _;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::progress::Progress;

/// 1 MiB: what clients have sent of a body, mostly, before they see the answer. Of what is longer the
/// rest stays in the kernel, and the client waits until it reads the answer.
const BYTES: usize = 1 << 20;

/// 2 seconds: several round trips on the slowest line.
const TIME: Duration = Duration::from_secs(2);

/// A stream that lingers when it is shut down before the client has sent everything.
#[derive(Debug)]
pub(super) struct Lingering<T> {
    inner: T,
    progress: Arc<Progress>,
    state: State,
}

#[derive(Debug)]
enum State {
    Open,
    /// The sending side is closed.
    Closed,
    /// It is, and something may still come: so many bytes are dropped, until then.
    Lingers(usize, Pin<Box<Sleep>>),
}

impl<T> Lingering<T> {
    pub(super) fn new(inner: T, progress: &Arc<Progress>) -> Self {
        Lingering { inner, progress: Arc::clone(progress), state: State::Open }
    }
}

impl<T: AsyncRead + Unpin> Lingering<T> {
    /// Reads one piece and drops it: how many bytes, none when the client has closed.
    fn poll_drop(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        let mut piece = [MaybeUninit::uninit(); 8 << 10];
        let mut piece = ReadBuf::uninit(&mut piece);
        // After an error nothing more comes.
        let read = ready!(Pin::new(&mut self.inner).poll_read(cx, &mut piece));
        Poll::Ready(read.map_or(0, |()| piece.filled().len()))
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let State::Closed = self.state {
            let polled = self.poll_drop(cx);
            match polled {
                Poll::Ready(0) => return Poll::Ready(()),
                Poll::Pending if !self.progress.has_unread_body() => return Poll::Ready(()),
                _ => {}
            }
            self.state = State::Lingers(BYTES, Box::pin(tokio::time::sleep(TIME)));
        }
        loop {
            let State::Lingers(left, until) = &mut self.state else { return Poll::Ready(()) };
            if until.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            if *left == 0 {
                return Poll::Pending;
            }
            let dropped = ready!(self.poll_drop(cx));
            if dropped == 0 {
                return Poll::Ready(());
            }
            if let State::Lingers(left, _) = &mut self.state {
                *left = left.saturating_sub(dropped);
            }
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Lingering<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let State::Open = self.state {
            ready!(Pin::new(&mut self.inner).poll_shutdown(cx))?;
            self.state = State::Closed;
        }
        self.poll_linger(cx).map(Ok)
    }
}
