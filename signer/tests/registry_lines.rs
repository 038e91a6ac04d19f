//! Pushing over lines that are slow, stop or keep what they get, and through doors that take no large
//! requests: `signer` itself, before somebody else's registry and before ours.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;
mod docker;
mod middle;
mod program;

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::noise;
use docker::DockerRegistry;
use formats::digest::Digest;
use formats::oci::{Descriptor, EMPTY_CONFIG, Manifest, RepositoryName, media_type};
use formats::reason::Reason;
use middle::{Act, Head, Middle};
use program::{Program, write_private};
use repo_server::{Config, Running};
use signer::progress::Progress;
use signer::repository::{Access, Backoff, ClientOptions, Patience, Registry, RegistryError, open};

const TOKEN: &str = "a-token-that-is-long-enough";
const MIB: u64 = 1 << 20;

/// Somebody else's registry, and ours.
struct Registries {
    temp: tempfile::TempDir,
    docker: DockerRegistry,
    ours: Running,
}

impl Registries {
    fn start() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let docker = DockerRegistry::start(&temp, false);
        write_private(&temp.path().join("tokens"), TOKEN);
        let mut config = Config::new(temp.path().join("served"));
        config.push_tokens = Some(temp.path().join("tokens"));
        let ours = repo_server::start(config).unwrap();
        Registries { temp, docker, ours }
    }

    fn both(&self) -> [SocketAddr; 2] {
        [self.docker.address, self.ours.local_addr()]
    }
}

/// `signer` with a repository in a registry, and an image that does not compress.
struct Publisher {
    program: Program,
    registry: SocketAddr,
    namespace: String,
}

impl Publisher {
    fn new(registry: SocketAddr, namespace: &str, image: u64) -> Self {
        let program = Program::new();
        write_private(&program.path("token"), TOKEN);
        let image = noise(usize::try_from(image).unwrap(), 7);
        std::fs::write(program.path("os.img"), image).unwrap();
        let publisher = Publisher { program, registry, namespace: namespace.to_owned() };
        publisher.run(registry, &["init"], 0);
        publisher
    }

