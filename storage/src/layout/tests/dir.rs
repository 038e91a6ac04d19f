//! Layouts in directories.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;

use super::*;

#[test]
fn a_layout_reads_back_through_another_handle() {
    let (_dir, path) = scratch();
    let (_, tagged) = sample(&path);
    let again = LayoutDir::open(&path).unwrap();
    let found = again.resolve("tuf:latest").unwrap().unwrap();
    assert_eq!((found.digest.clone(), found.size), (tagged.digest, tagged.size));
    assert_eq!(again.resolve("latest").unwrap(), None);
    assert_eq!(again.blobs().unwrap().len(), 4);
    assert_eq!(again.read_blob(&Digest::sha256_of(b"one"), 3).unwrap(), b"one");
    let mut part = [0; 2];
    again.read_blob_at(&Digest::sha256_of(b"one"), &mut part, 1).unwrap();
    assert_eq!(&part, b"ne");
    let mode = fs::metadata(path.join("blobs/sha256").join(found.digest.hex())).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o644);
}

#[test]
fn tags_move_together_and_strangers_stay() {
    let (_dir, path) = scratch();
    let (layout, tagged) = sample(&path);
    let stranger = tagged.clone().annotated("other", "kept");
    let index = Index::new(None, vec![stranger.clone()]);
    fs::write(path.join("index.json"), index.to_bytes()).unwrap();
    layout
        .set_refs(&[
            ("b:2".to_owned(), Some(tagged.clone())),
            ("a:1".to_owned(), Some(tagged.clone())),
        ])
        .unwrap();
    let names = |layout: &LayoutDir| -> Vec<String> {
        layout.refs().unwrap().into_iter().map(|(name, _)| name).collect()
    };
    assert_eq!(names(&layout), ["a:1", "b:2"]);
    assert_eq!(layout.index().unwrap().manifests[0], stranger);
    layout.set_refs(&[("a:1".to_owned(), None), ("c:3".to_owned(), Some(tagged))]).unwrap();
    assert_eq!(names(&layout), ["b:2", "c:3"]);

    // Nothing moves when one of them cannot.
    let missing = descriptor(b"not there");
    let error = layout
        .set_refs(&[("b:2".to_owned(), None), ("d:4".to_owned(), Some(missing))])
        .unwrap_err();
    assert!(matches!(error, LayoutError::MissingBlob(_)));
    assert_eq!(names(&layout), ["b:2", "c:3"]);
}

/// A manifest that a disk lost keeps its own tag from being read, and no other from moving.
#[test]
fn one_lost_manifest_holds_nothing_up() {
    let (_dir, path) = scratch();
    let (layout, tagged) = sample(&path);
    let lost = descriptor(b"lost");
    layout.put_blob(b"lost").unwrap();
    layout.set_refs(&[("lost:1".to_owned(), Some(lost.clone()))]).unwrap();
    layout.remove_blob(&lost.digest).unwrap();
    layout.set_refs(&[("b:2".to_owned(), Some(tagged))]).unwrap();
    let again = layout.set_refs(&[("lost:2".to_owned(), Some(lost))]).unwrap_err();
    assert!(matches!(again, LayoutError::MissingBlob(_)));
    layout.set_refs(&[("lost:1".to_owned(), None)]).unwrap();
    let names: Vec<_> = layout.refs().unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["b:2", "tuf:latest"]);
}

#[test]
fn writers_of_different_tags_lose_nothing() {
    let (_dir, path) = scratch();
    let (_, tagged) = sample(&path);
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let (path, tagged) = (&path, &tagged);
            scope.spawn(move || {
                let layout = LayoutDir::open(path).unwrap();
                for nth in 0..5 {
                    let name = format!("demo:{writer}.{nth}");
                    layout.set_refs(&[(name, Some(tagged.clone()))]).unwrap();
                }
            });
        }
    });
    assert_eq!(LayoutDir::open(&path).unwrap().refs().unwrap().len(), 21);
}

#[test]
fn a_blob_is_visible_only_when_it_is_whole() {
    let (_dir, path) = scratch();
    let layout = LayoutDir::create(&path).unwrap();
    let digest = Digest::sha256_of(b"hello");
    let mut writer = layout.blob_writer().unwrap();
    writer.write_all(b"hel").unwrap();
    assert!(!layout.has_blob(&digest).unwrap());
    let wrong = writer.commit(Some(&digest)).unwrap_err();
    assert_eq!(wrong.reason(), Reason::HashMismatch);
    assert!(layout.blobs().unwrap().is_empty());

    let mut writer = layout.blob_writer().unwrap();
    writer.write_all(b"hello").unwrap();
    drop(writer);
    assert_eq!(fs::read_dir(path.join(".tmp")).unwrap().count(), 0, "a dropped writer stays");

    let mut writer = layout.blob_writer().unwrap();
    writer.write_all(b"hello").unwrap();
    assert_eq!(writer.commit(Some(&digest)).unwrap(), digest);
    assert_eq!(layout.read_blob(&digest, 5).unwrap(), b"hello");

    // The algorithm comes only at the end, as a registry's client may do it.
    let mut hasher = formats::digest::Algorithm::Sha512.hasher();
    hasher.update(b"hello");
    let long = hasher.finish();
    let mut writer = layout.blob_writer().unwrap();
    writer.write_all(b"hello").unwrap();
    assert_eq!(writer.commit(Some(&long)).unwrap(), long);
    assert_eq!(layout.read_blob(&long, 5).unwrap(), b"hello");
}

