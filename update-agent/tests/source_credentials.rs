//! Redirects, tokens and TLS: who is followed and who is shown what (cases 92, 100, 101).

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod source_server;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use formats::digest::Digest;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use source_server::{Reply, Seen, Server, Step, code, descriptor, noise, quick, state};
use update_agent::health::{self, HealthReport, Surroundings};
use update_agent::source::{Source, SourceConfig, open};

const MAX: u64 = 1 << 20;

/// A folder with a token file and a CA.
struct Secrets {
    dir: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Secrets {
    fn new(token: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let secrets = Secrets { dir, issuer };
        fs::write(secrets.ca(), secrets.issuer.pem()).unwrap();
        fs::write(secrets.token(), token).unwrap();
        fs::set_permissions(secrets.token(), fs::Permissions::from_mode(0o600)).unwrap();
        secrets
    }

    fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    fn token(&self) -> PathBuf {
        self.dir.path().join("token")
    }

    /// A server's TLS configuration for `name`.
    fn tls(&self, name: &str, alpn: &[&[u8]]) -> Arc<rustls::ServerConfig> {
        self.tls_of(&[name], alpn)
    }

    /// The same for several names.
    fn tls_of(&self, names: &[&str], alpn: &[&[u8]]) -> Arc<rustls::ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let chain = vec![CertificateDer::from(certificate.der().to_vec())];
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    }

    fn https(&self, server: &Server) -> SourceConfig {
        SourceConfig { ca: Some(self.ca()), plain_http: false, ..server.config() }
    }
}

fn source(config: &SourceConfig) -> Box<dyn Source> {
    open(config, quick()).unwrap()
}

fn with_token(server: &Server, secrets: &Secrets) -> Box<dyn Source> {
    source(&SourceConfig { token_file: Some(secrets.token()), ..server.config() })
}

#[test]
fn case_92_a_redirect_is_followed_without_the_credential() {
    let blob = noise(1000);
    let served = blob.clone();
    let storage = Server::start(move |seen| Reply::blob(seen, &served));
    let location = storage.url("/bucket/object?signature=x");
    let registry = Server::start(move |_| Reply::redirect(&location));
    let source = with_token(&registry, &Secrets::new("user:secret"));
    assert_eq!(source.blob("demo", &descriptor(&blob), MAX).unwrap(), blob);
    let [asked] = &registry.seen()[..] else { panic!("one request") };
    assert_eq!(asked.header("authorization"), Some("Basic dXNlcjpzZWNyZXQ="));
    let [moved] = &storage.seen()[..] else { panic!("one request") };
    assert_eq!(moved.header("authorization"), None, "another port is another origin");
    assert_eq!(moved.path, "/bucket/object?signature=x");
}

#[test]
fn case_92_a_redirect_on_the_same_origin_keeps_the_credential() {
    let blob = noise(1000);
    let served = blob.clone();
    let registry = Server::start(move |seen| match seen.path.as_str() {
        "/moved" => Reply::blob(seen, &served),
        _ => Reply::redirect("/moved"),
    });
    let source = with_token(&registry, &Secrets::new("secret-token"));
    assert_eq!(source.blob("demo", &descriptor(&blob), MAX).unwrap(), blob);
    let sent: Vec<_> =
        registry.seen().iter().map(|s| s.header("authorization").map(str::to_owned)).collect();
    assert_eq!(sent, vec![Some("Bearer secret-token".to_owned()); 2]);
    assert!(registry.seen().iter().all(|seen| seen.connection == 0), "the connection is kept");
}

#[test]
fn case_92_a_cut_redirected_download_is_resumed_through_the_registry() {
    let blob = noise(1000);
    let served = blob.clone();
    let storage = Server::start(move |seen| match seen.nth {
        0 => Reply::blob(seen, &served).cut(400),
        _ => Reply::blob(seen, &served),
    });
    let location = storage.url("/object");
    let registry = Server::start(move |_| Reply::redirect(&location));
    assert_eq!(registry.source().blob("demo", &descriptor(&blob), MAX).unwrap(), blob);
    assert_eq!(storage.seen()[1].range(), Some((400, 999)));
    assert_eq!(registry.seen().len(), 2, "signed locations expire: they are asked for anew");
}

