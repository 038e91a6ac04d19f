//! Collections over whole stores: what stays, what goes, and what a cut or a fault leaves.
#![cfg(test)]

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use formats::oci::{Descriptor, Index, Manifest, RepositoryName, annotation, media_type};
use formats::oci::{EMPTY_CONFIG, Tag};
use storage::host::System;

use super::super::backend::{Backend, Blob, Upload, UploadKey};
use super::super::local::Local;
use super::super::quota::Quota;
use super::super::write::ManifestDestination;
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
    let to = ManifestDestination { name, reference, tags, tagging };
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
            let target = serde_json::json!({ "length": 1, "hashes": { "sha256": digest.hex() } });
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
            assert!(matches!(store.read(digest, 1 << 20), Ok(ReadOutcome::Bytes(_))), "{digest}");
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
    let none = store.collect(HOUR, SystemTime::now(), Retention::default()).unwrap();
    assert_eq!((none.links, none.blobs), (0, 0));
    let would = store.plan_collection(HOUR, later(), Retention::default()).unwrap().garbage();
    scene.check(&store, false);
    let did = store.collect(HOUR, later(), Retention::default()).unwrap();
    assert_eq!(would, did);
    assert!(did.blobs >= scene.garbage.len() && did.links > 0, "{did:?}");
    assert_eq!(store.usage().total().unwrap(), used - did.bytes);
    scene.check(&store, true);
    let again = store.collect(HOUR, later(), Retention::default()).unwrap();
    assert_eq!((again.links, again.blobs), (0, 0));
    // What was deleted can be pushed again.
    release(&store, Some("0.7"), b"image 0.7");
    scene.check(&store, false);
    drop(store);
    scene.check(&Store::open(dir.path(), false).unwrap(), false);
}

/// What only states list that are kept for audits goes; their metadata stay.
#[test]
fn of_an_old_state_the_metadata_stay() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), false).unwrap();
    let unlisted = release(&store, None, b"image 0.1");
    let listed = release(&store, None, b"image 0.2");
    let (mut states, newest) = (Vec::new(), 40);
    for version in 1..=newest {
        let number = format!("demo/0.{version}");
        // Each lists a name that nothing has, so that no two are the same.
        let nothing = Digest::sha256_of(number.as_bytes());
        let old = (version < 20).then_some(("demo/0.1", &unlisted[0]));
        let all = [Some((number.as_str(), &nothing)), Some(("demo/0.2", &listed[0])), old];
        let all: Vec<_> = all.into_iter().flatten().collect();
        let tag = format!("ts-{version}");
        let tags = [tag.as_str(), "latest"];
        states.push(state(&store, if version == newest { &tags } else { &tags[..1] }, &all));
    }
    let (all, few) = (Retention::default(), Retention::of(16).unwrap());
    let there = |digest: &Digest| store.backend.open_blob(digest).unwrap().is_some();
    store.collect(HOUR, later(), all).unwrap();
    assert!(unlisted.iter().all(there), "its states are among the newest 256");
    let would = store.plan_collection(HOUR, later(), few).unwrap().garbage();
    assert_eq!(store.collect(HOUR, later(), few).unwrap(), would);
    assert!(!unlisted.iter().any(there));
    for digest in listed.iter().chain(&states) {
        assert!(there(digest) && store.shown_anywhere(digest), "{digest}");
    }
}

/// A manifest that is also a layer of another one still keeps what it refers to.
#[test]
fn a_manifest_that_is_a_layer_as_well_keeps_what_it_needs() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), false).unwrap();
    let index = release(&store, None, b"signed, without a tag");
    state(&store, &["latest"], &[("demo/1.0", &index[0])]);
    let bytes = store.document(&index[0]).unwrap().unwrap();
    put_blob(&store, "r/demo", &bytes);
    let layers = vec![Descriptor::of("x", &bytes)];
    put(&store, "r/demo", Some("zzz"), &artifact(&store, "r/demo", layers).to_bytes());
    store.collect(HOUR, later(), Retention::default()).unwrap();
    for digest in &index {
        assert!(store.shown_anywhere(digest), "{digest}");
        assert!(matches!(store.read(digest, 1 << 20), Ok(ReadOutcome::Bytes(_))), "{digest}");
    }
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
    store.collect(HOUR, SystemTime::now(), Retention::default()).unwrap();
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
        let stopped = store.collect(HOUR, later(), Retention::default()).unwrap_err();
        assert!(matches!(stopped, StoreError::UnreadableReferences(it) if it == *victim));
        assert!(store.backend.open_blob(&Digest::sha256_of(b"garbage")).unwrap().is_some());
    }
}

/// A medium that does not give a link, or what is attached, for once: nothing is deleted for
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
        let done = store.collect(HOUR, at, Retention::default());
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
    fn blobs(&self) -> Result<Vec<StoredBlob>, StoreError> {
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
        kind: LinkKind,
        digest: &Digest,
        media_type: &str,
    ) -> Result<(), StoreError> {
        self.inner.add_link(name, kind, digest, media_type)
    }
    fn remove_link(
        &self,
        name: &RepositoryName,
        kind: LinkKind,
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
        let (entry, to) = (entry.as_ref().unwrap(), to.join(entry.as_ref().unwrap().file_name()));
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
        let inner = Local::open_on(&System, dir.path(), false).unwrap();
        let cut = Cut { inner, left: AtomicUsize::new(steps) };
        let store = Store::over(Box::new(cut), false, Quota::default()).unwrap();
        let finished = store.collect(HOUR, later(), Retention::default()).is_ok();
        // The server that goes on, and the one after a restart, both.
        scene.check(&store, finished);
        drop(store);
        let store = Store::open(dir.path(), false).unwrap();
        scene.check(&store, finished);
        store.collect(HOUR, later(), Retention::default()).unwrap();
        scene.check(&store, true);
        if finished {
            assert!(steps > 10, "only {steps} steps");
            return;
        }
        steps += 1;
    }
}
