//! The storage in a bucket of a real S3 server: every endpoint as on a directory, and what only a
//! bucket has to stand: servers beside each other, a service that fails half-way, one that lies.
#![allow(clippy::unwrap_used, reason = "these are tests, and so are their parts")]
#![allow(clippy::duplicate_mod, reason = "the endpoints are tested once more, on another storage")]

mod common;
#[path = "distribution.rs"]
mod distribution;

use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use common::bucket::{content, place_at, place_for};
use common::proxy::{Mode, Proxy};
use common::{Fixture, Reply, TOKEN, exchange, noise, until};
use formats::digest::Digest;
use formats::oci::{Descriptor, EMPTY_CONFIG, Index, Manifest, media_type};
use object_store::ObjectStoreExt as _;
use object_store::path::Path as Key;
use repo_server::Quota;
use repo_server::Running;
use repo_server::Store;
use signer::plan::Retention;

/// Above one part of a multipart upload, below two.
const LARGE: usize = 7 << 20;

fn push(server: &Running, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Reply {
    let bearer = format!("Authorization: Bearer {TOKEN}");
    let mut headers = headers.to_vec();
    headers.push(&bearer);
    exchange(server.local_addr(), method, target, &headers, body)
}

fn push_blob(server: &Running, name: &str, bytes: &[u8]) -> Digest {
    let digest = Digest::sha256_of(bytes);
    let target = format!("/v2/{name}/blobs/uploads/?digest={digest}");
    push(server, "POST", &target, &[], bytes).expect(201);
    digest
}

fn put_manifest(server: &Running, name: &str, reference: &str, bytes: &[u8]) -> Reply {
    let kind = format!("Content-Type: {}", media_type::MANIFEST);
    push(server, "PUT", &format!("/v2/{name}/manifests/{reference}"), &[&kind], bytes)
}

fn get(server: &Running, target: &str) -> Reply {
    exchange(server.local_addr(), "GET", target, &[], &[])
}

/// Two servers, neither of which knows of the other.
struct Pair {
    temp: tempfile::TempDir,
    one: Running,
    two: Running,
}

impl Pair {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let start = || repo_server::start(common::config(&temp, |_| {})).unwrap();
        let (one, two) = (start(), start());
        Pair { temp, one, two }
    }

    fn stored(&self, part: &str) -> usize {
        let all = content(&place_for(self.temp.path()));
        all.iter().filter(|(path, _)| path.components().any(|it| it.as_os_str() == part)).count()
    }
}

#[test]
fn this_is_a_bucket() {
    let server = Fixture::new();
    server.push_artifact("a", "v1", &[b"layer"]);
    assert!(!server.dir().exists());
    let digest = Digest::sha256_of(b"layer");
    let name = format!("blobs/sha256/{}", digest.hex());
    assert!(server.stored().iter().any(|(path, bytes)| path.ends_with(&name) && bytes == b"layer"));
}

