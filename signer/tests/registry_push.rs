//! Pushing to registries as they are: lines that break, servers that are busy or forget, tokens,
//! credentials from people's files, lists of referrers that nobody else keeps.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;
mod docker;
mod middle;
mod program;

use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::noise;
use docker::DockerRegistry;
use formats::digest::Digest;
use formats::oci::{Descriptor, EMPTY_CONFIG, Manifest, RepositoryName, media_type};
use formats::reason::Reason;
use middle::{Act, Head, Middle};
use program::{Program, write_private};
use repo_server::{Config, Running};
use signer::progress::Progress;
use signer::repository::{
    Access, Backoff, ClientOptions, Registry, RegistryError, attach, attached, open,
};

const TOKEN: &str = "a-token-that-is-long-enough";
const MIB: u64 = 1 << 20;

fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

/// Our own server, which anybody with the token may push to.
fn server(temp: &tempfile::TempDir) -> Running {
    write_private(&temp.path().join("tokens"), TOKEN);
    let mut config = Config::new(temp.path().join("served"));
    config.push_tokens = Some(temp.path().join("tokens"));
    repo_server::start(config).unwrap()
}

/// Pauses of a few milliseconds.
fn soon() -> Backoff {
    let first = Duration::from_millis(5);
    Backoff { first, chance: || 0, ..Backoff::default() }
}

fn client(address: SocketAddr, temp: &tempfile::TempDir) -> Box<dyn Registry> {
    let options = ClientOptions {
        token_file: Some(temp.path().join("tokens")),
        plain_http: true,
        backoff: soon(),
        ..ClientOptions::default()
    };
    let reference = format!("docker://{address}/r").parse().unwrap();
    open(&reference, Access::Write, &options).unwrap()
}

/// Gives a blob to the client, and the descriptor to look for it with.
fn push(registry: &dyn Registry, repository: &str, bytes: &[u8]) -> Descriptor {
    let mut sink = registry.begin_blob(&name(repository)).unwrap();
    sink.write_all(bytes).unwrap();
    let digest = sink.finish(&Progress::default()).unwrap();
    assert_eq!(digest, Digest::sha256_of(bytes));
    Descriptor::new("application/octet-stream", digest, bytes.len() as u64)
}

/// Stores a manifest of these, which is when they have to be there.
fn seal(
    registry: &dyn Registry,
    repository: &str,
    layers: Vec<Descriptor>,
) -> Result<Manifest, RegistryError> {
    registry.put_blob(&name(repository), &Descriptor::empty(), EMPTY_CONFIG)?;
    let manifest = Manifest::artifact("application/vnd.test", Descriptor::empty(), layers);
    let bytes = manifest.to_bytes();
    let descriptor = Descriptor::of(media_type::MANIFEST, &bytes);
    registry.put_manifest(&name(repository), &descriptor, &bytes)?;
    Ok(manifest)
}

#[track_caller]
fn expect_there(registry: &dyn Registry, repository: &str, blob: &Descriptor) {
    let mut reader = registry.open_blob(&name(repository), blob).unwrap();
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    assert_eq!(Digest::sha256_of(&bytes), blob.digest);
}

/// A line that breaks twice: what arrived is not sent again.
#[test]
fn a_cut_upload_goes_on_where_it_was() {
    let temp = tempfile::tempdir().unwrap();
    let server = server(&temp);
    let cuts = AtomicUsize::new(0);
    let middle = Middle::before(server.local_addr(), move |head| {
        let carries = head.header("content-length").and_then(|it| it.parse().ok()).unwrap_or(0);
        if carries < 10 * MIB {
            return Act::Pass;
        }
        match cuts.fetch_add(1, Ordering::SeqCst) {
            0 => Act::Cut(20 * MIB),
            1 => Act::Cut(3 * MIB),
            _ => Act::Pass,
        }
    });
    let registry = client(middle.address, &temp);
    let bytes = noise(40 << 20, 1);
    let blob = push(registry.as_ref(), "r/demo", &bytes);
    seal(registry.as_ref(), "r/demo", vec![blob.clone()]).unwrap();
    expect_there(registry.as_ref(), "r/demo", &blob);
    let (put, patched) = (middle.sent("PUT").0, middle.sent("PATCH"));
    let again = (put + patched.0).saturating_sub(40 * MIB);
    println!("40 MiB, cut at 20 and 23: {again} bytes sent again, {} chunks", patched.1);
    // Each cut costs what the sockets held, up to 4 MiB on a busy machine; beginning anew costs 23.
    assert!(again < 8 * MIB, "{again} bytes were sent again");
    assert!(patched.1 >= 2, "{patched:?}");
}

