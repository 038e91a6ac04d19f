//! TLS: versions, ALPN, client certificates, handshakes that never end (case 210).
#![allow(clippy::unwrap_used, reason = "these are tests, and so are their parts")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::h2::{Frames, frame, get};
use common::keys::{Keys, client, keys};
use common::{Fixture, noise};
use formats::reason::Reason;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use repo_server::{Config, TlsFiles};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, version};

/// One HTTP/1.1 request over TLS; the answer, or why there is none.
fn ask(server: &Fixture, config: ClientConfig) -> Result<String, String> {
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut tls = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut socket = TcpStream::connect(server.address()).unwrap();
    socket.set_read_timeout(Some(common::PATIENCE)).unwrap();
    let mut stream = rustls::Stream::new(&mut tls, &mut socket);
    let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request).map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    if answer.is_empty() {
        return Err(read.map_or_else(|error| error.to_string(), |_| "closed".to_owned()));
    }
    Ok(String::from_utf8(answer).unwrap())
}

fn fixture(change: impl FnOnce(&mut Config)) -> (Fixture, Keys) {
    let temp = tempfile::tempdir().unwrap();
    let keys = keys(temp.path());
    let tls = TlsFiles { client_ca: None, ..keys.files.clone() };
    let config = common::config(&temp, |config| {
        config.tls = Some(tls);
        change(config);
    });
    let server = repo_server::start(config).unwrap();
    (Fixture { temp, server }, keys)
}

#[test]
fn both_versions_of_tls_work() {
    let (server, keys) = fixture(|_| {});
    assert!(server.server.url().starts_with("https://127.0.0.1:"));
    for version in [&version::TLS13, &version::TLS12] {
        let answer = ask(&server, client(&keys, &[version], false)).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    // Plain HTTP to the TLS port is no HTTP at all.
    let plain = common::raw(server.address(), b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(!plain.starts_with(b"HTTP/"), "{plain:?}");
}

#[test]
fn client_certificates_when_asked_for() {
    let (server, keys) = fixture(|config| {
        let tls = config.tls.as_mut().unwrap();
        tls.client_ca = Some(tls.certificate.with_file_name("ca.pem"));
    });
    let good = ask(&server, client(&keys, &[&version::TLS13], true)).unwrap();
    assert!(good.starts_with("HTTP/1.1 200"));
    assert!(ask(&server, client(&keys, &[&version::TLS13], false)).is_err());
    let stranger_dir = tempfile::tempdir().unwrap();
    let stranger = self::keys(stranger_dir.path());
    let other = Keys { client: stranger.client, ..keys };
    assert!(ask(&server, client(&other, &[&version::TLS13], true)).is_err());
}

/// New certificates are for new connections; those that are open stay.
#[test]
fn certificates_are_read_again() {
    let (server, keys) = fixture(|_| {});
    assert!(ask(&server, client(&keys, &[&version::TLS13], false)).is_ok());
    let next = self::keys(server.temp.path());
    server.server.reload().unwrap();
    assert!(ask(&server, client(&keys, &[&version::TLS13], false)).is_err());
    assert!(ask(&server, client(&next, &[&version::TLS13], false)).is_ok());
    std::fs::write(&next.files.key, "no key").unwrap();
    assert_eq!(server.server.reload().unwrap_err().reason(), Reason::Config);
    assert!(ask(&server, client(&next, &[&version::TLS13], false)).is_ok());
}

#[test]
fn http_2_by_alpn() {
    let (server, keys) = fixture(|_| {});
    let mut config = client(&keys, &[&version::TLS13], false);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let socket = tokio::net::TcpStream::connect(server.address()).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = connector.connect(name, socket).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        tokio::spawn(connection);
        let mut ask = async |method: &str, target: &str| {
            let uri = format!("https://127.0.0.1{target}");
            let request = http::Request::builder().method(method).uri(uri);
            let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
            let (head, body) = sender.send_request(request).await.unwrap().into_parts();
            (head, body.collect().await.unwrap().to_bytes())
        };
        let (head, body) = ask("GET", "/healthz").await;
        assert_eq!(head.status, 200);
        assert!(body.starts_with(b"{"));
        let (head, _) = ask("GET", "/v2/a/manifests/v1").await;
        assert_eq!(head.status, 404);
        let (head, body) = ask("HEAD", "/healthz").await;
        assert_eq!((head.status.as_u16(), body.len()), (200, 0));
        assert!(head.headers.contains_key("content-length"));
        let (head, _) = ask("POST", "/v2/a/blobs/uploads/").await;
        assert_eq!(head.status, 401);
    });
}

