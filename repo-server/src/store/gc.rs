//! Garbage: what nothing needs any more is thrown away.
//!
//! ```text
//!  every entry of index.json ┐
//!  links made within grace   ├─► manifest ─► manifests, blobs, subject
//!                            ┘       ▲ └───► TUF metadata ─► the hashes of its targets
//!                                    └────── manifests attached to it (referrers)
//! ```
//!
//! Everything on these ways is needed. Of the rest, what is older than the grace period goes:
//! first the links, so that nobody sees it any more, then the bytes. The grace period is for
//! pushes under way: their blobs come before the manifest that needs them, and their manifests
//! before the tag. A blob that is pushed or mounted again is young again.
//!
//! On a storage that several servers share, bytes go in two steps: condemned by one collection,
//! thrown away by one that finds them condemned and unneeded a grace period later.
//!
//! Every step is one removal, durable by itself: a collection that is cut off anywhere has thrown
//! away less, and the next one does the rest. When a needed manifest or a TUF metadata file
//! cannot be read, nobody knows what it needs; then nothing at all is thrown away. One that can be
//! read and is no TUF metadata, or more than anybody reads as such, names nothing: otherwise whoever
//! may push a blob could stop collections for good.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use formats::digest::{Algorithm, Digest};
use formats::oci::MANIFEST_LIMIT;
use serde::Deserializer;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};

use super::backend::{Kind, Link, Refs, Stored};
use super::facts::Facts;
use super::{Read, State, Store, StoreError};

/// 5 MiB: what nodes take for targets metadata; other clients take less.
const METADATA_LIMIT: u64 = 5 << 20;

/// Blobs removed while writers wait.
const BATCH: usize = 64;

/// What a collection did, or would do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Links removed: manifests and blobs that repositories no longer show.
    pub links: usize,
    /// Blobs removed.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that stay.
    pub kept: usize,
    /// Of those, the ones nothing needs yet or any more, within grace.
    pub young: usize,
}

impl Store {
    /// Throws away what nothing needs and what is older than `grace` at the time `now`; with
    /// `dry`, only counts it.
    pub fn collect(
        &self,
        grace: Duration,
        now: SystemTime,
        dry: bool,
    ) -> Result<Collected, StoreError> {
        if !dry {
            self.writable()?;
        }
        // A time in the future is that of a clock that was set back: young.
        let old = |time: SystemTime| now.duration_since(time).is_ok_and(|age| age > grace);
        let mut done = Collected::default();
        self.relist()?;
        let mut state = self.state();
        let (refs, needed) = self.mark(&mut state, &old)?;
        done.links = self.sweep_links(&mut state, &needed, &old, dry)?;
        drop(state);

        let mut garbage = Vec::new();
        for stored in self.backend.blobs()? {
            if needed.contains(&stored.digest) {
                done.kept += 1;
            } else if old(stored.modified) {
                garbage.push(stored);
            } else {
                (done.kept, done.young) = (done.kept + 1, done.young + 1);
            }
        }
        if self.is_shared() && !dry {
            let (spared, waiting) = self.judge(&mut garbage, &old)?;
            (done.kept, done.young) = (done.kept + waiting, done.young + waiting);
            for digest in spared {
                self.backend.spare(&digest)?;
            }
        }
        for batch in garbage.chunks(BATCH) {
            if dry {
                done.blobs += batch.len();
                done.bytes += batch.iter().map(|it| it.len).sum::<u64>();
                continue;
            }
            let state = self.state();
            // Under the lock of the references: who moves a tag beside us does it before or after.
            self.backend.update_refs(&mut |now| {
                if *now != refs {
                    // Somebody published: what is garbage has to be found out anew, next time.
                    return Ok(());
                }
                for stored in batch {
                    let wanted = state.pinned.contains(&stored.digest)
                        || self.shown_anywhere(&stored.digest)
                        || !self.is_still(&stored.digest, &old)?;
                    if !wanted {
                        self.backend.remove_blob(&stored.digest)?;
                        self.backend.spare(&stored.digest)?;
                        self.verified.remove(&stored.digest);
                        self.usage.remove(&stored.digest);
                        done.blobs += 1;
                        done.bytes += stored.len;
                    }
                }
                Ok(())
            })?;
        }
        Ok(done)
    }

