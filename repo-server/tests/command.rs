//! The program itself: what it prints, how it ends, what a `kill -9` leaves.
#![allow(clippy::unwrap_used, reason = "these are tests, and so are their parts")]

mod common;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{TOKEN, exchange, noise};
use formats::digest::Digest;

struct Server {
    child: Child,
    address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(temp: &Path, more: &[&str]) -> Self {
        let tokens = temp.join("tokens");
        common::write_private(&tokens, TOKEN);
        let mut command = Command::new(env!("CARGO_BIN_EXE_repo-server"));
        command.arg("serve").arg("--dir").arg(temp.join("repository"));
        command.args(["--listen", "127.0.0.1:0", "--log", "info"]);
        command.arg("--push-token-file").arg(&tokens).args(more);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = lines.next().unwrap().unwrap();
        let address = line.strip_prefix("listening on http://").unwrap().parse().unwrap();
        // Keep reading, or a full pipe stops the server.
        let log = Arc::<Mutex<Vec<String>>>::default();
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| kept.lock().unwrap().push(line));
        });
        Server { child, address, log }
    }

    /// Waits for a line of the log.
    fn wait_for_log(&self, text: &str) {
        common::until(text, || self.log.lock().unwrap().iter().any(|line| line.contains(text)));
    }

    fn push(&self, method: &str, target: &str, body: &[u8]) -> common::Reply {
        let bearer = format!("Authorization: Bearer {TOKEN}");
        exchange(self.address, method, target, &[&bearer], body)
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// SIGHUP: new tokens count at once, old ones no longer, and a broken file changes nothing.
#[test]
fn tokens_are_read_again() {
    use rustix::process::Signal;
    let temp = tempfile::tempdir().unwrap();
    let server = Server::start(temp.path(), &[]);
    let tokens = temp.path().join("tokens");
    let push = |token: &str| {
        let bearer = format!("Authorization: Bearer {token}");
        exchange(server.address, "POST", "/v2/a/blobs/uploads/", &[&bearer], &[]).status
    };
    assert_eq!(push(TOKEN), 202);
    let next = "another-token-for-tests";
    let hashed = format!("sha256:{}\n", formats::digest::Sha256::of(next.as_bytes()));
    common::write_private(&tokens, &hashed);
    server.signal(Signal::HUP);
    server.wait_for_log("certificates and tokens reloaded");
    assert_eq!((push(TOKEN), push(next)), (401, 202));
    common::write_private(&tokens, "short");
    server.signal(Signal::HUP);
    server.wait_for_log("the previous certificates and tokens stay in use");
    assert_eq!((push(TOKEN), push("short"), push(next)), (401, 401, 202));
}

/// SIGHUP: a browser that was logged in with a token that is withdrawn is logged in no more.
#[test]
fn a_session_ends_with_its_token() {
    let temp = tempfile::tempdir().unwrap();
    let [pull, fleet] = ["pull", "fleet"].map(|name| temp.path().join(name));
    common::write_private(&pull, "a-pull-token-for-tests");
    let more = ["--pull-token-file", pull.to_str().unwrap(), "--fleet", fleet.to_str().unwrap()];
    let server = Server::start(temp.path(), &more);
    let here = ["Origin: http://test"];
    let form = b"token=a-pull-token-for-tests";
    let reply = exchange(server.address, "POST", "/fleet/login", &here, form).expect(303);
    let set = reply.header("set-cookie").unwrap();
    let cookie = format!("Cookie: {}", set.split(';').next().unwrap());
    let page = || exchange(server.address, "GET", "/fleet/", &[&cookie], &[]).status;
    assert_eq!(page(), 200);
    common::write_private(&pull, "another-token-for-tests");
    server.signal(rustix::process::Signal::HUP);
    server.wait_for_log("certificates and tokens reloaded");
    assert_eq!(page(), 401);
}

/// 219: a timestamp nobody renews is in the log before it expires.
#[test]
fn a_stale_timestamp_is_in_the_log() {
    let temp = tempfile::tempdir().unwrap();
    let layout = storage::layout::LayoutDir::create(&temp.path().join("repository")).unwrap();
    common::publish_timestamp(&layout, "r/tuf", 7, 3600);
    common::publish_timestamp(&layout, "old/tuf", 3, -60);
    for (namespace, line, version) in [
        ("r", "the TUF timestamp expires soon", "\"version\":7"),
        ("old", "the TUF timestamp has expired", "\"version\":3"),
    ] {
        let server =
            Server::start(temp.path(), &["--log-format", "json", "--namespace", namespace]);
        server.wait_for_log(line);
        let log = server.log.lock().unwrap().join("\n");
        assert!(log.contains(&format!("\"repository\":\"{namespace}/tuf\"")), "{log}");
        assert!(log.contains(version) && log.contains("\"verified\":false"), "{log}");
        assert_eq!(log.matches("/tuf").count(), 1, "only what is configured: {log}");
    }
}

#[test]
fn it_ends_politely() {
    use rustix::process::Signal;
    for signal in [Signal::TERM, Signal::INT] {
        let temp = tempfile::tempdir().unwrap();
        let mut server = Server::start(temp.path(), &["--log-format", "json"]);
        let bytes = noise(200_000);
        let digest = Digest::sha256_of(&bytes);
        // A request under way when the signal comes is finished.
        let mut stream = TcpStream::connect(server.address).unwrap();
        let head = format!(
            "POST /v2/a/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: x\r\n\
             Authorization: Bearer {TOKEN}\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
            bytes.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        answer.read_line(&mut line).unwrap();
        assert!(line.starts_with("HTTP/1.1 100"), "{line}");
        server.signal(signal);
        // No new ones, once the listener is gone.
        while TcpStream::connect(server.address).is_ok() {
            std::thread::yield_now();
        }
        stream.write_all(&bytes).unwrap();
        let statuses: Vec<String> = answer.lines().map_while(Result::ok).collect();
        assert!(statuses.iter().any(|line| line.starts_with("HTTP/1.1 201")), "{statuses:?}");
        assert!(server.child.wait().unwrap().success());
    }
}

/// 215, 205: whatever a killed server was doing, what it shows afterwards is whole, and clients go
/// on where they were.
#[test]
fn kill_9_in_mid_upload_leaves_nothing_visible() {
    let temp = tempfile::tempdir().unwrap();
    let server = Server::start(temp.path(), &[]);
    let bytes = noise(3 << 20);
    let digest = Digest::sha256_of(&bytes);
    let reply = server.push("POST", "/v2/a/blobs/uploads/", &[]).expect(202);
    let location = reply.header("location").unwrap().to_owned();
    server.push("PATCH", &location, &bytes[..1 << 20]).expect(202);
    let mut stream = TcpStream::connect(server.address).unwrap();
    let head = format!(
        "PATCH {location} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {}\r\n\r\n",
        2 << 20
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&bytes[1 << 20..2 << 20]).unwrap();
    server.signal(rustix::process::Signal::KILL);
    drop(server);

    let server = Server::start(temp.path(), &[]);
    exchange(server.address, "GET", &format!("/v2/a/blobs/{digest}"), &[], &[]).expect(404);
    let status = server.push("GET", &location, &[]).expect(204);
    let last: usize = status.header("range").unwrap().strip_prefix("0-").unwrap().parse().unwrap();
    let stored = last + 1;
    assert!((1 << 20..=2 << 20).contains(&stored), "{stored}");
    drop(server);

    // A second restart, and the rest; a lie about the digest costs the upload, not the storage.
    let server = Server::start(temp.path(), &[]);
    server.push("PATCH", &location, &bytes[stored..]).expect(202);
    server.push("PUT", &format!("{location}?digest={digest}"), &[]).expect(201);
    let got = exchange(server.address, "GET", &format!("/v2/a/blobs/{digest}"), &[], &[]);
    assert_eq!(got.expect(200).body, bytes);
    let other = server.push("POST", "/v2/a/blobs/uploads/", &[]).expect(202);
    let other = other.header("location").unwrap().to_owned();
    server.push("PATCH", &other, b"some").expect(202);
    drop(server);
    let server = Server::start(temp.path(), &[]);
    server.push("PUT", &format!("{other}?digest={digest}"), b"thing").expect(400);
    server.push("GET", &other, &[]).expect(404);
    assert_eq!(common::uploads(&temp.path().join("repository")), 0);
}

/// 215: killed at any moment of a push, again and again. What is tagged is whole; what is shown
/// has its digest; and the push goes through at last.
#[test]
fn kill_9_at_any_moment() {
    let temp = tempfile::tempdir().unwrap();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    eprintln!("seed {state:#x}");
    for turn in 0..25_u32 {
        let layer = [&turn.to_le_bytes()[..], &noise(300_000)].concat();
        let server = Server::start(temp.path(), &[]);
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let pid = rustix::process::Pid::from_child(&server.child);
        let wait = Duration::from_micros(state % 20_000);
        let killer = std::thread::spawn(move || {
            std::thread::sleep(wait);
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        });
        let pushed = std::panic::catch_unwind(|| push_release(&server, turn, &layer)).is_ok();
        killer.join().unwrap();
        drop(server);
        let server = Server::start(temp.path(), &[]);
        let get = |target: &str| exchange(server.address, "GET", target, &[], &[]);
        let tag = get(&format!("/v2/a/manifests/v{turn}"));
        assert!(tag.status == 200 || !pushed, "turn {turn}: pushed and gone");
        if tag.status == 200 {
            let manifest = formats::oci::Manifest::parse(&tag.body).unwrap();
            for layer in manifest.layers {
                let blob = get(&format!("/v2/a/blobs/{}", layer.digest)).expect(200);
                assert_eq!(Digest::sha256_of(&blob.body), layer.digest);
            }
        }
        let blob = get(&format!("/v2/a/blobs/{}", Digest::sha256_of(&layer)));
        assert!(blob.status == 404 || blob.body == layer, "turn {turn}");
        push_release(&server, turn, &layer);
    }
}

fn push_release(server: &Server, turn: u32, layer: &[u8]) {
    use formats::oci::{Descriptor, EMPTY_CONFIG, Manifest};
    for bytes in [EMPTY_CONFIG, layer] {
        let target = format!("/v2/a/blobs/uploads/?digest={}", Digest::sha256_of(bytes));
        server.push("POST", &target, bytes).expect(201);
    }
    let layers = vec![Descriptor::of("application/octet-stream", layer)];
    let manifest = Manifest::artifact("application/vnd.test", Descriptor::empty(), layers);
    let target = format!("/v2/a/manifests/v{turn}");
    server.push("PUT", &target, &manifest.to_bytes()).expect(201);
}

/// 220: no signing key is in the server's files or memory, not even the published ones that the
/// rest of the workspace is tested with. That the search works is shown with bytes it must have.
#[test]
fn the_server_holds_no_signing_key() {
    let temp = tempfile::tempdir().unwrap();
    let server = Server::start(temp.path(), &[]);
    let marker = b"bytes that were pushed and are in memory";
    let digest = Digest::sha256_of(marker);
    server.push("POST", &format!("/v2/a/blobs/uploads/?digest={digest}"), marker).expect(201);
    exchange(server.address, "GET", &format!("/v2/a/blobs/{digest}"), &[], &[]).expect(200);
    let memory = memory_of(server.child.id());
    let holds = |needle: &[u8]| memory.iter().any(|area| found(area, needle));
    assert!(holds(marker), "the search finds what is there");
    let secrets = example_secrets();
    for secret in &secrets {
        assert!(!holds(secret), "a secret of {} bytes is in memory", secret.len());
        for (path, content) in common::tree(&temp.path().join("repository")) {
            assert!(!found(&content, secret), "a secret is in {}", path.display());
        }
    }
    // It signs only when it is given a key (`--refresh-key`), and then says so.
    let health = exchange(server.address, "GET", "/healthz", &[], &[]).expect(200).json();
    assert_eq!(health["holds_online_keys"], false);
}

fn found(area: &[u8], needle: &[u8]) -> bool {
    area.windows(needle.len()).any(|window| window[0] == needle[0] && window == needle)
}

/// The secrets of the published keys, raw and as they are written.
fn example_secrets() -> Vec<Vec<u8>> {
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("../keys-example");
    let mut secrets = Vec::new();
    for role in ["root", "targets", "snapshot", "timestamp"] {
        let text = std::fs::read(keys.join(role).with_extension("key")).unwrap();
        let key: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let hex = key["secret"].as_str().unwrap();
        secrets.extend([hex.as_bytes().to_vec(), formats::digest::unhex(hex).unwrap()]);
    }
    secrets
}

/// Readable memory that can be written: heap, stacks, data.
fn memory_of(pid: u32) -> Vec<Vec<u8>> {
    use std::os::unix::fs::FileExt as _;
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let areas = maps.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (from, to) = words.next()?.split_once('-')?;
        words.next()?.starts_with("rw").then_some(())?;
        let from = u64::from_str_radix(from, 16).ok()?;
        let len = usize::try_from(u64::from_str_radix(to, 16).ok()? - from).ok()?;
        let mut area = vec![0; len.min(64 << 20)];
        memory.read_exact_at(&mut area, from).ok()?;
        Some(area)
    });
    areas.collect()
}