/// Over HTTP/2 no header timeout helps: the connection's own rules must.
#[test]
fn quiet_http_2_connections_are_let_go() {
    let (server, keys) = fixture(|config| {
        config.limits.head = Duration::from_secs(1);
        config.limits.idle = Duration::from_secs(1);
    });
    let mut config = client(&keys, &[&version::TLS13], false);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let config = Arc::new(config);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let connect = async || {
            let socket = tokio::net::TcpStream::connect(server.address()).await.unwrap();
            let name = ServerName::try_from("127.0.0.1").unwrap();
            let connector = tokio_rustls::TlsConnector::from(Arc::clone(&config));
            connector.connect(name, socket).await.unwrap()
        };
        let patience = common::PATIENCE;
        // Not even a preface.
        let mut silent = connect().await;
        let mut got = Vec::new();
        let closed = tokio::io::AsyncReadExt::read_to_end(&mut silent, &mut got);
        assert!(tokio::time::timeout(patience, closed).await.is_ok(), "no preface");
        // One request, then only the answers to pings, which this client gives by itself.
        for requests in [0, 1] {
            let io = TokioIo::new(connect().await);
            let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
            let (mut sender, connection) = handshake.await.unwrap();
            let ended = tokio::spawn(connection);
            for _ in 0..requests {
                let request = http::Request::get("https://127.0.0.1/healthz");
                let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
                assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
            }
            assert!(tokio::time::timeout(patience, ended).await.is_ok(), "{requests} requests");
        }
    });
}

/// 211: each flood ends its own connection, in bounded time, and nobody else's.
#[test]
fn http_2_floods() {
    let (server, keys) = fixture(|config| {
        config.limits.head = Duration::from_secs(1);
        config.limits.idle = Duration::from_secs(1);
        config.limits.stall = Duration::from_secs(1);
    });
    let large = server_with_blob(&server, &keys);
    let (data, headers, reset, settings, continuation) = (0, 1, 3, 4, 9);
    let post = {
        let path = "/v2/a/blobs/uploads/";
        let mut block = vec![0x83, 0x87, 0x04, u8::try_from(path.len()).unwrap()];
        block.extend(path.as_bytes());
        block.extend([0x01, 1, b'x']);
        block
    };
    let odd = |i: u32| 2 * i + 1;
    type Flood<'a> = Box<dyn Fn(u32) -> Vec<u8> + 'a>;
    let floods: [(&str, Vec<u8>, Flood<'_>); 5] = [
        (
            "rapid reset",
            frame(settings, 0, 0, &[]),
            Box::new(|i| {
                let mut both = frame(headers, 5, odd(i), &get("/v2/"));
                both.extend(frame(reset, 0, odd(i), &8_u32.to_be_bytes()));
                both
            }),
        ),
        (
            "continuation",
            [frame(settings, 0, 0, &[]), frame(headers, 0, 1, &get("/v2/"))].concat(),
            Box::new(|_| frame(continuation, 0, 1, &[0x40, 1, b'a', 1, b'b'].repeat(100))),
        ),
        (
            "empty data",
            [frame(settings, 0, 0, &[]), frame(headers, 4, 1, &post)].concat(),
            Box::new(|_| frame(data, 0, 1, &[])),
        ),
        ("settings", Vec::new(), Box::new(|_| frame(settings, 0, 0, &[0, 4, 0, 1, 0, 0]))),
        // Asks for all of a large blob and takes one byte of it.
        (
            "one-byte window",
            [frame(settings, 0, 0, &[0, 4, 0, 0, 0, 1]), frame(headers, 5, 1, &get(&large))]
                .concat(),
            Box::new(|_| Vec::new()),
        ),
    ];
    for (name, first, flood) in floods {
        let mut frames = Frames::connect(server.address(), &keys);
        frames.say(&first).unwrap();
        // Answers are not read meanwhile: that is part of the flood.
        let mut sent = 0;
        while sent < 20_000 && frames.say(&flood(sent)).is_ok() {
            sent += 1;
        }
        assert!(frames.is_closed(), "{name}: still open after {sent} frames");
        assert!(ask(&server, client(&keys, &[&version::TLS13], false)).is_ok(), "{name}");
    }
}

/// Pushes a blob over HTTPS; its path.
fn server_with_blob(server: &Fixture, keys: &Keys) -> String {
    let bytes = noise(1 << 20);
    let digest = formats::digest::Digest::sha256_of(&bytes);
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let config = client(keys, &[&version::TLS13], false);
    let mut tls = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut socket = TcpStream::connect(server.address()).unwrap();
    let mut stream = rustls::Stream::new(&mut tls, &mut socket);
    let head = format!(
        "POST /v2/a/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Authorization: Bearer {}\r\nContent-Length: {}\r\n\r\n",
        common::TOKEN,
        bytes.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&bytes).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.starts_with(b"HTTP/1.1 201"), "{}", String::from_utf8_lossy(&answer));
    format!("/v2/a/blobs/{digest}")
}

