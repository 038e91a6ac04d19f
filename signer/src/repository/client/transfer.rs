//! Files and downloads as the streams that `oci-client` takes and gives.

use std::fs::File;
use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use oci_client::errors::OciDistributionError;

use crate::progress::Progress;

/// 1 MiB per body frame: smaller ones cost throughput: 8 KiB parts are measured at a hundredth.
const PART: usize = 1 << 20;

/// The first `left` bytes of a file. Reads block; nothing else runs on this runtime.
pub(super) struct FileStream {
    pub(super) file: File,
    pub(super) left: u64,
    pub(super) progress: Progress,
}

impl Stream for FileStream {
    type Item = Result<Bytes, OciDistributionError>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let mut part = Vec::with_capacity(PART);
        let limit = self.left.min(PART as u64);
        if let Err(error) = (&self.file).take(limit).read_to_end(&mut part) {
            return Poll::Ready(Some(Err(error.into())));
        }
        if part.len() as u64 != limit {
            return Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())));
        }
        self.left -= limit;
        self.progress.add(limit);
        Poll::Ready(Some(Ok(part.into())))
    }
}

/// A download as a blocking reader.
pub(super) struct BlobReader<'a, S> {
    pub(super) runtime: &'a tokio::runtime::Runtime,
    pub(super) stream: S,
    pub(super) rest: Bytes,
}

impl<S: Stream<Item = io::Result<Bytes>> + Unpin> Read for BlobReader<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            let stream = &mut self.stream;
            let next = std::future::poll_fn(|context| Pin::new(&mut *stream).poll_next(context));
            match self.runtime.block_on(next) {
                Some(part) => self.rest = part?,
                None => return Ok(0),
            }
        }
        let part = self.rest.split_to(buffer.len().min(self.rest.len()));
        if let Some(space) = buffer.get_mut(..part.len()) {
            space.copy_from_slice(&part);
        }
        Ok(part.len())
    }
}
