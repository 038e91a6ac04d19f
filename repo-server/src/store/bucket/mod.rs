//! The storage in a bucket of an S3-compatible object store, which any number of servers share.
//!
//! | module | does |
//! |---|---|
//! | `keys` | names of objects (pure) |
//! | [`place`] | which bucket, and the credentials for it |
//! | `upload` | blobs on their way in, part by part |
//!
//! The layout is that of the directory ([`super::local`]), so a bucket that is copied to a disk can
//! be served from there. What differs is what keeps writers apart: there is no lock. References
//! move by a conditional put of `index.json`; links and blobs are one object each and appear whole;
//! and garbage is condemned first and thrown away a grace period later, because a server beside
//! this one may be about to need it (see [`super::gc`]).
//!
//! Nothing is trusted: a blob is hashed before it is first served, and again while it is served
//! whole, with its last piece held back until the digest is known to be right.

mod keys;
pub mod place;
mod upload;

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use formats::digest::{Digest, Hasher};
use formats::oci::{Index, RepositoryName, annotation};
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions,
    UpdateVersion,
};
use storage::layout::{INDEX_LIMIT, LayoutError, reference_of};
use tokio::runtime::Runtime;

use self::keys::{Keys, Named};
use self::upload::BucketUpload;
use super::StoreError;
use super::backend::{Backend, Blob, Kind, Link, Pieces, Refs, Stored, Upload, UploadKey};
use super::held::Stamp;

/// How long `index.json` is believed without asking again. Tags that other servers move are seen
/// this much later; a tag that is not there is always asked for.
const FRESH: Duration = Duration::from_secs(1);

/// Names looked up, or deleted, at once.
const AT_ONCE: usize = 16;

/// Attempts to move references against others who do the same.
const ATTEMPTS: usize = 50;

/// What an object store has to be able to do here.
pub trait Objects: ObjectStore + MultipartStore {}

impl<T: ObjectStore + MultipartStore> Objects for T {}

/// What a bucket, its blobs being read and its uploads share.
struct Shared {
    objects: Box<dyn Objects>,
    keys: Keys,
    /// Present until it is dropped.
    runtime: Option<Runtime>,
    /// Parts on their way at once: they are held in memory.
    parts: Arc<tokio::sync::Semaphore>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.objects)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The last one may be dropped where nothing may block.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    /// Runs a request to its end. Blocks.
    fn run<F: Future>(&self, future: F) -> F::Output {
        let runtime = self.runtime.as_ref().expect("taken only when dropped");
        runtime.block_on(future)
    }

    fn get(&self, path: &Path, options: GetOptions) -> Result<Option<Fetched>, StoreError> {
        let fetched = self.run(async {
            let got = self.objects.get_opts(path, options).await?;
            let meta = got.meta.clone();
            Ok(Fetched { meta, bytes: got.bytes().await? })
        });
        missing_is_none(fetched).map_err(failed("read", path))
    }

    fn head(&self, path: &Path) -> Result<Option<ObjectMeta>, StoreError> {
        missing_is_none(self.run(self.objects.head(path))).map_err(failed("look for", path))
    }

    fn put(&self, path: &Path, bytes: Bytes) -> Result<(), StoreError> {
        self.run(self.objects.put(path, bytes.into())).map(drop).map_err(failed("write", path))
    }

    /// What is not there is as good as removed.
    fn remove(&self, path: &Path) -> Result<(), StoreError> {
        let removed = missing_is_none(self.run(self.objects.delete(path)));
        removed.map(drop).map_err(failed("remove", path))
    }

    fn list(&self, prefix: &Path) -> Result<Vec<ObjectMeta>, StoreError> {
        let listed = self.run(self.objects.list(Some(prefix)).collect::<Vec<_>>());
        let listed: Result<Vec<_>, Error> = listed.into_iter().collect();
        listed.map_err(failed("list", prefix))
    }
}

#[derive(Debug)]
struct Fetched {
    meta: ObjectMeta,
    bytes: Bytes,
}