/// 210: a hello in pieces is a hello; one of TLS 1.0 or 1.1 is refused.
#[test]
fn old_and_fragmented_hellos() {
    let (server, keys) = fixture(|_| {});
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let config = client(&keys, &[&version::TLS13], false);
    let mut tls = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    tls.write_tls(&mut hello).unwrap();
    // One record becomes many of a few bytes, each in a packet of its own.
    let mut socket = TcpStream::connect(server.address()).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(common::PATIENCE)).unwrap();
    for piece in hello[5..].chunks(16) {
        let len = u16::try_from(piece.len()).unwrap().to_be_bytes();
        socket.write_all(&[&hello[..3], &len, piece].concat()).unwrap();
    }
    tls.complete_io(&mut socket).unwrap();
    assert!(!tls.is_handshaking());
    for old in [1, 2] {
        // A complete ClientHello without extensions: the version in it is all there is.
        let mut body = vec![3, old];
        body.extend([7; 32]);
        body.extend([0, 0, 4, 0xc0, 0x2f, 0x00, 0x2f, 1, 0]);
        let mut hello = vec![0x16, 3, 1, 0, u8::try_from(body.len() + 4).unwrap(), 1, 0, 0];
        hello.push(u8::try_from(body.len()).unwrap());
        hello.extend(&body);
        let answer = common::raw(server.address(), &hello);
        assert_eq!(answer.first(), Some(&0x15), "an alert, not {answer:?}");
    }
}

#[test]
fn handshakes_that_never_end() {
    let (server, keys) = fixture(|config| config.limits.handshake = Duration::from_secs(1));
    // A ClientHello that stops in the middle, one that never begins, one that trickles, and noise.
    let hello = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];
    for (name, bytes) in [("half", &hello[..]), ("nothing", &[]), ("noise", &noise(4096))] {
        println!("{name}");
        // Comes back when the server closes the connection.
        common::raw(server.address(), bytes);
    }
    let begun = Instant::now();
    let mut stream = TcpStream::connect(server.address()).unwrap();
    while stream.write_all(&hello[..1]).is_ok() {
        assert!(begun.elapsed() < common::PATIENCE, "a trickling hello");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(ask(&server, client(&keys, &[&version::TLS13], false)).is_ok());
}

#[test]
fn what_cannot_be_served_safely_is_not_started() {
    let temp = tempfile::tempdir().unwrap();
    let refused = |change: &dyn Fn(&mut Config)| {
        repo_server::start(common::config(&temp, change)).unwrap_err()
    };
    let error = refused(&|config| config.listen = "0.0.0.0:0".parse().unwrap());
    assert!(error.to_string().contains("--insecure-http"), "{error}");
    let keys = keys(temp.path());
    let empty = temp.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    for files in [
        TlsFiles { certificate: empty.clone(), ..keys.files.clone() },
        TlsFiles { key: empty.clone(), ..keys.files.clone() },
        TlsFiles { key: temp.path().join("none"), ..keys.files.clone() },
        TlsFiles { client_ca: Some(empty), ..keys.files.clone() },
        TlsFiles { certificate: temp.path().join("ca.pem"), ..keys.files },
    ] {
        let error = refused(&|config| config.tls = Some(files.clone()));
        assert_eq!(error.reason(), Reason::Config, "{error}");
    }
    let tokens = temp.path().join("readable");
    std::fs::write(&tokens, common::TOKEN).unwrap();
    let error = refused(&|config| config.push_tokens = Some(tokens.clone()));
    assert_eq!(error.reason(), Reason::InsecurePerms);
    let file = temp.path().join("file");
    std::fs::write(&file, "").unwrap();
    refused(&|config| config.dir = file.clone());
}
