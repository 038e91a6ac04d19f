//! A repository in a directory, to be looked into and tampered with.
//!
//! Files are changed with plain JSON, not with our own types: what breaks here breaks as it would
//! on a stick somebody else had in hands.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use formats::digest::Sha256;
use serde_json::{Value, json};

use super::must;
use super::run::Run;
use super::world::NAMESPACE;

/// An OCI image layout.
#[derive(Debug, Clone)]
pub struct Repository {
    dir: PathBuf,
}

/// Members of an OCI annotation.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const TUF_FILENAME: &str = "tuf.io/filename";

impl Repository {
    /// The layout in that folder.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Repository { dir: dir.into() }
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its repository reference.
    pub fn reference(&self) -> String {
        format!("oci:{}:{NAMESPACE}", self.dir.display())
    }

    /// A copy, as it is now.
    #[track_caller]
    pub fn copy_to(&self, dir: &Path) -> Repository {
        let _copied = Run::new("cp").args(["-r", "--"]).arg(&self.dir).arg(dir).ok();
        Repository::at(dir)
    }

    /// The digest that `NAMESPACE/<name>` (say, `tuf:latest`) stands for.
    #[track_caller]
    pub fn tagged(&self, name: &str) -> String {
        let name = format!("{NAMESPACE}/{name}");
        let index = self.index();
        let found = manifests(&index).find(|entry| entry["annotations"][REF_NAME] == name.as_str());
        match found.and_then(|entry| entry["digest"].as_str()) {
            Some(digest) => digest.to_owned(),
            None => panic!("{name} is not in {}", self.dir.display()),
        }
    }

    /// Every tag, with its digest.
    #[track_caller]
    pub fn tags(&self) -> BTreeMap<String, String> {
        let index = self.index();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        manifests(&index)
            .map(|entry| (text(&entry["annotations"][REF_NAME]), text(&entry["digest"])))
            .collect()
    }

    /// A file of the layout by its digest.
    pub fn blob(&self, digest: &str) -> PathBuf {
        self.dir.join("blobs").join(digest.replacen(':', "/", 1))
    }

    /// A JSON document by its digest.
    #[track_caller]
    pub fn document(&self, digest: &str) -> Value {
        parse(&read(&self.blob(digest)))
    }

    /// The image blob of a component of a release of the product: the manifest's first layer.
    #[track_caller]
    pub fn image_blob(&self, tag: &str, component: &str) -> PathBuf {
        self.image_blobs(tag, component).remove(0)
    }

    /// Every blob that a component can be made of, small frames first: at least one.
    #[track_caller]
    pub fn image_blobs(&self, tag: &str, component: &str) -> Vec<PathBuf> {
        let index = self.document(&self.tagged(tag));
        let manifest = manifests(&index)
            .find(|entry| entry["annotations"]["racklet.component"] == component)
            .and_then(|entry| entry["digest"].as_str());
        let Some(manifest) = manifest else { panic!("{tag} has no component {component}") };
        let mut manifest = self.document(manifest);
        let layers = layers(&mut manifest);
        let images = layers.filter(|layer| {
            layer["mediaType"].as_str().is_some_and(|kind| kind.ends_with("+zstd"))
        });
        let digests = images.map(|layer| layer["digest"].as_str().expect("a digest"));
        let blobs: Vec<PathBuf> = digests.map(|digest| self.blob(digest)).collect();
        assert!(!blobs.is_empty(), "{component} has no image");
        blobs
    }

    /// Changes the files of the TUF state, by their TUF file names, and lets `tuf:latest` stand for
    /// the result. Descriptors and tags are right afterwards; what is signed is the caller's.
    #[track_caller]
    pub fn edit_state(&self, edit: impl FnOnce(&mut BTreeMap<String, Vec<u8>>)) {
        let before = self.tagged("tuf:latest");
        let mut manifest = self.document(&before);
        let mut files = BTreeMap::new();
        for layer in layers(&mut manifest) {
            let digest = layer["digest"].as_str().expect("a layer has a digest");
            files.insert(file_name(layer), read(&self.blob(digest)));
        }
        edit(&mut files);
        for layer in layers(&mut manifest) {
            let bytes = files.get(&file_name(layer)).expect("files are changed, not removed");
            layer["digest"] = json!(self.put(bytes));
            layer["size"] = json!(bytes.len());
        }
        let bytes = manifest.to_string().into_bytes();
        let mut index = self.index();
        let digest = self.put(&bytes);
        for entry in index["manifests"].as_array_mut().expect("index.json lists manifests") {
            if entry["digest"] == before.as_str() {
                entry["digest"] = json!(digest);
                entry["size"] = json!(bytes.len());
            }
        }
        must(fs::write(self.dir.join("index.json"), index.to_string()), "write index.json");
    }

    fn put(&self, bytes: &[u8]) -> String {
        let digest = format!("sha256:{}", Sha256::of(bytes).to_hex());
        must(fs::write(self.blob(&digest), bytes), "write a blob");
        digest
    }

    #[track_caller]
    fn index(&self) -> Value {
        parse(&read(&self.dir.join("index.json")))
    }
}

fn manifests(index: &Value) -> impl Iterator<Item = &Value> {
    index["manifests"].as_array().into_iter().flatten()
}

fn layers(manifest: &mut Value) -> impl Iterator<Item = &mut Value> {
    manifest["layers"].as_array_mut().into_iter().flatten()
}

fn file_name(layer: &Value) -> String {
    layer["annotations"][TUF_FILENAME].as_str().expect("every layer has a name").to_owned()
}

#[track_caller]
fn read(path: &Path) -> Vec<u8> {
    must(fs::read(path), &format!("read {}", path.display()))
}

#[track_caller]
fn parse(bytes: &[u8]) -> Value {
    must(serde_json::from_slice(bytes), "parse a document of the layout")
}
