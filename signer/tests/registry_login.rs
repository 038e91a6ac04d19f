//! Who sees which credential, with the real program: through proxies, at Docker Hub's names (played by
//! servers behind a proxy), with helpers that fail; and what is said when something on the way is wrong.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod middle;
mod program;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use middle::{Act, Middle};
use program::{Program, write_private};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

/// A program in an environment that names no credentials and no proxies.
fn program() -> Program {
    let mut program = Program::new();
    for name in ["REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"] {
        program.set(name, "");
    }
    for name in ["https_proxy", "http_proxy", "all_proxy", "no_proxy", "ALL_PROXY", "HTTPS_PROXY"] {
        program.set(name, "");
    }
    let home = program.dir().display().to_string();
    program.set("HOME", &home);
    program
}

/// Docker's file in the program's home.
fn login(program: &Program, text: &str) -> PathBuf {
    let path = program.path(".docker/config.json");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    write_private(&path, text);
    path
}

/// `docker-credential-NAME` in the program's path.
fn helper(program: &mut Program, name: &str, script: &str) {
    let bin = program.path("bin");
    std::fs::create_dir_all(&bin).unwrap();
    let path = bin.join(format!("docker-credential-{name}"));
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    program.set("PATH", &format!("{}:/usr/bin:/bin", bin.display()));
}

/// A proxy that keeps the head of each request; it carries `CONNECT` to one server, whatever name is
/// asked for, or answers with `refusal`.
struct Recorder {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    fn start(to: SocketAddr, refusal: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&heads);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || carry(client, to, refusal, &seen));
            }
        });
        Recorder { address, heads }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn carry(mut client: TcpStream, to: SocketAddr, refusal: Option<&str>, seen: &Mutex<Vec<String>>) {
    let head = read_head(&mut client);
    seen.lock().unwrap().push(head);
    if let Some(line) = refusal {
        let _ = write!(client, "HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n");
        return;
    }
    let mut server = TcpStream::connect(to).unwrap();
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
    let mut back = (server.try_clone().unwrap(), client.try_clone().unwrap());
    std::thread::spawn(move || std::io::copy(&mut back.0, &mut back.1));
    let _ = std::io::copy(&mut client, &mut server);
    let _ = server.shutdown(std::net::Shutdown::Both);
}

fn read_head(stream: &mut impl std::io::Read) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) > 0 {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// A TLS server for these names; its CA is `ca.pem` of the program's folder. It answers each head
/// with a status line, headers and body, and keeps the heads.
fn tls_server(
    program: &Program,
    names: &[&str],
    answer: impl Fn(&str) -> String + Send + Sync + 'static,
) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(program.path("ca.pem"), issuer.pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let (config, answer) = (Arc::new(config), Arc::new(answer));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let heads = Arc::<Mutex<Vec<String>>>::default();
    let seen = Arc::clone(&heads);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (config, answer, seen) = (config.clone(), answer.clone(), seen.clone());
            std::thread::spawn(move || {
                let tls = rustls::ServerConnection::new(config).unwrap();
                let mut stream = rustls::StreamOwned::new(tls, stream);
                let head = read_head(&mut stream);
                if head.is_empty() {
                    return;
                }
                seen.lock().unwrap().push(head.clone());
                let _ = write!(stream, "HTTP/1.1 {}", answer(&head));
                stream.conn.send_close_notify();
                let _ = stream.flush();
                // Closing with unread bytes would reset the connection and lose the answer.
                let _ = stream.sock.read_to_end(&mut Vec::new());
            });
        }
    });
    (address, heads)
}

