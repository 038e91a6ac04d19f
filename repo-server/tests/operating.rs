//! What an operator looks at and decides: metrics, alarms, who may pull, how much one client gets.
#![allow(clippy::unwrap_used, reason = "these are tests, and so are their parts")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use base64::Engine as _;
use common::{Fixture, TOKEN, exchange, until};
use serde_json::json;
use storage::layout::LayoutDir;

/// The value of a line of metrics.
fn value(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok())
}

#[test]
fn metrics_are_open_metrics() {
    let server = Fixture::with(|config| config.quota.total = Some(1 << 30));
    server.push_blob("a", b"twelve bytes");
    server.get("/v2/a/blobs/nonsense").expect(400);
    server.start_upload("a");
    let reply = server.get("/metrics").expect(200);
    let kind = reply.header("content-type").unwrap();
    assert!(kind.starts_with("application/openmetrics-text; version=1.0.0"), "{kind}");
    let text = String::from_utf8(reply.body).unwrap();
    assert!(text.ends_with("# EOF\n"), "{text}");
    for (name, wanted) in [
        ("repo_server_requests_total{route=\"upload\",status=\"201\"}", 1.0),
        ("repo_server_requests_total{route=\"upload\",status=\"202\"}", 1.0),
        ("repo_server_requests_total{route=\"unknown\",status=\"400\"}", 1.0),
        ("repo_server_uploads", 1.0),
        ("repo_server_stored_bytes", 12.0),
        ("repo_server_repositories", 1.0),
        ("repo_server_answer_time_seconds_count", 3.0),
    ] {
        assert_eq!(value(&text, name), Some(wanted), "{name} in {text}");
    }
    assert!(value(&text, "repo_server_received_bytes_total").unwrap() > 100.0, "{text}");
    // The server may learn later that the last connection has ended than that this one begins.
    until("what the server says", || {
        let text = String::from_utf8(server.get("/metrics").expect(200).body).unwrap();
        value(&text, "repo_server_connections") == Some(1.0)
    });
}

/// Without room for another tag, nothing can be published: there is time to see it coming.
#[test]
fn metrics_say_how_much_room_there_is_for_tags() {
    let server = Fixture::with(|config| config.limits.alarm_every = Duration::from_millis(50));
    let metric = |name: &str| {
        let text = String::from_utf8(server.get("/metrics").expect(200).body).unwrap();
        value(&text, name)
    };
    until("the limit", || metric("repo_server_index_limit_bytes") == Some(8_388_608.0));
    server.push_artifact("a", "1", &[b"layer"]);
    server.push_artifact("a", "2", &[b"another layer"]);
    until("two tags", || metric("repo_server_tags") == Some(2.0));
    let index = std::fs::metadata(server.dir().join("index.json")).unwrap().len();
    assert_eq!(metric("repo_server_index_bytes"), Some(index as f64));
}

#[test]
fn metrics_have_an_address_of_their_own() {
    let server = Fixture::with(|config| {
        config.metrics_listen = Some("127.0.0.1:0".parse().unwrap());
    });
    server.get("/metrics").expect(404);
    let address = server.server.metrics_addr().unwrap();
    let reply = exchange(address, "GET", "/metrics", &[], &[]).expect(200);
    assert!(reply.body.ends_with(b"# EOF\n"));
    assert_eq!(exchange(address, "GET", "/healthz", &[], &[]).expect(200).json()["ok"], true);
    exchange(address, "GET", "/v2/", &[], &[]).expect(404);
    let mut config = common::config(&tempfile::tempdir().unwrap(), |_| {});
    config.metrics_listen = Some("0.0.0.0:0".parse().unwrap());
    assert!(repo_server::start(config).is_err(), "plain metrics for a network");
}

