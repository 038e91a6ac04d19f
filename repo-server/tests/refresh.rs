//! A server that renews snapshot and timestamp with a key of its own, and what it does not sign.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::exchange;
use formats::oci::{Descriptor, EMPTY_CONFIG, Manifest, annotation, media_type};
use formats::tuf::{
    Envelope, Header, KeyId, Metadata as _, Role, RoleKeys, Root, TopLevelKeys, UnixTime,
    envelope_bytes,
};
use repo_server::{Config, Running};
use signer::commands::{ChangeOptions, Delivery, InitRequest, Signing, change, init, refresh};
use signer::key::{KeyStore, SecretKey, sign};
use signer::plan::{Change, Expiry};
use signer::published::{self, Published};
use signer::repository::{Access, ClientOptions, Registry, open};
use signer::signing::refresh as renewed;
use signer::state::State;
use storage::layout::Layout as _;

const FULL: &str = "full-push-token-for-tests";
const ADD: &str = "create-only-token-for-tests";

/// A repository whose timestamp lasts that long.
fn repository(dir: &Path, period: &str) {
    repository_of(dir, period, 0);
}

/// The same, made so many seconds from now.
fn repository_of(dir: &Path, period: &str, ahead: i64) {
    let request = InitRequest {
        keys: dir.join("keys"),
        expiry: Expiry::parse(&[format!("timestamp={period}")]).unwrap(),
        ..InitRequest::default()
    };
    let (registry, now) = (registry(dir), now().plus(ahead));
    init(registry.as_ref(), &mut Signing::default(), &request, Delivery::Publish, now).unwrap();
}

fn registry(dir: &Path) -> Box<dyn Registry> {
    let reference = format!("oci:{}:racklet", dir.join("repository").display()).parse().unwrap();
    open(&reference, Access::Write, &ClientOptions::default()).unwrap()
}

fn now() -> UnixTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    UnixTime::from_secs(since.as_secs().try_into().unwrap())
}

/// Whoever has all keys, as `signer` would.
fn people(dir: &Path) -> Signing {
    let keys = KeyStore::open(&dir.join("keys")).unwrap();
    Signing::of(keys, std::fs::read(dir.join("keys/root.json")).unwrap())
}

/// The published state, verified from the root.
fn published(dir: &Path) -> Published {
    let root = std::fs::read(dir.join("keys/root.json")).unwrap();
    published::load(registry(dir).as_ref(), Some(&root)).unwrap()
}

fn config(dir: &Path, keys: &[&str]) -> Config {
    let mut config = Config::new(dir.join("repository"));
    config.namespace = Some("racklet".to_owned());
    config.refresh.keys = keys.iter().map(|key| dir.join("keys").join(key)).collect();
    config.refresh.root = Some(dir.join("keys/root.json"));
    config.refresh.log = Some(dir.join("server.log"));
    config.limits.alarm_every = Duration::from_millis(100);
    let tokens = dir.join("tokens");
    common::write_private(&tokens, &format!("{FULL}\ncreate-only {ADD}\n"));
    config.push_tokens = Some(tokens);
    config
}

fn serve(dir: &Path, keys: &[&str]) -> Result<Running, repo_server::ServerError> {
    repo_server::start(config(dir, keys))
}

fn health(server: &Running) -> serde_json::Value {
    exchange(server.local_addr(), "GET", "/healthz", &[], &[]).expect(200).json()
}

/// A state as whoever may push would push it: with a token, over HTTP.
fn push(address: SocketAddr, token: &str, name: &str, state: &State) -> u16 {
    let bearer = format!("Authorization: Bearer {token}");
    let blob = |bytes: &[u8]| {
        let digest = formats::digest::Digest::sha256_of(bytes);
        let target = format!("/v2/{name}/blobs/uploads/?digest={digest}");
        exchange(address, "POST", &target, &[&bearer], bytes).expect(201);
    };
    blob(EMPTY_CONFIG);
    let layers = state.files().into_iter().map(|(file, bytes)| {
        blob(bytes);
        Descriptor::of(media_type::TUF_METADATA, bytes).annotated(annotation::TUF_FILENAME, &file)
    });
    let layers = layers.collect();
    let manifest = Manifest::artifact(media_type::TUF_STATE, Descriptor::empty(), layers);
    let kind = format!("Content-Type: {}", media_type::MANIFEST);
    let target = format!("/v2/{name}/manifests/latest");
    exchange(address, "PUT", &target, &[&bearer, &kind], &manifest.to_bytes()).status
}