fn missing_is_none<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(Error) -> StoreError {
    let key = path.to_string();
    move |source| StoreError::Bucket { doing, key, source: Box::new(source) }
}

fn version_of(meta: &ObjectMeta) -> UpdateVersion {
    UpdateVersion { e_tag: meta.e_tag.clone(), version: meta.version.clone() }
}

/// Whether somebody else was there first.
fn is_conflict(error: &Error) -> bool {
    matches!(
        error,
        Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotModified { .. }
    )
}

/// A bucket, or the part of it below a prefix.
#[derive(Debug)]
pub struct Bucket {
    shared: Arc<Shared>,
    read_only: bool,
    index: Mutex<Option<HeldIndex>>,
}

#[derive(Debug, Clone)]
struct HeldIndex {
    asked: Instant,
    version: UpdateVersion,
    index: Arc<Index>,
}

impl Bucket {
    /// The storage below `prefix`; unless `read_only`, an empty one is begun there when there is
    /// none. Blocks.
    pub fn over(
        objects: Box<dyn Objects>,
        prefix: Path,
        read_only: bool,
    ) -> Result<Self, StoreError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("bucket")
            .enable_all()
            .build()
            .map_err(StoreError::Blob)?;
        let parts = Arc::new(tokio::sync::Semaphore::new(upload::PARTS_AT_ONCE));
        let keys = Keys::new(prefix);
        let shared = Arc::new(Shared { objects, keys, runtime: Some(runtime), parts });
        let bucket = Bucket { shared, read_only, index: Mutex::new(None) };
        if !read_only {
            bucket.begin()?;
        }
        bucket.index()?;
        Ok(bucket)
    }

    /// Puts what an empty image layout consists of, where it is not yet.
    fn begin(&self) -> Result<(), StoreError> {
        let Shared { keys, .. } = &*self.shared;
        let layout = Bytes::from_static(br#"{"imageLayoutVersion":"1.0.0"}"#);
        let index = Bytes::from(Index::new(None, Vec::new()).to_bytes());
        for (path, bytes) in [(keys.layout(), layout), (keys.index(), index)] {
            match self.put_if(&path, bytes, PutMode::Create) {
                Ok(_) => {}
                Err(error) if is_conflict(&error) => {}
                Err(error) => return Err(failed("write", &path)(error)),
            }
        }
        Ok(())
    }

    fn put_if(&self, path: &Path, bytes: Bytes, mode: PutMode) -> Result<UpdateVersion, Error> {
        let options = PutOptions::from(mode);
        let put = self.shared.objects.put_opts(path, bytes.into(), options);
        self.shared.run(put).map(UpdateVersion::from)
    }

    fn writable(&self) -> Result<&Shared, StoreError> {
        if self.read_only { Err(StoreError::ReadOnly) } else { Ok(&self.shared) }
    }

    /// `index.json` as it stands now.
    fn read_index(&self, held: &mut Option<HeldIndex>) -> Result<HeldIndex, StoreError> {
        let path = self.shared.keys.index();
        let known = held.as_ref().and_then(|held| held.version.e_tag.clone());
        let asked = Instant::now();
        let options = GetOptions { if_none_match: known, ..GetOptions::default() };
        let got = self.shared.run(async {
            let got = self.shared.objects.get_opts(&path, options).await?;
            let (meta, len) = (got.meta.clone(), got.meta.size);
            // Not one byte of what is too large is held.
            let bytes = if len > INDEX_LIMIT { Bytes::new() } else { got.bytes().await? };
            Ok((meta, bytes))
        });
        let now = match (got, held.take()) {
            (Err(Error::NotModified { .. }), Some(before)) => HeldIndex { asked, ..before },
            (Ok((meta, _)), _) if meta.size > INDEX_LIMIT => {
                return Err(LayoutError::IndexTooLarge(meta.size).into());
            }
            (Ok((meta, bytes)), _) => {
                let index = Index::parse_layout(&bytes).map_err(LayoutError::from)?;
                HeldIndex { asked, version: version_of(&meta), index: Arc::new(index) }
            }
            (Err(Error::NotFound { .. }), _) => {
                let why = "there is no index.json";
                return Err(LayoutError::NotLayout(self.shared.objects.to_string(), why).into());
            }
            (Err(error), before) => {
                *held = before;
                return Err(failed("read", &path)(error));
            }
        };
        *held = Some(now.clone());
        Ok(now)
    }

    fn links_below(&self, prefix: &Path) -> Result<Vec<Link>, StoreError> {
        let mut links = Vec::new();
        for meta in self.shared.list(prefix)? {
            let modified = SystemTime::from(meta.last_modified);
            if let Some(Named::Link { name, kind, digest, media_type }) =
                self.shared.keys.read(&meta.location)
            {
                links.push(Link { name, kind, digest, media_type, modified });
            }
        }
        // One digest may be there as two media types for a moment: the newer one counts.
        links.sort_by_key(|link| link.modified);
        Ok(links)
    }
}