#[test]
fn errors_are_words_and_numbers() {
    let temp = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_repo-server")).args(args).output().unwrap();
        let json: serde_json::Value =
            serde_json::from_slice(&output.stdout).unwrap_or(serde_json::Value::Null);
        (output.status.code(), json, String::from_utf8(output.stderr).unwrap())
    };
    let dir = temp.path().join("repository");
    let dir = dir.to_str().unwrap();
    let (code, json, text) = run(&["serve", "--dir", dir, "--listen", "0.0.0.0:0", "--json"]);
    assert_eq!((code, &json["code"]), (Some(23), &"config".into()));
    assert!(text.starts_with("error[config]: 0.0.0.0:0 is not a loopback address"), "{text}");
    assert_eq!(run(&["serve"]).0, Some(2));

    let (code, json, _) = run(&["scrub", "--dir", dir, "--json"]);
    assert_eq!((code, &json["ok"]), (Some(23), &false.into()), "no such directory: {json}");
    let layout = storage::layout::LayoutDir::create(Path::new(dir)).unwrap();
    let digest = storage::layout::LayoutDir::put_blob(&layout, b"content").unwrap();
    let (code, json, _) = run(&["scrub", "--dir", dir, "--json"]);
    assert_eq!((code, json["read"].as_u64()), (Some(0), Some(1)), "{json}");
    std::fs::write(Path::new(dir).join("blobs/sha256").join(digest.hex()), b"rotten!").unwrap();
    let (code, json, _) = run(&["scrub", "--dir", dir, "--json"]);
    assert_eq!(code, Some(15));
    assert_eq!(json["rotten"][0]["digest"], digest.to_string());
}