#[test]
fn case_92_loops_chains_and_other_schemes_are_refused() {
    let looping = Server::start(|seen| match seen.path.as_str() {
        "/a" => Reply::redirect("/b"),
        _ => Reply::redirect("/a"),
    });
    assert_eq!(code(looping.source().tuf_state(None)), "redirect_refused");
    assert_eq!(looping.seen().len(), 3);

    let chain = Server::start(|seen| Reply::redirect(&format!("/hop{}", seen.nth)));
    assert_eq!(code(chain.source().tuf_state(None)), "redirect_refused");
    assert_eq!(chain.seen().len(), 6, "the first request and five redirects");

    for location in [
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "http://user:pw@127.0.0.1/",
        "gopher://x",
        "http://",
    ] {
        let server = Server::start(move |_| Reply::redirect(location));
        assert_eq!(code(server.source().tuf_state(None)), "redirect_refused", "{location}");
    }
    let nowhere = Server::start(|_| Reply::status("302 Found"));
    assert_eq!(code(nowhere.source().tuf_state(None)), "http_status");
}

#[test]
fn case_92_a_redirect_never_leaves_tls() {
    let secrets = Secrets::new("x");
    let plain = Server::start(|_| Reply::ok(b"{}"));
    let location = plain.url("/object");
    let registry =
        Server::start_tls(secrets.tls("127.0.0.1", &[]), move |_| Reply::redirect(&location));
    let source = source(&secrets.https(&registry));
    assert_eq!(code(source.blob("demo", &descriptor(b"{}"), MAX)), "redirect_refused");
    assert!(plain.seen().is_empty());
}

