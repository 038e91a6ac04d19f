//! Blobs on their way into a bucket.
//!
//! ```text
//!  bytes ─► buffer ─► part, part, part ─► complete ─► _uploads/…/bytes ─► hash known? ─► copy ─► blobs/…
//!              │  (multipart upload)                                    no: read it once
//!              └─ all of it, when it is less than a part ─────────────────────────────► put ─► blobs/…
//! ```
//!
//! Nothing is under `blobs/` before its digest is known to be right. Between two requests, and every
//! [`SAVED_EVERY`] parts, what is known of the upload is one object: a line of JSON, then the bytes
//! that are no part yet. It is replaced only as it was last seen, so of two servers that go on
//! with one upload, one is told so.

use std::fmt;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use formats::digest::{Digest, Hasher};
use formats::error_chain;
use futures_util::StreamExt as _;
use object_store::multipart::PartId;
use object_store::path::Path;
use object_store::{
    GetOptions, ObjectStore as _, ObjectStoreExt as _, PutMode, PutOptions, PutPayload,
    UpdateVersion,
};
use serde::{Deserialize, Serialize};
use storage::layout::LayoutError;
use tokio::task::JoinHandle;

use super::super::backend::{Upload, UploadKey};
use super::{Shared, StoreError, failed, is_conflict, missing_is_none, version_of};

/// 5 MiB: the least S3 takes, but for the last one; two of them are held for each upload.
const PART: usize = 5 << 20;

/// 256 KiB: most blobs are no larger, and do not need room for a part.
const SMALL_BUFFER: usize = 256 << 10;

/// 32 MiB: S3 takes 10,000 parts, so they grow when there are many.
const LARGE_PART: usize = 32 << 20;

/// From here on parts are large; together 256 GiB.
const SMALL_PARTS: usize = 2000;

/// Parts of all uploads that are on their way at once; 20 MiB of memory.
pub(super) const PARTS_AT_ONCE: usize = 4;

/// 40 MiB: what a killed server loses of an upload at most.
const SAVED_EVERY: usize = 8;

/// 5 GiB: what S3 copies by itself; above, the bytes go through the server once more.
const COPY_LIMIT: u64 = 5 << 30;

/// 64 KiB: the line of ten thousand parts is longer; what is longer than [`STATE_LIMIT`] is not ours.
const STATE_LIMIT: u64 = 64 << 20;

/// What stands in the first line of the state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    /// The multipart upload, when a part was begun.
    multipart: Option<String>,
    /// Its parts, in order.
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    id: String,
    len: u64,
}

type Sending = JoinHandle<Result<PartId, object_store::Error>>;

/// An upload that this server goes on with.
pub(super) struct BucketUpload {
    shared: Arc<Shared>,
    key: UploadKey,
    state: State,
    /// Bytes that are no part yet.
    buffer: Vec<u8>,
    /// The part on its way, and its length.
    sending: Option<(u64, Sending)>,
    /// The state as last written or read, and how much it stood for.
    saved: Option<(UpdateVersion, u64)>,
    /// `None` when a server before this one hashed the first bytes.
    hasher: Option<Hasher>,
    len: u64,
}

impl fmt::Debug for BucketUpload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "upload {} with {} bytes", self.key.id, self.len)
    }
}

impl BucketUpload {
    /// Nobody sees it before [`Upload::pause`].
    pub(super) fn new(shared: Arc<Shared>, key: UploadKey) -> Self {
        let hasher = Some(key.algorithm.hasher());
        let (state, buffer) = (State::default(), Vec::new());
        BucketUpload { shared, key, state, buffer, sending: None, saved: None, hasher, len: 0 }
    }

    /// What was paused; `None` when it is gone.
    pub(super) fn resume(shared: Arc<Shared>, key: UploadKey) -> Result<Option<Self>, StoreError> {
        let path = shared.keys.upload_state(&key);
        let Some(fetched) = shared.get(&path, GetOptions::default())? else { return Ok(None) };
        let damaged = || StoreError::Elsewhere("the state of this upload is damaged; begin anew");
        if fetched.meta.size > STATE_LIMIT {
            return Err(damaged());
        }
        let end = fetched.bytes.iter().position(|byte| *byte == b'\n').ok_or_else(damaged)?;
        let line = fetched.bytes.slice(..end);
        let tail = fetched.bytes.slice(end + 1..);
        let state: State = serde_json::from_slice(&line).map_err(|_| damaged())?;
        let parts = state.parts.iter().try_fold(0_u64, |sum, part| sum.checked_add(part.len));
        let len = parts.and_then(|sum| sum.checked_add(tail.len() as u64)).ok_or_else(damaged)?;
        let hasher = state.parts.is_empty().then(|| {
            let mut hasher = key.algorithm.hasher();
            hasher.update(&tail);
            hasher
        });
        let saved = Some((version_of(&fetched.meta), len));
        let buffer = tail.to_vec();
        Ok(Some(BucketUpload { shared, key, state, buffer, sending: None, saved, hasher, len }))
    }