    /// Runs a command by way of that door.
    #[track_caller]
    fn run(&self, door: SocketAddr, arguments: &[&str], code: i32) -> (serde_json::Value, String) {
        let repo = format!("docker://{door}/{}", self.namespace);
        let to = ["--repo", &repo, "--keys", "keys", "--plain-http", "--token-file", "token"];
        let all = [arguments, &to, &["--json"]].concat();
        let output = self.program.run(&all[..all.len() - 1]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{out}\n{said}");
        (serde_json::from_str(&out).unwrap(), said)
    }

    /// Publishes by way of that door, then reads every byte without it.
    #[track_caller]
    fn publish(&self, door: SocketAddr, version: &str, more: &[&str]) -> String {
        let release = ["publish", "--product", "demo", "--version", version];
        let component = ["--component", "os=os.img,hw=cu-v1", "--channel", "stable"];
        let (_, said) = self.run(door, &[&release[..], &component, more].concat(), 0);
        let repo = format!("docker://{}/{}", self.registry, self.namespace);
        let verify = ["verify", &repo, "--keys", "keys", "--plain-http"];
        let verified = self.program.json(&verify, 0);
        assert!(verified["image_bytes"].as_u64() > Some(0), "{verified}");
        said
    }
}

/// A request that carries a part of a blob of some size.
fn carries(head: &Head) -> bool {
    let upload = head.target.contains("/blobs/uploads/");
    upload && matches!(head.method.as_str(), "PUT" | "PATCH") && length(head) > 64 << 10
}

fn length(head: &Head) -> u64 {
    head.header("content-length").and_then(|it| it.parse().ok()).unwrap_or(0)
}

/// 6 MiB take six seconds, by a line and by a proxy that keeps all of a request before it sends any
/// of it on. Nothing stands still for two seconds, so nothing is cut and nothing is sent twice.
#[test]
fn a_long_transfer_is_not_a_stalled_one() {
    let registries = Registries::start();
    std::thread::scope(|scope| {
        for (nth, registry) in registries.both().into_iter().enumerate() {
            for (name, slow) in [("line", true), ("proxy", false)] {
                scope.spawn(move || {
                    let middle =
                        Middle::before(registry, move |head| match (carries(head), slow) {
                            (false, _) => Act::Pass,
                            (true, true) => Act::Slow(MIB),
                            (true, false) => Act::Keep(MIB),
                        });
                    let publisher = Publisher::new(registry, &format!("{name}{nth}"), 6 * MIB);
                    let said = publisher.publish(middle.address, "1.0.0", &["--stall-limit", "2s"]);
                    let sent = middle.sent("PUT").0 + middle.sent("PATCH").0;
                    println!("{name} to registry {nth}: {sent} bytes sent");
                    assert!(!said.contains("trying again"), "{name}: {said}");
                    // The image twice: in chunks and in one piece; and documents.
                    assert!(sent < 13 * MIB, "{name}: {sent} bytes");
                });
            }
        }
    });
}

/// What stands still is cut, said, and goes on; what stands still for ever ends with its reason.
#[test]
fn a_stalled_transfer_is_cut_and_goes_on() {
    let registries = Registries::start();
    for (nth, registry) in registries.both().into_iter().enumerate() {
        let stops = AtomicUsize::new(0);
        let middle = Middle::before(registry, move |head| {
            let stop = carries(head) && stops.fetch_add(1, Ordering::SeqCst) == 0;
            if stop { Act::Stop(MIB) } else { Act::Pass }
        });
        let publisher = Publisher::new(registry, &format!("r{nth}"), 6 * MIB);
        let said = publisher.publish(middle.address, "1.0.0", &["--stall-limit", "1s"]);
        let line = said.lines().find(|line| line.starts_with("push blob sha256:"));
        let line = line.unwrap_or_else(|| panic!("nothing is said: {said}"));
        assert!(
            line.contains("nothing was taken for 1 s") && line.contains("trying again"),
            "{line}"
        );
    }
    let middle = Middle::before(registries.docker.address, |head| {
        if carries(head) { Act::Stop(MIB) } else { Act::Pass }
    });
    let registry = client(middle.address, &registries.temp, quick());
    let blob = push(registry.as_ref(), &noise(6 << 20, 2));
    let error = seal(registry.as_ref(), vec![blob]).unwrap_err();
    assert_eq!(error.reason(), Reason::Timeout, "{error}");
    // What the kernel took counts as sent: a piece that fits its buffers waits for its answer.
    let text = error.to_string();
    assert!(text.contains("--stall-limit") || text.contains("--chunk-size"), "{text}");
}

/// A registry that answers late: the blob is there, and nothing is sent again. One that does not
/// answer at all has its own words.
#[test]
fn the_answer_is_waited_for_longer_than_a_byte() {
    let registries = Registries::start();
    let docker = registries.docker.address;
    let silent = AtomicUsize::new(0);
    let middle = Middle::before(docker, move |head| {
        let first = carries(head) && silent.fetch_add(1, Ordering::SeqCst) == 0;
        if first { Act::Stall(0) } else { Act::Pass }
    });
    let registry = client(middle.address, &registries.temp, quick());
    let blob = push(registry.as_ref(), &noise(3 << 20, 3));
    seal(registry.as_ref(), vec![blob]).unwrap();
    let sent = middle.sent("PUT").0 + middle.sent("PATCH").0;
    assert!(sent < 3 * MIB + 4096, "{sent} bytes for a blob that is there");
    let middle = Middle::before(docker, |head| {
        if head.target.contains("/manifests/") { Act::Stall(0) } else { Act::Pass }
    });
    let registry = client(middle.address, &registries.temp, quick());
    let error = registry.tagged(&name("r/demo"), &"x".parse().unwrap()).unwrap_err();
    assert_eq!(error.reason(), Reason::Timeout, "{error}");
    assert!(error.to_string().contains("no answer for"), "{error}");
}

/// A download that stands still goes on where it was, also at a registry that gives no part of a blob;
/// one that never comes further is an error.
#[test]
fn a_download_that_stands_still_goes_on() {
    let registries = Registries::start();
    let docker = registries.docker.address;
    let bytes = noise(3 << 20, 4);
    let direct = client(docker, &registries.temp, quick());
    let blob = push(direct.as_ref(), &bytes);
    seal(direct.as_ref(), vec![blob.clone()]).unwrap();
    for (case, answered, ranges) in [
        ("goes on", MIB, None),
        ("from its beginning", MIB, Some("416 No")),
        ("from its beginning", MIB, Some("501 No")),
        ("never", 300, None),
    ] {
        let stalls = AtomicUsize::new(0);
        let middle = Middle::before(docker, move |head| {
            let blob = head.method == "GET" && head.target.contains("/blobs/sha256");
            let again = stalls.load(Ordering::SeqCst) > 0;
            match (blob, head.header("range"), ranges) {
                (true, Some(_), Some(refused)) => {
                    Act::Answer(format!("{refused}\r\nContent-Length: 0"))
                }
                (true, ..) if case == "never" || !again => {
                    stalls.fetch_add(1, Ordering::SeqCst);
                    Act::Stall(answered)
                }
                _ => Act::Pass,
            }
        });
        let registry = client(middle.address, &registries.temp, quick());
        let mut read = Vec::new();
        // One that stands still before its head is whole fails as it is opened.
        let ended = match registry.open_blob(&name("r/demo"), &blob) {
            Ok(mut reader) => reader.read_to_end(&mut read).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if case == "never" {
            let error = ended.unwrap_err();
            assert!(error.contains("no answer for"), "{error}");
        } else {
            ended.unwrap_or_else(|error| panic!("{case} {ranges:?}: {error}"));
            assert!(read == bytes, "{case} {ranges:?}: {} bytes", read.len());
        }
    }
}

/// A door that takes no request of more than a MiB: what one blob found out holds for all.
#[test]
fn a_door_for_small_requests() {
    let registries = Registries::start();
    for (nth, registry) in registries.both().into_iter().enumerate() {
        let refused = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&refused);
        let middle = Middle::before(registry, move |head| {
            if length(head) <= MIB {
                return Act::Pass;
            }
            count.fetch_add(1, Ordering::SeqCst);
            Act::Answer("413 Request Entity Too Large\r\nContent-Length: 0".to_owned())
        });
        let publisher = Publisher::new(registry, &format!("r{nth}"), 3 * MIB);
        let said = publisher.publish(middle.address, "1.0.0", &[]);
        let before = refused.load(Ordering::SeqCst);
        println!("registry {nth}: {before} refused");
        // Both blobs of the image begin at once.
        assert!((1..=2).contains(&before), "{before} refused: {said}");
        assert!(said.contains("413, going on in pieces of 1.0 MiB"), "{said}");
        // Asked for, nothing is refused.
        std::fs::write(publisher.program.path("os.img"), noise(3 << 20, 8)).unwrap();
        publisher.publish(middle.address, "1.1.0", &["--chunk-size", "1M"]);
        assert_eq!(refused.load(Ordering::SeqCst), before);
    }
}

/// A door that closes the line with its 413, which may be lost then; one that takes next to nothing
/// is an error that says so.
#[test]
fn a_door_that_shuts_and_one_that_takes_nothing() {
    let registries = Registries::start();
    let middle = Middle::before(registries.docker.address, |head| match length(head) > MIB {
        true => Act::Shut("413 Request Entity Too Large\r\nContent-Length: 0".to_owned()),
        false => Act::Pass,
    });
    let first = Duration::from_millis(1);
    let backoff = Backoff { first, ..Backoff::default() };
    let options = ClientOptions { plain_http: true, backoff, ..ClientOptions::default() };
    let reference = format!("docker://{}/r", middle.address).parse().unwrap();
    let registry = open(&reference, Access::Write, &options).unwrap();
    let blob = push(registry.as_ref(), &noise(3 << 20, 12));
    seal(registry.as_ref(), vec![blob]).unwrap();
    let middle = Middle::before(registries.docker.address, |head| {
        let answer = "413 Request Entity Too Large\r\nContent-Length: 0".to_owned();
        if length(head) > 100 << 10 { Act::Answer(answer) } else { Act::Pass }
    });
    let registry = client(middle.address, &registries.temp, Patience::default());
    let blob = push(registry.as_ref(), &noise(3 << 20, 9));
    let error = seal(registry.as_ref(), vec![blob]).unwrap_err();
    assert!(error.to_string().contains("413"), "{error}");
}

/// Runs a command without a door, in the folder of a publisher.
fn beside(dir: &std::path::Path, repo: &str, arguments: &[&str]) {
    let to = ["--repo", repo, "--keys", "keys", "--plain-http", "--token-file", "token"];
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_signer"));
    let done = command.current_dir(dir).args(arguments).args(to).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// A timer's refresh while a publish uploads, and while any command is about to move the tag: it goes
/// on. What somebody else signed in the same moment is not overrun.
#[test]
fn a_refresh_in_the_middle_fails_nothing() {
    let registries = Registries::start();
    let docker = registries.docker.address;
    let hold = ["channel", "set", "--product", "demo", "--channel", "stable", "--hold"];
    let beta = ["channel", "set", "--product", "demo", "--channel", "beta", "--release", "1.0.0"];
    let publish = ["publish", "--product", "demo", "--version", "1.1.0", "--component"];
    let publish = [&publish[..], &["os=os.img,hw=cu-v1", "--channel", "stable"]].concat();
    let refresh = vec!["refresh"];
    let renew = vec!["renew", "targets"];
    for (nth, (command, uploading, meanwhile, code)) in [
        (&publish, true, &refresh, 0),
        (&publish, true, &hold.to_vec(), 0),
        (&publish, false, &refresh, 0),
        (&hold.to_vec(), false, &refresh, 0),
        (&renew, false, &refresh, 0),
        (&refresh, false, &refresh, 0),
        (&refresh, false, &hold.to_vec(), 0),
        (&publish, false, &beta.to_vec(), 21),
        (&hold.to_vec(), false, &beta.to_vec(), 21),
    ]
    .into_iter()
    .enumerate()
    {
        let publisher = Publisher::new(docker, &format!("m{nth}"), 300_000);
        publisher.publish(docker, "1.0.0", &[]);
        std::fs::write(publisher.program.path("os.img"), noise(300_000, 11)).unwrap();
        let (dir, namespace) = (publisher.program.dir().to_owned(), publisher.namespace.clone());
        let other: Vec<String> = meanwhile.iter().map(|it| (*it).to_owned()).collect();
        let done = AtomicUsize::new(0);
        let middle = Middle::before(docker, move |head| {
            let tagging = head.method == "PUT" && head.target.contains("/manifests/ts-");
            let now = if uploading { carries(head) } else { tagging };
            if now && done.fetch_add(1, Ordering::SeqCst) == 0 {
                let other: Vec<&str> = other.iter().map(String::as_str).collect();
                beside(&dir, &format!("docker://{docker}/{namespace}"), &other);
            }
            Act::Pass
        });
        let (said, _) = publisher.run(middle.address, command, code);
        assert!(code == 0 || said["code"] == "busy", "{command:?} and {meanwhile:?}: {said}");
        let repo = format!("docker://{docker}/{}", publisher.namespace);
        let verify = ["verify", &repo, "--keys", "keys", "--plain-http"];
        let verified = publisher.program.json(&verify, 0);
        assert!(code != 0 || verified["state"] == said["state"], "{command:?}: {verified} {said}");
    }
}

fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

/// Half a second for everything.
fn quick() -> Patience {
    // Long enough for a busy machine to answer within it.
    let soon = Duration::from_secs(2);
    Patience { stall: soon, commit: soon }
}

fn client(address: SocketAddr, temp: &tempfile::TempDir, patience: Patience) -> Box<dyn Registry> {
    let first = Duration::from_millis(1);
    let options = ClientOptions {
        token_file: Some(temp.path().join("tokens")),
        plain_http: true,
        backoff: Backoff { attempts: 2, first, ..Backoff::default() },
        patience,
        ..ClientOptions::default()
    };
    open(&format!("docker://{address}/r").parse().unwrap(), Access::Write, &options).unwrap()
}

fn push(registry: &dyn Registry, bytes: &[u8]) -> Descriptor {
    let mut sink = registry.begin_blob(&name("r/demo")).unwrap();
    sink.write_all(bytes).unwrap();
    let digest = sink.finish(&Progress::default()).unwrap();
    assert_eq!(digest, Digest::sha256_of(bytes));
    Descriptor::new("application/octet-stream", digest, bytes.len() as u64)
}

/// Stores a manifest of these, which is when they have to be there.
fn seal(registry: &dyn Registry, layers: Vec<Descriptor>) -> Result<(), RegistryError> {
    registry.put_blob(&name("r/demo"), &Descriptor::empty(), EMPTY_CONFIG)?;
    let manifest = Manifest::artifact("application/vnd.test", Descriptor::empty(), layers);
    let bytes = manifest.to_bytes();
    let descriptor = Descriptor::of(media_type::MANIFEST, &bytes);
    registry.put_manifest(&name("r/demo"), &descriptor, &bytes).map(drop)
}