/// 219: metric and health say it before the timestamp expires, and say when it is over.
#[test]
fn a_stale_timestamp_raises_an_alarm() {
    let temp = tempfile::tempdir().unwrap();
    let layout = LayoutDir::create(&temp.path().join("repository")).unwrap();
    common::publish_timestamp(&layout, "r/tuf", 1, 86_400);
    let server = repo_server::start(common::config(&temp, |config| {
        config.limits.alarm_every = Duration::from_millis(20);
        config.alarm_before = Duration::from_secs(3600);
    }));
    let server = Fixture { temp, server: server.unwrap() };
    let stale = "repo_server_timestamp_stale{repository=\"r/tuf\"}";
    let metric = |name: &str| {
        value(&String::from_utf8(server.get("/metrics").expect(200).body).unwrap(), name)
    };
    until("what the server says", || metric(stale) == Some(0.0));
    assert_eq!(server.get("/healthz").json()["alarm"], false);
    // The signer has not come back: half an hour is left.
    common::publish_timestamp(&layout, "r/tuf", 2, 1800);
    until("what the server says", || metric(stale) == Some(1.0));
    let health = server.get("/healthz").expect(200).json();
    assert_eq!(health["alarm"], true);
    assert_eq!(health["stale_timestamps"][0]["repository"], "r/tuf");
    assert_eq!(health["stale_timestamps"][0]["expired"], false);
    let expires = metric("repo_server_timestamp_expiry_seconds{repository=\"r/tuf\"}").unwrap();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    assert!((now..now + 1900.0).contains(&expires), "{expires}");
    common::publish_timestamp(&layout, "r/tuf", 3, -1);
    until("what the server says", || {
        server.get("/healthz").json()["stale_timestamps"][0]["expired"] == true
    });
    common::publish_timestamp(&layout, "r/tuf", 4, 86_400);
    until("what the server says", || server.get("/healthz").json()["alarm"] == false);
    assert_eq!(metric("repo_server_timestamp_version{repository=\"r/tuf\"}"), Some(4.0));
}

/// The list of releases that all nodes fetch is told before it is too long for another release.
#[test]
fn a_list_of_releases_that_fills_up_raises_an_alarm() {
    let temp = tempfile::tempdir().unwrap();
    let layout = LayoutDir::create(&temp.path().join("repository")).unwrap();
    let list = |len| common::publish_state(&layout, "r/tuf", 1, 86_400, Some(len));
    list((512 << 10) - 1);
    let server = repo_server::start(common::config(&temp, |config| {
        config.limits.alarm_every = Duration::from_millis(20);
    }));
    let server = Fixture { temp, server: server.unwrap() };
    let metric = |name: &str| {
        value(&String::from_utf8(server.get("/metrics").expect(200).body).unwrap(), name)
    };
    let health = || server.get("/healthz").expect(200).json();
    until("what the server says", || {
        metric("repo_server_targets_bytes") == Some(f64::from((512 << 10) - 1))
    });
    assert_eq!(metric("repo_server_targets_limit_bytes"), Some(f64::from(1 << 20)));
    assert_eq!((&health()["alarm"], &health()["filling"]), (&false.into(), &json!([])));
    list(600 << 10);
    until("what the server says", || health()["alarm"] == true);
    let said = json!([{ "part": "targets", "bytes": 600 << 10, "limit": 1 << 20 }]);
    assert_eq!(health()["filling"], said);
    // Archived.
    list(16 << 10);
    until("what the server says", || health()["alarm"] == false);
}