/// What one pushed, the other serves; tags a second later at most.
#[test]
fn servers_see_each_others_pushes() {
    let Pair { one, two, temp: _temp } = &Pair::new();
    let layer = push_blob(one, "a/b", b"layer");
    assert_eq!(get(two, &format!("/v2/a/b/blobs/{layer}")).expect(200).body, b"layer");
    get(two, &format!("/v2/a/c/blobs/{layer}")).expect_error(404, "BLOB_UNKNOWN");
    push_blob(two, "a/b", EMPTY_CONFIG);
    // The manifest comes to the first: one of its blobs is known only to the second.
    let layers = vec![Descriptor::of("x", b"layer")];
    let manifest = Manifest::artifact("application/vnd.test", Descriptor::empty(), layers);
    let bytes = manifest.to_bytes();
    put_manifest(one, "a/b", "v1", &bytes).expect(201);
    assert_eq!(get(two, "/v2/a/b/manifests/v1").expect(200).body, bytes, "a new tag, at once");
    let digest = Digest::sha256_of(&bytes);
    get(two, &format!("/v2/a/b/manifests/{digest}")).expect(200);
    // A moved tag.
    let mut moved = manifest.clone();
    moved.annotations.insert("x".to_owned(), "y".to_owned());
    put_manifest(two, "a/b", "v1", &moved.to_bytes()).expect(201);
    until("the moved tag", || get(one, "/v2/a/b/manifests/v1").body == moved.to_bytes());
    // Referrers, pushed by digest only.
    let mut sbom = manifest.clone();
    sbom.subject = Some(Descriptor::of(media_type::MANIFEST, &bytes));
    let sbom = sbom.to_bytes();
    put_manifest(two, "a/b", &Digest::sha256_of(&sbom).to_string(), &sbom).expect(201);
    let list = get(one, &format!("/v2/a/b/referrers/{digest}")).expect(200);
    assert_eq!(Index::parse(&list.body).unwrap().manifests.len(), 1);
    // Mounted from a repository that only the other knows.
    let other = push_blob(two, "from", b"other");
    let mount = format!("/v2/to/blobs/uploads/?mount={other}&from=from");
    push(one, "POST", &mount, &[], &[]).expect(201);
    assert_eq!(get(two, &format!("/v2/to/blobs/{other}")).expect(200).body, b"other");
    // Deleted tags are gone for both.
    push(one, "DELETE", "/v2/a/b/manifests/v1", &[], &[]).expect(202);
    until("the deleted tag", || get(two, "/v2/a/b/manifests/v1").status == 404);
}

/// No tag is lost when both move tags all the time.
#[test]
fn tags_of_two_writers_all_stand() {
    let Pair { one, two, temp: _temp } = &Pair::new();
    let manifest = Manifest::artifact("application/vnd.test", Descriptor::empty(), vec![]);
    let bytes = manifest.to_bytes();
    push_blob(one, "a", EMPTY_CONFIG);
    std::thread::scope(|scope| {
        for (server, who) in [(one, "one"), (two, "two")] {
            let bytes = &bytes;
            scope.spawn(move || {
                for nth in 0..15 {
                    put_manifest(server, "a", &format!("{who}-{nth}"), bytes).expect(201);
                }
            });
        }
    });
    for server in [one, two] {
        let tags = || get(server, "/v2/a/tags/list").expect(200).json();
        until("all tags of both", || tags()["tags"].as_array().unwrap().len() == 30);
    }
}

/// An upload goes from server to server, chunk by chunk, and is what it says in the end.
#[test]
fn an_upload_moves_between_servers() {
    let pair = Pair::new();
    let (one, two) = (&pair.one, &pair.two);
    let bytes = noise(2 * LARGE);
    let started = push(one, "POST", "/v2/a/blobs/uploads/", &[], &[]).expect(202);
    let location = started.header("location").unwrap().to_owned();
    let chunk = |server: &Running, from: usize, to: usize| {
        let range = format!("Content-Range: {from}-{}", to - 1);
        push(server, "PATCH", &location, &[&range], &bytes[from..to])
    };
    chunk(one, 0, 1000).expect(202);
    chunk(two, 1000, LARGE).expect(202);
    // The first does not know what the second got, until it is asked.
    let status = push(one, "GET", &location, &[], &[]).expect(204);
    assert_eq!(status.header("range"), Some(format!("0-{}", LARGE - 1).as_str()));
    chunk(two, 1000, LARGE).expect(416);
    chunk(one, LARGE, 2 * LARGE - 5).expect(202);
    let digest = Digest::sha256_of(&bytes);
    let end = format!("{location}?digest={digest}");
    push(two, "PUT", &end, &[], &bytes[2 * LARGE - 5..]).expect(201);
    for server in [one, two] {
        let got = get(server, &format!("/v2/a/blobs/{digest}")).expect(200).body;
        assert_eq!(Digest::sha256_of(&got), digest);
        push(server, "GET", &location, &[], &[]).expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    }
    assert_eq!(pair.stored("_uploads"), 0);
}

