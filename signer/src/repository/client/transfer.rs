//! Files and downloads as the streams that the HTTP client takes and gives.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;

use crate::progress::Progress;

/// 1 MiB per body frame: smaller ones cost throughput: 8 KiB parts are measured at a hundredth.
const PART: u64 = 1 << 20;

/// What is uploaded: a file, and how much of it the progress knows of.
#[derive(Debug, Clone)]
pub(super) struct Content {
    pub(super) file: Arc<File>,
    pub(super) len: u64,
    shown: Arc<AtomicU64>,
    progress: Progress,
}

impl Content {
    pub(super) fn new(file: File, len: u64, progress: Progress) -> Self {
        Content { file: Arc::new(file), len, shown: Arc::default(), progress }
    }

    /// The bytes from `from` to `to`, as a body.
    pub(super) fn body(&self, from: u64, to: u64) -> reqwest::Body {
        reqwest::Body::wrap_stream(FileStream { content: self.clone(), at: from, end: to })
    }

    /// Bytes that are sent again are not progress.
    fn sent(&self, at: u64) {
        let before = self.shown.fetch_max(at, Ordering::Relaxed);
        self.progress.add(at.saturating_sub(before));
    }
}

/// A part of a file. Reads block, for as long as a page cache needs.
struct FileStream {
    content: Content,
    at: u64,
    end: u64,
}

impl Stream for FileStream {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let limit = self.end.saturating_sub(self.at).min(PART);
        if limit == 0 {
            return Poll::Ready(None);
        }
        let mut part = vec![0; usize::try_from(limit).unwrap_or(0)];
        if let Err(error) = self.content.file.read_exact_at(&mut part, self.at) {
            return Poll::Ready(Some(Err(error)));
        }
        self.at += limit;
        self.content.sent(self.at);
        Poll::Ready(Some(Ok(part.into())))
    }
}

/// A download as a blocking reader.
pub(super) struct BlobReader<'a> {
    pub(super) runtime: &'a tokio::runtime::Runtime,
    pub(super) answer: reqwest::Response,
    pub(super) rest: Bytes,
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.runtime.block_on(self.answer.chunk()) {
                Ok(Some(part)) => self.rest = part,
                Ok(None) => return Ok(0),
                Err(error) => return Err(io::Error::other(super::failure::chain(&error))),
            }
        }
        let part = self.rest.split_to(buffer.len().min(self.rest.len()));
        if let Some(space) = buffer.get_mut(..part.len()) {
            space.copy_from_slice(&part);
        }
        Ok(part.len())
    }
}
