//! Directories and bundles as sources.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use formats::digest::Digest;
use formats::oci::{Descriptor, Index, Manifest, annotation, media_type};
use storage::layout::{Archive, Layout, LayoutDir};
use update_agent::http::Limits;
use update_agent::source::{FetchError, Source, SourceConfig, TufState, open};

const MAX: u64 = 1 << 20;

fn source(place: &str) -> Box<dyn Source> {
    open(&SourceConfig::at(place), Limits::default()).unwrap()
}

fn code<T: std::fmt::Debug>(result: Result<T, FetchError>) -> &'static str {
    let error = result.unwrap_err();
    println!("{}: {error}", error.reason());
    error.reason().code()
}

struct Repository {
    dir: tempfile::TempDir,
    layout: LayoutDir,
    blob: Descriptor,
    bytes: Vec<u8>,
    index: Digest,
}

impl Repository {
    /// A repository whose TUF state has these references.
    fn new(references: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let layout = LayoutDir::create(&dir.path().join("repo")).unwrap();
        let bytes: Vec<u8> =
            (0..600_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let blob = Descriptor::of(media_type::IMAGE_BLOB, &bytes);
        layout.put_blob(&bytes).unwrap();
        let index =
            layout.put_blob(&Index::new(Some(media_type::RELEASE), vec![]).to_bytes()).unwrap();
        let repository = Repository { dir, layout, blob, bytes, index };
        for reference in references {
            repository.tag(reference, media_type::TUF_STATE, b"{}");
        }
        repository
    }

    fn tag(&self, reference: &str, artifact_type: &str, timestamp: &[u8]) {
        self.layout.put_blob(timestamp).unwrap();
        let layer = Descriptor::of(media_type::TUF_METADATA, timestamp)
            .annotated(annotation::TUF_FILENAME, "timestamp.json");
        let manifest =
            Manifest::artifact(artifact_type, Descriptor::empty(), vec![layer]).to_bytes();
        self.layout.put_blob(&manifest).unwrap();
        self.layout.put_blob(formats::oci::EMPTY_CONFIG).unwrap();
        let descriptor = Descriptor::of(media_type::MANIFEST, &manifest);
        self.layout.set_refs(&[(reference.to_owned(), Some(descriptor))]).unwrap();
    }

    fn path(&self) -> &Path {
        self.layout.path()
    }

    fn place(&self) -> String {
        format!("oci:{}", self.path().display())
    }

    fn bundle(&self) -> PathBuf {
        let path = self.dir.path().join("bundle.tar");
        let (index, blobs) = (self.layout.index().unwrap(), self.layout.blobs().unwrap());
        Archive::write(&path, &self.layout, &index, &blobs, |_| {}).unwrap();
        path
    }
}

fn check_all(source: &dyn Source, repository: &Repository) {
    let TufState::Changed { etag, files } = source.tuf_state(None).unwrap() else { panic!("new") };
    assert_eq!(source.tuf_state(etag.as_deref()).unwrap(), TufState::Unchanged);
    assert_eq!(source.tuf_file(&files["timestamp.json"], 10).unwrap(), b"{}");
    let index = source.manifest("demo", &repository.index, MAX).unwrap();
    assert_eq!(Digest::sha256_of(&index), repository.index);
    assert!(source.blob("demo", &repository.blob, MAX).unwrap() == repository.bytes);
    let mut got = Vec::new();
    source
        .ranges("demo", &repository.blob, &[3..10, 10..20, 100_000..600_000], &mut |at, bytes| {
            assert!(bytes.len() <= 256 << 10);
            assert_eq!(bytes[0], repository.bytes[at as usize]);
            got.extend_from_slice(bytes);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(got == [&repository.bytes[3..20], &repository.bytes[100_000..]].concat());
    assert_eq!(source.bytes_fetched(), 0, "nothing came over a network");
}

#[test]
fn directories_and_bundles_give_the_same() {
    let repository = Repository::new(&["racklet/tuf:latest"]);
    let bundle = repository.bundle();
    for place in [
        format!("{}:racklet", repository.place()),
        repository.place(),
        repository.path().display().to_string(),
        format!("oci-archive:{}:racklet", bundle.display()),
        bundle.display().to_string(),
    ] {
        let source = source(&place);
        assert!(source.describe().starts_with("oci"), "{}", source.describe());
        check_all(&*source, &repository);
    }
}

#[test]
fn the_state_is_found_under_the_names_other_tools_give_it() {
    for reference in
        ["tuf:latest", "latest", "racklet/tuf:latest", "registry.example/ns/tuf:latest"]
    {
        let repository = Repository::new(&[reference]);
        for namespace in ["", ":racklet"] {
            check_all(&*source(&format!("{}{namespace}", repository.place())), &repository);
        }
    }
}

#[test]
fn the_state_is_never_guessed() {
    let none = Repository::new(&["tuf:ts-1", "demo:1.0.0"]);
    assert_eq!(code(source(&none.place()).tuf_state(None)), "bundle_format");

    let several = Repository::new(&[]);
    several.tag("a/tuf:latest", media_type::TUF_STATE, b"{}");
    several.tag("b/tuf:latest", media_type::TUF_STATE, b"{ }");
    assert_eq!(code(source(&several.place()).tuf_state(None)), "bundle_format");
    assert!(source(&format!("{}:a", several.place())).tuf_state(None).is_ok(), "named");

    let other = Repository::new(&["racklet/tuf:latest"]);
    other.tag("latest", media_type::IMAGE, b"{}");
    check_all(&*source(&other.place()), &other);

    let wrong = Repository::new(&[]);
    wrong.tag("tuf:latest", media_type::IMAGE, b"{}");
    assert_eq!(code(source(&wrong.place()).tuf_state(None)), "bundle_format");
}

#[test]
fn case_88_damaged_files_are_refused_by_every_reader_of_whole_objects() {
    let repository = Repository::new(&["tuf:latest"]);
    let source = source(&repository.place());
    let blobs = repository.path().join("blobs/sha256");
    let damage = |digest: &Digest, change: &dyn Fn(&mut Vec<u8>)| {
        let path = blobs.join(digest.hex());
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
    };
    damage(&repository.blob.digest, &|bytes| bytes[1000] ^= 1);
    assert_eq!(code(source.blob("demo", &repository.blob, MAX)), "hash_mismatch");
    damage(&repository.blob.digest, &|bytes| bytes.truncate(500));
    assert_eq!(code(source.blob("demo", &repository.blob, MAX)), "length_mismatch");
    let mut sink = |_: u64, _: &[u8]| ControlFlow::Continue(());
    let past_end = source.ranges("demo", &repository.blob, &[0..100, 400..600], &mut sink);
    assert_eq!(code(past_end), "length_mismatch");
    damage(&repository.index, &|bytes| bytes[0] = b' ');
    assert_eq!(code(source.manifest("demo", &repository.index, MAX)), "hash_mismatch");
    fs::remove_file(blobs.join(repository.index.hex())).unwrap();
    assert_eq!(code(source.manifest("demo", &repository.index, MAX)), "bundle_format");
    let mut huge = repository.blob.clone();
    huge.size = 1 << 40;
    assert_eq!(code(source.blob("demo", &huge, MAX)), "meta_limit");
}

#[test]
fn an_open_directory_shows_a_new_state() {
    let repository = Repository::new(&["tuf:latest"]);
    let source = source(&repository.place());
    let TufState::Changed { etag, .. } = source.tuf_state(None).unwrap() else { panic!("new") };
    repository.tag("tuf:latest", media_type::TUF_STATE, b"{ }");
    let TufState::Changed { etag: next, .. } = source.tuf_state(etag.as_deref()).unwrap() else {
        panic!("the state has moved")
    };
    assert_ne!(etag, next);
}

#[test]
fn what_is_no_repository_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.tar");
    fs::write(&file, b"not a tar").unwrap();
    for place in [dir.path(), &file] {
        let config = SourceConfig::at(&place.display().to_string());
        let result = open(&config, Limits::default()).map(|source| source.describe());
        assert_eq!(code(result), "bundle_format", "{}", place.display());
    }
}