    /// On a storage that others write, too: leaves in `garbage` what was condemned a grace period
    /// ago, and condemns the rest; gives those that are garbage no more, and how many wait.
    ///
    /// A server beside this one may have looked at a blob just before it was unlinked here, and
    /// accept a manifest that names it just after. The next collection sees that manifest.
    fn judge(
        &self,
        garbage: &mut Vec<Stored>,
        old: &dyn Fn(SystemTime) -> bool,
    ) -> Result<(Vec<Digest>, usize), StoreError> {
        let mut condemned: BTreeMap<Digest, SystemTime> =
            self.backend.condemned()?.into_iter().collect();
        let mut due = Vec::new();
        let mut waiting = 0;
        for stored in garbage.drain(..) {
            match condemned.remove(&stored.digest) {
                Some(since) if old(since) => due.push(stored),
                Some(_) => waiting += 1,
                None => {
                    self.backend.condemn(&stored.digest)?;
                    waiting += 1;
                }
            }
        }
        *garbage = due;
        Ok((condemned.into_keys().collect(), waiting))
    }

    /// The references, and everything they, young links and referrers need.
    fn mark(
        &self,
        state: &mut State,
        old: &dyn Fn(SystemTime) -> bool,
    ) -> Result<(Refs, BTreeSet<Digest>), StoreError> {
        let links = self.backend.links()?;
        let mut refs = Refs::new();
        let mut named = Vec::new();
        self.rebuild(state)?;
        let index = self.backend.index()?;
        for entry in &index.manifests {
            named.push(entry.digest.clone());
            if let Some(reference) = storage::layout::reference_of(entry) {
                refs.insert(reference.to_owned(), entry.clone());
            }
        }
        let mut marks = Marks::new(self);
        for link in links.iter().filter(|link| link.kind == Kind::Manifest) {
            let facts = match marks.facts(state, &link.digest) {
                // Damaged, it is attached to nothing; if it is needed, that is found out below.
                Err(StoreError::Unknowable(_)) => None,
                // The medium did not say: what it is attached to may be needed.
                facts => facts?,
            };
            if let Some(facts) = facts
                && let Some(subject) = &facts.subject
            {
                let attached = marks.attached.entry(subject.clone()).or_default();
                attached.push(link.digest.clone());
            }
        }
        for link in links.iter().filter(|link| !old(link.modified)) {
            match link.kind {
                Kind::Manifest => named.push(link.digest.clone()),
                Kind::Blob => marks.blob(&link.digest, &mut named),
            }
        }
        marks.mark(state, named)?;
        Ok((refs, marks.needed))
    }

    fn sweep_links(
        &self,
        state: &mut State,
        needed: &BTreeSet<Digest>,
        old: &dyn Fn(SystemTime) -> bool,
        dry: bool,
    ) -> Result<usize, StoreError> {
        let links = self.backend.links()?;
        let garbage = |link: &&Link| old(link.modified) && !needed.contains(&link.digest);
        let mut removed = 0;
        let mut swept = Ok(());
        for link in links.iter().filter(garbage) {
            if !dry {
                swept = self.backend.remove_link(&link.name, link.kind, &link.digest).map(drop);
                if swept.is_err() {
                    break;
                }
                state.unlink(&link.name, link.kind, &link.digest);
                state.facts.remove(&link.digest);
            }
            removed += 1;
        }
        // Also after an error: what was removed must not be shown.
        if !dry {
            self.rebuild(state)?;
        }
        swept.map(|()| removed)
    }

