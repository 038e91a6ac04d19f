//! The storage in a bucket of an S3-compatible object store, which any number of servers share.
//!
//! | module | does |
//! |---|---|
//! | `keys` | names of objects (pure) |
//! | `blob` | blobs being read |
//! | `peers` | what the servers on one bucket ask it about each other |
//! | [`s3`] | which bucket, and the credentials for it |
//! | `upload` | blobs on their way in, part by part |
//!
//! The layout is that of the directory ([`super::local`]), so a bucket that is copied to a disk can
//! be served from there. What differs is what keeps writers apart: there is no lock. References
//! move by a conditional put of `index.json`; links and blobs are one object each and appear whole;
//! and garbage is condemned first and deleted a grace period later, because a server next to
//! this one may be about to need it (see [`super::gc`]).
//!
//! Nothing is trusted: a blob is hashed before it is first served, and again while it is served
//! whole, with its last piece held back until the digest is known to be right.

mod blob;
mod keys;
mod peers;
pub(crate) mod s3;
mod upload;

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use formats::digest::Digest;
use formats::oci::{Index, RepositoryName, annotation};
use futures_util::StreamExt as _;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{
    Error, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions,
    UpdateVersion,
};
use storage::layout::{INDEX_LIMIT, LayoutError, reference_of};
use tokio::runtime::Runtime;

use self::blob::BucketBlob;
use self::keys::{ObjectKeys, ParsedKey};
use self::upload::BucketUpload;
use super::StoreError;
use super::backend::{
    Backend, Blob, Link, LinkKind, Refs, SharedBackend, StoredBlob, Upload, UploadKey,
};
use crate::lock::LockMutex as _;

/// How long `index.json` is believed without asking again. Tags that other servers move are seen
/// this much later; a tag that is not there is always asked for.
const FRESH: Duration = Duration::from_secs(1);

/// Attempts to move references against others who do the same.
const ATTEMPTS: usize = 50;

/// What an object store has to be able to do here.
pub trait Objects: ObjectStore + MultipartStore {}

impl<T: ObjectStore + MultipartStore> Objects for T {}