/// Real targets of the repository below a root of the attacker's, which names the server's keys for
/// snapshot and timestamp beside his own: what can be made of public data.
fn forged(genuine: &State) -> State {
    let mut keys = KeyStore::default();
    keys.add(SecretKey::from_seed(&[7; 32])).unwrap();
    let own = keys.keys().next().unwrap().clone();
    let with_own = |role: Role| {
        let before = genuine.root.role(&role).unwrap().keyids.clone();
        RoleKeys::new(1, before.into_iter().chain([own.id()]))
    };
    let roles = TopLevelKeys {
        root: RoleKeys::new(1, [own.id()]),
        snapshot: with_own(Role::Snapshot),
        timestamp: with_own(Role::Timestamp),
        targets: genuine.root.role(&Role::Targets).unwrap().clone(),
    };
    let mut all = genuine.root.keys.clone();
    all.insert(own.id(), own.clone());
    let mut root = Root::new(Header::new(1, now().plus(86_400)), all, roles);
    root.unknown = genuine.root.unknown.clone();
    let signed = root.to_value();
    let unsigned = Envelope::parse(&envelope_bytes(&signed, &[])).unwrap();
    let signature = sign(keys.find(&own.id()).unwrap(), unsigned.canonical()).unwrap();
    let bytes = envelope_bytes(&signed, &[signature]);
    let mut state = State { roots: [(1, bytes)].into(), root, ..genuine.clone() };
    state.snapshot.data.header.version = 1_000_000_000_000;
    state.timestamp.data.header.version = 1_000_000_000_000;
    // Due at once, and to last as long as may be from then on.
    let expiry = Expiry::parse(&["snapshot=10y", "timestamp=1s"]).unwrap();
    renewed(&state, &keys, &expiry, now().plus(-1800)).unwrap()
}