/// The references of an index; as in a directory, two digests for one are an error.
fn refs_of(index: &Index) -> Result<Refs, StoreError> {
    let mut refs = Refs::new();
    for entry in &index.manifests {
        let Some(reference) = reference_of(entry) else { continue };
        match refs.insert(reference.to_owned(), entry.clone()) {
            Some(other) if other.digest != entry.digest => {
                return Err(LayoutError::AmbiguousReference(reference.to_owned()).into());
            }
            _ => {}
        }
    }
    Ok(refs)
}

impl Backend for Bucket {
    fn index(&self) -> Result<Arc<Index>, StoreError> {
        let mut held = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = &*held
            && held.asked.elapsed() < FRESH
        {
            return Ok(Arc::clone(&held.index));
        }
        let now = self.read_index(&mut held)?;
        Ok(now.index)
    }

    fn forget_index(&self) {
        let mut held = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = &mut *held
            && let Some(long_ago) = held.asked.checked_sub(FRESH)
        {
            held.asked = long_ago;
        }
    }

    fn update_refs(
        &self,
        edit: &mut dyn FnMut(&mut Refs) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let shared = self.writable()?;
        let path = shared.keys.index();
        for attempt in 0..ATTEMPTS {
            // Writers of this server wait for each other here, those of others below.
            let mut held = self.index.lock().unwrap_or_else(PoisonError::into_inner);
            let before = self.read_index(&mut held)?;
            let kept = refs_of(&before.index)?;
            let mut refs = kept.clone();
            edit(&mut refs)?;
            if refs == kept {
                return Ok(());
            }
            let mut after = Index::clone(&before.index);
            after.manifests.retain(|entry| reference_of(entry).is_none());
            for (reference, descriptor) in refs {
                let stays = kept.get(&reference) == Some(&descriptor);
                if !stays && shared.head(&shared.keys.blob(&descriptor.digest))?.is_none() {
                    return Err(LayoutError::MissingBlob(descriptor.digest).into());
                }
                after.manifests.push(descriptor.annotated(annotation::REF_NAME, &reference));
            }
            let bytes = after.to_bytes();
            if bytes.len() as u64 > INDEX_LIMIT {
                return Err(LayoutError::IndexTooLarge(bytes.len() as u64).into());
            }
            match self.put_if(&path, bytes.into(), PutMode::Update(before.version)) {
                Ok(version) => {
                    let asked = Instant::now();
                    *held = Some(HeldIndex { asked, version, index: Arc::new(after) });
                    return Ok(());
                }
                Err(error) if is_conflict(&error) => {
                    drop(held);
                    pause_after(attempt);
                }
                Err(error) => return Err(failed("write", &path)(error)),
            }
        }
        Err(StoreError::Elsewhere("others move tags all the time; try again"))
    }