/// Parts, a restart between them, a wrong digest: nothing is a blob before it is known to be right.
#[test]
fn large_blobs_are_looked_at_before_they_are_blobs() {
    let server = Fixture::new();
    let bytes = noise(2 * LARGE);
    let digest = Digest::sha256_of(&bytes);
    let location = server.start_upload("a");
    server.push("PATCH", &location, &[], &bytes[..LARGE]).expect(202);
    let server = server.restarted(|_| {});
    let status = server.push("GET", &location, &[], &[]).expect(204);
    assert_eq!(status.header("range"), Some(format!("0-{}", LARGE - 1).as_str()));
    server.push("PATCH", &location, &[], &bytes[LARGE..]).expect(202);
    server.push("PUT", &format!("{location}?digest={digest}"), &[], &[]).expect(201);
    let got = server.get(&format!("/v2/a/blobs/{digest}")).expect(200).body;
    assert_eq!(Digest::sha256_of(&got), digest);
    // Hashed here, or read back because a server before this one hashed the beginning.
    let wrong = Digest::sha256_of(b"something else");
    for restart in [false, true] {
        let mut server = Fixture::new();
        let location = server.start_upload("a");
        server.push("PATCH", &location, &[], &bytes[..LARGE]).expect(202);
        if restart {
            server = server.restarted(|_| {});
        }
        let end = format!("{location}?digest={wrong}");
        server.push("PUT", &end, &[], &bytes[LARGE..]).expect_error(400, "DIGEST_INVALID");
        assert_eq!(server.uploads(), 0);
        assert!(!server.stored().iter().any(|(path, _)| path.starts_with("blobs")));
    }
    let cancelled = server.start_upload("a");
    server.push("PATCH", &cancelled, &[], &bytes[..LARGE]).expect(202);
    server.push("DELETE", &cancelled, &[], &[]).expect(204);
    assert_eq!(server.uploads(), 0);
}

/// Uploads that nobody finishes end, also those of a server that is no more.
#[test]
fn abandoned_uploads_end() {
    let server = Fixture::new();
    let location = server.start_upload("a");
    server.push("PATCH", &location, &[], &noise(LARGE)).expect(202);
    assert_eq!(server.uploads(), 1);
    let server = server.restarted(|config| {
        config.limits.session_expiry = Duration::from_millis(1500);
    });
    until("the upload to end", || server.uploads() == 0);
    server.push("GET", &location, &[], &[]).expect_error(404, "BLOB_UPLOAD_UNKNOWN");
}

const HOUR: Duration = Duration::from_secs(3600);

