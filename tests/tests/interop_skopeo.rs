//! `skopeo` mirrors a repository as it is, to other people's registries and to directories, and
//! nodes update from each mirror.

use std::collections::BTreeMap;

use formats::digest::Sha256;
use racklet_tests::rig::{
    Credentials, DockerRegistry, NAMESPACE, Node, Release, RepoServer, Repository, Run, World,
    tool, venv,
};
use serde_json::Value;

/// The tags a mirror must have to be of use.
const TAGS: [&str; 3] = ["tuf:latest", "demo:1.0.0", "demo:1.1.0"];

/// A published repository and what serves it.
struct Origin {
    world: World,
    v1: Release,
    v2: Release,
    server: RepoServer,
}

impl Origin {
    #[track_caller]
    fn new() -> Self {
        let world = World::with_repository();
        let (v1, v2) = (world.publish_stable("1.0.0", 1), world.publish_stable("1.1.0", 2));
        let server = RepoServer::start(&world);
        // skopeo wants a folder with a file of this ending.
        let certificates = world.path("certificates");
        std::fs::create_dir(&certificates).expect("make a folder");
        let ca = Credentials::of(&world).ca;
        std::fs::copy(ca, certificates.join("ca.crt")).expect("copy the CA");
        Origin { world, v1, v2, server }
    }

    #[track_caller]
    fn skopeo(&self, args: &[&str]) -> Run {
        let home = self.world.path("home");
        tool("skopeo", "skopeo").args(args).env("HOME", home.as_os_str())
    }

    /// `skopeo inspect --raw`: the very bytes of a manifest, as a digest.
    #[track_caller]
    fn digest_at(&self, place: &str) -> String {
        let certificates = self.world.path("certificates");
        let mut inspect = self.skopeo(&["inspect", "--raw"]);
        if place.starts_with("docker:") {
            inspect = inspect.arg("--cert-dir").arg(certificates);
        }
        let bytes = inspect.arg(place).ok().stdout;
        format!("sha256:{}", Sha256::of(&bytes).to_hex())
    }

    /// Copies every tag from `repo-server`.
    #[track_caller]
    fn mirror(&self, to: impl Fn(&str) -> String) {
        let certificates = self.world.path("certificates");
        for tag in TAGS {
            let from = format!("docker://{}/{NAMESPACE}/{tag}", self.server.authority);
            let to = to(tag);
            let mut copy = self.skopeo(&["copy", "--quiet", "--all", "--preserve-digests"]);
            copy = copy.arg("--src-cert-dir").arg(&certificates);
            if to.starts_with("docker:") {
                copy = copy.arg("--dest-cert-dir").arg(&certificates);
            }
            let _copied = copy.args([&from, &to]).ok();
        }
    }

    /// The digests of all tags as they were published.
    #[track_caller]
    fn published(&self) -> BTreeMap<String, String> {
        let repository = self.world.repository();
        TAGS.iter().map(|tag| ((*tag).to_owned(), repository.tagged(tag))).collect()
    }

    /// A node updates from a mirror alone.
    #[track_caller]
    fn update_from(&self, name: &str, source: &str) {
        let node = Node::from_factory(&self.world, name, &self.v1, source);
        let report = node.update(&[], "b");
        assert_eq!(report["version"], "1.1.0", "{report}");
        node.expect_slot("b", &self.v2);
        node.disk.expect_valid();
    }
}

#[test]
fn to_docker_registry() {
    let origin = Origin::new();
    let registry = DockerRegistry::start(&origin.world);
    let place = |tag: &str| format!("docker://{}/{NAMESPACE}/{tag}", registry.authority);
    origin.mirror(place);
    for (tag, digest) in origin.published() {
        assert_eq!(origin.digest_at(&place(&tag)), digest, "{tag}");
    }
    origin.update_from("node", &registry.reference());
}

#[test]
fn to_a_directory() {
    let origin = Origin::new();
    let mirror = Repository::at(origin.world.path("mirror"));
    origin.mirror(|tag| format!("oci:{}:{NAMESPACE}/{tag}", mirror.dir().display()));
    for (tag, digest) in origin.published() {
        assert_eq!(mirror.tagged(&tag), digest, "{tag}");
    }
    // Whatever a node may ask for is there, byte for byte.
    let blobs = |repository: &Repository| -> BTreeMap<String, Sha256> {
        let folder = repository.dir().join("blobs/sha256");
        let entries = std::fs::read_dir(folder).expect("list blobs").map_while(Result::ok);
        let digest = |entry: std::fs::DirEntry| {
            let bytes = std::fs::read(entry.path()).expect("read a blob");
            (entry.file_name().to_string_lossy().into_owned(), Sha256::of(&bytes))
        };
        entries.map(digest).collect()
    };
    let (ours, mirrored) = (blobs(&origin.world.repository()), blobs(&mirror));
    for (name, digest) in &mirrored {
        assert_eq!(ours.get(name), Some(digest), "a blob of the mirror");
    }
    assert!(mirrored.len() > 10, "{} blobs in the mirror", mirrored.len());
    origin.update_from("node", &mirror.reference());
}

#[test]
fn from_the_origin_itself() {
    let origin = Origin::new();
    for (tag, digest) in origin.published() {
        let place = format!("docker://{}/{NAMESPACE}/{tag}", origin.server.authority);
        assert_eq!(origin.digest_at(&place), digest, "{tag}");
    }
    origin.update_from("node", &origin.server.reference());
}

#[test]
fn from_a_directory_that_skopeo_wrote_under_bare_tags() {
    // `skopeo copy docker://… oci:DIR:latest`: the shortest thing a person types.
    let origin = Origin::new();
    let mirror = Repository::at(origin.world.path("mirror"));
    origin.mirror(|tag| {
        let bare = tag.split(':').next_back().expect("a tag");
        format!("oci:{}:{bare}", mirror.dir().display())
    });
    origin.update_from("node", &format!("oci:{}", mirror.dir().display()));
}

#[test]
fn signer_publishes_to_docker_registry() {
    let mut world = World::empty();
    let registry = DockerRegistry::start(&world);
    let ca = Credentials::of(&world).ca;
    world.publish_to(&registry.reference(), &["--ca", ca.to_str().expect("UTF-8")]);
    world.init();
    let (v1, v2) = (world.publish_stable("1.0.0", 1), world.publish_stable("1.1.0", 2));
    let node = Node::from_factory(&world, "node", &v1, &registry.reference());
    node.update(&[], "b");
    node.expect_slot("b", &v2);
}

#[test]
fn oras_lists_and_pulls_the_tuf_artifact() {
    let origin = Origin::new();
    let ca = Credentials::of(&origin.world).ca;
    let folder = origin.world.path("pulled");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/witness/oras_pull.py");
    let repository = format!("{}/{NAMESPACE}/tuf", origin.server.authority);
    let done = venv().arg(script).arg(&repository).arg(&folder).env("REQUESTS_CA_BUNDLE", ca).ok();
    let report = done.json();
    let tags = report["tags"].as_array().expect("a list");
    assert!(tags.contains(&Value::from("latest")), "{report}");
    let files = report["files"].as_array().expect("a list");
    for name in ["1.root.json", "timestamp.json", "targets/demo/channels/stable.json"] {
        assert!(files.contains(&Value::from(name)), "{name}: {report}");
        assert!(folder.join(name).is_file(), "{name}");
    }
}