/// The object store, for a bucket, its blobs being read and its uploads.
struct Client {
    objects: Box<dyn Objects>,
    keys: ObjectKeys,
    /// Present until it is dropped.
    runtime: Option<Runtime>,
    /// Parts on their way at once: they are held in memory.
    parts: Arc<tokio::sync::Semaphore>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.objects)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // The last one may be dropped where nothing may block.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Client {
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
    client: Arc<Client>,
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
        let keys = ObjectKeys::new(prefix);
        let client = Arc::new(Client { objects, keys, runtime: Some(runtime), parts });
        let bucket = Bucket { client, read_only, index: Mutex::new(None) };
        if !read_only {
            bucket.begin()?;
        }
        bucket.index()?;
        Ok(bucket)
    }

    /// Puts what an empty image layout consists of, where it is not yet.
    fn begin(&self) -> Result<(), StoreError> {
        let Client { keys, .. } = &*self.client;
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
        let put = self.client.objects.put_opts(path, bytes.into(), options);
        self.client.run(put).map(UpdateVersion::from)
    }

    fn writable(&self) -> Result<&Client, StoreError> {
        if self.read_only { Err(StoreError::ReadOnly) } else { Ok(&self.client) }
    }

    /// `index.json` as it stands now.
    fn read_index(&self, held: &mut Option<HeldIndex>) -> Result<HeldIndex, StoreError> {
        let path = self.client.keys.index();
        let known = held.as_ref().and_then(|held| held.version.e_tag.clone());
        let asked = Instant::now();
        let options = GetOptions { if_none_match: known, ..GetOptions::default() };
        let got = self.client.run(async {
            let got = self.client.objects.get_opts(&path, options).await?;
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
                return Err(LayoutError::NotLayout(self.client.objects.to_string(), why).into());
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
        for meta in self.client.list(prefix)? {
            let modified = SystemTime::from(meta.last_modified);
            if let Some(ParsedKey::Link { name, kind, digest, media_type }) =
                self.client.keys.read(&meta.location)
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
        let mut held = self.index.locked();
        if let Some(held) = &*held
            && held.asked.elapsed() < FRESH
        {
            return Ok(Arc::clone(&held.index));
        }
        let now = self.read_index(&mut held)?;
        Ok(now.index)
    }

    fn update_refs(
        &self,
        edit: &mut dyn FnMut(&mut Refs) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let client = self.writable()?;
        let path = client.keys.index();
        for attempt in 0..ATTEMPTS {
            // Writers of this server wait for each other here, those of others below.
            let mut held = self.index.locked();
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
                if !stays && client.head(&client.keys.blob(&descriptor.digest))?.is_none() {
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
        Err(StoreError::Conflict("other servers kept changing the tags; try again"))
    }

    fn open_blob(&self, digest: &Digest) -> Result<Option<Arc<dyn Blob>>, StoreError> {
        let path = self.client.keys.blob(digest);
        let Some(meta) = self.client.head(&path)? else { return Ok(None) };
        let (client, digest) = (Arc::clone(&self.client), digest.clone());
        Ok(Some(Arc::new(BucketBlob { client, digest, meta })))
    }

    fn put_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        let client = self.writable()?;
        client.put(&client.keys.blob(digest), Bytes::copy_from_slice(bytes))
    }

    fn blobs(&self) -> Result<Vec<StoredBlob>, StoreError> {
        let listed = self.client.list(&self.client.keys.blobs())?;
        let stored = listed.into_iter().filter_map(|meta| {
            let Some(ParsedKey::Blob(digest)) = self.client.keys.read(&meta.location) else {
                return None;
            };
            Some(StoredBlob { digest, len: meta.size, modified: meta.last_modified.into() })
        });
        Ok(stored.collect())
    }

    fn remove_blob(&self, digest: &Digest) -> Result<(), StoreError> {
        let client = self.writable()?;
        client.remove(&client.keys.blob(digest))
    }

    fn links(&self) -> Result<Vec<Link>, StoreError> {
        self.links_below(&self.client.keys.repositories())
    }

    fn add_link(
        &self,
        name: &RepositoryName,
        kind: LinkKind,
        digest: &Digest,
        media_type: &str,
    ) -> Result<(), StoreError> {
        let client = self.writable()?;
        let path = client.keys.link(name, kind, digest, media_type);
        client.put(&path, Bytes::new())?;
        if kind == LinkKind::Manifest {
            for other in client.list(&client.keys.manifest(name, digest))? {
                if other.location != path {
                    client.remove(&other.location)?;
                }
            }
        }
        Ok(())
    }

    fn remove_link(
        &self,
        name: &RepositoryName,
        kind: LinkKind,
        digest: &Digest,
    ) -> Result<bool, StoreError> {
        let client = self.writable()?;
        let there = match kind {
            LinkKind::Blob => {
                client.head(&client.keys.link(name, kind, digest, ""))?.into_iter().collect()
            }
            LinkKind::Manifest => client.list(&client.keys.manifest(name, digest))?,
        };
        for link in &there {
            client.remove(&link.location)?;
        }
        Ok(!there.is_empty())
    }

    fn new_upload(&self, key: &UploadKey) -> Result<Box<dyn Upload>, StoreError> {
        self.writable()?;
        Ok(Box::new(BucketUpload::new(Arc::clone(&self.client), key.clone())))
    }

    fn resume_upload(&self, key: &UploadKey) -> Result<Option<Box<dyn Upload>>, StoreError> {
        self.writable()?;
        let resumed = BucketUpload::resume(Arc::clone(&self.client), key.clone())?;
        Ok(resumed.map(|upload| Box::new(upload) as Box<dyn Upload>))
    }

    fn uploads(&self) -> Result<Vec<(UploadKey, u64, SystemTime)>, StoreError> {
        let mut uploads = Vec::new();
        for meta in self.client.list(&self.client.keys.repositories())? {
            if let Some(ParsedKey::Upload(key)) = self.client.keys.read(&meta.location) {
                // The server that goes on with it finds out how much there is.
                uploads.push((key, 0, meta.last_modified.into()));
            }
        }
        Ok(uploads)
    }

    fn shared(&self) -> Option<&dyn SharedBackend> {
        Some(self)
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