/// A registry that wants a token for the repository `ns/demo`, and its own token server.
fn guarded(seen: &Seen, realm: &str, blob: &[u8]) -> Reply {
    if seen.path.starts_with("/token") {
        return Reply::ok(br#"{"token":"short-lived"}"#);
    }
    match seen.header("authorization") {
        Some("Bearer short-lived") => Reply::blob(seen, blob),
        _ => {
            let challenge =
                format!("WWW-Authenticate: Bearer realm=\"{realm}\",service=\"reg\"\r\n");
            Reply::with("401 Unauthorized", &challenge, b"{\"errors\":[]}")
        }
    }
}

#[test]
fn case_100_a_token_is_asked_for_at_the_same_origin_and_kept() {
    let blob = noise(1000);
    let served = blob.clone();
    let registry = Server::start(move |seen| {
        let host = seen.header("host").unwrap();
        guarded(seen, &format!("http://{host}/token"), &served)
    });
    let source = with_token(&registry, &Secrets::new("user:secret"));
    for _ in 0..2 {
        assert_eq!(source.blob("demo", &descriptor(&blob), MAX).unwrap(), blob);
    }
    let seen = registry.seen();
    let paths: Vec<&str> = seen.iter().map(|seen| seen.path.as_str()).collect();
    let path = source_server::digest_path(&blob);
    let token = "/token?service=reg&scope=repository:ns/demo:pull";
    assert_eq!(paths, [path.as_str(), token, &path, &path]);
    assert_eq!(seen[1].header("authorization"), Some("Basic dXNlcjpzZWNyZXQ="));
    assert_eq!(seen[3].header("authorization"), Some("Bearer short-lived"));
}

#[test]
fn case_100_a_foreign_realm_gets_nothing() {
    let evil = Server::start(|_| Reply::ok(br#"{"token":"x"}"#));
    let realm = evil.url("/token");
    let registry = Server::start(move |seen| guarded(seen, &realm, b""));
    let secrets = Secrets::new("user:secret");
    let blob = descriptor(b"x");
    assert_eq!(code(with_token(&registry, &secrets).blob("demo", &blob, MAX)), "redirect_refused");
    assert_eq!(code(registry.source().blob("demo", &blob, MAX)), "redirect_refused", "without TLS");
    assert!(evil.seen().is_empty());
}

#[test]
fn case_101_a_token_that_expires_in_mid_blob_is_renewed() {
    let blob = noise(100_000);
    let served = blob.clone();
    let registry = Server::start(move |seen| {
        let host = seen.header("host").unwrap();
        let realm = format!("http://{host}/token");
        match (seen.path.starts_with("/token"), seen.range(), seen.header("authorization")) {
            (true, ..) => Reply::ok(format!(r#"{{"token":"t{}"}}"#, seen.nth).as_bytes()),
            (_, None, Some("Bearer t1")) => Reply::blob(seen, &served).cut(60_000),
            // The first token has run out by now.
            (_, Some(_), Some("Bearer t4")) => Reply::blob(seen, &served),
            _ => guarded(seen, &realm, b""),
        }
    });
    assert_eq!(registry.source().blob("demo", &descriptor(&blob), MAX).unwrap(), blob);
    let seen = registry.seen();
    assert_eq!(seen.len(), 6, "401, token, cut; 401, token, rest");
    assert_eq!(seen[5].range(), Some((60_000, 99_999)));
}

#[test]
fn case_101_a_401_that_stays_fails_closed() {
    let always = Server::start(|seen| {
        let host = seen.header("host").unwrap();
        match seen.path.starts_with("/token") {
            true => Reply::ok(br#"{"token":"x"}"#),
            false => guarded(seen, &format!("http://{host}/token"), b""),
        }
    });
    assert_eq!(code(always.source().blob("demo", &descriptor(b"x"), MAX)), "http_status");
    assert_eq!(always.seen().len(), 3);

    let basic = Server::start(|_| {
        Reply::with("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", b"")
    });
    let source = with_token(&basic, &Secrets::new("user:wrong"));
    assert_eq!(code(source.tuf_state(None)), "http_status");
    assert_eq!(basic.seen().len(), 1);

    for answer in ["{}", r#"{"token":"a\r\nX-Evil: 1"}"#, "not json"] {
        let server = Server::start(move |seen| {
            let host = seen.header("host").unwrap();
            match seen.path.starts_with("/token") {
                true => Reply::ok(answer.as_bytes()),
                false => guarded(seen, &format!("http://{host}/token"), b""),
            }
        });
        assert_eq!(code(server.source().tuf_state(None)), "http_status", "{answer}");
    }
}

#[test]
fn tls_is_verified_against_the_configured_ca_only() {
    let secrets = Secrets::new("x");
    let tuf = state(&[("timestamp.json", b"{}")]);
    let good =
        Server::start_tls(secrets.tls("127.0.0.1", &[b"http/1.1"]), move |_| Reply::ok(&tuf));
    assert!(source(&secrets.https(&good)).tuf_state(None).is_ok());

    let stranger = Secrets::new("x");
    assert_eq!(code(source(&stranger.https(&good)).tuf_state(None)), "tls", "another CA");

    let other = Server::start_tls(secrets.tls("localhost", &[]), |_| Reply::ok(b"{}"));
    assert_eq!(code(source(&secrets.https(&other)).tuf_state(None)), "tls", "another name");

    let plain = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = plain.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = plain.accept().unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        // Closing with unread bytes would reset the connection and lose what was written.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let config = SourceConfig { url: format!("docker://{address}"), ..secrets.https(&good) };
    assert_eq!(code(source(&config).tuf_state(None)), "tls", "no TLS there");
    server.join().unwrap();
}

#[test]
fn a_ca_file_that_is_none_is_a_mistake_of_the_configuration() {
    let secrets = Secrets::new("x");
    let server = Server::start(|_| Reply::ok(b""));
    for (name, content) in [
        ("empty", ""),
        ("no PEM", "hello"),
        ("broken", "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"),
    ] {
        fs::write(secrets.ca(), content).unwrap();
        let result = open(&secrets.https(&server), quick()).map(|source| source.describe());
        assert_eq!(code(result), "config", "{name}");
    }
}

#[test]
fn http_2_is_used_where_it_is_offered() {
    use http_body_util::Full;
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};

    let secrets = Secrets::new("x");
    let blob = noise(3_000_000);
    let served = bytes::Bytes::from(blob.clone());
    let tls = secrets.tls("127.0.0.1", &[b"h2", b"http/1.1"]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = std::thread::spawn(move || {
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let acceptor = tokio_rustls::TlsAcceptor::from(tls);
            // One connection must do for everything.
            let (stream, _) = listener.accept().await.unwrap();
            let stream = acceptor.accept(stream).await.unwrap();
            let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                assert_eq!(request.version(), http::Version::HTTP_2);
                let range = request.headers().get("range").map(|value| value.to_str().unwrap());
                let reply =
                    match range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')) {
                        Some((first, last)) => {
                            let last: usize = last.parse().unwrap();
                            let part = served.slice(first.parse().unwrap()..=last);
                            let span = format!("bytes {first}-{last}/{}", served.len());
                            http::Response::builder()
                                .status(206)
                                .header("content-range", span)
                                .body(Full::new(part))
                        }
                        None => http::Response::builder().body(Full::new(served.clone())),
                    };
                async move { reply }
            });
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await
        })
    });
    let config = SourceConfig {
        ca: Some(secrets.ca()),
        ..SourceConfig::at(&format!("docker://{address}/ns"))
    };
    let source = source(&config);
    let whole = descriptor(&blob);
    assert!(source.blob("demo", &whole, 4 << 20).unwrap() == blob);
    let mut got = Vec::new();
    source
        .ranges("demo", &whole, &[10..20, 1_000_000..1_500_000], &mut |_, bytes| {
            got.extend_from_slice(bytes);
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    assert!(got == [&blob[10..20], &blob[1_000_000..1_500_000]].concat());
    assert_eq!(code(source.manifest("demo", &Digest::sha256_of(b""), 10)), "length_mismatch");
    assert!(source.blob("demo", &whole, 4 << 20).unwrap() == blob, "the connection still serves");
    drop(source);
    // The connection ends with the client; how is no matter.
    let _ = server.join().unwrap();
}

/// A proxy that carries `CONNECT` to one server, whatever name is asked for, and keeps the heads.
fn connect_proxy(to: std::net::SocketAddr, refuse: bool) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap().to_string();
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = heads.clone();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(mut client), seen) = (client, seen.clone()) else { continue };
            std::thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte).unwrap_or(0) > 0 {
                    head.push(byte[0]);
                }
                seen.lock().unwrap().push(String::from_utf8_lossy(&head).into_owned());
                if refuse {
                    let _ = client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n");
                    return;
                }
                let mut server = TcpStream::connect(to).unwrap();
                client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
                let mut back = (server.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut back.0, &mut back.1));
                let _ = std::io::copy(&mut client, &mut server);
                let _ = server.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    (place, heads)
}

