//! Bodies of answers: a few bytes, or part of a blob read piece by piece as the client takes it.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use storage::layout::Blob;
use tokio::task::JoinHandle;

use crate::progress::{BodyOpen, RequestOpen};
use crate::store::chain;

/// 128 KiB: what one answer holds in memory at a time.
const PIECE: u64 = 128 << 10;

/// The body of an answer.
#[derive(Debug)]
pub(crate) struct Body {
    content: Content,
    /// Dropped with the body, which is when the connection has taken all of it.
    open: Option<(RequestOpen, BodyOpen)>,
}

#[derive(Debug)]
enum Content {
    Bytes(Bytes),
    Blob { blob: Blob, at: u64, end: u64, reading: Option<JoinHandle<io::Result<Bytes>>> },
}

impl Body {
    /// Nothing.
    pub(crate) fn empty() -> Self {
        Body::bytes(Bytes::new())
    }

    /// These bytes.
    pub(crate) fn bytes(bytes: impl Into<Bytes>) -> Self {
        Body { content: Content::Bytes(bytes.into()), open: None }
    }

    /// A verified blob's bytes from `at` to `end`, which lies inside the blob.
    pub(crate) fn blob(blob: Blob, at: u64, end: u64) -> Self {
        Body { content: Content::Blob { blob, at, end, reading: None }, open: None }
    }

    /// Bytes still to come.
    pub(crate) fn left(&self) -> u64 {
        match &self.content {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Blob { at, end, .. } => end.saturating_sub(*at),
        }
    }

    pub(crate) fn held(mut self, request: RequestOpen) -> Self {
        let body = request.progress().body();
        self.open = Some((request, body));
        self
    }
}

fn read(blob: &Blob, at: u64, len: u64) -> io::Result<Bytes> {
    let mut piece = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    blob.read_at(&mut piece, at).map_err(|error| io::Error::other(chain(&error)))?;
    Ok(Bytes::from(piece))
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        let piece = match &mut this.content {
            Content::Bytes(bytes) => std::mem::take(bytes),
            Content::Blob { blob, at, end, reading } => {
                let len = PIECE.min(end.saturating_sub(*at));
                if len == 0 {
                    return Poll::Ready(None);
                }
                let running = reading.get_or_insert_with(|| {
                    let (blob, at) = (blob.clone(), *at);
                    tokio::task::spawn_blocking(move || read(&blob, at, len))
                });
                let read = ready!(Pin::new(running).poll(cx));
                *reading = None;
                match read.map_err(io::Error::other).and_then(|read| read) {
                    Ok(piece) => {
                        *at += piece.len() as u64;
                        piece
                    }
                    Err(error) => {
                        // The connection is cut, so the client sees that bytes are missing.
                        tracing::error!(%error, "blob cannot be read to its end");
                        return Poll::Ready(Some(Err(error)));
                    }
                }
            }
        };
        if let Some((_, body)) = &this.open {
            body.moved();
        }
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left())
    }
}