    fn shown_anywhere(&self, digest: &Digest) -> bool {
        let catalog = self.catalog.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut repositories = catalog.repositories.values();
        repositories.any(|it| it.blobs.contains(digest) || it.manifests.contains_key(digest))
    }

    /// Whether the blob is as old as it was.
    fn is_still(
        &self,
        digest: &Digest,
        old: &dyn Fn(SystemTime) -> bool,
    ) -> Result<bool, StoreError> {
        let Some(blob) = self.backend.open_blob(digest)? else { return Ok(false) };
        Ok(old(blob.modified()?))
    }
}

/// What was found to be needed so far.
struct Marks<'a> {
    store: &'a Store,
    needed: BTreeSet<Digest>,
    /// Manifests by what they are attached to.
    attached: BTreeMap<Digest, Vec<Digest>>,
    /// TUF metadata that was read, each once however often it is named.
    read: BTreeSet<Digest>,
}

impl<'a> Marks<'a> {
    fn new(store: &'a Store) -> Self {
        let (needed, attached, read) = Default::default();
        Marks { store, needed, attached, read }
    }

    fn mark(&mut self, state: &mut State, mut open: Vec<Digest>) -> Result<(), StoreError> {
        while let Some(digest) = open.pop() {
            if !self.needed.insert(digest.clone()) {
                continue;
            }
            if let Some(attached) = self.attached.get(&digest) {
                open.extend(attached.iter().cloned());
            }
            let Some(facts) = self.facts(state, &digest)? else { continue };
            open.extend(facts.manifests.iter().map(|(child, _)| child.clone()));
            open.extend(facts.subject.iter().cloned());
            for metadata in &facts.metadata {
                if self.read.insert(metadata.clone()) {
                    open.extend(self.targets(metadata)?);
                }
            }
            for blob in &facts.blobs {
                self.blob(blob, &mut open);
            }
        }
        Ok(())
    }

    /// A needed blob. It needs nothing itself, so it is not read.
    fn blob(&mut self, blob: &Digest, open: &mut Vec<Digest>) {
        if self.needed.contains(blob) {
            return;
        }
        match self.attached.contains_key(blob) {
            // Somebody uses the bytes of a manifest as a blob as well.
            true => open.push(blob.clone()),
            false => {
                self.needed.insert(blob.clone());
            }
        }
    }

    /// What a manifest refers to; `None` when it is not there, or is no manifest.
    fn facts(&self, state: &mut State, digest: &Digest) -> Result<Option<Arc<Facts>>, StoreError> {
        if let Some(known) = state.facts.get(digest) {
            return Ok(Some(Arc::clone(known)));
        }
        let Some(blob) = self.store.backend.open_blob(digest)? else { return Ok(None) };
        if blob.len() > MANIFEST_LIMIT {
            // A target or a linked blob: too large to be a manifest.
            return Ok(None);
        }
        match self.store.read(digest, MANIFEST_LIMIT)? {
            Read::Bytes(bytes) => Ok(Facts::parse(&bytes).ok().map(Arc::new)),
            Read::Missing => Ok(None),
            Read::Damaged => Err(StoreError::Unknowable(digest.clone())),
        }
    }

    /// The hashes that a TUF metadata file gives its targets; none when it is no such file.
    /// Signatures do not matter: here, a stranger's word only keeps more.
    fn targets(&self, metadata: &Digest) -> Result<Vec<Digest>, StoreError> {
        let Some(blob) = self.store.backend.open_blob(metadata)? else {
            // It cannot be served either, so nobody follows it.
            return Ok(Vec::new());
        };
        if blob.len() > METADATA_LIMIT {
            return Ok(Vec::new());
        }
        match self.store.read(metadata, METADATA_LIMIT)? {
            Read::Bytes(bytes) => Ok(targets_of(&bytes)),
            Read::Missing => Ok(Vec::new()),
            Read::Damaged => Err(StoreError::Unknowable(metadata.clone())),
        }
    }
}