/// What nothing reaches is condemned, and goes when it still is garbage a grace period later.
#[test]
fn garbage_goes_in_two_steps() {
    let pair = Pair::new();
    let push_all = |tag: &str, layer: &[u8]| {
        push_blob(&pair.one, "a", EMPTY_CONFIG);
        push_blob(&pair.one, "a", layer);
        let layers = vec![Descriptor::of("x", layer)];
        let manifest = Manifest::artifact("application/vnd.test", Descriptor::empty(), layers);
        put_manifest(&pair.one, "a", tag, &manifest.to_bytes()).expect(201);
        Digest::sha256_of(&manifest.to_bytes())
    };
    push_all("kept", b"kept");
    let garbage = push_all("gone", b"garbage");
    push(&pair.one, "DELETE", &format!("/v2/a/manifests/{garbage}"), &[], &[]).expect(202);
    let saved = push_all("saved", b"saved");
    push(&pair.one, "DELETE", &format!("/v2/a/manifests/{saved}"), &[], &[]).expect(202);

    let place = place_for(pair.temp.path());
    let store = Store::open_bucket(&place, false, Quota::default()).unwrap();
    let now = SystemTime::now();
    let blobs = pair.stored("blobs");
    let would =
        store.plan_collection(HOUR, now + 2 * HOUR, Retention::default()).unwrap().garbage();
    assert_eq!(would.blobs, 4, "{would:?}");
    let first = store.collect(HOUR, now + 2 * HOUR, Retention::default()).unwrap();
    assert_eq!((first.blobs, first.young), (0, 4), "{first:?}");
    assert_eq!((pair.stored("blobs"), pair.stored("condemned")), (blobs, 4));
    // Somebody needs one of them again, at a server that saw none of this.
    push_blob(&pair.two, "a", b"saved");
    push_blob(&pair.two, "a", EMPTY_CONFIG);
    let layers = vec![Descriptor::of("x", b"saved")];
    let manifest = Manifest::artifact("application/vnd.test", Descriptor::empty(), layers);
    put_manifest(&pair.two, "a", "saved", &manifest.to_bytes()).expect(201);
    let last = store.collect(HOUR, now + 4 * HOUR, Retention::default()).unwrap();
    assert_eq!(last.blobs, 2, "{last:?}");
    assert_eq!(pair.stored("condemned"), 0);
    for server in [&pair.one, &pair.two] {
        get(server, "/v2/a/manifests/kept").expect(200);
        get(server, "/v2/a/manifests/saved").expect(200);
        let saved = Digest::sha256_of(b"saved");
        get(server, &format!("/v2/a/blobs/{saved}")).expect(200);
        get(server, &format!("/v2/a/blobs/{}", Digest::sha256_of(b"garbage"))).expect(404);
    }
}

/// A server whose way to the bucket somebody stands on.
fn behind(proxy: &Proxy) -> Fixture {
    let temp = tempfile::tempdir().unwrap();
    let place = place_at(temp.path(), proxy.address);
    let config = common::config(&temp, |config| config.bucket = Some(place));
    let server = repo_server::start(config).unwrap();
    Fixture { temp, server }
}

/// The service answers 500 now and then, drops connections in the middle of a part, and is away.
#[test]
fn a_service_that_fails_half_way() {
    let proxy = Proxy::before(common::bucket::address());
    let server = behind(&proxy);
    let bytes = noise(2 * LARGE);
    let digest = Digest::sha256_of(&bytes);
    let whole = format!("/v2/a/blobs/uploads/?digest={digest}");
    proxy.now(Mode::Errors(2));
    server.push("POST", &whole, &[], &bytes).expect(201);
    let other = noise(2 * LARGE + 1);
    let second = Digest::sha256_of(&other);
    let location = server.start_upload("a");
    proxy.now(Mode::CutOnce(3 << 20));
    server.push("PATCH", &location, &[], &other).expect(202);
    server.push("PUT", &format!("{location}?digest={second}"), &[], &[]).expect(201);
    for (digest, len) in [(&digest, bytes.len()), (&second, other.len())] {
        let got = server.get(&format!("/v2/a/blobs/{digest}")).expect(200).body;
        assert_eq!((Digest::sha256_of(&got), got.len()), (digest.clone(), len));
    }
    // Away: the client is told to try again, and nothing is half there.
    let location = server.start_upload("a");
    server.push("PATCH", &location, &[], &other[..LARGE]).expect(202);
    let before = server.stored();
    proxy.now(Mode::Down);
    server.push("PATCH", &location, &[], &other[LARGE..]).expect(503);
    let third = Digest::sha256_of(b"third");
    let target = format!("/v2/a/blobs/uploads/?digest={third}");
    server.push("POST", &target, &[], b"third").expect(503);
    let manifest = Manifest::artifact("application/vnd.test", Descriptor::empty(), vec![]);
    let kind = format!("Content-Type: {}", media_type::MANIFEST);
    let put = server.push("PUT", "/v2/a/manifests/v1", &[&kind], &manifest.to_bytes());
    put.expect(503);
    assert_eq!(server.stored(), before);
    proxy.now(Mode::Pass);
    // It goes on where the bucket says the upload is.
    let status = server.push("GET", &location, &[], &[]).expect(204);
    assert_eq!(status.header("range"), Some(format!("0-{}", LARGE - 1).as_str()));
    server.push("PATCH", &location, &[], &other[LARGE..]).expect(202);
    server.push("PUT", &format!("{location}?digest={second}"), &[], &[]).expect(201);
}

