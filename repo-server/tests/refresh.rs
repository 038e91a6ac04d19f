//! A server that renews snapshot and timestamp with a key of its own.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::exchange;
use formats::tuf::UnixTime;
use repo_server::{Config, Running};
use signer::commands::{Delivery, InitRequest, Signing, init};
use signer::plan::Expiry;
use signer::repository::{Access, ClientOptions, open};

/// A repository whose timestamp lasts that long.
fn repository(dir: &Path, period: &str) {
    repository_of(dir, period, 0);
}

/// The same, made so many seconds from now.
fn repository_of(dir: &Path, period: &str, ahead: i64) {
    let reference = format!("oci:{}:racklet", dir.join("repository").display()).parse().unwrap();
    let registry = open(&reference, Access::Write, &ClientOptions::default()).unwrap();
    let request = InitRequest {
        keys: dir.join("keys"),
        expiry: Expiry::parse(&[format!("timestamp={period}")]).unwrap(),
        ..InitRequest::default()
    };
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = UnixTime::from_secs(since.as_secs().try_into().unwrap()).plus(ahead);
    init(registry.as_ref(), &mut Signing::default(), &request, Delivery::Publish, now).unwrap();
}

fn serve(dir: &Path, keys: &[&str]) -> Result<Running, repo_server::ServerError> {
    let mut config = Config::new(dir.join("repository"));
    config.refresh_keys = keys.iter().map(|key| dir.join("keys").join(key)).collect();
    config.limits.alarm_every = Duration::from_millis(100);
    repo_server::start(config)
}

fn health(server: &Running) -> serde_json::Value {
    exchange(server.local_addr(), "GET", "/healthz", &[], &[]).expect(200).json()
}

/// What `/healthz` says once it says what is waited for.
fn wait_for(server: &Running, wanted: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
    let until = Instant::now() + common::PATIENCE;
    loop {
        let found = health(server);
        if wanted(&found) {
            return found;
        }
        assert!(Instant::now() < until, "{found}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_server_with_a_key_renews_and_says_so() {
    let temp = tempfile::tempdir().unwrap();
    repository(temp.path(), "4s");
    let server = serve(temp.path(), &["snapshot.key", "timestamp.key"]).unwrap();
    let renewed = wait_for(&server, |it| it["signs"][0]["timestamp"].as_u64() >= Some(3));
    assert_eq!(renewed["holds_online_keys"], true);
    assert_eq!(renewed["signs"][0]["keyids"].as_array().unwrap().len(), 2);
    assert_eq!(renewed["signs"][0]["error"], serde_json::Value::Null);
    let served = exchange(server.local_addr(), "GET", "/metadata/timestamp.json", &[], &[]);
    assert!(served.expect(200).json()["signed"]["version"].as_u64() >= Some(3));
    server.stop();
}

/// By a clock that is behind nothing is ever due: it would be silent until every node stops.
#[test]
fn a_server_whose_clock_is_behind_signs_nothing_and_says_so() {
    let temp = tempfile::tempdir().unwrap();
    repository_of(temp.path(), "1s", 3 * 86_400);
    let server = serve(temp.path(), &["snapshot.key", "timestamp.key"]).unwrap();
    let refused = wait_for(&server, |it| it["signs"][0]["error"].is_string());
    let error = refused["signs"][0]["error"].as_str().unwrap();
    assert!(error.starts_with("this machine's clock says"), "{error}");
    assert_eq!(refused["signs"][0]["timestamp"], 1);
    server.stop();
}

#[test]
fn a_key_of_people_signs_nothing_on_a_server() {
    let temp = tempfile::tempdir().unwrap();
    repository(temp.path(), "1s");
    let keys = ["snapshot.key", "timestamp.key", "targets.key"];
    let server = serve(temp.path(), &keys).unwrap();
    let refused = wait_for(&server, |it| it["signs"][0]["error"].is_string());
    let error = refused["signs"][0]["error"].as_str().unwrap();
    assert!(error.contains("signs for targets"), "{error}");
    assert_eq!(refused["signs"][0]["timestamp"], 1);
    server.stop();
}

#[test]
fn a_server_without_a_key_holds_none_and_a_wrong_one_does_not_start() {
    let temp = tempfile::tempdir().unwrap();
    repository(temp.path(), "1d");
    let server = serve(temp.path(), &[]).unwrap();
    let health = health(&server);
    assert_eq!(health["holds_online_keys"], false);
    assert_eq!(health["signs"], serde_json::json!([]));
    server.stop();
    for key in ["nothing.key", "root.json"] {
        assert!(serve(temp.path(), &[key]).is_err(), "{key}");
    }
    use std::os::unix::fs::PermissionsExt as _;
    let key = temp.path().join("keys/timestamp.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = serve(temp.path(), &["timestamp.key"]).map(drop).expect_err("others can read it");
    assert!(error.to_string().contains("chmod 600"), "{error}");
}