#[test]
fn pulling_needs_a_token_where_asked_for() {
    let pull = "pull-token-for-tests";
    let server = Fixture::with(|config| {
        let tokens = config.dir.with_file_name("pull-tokens");
        // Hashed at rest: the file holds nothing that opens a door.
        let hash = formats::digest::Sha256::of(pull.as_bytes());
        common::write_private(&tokens, &format!("# readers\nsha256:{hash}\n"));
        config.pull_tokens = Some(tokens);
    });
    server.push_artifact("a", "v1", &[b"layer"]);
    let hash = formats::digest::Sha256::of(pull.as_bytes()).to_string();
    let basic = |token: &str| {
        let pair = format!("anyone:{token}");
        format!("Authorization: Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
    };
    let bearer = |token: &str| format!("Authorization: Bearer {token}");
    let credentials = [
        (bearer(pull), 200),
        (basic(pull), 200),
        (bearer(TOKEN), 200),
        (basic(TOKEN), 200),
        (bearer(&hash), 401),
        (bearer("wrong-token-for-tests"), 401),
        (basic(""), 401),
        ("X: none".to_owned(), 401),
    ];
    for target in ["/v2/a/manifests/v1", "/v2/a/tags/list", "/metrics", "/v2/"] {
        for (credential, wanted) in &credentials {
            let reply = server.ask("GET", target, &[credential], &[]);
            assert_eq!(reply.status, *wanted, "{target} with {credential}");
            assert_eq!(reply.header("www-authenticate").is_some(), *wanted == 401);
        }
    }
    for target in ["/metadata/timestamp.json", "/v2/a/referrers/sha256:0"] {
        assert!(matches!(server.get(target).status, 400 | 401), "{target}");
    }
    server.ask("POST", "/v2/a/blobs/uploads/", &[&bearer(pull)], &[]).expect(403);
    server.get("/healthz").expect(200);
}

#[test]
fn one_client_gets_so_many_requests() {
    let server = Fixture::with(|config| {
        config.limits.client_rate = 1;
        config.limits.client_burst = 5;
    });
    let replies: Vec<_> = (0..20).map(|_| server.get("/healthz")).collect();
    let refused: Vec<_> = replies.iter().filter(|it| it.status == 429).collect();
    assert!((10..=15).contains(&refused.len()), "{} refused", refused.len());
    assert!(refused.iter().all(|it| it.header("retry-after").is_some()));
    until("what the server says", || server.get("/healthz").status == 200);
}

#[test]
fn one_client_gets_so_many_connections() {
    let server = Fixture::with(|config| config.limits.client_connections = 3);
    let held: Vec<_> = (0..3).map(|_| TcpStream::connect(server.address()).unwrap()).collect();
    let mut more = TcpStream::connect(server.address()).unwrap();
    more.set_read_timeout(Some(common::PATIENCE)).unwrap();
    let closed = more.read(&mut [0; 1]);
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    drop(held);
    until("what the server says", || {
        let reply = common::raw(server.address(), b"GET /healthz HTTP/1.0\r\n\r\n");
        reply.starts_with(b"HTTP/1.0 200")
    });
}

/// Two addresses have all places and ask nothing: whoever comes from elsewhere gets one of theirs, and
/// those who have fewest keep what they have.
#[test]
fn idle_connections_make_room_for_newcomers() {
    let server = Fixture::with(|config| {
        config.limits.connections = 9;
        config.limits.client_connections = 9;
        config.limits.spare = Duration::from_millis(50);
    });
    let from = |last: u8| {
        let address = std::net::Ipv4Addr::new(127, 0, 0, last);
        let mut stream = common::connect_from(address.into(), server.address()).unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        stream
    };
    let answered = |stream: &mut TcpStream| {
        let mut head = [0; 12];
        stream.read_exact(&mut head).is_ok_and(|()| &head == b"HTTP/1.1 200")
    };
    let mut modest = from(2);
    assert!(answered(&mut modest));
    let mut greedy: Vec<_> = [3; 4].into_iter().chain([4; 4]).map(from).collect();
    assert!(greedy.iter_mut().all(answered));
    let mut newcomers: Vec<_> = [5, 6, 7].into_iter().map(from).collect();
    assert!(newcomers.iter_mut().all(answered), "newcomers wait for idle connections to end");
    // It has one place, others have more: still there, for another request.
    modest.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut rest = Vec::new();
    modest.read_to_end(&mut rest).unwrap();
    assert!(
        String::from_utf8_lossy(&rest).contains("HTTP/1.1 200"),
        "the modest client lost its place"
    );
    let metrics = String::from_utf8(server.get("/metrics").expect(200).body).unwrap();
    let room = value(&metrics, "repo_server_limited_total{reason=\"made room\"}");
    assert!(room.is_some_and(|times| times >= 3.0), "{metrics}");
}

/// What only some may read is for no cache that many use.
#[test]
fn answers_behind_a_token_are_private() {
    let pull = "pull-token-for-tests";
    for guarded in [false, true] {
        let server = Fixture::with(|config| {
            if guarded {
                let tokens = config.dir.with_file_name("pull-tokens");
                common::write_private(&tokens, pull);
                config.pull_tokens = Some(tokens);
            }
        });
        let manifest = server.push_artifact("a", "v1", &[b"layer", &common::noise(100_000)]);
        let (small, large) = (b"layer".to_vec(), common::noise(100_000));
        let bearer = format!("Authorization: Bearer {pull}");
        let bearer = if guarded { bearer } else { "X: none".to_owned() };
        let mut by_digest = vec![format!("/v2/a/manifests/{manifest}")];
        for bytes in [small, large] {
            by_digest.push(format!("/v2/a/blobs/{}", formats::digest::Digest::sha256_of(&bytes)));
        }
        let cases = by_digest.iter().map(|target| (target.as_str(), true));
        for (target, for_ever) in cases.chain([("/v2/a/manifests/v1", false)]) {
            for method in ["GET", "HEAD"] {
                let reply = server.ask(method, target, &[&bearer], &[]).expect(200);
                let wanted = match (for_ever, guarded) {
                    (true, false) => "public, max-age=31536000, immutable",
                    (true, true) => "private, max-age=31536000, immutable",
                    (false, false) => "no-cache",
                    (false, true) => "private, no-cache",
                };
                assert_eq!(reply.header("cache-control"), Some(wanted), "{method} {target}");
                let etag = format!("If-None-Match: {}", reply.header("etag").unwrap());
                let known = server.ask(method, target, &[&bearer, &etag], &[]).expect(304);
                assert_eq!(known.header("cache-control"), Some(wanted), "304 {target}");
            }
            let part = server.ask("GET", target, &[&bearer, "Range: bytes=0-0"], &[]);
            let keep = part.header("cache-control").unwrap().to_owned();
            assert_eq!(keep.contains("private"), guarded, "{} {target}: {keep}", part.status);
        }
    }
}