/// Every digest that stands under the name of its algorithm, as the hashes of targets do. What is
/// odd or not JSON takes nothing away from what stands before it. Keeps nothing else in memory.
fn targets_of(bytes: &[u8]) -> Vec<Digest> {
    let mut found = Vec::new();
    let mut document = serde_json::Deserializer::from_slice(bytes);
    let walked = Walk { name: "", found: &mut found }.deserialize(&mut document);
    if let Err(error) = walked {
        tracing::debug!(%error, "pushed as TUF metadata, and is none");
    }
    found
}

/// A value of a JSON document, and the member's name that it has.
struct Walk<'a> {
    name: &'a str,
    found: &'a mut Vec<Digest>,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        if Algorithm::from_name(self.name).is_ok()
            && let Ok(digest) = format!("{}:{text}", self.name).parse()
        {
            self.found.push(digest);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Walk { name: "", found: &mut *self.found })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(name) = members.next_key::<String>()? {
            members.next_value_seed(Walk { name: &name, found: &mut *self.found })?;
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use formats::oci::{Descriptor, Index, Manifest, RepositoryName, annotation, media_type};
    use formats::oci::{EMPTY_CONFIG, Tag};

    use super::super::backend::{Backend, Blob, Upload, UploadKey};
    use super::super::local::Local;
    use super::super::quota::Quota;
    use super::super::write::Target;
    use super::*;
    use crate::auth::Tagging;
    use crate::route::{Reference, SessionId};

    const HOUR: Duration = Duration::from_secs(3600);

    fn name(text: &str) -> RepositoryName {
        text.parse().unwrap()
    }

    fn put_blob(store: &Store, repository: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::sha256_of(bytes);
        let mut random = [0; 16];
        getrandom::fill(&mut random).unwrap();
        let id = SessionId::from_random(random);
        let key = UploadKey { name: name(repository), id, algorithm: digest.algorithm() };
        let mut upload = store.new_upload(&key).unwrap();
        upload.write(bytes).unwrap();
        store.commit_blob(&name(repository), upload, &digest).unwrap();
        digest
    }

    fn put(store: &Store, repository: &str, tag: Option<&str>, bytes: &[u8]) -> Digest {
        let digest = Digest::sha256_of(bytes);
        let reference = match tag {
            Some(tag) => Reference::Tag(tag.parse::<Tag>().unwrap()),
            None => Reference::Digest(digest.clone()),
        };
        let bytes = Bytes::copy_from_slice(bytes);
        let (name, tags, tagging) = (name(repository), Vec::new(), Tagging::Move);
        let to = Target { name, reference, tags, tagging };
        store.put_manifest(&to, None, &bytes).unwrap();
        digest
    }

    fn artifact(store: &Store, repository: &str, layers: Vec<Descriptor>) -> Manifest {
        put_blob(store, repository, EMPTY_CONFIG);
        Manifest::artifact("application/vnd.test", Descriptor::empty(), layers)
    }

    /// A release of one component; its index, image manifest and image.
    fn release(store: &Store, tag: Option<&str>, image: &[u8]) -> [Digest; 3] {
        let blob = put_blob(store, "r/demo", image);
        let manifest = artifact(store, "r/demo", vec![Descriptor::of("image", image)]).to_bytes();
        let os = put(store, "r/demo", None, &manifest);
        let index = Index::new(None, vec![Descriptor::of(media_type::MANIFEST, &manifest)]);
        [put(store, "r/demo", tag, &index.to_bytes()), os, blob]
    }

    fn attach(store: &Store, subject: &Digest, text: &[u8]) -> Digest {
        put_blob(store, "r/demo", text);
        let mut manifest = artifact(store, "r/demo", vec![Descriptor::of("sbom", text)]);
        manifest.subject = Some(Descriptor::new(media_type::MANIFEST, subject.clone(), 1));
        put(store, "r/demo", None, &manifest.to_bytes())
    }

    fn state(store: &Store, tags: &[&str], targets: &[(&str, &Digest)]) -> Digest {
        let targets: serde_json::Map<String, serde_json::Value> = targets
            .iter()
            .map(|(name, digest)| {
                let target =
                    serde_json::json!({ "length": 1, "hashes": { "sha256": digest.hex() } });
                ((*name).to_owned(), target)
            })
            .collect();
        let text = serde_json::json!({ "signatures": [], "signed": { "targets": targets } });
        let text = text.to_string().into_bytes();
        put_blob(store, "r/tuf", &text);
        let layer = Descriptor::of(media_type::TUF_METADATA, &text)
            .annotated(annotation::TUF_FILENAME, "1.targets.json");
        let manifest = artifact(store, "r/tuf", vec![layer]).to_bytes();
        for tag in tags {
            put(store, "r/tuf", Some(tag), &manifest);
        }
        Digest::sha256_of(&manifest)
    }

    struct Scene {
        needed: Vec<Digest>,
        garbage: Vec<Digest>,
    }

    /// Everything a repository sees in its life.
    fn scene(store: &Store) -> Scene {
        let tagged = release(store, Some("1.0"), b"image 1.0");
        let untagged_but_signed = release(store, None, b"image 0.9");
        let old_state_only = release(store, None, b"image 0.8");
        let forgotten = release(store, None, b"image 0.7");
        let sbom = attach(store, &tagged[1], b"sbom of 1.0");
        let signature = attach(store, &sbom, b"signature of that sbom");
        let forgotten_sbom = attach(store, &forgotten[1], b"sbom of 0.7");
        let lonely = put_blob(store, "r/demo", b"a blob nobody finished with a manifest");
        state(store, &["ts-1"], &[("demo/0.8", &old_state_only[0])]);
        state(store, &["ts-2", "latest"], &[("demo/0.9", &untagged_but_signed[0])]);
        let overwritten = state(store, &["moving"], &[("demo/0.7", &forgotten[0])]);
        put(store, "r/tuf", Some("moving"), &artifact(store, "r/tuf", vec![]).to_bytes());
        let mut needed = [tagged, untagged_but_signed, old_state_only].concat();
        needed.extend([sbom, signature, Digest::sha256_of(b"signature of that sbom")]);
        let mut garbage = forgotten.to_vec();
        garbage.extend([forgotten_sbom, lonely, overwritten, Digest::sha256_of(b"sbom of 0.7")]);
        Scene { needed, garbage }
    }

    fn later() -> SystemTime {
        SystemTime::now() + 2 * HOUR
    }

    impl Scene {
        #[track_caller]
        fn check(&self, store: &Store, collected: bool) {
            for digest in &self.needed {
                assert!(matches!(store.read(digest, 1 << 20), Ok(Read::Bytes(_))), "{digest}");
                assert!(store.shown_anywhere(digest), "{digest} is needed and not shown");
            }
            let there = |digest: &&Digest| store.backend.open_blob(digest).unwrap().is_some();
            if collected {
                assert_eq!(self.garbage.iter().find(there), None);
            }
            // Whatever is shown is there.
            for (repository, _) in store.repositories() {
                let shown = store.with(&repository, |it| {
                    it.manifests.keys().chain(&it.blobs).cloned().collect::<Vec<_>>()
                });
                for digest in shown.unwrap() {
                    assert!(there(&&digest), "{repository} shows {digest}, which is gone");
                }
            }
        }
    }

    #[test]
    fn what_nothing_reaches_goes_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let quota = Quota { total: Some(1 << 30), repository: None };
        let store = Store::open_with(dir.path(), false, quota).unwrap();
        let scene = scene(&store);
        let used = store.usage().total().unwrap();
        // Within grace nothing goes.
        let none = store.collect(HOUR, SystemTime::now(), false).unwrap();
        assert_eq!((none.links, none.blobs), (0, 0));
        let would = store.collect(HOUR, later(), true).unwrap();
        scene.check(&store, false);
        let did = store.collect(HOUR, later(), false).unwrap();
        assert_eq!(would, did);
        assert!(did.blobs >= scene.garbage.len() && did.links > 0, "{did:?}");
        assert_eq!(store.usage().total().unwrap(), used - did.bytes);
        scene.check(&store, true);
        let again = store.collect(HOUR, later(), false).unwrap();
        assert_eq!((again.links, again.blobs), (0, 0));
        // What was thrown away can be pushed again.
        release(&store, Some("0.7"), b"image 0.7");
        scene.check(&store, false);
        drop(store);
        scene.check(&Store::open(dir.path(), false).unwrap(), false);
    }

    #[test]
    fn a_reused_blob_is_young() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), false).unwrap();
        let [_, _, image] = release(&store, Some("1.0"), b"image");
        let long_ago = SystemTime::now() - 100 * HOUR;
        let aged = |path: &std::path::Path| {
            std::fs::File::open(path).unwrap().set_modified(long_ago).unwrap();
        };
        let put = put_blob(&store, "r/demo", b"old, and pushed again");
        for digest in [&image, &put] {
            aged(&dir.path().join("blobs/sha256").join(digest.hex()));
            aged(&dir.path().join("repositories/r/demo/_blobs/sha256").join(digest.hex()));
        }
        let tag = "1.0".parse().unwrap();
        assert!(store.delete_tag(&name("r/demo"), &tag).unwrap());
        put_blob(&store, "r/demo", b"old, and pushed again");
        assert!(store.mount_blob(&name("r/other"), Some(&name("r/demo")), &image).unwrap());
        store.collect(HOUR, SystemTime::now(), false).unwrap();
        for digest in [&image, &put] {
            assert!(store.backend.open_blob(digest).unwrap().is_some(), "{digest}");
        }
    }

    #[test]
    fn damage_stops_it() {
        for damaged in 0..3 {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(dir.path(), false).unwrap();
            let [index, os, _] = release(&store, Some("1.0"), b"image");
            let state = state(&store, &["latest"], &[("demo/1.0", &index)]);
            put_blob(&store, "r/demo", b"garbage");
            drop(store);
            let victim = [&index, &os, &state][damaged];
            let path = dir.path().join("blobs/sha256").join(victim.hex());
            let mut bytes = std::fs::read(&path).unwrap();
            bytes.push(b' ');
            std::fs::write(&path, bytes).unwrap();
            let store = Store::open(dir.path(), false).unwrap();
            let stopped = store.collect(HOUR, later(), false).unwrap_err();
            assert!(matches!(stopped, StoreError::Unknowable(it) if it == *victim));
            assert!(store.backend.open_blob(&Digest::sha256_of(b"garbage")).unwrap().is_some());
        }
    }

    /// A medium that does not give a link, or what is attached, for once: nothing is thrown away for
    /// it.
    #[test]
    fn what_cannot_be_read_is_no_garbage() {
        use storage::sim::machine::{Call, CallKind, Verdict};
        use storage::sim::{Machine, Media};
        let path = std::path::Path::new("/store");
        let machine = Machine::on(&Media::new().with_folder("/store"), 1000);
        let scene = scene(&Store::open_on(&machine, path, false, Quota::default()).unwrap());
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1000) + 2 * HOUR;
        let before = machine.durable();
        let mut refused = 0;
        for nth in 0.. {
            let machine = Machine::on(&before, 1000);
            let store = Store::open_on(&machine, path, false, Quota::default()).unwrap();
            let first = machine.calls() + nth;
            machine.follow(move |call: &Call<'_>| match call.kind {
                CallKind::Read if call.nth == first => Verdict::Fail(std::io::ErrorKind::Other),
                _ => Verdict::Do,
            });
            let done = store.collect(HOUR, at, false);
            let over = machine.calls() <= first;
            drop(store);
            machine.unscripted();
            refused += usize::from(done.is_err());
            let store = Store::open_on(&machine, path, false, Quota::default()).unwrap();
            scene.check(&store, done.is_ok());
            if over {
                break;
            }
        }
        assert!(refused > 20, "only {refused} reads mattered");
    }

    /// A storage that loses its power after some changes.
    #[derive(Debug)]
    struct Cut {
        inner: Local,
        left: AtomicUsize,
    }

    impl Cut {
        fn spend(&self) -> Result<(), StoreError> {
            let spent =
                self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
            let cut = |_| StoreError::Blob(std::io::Error::other("power cut"));
            spent.map(drop).map_err(cut)
        }
    }

    impl Backend for Cut {
        fn index(&self) -> Result<Arc<Index>, StoreError> {
            self.inner.index()
        }
        fn update_refs(
            &self,
            edit: &mut dyn FnMut(&mut Refs) -> Result<(), StoreError>,
        ) -> Result<(), StoreError> {
            self.inner.update_refs(edit)
        }
        fn open_blob(&self, digest: &Digest) -> Result<Option<Arc<dyn Blob>>, StoreError> {
            self.inner.open_blob(digest)
        }
        fn put_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
            self.inner.put_blob(digest, bytes)
        }
        fn blobs(&self) -> Result<Vec<Stored>, StoreError> {
            self.inner.blobs()
        }
        fn remove_blob(&self, digest: &Digest) -> Result<(), StoreError> {
            self.spend()?;
            self.inner.remove_blob(digest)
        }
        fn links(&self) -> Result<Vec<Link>, StoreError> {
            self.inner.links()
        }
        fn add_link(
            &self,
            name: &RepositoryName,
            kind: Kind,
            digest: &Digest,
            media_type: &str,
        ) -> Result<(), StoreError> {
            self.inner.add_link(name, kind, digest, media_type)
        }
        fn remove_link(
            &self,
            name: &RepositoryName,
            kind: Kind,
            digest: &Digest,
        ) -> Result<bool, StoreError> {
            self.spend()?;
            self.inner.remove_link(name, kind, digest)
        }
        fn new_upload(&self, key: &UploadKey) -> Result<Box<dyn Upload>, StoreError> {
            self.inner.new_upload(key)
        }
        fn resume_upload(&self, key: &UploadKey) -> Result<Option<Box<dyn Upload>>, StoreError> {
            self.inner.resume_upload(key)
        }
        fn uploads(&self) -> Result<Vec<(UploadKey, u64, SystemTime)>, StoreError> {
            self.inner.uploads()
        }
    }

    fn copy(from: &std::path::Path, to: &std::path::Path) {
        for entry in std::fs::read_dir(from).unwrap() {
            let (entry, to) =
                (entry.as_ref().unwrap(), to.join(entry.as_ref().unwrap().file_name()));
            if entry.path().is_dir() {
                std::fs::create_dir(&to).unwrap();
                copy(&entry.path(), &to);
            } else {
                std::fs::copy(entry.path(), to).unwrap();
            }
        }
    }

    /// After a cut at any step, what is needed is there and shown, what is shown is there, and the
    /// next collection finishes the work.
    #[test]
    fn a_cut_at_every_step() {
        let before = tempfile::tempdir().unwrap();
        let scene = scene(&Store::open(before.path(), false).unwrap());
        let mut steps = 0;
        loop {
            let dir = tempfile::tempdir().unwrap();
            copy(before.path(), dir.path());
            let inner = Local::open(dir.path(), false).unwrap();
            let cut = Cut { inner, left: AtomicUsize::new(steps) };
            let store = Store::over(Box::new(cut), false, Quota::default()).unwrap();
            let finished = store.collect(HOUR, later(), false).is_ok();
            // The server that goes on, and the one after a restart, both.
            scene.check(&store, finished);
            drop(store);
            let store = Store::open(dir.path(), false).unwrap();
            scene.check(&store, finished);
            store.collect(HOUR, later(), false).unwrap();
            scene.check(&store, true);
            if finished {
                assert!(steps > 10, "only {steps} steps");
                return;
            }
            steps += 1;
        }
    }
}