/// Bytes that are not what their name says are not served: neither rotten ones in the bucket, nor
/// whole blobs that change on their way from it.
#[test]
fn a_service_that_lies() {
    let proxy = Proxy::before(common::bucket::address());
    let server = behind(&proxy);
    let mut bytes = noise(300_000);
    bytes[200_000..200_008].copy_from_slice(b"NEEDLE!!");
    let digest = server.push_blob("a", &bytes);
    let target = format!("/v2/a/blobs/{digest}");
    assert_eq!(server.get(&target).expect(200).body, bytes);
    proxy.now(Mode::Flip(b"NEEDLE!!".to_vec()));
    let ask = format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let reply = common::raw(server.address(), ask.as_bytes());
    let head = reply.windows(4).position(|it| it == b"\r\n\r\n").unwrap() + 4;
    assert!(reply.len() - head < bytes.len(), "a flipped blob was served whole");
    // A server that has not seen it before serves none of it.
    let server = server.restarted(|_| {});
    let key = Key::from(format!(
        "{}/blobs/sha256/{}",
        place_for(server.temp.path()).prefix,
        digest.hex()
    ));
    let mut rotten = bytes.clone();
    rotten[7] ^= 1;
    let client = common::bucket::client();
    common::bucket::run(client.put(&key, rotten.into())).unwrap();
    server.get(&target).expect_error(404, "BLOB_UNKNOWN");
    server.ask("GET", &target, &["Range: bytes=0-99"], &[]).expect_error(404, "BLOB_UNKNOWN");
    // Pushed again, it is good again.
    server.push_blob("a", &bytes);
    assert_eq!(server.get(&target).expect(200).body, bytes);
}

/// By the command, with credentials where AWS' own tools look for them, and nowhere else.
#[test]
fn the_command_takes_a_bucket() {
    let temp = tempfile::tempdir().unwrap();
    let place = place_for(temp.path());
    let command = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_repo-server"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
            command.env_remove(name);
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let s3 = |command: &mut Command| {
        command.args(["--s3", &format!("{}/{}", place.bucket, place.prefix)]);
        command.arg("--s3-endpoint").arg(place.endpoint.as_ref().unwrap().as_str());
    };
    let mut collect = command();
    collect.args(["gc", "--json"]).env("AWS_ACCESS_KEY_ID", "id-of-a-key");
    collect.env("AWS_SECRET_ACCESS_KEY", "the-secret-of-it");
    s3(&mut collect);
    let done = collect.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let text = [done.stdout, done.stderr].concat();
    assert!(!String::from_utf8_lossy(&text).contains("the-secret-of-it"));
    let mut scrub = command();
    scrub.arg("scrub").env("AWS_SHARED_CREDENTIALS_FILE", place.credentials.as_ref().unwrap());
    s3(&mut scrub);
    assert!(scrub.output().unwrap().status.success());
    // Wrong in ways that a start has to notice.
    let missing = temp.path().join("nothing");
    let failures: [(&[&str], i32); 4] = [
        (&["scrub"], 2),
        (&["scrub", "--s3", "b", "--dir", "x"], 2),
        (&["scrub", "--s3", "no-such-bucket"], 14),
        (&["scrub", "--s3", "b", "--s3-credentials", missing.to_str().unwrap()], 23),
    ];
    for (args, code) in failures {
        let mut command = command();
        command.args(args).env("AWS_ENDPOINT", place.endpoint.as_ref().unwrap().as_str());
        command.env("AWS_ALLOW_HTTP", "true").env("HOME", temp.path());
        if code == 14 {
            command.env("AWS_ACCESS_KEY_ID", "a").env("AWS_SECRET_ACCESS_KEY", "b");
        }
        let done = command.output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(code), "{args:?}: {said}");
    }
}