/// A server that knows nothing of the upload any more: begun anew. An answer that is lost: the
/// blob is there, and nothing is sent again.
#[test]
fn forgotten_uploads_and_lost_answers() {
    for (case, most) in [("forgotten", 2 * 5 * MIB), ("lost", 5 * MIB)] {
        let temp = tempfile::tempdir().unwrap();
        let server = server(&temp);
        let cuts = AtomicUsize::new(0);
        let middle = Middle::before(server.local_addr(), move |head| {
            let upload = head.target.contains("/blobs/uploads/");
            let large = head.header("content-length").is_some_and(|it| it.len() > 6);
            match (case, head.method.as_str()) {
                ("forgotten", "GET") if upload => Act::Answer("404 No".to_owned()),
                (_, "PUT") if large && cuts.fetch_add(1, Ordering::SeqCst) == 0 => match case {
                    "lost" => Act::Swallow,
                    _ => Act::Cut(MIB),
                },
                _ => Act::Pass,
            }
        });
        let registry = client(middle.address, &temp);
        let blob = push(registry.as_ref(), "r/demo", &noise(5 << 20, 2));
        seal(registry.as_ref(), "r/demo", vec![blob.clone()]).unwrap();
        expect_there(registry.as_ref(), "r/demo", &blob);
        let sent = middle.sent("PUT").0 + middle.sent("PATCH").0;
        assert!(sent < most + MIB / 2, "{case}: {sent} bytes");
    }
}

/// 429 and 503 are waited for as asked, other refusals are not, and patience ends.
#[test]
fn busy_registries() {
    let temp = tempfile::tempdir().unwrap();
    let server = server(&temp);
    let left = Arc::new(AtomicUsize::new(2));
    let count = Arc::clone(&left);
    let middle = Middle::before(server.local_addr(), move |head| {
        let busy =
            |_| Act::Answer("429 Slow down\r\nRetry-After: 1\r\nContent-Length: 0".to_owned());
        let spend = |n: usize| n.checked_sub(1);
        match head.target.contains("/manifests/") && head.method == "PUT" {
            true => count
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, spend)
                .map_or(Act::Pass, busy),
            false => Act::Pass,
        }
    });
    let registry = client(middle.address, &temp);
    let begun = Instant::now();
    seal(registry.as_ref(), "r/demo", vec![]).unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(2), "it did not wait as asked");
    for (answer, wanted) in [("503 Down", 6), ("403 No", 1)] {
        let answer = format!("{answer}\r\nContent-Length: 0");
        let middle = Middle::before(server.local_addr(), move |_| Act::Answer(answer.clone()));
        let registry = client(middle.address, &temp);
        let error = registry.tagged(&name("r/demo"), &"x".parse().unwrap()).unwrap_err();
        assert_eq!(error.reason(), Reason::HttpStatus, "{error}");
        assert_eq!(middle.seen().len(), wanted, "{error}");
    }
}