    fn open_blob(&self, digest: &Digest) -> Result<Option<Arc<dyn Blob>>, StoreError> {
        let path = self.shared.keys.blob(digest);
        let Some(meta) = self.shared.head(&path)? else { return Ok(None) };
        let (shared, digest) = (Arc::clone(&self.shared), digest.clone());
        Ok(Some(Arc::new(BucketBlob { shared, digest, meta })))
    }

    fn put_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        let shared = self.writable()?;
        shared.put(&shared.keys.blob(digest), Bytes::copy_from_slice(bytes))
    }

    fn blobs(&self) -> Result<Vec<Stored>, StoreError> {
        let listed = self.shared.list(&self.shared.keys.blobs())?;
        let stored = listed.into_iter().filter_map(|meta| {
            let Some(Named::Blob(digest)) = self.shared.keys.read(&meta.location) else {
                return None;
            };
            Some(Stored { digest, len: meta.size, modified: meta.last_modified.into() })
        });
        Ok(stored.collect())
    }

    fn remove_blob(&self, digest: &Digest) -> Result<(), StoreError> {
        let shared = self.writable()?;
        shared.remove(&shared.keys.blob(digest))
    }

    fn links(&self) -> Result<Vec<Link>, StoreError> {
        self.links_below(&self.shared.keys.repositories())
    }

    fn add_link(
        &self,
        name: &RepositoryName,
        kind: Kind,
        digest: &Digest,
        media_type: &str,
    ) -> Result<(), StoreError> {
        let shared = self.writable()?;
        let path = shared.keys.link(name, kind, digest, media_type);
        shared.put(&path, Bytes::new())?;
        if kind == Kind::Manifest {
            for other in shared.list(&shared.keys.manifest(name, digest))? {
                if other.location != path {
                    shared.remove(&other.location)?;
                }
            }
        }
        Ok(())
    }

    fn remove_link(
        &self,
        name: &RepositoryName,
        kind: Kind,
        digest: &Digest,
    ) -> Result<bool, StoreError> {
        let shared = self.writable()?;
        let there = match kind {
            Kind::Blob => {
                shared.head(&shared.keys.link(name, kind, digest, ""))?.into_iter().collect()
            }
            Kind::Manifest => shared.list(&shared.keys.manifest(name, digest))?,
        };
        for link in &there {
            shared.remove(&link.location)?;
        }
        Ok(!there.is_empty())
    }

    fn new_upload(&self, key: &UploadKey) -> Result<Box<dyn Upload>, StoreError> {
        self.writable()?;
        Ok(Box::new(BucketUpload::new(Arc::clone(&self.shared), key.clone())))
    }

    fn resume_upload(&self, key: &UploadKey) -> Result<Option<Box<dyn Upload>>, StoreError> {
        self.writable()?;
        let resumed = BucketUpload::resume(Arc::clone(&self.shared), key.clone())?;
        Ok(resumed.map(|upload| Box::new(upload) as Box<dyn Upload>))
    }

    fn uploads(&self) -> Result<Vec<(UploadKey, u64, SystemTime)>, StoreError> {
        let mut uploads = Vec::new();
        for meta in self.shared.list(&self.shared.keys.repositories())? {
            if let Some(Named::Upload(key)) = self.shared.keys.read(&meta.location) {
                // How much there is, whoever goes on with it finds out.
                uploads.push((key, 0, meta.last_modified.into()));
            }
        }
        Ok(uploads)
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn find_links(
        &self,
        name: &RepositoryName,
        wanted: &[(Kind, Digest)],
    ) -> Result<Vec<Option<Link>>, StoreError> {
        let one = |(kind, digest): (Kind, Digest)| async move {
            let keys = &self.shared.keys;
            let path = keys.link(name, kind, &digest, "");
            let meta = match kind {
                Kind::Blob => missing_is_none(self.shared.objects.head(&path).await)
                    .map_err(failed("look for", &path))?,
                Kind::Manifest => {
                    let prefix = keys.manifest(name, &digest);
                    let listed = self.shared.objects.list(Some(&prefix)).collect::<Vec<_>>().await;
                    let listed: Result<Vec<_>, Error> = listed.into_iter().collect();
                    let listed = listed.map_err(failed("list", &prefix))?;
                    listed.into_iter().max_by_key(|meta| meta.last_modified)
                }
            };
            Ok(meta.and_then(|meta| match keys.read(&meta.location) {
                Some(Named::Link { name, kind, digest, media_type }) => {
                    let modified = meta.last_modified.into();
                    Some(Link { name, kind, digest, media_type, modified })
                }
                _ => None,
            }))
        };
        let found = stream::iter(wanted.to_vec()).map(one).buffered(AT_ONCE);
        let found: Vec<Result<_, StoreError>> = self.shared.run(found.collect());
        found.into_iter().collect()
    }

    fn manifest_links(&self, name: &RepositoryName) -> Result<Vec<Link>, StoreError> {
        self.links_below(&self.shared.keys.manifests(name))
    }

    fn condemned(&self) -> Result<Vec<(Digest, SystemTime)>, StoreError> {
        let listed = self.shared.list(&self.shared.keys.condemned_all())?;
        let condemned = listed.into_iter().filter_map(|meta| {
            let Some(Named::Condemned(digest)) = self.shared.keys.read(&meta.location) else {
                return None;
            };
            Some((digest, meta.last_modified.into()))
        });
        Ok(condemned.collect())
    }

    fn condemn(&self, digest: &Digest) -> Result<(), StoreError> {
        let shared = self.writable()?;
        shared.put(&shared.keys.condemned(digest), Bytes::new())
    }

    fn spare(&self, digest: &Digest) -> Result<(), StoreError> {
        let shared = self.writable()?;
        shared.remove(&shared.keys.condemned(digest))
    }
}