    fn part_size(&self) -> usize {
        if self.state.parts.len() < SMALL_PARTS { PART } else { LARGE_PART }
    }

    fn bytes(&self) -> Path {
        self.shared.keys.upload_bytes(&self.key)
    }

    /// Waits for the part on its way.
    fn settle(&mut self) -> Result<(), StoreError> {
        let Some((len, sending)) = self.sending.take() else { return Ok(()) };
        let path = self.bytes();
        let sent = self.shared.run(sending);
        let sent = sent.map_err(|panic| StoreError::Blob(std::io::Error::other(panic)))?;
        let id = sent.map_err(failed("write a part of", &path))?.content_id;
        self.state.parts.push(Part { id, len });
        Ok(())
    }

    /// Sends the buffer off as the next part.
    fn send(&mut self) -> Result<(), StoreError> {
        self.settle()?;
        let path = self.bytes();
        let shared = Arc::clone(&self.shared);
        let id = match &self.state.multipart {
            Some(id) => id.clone(),
            None => {
                let id = shared.run(shared.objects.create_multipart(&path));
                let id = id.map_err(failed("begin", &path))?;
                self.state.multipart = Some(id.clone());
                // Known to whoever cleans up, before it holds anything.
                self.save_parts_only()?;
                id
            }
        };
        let permit = shared.run(Arc::clone(&shared.parts).acquire_owned());
        let part = std::mem::take(&mut self.buffer);
        let (len, number) = (part.len() as u64, self.state.parts.len());
        let part = Bytes::from(part);
        let sender = Arc::clone(&shared);
        let sending = async move {
            let _permit = permit;
            sender.objects.put_part(&path, &id, number, PutPayload::from_bytes(part)).await
        };
        let runtime = shared.runtime.as_ref().expect("taken only when dropped");
        self.sending = Some((len, runtime.spawn(sending)));
        if number > 0 && number.is_multiple_of(SAVED_EVERY) {
            self.save_parts_only()?;
        }
        Ok(())
    }

    /// In the middle of a request: what is in parts is enough to go on from.
    fn save_parts_only(&mut self) -> Result<(), StoreError> {
        let len = self.state.parts.iter().map(|part| part.len).sum();
        self.save(Bytes::new(), len)
    }

    fn save(&mut self, tail: Bytes, len: u64) -> Result<(), StoreError> {
        let path = self.shared.keys.upload_state(&self.key);
        let mut text = BytesMut::new();
        let line = serde_json::to_vec(&self.state).expect("strings and numbers");
        text.reserve(line.len() + 1 + tail.len());
        text.put_slice(&line);
        text.put_u8(b'\n');
        text.put_slice(&tail);
        let mode = match &self.saved {
            Some((version, _)) => PutMode::Update(version.clone()),
            None => PutMode::Create,
        };
        let put = self.shared.objects.put_opts(&path, text.freeze().into(), PutOptions::from(mode));
        match self.shared.run(put) {
            Ok(put) => {
                self.saved = Some((put.into(), len));
                Ok(())
            }
            Err(error) if is_conflict(&error) => {
                Err(StoreError::Elsewhere("another server writes to this upload"))
            }
            Err(error) => Err(failed("write", &path)(error)),
        }
    }

    /// Reads what was put together, and hashes it.
    fn hash(&self, digest: &Digest) -> Result<Digest, StoreError> {
        let path = self.bytes();
        let mut hasher = digest.algorithm().hasher();
        self.shared
            .run(async {
                let mut pieces = self.shared.objects.get(&path).await?.into_stream();
                while let Some(piece) = pieces.next().await.transpose()? {
                    hasher.update(&piece);
                }
                Ok(())
            })
            .map_err(failed("read", &path))?;
        Ok(hasher.finish())
    }

    fn make_blob(&mut self, digest: &Digest) -> Result<(), StoreError> {
        let known = self.hasher.take().filter(|_| digest.algorithm() == self.key.algorithm);
        let known = match known {
            Some(hasher) => Some(hasher.finish()),
            // All of it is at hand.
            None if self.state.multipart.is_none() => {
                let mut hasher = digest.algorithm().hasher();
                hasher.update(&self.buffer);
                Some(hasher.finish())
            }
            None => None,
        };
        if let Some(found) = known.as_ref().filter(|found| *found != digest) {
            return Err(
                LayoutError::BlobDigest { named: digest.clone(), found: found.clone() }.into()
            );
        }
        let to = self.shared.keys.blob(digest);
        let Some(multipart) = self.state.multipart.clone() else {
            return self.shared.put(&to, std::mem::take(&mut self.buffer).into());
        };
        if !self.buffer.is_empty() {
            self.send()?;
        }
        self.settle()?;
        let from = self.bytes();
        let parts = self.state.parts.iter().map(|part| PartId { content_id: part.id.clone() });
        let completed = self.shared.objects.complete_multipart(&from, &multipart, parts.collect());
        self.shared.run(completed).map_err(failed("put together", &from))?;
        // From here on there is an object to remove and no multipart upload to abort.
        self.state.multipart = None;
        if known.is_none() {
            let found = self.hash(digest)?;
            if found != *digest {
                return Err(LayoutError::BlobDigest { named: digest.clone(), found }.into());
            }
        }
        self.copy(&from, &to, digest)
    }

