//! `/metadata` and `/targets` (TUF §6.2), and repositories that somebody else writes.
#![allow(clippy::unwrap_used, reason = "these are tests, and so are their parts")]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};

use common::Fixture;
use formats::digest::Digest;
use formats::oci::{Descriptor, EMPTY_CONFIG, Index, Manifest, annotation, media_type};
use storage::layout::LayoutDir;

/// What `signer publish --repo oci:DIR` leaves: blobs, then all tags in one rename.
fn publish(layout: &LayoutDir, namespace: &str, version: u64) -> Digest {
    let file = |name: String, bytes: Vec<u8>| {
        layout.put_blob(&bytes).unwrap();
        Descriptor::of(media_type::TUF_METADATA, &bytes).annotated(annotation::TUF_FILENAME, &name)
    };
    let channel = format!(r#"{{"channel":{version}}}"#).into_bytes();
    layout.put_blob(&channel).unwrap();
    let channel = Descriptor::of(media_type::CHANNEL, &channel)
        .annotated(annotation::TUF_FILENAME, "targets/demo/channels/stable.json");
    layout.put_blob(EMPTY_CONFIG).unwrap();
    let state = Manifest::artifact(
        media_type::TUF_STATE,
        Descriptor::empty(),
        vec![
            file("1.root.json".to_owned(), b"root 1".to_vec()),
            file("timestamp.json".to_owned(), version.to_string().into_bytes()),
            file(format!("{version}.snapshot.json"), format!("snapshot {version}").into_bytes()),
            file(format!("{version}.a/b.json"), format!("delegated {version}").into_bytes()),
            channel,
        ],
    );
    let image = Manifest::artifact(media_type::IMAGE, Descriptor::empty(), vec![]).to_bytes();
    let release = Index::new(
        Some(media_type::RELEASE),
        vec![
            Descriptor::of(media_type::MANIFEST, &image).annotated("version", &version.to_string()),
        ],
    );
    let (state, release) = (state.to_bytes(), release.to_bytes());
    for bytes in [&state, &image, &release] {
        layout.put_blob(bytes).unwrap();
    }
    let named = |name: &str, kind: &str, bytes: &[u8]| {
        (format!("{namespace}{name}"), Some(Descriptor::of(kind, bytes)))
    };
    layout
        .set_refs(&[
            named(&format!("demo:1.0.{version}"), media_type::INDEX, &release),
            named(&format!("tuf:ts-{version}"), media_type::MANIFEST, &state),
            named("tuf:latest", media_type::MANIFEST, &state),
        ])
        .unwrap();
    Digest::sha256_of(&release)
}

#[test]
fn a_directory_of_the_signer_is_a_classic_tuf_repository() {
    for namespace in ["", "racklet/"] {
        let temp = tempfile::tempdir().unwrap();
        let layout = LayoutDir::create(&temp.path().join("repository")).unwrap();
        let release = publish(&layout, namespace, 1);
        let read_only = |config: &mut repo_server::Config| config.read_only = true;
        let server = repo_server::start(common::config(&temp, read_only)).unwrap();
        let server = Fixture { temp, server };

        let reply = server.get("/metadata/timestamp.json").expect(200);
        assert_eq!(reply.body, b"1");
        assert_eq!(reply.header("content-length"), Some("1"));
        assert_eq!(reply.header("content-type"), Some("application/json"));
        let known = format!("If-None-Match: {}", reply.header("etag").unwrap());
        server.ask("GET", "/metadata/timestamp.json", &[&known], &[]).expect(304);
        assert_eq!(server.get("/metadata/1.root.json").expect(200).body, b"root 1");
        assert_eq!(server.get("/metadata/1.a%2Fb.json").expect(200).body, b"delegated 1");
        // The next root does not exist: 404, and nobody may remember that.
        let next = server.get("/metadata/2.root.json").expect(404);
        assert_eq!(next.header("cache-control"), Some("no-store"));
        server.get("/metadata/targets/demo/channels/stable.json").expect(404);

        let target = format!("/targets/demo/{}.1.0.1", release.hex());
        assert_eq!(Digest::sha256_of(&server.get(&target).expect(200).body), release);
        let channel = br#"{"channel":1}"#;
        let hash = Digest::sha256_of(channel).hex();
        let target = format!("/targets/demo/channels/{hash}.stable.json");
        assert_eq!(server.get(&target).expect(200).body, channel);
        let unknown = Digest::sha256_of(b"unknown").hex();
        server.get(&format!("/targets/demo/{unknown}.1.0.1")).expect(404);
        server.get("/targets/demo/1.0.1").expect(404);

        // The registry shows the same, with everything below the tags.
        server.get(&format!("/v2/{namespace}demo/manifests/1.0.1")).expect(200);
        server.get(&format!("/v2/{namespace}tuf/blobs/sha256:{hash}")).expect(200);
        server.get(&format!("/v2/{namespace}demo/blobs/sha256:{hash}")).expect(404);

        // Published while it is being served: seen with the next request.
        publish(&layout, namespace, 2);
        assert_eq!(server.get("/metadata/timestamp.json").expect(200).body, b"2");
        assert_eq!(server.get("/metadata/2.snapshot.json").expect(200).body, b"snapshot 2");
        // A client that read timestamp 1 just before can still finish.
        assert_eq!(server.get("/metadata/1.snapshot.json").expect(200).body, b"snapshot 1");
        server.get(&target).expect(200);
    }
}

/// Whoever may push makes a namespace of his own; what was shown before stays, and what is configured
/// stays always.
#[test]
fn a_push_elsewhere_takes_metadata_from_nobody() {
    let temp = tempfile::tempdir().unwrap();
    let layout = LayoutDir::create(&temp.path().join("repository")).unwrap();
    publish(&layout, "racklet/", 1);
    let server = repo_server::start(common::config(&temp, |_| {})).unwrap();
    let server = Fixture { temp, server };
    server.get("/metadata/timestamp.json").expect(200);
    publish(&layout, "evil/", 7);
    publish(&layout, "", 8);
    assert_eq!(server.get("/metadata/timestamp.json").expect(200).body, b"1");
    let server = server.restarted(|config| config.namespace = Some("racklet".to_owned()));
    assert_eq!(server.get("/metadata/timestamp.json").expect(200).body, b"1");
}

#[test]
fn several_namespaces_need_a_choice() {
    let temp = tempfile::tempdir().unwrap();
    let layout = LayoutDir::create(&temp.path().join("repository")).unwrap();
    publish(&layout, "a/", 1);
    publish(&layout, "b/", 2);
    let server = repo_server::start(common::config(&temp, |_| {})).unwrap();
    let server = Fixture { temp, server };
    let reply = server.get("/metadata/timestamp.json").expect(404);
    assert!(String::from_utf8_lossy(&reply.body).contains("--namespace"));
    let server = server.restarted(|config| config.namespace = Some("b".to_owned()));
    assert_eq!(server.get("/metadata/timestamp.json").expect(200).body, b"2");
    let server = server.restarted(|config| config.namespace = Some(String::new()));
    server.get("/metadata/timestamp.json").expect(404);
}

/// 217: during 100 publications, whoever begins a refresh can finish it.
#[test]
fn readers_never_see_half_a_publication() {
    let temp = tempfile::tempdir().unwrap();
    let layout = LayoutDir::create(&temp.path().join("repository")).unwrap();
    publish(&layout, "", 1);
    // They ask as fast as they can for as long as it takes.
    let without_rate = |config: &mut repo_server::Config| config.limits.client_rate = 0;
    let server = repo_server::start(common::config(&temp, without_rate)).unwrap();
    let server = Fixture { temp, server };
    let done = AtomicBool::new(false);
    let refreshes = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let (mut refreshes, mut newest) = (0, 0);
                    while !done.load(Ordering::Relaxed) {
                        let timestamp = server.get("/metadata/timestamp.json").expect(200).body;
                        let version: u64 = String::from_utf8(timestamp).unwrap().parse().unwrap();
                        assert!(version >= newest, "{version} after {newest}");
                        newest = version;
                        let target = format!("/metadata/{version}.snapshot.json");
                        let snapshot = server.get(&target).expect(200).body;
                        assert_eq!(snapshot, format!("snapshot {version}").into_bytes());
                        server.get(&format!("/v2/demo/manifests/1.0.{version}")).expect(200);
                        refreshes += 1;
                    }
                    refreshes
                })
            })
            .collect();
        for version in 2..=100 {
            publish(&layout, "", version);
        }
        done.store(true, Ordering::Relaxed);
        readers.into_iter().map(|reader| reader.join().unwrap()).sum::<u32>()
    });
    assert!(refreshes > 0);
    assert_eq!(server.get("/metadata/timestamp.json").expect(200).body, b"100");
}