fn run(args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_repo-server")).args(args).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// A mistyped directory becomes no repository, and what is only looked at does not change.
#[test]
fn a_directory_is_made_by_a_server_alone() {
    let temp = tempfile::tempdir().unwrap();
    let path = |name: &str| temp.path().join(name).to_str().unwrap().to_owned();
    let (missing, foreign, repository) = (path("missing"), path("foreign"), path("repository"));
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(Path::new(&foreign).join("letter"), "to somebody").unwrap();
    let files = |dir: &str| std::fs::read_dir(dir).unwrap().count();
    for command in [&["gc"][..], &["gc", "--dry-run"], &["scrub"]] {
        for dir in [&missing, &foreign] {
            let (code, text) = run(&[command, &["--dir", dir]].concat());
            assert_eq!(code, Some(23), "{command:?} {dir}: {text}");
            assert!(text.contains(dir.as_str()) && text.contains("directory"), "{text}");
        }
    }
    assert!(!Path::new(&missing).exists());
    assert_eq!(files(&foreign), 1);
    // A server that cannot listen serves nothing.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().to_string();
    let (code, text) = run(&["serve", "--dir", &missing, "--listen", &port]);
    assert_eq!(code, Some(23), "{text}");
    assert!(!Path::new(&missing).exists());
    // Beside a server, a collection is only looked at.
    let server = Server::start(temp.path(), &[]);
    let before = files(&repository);
    let (code, text) = run(&["gc", "--dir", &repository]);
    assert_eq!(code, Some(21), "{text}");
    assert!(text.contains(&format!("{repository}: ")) && text.contains("gc --dry-run"), "{text}");
    assert_eq!(run(&["gc", "--dir", &repository, "--dry-run"]).0, Some(0));
    assert_eq!(files(&repository), before);
    drop(server);
    assert_eq!(run(&["gc", "--dir", &repository]).0, Some(0));
}

/// Help that did not arrive is no success.
#[test]
fn help_on_a_full_disk_is_an_error() {
    for asked in ["--help", "help", "--version", "-V"] {
        let full = std::fs::File::create("/dev/full").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_repo-server"));
        let output = command.arg(asked).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(23), "{asked}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.starts_with("error[report_lost]: write to standard output"), "{text}");
        assert_eq!(run(&[asked]), (Some(0), String::new()), "{asked}");
    }
}