/// The digests of everything in the storage that a key of the server's signed.
fn signed_by_server(dir: &Path, keyids: &BTreeSet<KeyId>) -> BTreeSet<String> {
    let signed = |bytes: &[u8]| {
        let envelope = Envelope::parse(bytes).ok()?;
        let by = |text: &str| text.parse().is_ok_and(|id: KeyId| keyids.contains(&id));
        envelope.signatures().iter().any(|it| by(&it.keyid)).then_some(())
    };
    let files = common::tree(&dir.join("repository/blobs")).into_iter();
    let files = files.filter(|(_, bytes)| signed(bytes).is_some());
    files.map(|(path, _)| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

/// The ids of the keys that sign snapshot and timestamp, which the server has.
fn online(state: &State) -> BTreeSet<KeyId> {
    let of = |role: &Role| state.root.role(role).unwrap().keyids.clone();
    of(&Role::Snapshot).into_iter().chain(of(&Role::Timestamp)).collect()
}

/// The program, as an operator starts it.
struct Program {
    child: Child,
    address: SocketAddr,
}

impl Program {
    fn start(dir: &Path) -> Self {
        let keys = dir.join("keys");
        let mut command = Command::new(env!("CARGO_BIN_EXE_repo-server"));
        command.arg("serve").arg("--dir").arg(dir.join("repository"));
        command.args(["--listen", "127.0.0.1:0", "--namespace", "racklet"]);
        command.arg("--push-token-file").arg(dir.join("tokens"));
        command.arg("--refresh-root").arg(keys.join("root.json"));
        command.arg("--refresh-key").arg(keys.join("snapshot.key"));
        command.arg("--refresh-key").arg(keys.join("timestamp.key"));
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let listening = |line: String| Some(line.strip_prefix("listening on http://")?.parse());
        let address = lines.by_ref().find_map(|line| listening(line.unwrap())).unwrap().unwrap();
        // Keep reading, or a full pipe stops the server.
        std::thread::spawn(move || lines.for_each(drop));
        Program { child, address }
    }

    /// The timestamp's version once the first turn is over.
    fn turned(&self) -> u64 {
        let mut version = 0;
        let found = std::cell::RefCell::new(&mut version);
        common::until("the first turn", || {
            let health = exchange(self.address, "GET", "/healthz", &[], &[]).expect(200).json();
            let signs = health["signs"].as_array().unwrap().clone();
            signs.iter().for_each(|it| **found.borrow_mut() = it["timestamp"].as_u64().unwrap());
            !signs.is_empty()
        });
        version
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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

/// A token that may only add is enough to push a state that names the server's keys. Nothing of it
/// is signed, at no version, for no time.
#[test]
fn a_state_below_another_root_is_never_signed() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    repository_of(dir, "2s", -1800);
    config(dir, &[]);
    let server = Program::start(dir);
    assert_eq!(server.turned(), 2);
    let genuine = published(dir).state;
    let evil = forged(&genuine);
    // All that a server would sign by what the state itself says.
    assert!(
        State::verify(&evil.files().into_iter().map(|(n, b)| (n, b.to_vec())).collect(), None)
            .is_ok()
    );
    assert_eq!(push(server.address, ADD, "evil/tuf", &evil), 201);
    assert_eq!(push(server.address, ADD, "racklet/tuf", &evil), 403);
    drop(server);
    // Due again, so that the server signs what is its own in the turn that looks at the other.
    let (expiry, mut signing) = (Expiry::parse(&["timestamp=2s"]).unwrap(), people(dir));
    refresh(registry(dir).as_ref(), &mut signing, &expiry, now().plus(-1800)).unwrap();
    let server = Program::start(dir);
    assert_eq!(server.turned(), 4);
    assert_eq!(own_states(dir), signed_by_server(dir, &online(&genuine)), "signed for others");

    // The same with a token that moves tags, in the very place.
    assert_eq!(push(server.address, FULL, "racklet/tuf", &evil), 201);
    drop(server);
    let before = signed_by_server(dir, &online(&genuine));
    let server = Program::start(dir);
    server.turned();
    let health = exchange(server.address, "GET", "/healthz", &[], &[]).expect(200).json();
    assert!(health["signs"][0]["error"].is_string(), "{health}");
    assert_eq!(health["alarm"], true, "{health}");
    assert_eq!(signed_by_server(dir, &online(&genuine)), before);
}

/// Digests of the snapshots and timestamps of all states under the tags of `racklet/tuf`.
fn own_states(dir: &Path) -> BTreeSet<String> {
    let layout = storage::layout::LayoutDir::open(&dir.join("repository")).unwrap();
    let mut found = BTreeSet::new();
    for entry in &layout.index().unwrap().manifests {
        let reference = storage::layout::reference_of(entry).unwrap_or_default();
        if !reference.starts_with("racklet/tuf:") {
            continue;
        }
        let manifest = layout.read_blob(&entry.digest, 1 << 20).unwrap();
        for layer in Manifest::parse(&manifest).unwrap().layers {
            let name = layer.annotation(annotation::TUF_FILENAME).unwrap();
            if name == "timestamp.json" || name.ends_with(".snapshot.json") {
                found.insert(layer.digest.hex().to_owned());
            }
        }
    }
    found
}

/// A token that moves tags puts an old state back: the server remembers, also after a restart, and
/// however due that state is.
#[test]
fn an_old_state_that_is_put_back_is_not_signed() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    repository(dir, "1d");
    let old = published(dir).state;
    let mut long = config(dir, &["snapshot.key", "timestamp.key"]);
    // A day is left of it, so the first state is due.
    long.refresh.expires = vec!["timestamp=30d".to_owned()];
    let server = repo_server::start(long.clone()).unwrap();
    wait_for(&server, |it| it["signs"][0]["timestamp"] == 2);
    let renew = Change::Renew(vec![Role::Targets]);
    let (registry, mut signing, options) = (registry(dir), people(dir), ChangeOptions::default());
    change(registry.as_ref(), &mut signing, &renew, &options, Delivery::Publish, now()).unwrap();
    wait_for(&server, |it| it["signs"][0]["timestamp"] == 3);

    let keys = online(&old);
    let before = signed_by_server(dir, &keys);
    assert_eq!(push(server.local_addr(), FULL, "racklet/tuf", &old), 201);
    let refused = |it: &serde_json::Value| it["signs"][0]["code"] == "version_rollback";
    let found = wait_for(&server, refused);
    let error = found["signs"][0]["error"].as_str().unwrap();
    assert!(error.contains("somebody put an old state back"), "{error}");
    assert_eq!(found["alarm"], true, "{found}");
    let metrics = exchange(server.local_addr(), "GET", "/metrics", &[], &[]).expect(200);
    let metrics = String::from_utf8(metrics.body).unwrap();
    let line =
        "repo_server_refresh_refused{repository=\"racklet/tuf\",reason=\"version_rollback\"} 1";
    assert!(metrics.contains(line), "{metrics}");
    server.stop();
    let server = repo_server::start(long).unwrap();
    wait_for(&server, refused);
    assert_eq!(signed_by_server(dir, &keys), before, "signed on top of an old state");

    // The newest one again, by whoever looks after it.
    let layout = storage::layout::LayoutDir::open(&dir.join("repository")).unwrap();
    let newest = layout.resolve("racklet/tuf:ts-3").unwrap().unwrap();
    layout.set_refs(&[("racklet/tuf:latest".to_owned(), Some(newest))]).unwrap();
    wait_for(&server, |it| it["signs"][0]["error"].is_null() && it["signs"][0]["timestamp"] == 3);
    server.stop();
}

/// After a stolen online key people go on from a state before the theft, with other keys: versions
/// start again, and what the log knows of the old keys binds nobody.
#[test]
fn versions_start_again_when_a_root_gives_other_keys() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    repository(dir, "1d");
    let keys = ["snapshot.key", "timestamp.key"];
    // The thief drives the version up, and the server sees it.
    let server = serve(dir, &keys).unwrap();
    wait_for(&server, |it| it["signs"][0]["timestamp"] == 1);
    let Published { manifest, mut state } = published(dir);
    state.timestamp.data.header.version = 1000;
    let thief = KeyStore::open(&dir.join("keys")).unwrap();
    let state = renewed(&state, &thief, &Expiry::default(), now()).unwrap();
    published::publish(registry(dir).as_ref(), Some(&manifest), &state, None).unwrap();
    wait_for(&server, |it| it["signs"][0]["timestamp"] == 1001);
    let [stolen] = state.root.role(&Role::Timestamp).unwrap().keyids[..] else { panic!() };
    let fresh = SecretKey::generate().unwrap();
    signer::key::create(&dir.join("keys"), "fresh", &fresh).unwrap();
    let mut signing = people(dir);
    let revoke = Change::Revoke { keys: vec![stolen], replacement: Some(fresh.key().unwrap()) };
    let options = ChangeOptions { base: Some("ts-1"), ..ChangeOptions::default() };
    change(registry(dir).as_ref(), &mut signing, &revoke, &options, Delivery::Publish, now())
        .unwrap();
    let found = wait_for(&server, |it| it["signs"][0]["timestamp"] == 2);
    assert_eq!(found["signs"][0]["error"], serde_json::Value::Null, "{found}");
    server.stop();
}

/// The alarm believes no expiry that does not come from the root.
#[test]
fn what_anybody_pushed_does_not_keep_the_alarm_silent() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    repository(dir, "1h");
    let server = serve(dir, &[]).unwrap();
    let late = wait_for(&server, |it| it["stale_timestamps"][0]["version"] == 1);
    let stale = &late["stale_timestamps"][0];
    assert_eq!((&stale["verified"], &stale["expired"]), (&true.into(), &false.into()), "{late}");
    let layout = storage::layout::LayoutDir::open(&dir.join("repository")).unwrap();
    // Elsewhere it is nobody's business; in its place it is a forgery.
    common::publish_timestamp(&layout, "evil/tuf", 99, -1);
    common::publish_timestamp(&layout, "racklet/tuf", 99, 30 * 86_400);
    let forged = wait_for(&server, |it| it["stale_timestamps"][0]["version"] == 0);
    let stale = &forged["stale_timestamps"][0];
    assert_eq!((&stale["verified"], &stale["expired"]), (&false.into(), &true.into()), "{forged}");
    assert!(stale["error"].as_str().unwrap().contains("root.json"), "{forged}");
    assert_eq!(forged["stale_timestamps"].as_array().unwrap().len(), 1, "{forged}");
    server.stop();
}