    fn copy(&self, from: &Path, to: &Path, digest: &Digest) -> Result<(), StoreError> {
        if self.len <= COPY_LIMIT {
            let copied = self.shared.run(self.shared.objects.copy(from, to));
            return copied.map_err(failed("copy", from));
        }
        // S3 does not copy that much at once: it goes through here, and is hashed on the way.
        let objects = &self.shared.objects;
        let mut hasher = digest.algorithm().hasher();
        let id = self.shared.run(objects.create_multipart(to)).map_err(failed("begin", to))?;
        let moved = self.shared.run(async {
            let mut pieces = objects.get(from).await?.into_stream();
            let (mut parts, mut buffer) = (Vec::new(), BytesMut::new());
            loop {
                let piece = pieces.next().await.transpose()?;
                if let Some(piece) = &piece {
                    hasher.update(piece);
                    buffer.extend_from_slice(piece);
                }
                while buffer.len() >= LARGE_PART || (piece.is_none() && !buffer.is_empty()) {
                    let part = buffer.split_to(buffer.len().min(LARGE_PART)).freeze();
                    parts.push(objects.put_part(to, &id, parts.len(), part.into()).await?);
                }
                if piece.is_none() {
                    return Ok(parts);
                }
            }
        });
        let found = hasher.finish();
        let moved = moved.map_err(failed("copy", from)).and_then(|parts| match found == *digest {
            true => Ok(parts),
            false => Err(LayoutError::BlobDigest { named: digest.clone(), found }.into()),
        });
        let finished = moved.and_then(|parts| {
            let completed = self.shared.run(objects.complete_multipart(to, &id, parts));
            completed.map(drop).map_err(failed("put together", to))
        });
        if finished.is_err() {
            // The first error is the one to tell; the bucket's own rules remove what stays.
            let _ = self.shared.run(objects.abort_multipart(to, &id));
        }
        finished
    }

    /// Removes everything of it but the blob.
    fn clean_up(&mut self) -> Result<(), StoreError> {
        if let Some((_, sending)) = self.sending.take() {
            sending.abort();
            // Cancelled or done: either way nothing follows it.
            let _ = self.shared.run(sending);
        }
        let bytes = self.bytes();
        if let Some(id) = &self.state.multipart {
            let aborted = self.shared.run(self.shared.objects.abort_multipart(&bytes, id));
            missing_is_none(aborted).map_err(failed("abort", &bytes))?;
        } else if !self.state.parts.is_empty() {
            self.shared.remove(&bytes)?;
        }
        match self.saved {
            Some(_) => self.shared.remove(&self.shared.keys.upload_state(&self.key)),
            None => Ok(()),
        }
    }
}

impl Upload for BucketUpload {
    fn stored(&self) -> u64 {
        self.len
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        self.len += bytes.len() as u64;
        let mut rest = bytes;
        while !rest.is_empty() {
            let size = self.part_size();
            if self.buffer.capacity() < size && self.buffer.len() + rest.len() > SMALL_BUFFER {
                // As much as a part needs at once: growing by doubling would hold twice that.
                self.buffer.reserve_exact(size.saturating_sub(self.buffer.len()));
            }
            let room = size.saturating_sub(self.buffer.len());
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.buffer.extend_from_slice(now);
            rest = later;
            if self.buffer.len() >= size {
                self.send()?;
            }
        }
        Ok(())
    }

    fn pause(&mut self) -> Result<(), StoreError> {
        self.settle()?;
        if self.saved.as_ref().is_some_and(|(_, len)| *len == self.len) {
            return Ok(());
        }
        let tail = Bytes::copy_from_slice(&self.buffer);
        self.save(tail, self.len)
    }

    fn is_current(&mut self) -> Result<bool, StoreError> {
        let Some((version, len)) = &self.saved else { return Ok(false) };
        let there = self.shared.head(&self.shared.keys.upload_state(&self.key))?;
        let same = there.is_some_and(|meta| version_of(&meta).e_tag == version.e_tag);
        Ok(same && *len == self.len)
    }

    fn commit(mut self: Box<Self>, digest: &Digest) -> Result<(), StoreError> {
        let made = self.make_blob(digest);
        let cleaned = self.clean_up();
        if let (Ok(()), Err(error)) = (&made, cleaned) {
            // The blob is there; what stays of its upload expires.
            tracing::warn!(error = %error_chain(&error), "an upload is not cleaned up");
        }
        made
    }

    fn abandon(mut self: Box<Self>) -> Result<(), StoreError> {
        self.clean_up()
    }
}

impl Drop for BucketUpload {
    fn drop(&mut self) {
        if let Some((_, sending)) = self.sending.take() {
            sending.abort();
        }
    }
}
