//! The maintainer's side: a folder with keys, images and a repository.

use std::fs;
use std::path::{Path, PathBuf};

use formats::json::Value;
use formats::reason::Exit;
use formats::tuf::envelope_bytes;
use signer::key::{KeyStore, read_public, sign};
use tempfile::TempDir;

use super::images::{self, Image};
use super::layout::Repository;
use super::must;
use super::node::HARDWARE;
use super::programs::program;
use super::run::{Done, Run};

/// Namespace of all repositories here.
pub const NAMESPACE: &str = "racklet";
/// The product of all releases here.
pub const PRODUCT: &str = "demo";

/// A folder that goes away with the test, and what is published from it.
#[derive(Debug)]
pub struct World {
    dir: TempDir,
    reference: String,
    options: Vec<String>,
}

/// The images of a release.
#[derive(Debug, Clone)]
pub struct Release {
    /// Its version.
    pub version: String,
    /// The operating system.
    pub os: Image,
    /// The firmware blob.
    pub firmware: Image,
}

impl World {
    /// A folder with nothing in it; `signer` will publish to its directory `repository`.
    #[track_caller]
    pub fn empty() -> Self {
        let dir = must(tempfile::Builder::new().prefix("racklet-").tempdir(), "make a folder");
        let reference = Repository::at(dir.path().join("repository")).reference();
        World { dir, reference, options: Vec::new() }
    }

    /// A folder with fresh keys and a first repository in a directory.
    #[track_caller]
    pub fn with_repository() -> Self {
        let world = World::empty();
        world.init();
        world
    }

    /// [`World::with_repository`] with the keys of `keys-example/`, which are the same in every world; with the
    /// trust root of another one, nodes of that one follow this one.
    #[track_caller]
    pub fn with_example_keys(root: Option<&Path>) -> Self {
        let world = World::empty();
        let keys = world.path("keys");
        let _made = program("signer").args(["key", "example", "--out"]).arg(&keys).ok();
        if let Some(root) = root {
            must(fs::copy(root, keys.join("root.json")), "copy the trust root");
        }
        world.init();
        world
    }

    /// Publishes to that reference from now on, with these options of `signer`.
    pub fn publish_to(&mut self, reference: &str, options: &[&str]) {
        self.reference = reference.to_owned();
        self.options = options.iter().map(|&option| option.to_owned()).collect();
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The repository in the directory of this world.
    pub fn repository(&self) -> Repository {
        Repository::at(self.path("repository"))
    }

    /// `signer COMMAND` on the repository, with the keys and `--json`.
    #[track_caller]
    pub fn signer(&self, command: &[&str]) -> Run {
        let keys = self.path("keys");
        self.signer_without_keys(command).arg("--keys").arg(keys)
    }

    #[track_caller]
    fn signer_without_keys(&self, command: &[&str]) -> Run {
        let repo = ["--json", "--repo", &self.reference];
        program("signer").args(command).args(repo).args(&self.options)
    }

    /// Fresh keys and a first repository. The node's trust root is `root.json`, a copy: it travels
    /// with the node's image, not over the network.
    #[track_caller]
    pub fn init(&self) {
        let _done = self.signer(&["init"]).ok();
        let copied = fs::copy(self.path("keys/root.json"), self.path("root.json"));
        must(copied, "copy the trust root that `signer init` left with the keys");
    }

    /// The images of a release: the same number gives the same bytes.
    #[track_caller]
    pub fn release(&self, version: &str, number: u64) -> Release {
        let image =
            |kind: &str, bytes| Image::write(&self.path(&format!("{kind}-{version}.img")), bytes);
        Release {
            version: version.to_owned(),
            os: image("os", images::system(number)),
            firmware: image("firmware", images::firmware(number)),
        }
    }

    /// Publishes a release, with further options of `signer publish`.
    #[track_caller]
    pub fn publish(&self, release: &Release, options: &[&str]) -> Done {
        self.try_publish(release, options).exits(Exit::Done)
    }

    /// [`World::publish`], whatever comes of it.
    #[track_caller]
    pub fn try_publish(&self, release: &Release, options: &[&str]) -> Done {
        let component =
            |name: &str, image: &Image| format!("{name}={},hw={HARDWARE}", image.path.display());
        self.signer(&["publish", "--product", PRODUCT, "--version", &release.version])
            .args(["--component", &component("os", &release.os)])
            .args(["--component", &component("firmware", &release.firmware)])
            .args(options)
            .finish()
    }

    /// [`World::release`] and [`World::publish`] on channel `stable`.
    #[track_caller]
    pub fn publish_stable(&self, version: &str, number: u64) -> Release {
        let release = self.release(version, number);
        let _done = self.publish(&release, &["--channel", "stable"]);
        release
    }

    /// Writes one release with all its metadata to `file`, a tar or a directory.
    #[track_caller]
    pub fn bundle(&self, version: &str, file: &Path) {
        let release = ["--product", PRODUCT, "--version", version, "-o"];
        let _done = self.signer(&["bundle"]).args(release).arg(file).ok();
    }

    /// Signs metadata with the key of a role, as the file that is published.
    #[track_caller]
    pub fn signed(&self, role: &str, signed: &Value) -> Vec<u8> {
        self.signed_in("keys", role, signed)
    }

    /// The same with the keys of another folder.
    #[track_caller]
    pub fn signed_in(&self, folder: &str, role: &str, signed: &Value) -> Vec<u8> {
        let keys = self.path(folder);
        let public = must(read_public(&keys.join(role).with_extension("pub")), "read a key");
        let store = must(KeyStore::open(&keys), "open the keys");
        let key = store.find(&public.id()).expect("`signer init` made both halves");
        let signature = must(sign(key, &signed.canonical()), "sign");
        envelope_bytes(signed, &[signature])
    }
}