/// Lets others finish: 5 to 100 ms, different for everybody.
fn pause_after(attempt: usize) {
    let mut random = [0; 1];
    // Without randomness everybody waits the same, and tries the next time.
    let _ = getrandom::fill(&mut random);
    let most = 5_u64 << attempt.min(5);
    std::thread::sleep(Duration::from_millis(5 + most * u64::from(random[0]) / 255));
}

/// A blob of which the length and the tag are known.
#[derive(Debug)]
struct BucketBlob {
    shared: Arc<Shared>,
    digest: Digest,
    meta: ObjectMeta,
}

impl Blob for BucketBlob {
    fn len(&self) -> u64 {
        self.meta.size
    }

    fn modified(&self) -> Result<SystemTime, StoreError> {
        Ok(self.meta.last_modified.into())
    }

    fn stamp(&self) -> Result<Stamp, StoreError> {
        // A store that gives no tags: length and time are what there is to tell states apart by.
        let tag = self.meta.e_tag.clone();
        let time = self.meta.last_modified;
        Ok(Stamp::Object(tag.unwrap_or_else(|| format!("{time} {}", self.meta.size))))
    }

    fn read(&self, from: u64, to: u64) -> Result<Box<dyn Pieces>, StoreError> {
        let whole = from == 0 && to == self.meta.size;
        Ok(Box::new(BucketPieces {
            shared: Arc::clone(&self.shared),
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
    shared: Arc<Shared>,
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
        write!(f, "{} of {}", self.path, self.shared.objects)
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
        let shared = Arc::clone(&self.shared);
        if self.stream.is_none() {
            // Of exactly the object that was opened: a new one of that name may be another.
            let options = GetOptions {
                range: Some(GetRange::Bounded(self.range.clone())),
                if_match: self.e_tag.clone(),
                ..GetOptions::default()
            };
            let got = shared.run(shared.objects.get_opts(&self.path, options));
            self.stream = Some(got.map_err(failed("read", &self.path))?.into_stream());
        }
        let Some(stream) = &mut self.stream else { return Ok(Bytes::new()) };
        loop {
            let piece =
                shared.run(stream.next()).transpose().map_err(failed("read", &self.path))?;
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
