//! SBOMs and provenance, from `signer publish` to the policy of a node: over our own registry, over
//! somebody else's that has no referrers API, from a directory and from a stick.

use std::path::PathBuf;

use formats::digest::Sha256;
use formats::reason::Reason;
use racklet_tests::rig::{
    Before, Credentials, DockerRegistry, NAMESPACE, Node, Release, RepoServer, World, tool,
};
use serde_json::Value;

const STATEMENT: &str = r#"{"_type":"https://in-toto.io/Statement/v1",
    "predicateType":"https://slsa.dev/provenance/v1",
    "subject":[{"name":"os","digest":{"sha256":"00"}}]}"#;
const STATUS: &str = "Package: libc6\nStatus: install ok installed\nVersion: 2.36-9\n\
    Architecture: amd64\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 1\n";

#[track_caller]
fn file(world: &World, name: &str, text: &str) -> String {
    let path = world.path(name);
    std::fs::write(&path, text).expect("write a document");
    path.display().to_string()
}

/// 1.0.0 without anything; 1.1.0 with an SBOM made of packages, and a provenance.
#[track_caller]
fn publish(world: &World) -> (Release, Release) {
    let v1 = world.publish_stable("1.0.0", 1);
    let v2 = world.release("1.1.0", 2);
    let (status, statement) = (file(world, "status", STATUS), file(world, "made.json", STATEMENT));
    let options = ["--channel", "stable", "--dpkg-status", &status, "--provenance", &statement];
    let _done = world.publish(&v2, &options);
    (v1, v2)
}

#[track_caller]
fn demanding(world: &World, name: &str, release: &Release, source: &str, kinds: &str) -> Node {
    let node = Node::from_factory(world, name, release, source);
    node.reconfigure("[policy]", &format!("[policy]\nrequire = {kinds}"));
    node
}

/// Debian's docker-registry lists no referrers; nodes go by what is signed, and so do sticks.
#[test]
fn over_a_registry_without_referrers_and_by_stick() {
    let mut world = World::empty();
    let ca = Credentials::of(&world).ca.display().to_string();
    let registry = DockerRegistry::start(&world);
    world.publish_to(&registry.reference(), &["--ca", &ca]);
    world.init();
    let (v1, v2) = publish(&world);
    let both = r#"["sbom", "provenance"]"#;
    let node = demanding(&world, "node", &v1, &registry.reference(), both);
    let report = node.update(&[], "b");
    assert_eq!(report["version"], "1.1.0", "{report}");
    node.expect_slot("b", &v2);

    let stick = world.path("stick.tar");
    world.bundle("1.1.0", &stick);
    let lonely = demanding(&world, "lonely", &v1, "", both);
    let report = lonely.update(&[&stick.display().to_string()], "b");
    assert_eq!(report["version"], "1.1.0", "{report}");
    lonely.expect_slot("b", &v2);
}