fn reply(status: &str, headers: &str, body: &str) -> String {
    let len = body.len();
    format!("{status}\r\n{headers}Content-Length: {len}\r\nConnection: close\r\n\r\n{body}")
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// A registry without repositories on loopback that wants `Basic`, or nothing.
fn registry(wants: &'static str) -> Middle {
    Middle::before("127.0.0.1:1".parse().unwrap(), move |head| match head.header("authorization") {
        None if !wants.is_empty() => Act::Answer(format!(
            "401 Who\r\nWWW-Authenticate: Negotiate, {wants}\r\nContent-Length: 0"
        )),
        _ => Act::Answer("404 No\r\nContent-Length: 0".to_owned()),
    })
}

const BASIC: &str = "Basic realm=\"x\"";

/// `signer status` at a registry on loopback; code, and all that was said.
fn status(program: &Program, registry: &Middle, more: &[&str]) -> (Option<i32>, String) {
    let repo = format!("docker://{}/r", registry.address);
    said(program, &[&["status", &repo, "--plain-http"], more].concat())
}

fn said(program: &Program, arguments: &[&str]) -> (Option<i32>, String) {
    let output = program.run(arguments);
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// The push token of a registry on this machine crosses no proxy, whatever the environment names.
#[test]
fn a_proxy_never_sees_a_loopback_registry() {
    let mut program = program();
    let recorder = Recorder::start("127.0.0.1:1".parse().unwrap(), Some("502 Bad Gateway"));
    let proxy = format!("http://{}", recorder.address);
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy"] {
        program.set(name, &proxy);
    }
    write_private(&program.path("token"), "a-secret-token");
    let registry = registry("");
    let (code, text) = status(&program, &registry, &["--token-file", "token"]);
    assert_ne!(code, Some(0), "{text}");
    assert_eq!(recorder.heads(), [""; 0], "{text}");
    let seen = registry.seen();
    assert!(!seen.is_empty(), "{text}");
    assert!(seen.iter().all(|it| it.head.header("authorization") == Some("Bearer a-secret-token")));
}

/// Docker Hub by each of its names, with the entry that `docker login` writes: asked for at
/// registry-1.docker.io, tokens at auth.docker.io, both by name through a proxy, which sees neither.
#[test]
fn docker_hub_is_found_by_each_of_its_names() {
    // alice:hub-secret
    let basic = "YWxpY2U6aHViLXNlY3JldA==";
    for (place, repository) in [
        ("docker://docker.io/acme", "acme/tuf"),
        ("docker://registry-1.docker.io/acme", "acme/tuf"),
        ("docker://index.docker.io/acme", "acme/tuf"),
        ("docker://docker.io", "library/tuf"),
    ] {
        let mut program = program();
        let names = ["registry-1.docker.io", "auth.docker.io"];
        let (server, heads) = tls_server(&program, &names, |head| {
            let realm =
                "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\"";
            match (header(head, "host"), header(head, "authorization")) {
                (Some("auth.docker.io"), _) => reply("200 OK", "", "{\"token\":\"hub-token\"}"),
                (_, Some("Bearer hub-token")) => reply("404 Not Found", "", ""),
                _ => reply("401 No", &format!("WWW-Authenticate: {realm}\r\n"), ""),
            }
        });
        let recorder = Recorder::start(server, None);
        program.set("https_proxy", &format!("http://u:p@{}", recorder.address));
        let auths =
            format!("{{\"auths\":{{\"https://index.docker.io/v1/\":{{\"auth\":\"{basic}\"}}}}}}");
        login(&program, &auths);
        let (_, text) = said(&program, &["status", place, "--ca", "ca.pem"]);
        let heads = heads.lock().unwrap().clone();
        assert!(heads.len() >= 3, "{place}: {text}\n{heads:?}");
        let tokens: Vec<_> =
            heads.iter().filter(|it| header(it, "host") == Some("auth.docker.io")).collect();
        let scope = format!("scope=repository:{repository}:pull");
        assert!(tokens[0].contains(&scope), "{place}: {}", tokens[0]);
        let wanted = format!("Basic {basic}");
        assert_eq!(header(tokens[0], "authorization"), Some(wanted.as_str()), "{place}");
        let path = format!("/v2/{repository}/manifests/latest");
        assert!(heads.iter().any(|it| it.contains(&path)), "{place}: {heads:?}");
        for head in recorder.heads() {
            let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let known = ["registry-1.docker.io:443", "auth.docker.io:443"];
            assert!(head.starts_with("CONNECT ") && known.contains(&target.as_str()), "{head}");
            assert_eq!(header(&head, "authorization"), None, "{head}");
            assert_eq!(header(&head, "proxy-authorization"), Some("Basic dTpw"), "{head}");
        }
    }
}

/// What people's files hold is of no matter until a registry asks for it.
#[test]
fn nobody_is_asked_for_credentials_that_are_not_needed() {
    let anonymous = registry("");
    for (case, text) in [
        ("a helper that is not there", "{\"credsStore\":\"nowhere\"}"),
        ("a broken file", "{\"auths\": "),
    ] {
        let program = program();
        login(&program, text);
        let (_, text) = status(&program, &anonymous, &[]);
        assert!(
            !text.contains("config.json") && text.contains("holds no repository yet"),
            "{case}: {text}"
        );
    }
    let mut program = program();
    std::fs::write(program.path("file"), "").unwrap();
    let home = program.path("file").display().to_string();
    program.set("HOME", &home);
    let (_, text) = status(&program, &registry(BASIC), &[]);
    assert!(text.contains("401") && text.contains("no credentials for 127.0.0.1"), "{text}");
    // One that was named must be there, asked for or not.
    program.set("REGISTRY_AUTH_FILE", "nowhere.json");
    let (code, text) = status(&program, &anonymous, &[]);
    assert!(code == Some(23) && text.contains("nowhere.json"), "{text}");
}

/// Helpers that fail say why, and what they tell people is seen; one without a credential is none.
#[test]
fn helpers_say_what_is_wrong() {
    let asking = registry(BASIC);
    for (case, script, code, wanted) in [
        (
            "a reason",
            "echo 'enter your PIN' >&2; echo 'gpg: No secret key'; exit 1",
            23,
            "docker-credential-tests: gpg: No secret key",
        ),
        ("prose", "echo warning: old version; echo '{}'", 23, "not what credential helpers say"),
        (
            "anonymous",
            "echo '{\"ServerURL\":\"x\",\"Username\":\"\",\"Secret\":\"\"}'",
            14,
            "no credentials for",
        ),
        (
            "nothing",
            "echo credentials not found in native keychain; exit 1",
            14,
            "no credentials for",
        ),
    ] {
        let mut program = program();
        login(&program, "{\"credsStore\":\"tests\"}");
        helper(&mut program, "tests", script);
        let (found, text) = status(&program, &asking, &[]);
        assert!(found == Some(code) && text.contains(wanted), "{case}: {found:?} {text}");
        assert_eq!(text.contains("enter your PIN"), case == "a reason", "{text}");
    }
    let sent = asking.seen();
    assert!(sent.iter().all(|it| it.head.header("authorization").is_none()), "{sent:?}");
}

/// A refused login names the file it is from, or those where none was.
#[test]
fn a_refused_login_names_its_file() {
    let refusing = Middle::before("127.0.0.1:1".parse().unwrap(), |_| {
        Act::Answer(format!("401 No\r\nWWW-Authenticate: {BASIC}\r\nContent-Length: 0"))
    });
    let program = program();
    let (code, text) = status(&program, &refusing, &[]);
    let host = refusing.address.to_string();
    assert!(code == Some(14) && text.contains(&format!("`docker login {host}`")), "{text}");
    assert!(text.contains(".docker/config.json"), "{text}");
    let entry = "{\"username\":\"alice\",\"password\":\"wrong-secret\"}";
    let file = login(&program, &format!("{{\"auths\":{{\"{host}\":{entry}}}}}"));
    let (code, text) = status(&program, &refusing, &[]);
    let from = file.display().to_string();
    assert!(code == Some(14) && text.contains(&from) && text.contains("alice"), "{text}");
    assert!(!text.contains("wrong-secret"), "{text}");
    write_private(&program.path("token"), "wrong-token");
    let (_, text) = status(&program, &refusing, &["--token-file", "token"]);
    assert!(text.contains("the token from token"), "{text}");
}

/// What is wrong on the way is named, with the one option that helps.
#[test]
fn trouble_on_the_way_names_who_made_it() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gateway = Recorder::start(nobody, Some("502 Bad Gateway"));
    for proxy in [nobody, gateway.address] {
        let mut program = program();
        program.set("https_proxy", &format!("http://user:hidden@{proxy}"));
        let (code, text) = said(&program, &["status", "docker://registry.test/r"]);
        assert!(code == Some(14) && text.contains(&format!("the proxy http://{proxy}")), "{text}");
        assert!(text.contains("no_proxy") && !text.contains("hidden"), "{text}");
    }
    // A token server under another name of this machine.
    let realm = "Bearer realm=\"http://localhost:1/token\"";
    let program = program();
    let (code, text) = status(&program, &registry(realm), &[]);
    assert!(code == Some(14) && text.contains("--token-host localhost"), "{text}");
    // A proxy before the registry that forgets TLS, and one that forgets the port.
    let (server, _) = tls_server(&program, &["127.0.0.1"], |head| match head.split(' ').next() {
        Some("POST") => reply("202 Accepted", "Location: http://127.0.0.1/v2/u/1\r\n", ""),
        _ => reply("404 Not Found", "", ""),
    });
    let repo = format!("docker://{server}/r");
    let init = ["init", "--repo", &repo, "--keys", "keys", "--ca", "ca.pem"];
    let (code, text) = said(&program, &init);
    assert_eq!(code, Some(14), "{text}");
    for part in ["http://127.0.0.1/v2/u/1", "plain HTTP", "X-Forwarded-Proto", "redirect_refused"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let plain = Middle::before(nobody, |head| match head.method.as_str() {
        "POST" => Act::Answer(
            "202 Accepted\r\nLocation: http://127.0.0.1/v2/u/1\r\nContent-Length: 0".to_owned(),
        ),
        _ => Act::Answer("404 No\r\nContent-Length: 0".to_owned()),
    });
    let repo = format!("docker://{}/r", plain.address);
    let (_, text) = said(&program, &["init", "--repo", &repo, "--keys", "other", "--plain-http"]);
    let ours = format!("which is not http://{}", plain.address);
    assert!(text.contains(&ours) && text.contains("Host"), "{text}");
    // A registry that takes no such manifests.
    let strict = Middle::before(nobody, |head| match (head.method.as_str(), &head.target) {
        ("PUT", target) if target.contains("/manifests/") => {
            let body = "{\"errors\":[{\"code\":\"MANIFEST_INVALID\",\"message\":\"type\"}]}";
            Act::Answer(format!("400 No\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
        }
        ("POST", _) => {
            Act::Answer("202 Accepted\r\nLocation: /v2/u/1\r\nContent-Length: 0".to_owned())
        }
        ("PUT", _) => Act::Answer("201 Created\r\nContent-Length: 0".to_owned()),
        _ => Act::Answer("404 No\r\nContent-Length: 0".to_owned()),
    });
    let repo = format!("docker://{}/r", strict.address);
    let (_, text) = said(&program, &["init", "--repo", &repo, "--keys", "third", "--plain-http"]);
    assert!(text.contains("refuses this type of manifest"), "{text}");
}

/// Certificates lie where docker and podman look for them.
#[test]
fn certificates_of_a_registry_lie_in_certs_d() {
    let program = program();
    let (server, heads) = tls_server(&program, &["127.0.0.1"], |_| reply("404 Not Found", "", ""));
    let repo = format!("docker://{server}/r");
    let (_, text) = said(&program, &["status", &repo]);
    assert!(text.contains("--ca") && heads.lock().unwrap().is_empty(), "{text}");
    let place = program.path(".config/containers/certs.d").join(server.to_string());
    std::fs::create_dir_all(&place).unwrap();
    std::fs::rename(program.path("ca.pem"), place.join("ca.crt")).unwrap();
    let (_, text) = said(&program, &["status", &repo]);
    assert!(
        text.contains("holds no repository yet") && !heads.lock().unwrap().is_empty(),
        "{text}"
    );
    std::fs::write(place.join("client.cert"), "").unwrap();
    let (code, text) = said(&program, &["status", &repo]);
    assert!(code == Some(23) && text.contains("client.cert needs client.key"), "{text}");
}
