//! Bodies of answers: a few bytes, or part of a blob read piece by piece as the client takes it.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::task::JoinHandle;

use crate::progress::{BodyOpen, RequestOpen};
use crate::store::backend::Pieces;
use crate::store::{StoreError, chain};

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
    Blob { pieces: Option<Box<dyn Pieces>>, left: u64, reading: Option<Reading> },
}

/// The next piece on its way, and where the one after it comes from.
type Reading = JoinHandle<(Box<dyn Pieces>, Result<Bytes, StoreError>)>;

impl Body {
    /// Nothing.
    pub(crate) fn empty() -> Self {
        Body::bytes(Bytes::new())
    }

    /// These bytes.
    pub(crate) fn bytes(bytes: impl Into<Bytes>) -> Self {
        Body { content: Content::Bytes(bytes.into()), open: None }
    }

    /// `left` bytes of a verified blob.
    pub(crate) fn blob(pieces: Box<dyn Pieces>, left: u64) -> Self {
        Body { content: Content::Blob { pieces: Some(pieces), left, reading: None }, open: None }
    }

    /// Bytes still to come.
    pub(crate) fn left(&self) -> u64 {
        match &self.content {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Blob { left, .. } => *left,
        }
    }

    pub(crate) fn held(mut self, request: RequestOpen) -> Self {
        let body = request.progress().body();
        self.open = Some((request, body));
        self
    }
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
            Content::Blob { pieces, left, reading } => {
                if *left == 0 {
                    return Poll::Ready(None);
                }
                if let Some(mut pieces) = pieces.take() {
                    let next = move || {
                        let piece = pieces.next();
                        (pieces, piece)
                    };
                    *reading = Some(tokio::task::spawn_blocking(next));
                }
                let Some(running) = reading else { return Poll::Ready(None) };
                let read = match ready!(Pin::new(running).poll(cx)) {
                    Ok((rest, piece)) => {
                        *pieces = Some(rest);
                        piece.map_err(|error| chain(&error))
                    }
                    Err(panic) => Err(panic.to_string()),
                };
                *reading = None;
                match read {
                    Ok(piece) if !piece.is_empty() && piece.len() as u64 <= *left => {
                        *left -= piece.len() as u64;
                        piece
                    }
                    other => {
                        // The connection is cut, so the client sees that bytes are missing.
                        let error = other.err().unwrap_or_else(|| "its length changed".to_owned());
                        tracing::error!(%error, "blob cannot be read to its end");
                        *left = 0;
                        return Poll::Ready(Some(Err(io::Error::other(error))));
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
