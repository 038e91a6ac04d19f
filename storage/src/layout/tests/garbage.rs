//! What nothing needs goes, and nothing else.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use super::*;

const LATER: Duration = Duration::from_secs(3600);

/// Everything that is there now is old.
fn everything(keep: &[Digest]) -> Sweep<'_> {
    Sweep { among: None, keep, before: SystemTime::now() + LATER }
}

fn put(layout: &LayoutDir, manifest: &Manifest) -> Descriptor {
    let bytes = manifest.to_bytes();
    layout.put_blob(&bytes).unwrap();
    Descriptor::of(media_type::MANIFEST, &bytes)
}

fn artifact(layout: &LayoutDir, layers: &[&[u8]]) -> Manifest {
    layout.put_blob(formats::oci::EMPTY_CONFIG).unwrap();
    for bytes in layers {
        layout.put_blob(bytes).unwrap();
    }
    let layers = layers.iter().map(|bytes| descriptor(bytes)).collect();
    Manifest::artifact("application/x", Descriptor::empty(), layers)
}

#[test]
fn garbage_goes_once_and_what_is_needed_stays() {
    let (_dir, path) = scratch();
    let (layout, _) = sample(&path);
    let needed = layout.blobs().unwrap();
    // A release, with something attached to it, found by their tags only.
    let release = put(&layout, &artifact(&layout, &[b"image"]));
    let mut attached = artifact(&layout, &[b"sbom"]);
    attached.subject = Some(release.clone());
    let attached = put(&layout, &attached);
    let lists = [Index::new(None, vec![release]), Index::new(None, vec![attached])];
    for (name, list) in ["demo:1", "demo:sha256-0"].into_iter().zip(&lists) {
        layout.put_blob(&list.to_bytes()).unwrap();
        let list = Descriptor::of(media_type::INDEX, &list.to_bytes());
        layout.set_refs(&[(name.to_owned(), Some(list))]).unwrap();
    }
    layout.put_blob(b"garbage").unwrap();
    let all = layout.blobs().unwrap().len();
    let swept = layout.sweep(&everything(&[])).unwrap();
    assert_eq!(swept, Swept { blobs: 1, bytes: 7, young: 0 });
    assert_eq!(layout.blobs().unwrap().len(), all - 1);
    assert_eq!(layout.sweep(&everything(&[])).unwrap(), Swept::default());

    // By its subject alone, the release stays.
    layout.set_refs(&[("demo:1".to_owned(), None)]).unwrap();
    assert_eq!(layout.sweep(&everything(&[])).unwrap().blobs, 1, "the index alone");
    layout.set_refs(&[("demo:sha256-0".to_owned(), None)]).unwrap();
    layout.sweep(&everything(&[])).unwrap();
    assert_eq!(layout.blobs().unwrap(), needed);
}

#[test]
fn what_the_caller_keeps_stays_with_what_it_needs() {
    let (_dir, path) = scratch();
    let (layout, _) = sample(&path);
    let kept = put(&layout, &artifact(&layout, &[b"kept"])).digest;
    put(&layout, &artifact(&layout, &[b"not kept"]));
    let swept = layout.sweep(&everything(std::slice::from_ref(&kept))).unwrap();
    assert_eq!(swept.blobs, 2);
    assert!(layout.has_blob(&Digest::sha256_of(b"kept")).unwrap());
    assert!(layout.has_blob(&kept).unwrap());
}

#[test]
fn only_what_was_asked_for_is_looked_at_and_what_is_needed_elsewhere_stays() {
    let (_dir, path) = scratch();
    let (layout, tagged) = sample(&path);
    for garbage in [&b"asked"[..], b"not asked"] {
        layout.put_blob(garbage).unwrap();
    }
    let among: BTreeSet<Digest> = [b"asked", &b"one"[..], b"never there"]
        .into_iter()
        .map(Digest::sha256_of)
        .chain([tagged.digest])
        .collect();
    let sweep = Sweep { among: Some(&among), ..everything(&[]) };
    assert_eq!(layout.sweep(&sweep).unwrap(), Swept { blobs: 1, bytes: 5, young: 0 });
    assert!(layout.has_blob(&Digest::sha256_of(b"not asked")).unwrap());
}

