//! What is kept, for how long and how much of it: garbage, quotas.
#![allow(clippy::unwrap_used, reason = "these are tests, and so are their parts")]

mod common;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use common::{Fixture, noise};
use formats::digest::Digest;
use repo_server::Collect;
use signer::plan::Retention;

fn gc(dir: &Path, more: &[&str]) -> (Option<i32>, serde_json::Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_repo-server"));
    let output = command.arg("gc").arg("--dir").arg(dir).arg("--json").args(more).output().unwrap();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default())
}

/// Makes everything below a directory two days old.
fn age(dir: &Path) {
    let long_ago = SystemTime::now() - Duration::from_secs(2 * 86_400);
    for (path, _) in common::tree(dir) {
        std::fs::File::open(path).unwrap().set_modified(long_ago).unwrap();
    }
}

/// Who may push calls anything TUF metadata. What is none names nothing, and garbage goes on.
#[test]
fn what_is_no_metadata_stops_no_collection() {
    use formats::oci::{Descriptor, EMPTY_CONFIG, Manifest, media_type};
    let server = Fixture::new();
    let kept = server.push_blob("a", b"a target, named by metadata that ends early");
    server.push_artifact("a", "gone", &[b"garbage"]);
    server.push("DELETE", "/v2/a/manifests/gone", &[], &[]).expect(202);
    server.push_blob("evil", EMPTY_CONFIG);
    let mut layers: Vec<Descriptor> = Vec::new();
    for bytes in [
        b"not json".to_vec(),
        b"{}".to_vec(),
        br#"{"signed":{"targets":{"x":{"hashes":{"sha256":7}},"y":[]}}}"#.to_vec(),
        format!(r#"{{"signed":{{"targets":{{"x":{{"hashes":{{"sha256":"{}"}}}},"#, kept.hex())
            .into_bytes(),
        "[".repeat(100_000).into_bytes(),
        vec![b' '; (5 << 20) + 1],
    ] {
        server.push_blob("evil", &bytes);
        layers.push(Descriptor::of(media_type::TUF_METADATA, &bytes));
    }
    // Thousands of names for one blob are one blob to read.
    layers.extend(std::iter::repeat_n(layers[4].clone(), 2000));
    let manifest = Manifest::artifact("application/vnd.test", Descriptor::empty(), layers);
    server.push_manifest("evil", "latest", &manifest.to_bytes());
    let Fixture { temp, server: running } = server;
    running.stop();
    let dir = temp.path().join("repository");
    age(&dir);
    let (code, done) = gc(&dir, &[]);
    assert_eq!((code, done["blobs"].as_u64()), (Some(0), Some(2)), "{done}");
    let blob = |digest: &Digest| dir.join("blobs/sha256").join(digest.hex());
    assert!(!blob(&Digest::sha256_of(b"garbage")).exists());
    assert!(blob(&kept).exists(), "what was named before the end is kept");
}

/// 205: what nobody needs goes, by hand and by itself; never what a tag needs.
#[test]
fn garbage_is_collected() {
    let server = Fixture::new();
    server.push_artifact("a", "v1", &[b"kept"]);
    let manifest = server.push_artifact("a", "v0", &[b"garbage"]);
    let garbage = Digest::sha256_of(b"garbage");
    server.push("DELETE", "/v2/a/manifests/v0", &[], &[]).expect(202);
    // A server writes there: hands off.
    assert_eq!(gc(&server.dir(), &[]).0, Some(21));
    let Fixture { temp, server: running } = server;
    running.stop();
    let dir = temp.path().join("repository");
    let (code, done) = gc(&dir, &[]);
    assert_eq!((code, done["blobs"].as_u64()), (Some(0), Some(0)), "within grace: {done}");
    age(&dir);
    let before = common::tree(&dir);
    let (_, would) = gc(&dir, &["--dry-run"]);
    assert_eq!(would["blobs"], 2, "{would}");
    assert_eq!(common::tree(&dir), before);
    let day = Duration::from_secs(86_400);
    let server = repo_server::start(common::config(&temp, |config| {
        config.collect = Some(Collect {
            interval: Duration::from_millis(50),
            grace: day,
            states: Retention::EVERYTHING,
        });
    }));
    let server = Fixture { temp, server: server.unwrap() };
    common::until("the collection of garbage", || {
        !server.blob_path(&garbage).exists() && !server.blob_path(&manifest).exists()
    });
    server.get(&format!("/v2/a/blobs/{garbage}")).expect_error(404, "BLOB_UNKNOWN");
    server.get("/v2/a/manifests/v1").expect(200);
    server.get(&format!("/v2/a/blobs/{}", Digest::sha256_of(b"kept"))).expect(200);
}

/// A server that deletes nothing over HTTP still loses the tags of old TUF states in its collections.
#[test]
fn old_states_lose_their_tags_in_a_collection() {
    let server = Fixture::new();
    for number in 1..=40_u32 {
        server.push_artifact("fleet/tuf", &format!("ts-{number}"), &[&number.to_le_bytes()]);
    }
    server.push_artifact("fleet/tuf", "latest", &[&40_u32.to_le_bytes()]);
    server.push_artifact("fleet/tuf", "change-1", &[b"staged"]);
    let Fixture { temp, server: running } = server;
    running.stop();
    let dir = temp.path().join("repository");
    let before = common::tree(&dir);
    let (_, would) = gc(&dir, &["--dry-run", "--states", "16"]);
    // 16 and 25 to 40 stay.
    assert_eq!(would["states"], 23, "{would}");
    assert_eq!(gc(&dir, &["--dry-run", "--states", "all"]).1["states"], 0);
    assert_eq!(gc(&dir, &["--dry-run"]).1["states"], 0, "256 by default");
    assert_eq!(gc(&dir, &["--states", "15"]).0, Some(2));
    assert_eq!(common::tree(&dir), before);
    let (interval, grace) = (Duration::from_millis(50), Duration::from_secs(86_400));
    let server = repo_server::start(common::config(&temp, |config| {
        let states = Retention::of(16).unwrap();
        config.collect = Some(Collect { interval, grace, states });
    }));
    let server = Fixture { temp, server: server.unwrap() };
    let tags = || server.get("/v2/fleet/tuf/tags/list").expect(200).json()["tags"].clone();
    common::until("the collection of old states", || tags().as_array().unwrap().len() == 19);
    let tags = tags().to_string();
    for (tag, stays) in [("ts-16", true), ("ts-25", true), ("change-1", true), ("ts-24", false)] {
        assert_eq!(tags.contains(&format!("\"{tag}\"")), stays, "{tag}: {tags}");
    }
    server.get("/v2/fleet/tuf/manifests/latest").expect(200);
}

/// A push under way survives a collection that runs all the time.
#[test]
fn pushes_survive_a_greedy_collector() {
    let server = Fixture::with(|config| {
        let grace = Duration::from_secs(60);
        config.collect = Some(Collect {
            interval: Duration::from_millis(1),
            grace,
            states: Retention::EVERYTHING,
        });
    });
    for i in 0..30_u32 {
        let tag = format!("v{i}");
        let layer = i.to_le_bytes();
        server.push_artifact("a", &tag, &[&layer, b"shared"]);
        server.get(&format!("/v2/a/blobs/{}", Digest::sha256_of(&layer))).expect(200);
        server.push("DELETE", &format!("/v2/a/manifests/{tag}"), &[], &[]).expect(202);
    }
}

#[test]
fn quotas() {
    let server = Fixture::with(|config| {
        config.quota.total = Some(250_000);
        config.quota.repository = Some(150_000);
    });
    let first = server.push_blob("a", &noise(100_000));
    let whole = |name: &str, bytes: &[u8]| {
        let digest = Digest::sha256_of(bytes);
        server.push("POST", &format!("/v2/{name}/blobs/uploads/?digest={digest}"), &[], bytes)
    };
    let mut other = noise(100_000);
    other.reverse();
    whole("a", &other).expect_error(403, "DENIED");
    // Chunk by chunk, the same end; and cancelling gives the room back.
    let location = server.start_upload("a");
    server.push("PATCH", &location, &[], &other[..40_000]).expect(202);
    server.push("PATCH", &location, &[], &other[40_000..]).expect_error(403, "DENIED");
    let second = server.start_upload("a");
    server.push("PATCH", &second, &[], &other[..20_000]).expect_error(403, "DENIED");
    server.push("DELETE", &location, &[], &[]).expect(204);
    server.push("PATCH", &second, &[], &other[..20_000]).expect(202);
    server.push("DELETE", &second, &[], &[]).expect(204);
    // The same bytes in another repository count for it, but not again in all.
    server
        .push("POST", &format!("/v2/b/blobs/uploads/?mount={first}&from=a"), &[], &[])
        .expect(201);
    whole("b", &noise(60_000)).expect_error(403, "DENIED");
    whole("c", &other).expect(201);
    whole("d", &noise(60_000)).expect_error(403, "DENIED");
    // A restart counts the same, uploads under way included.
    let location = server.start_upload("e");
    server.push("PATCH", &location, &[], &noise(40_000)).expect(202);
    let server = server.restarted(|config| config.quota.total = Some(250_000));
    let digest = Digest::sha256_of(&noise(20_000));
    let target = format!("/v2/f/blobs/uploads/?digest={digest}");
    server.push("POST", &target, &[], &noise(20_000)).expect_error(403, "DENIED");
    server.push("DELETE", &location, &[], &[]).expect(204);
    server.push("POST", &target, &[], &noise(20_000)).expect(201);
    server.push("DELETE", &format!("/v2/f/blobs/{digest}"), &[], &[]).expect(202);
    assert_eq!(common::uploads(&server.dir()), 0);
}
