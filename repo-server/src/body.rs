//! Bodies of answers: a few bytes, or part of a blob read piece by piece as the client takes it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use formats::error_chain;
use hyper::body::{Frame, SizeHint};
use tokio::task::JoinHandle;

use crate::budget::{Budget, Room, Share};
use crate::progress::{BodyOpen, RequestOpen};
use crate::store::StoreError;
use crate::store::backend::Pieces;

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
    /// The same, and they take up room already.
    Counted(Bytes),
    /// A box: most bodies of a crowd wait, and each takes as much memory as the largest.
    Blob(Box<Reader>),
}

/// What is still to be read of a blob.
#[derive(Debug)]
struct Reader {
    share: Share,
    pieces: Option<Box<dyn Pieces>>,
    left: u64,
    step: Step,
}

enum Step {
    /// The next piece has not been asked for.
    Begin,
    /// There is no room for it.
    Wait(Pin<Box<dyn Future<Output = Option<Room>> + Send>>),
    /// It is on its way, and so is where the one after it comes from.
    Read(JoinHandle<(Box<dyn Pieces>, Result<Bytes, StoreError>)>),
}

impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Step::Begin => "begin",
            Step::Wait(_) => "wait",
            Step::Read(_) => "read",
        })
    }
}

impl Reader {
    /// The next piece, which takes up room until the connection has sent it.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, String>> {
        loop {
            let room = match &mut self.step {
                Step::Begin => match self.share.now(self.left) {
                    Some(room) => Some(room),
                    None => {
                        self.step = Step::Wait(Box::pin(self.share.clone().wait()));
                        continue;
                    }
                },
                Step::Wait(room) => ready!(room.as_mut().poll(cx)),
                Step::Read(running) => {
                    let read = ready!(Pin::new(running).poll(cx));
                    self.step = Step::Begin;
                    return Poll::Ready(match read {
                        Ok((rest, piece)) => {
                            self.pieces = Some(rest);
                            piece.map_err(|error| error_chain(&error))
                        }
                        Err(panic) => Err(panic.to_string()),
                    });
                }
            };
            let (Some(room), Some(mut pieces)) = (room, self.pieces.take()) else {
                return Poll::Ready(Err("an earlier piece was not read".to_owned()));
            };
            let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(room.bytes());
            self.step = Step::Read(tokio::task::spawn_blocking(move || {
                let piece = pieces.next(most).map(|piece| room.holding(piece));
                (pieces, piece)
            }));
        }
    }
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

    /// These bytes, which take up room already, see [`Budget::document`].
    pub(crate) fn document(bytes: Bytes) -> Self {
        Body { content: Content::Counted(bytes), open: None }
    }

    /// The same body; its bytes take up room from now on. `None` when there is none.
    pub(crate) fn counted(self, budget: &Budget) -> Option<Self> {
        let Body { content, open } = self;
        let content = match content {
            Content::Bytes(bytes) => Content::Counted(budget.document(bytes).ok()?),
            other => other,
        };
        Some(Body { content, open })
    }

    /// `left` bytes of a verified blob, for which the connection's share has room piece by piece.
    pub(crate) fn blob(pieces: Box<dyn Pieces>, left: u64, share: Share) -> Self {
        let reader = Reader { share, pieces: Some(pieces), left, step: Step::Begin };
        Body { content: Content::Blob(Box::new(reader)), open: None }
    }

    /// Bytes still to come.
    pub(crate) fn left(&self) -> u64 {
        match &self.content {
            Content::Bytes(bytes) | Content::Counted(bytes) => bytes.len() as u64,
            Content::Blob(reader) => reader.left,
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
            Content::Bytes(bytes) | Content::Counted(bytes) => std::mem::take(bytes),
            Content::Blob(reader) => {
                if reader.left == 0 {
                    return Poll::Ready(None);
                }
                match ready!(reader.poll_piece(cx)) {
                    Ok(piece) if !piece.is_empty() && piece.len() as u64 <= reader.left => {
                        reader.left -= piece.len() as u64;
                        piece
                    }
                    other => {
                        // The connection is cut, so the client sees that bytes are missing.
                        let error = other.err().unwrap_or_else(|| "its length changed".to_owned());
                        tracing::error!(%error, "blob cannot be read to its end");
                        reader.left = 0;
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
