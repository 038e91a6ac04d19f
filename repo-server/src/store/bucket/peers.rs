//! What several servers on one bucket ask it about each other.

use std::time::SystemTime;

use bytes::Bytes;
use formats::digest::Digest;
use formats::oci::RepositoryName;
use futures_util::StreamExt as _;
use futures_util::stream;
use object_store::{Error, ObjectStoreExt as _};

use super::keys::ParsedKey;
use super::{Bucket, FRESH, failed, missing_is_none};
use crate::lock::LockMutex as _;
use crate::store::StoreError;
use crate::store::backend::{Link, LinkKind, SharedBackend};

/// Names looked up at once.
const AT_ONCE: usize = 16;

impl SharedBackend for Bucket {
    fn forget_index(&self) {
        let mut held = self.index.locked();
        if let Some(held) = &mut *held
            && let Some(long_ago) = held.asked.checked_sub(FRESH)
        {
            held.asked = long_ago;
        }
    }

    fn find_links(
        &self,
        name: &RepositoryName,
        wanted: &[(LinkKind, Digest)],
    ) -> Result<Vec<Option<Link>>, StoreError> {
        let one = |(kind, digest): (LinkKind, Digest)| async move {
            let keys = &self.client.keys;
            let path = keys.link(name, kind, &digest, "");
            let meta = match kind {
                LinkKind::Blob => missing_is_none(self.client.objects.head(&path).await)
                    .map_err(failed("look for", &path))?,
                LinkKind::Manifest => {
                    let prefix = keys.manifest(name, &digest);
                    let listed = self.client.objects.list(Some(&prefix)).collect::<Vec<_>>().await;
                    let listed: Result<Vec<_>, Error> = listed.into_iter().collect();
                    let listed = listed.map_err(failed("list", &prefix))?;
                    listed.into_iter().max_by_key(|meta| meta.last_modified)
                }
            };
            Ok(meta.and_then(|meta| match keys.read(&meta.location) {
                Some(ParsedKey::Link { name, kind, digest, media_type }) => {
                    let modified = meta.last_modified.into();
                    Some(Link { name, kind, digest, media_type, modified })
                }
                _ => None,
            }))
        };
        let found = stream::iter(wanted.to_vec()).map(one).buffered(AT_ONCE);
        let found: Vec<Result<_, StoreError>> = self.client.run(found.collect());
        found.into_iter().collect()
    }

    fn manifest_links(&self, name: &RepositoryName) -> Result<Vec<Link>, StoreError> {
        self.links_below(&self.client.keys.manifests(name))
    }

    fn condemned(&self) -> Result<Vec<(Digest, SystemTime)>, StoreError> {
        let listed = self.client.list(&self.client.keys.condemned_all())?;
        let condemned = listed.into_iter().filter_map(|meta| {
            let Some(ParsedKey::Condemned(digest)) = self.client.keys.read(&meta.location) else {
                return None;
            };
            Some((digest, meta.last_modified.into()))
        });
        Ok(condemned.collect())
    }

    fn condemn(&self, digest: &Digest) -> Result<(), StoreError> {
        let client = self.writable()?;
        client.put(&client.keys.condemned(digest), Bytes::new())
    }

    fn spare(&self, digest: &Digest) -> Result<(), StoreError> {
        let client = self.writable()?;
        client.remove(&client.keys.condemned(digest))
    }
}