/// What a server with a key believes is given, and nobody else can change it.
#[test]
fn a_key_needs_a_root_a_namespace_and_files_of_its_own() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    repository(dir, "1d");
    let start = |change: &dyn Fn(&mut Config)| {
        let mut config = config(dir, &["snapshot.key", "timestamp.key"]);
        change(&mut config);
        repo_server::start(config).map(drop).map_err(|error| error.reason().code())
    };
    let root = dir.join("keys/root.json");
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    assert_eq!(start(&|_| {}), Ok(()));
    assert_eq!(start(&|config| config.refresh.root = None), Err("config"));
    assert_eq!(start(&|config| config.namespace = None), Err("config"));
    assert_eq!(start(&|config| config.namespace = Some("../x".to_owned())), Err("config"));
    assert_eq!(start(&|config| config.refresh.root = Some(dir.join("tokens"))), Err("config"));
    for expires in ["root=1y", "offline=1d", "timestamp=31d", "timestamp"] {
        let expires = vec![expires.to_owned()];
        assert_eq!(start(&|config| config.refresh.expires = expires.clone()), Err("config"));
    }
    for path in [&root, &dir.join("server.log")] {
        mode(path, 0o666);
        assert_eq!(start(&|_| {}), Err("insecure_perms"), "{}", path.display());
        mode(path, 0o600);
    }
    let link = dir.join("link");
    symlink(&root, &link).unwrap();
    assert_eq!(start(&|config| config.refresh.log = Some(link.clone())), Err("config"));
    let shared = dir.join("shared");
    std::fs::create_dir(&shared).unwrap();
    mode(&shared, 0o777);
    let log = Some(shared.join("signer.log"));
    assert_eq!(start(&|config| config.refresh.log = log.clone()), Err("insecure_perms"));
    // Without --refresh-log it lies beside the first key.
    assert_eq!(start(&|config| config.refresh.log = None), Ok(()));
    assert!(dir.join("keys/signer.log").is_file());
}