#[test]
fn a_proxy_carries_tls_and_sees_neither_token_nor_content() {
    let secrets = Secrets::new("secret-token");
    let blob = noise(2 << 20);
    let served = blob.clone();
    let tls = secrets.tls("registry.test", &[b"http/1.1"]);
    let server = Server::start_tls(tls, move |seen| {
        assert_eq!(seen.header("authorization"), Some("Bearer secret-token"));
        assert_eq!(seen.header("proxy-authorization"), None);
        Reply::blob(seen, &served)
    });
    let (proxy, heads) = connect_proxy(server.address, false);
    let config = SourceConfig {
        ca: Some(secrets.ca()),
        token_file: Some(secrets.token()),
        proxy: Some(format!("http://us%65r:pass@{proxy}")),
        ..SourceConfig::at("docker://registry.test:5000/ns")
    };
    let fetched = source(&config).blob("demo", &descriptor(&blob), 4 << 20).unwrap();
    assert!(fetched == blob);
    let heads = heads.lock().unwrap();
    assert!((1..=5).contains(&heads.len()), "{} connections", heads.len());
    for head in heads.iter() {
        assert_eq!(
            head,
            "CONNECT registry.test:5000 HTTP/1.1\r\nHost: registry.test:5000\r\n\
             Proxy-Authorization: Basic dXNlcjpwYXNz\r\n\r\n"
        );
    }
}

/// A trial whose only check is that of the repository.
fn checked(sources: &[SourceConfig], timeout: &str) -> HealthReport {
    let check = format!(
        "passes = 1\ndeadline = '60s'\ninterval = '60s'\n\
         [[check]]\nname = 'updates'\nrepository = true\ntimeout = '{timeout}'\n"
    );
    let config = toml::from_str(&check).unwrap();
    let around = Surroundings { sources, ..Surroundings::default() };
    health::run(&config, around, &mut |_, _| ControlFlow::Break(())).unwrap()
}

/// Otherwise a node behind a proxy gives up every release, because its trial asks in another way.
#[test]
fn the_health_check_asks_for_updates_as_updates_do() {
    let secrets = Secrets::new("secret-token");
    let tls = secrets.tls("registry.test", &[b"http/1.1"]);
    let server = Server::start_tls(tls, |seen| match seen.header("authorization") {
        Some("Bearer secret-token") => Reply::with(
            "200 OK",
            "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n",
            &state(&[("timestamp.json", b"{}")]),
        ),
        _ => Reply::status("401 Unauthorized"),
    });
    let (proxy, heads) = connect_proxy(server.address, false);
    let config = SourceConfig {
        ca: Some(secrets.ca()),
        token_file: Some(secrets.token()),
        proxy: Some(format!("http://{proxy}")),
        ..SourceConfig::at("docker://registry.test:5000/ns")
    };
    let report = checked(std::slice::from_ref(&config), "50s");
    assert!(report.passed, "{report:?}");
    assert_eq!(heads.lock().unwrap().len(), 1);
    assert_eq!(server.seen().last().unwrap().path, "/v2/ns/tuf/manifests/latest");

    let nobody = SourceConfig { token_file: None, ..config.clone() };
    let report = checked(std::slice::from_ref(&nobody), "50s");
    assert!(!report.passed, "a node that is shown out gets no update");
    assert!(report.failures[0].why.contains("401"), "{report:?}");
    assert!(checked(&[nobody, config], "50s").passed, "a mirror will do");
}