/// What another repository of the registry has is not sent once more.
#[test]
fn blobs_of_other_repositories_are_mounted() {
    let temp = tempfile::tempdir().unwrap();
    let server = server(&temp);
    let middle = Middle::before(server.local_addr(), |_| Act::Pass);
    let registry = client(middle.address, &temp);
    let bytes = noise(3 << 20, 3);
    push(registry.as_ref(), "r/one", &bytes);
    seal(registry.as_ref(), "r/one", vec![]).unwrap();
    let before = middle.sent("PUT").0;
    registry.may_mount_from(&[name("r/none"), name("r/two"), name("r/one")]);
    let blob = push(registry.as_ref(), "r/two", &bytes);
    seal(registry.as_ref(), "r/two", vec![blob.clone()]).unwrap();
    expect_there(registry.as_ref(), "r/two", &blob);
    let sent = middle.sent("PUT").0 - before;
    assert!(sent < 4096, "{sent} bytes for a blob that is there");
    let mounts = middle.seen();
    let mounts: Vec<_> = mounts.iter().filter(|it| it.head.target.contains("mount=")).collect();
    assert_eq!(mounts.len(), 1);
    assert!(mounts[0].head.target.contains("from=r%2Fone"), "{}", mounts[0].head.target);
}

/// Several at once, never more than four.
#[test]
fn uploads_side_by_side() {
    let temp = tempfile::tempdir().unwrap();
    let server = server(&temp);
    let now = Arc::new(Mutex::new((0_i32, 0_i32)));
    let counted = Arc::clone(&now);
    let middle = Middle::before(server.local_addr(), move |head| {
        if head.method == "PUT" && head.target.contains("/blobs/") {
            let mut now = counted.lock().unwrap();
            now.0 += 1;
            now.1 = now.1.max(now.0);
            drop(now);
            std::thread::sleep(Duration::from_millis(50));
            counted.lock().unwrap().0 -= 1;
        }
        Act::Pass
    });
    let registry = client(middle.address, &temp);
    let blobs: Vec<_> =
        (10..26).map(|seed| push(registry.as_ref(), "r/demo", &noise(1000, seed))).collect();
    seal(registry.as_ref(), "r/demo", blobs.clone()).unwrap();
    for blob in &blobs {
        expect_there(registry.as_ref(), "r/demo", blob);
    }
    let most = now.lock().unwrap().1;
    assert!((2..=4).contains(&most), "{most} at once");
}

/// A blob that does not get there is an error of the manifest that needs it.
#[test]
fn a_failed_upload_is_not_forgotten() {
    let temp = tempfile::tempdir().unwrap();
    let server = server(&temp);
    let middle = Middle::before(server.local_addr(), |head| match head.method.as_str() {
        "PUT" if head.target.contains("/blobs/") => {
            Act::Answer("413 Too large\r\nContent-Length: 0".to_owned())
        }
        _ => Act::Pass,
    });
    let registry = client(middle.address, &temp);
    let blob = push(registry.as_ref(), "r/demo", b"bytes");
    let error = seal(registry.as_ref(), "r/demo", vec![blob.clone()]).unwrap_err();
    assert!(error.to_string().contains("push blob"), "{error}");
    let manifests =
        middle.seen().iter().filter(|it| it.head.target.contains("/manifests/")).count();
    assert_eq!(manifests, 0, "a manifest went up without its blob");
}

