//! python-tuf, the reference implementation, reads the classic tree of `repo-server`.

use racklet_tests::rig::{Credentials, RepoServer, Run, World, venv};

/// The script with this world's server and trust root; targets follow as arguments.
#[track_caller]
fn python_tuf(world: &World, server: &RepoServer) -> Run {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/witness/python_tuf.py");
    venv()
        .arg(script)
        .arg(format!("https://{}", server.authority))
        .arg(world.path("root.json"))
        .arg(world.path("python-tuf"))
        .env("SSL_CERT_FILE", Credentials::of(world).ca)
}

#[test]
fn python_tuf_refreshes_and_downloads() {
    let world = World::with_repository();
    let _releases = (world.publish_stable("1.0.0", 1), world.publish_stable("1.1.0", 2));
    let server = RepoServer::start(&world);
    let done = python_tuf(&world, &server).args(["demo/1.1.0", "demo/channels/stable.json"]).ok();
    let report = done.json();

    let index = report["targets"]["demo/1.1.0"].as_str().expect("a digest");
    assert_eq!(format!("sha256:{index}"), world.repository().tagged("demo:1.1.0"), "{report}");
    let channel = std::fs::read(world.path("python-tuf/targets/demo%2Fchannels%2Fstable.json"));
    let channel: serde_json::Value =
        serde_json::from_slice(&channel.expect("the file was downloaded")).expect("it is JSON");
    assert_eq!(channel["release"]["version"], "1.1.0", "{channel}");
    assert_eq!(report["versions"]["root"], 1, "{report}");
    assert_eq!(report["versions"]["timestamp"], 3, "{report}");
}

#[test]
fn python_tuf_follows_what_is_published() {
    let world = World::with_repository();
    let _v1 = world.publish_stable("1.0.0", 1);
    let server = RepoServer::start(&world);
    let before = python_tuf(&world, &server).arg("demo/channels/stable.json").ok().json();
    let _v2 = world.publish_stable("1.1.0", 2);
    // The same local folder: python-tuf goes on from what it trusts.
    let after = python_tuf(&world, &server).arg("demo/channels/stable.json").ok().json();
    assert_eq!(before["versions"]["timestamp"], 2, "{before}");
    assert_eq!(after["versions"]["timestamp"], 3, "{after}");
    assert_ne!(before["targets"], after["targets"]);
}

#[test]
fn python_tuf_finds_old_releases_in_the_history() {
    let world = World::with_repository();
    let _releases = (1..=4).map(|n| world.publish_stable(&format!("1.{n}.0"), n)).count();
    let _archived = world.signer(&["release", "archive", "--keep", "1"]).ok();
    let server = RepoServer::start(&world);
    let names = ["demo/1.1.0", "demo/1.3.0", "demo/1.4.0"];
    let report = python_tuf(&world, &server).args(names).ok().json();
    for (name, tag) in names.iter().zip(["demo:1.1.0", "demo:1.3.0", "demo:1.4.0"]) {
        let index = report["targets"][*name].as_str().expect("a digest");
        assert_eq!(format!("sha256:{index}"), world.repository().tagged(tag), "{report}");
    }
    let done = python_tuf(&world, &server).arg("demo/9.9.9").finish();
    assert_ne!(done.code, 0);
    assert!(done.stderr.contains("no target demo/9.9.9"), "{}", done.output());
}

#[test]
fn python_tuf_finds_no_unsigned_release() {
    let world = World::with_repository();
    let _v1 = world.publish_stable("1.0.0", 1);
    let server = RepoServer::start(&world);
    let done = python_tuf(&world, &server).arg("demo/9.9.9").finish();
    assert_ne!(done.code, 0);
    assert!(done.stderr.contains("no target demo/9.9.9"), "{}", done.output());
}

#[test]
fn a_flipped_bit_is_found_by_python_tuf_too() {
    // The other side: the witness has really compared digests.
    let world = World::with_repository();
    let _v1 = world.publish_stable("1.0.0", 1);
    let repository = world.repository();
    let file = repository.blob(&repository.tagged("demo:1.0.0"));
    let mut bytes = std::fs::read(&file).expect("read the index");
    bytes[20] ^= 1;
    std::fs::write(&file, bytes).expect("write the index");
    let server = RepoServer::start(&world);
    let done = python_tuf(&world, &server).arg("demo/1.0.0").finish();
    assert_ne!(done.code, 0, "{}", done.output());
}