#[test]
fn what_is_young_stays_and_is_young_again_when_it_is_stored_again() {
    let (_dir, path) = scratch();
    let (layout, _) = sample(&path);
    layout.put_blob(b"garbage").unwrap();
    let file = path.join("blobs/sha256").join(Digest::sha256_of(b"garbage").hex());
    let file = std::fs::File::options().write(true).open(file).unwrap();
    let now = SystemTime::now();
    let sweep = Sweep { among: None, keep: &[], before: now - LATER };
    assert_eq!(layout.sweep(&sweep).unwrap(), Swept { young: 1, ..Swept::default() });
    file.set_modified(now - LATER * 2).unwrap();
    layout.put_blob(b"garbage").unwrap();
    assert_eq!(layout.sweep(&sweep).unwrap(), Swept { young: 1, ..Swept::default() });
    file.set_modified(now - LATER * 2).unwrap();
    assert_eq!(layout.sweep(&sweep).unwrap().blobs, 1);
}

/// What a damaged manifest needs is unknown; what a lost one needed is nobody's.
#[test]
fn nothing_goes_while_a_needed_manifest_is_damaged() {
    let (_dir, path) = scratch();
    let (layout, tagged) = sample(&path);
    layout.put_blob(b"garbage").unwrap();
    let before = layout.blobs().unwrap();
    let manifest = path.join("blobs/sha256").join(tagged.digest.hex());
    let bytes = std::fs::read(&manifest).unwrap();
    std::fs::write(&manifest, b"{}").unwrap();
    let error = layout.sweep(&everything(&[])).unwrap_err();
    assert_eq!(error.reason(), Reason::HashMismatch);
    assert_eq!(layout.blobs().unwrap(), before);
    std::fs::write(&manifest, bytes).unwrap();
    assert_eq!(layout.sweep(&everything(&[])).unwrap().blobs, 1);
    // Of another form, it is as unknown.
    let odd = br#"{"layers":1}"#;
    layout.put_blob(odd).unwrap();
    layout.set_refs(&[("odd:1".to_owned(), Some(descriptor(odd)))]).unwrap();
    layout.put_blob(b"garbage").unwrap();
    let error = layout.sweep(&everything(&[])).unwrap_err();
    assert_eq!(error.reason(), Reason::BundleFormat);
    layout.remove_blob(&Digest::sha256_of(odd)).unwrap();
    assert_eq!(layout.sweep(&everything(&[])).unwrap().blobs, 1);
}

#[test]
fn what_is_missing_below_a_manifest_is_named() {
    let (_dir, path) = scratch();
    let (layout, tagged) = sample(&path);
    let index = Index::new(None, vec![tagged.clone()]).to_bytes();
    assert_eq!(layout.missing(&index).unwrap(), None);
    let one = Digest::sha256_of(b"one");
    layout.remove_blob(&one).unwrap();
    assert_eq!(layout.missing(&index).unwrap(), Some(one));
    layout.remove_blob(&tagged.digest).unwrap();
    assert_eq!(layout.missing(&index).unwrap(), Some(tagged.digest));
}

/// Two write states and set tags while a third sweeps everything that no tag needs, however young: no
/// tag ever stands for a manifest without its layers.
#[test]
fn a_tag_that_is_set_meanwhile_is_whole_or_refused() {
    let (_dir, path) = scratch();
    let (_, _) = sample(&path);
    let done = std::sync::atomic::AtomicUsize::new(0);
    let refused = std::thread::scope(|scope| {
        let sweeper = scope.spawn(|| {
            let layout = LayoutDir::open(&path).unwrap();
            while done.load(std::sync::atomic::Ordering::SeqCst) < 2 {
                layout.sweep(&everything(&[])).unwrap();
            }
        });
        let writers = [0, 1].map(|writer: u32| {
            let (path, done) = (&path, &done);
            scope.spawn(move || {
                let layout = LayoutDir::open(path).unwrap();
                let mut refused = 0;
                for n in 0_u32..60 {
                    let layer = [writer.to_be_bytes(), n.to_be_bytes()].concat();
                    let manifest = artifact(&layout, &[&layer]);
                    let tagged = put(&layout, &manifest);
                    let name = format!("tuf:{writer}-{n}");
                    let set = layout.update_refs(|refs| {
                        if layout.missing(&manifest.to_bytes())?.is_some() {
                            refused += 1;
                            return Ok(());
                        }
                        refs.insert(name, tagged);
                        Ok(())
                    });
                    match set {
                        Err(LayoutError::MissingBlob(_)) => refused += 1,
                        set => set.unwrap(),
                    }
                }
                done.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                refused
            })
        });
        let refused: usize = writers.into_iter().map(|it| it.join().unwrap()).sum();
        sweeper.join().unwrap();
        refused
    });
    let layout = LayoutDir::open(&path).unwrap();
    let refs = layout.refs().unwrap();
    assert_eq!(refs.len() + refused, 1 + 120);
    for (name, tagged) in refs {
        let bytes = layout.read_blob(&tagged.digest, 9999).unwrap();
        assert_eq!(layout.missing(&bytes).unwrap(), None, "{name}");
    }
}
