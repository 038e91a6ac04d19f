use std::path::PathBuf;
use std::process::Command;

use formats::oci::{Manifest, media_type};
use tempfile::TempDir;

use super::*;

mod archive;
mod dir;
mod garbage;
mod writing;

fn scratch() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("layout");
    (dir, path)
}

fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor::of("application/octet-stream", bytes)
}

/// A layout with one tagged manifest of two layers.
fn sample(path: &Path) -> (LayoutDir, Descriptor) {
    let layout = LayoutDir::create(path).unwrap();
    let layers: Vec<Descriptor> = [&b"one"[..], &[7; 3000]].map(descriptor).to_vec();
    for bytes in [&b"one"[..], &[7; 3000], formats::oci::EMPTY_CONFIG] {
        layout.put_blob(bytes).unwrap();
    }
    let manifest = Manifest::artifact("application/x", Descriptor::empty(), layers).to_bytes();
    layout.put_blob(&manifest).unwrap();
    let tagged = Descriptor::of(media_type::MANIFEST, &manifest);
    layout.set_refs(&[("tuf:latest".to_owned(), Some(tagged.clone()))]).unwrap();
    (layout, tagged)
}

fn make_fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}