#[test]
fn only_the_dead_lose_their_temporary_files() {
    let (_dir, path) = scratch();
    let layout = LayoutDir::create(&path).unwrap();
    let mut living = layout.blob_writer().unwrap();
    living.write_all(b"alive").unwrap();
    for dead in [".tmp/.tmp-1-0", ".tmp-1-1"] {
        fs::write(path.join(dead), b"left behind").unwrap();
    }
    LayoutDir::create(&path).unwrap();
    assert!(!path.join(".tmp/.tmp-1-0").exists() && !path.join(".tmp-1-1").exists());
    let digest = living.commit(None).unwrap();
    assert_eq!(layout.read_blob(&digest, 5).unwrap(), b"alive");
}

#[test]
fn a_damaged_blob_is_not_given_out_and_is_mended() {
    let (_dir, path) = scratch();
    let layout = LayoutDir::create(&path).unwrap();
    let digest = layout.put_blob(b"bytes").unwrap();
    let file = path.join("blobs/sha256").join(digest.hex());
    fs::write(&file, b"bytez").unwrap();
    assert_eq!(layout.read_blob(&digest, 9).unwrap_err().reason(), Reason::HashMismatch);
    layout.put_blob(b"bytes").unwrap();
    assert_eq!(layout.read_blob(&digest, 9).unwrap(), b"bytes");
    assert_eq!(layout.read_blob(&digest, 4).unwrap_err().reason(), Reason::LengthMismatch);
    let missing = Digest::sha256_of(b"missing");
    assert_eq!(layout.read_blob(&missing, 9).unwrap_err().reason(), Reason::BundleFormat);
}

#[test]
fn one_reference_stands_for_one_digest() {
    let (_dir, path) = scratch();
    let (layout, _) = sample(&path);
    let named = |bytes: &[u8]| descriptor(bytes).annotated(annotation::REF_NAME, "x:1");
    let index = Index::new(None, vec![named(b"one"), named(&[7; 3000])]);
    fs::write(path.join("index.json"), index.to_bytes()).unwrap();
    assert_eq!(layout.resolve("x:1").unwrap_err().reason(), Reason::BundleFormat);
    assert!(layout.set_refs(&[("y:1".to_owned(), None)]).is_err());
}

#[test]
fn what_is_no_layout_is_refused() {
    let (dir, path) = scratch();
    assert_eq!(LayoutDir::open(&path).unwrap_err().reason(), Reason::Unreachable);
    fs::create_dir(&path).unwrap();
    assert_eq!(LayoutDir::open(&path).unwrap_err().reason(), Reason::BundleFormat);
    fs::write(path.join("oci-layout"), br#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
    assert_eq!(LayoutDir::open(&path).unwrap_err().reason(), Reason::BundleFormat);
    fs::write(path.join("oci-layout"), LAYOUT_FILE).unwrap();
    let layout = LayoutDir::open(&path).unwrap();
    assert_eq!(layout.refs().unwrap_err().reason(), Reason::BundleFormat);
    File::create(path.join("index.json")).unwrap().set_len(INDEX_LIMIT + 1).unwrap();
    assert_eq!(layout.refs().unwrap_err().reason(), Reason::MetaLimit);
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    assert_eq!(LayoutDir::open(&file).unwrap_err().reason(), Reason::PathRefused);
}

#[test]
fn links_and_pipes_inside_are_refused() {
    let (dir, path) = scratch();
    let (_, tagged) = sample(&path);
    let elsewhere = dir.path().join("elsewhere");
    let mut whole = PathBuf::new();
    for part in ["", "oci-layout", "index.json", "blobs", "blobs/sha256", "BLOB"] {
        let part = part.replace("BLOB", &format!("blobs/sha256/{}", tagged.digest.hex()));
        let victim = if part.is_empty() { path.clone() } else { path.join(&part) };
        fs::rename(&victim, &elsewhere).unwrap();
        symlink(&elsewhere, &victim).unwrap();
        let read = LayoutDir::open(&path).and_then(|layout| {
            let found = layout.resolve("tuf:latest")?.unwrap();
            layout.read_blob(&found.digest, found.size)
        });
        assert_eq!(read.unwrap_err().reason(), Reason::PathRefused, "symbolic link at {part:?}");
        fs::remove_file(&victim).unwrap();
        fs::rename(&elsewhere, &victim).unwrap();
        whole = victim;
    }
    // A pipe in place of a blob must not be waited for.
    fs::remove_file(&whole).unwrap();
    make_fifo(&whole);
    let layout = LayoutDir::open(&path).unwrap();
    let error = layout.read_blob(&tagged.digest, tagged.size).unwrap_err();
    assert_eq!(error.reason(), Reason::PathRefused);
}

#[test]
fn a_blob_that_is_stored_again_is_young_again() {
    let (_dir, path) = scratch();
    let layout = LayoutDir::create(&path).unwrap();
    let digest = layout.put_blob(b"one").unwrap();
    let file = path.join("blobs/sha256").join(digest.hex());
    let aged = || {
        let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(1 << 20);
        File::open(&file).unwrap().set_modified(long_ago).unwrap();
    };
    let age = || fs::metadata(&file).unwrap().modified().unwrap().elapsed().unwrap().as_secs();
    aged();
    assert!(age() > 1000);
    layout.put_blob(b"one").unwrap();
    assert!(age() < 1000);
    let (_other, path) = scratch();
    let from = LayoutDir::create(&path).unwrap();
    from.put_blob(b"one").unwrap();
    aged();
    layout.copy_blob(&from, &digest).unwrap();
    assert!(age() < 1000);
}