#[test]
fn a_repository_that_drips_does_not_outlast_its_check() {
    let body = state(&[("timestamp.json", b"{}")]);
    let server = Server::start(move |_| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        let pause = Duration::from_millis(100);
        Reply(vec![Step::Send(head.into_bytes()), Step::Drip(body.clone(), pause)])
    });
    let report = checked(&[server.config()], "1s");
    assert!(!report.passed && report.rounds == 1, "{report:?}");
    assert!(report.failures[0].why.contains("no more bytes within"), "{report:?}");
}

#[test]
fn a_proxy_that_refuses_is_told_so_without_its_password() {
    let secrets = Secrets::new("secret-token");
    let (proxy, _) = connect_proxy("127.0.0.1:1".parse().unwrap(), true);
    let config = SourceConfig {
        ca: Some(secrets.ca()),
        proxy: Some(format!("http://user:hunter2@{proxy}")),
        ..SourceConfig::at("docker://registry.test/ns")
    };
    let error = source(&config).blob("demo", &descriptor(b"x"), MAX).unwrap_err();
    assert_eq!(error.reason().code(), "unreachable");
    let text = update_agent::error::AgentError::from(error).chain();
    assert!(text.contains("wants a user and password") && !text.contains("hunter2"), "{text}");
}

#[test]
fn a_proxy_that_is_down_is_named() {
    let secrets = Secrets::new("secret-token");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = SourceConfig {
        ca: Some(secrets.ca()),
        proxy: Some(format!("http://user:hunter2@{nobody}")),
        ..SourceConfig::at("docker://registry.test/ns")
    };
    let error = source(&config).blob("demo", &descriptor(b"x"), MAX).unwrap_err();
    assert_eq!(error.reason().code(), "unreachable");
    let text = update_agent::error::AgentError::from(error).chain();
    assert!(text.contains(&format!("the proxy http://{nobody}")), "{text}");
    assert!(text.contains("registry.test") && !text.contains("hunter2"), "{text}");
}

/// Behind a proxy nobody here resolves names: what a redirect names is judged as it is written.
#[test]
fn case_92_a_redirect_through_a_proxy_leads_to_no_name_of_this_network() {
    let secrets = Secrets::new("secret-token");
    for (to, refused) in [
        ("https://localhost/x", true),
        ("https://127.1/x", true),
        ("https://metadata.google.internal/x", true),
        ("https://nas/x", true),
        ("https://[2002:7f00:1::]/x", true),
        ("https://registry.example/v2/", false),
    ] {
        let blob = noise(100);
        let served = blob.clone();
        let location = to.to_owned();
        let tls = secrets.tls("registry.example", &[b"http/1.1"]);
        let server = Server::start_tls(tls, move |seen| match seen.nth {
            0 => Reply::redirect(&location),
            _ => Reply::blob(seen, &served),
        });
        let (proxy, heads) = connect_proxy(server.address, false);
        let config = SourceConfig {
            ca: Some(secrets.ca()),
            proxy: Some(format!("http://{proxy}")),
            ..SourceConfig::at("docker://registry.example/ns")
        };
        let found = source(&config).blob("demo", &descriptor(&blob), MAX);
        match refused {
            true => assert_eq!(code(found), "redirect_refused", "{to}"),
            false => assert_eq!(found.unwrap(), blob, "{to}"),
        }
        let asked = heads.lock().unwrap().clone();
        let ours = |head: &String| head.starts_with("CONNECT registry.example:443 ");
        assert!(asked.iter().all(ours), "{to}: {asked:?}");
    }
}