/// Gives tokens to who knows the password, and writes down what it was asked.
fn token_server(uses: usize) -> (SocketAddr, Arc<Mutex<Vec<Head>>>, Arc<AtomicUsize>) {
    let asked = Arc::<Mutex<Vec<Head>>>::default();
    let left = Arc::new(AtomicUsize::new(0));
    let (log, fill) = (Arc::clone(&asked), Arc::clone(&left));
    let nobody = "127.0.0.1:1".parse().unwrap();
    let middle = Middle::before(nobody, move |head| {
        log.lock().unwrap().push(head.clone());
        // alice:secret
        if head.header("authorization") != Some("Basic YWxpY2U6c2VjcmV0") {
            return Act::Answer("401 No\r\nContent-Length: 0".to_owned());
        }
        fill.store(uses, Ordering::SeqCst);
        let body = format!("{{\"token\":\"{TOKEN}\"}}");
        Act::Answer(format!("200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
    });
    let address = middle.address;
    std::mem::forget(middle);
    (address, asked, left)
}

/// Before a server: who has no good token is sent to `realm`.
fn demanding(to: SocketAddr, realm: String, left: Arc<AtomicUsize>) -> Middle {
    Middle::before(to, move |head| {
        let there = head.header("authorization").is_some();
        let good = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if there && good.is_ok() {
            return Act::Pass;
        }
        let challenge = format!("Bearer realm=\"{realm}\",service=\"tests\",scope=\"x\"");
        Act::Answer(format!("401 Who\r\nWWW-Authenticate: {challenge}\r\nContent-Length: 0"))
    })
}

fn auth_file(program: &Program, host: &str, entry: &str) -> String {
    let path = program.path("auth.json");
    write_private(&path, &format!("{{\"auths\":{{\"{host}\":{entry}}}}}"));
    path.display().to_string()
}

/// Tokens by challenge: got with the password for what is needed, and again when they run out.
#[test]
fn tokens_are_fetched_and_renewed() {
    let temp = tempfile::tempdir().unwrap();
    let server = server(&temp);
    // More uses than requests at a time, or one that has just renewed it finds it used up by others.
    let (realm, asked, left) = token_server(5);
    let middle = demanding(server.local_addr(), format!("http://{realm}/token"), left);
    let mut program = Program::new();
    let host = middle.address.to_string();
    let file = auth_file(&program, &host, "{\"username\":\"alice\",\"password\":\"secret\"}");
    program.set("REGISTRY_AUTH_FILE", &file);
    let repo = format!("docker://{host}/r");
    let init = ["init", "--repo", &repo, "--keys", "keys", "--plain-http"];
    // Another port of this machine is another server: it has to be named.
    program.json(&[&init[..], &["--token-host", "127.0.0.1"]].concat(), 0);
    let asked = asked.lock().unwrap();
    assert!(asked.len() > 2, "tokens were not renewed");
    let pushes = asked.iter().any(|head| {
        head.target.contains("service=tests")
            && head.target.contains("scope=repository:r/tuf:pull,push")
    });
    assert!(pushes, "{:?}", asked.iter().map(|it| &it.target).collect::<Vec<_>>());
}

/// 100: a realm that is somebody else's gets no credentials.
#[test]
fn realms_of_others_get_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let server = server(&temp);
    for realm in ["http://192.0.2.1/token", "https://evil.example/token", "file:///etc/passwd"] {
        let middle = demanding(server.local_addr(), realm.to_owned(), Arc::default());
        let mut program = Program::new();
        let host = middle.address.to_string();
        // alice:secret
        let file = auth_file(&program, &host, "{\"auth\":\"YWxpY2U6c2VjcmV0\"}");
        program.set("REGISTRY_AUTH_FILE", &file);
        let repo = format!("docker://{host}/r");
        let said = program.json(&["status", &repo, "--plain-http"], 14);
        let said = said.to_string();
        assert!(said.contains("names the token server") && !said.contains("secret"), "{said}");
    }
}

/// Every place that people's credentials are in, against a registry with users; wrong ones fail,
/// and no secret is ever shown.
#[test]
fn credentials_from_peoples_files() {
    let temp = tempfile::tempdir().unwrap();
    let registry = DockerRegistry::start(&temp, true);
    let host = registry.address.to_string();
    let good = "{\"username\":\"alice\",\"password\":\"the-password\"}";
    let wrong = "{\"username\":\"alice\",\"password\":\"a-wrong-secret\"}";
    let auths = |entry: &str| format!("{{\"auths\":{{\"{host}\":{entry}}}}}");
    let helped =
        format!("{{\"credHelpers\":{{\"{host}\":\"tests\"}},\"auths\":{{\"{host}\":{{}}}}}}");
    let cases: Vec<(&str, &str, &str, String, i32)> = vec![
        ("named", "REGISTRY_AUTH_FILE", "auth.json", auths(good), 0),
        ("docker's", "DOCKER_CONFIG", "config.json", auths(good), 0),
        ("podman's", "XDG_RUNTIME_DIR", "containers/auth.json", auths(good), 0),
        ("home", "HOME", ".docker/config.json", auths(good), 0),
        ("helper", "DOCKER_CONFIG", "config.json", helped, 0),
        ("store", "DOCKER_CONFIG", "config.json", "{\"credsStore\":\"tests\"}".to_owned(), 0),
        ("wrong", "DOCKER_CONFIG", "config.json", auths(wrong), 14),
        ("broken", "DOCKER_CONFIG", "config.json", "{\"auths\": a-wrong-secret".to_owned(), 23),
        (
            "helper that is not there",
            "DOCKER_CONFIG",
            "config.json",
            "{\"credsStore\":\"x\"}".to_owned(),
            23,
        ),
    ];
    for (nth, (case, variable, file, text, code)) in cases.into_iter().enumerate() {
        let mut program = Program::new();
        for name in
            ["REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_RUNTIME_DIR", "HOME", "XDG_CONFIG_HOME"]
        {
            program.set(name, "");
        }
        let path = program.path("place").join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_private(&path, &text);
        let value = if variable == "REGISTRY_AUTH_FILE" { path } else { program.path("place") };
        program.set(variable, value.to_str().unwrap());
        // What the helper is asked, and that nothing but "get" is in its arguments.
        let bin = program.path("bin");
        std::fs::create_dir(&bin).unwrap();
        let script = format!(
            "#!/bin/sh\n[ \"$*\" = get ] || exit 9\nread server\n[ \"$server\" = {host} ] || {{ \
             echo credentials not found in native keychain; exit 1; }}\n\
             echo '{{\"ServerURL\":\"x\",\"Username\":\"alice\",\"Secret\":\"the-password\"}}'\n"
        );
        let helper = bin.join("docker-credential-tests");
        std::fs::write(&helper, script).unwrap();
        std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
        program.set("PATH", &format!("{}:/usr/bin:/bin", bin.display()));
        let repo = format!("docker://{host}/case{nth}");
        let arguments = ["init", "--repo", &repo, "--keys", "keys", "--plain-http", "--json"];
        let output = program.run(&arguments[..6]);
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert_eq!(output.status.code(), Some(code), "{case}: {said}");
        for secret in ["the-password", "a-wrong-secret"] {
            assert!(!said.contains(secret), "{case}: {said}");
        }
    }
    // Readable by everybody: refused before it is used.
    let mut program = Program::new();
    let path = auth_file(&program, &host, good);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    program.set("REGISTRY_AUTH_FILE", &path);
    let repo = format!("docker://{host}/open");
    let said = program.json(&["status", &repo, "--plain-http"], 23);
    assert_eq!(said["code"], "insecure_perms", "{said}");
}

/// A registry without the referrers API: the list is kept under its tag, by everybody who attaches.
#[test]
fn referrers_of_a_registry_that_lists_none() {
    let temp = tempfile::tempdir().unwrap();
    write_private(&temp.path().join("tokens"), TOKEN);
    let docker = DockerRegistry::start(&temp, false);
    let ours = server(&temp);
    for (address, listed) in [(docker.address, false), (ours.local_addr(), true)] {
        let registry = client(address, &temp);
        let repository = name("r/demo");
        let subject = seal(registry.as_ref(), "r/demo", vec![]).unwrap().to_bytes();
        let subject = Descriptor::of(media_type::MANIFEST, &subject);
        assert_eq!(attached(registry.as_ref(), &repository, &subject.digest).unwrap(), []);
        let attach_one = |text: &str| {
            let layer = push(registry.as_ref(), "r/demo", text.as_bytes());
            let mut manifest =
                Manifest::artifact("application/spdx+json", Descriptor::empty(), vec![layer]);
            manifest.subject = Some(subject.clone());
            attach(registry.as_ref(), &repository, &manifest).unwrap().digest
        };
        let mut wanted = vec![attach_one("one"), attach_one("two"), attach_one("three")];
        // Once more changes nothing.
        attach_one("two");
        wanted.sort();
        let found = attached(registry.as_ref(), &repository, &subject.digest).unwrap();
        let digests: Vec<_> = found.iter().map(|it| it.digest.clone()).collect();
        assert_eq!(digests, wanted);
        assert!(
            found.iter().all(|it| it.artifact_type.as_deref() == Some("application/spdx+json"))
        );
        let tag = format!("sha256-{}", subject.digest.hex()).parse().unwrap();
        let kept = registry.tagged(&repository, &tag).unwrap();
        assert_eq!(kept.is_none(), listed, "a list beside the registry's own");
    }
}

/// Several who attach at once to a registry that has no conditional put: every list is whole, and
/// whoever attaches once more is listed.
#[test]
fn lists_stay_whole_when_several_attach() {
    let temp = tempfile::tempdir().unwrap();
    write_private(&temp.path().join("tokens"), TOKEN);
    let docker = DockerRegistry::start(&temp, false);
    let registry = client(docker.address, &temp);
    let subject = seal(registry.as_ref(), "r/demo", vec![]).unwrap().to_bytes();
    let subject = Descriptor::of(media_type::MANIFEST, &subject);
    std::thread::scope(|scope| {
        for writer in 0..3 {
            let (subject, temp, address) = (&subject, &temp, docker.address);
            scope.spawn(move || {
                let registry = client(address, temp);
                for nth in 0..4 {
                    let text = format!("{writer} {nth}");
                    let layer = push(registry.as_ref(), "r/demo", text.as_bytes());
                    let mut manifest =
                        Manifest::artifact("application/x", Descriptor::empty(), vec![layer]);
                    manifest.subject = Some(subject.clone());
                    attach(registry.as_ref(), &name("r/demo"), &manifest).unwrap();
                }
            });
        }
    });
    let found = attached(registry.as_ref(), &name("r/demo"), &subject.digest).unwrap();
    println!("{} of 12 entries of writers at once", found.len());
    assert!(found.len() >= 4, "{} entries", found.len());
    for nth in 0..12 {
        let text = format!("{} {}", nth / 4, nth % 4);
        let layer = push(registry.as_ref(), "r/demo", text.as_bytes());
        let mut manifest = Manifest::artifact("application/x", Descriptor::empty(), vec![layer]);
        manifest.subject = Some(subject.clone());
        attach(registry.as_ref(), &name("r/demo"), &manifest).unwrap();
    }
    let found = attached(registry.as_ref(), &name("r/demo"), &subject.digest).unwrap();
    assert_eq!(found.len(), 12);
}

/// The same lines against somebody else's registry, which wants no more of an upload that was cut in
/// the middle of a request: each cut costs what was sent of that upload, and the blob gets there.
#[test]
fn a_cut_upload_to_docker_registry() {
    let temp = tempfile::tempdir().unwrap();
    write_private(&temp.path().join("tokens"), TOKEN);
    let docker = DockerRegistry::start(&temp, false);
    let cuts = AtomicUsize::new(0);
    let middle = Middle::before(docker.address, move |head| {
        let carries = head.header("content-length").and_then(|it| it.parse().ok()).unwrap_or(0);
        if carries < 10 * MIB {
            return Act::Pass;
        }
        match cuts.fetch_add(1, Ordering::SeqCst) {
            0 => Act::Cut(20 * MIB),
            2 => Act::Cut(3 * MIB),
            _ => Act::Pass,
        }
    });
    let registry = client(middle.address, &temp);
    let bytes = noise(50 << 20, 5);
    let blob = push(registry.as_ref(), "r/demo", &bytes);
    seal(registry.as_ref(), "r/demo", vec![blob.clone()]).unwrap();
    expect_there(registry.as_ref(), "r/demo", &blob);
    let sent = middle.sent("PUT").0 + middle.sent("PATCH").0;
    let again = sent.saturating_sub(50 * MIB);
    println!("docker-registry, 50 MiB, cut twice: {again} bytes sent again");
    assert!(again < 45 * MIB, "{again} bytes were sent again");
}
