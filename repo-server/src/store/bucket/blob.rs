//! A blob of a bucket, being read. When it is read whole, its last piece is held back until the
//! digest is known to be right.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use formats::digest::{Digest, Hasher};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, ObjectMeta};
use storage::layout::LayoutError;

use super::{Client, failed};
use crate::store::StoreError;
use crate::store::backend::{Blob, Pieces};
use crate::store::cache::BlobStamp;

/// A blob of which the length and the tag are known.
#[derive(Debug)]
pub(super) struct BucketBlob {
    pub(super) client: Arc<Client>,
    pub(super) digest: Digest,
    pub(super) meta: ObjectMeta,
}

impl Blob for BucketBlob {
    fn len(&self) -> u64 {
        self.meta.size
    }

    fn modified(&self) -> Result<SystemTime, StoreError> {
        Ok(self.meta.last_modified.into())
    }

    fn stamp(&self) -> Result<BlobStamp, StoreError> {
        // A store that gives no tags: length and time are what there is to tell states apart by.
        let tag = self.meta.e_tag.clone();
        let time = self.meta.last_modified;
        Ok(BlobStamp::Object(tag.unwrap_or_else(|| format!("{time} {}", self.meta.size))))
    }

    fn read(&self, from: u64, to: u64) -> Result<Box<dyn Pieces>, StoreError> {
        let whole = from == 0 && to == self.meta.size;
        Ok(Box::new(BucketPieces {
            client: Arc::clone(&self.client),
            path: self.meta.location.clone(),
            digest: self.digest.clone(),
            e_tag: self.meta.e_tag.clone(),
            range: from..to,
            stream: None,
            hasher: whole.then(|| self.digest.algorithm().hasher()),
            rest: Bytes::new(),
            held: Bytes::new(),
        }))
    }
}

/// An answer of the object store, being read.
struct BucketPieces {
    client: Arc<Client>,
    path: Path,
    digest: Digest,
    e_tag: Option<String>,
    /// What is still to come.
    range: std::ops::Range<u64>,
    stream: Option<BoxStream<'static, Result<Bytes, Error>>>,
    /// Present when the whole blob is read, until its end.
    hasher: Option<Hasher>,
    /// What came at once with the bytes before it and was more than asked for.
    rest: Bytes,
    /// One piece that was read and not given out: the last one waits for the digest.
    held: Bytes,
}

impl fmt::Debug for BucketPieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.path, self.client.objects)
    }
}

impl BucketPieces {
    /// The next bytes as they come, at most `most` and never more than the range.
    fn raw(&mut self, most: usize) -> Result<Bytes, StoreError> {
        if !self.rest.is_empty() {
            return Ok(self.rest.split_to(self.rest.len().min(most)));
        }
        if self.range.is_empty() {
            return Ok(Bytes::new());
        }
        let client = Arc::clone(&self.client);
        if self.stream.is_none() {
            // Of exactly the object that was opened: a new one of that name may be another.
            let options = GetOptions {
                range: Some(GetRange::Bounded(self.range.clone())),
                if_match: self.e_tag.clone(),
                ..GetOptions::default()
            };
            let got = client.run(client.objects.get_opts(&self.path, options));
            self.stream = Some(got.map_err(failed("read", &self.path))?.into_stream());
        }
        let Some(stream) = &mut self.stream else { return Ok(Bytes::new()) };
        loop {
            let piece =
                client.run(stream.next()).transpose().map_err(failed("read", &self.path))?;
            let Some(piece) = piece else {
                let (digest, end) = (self.digest.clone(), self.range.end);
                return Err(LayoutError::BlobRange { digest, end }.into());
            };
            let left = usize::try_from(self.range.end - self.range.start).unwrap_or(usize::MAX);
            self.rest = piece.slice(..piece.len().min(left));
            self.range.start += self.rest.len() as u64;
            if !self.rest.is_empty() {
                return Ok(self.rest.split_to(self.rest.len().min(most)));
            }
        }
    }
}

impl Pieces for BucketPieces {
    fn next(&mut self, most: usize) -> Result<Bytes, StoreError> {
        loop {
            let piece = self.raw(most)?;
            let Some(hasher) = &mut self.hasher else { return Ok(piece) };
            if !piece.is_empty() {
                hasher.update(&piece);
                let before = std::mem::replace(&mut self.held, piece);
                if before.is_empty() {
                    continue;
                }
                return Ok(before);
            }
            let found = self.hasher.take().map(Hasher::finish);
            if let Some(found) = found.filter(|found| *found != self.digest) {
                return Err(LayoutError::BlobDigest { named: self.digest.clone(), found }.into());
            }
            return Ok(std::mem::take(&mut self.held));
        }
    }
}