/// Docker Hub by its usual name, and its token server, through a proxy that plays both.
#[test]
fn docker_hub_is_asked_at_its_registry_and_its_token_server() {
    let secrets = Secrets::new("alice:hub-secret");
    let blob = noise(1000);
    let served = blob.clone();
    let tls = secrets.tls_of(&["registry-1.docker.io", "auth.docker.io"], &[b"http/1.1"]);
    let server = Server::start_tls(tls, move |seen| match seen.header("host") {
        Some("auth.docker.io") => Reply::ok(br#"{"token":"short-lived"}"#),
        _ => guarded(seen, "https://auth.docker.io/token", &served),
    });
    let (proxy, heads) = connect_proxy(server.address, false);
    let config = SourceConfig {
        ca: Some(secrets.ca()),
        token_file: Some(secrets.token()),
        proxy: Some(format!("http://{proxy}")),
        ..SourceConfig::at("docker://docker.io")
    };
    assert_eq!(source(&config).blob("demo", &descriptor(&blob), MAX).unwrap(), blob);
    let seen = server.seen();
    let token = seen.iter().find(|seen| seen.header("host") == Some("auth.docker.io")).unwrap();
    assert_eq!(token.path, "/token?service=reg&scope=repository:library/demo:pull");
    assert_eq!(token.header("authorization"), Some("Basic YWxpY2U6aHViLXNlY3JldA=="));
    for head in heads.lock().unwrap().iter() {
        let known = ["CONNECT registry-1.docker.io:443 ", "CONNECT auth.docker.io:443 "];
        assert!(known.iter().any(|known| head.starts_with(known)), "{head}");
        assert!(!head.to_ascii_lowercase().contains("authorization"), "{head}");
    }
}

/// Plain HTTP is for this machine, whether or not there is a credential.
#[test]
fn plain_http_leads_to_no_other_machine() {
    for host in ["192.0.2.1:5000", "registry.example", "10.0.0.1", "0.0.0.0:5000"] {
        let config =
            SourceConfig { plain_http: true, ..SourceConfig::at(&format!("docker://{host}/ns")) };
        let found = open(&config, quick()).map(|source| source.describe());
        assert_eq!(code(found), "config", "{host}");
    }
}

/// The environment may name a proxy; this machine is never asked for through one.
#[test]
fn loopback_is_reached_without_a_proxy() {
    let blob = noise(1000);
    let served = blob.clone();
    let server = Server::start(move |seen| Reply::blob(seen, &served));
    let config = SourceConfig { proxy: Some("http://127.0.0.1:1".to_owned()), ..server.config() };
    assert_eq!(source(&config).blob("demo", &descriptor(&blob), MAX).unwrap(), blob);
}

/// Who can change the CA file gets the token; a pipe would hold the agent, and its lock, for ever.
#[test]
fn a_ca_or_a_token_that_others_can_reach_is_refused() {
    let server = Server::start(|_| Reply::ok(b""));
    for (name, change, token, ca) in [
        ("closed", (|_| ()) as fn(&Secrets), "", "unreachable"),
        ("token of the group", |it| mode(&it.token(), 0o640), "", "unreachable"),
        ("token of everybody", |it| mode(&it.token(), 0o644), "insecure_perms", "unreachable"),
        ("CA of everybody", |it| mode(&it.ca(), 0o666), "", "insecure_perms"),
        (
            "folder of everybody",
            |it| mode(it.dir.path(), 0o777),
            "insecure_perms",
            "insecure_perms",
        ),
        ("links of ours", link_both, "", "unreachable"),
        ("pipes", pipe_both, "config", "config"),
    ] {
        let secrets = Secrets::new("secret-token");
        change(&secrets);
        let config = SourceConfig { token_file: Some(secrets.token()), ..server.config() };
        let found = open(&config, quick()).map(drop);
        let found = found.map_or_else(|error| error.reason().code().to_owned(), |()| String::new());
        assert_eq!(found, token, "{name}: token");
        let config =
            SourceConfig { ca: Some(secrets.ca()), ..SourceConfig::at("docker://127.0.0.1:1/ns") };
        let asked = |source: Box<dyn Source>| source.blob("demo", &descriptor(b"x"), MAX);
        let error = open(&config, quick()).and_then(asked).unwrap_err();
        assert_eq!(error.reason().code(), ca, "{name}: CA");
        if ca == "insecure_perms" {
            let error = update_agent::error::AgentError::from(error).chain();
            assert!(error.contains("CA file: ") && error.contains("chmod go-w "), "{error}");
        }
    }
}

fn mode(path: &std::path::Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn link_both(secrets: &Secrets) {
    for path in [secrets.token(), secrets.ca()] {
        let real = path.with_extension("real");
        fs::rename(&path, &real).unwrap();
        std::os::unix::fs::symlink(real.file_name().unwrap(), &path).unwrap();
    }
}

fn pipe_both(secrets: &Secrets) {
    for path in [secrets.token(), secrets.ca()] {
        fs::remove_file(&path).unwrap();
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
    }
}