/// The referrers API of our server lists them for everybody's tools.
#[test]
fn others_find_them() {
    let (world, server) = RepoServer::with_repository();
    let (_, _) = publish(&world);
    let ca = Credentials::of(&world).ca;
    let curl = |path: &str| {
        let url = format!("https://{}/v2/{NAMESPACE}/demo/{path}", server.authority);
        tool("curl", "curl").args(["-fsS", "--cacert"]).arg(&ca).arg(url).ok().stdout
    };
    let index = Sha256::of(&curl("manifests/1.1.0")).to_hex();
    let list: Value = serde_json::from_slice(&curl(&format!("referrers/sha256:{index}"))).unwrap();
    let mut types: Vec<_> = list["manifests"].as_array().expect("a list").iter().collect();
    types.sort_by_key(|it| it["artifactType"].to_string());
    let types: Vec<_> = types.iter().map(|it| it["artifactType"].as_str().unwrap()).collect();
    assert_eq!(types, ["application/spdx+json", "application/vnd.in-toto+json"]);
    let sbom = list["manifests"].as_array().unwrap().iter();
    let sbom = sbom.clone().find(|it| it["artifactType"] == types[0]).unwrap();
    let manifest = curl(&format!("manifests/{}", sbom["digest"].as_str().unwrap()));
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let layer = manifest["layers"][0]["digest"].as_str().unwrap();
    let document: Value = serde_json::from_slice(&curl(&format!("blobs/{layer}"))).unwrap();
    let names: Vec<_> =
        document["packages"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
    assert_eq!(names, ["demo/packages", "libc6"]);
}

/// What is required and not there: refused before anything is written, by name; what is there with
/// other bytes, too. The next honest release is taken.
#[test]
fn what_is_required_must_be_there() {
    let world = World::with_repository();
    let v1 = world.publish_stable("1.0.0", 1);
    let reference = world.repository().reference();
    let node = demanding(&world, "node", &v1, &reference, r#"["sbom", "provenance"]"#);
    // There is something trusted to be left untouched.
    let _checked = node.agent(&["check"]).finish();
    let _without = world.publish_stable("1.0.5", 5);
    let before = Before::of(&node, "a");
    node.agent(&["apply"]).finish().refused(Reason::AttachmentMissing);
    before.untouched(&node, "SB");

    let bom = file(&world, "bom.json", r#"{"bomFormat":"CycloneDX","specVersion":"1.6"}"#);
    let half = world.release("1.0.6", 6);
    let _done = world.publish(&half, &["--channel", "stable", "--sbom", &bom]);
    node.agent(&["apply"]).finish().refused(Reason::AttachmentMissing);

    let statement = file(&world, "made.json", STATEMENT);
    let whole = world.release("1.1.0", 2);
    let options = ["--channel", "stable", "--sbom", &bom, "--provenance", &statement];
    let _done = world.publish(&whole, &options);
    // Another SBOM of the same length under its name; then none at all.
    let digest = format!("sha256:{}", Sha256::of(&std::fs::read(&bom).unwrap()).to_hex());
    let blob: PathBuf = world.repository().blob(&digest);
    let honest = std::fs::read(&blob).expect("the SBOM is a blob");
    std::fs::write(&blob, String::from_utf8_lossy(&honest).replace("1.6", "1.5")).unwrap();
    let before = Before::of(&node, "a");
    node.agent(&["apply"]).finish().refused(Reason::HashMismatch);
    before.untouched(&node, "SB");
    std::fs::remove_file(&blob).unwrap();
    assert_ne!(node.agent(&["apply"]).finish().code, 0);
    before.untouched(&node, "SB");
    std::fs::write(&blob, honest).unwrap();
    let report = node.update(&[], "b");
    assert_eq!(report["version"], "1.1.0", "{report}");
    node.expect_slot("b", &whole);
}

/// Documents that are something else are refused before anything is built or uploaded.
#[test]
fn odd_documents_are_not_attached() {
    let world = World::with_repository();
    let release = world.release("1.0.0", 1);
    let odd = file(&world, "odd.json", r#"{"bomFormat":"Other"}"#);
    let huge = file(&world, "huge.json", &" ".repeat((16 << 20) + 1));
    for (options, reason) in [
        (["--sbom", odd.as_str()], Reason::BundleFormat),
        (["--provenance", &odd], Reason::BundleFormat),
        (["--sbom", &huge], Reason::MetaLimit),
        (["--sbom", "/nonexistent"], Reason::Config),
        (["--dpkg-status", &odd], Reason::Config),
    ] {
        world.try_publish(&release, &options).refused(reason);
    }
    // Neither is there a package database in noise.
    world.try_publish(&release, &["--sbom-from-image"]).refused(Reason::Config);
}

/// An ext4 and a squashfs image with dpkg's database: an SBOM is made from each.
#[test]
fn from_the_images_themselves() {
    let world = World::with_repository();
    let tree = world.path("tree/var/lib/dpkg");
    std::fs::create_dir_all(&tree).expect("make a tree");
    std::fs::write(tree.join("status"), STATUS).expect("write a database");
    let (tree, ext4, squashfs) =
        (world.path("tree"), world.path("root.ext4"), world.path("root.squashfs"));
    let make = tool("mke2fs", "e2fsprogs").args(["-q", "-t", "ext4", "-d"]);
    let _made = make.arg(&tree).arg(&ext4).arg("4M").ok();
    let make = tool("mksquashfs", "squashfs-tools").arg(&tree).arg(&squashfs);
    let _made = make.args(["-noappend", "-quiet"]).ok();
    let publish = ["publish", "--product", "demo", "--version", "1.0.0", "--sbom-from-image"];
    let mut publish = world.signer(&publish);
    for (name, image) in [("os", &ext4), ("apps", &squashfs)] {
        let component = format!("{name}={},hw=racklet-cu-v1", image.display());
        publish = publish.args(["--component", &component]);
    }
    let _done = publish.ok();
    let blobs = std::fs::read_dir(world.repository().dir().join("blobs/sha256")).unwrap();
    let documents = blobs.map_while(Result::ok).filter_map(|entry| {
        let bytes = std::fs::read(entry.path()).ok()?;
        serde_json::from_slice::<Value>(&bytes).ok().filter(|it| it["spdxVersion"] == "SPDX-2.3")
    });
    let mut documents: Vec<_> = documents.collect();
    documents.sort_by_key(|it| it["name"].to_string());
    let names: Vec<_> = documents.iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["demo/apps 1.0.0", "demo/os 1.0.0"]);
    assert!(documents.iter().all(|it| it["packages"][1]["name"] == "libc6"));
}
