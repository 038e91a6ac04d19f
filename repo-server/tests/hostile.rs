//! Clients, disks and neighbours that mean harm (`docs/server-cases.md`). Numbers are its rows.
#![allow(clippy::unwrap_used, reason = "these are tests, and so are their parts")]

mod common;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use common::{Fixture, TOKEN, noise, parse, raw};
use formats::digest::Digest;

const MOMENT: Duration = Duration::from_millis(500);

/// 204, 205: names and ids never become paths.
#[test]
fn hostile_names() {
    let server = Fixture::new();
    server.push_artifact("a", "v1", &[b"layer"]);
    let before = common::tree(server.temp.path());
    for target in [
        "/v2/../a/manifests/v1",
        "/v2/a/../a/manifests/v1",
        "/v2/%2e%2e%2fa/manifests/v1",
        "/v2/..%2f..%2fetc/manifests/passwd",
        "/v2//a/manifests/v1",
        "/v2/a%00/manifests/v1",
        "/v2/A/manifests/v1",
        "/v2/_manifests/manifests/v1",
        "/v2/_uploads/manifests/v1",
        "/v2/a/_uploads/manifests/v1",
        "/v2/a/_blobs/manifests/v1",
        "/v2/a/manifests/..%2f..%2ftokens",
        "/v2/a/manifests/.",
        "/v2/a/blobs/sha256:../../../tokens",
        "/v2/a/blobs/sha256:%2e%2e%2f%2e%2e%2ftokens",
        "/v2/a/blobs/uploads/..%2f..%2f..%2ftokens",
        "/v2/a/blobs/uploads/00000000-0000-0000-0000-000000000000",
        "/metadata/..%2f..%2ftokens",
        "/metadata/../../tokens",
        "/targets/../../tokens",
        "/targets/..%2f..%2ftokens",
        "/../tokens",
    ] {
        for method in ["GET", "PUT", "DELETE"] {
            let status = server.push(method, target, &[], b"x").status;
            assert!((400..500).contains(&status), "{method} {target}: {status}");
        }
    }
    let long = format!("/v2/{}/manifests/v1", "a".repeat(300));
    server.get(&long).expect_error(400, "NAME_INVALID");
    assert_eq!(common::tree(server.temp.path()), before);
}

/// A client that sends as fast as it can and stops when it sees an answer, as curl does: what it got
/// before the connection ended, or why it could not send on before it saw anything.
fn push_until_answered(server: &Fixture, length: usize) -> std::io::Result<Vec<u8>> {
    let digest = Digest::sha256_of(b"never looked at");
    let mut stream = TcpStream::connect(server.address())?;
    let head = format!(
        "POST /v2/a/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: test\r\n\
         Authorization: Bearer not-the-token-of-tests\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    let mut left = length;
    loop {
        stream.set_nonblocking(true)?;
        let seen = stream.peek(&mut [0]);
        stream.set_nonblocking(false)?;
        match seen {
            Ok(_) => break,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        let piece = [0; 64 << 10];
        let piece = &piece[..piece.len().min(left)];
        stream.write_all(piece)?;
        left -= piece.len();
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// 206: a push that is refused before its body was read says why: the client is not cut off with a
/// reset while it is still sending.
#[test]
fn refused_pushes_are_told_why() {
    let server = Fixture::new();
    for nth in 0..50 {
        let answer = push_until_answered(&server, 20_000_000);
        let answer = answer.unwrap_or_else(|error| panic!("push {nth} lost its answer: {error}"));
        parse(&answer, "POST").unwrap().expect_error(401, "UNAUTHORIZED");
    }
}

/// A client that never closes costs a connection for a moment only.
#[test]
fn a_refused_client_that_stays_is_let_go() {
    let server = Fixture::new();
    let stream = TcpStream::connect(server.address()).unwrap();
    let head = "PUT /v2/a/manifests/v1 HTTP/1.1\r\nHost: test\r\nContent-Length: 99\r\n\r\n";
    (&stream).write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    (&stream).read_to_end(&mut answer).unwrap();
    parse(&answer, "PUT").unwrap().expect_error(401, "UNAUTHORIZED");
    common::until("the server closes", || (&stream).write(b"x").is_err());
}

/// 201: who may only add replaces nothing, `latest` included.
#[test]
fn create_only_tokens_replace_nothing() {
    let token = "create-only-token-for-tests";
    let server = Fixture::with(|config| {
        let tokens = config.push_tokens.clone().unwrap();
        common::write_private(&tokens, &format!("{TOKEN}\ncreate-only {token}\n"));
    });
    let first = server.artifact("a", &[b"one"]).to_bytes();
    let second = server.artifact("a", &[b"two"]).to_bytes();
    server.push_manifest("a", "latest", &first);
    let put = |target: &str, bytes: &[u8]| {
        let bearer = format!("Authorization: Bearer {token}");
        let kind = "Content-Type: application/vnd.oci.image.manifest.v1+json";
        server.ask("PUT", &format!("/v2/a/manifests/{target}"), &[&bearer, kind], bytes)
    };
    let digest = Digest::sha256_of(&second);
    put("latest", &second).expect_error(403, "DENIED");
    put(&format!("{digest}?tag=new&tag=latest"), &second).expect_error(403, "DENIED");
    put("new", &second).expect(201);
    put("new", &second).expect(201);
    put("latest", &first).expect(201);
    put("new", &first).expect_error(403, "DENIED");
    put(&format!("{digest}?tag=newer"), &second).expect(201);
    let bearer = format!("Authorization: Bearer {token}");
    for target in ["manifests/latest".to_owned(), format!("manifests/{digest}")] {
        server.ask("DELETE", &format!("/v2/a/{target}"), &[&bearer], &[]).expect(403);
    }
    assert_eq!(server.get("/v2/a/manifests/latest").expect(200).body, first);
    assert_eq!(server.get("/v2/a/manifests/new").expect(200).body, second);
}

/// Everything below a directory: files with their digests, and directories.
fn snapshot(dir: &std::path::Path) -> std::collections::BTreeMap<std::path::PathBuf, String> {
    let mut found = std::collections::BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let kind = match path.is_dir() {
                true => "directory".to_owned(),
                false => Digest::sha256_of(&std::fs::read(&path).unwrap()).to_string(),
            };
            open.extend(path.is_dir().then(|| path.clone()));
            found.insert(path, kind);
        }
    }
    found
}

/// Status, whose token, method, target, a header, the body's name, and why it is refused.
const REFUSED: &str = "
    401 nobody POST   uploads/                                  -        none       no token
    401 nobody PUT    manifests/v2                              manifest new        no token
    401 forged PUT    manifests/v2                              manifest new        a wrong token
    403 demo   POST   uploads/                                  -        none       another repository
    403 demo   POST   uploads/?digest={layer}                   -        layer      another repository
    403 demo   PATCH  {upload}                                  -        more       another repository
    403 demo   DELETE {upload}                                  -        none       another repository
    403 demo   PUT    manifests/v2                              manifest new        another repository
    403 demo   POST   /v2/b/blobs/uploads/?mount={layer}&from=a -        none       a mount into it
    403 add    PUT    manifests/v1                              manifest new        a tag that is there
    403 add    PUT    manifests/{digest}?tag=v9&tag=v1          manifest new        one of two tags
    403 add    DELETE manifests/v1                              -        none       who may only add
    403 add    DELETE blobs/{layer}                             -        none       who may only add
    400 full   DELETE blobs/{layer}                             -        none       a blob that is needed
    404 full   DELETE manifests/v7                              -        none       no such tag
    404 full   DELETE manifests/{absent}                        -        none       no such manifest
    400 full   PUT    manifests/v2                              manifest html       no manifest
    400 full   PUT    manifests/v2                              manifest both       two kinds in one
    400 full   PUT    manifests/v2                              index    new        another media type
    400 full   PUT    manifests/v2                              manifest incomplete missing blobs
    400 full   PUT    /v2/b/manifests/v2                        manifest new        missing in this one
    400 full   PUT    manifests/{absent}                        manifest new        another digest
    400 full   PUT    manifests/{digest}?tag=..                 manifest new        no tag
    413 full   PUT    manifests/v2                              manifest huge       a large manifest
    415 full   PUT    manifests/v2                              gzip     new        an encoded manifest
    405 full   POST   manifests/v2                              manifest new        a method
    400 full   POST   uploads/?digest={absent}                  -        layer      another digest
    400 full   POST   uploads/?digest=sha256:00                 -        layer      no digest
    400 full   POST   uploads/?digest-algorithm=md5             -        none       no algorithm
    413 full   POST   uploads/?digest={absent}                  -        big        a large blob
    404 full   PATCH  uploads/00000000-0000-4000-8000-000000000000 -     more       no such upload
    404 full   PATCH  /v2/b/blobs/uploads/{id}                  -        more       not in this one
    416 full   PATCH  {upload}                                  5-8      more       a gap
    416 full   PATCH  {upload}                                  0-3      more       an overlap
    400 full   PATCH  {upload}                                  four     more       no range
    400 full   PATCH  {upload}                                  4-99     more       another length
    413 full   PATCH  {upload}                                  -        big        a large piece
    415 full   PATCH  {upload}                                  gzip     more       an encoded piece
    400 full   PUT    {upload}                                  -        none       an end, no digest
    413 full   PUT    {upload}?digest={absent}                  -        big        a large end
    405 full   PUT    /metadata/timestamp.json                  -        more       the classic tree
";

/// What is refused, for whatever reason, leaves the storage as it was: no file, no directory, no tag.
#[test]
fn refused_requests_leave_the_storage_as_it_was() {
    let [add, demo] = ["create-only-token-for-tests", "scoped-push-token-for-tests"];
    let server = Fixture::with(|config| {
        let tokens = config.push_tokens.clone().unwrap();
        let lines = format!("{TOKEN}\ncreate-only {add}\ncreate-only demo/* {demo}\n");
        common::write_private(&tokens, &lines);
        config.limits.blob_bytes = 1 << 20;
    });
    let held = server.push_artifact("a", "v1", &[b"layer"]).to_string();
    let new = server.artifact("a", &[b"other layer"]).to_bytes();
    let [layer, other, absent] = [b"layer".as_slice(), b"other layer", b"nobody has it"]
        .map(|it| Digest::sha256_of(it).to_string());
    let upload = server.start_upload("a");
    server.push("PATCH", &upload, &[], b"four").expect(202);
    let incomplete = String::from_utf8(new.clone()).unwrap().replace(&other, &absent);
    let both = format!(r#"{{"manifests":[],"layers":[],"x":{:?}}}"#, "y".repeat(50));
    let body = |name: &str| match name {
        "new" => new.clone(),
        "incomplete" => incomplete.clone().into_bytes(),
        "both" => both.clone().into_bytes(),
        "huge" => noise((4 << 20) + 1),
        "big" => noise((1 << 20) + 1),
        "none" => Vec::new(),
        text => text.as_bytes().to_vec(),
    };
    let target = |text: &str| {
        let digest = Digest::sha256_of(&new).to_string();
        let id = upload.rsplit('/').next().unwrap();
        let names = [
            ("layer", &*layer),
            ("absent", &*absent),
            ("digest", &*digest),
            ("upload", &*upload),
            ("id", id),
        ];
        let text = names.iter().fold(text.to_owned(), |text, (name, value)| {
            text.replace(&format!("{{{name}}}"), value)
        });
        match text.strip_prefix("uploads/") {
            _ if text.starts_with('/') => text,
            Some(rest) => format!("/v2/a/blobs/uploads/{rest}"),
            None => format!("/v2/a/{text}"),
        }
    };
    let before = snapshot(&server.dir());
    for row in REFUSED.lines().filter(|row| !row.trim().is_empty()) {
        let words: Vec<&str> = row.split_whitespace().collect();
        let [status, who, method, to, header, sent, ..] = words[..] else { panic!("{row}") };
        let mut headers = Vec::new();
        match who {
            "nobody" => {}
            "full" => headers.push(format!("Authorization: Bearer {TOKEN}")),
            "add" => headers.push(format!("Authorization: Bearer {add}")),
            "demo" => headers.push(format!("Authorization: Bearer {demo}")),
            other => headers.push(format!("Authorization: Bearer {other}-token-for-tests")),
        }
        match header {
            "-" => {}
            "gzip" => headers.push("Content-Encoding: gzip".to_owned()),
            "manifest" | "index" => {
                headers.push(format!("Content-Type: application/vnd.oci.image.{header}.v1+json"));
            }
            range => headers.push(format!("Content-Range: {range}")),
        }
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let reply = server.ask(method, &target(to), &headers, &body(sent));
        let text = String::from_utf8_lossy(&reply.body);
        assert_eq!(reply.status.to_string(), status, "{row}: {text}");
        let after = snapshot(&server.dir());
        let changed: Vec<_> = after.iter().filter(|it| before.get(it.0) != Some(it.1)).collect();
        assert!(after == before, "{row}: changed {changed:?}");
    }
    // Two framings, and a head that is too long.
    let smuggled = format!(
        "POST {upload} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    );
    raw(server.address(), smuggled.as_bytes());
    let flood = format!("POST {upload} HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    raw(server.address(), flood.as_bytes());
    assert_eq!(snapshot(&server.dir()), before);
    // The upload goes on where it was, and what was refused can be pushed by who may.
    let whole = Digest::sha256_of(b"fourmore");
    server.push("PUT", &format!("{upload}?digest={whole}"), &[], b"more").expect(201);
    server.push_manifest("a", "v2", &new);
    let first = server.get("/v2/a/manifests/v1").expect(200);
    assert_eq!(first.header("docker-content-digest"), Some(&*held));
}

/// Tokens have repositories: who builds one product pushes neither another one nor the metadata,
/// and takes no bytes by a mount that he may not pull.
#[test]
fn tokens_are_for_their_repositories() {
    let [demo, reader] = ["demo-push-token-for-tests", "demo-pull-token-for-tests"];
    let server = Fixture::with(|config| {
        let tokens = config.push_tokens.clone().unwrap();
        common::write_private(&tokens, &format!("{TOKEN}\ndemo demo/* {demo}\n"));
        let pull = config.dir.with_file_name("pull-tokens");
        common::write_private(&pull, &format!("demo/* {reader}\n"));
        config.pull_tokens = Some(pull);
    });
    let secret = server.push_blob("secret", b"not for everybody");
    let own = server.push_blob("demo/os", b"an image");
    let ask = |token: &str, method: &str, target: &str, body: &[u8]| {
        server.ask(method, target, &[&format!("Authorization: Bearer {token}")], body)
    };
    for (row, token, method, target, status) in [
        ("its product", demo, "POST", "/v2/demo/blobs/uploads/".to_owned(), 202),
        ("below it", demo, "POST", "/v2/demo/os/blobs/uploads/".to_owned(), 202),
        ("another", demo, "POST", "/v2/tuf/blobs/uploads/".to_owned(), 403),
        ("a word that begins alike", demo, "POST", "/v2/demo2/blobs/uploads/".to_owned(), 403),
        ("reads its own", demo, "GET", format!("/v2/demo/os/blobs/{own}"), 200),
        ("reads nothing else", demo, "GET", format!("/v2/secret/blobs/{secret}"), 403),
        ("pulls", reader, "GET", format!("/v2/demo/os/blobs/{own}"), 200),
        ("pulls nothing else", reader, "GET", format!("/v2/secret/blobs/{secret}"), 403),
        ("nor lists it", reader, "GET", "/v2/secret/tags/list".to_owned(), 403),
        ("nor what is about all", reader, "GET", "/metrics".to_owned(), 403),
        (
            "mounts its own",
            demo,
            "POST",
            format!("/v2/demo/blobs/uploads/?mount={own}&from=demo/os"),
            201,
        ),
        (
            "mounts nothing else",
            demo,
            "POST",
            format!("/v2/demo/blobs/uploads/?mount={secret}&from=secret"),
            202,
        ),
        ("nor from anywhere", demo, "POST", format!("/v2/demo/blobs/uploads/?mount={secret}"), 202),
        ("and has not got it", demo, "GET", format!("/v2/demo/blobs/{secret}"), 404),
    ] {
        let reply = ask(token, method, &target, b"");
        assert_eq!(reply.status, status, "{row}: {}", String::from_utf8_lossy(&reply.body));
    }
}

/// 202: tokens are opaque; nothing a client writes into one is believed.
#[test]
fn forged_tokens() {
    let server = Fixture::new();
    let base64 = |text: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
    };
    let claims = base64(r#"{"aud":"repo","access":[{"type":"repository","actions":["push"]}]}"#);
    let mut forged = Vec::new();
    for head in [
        r#"{"alg":"none"}"#,
        r#"{"alg":"HS256","jwk":{"kty":"oct","k":"AAAA"}}"#,
        r#"{"alg":"HS256","kid":"../../tokens"}"#,
        r#"{"alg":"HS256","kid":"/dev/null"}"#,
        r#"{"alg":"RS256","jku":"http://127.0.0.1/keys"}"#,
    ] {
        forged.push(format!("{}.{claims}.", base64(head)));
        forged.push(format!("{}.{claims}.{}", base64(head), base64("signature")));
    }
    forged.extend([
        TOKEN.to_uppercase(),
        format!("{TOKEN}x"),
        format!("x{TOKEN}"),
        TOKEN[..TOKEN.len() - 1].to_owned(),
        format!("sha256:{}", formats::digest::Sha256::of(TOKEN.as_bytes())),
        "\u{fffd}".repeat(1000),
    ]);
    for token in forged {
        for scheme in ["Bearer", "Basic", "bearer", "Negotiate"] {
            let header = format!("Authorization: {scheme} {token}");
            let reply = server.ask("POST", "/v2/a/blobs/uploads/", &[&header], &[]);
            assert_eq!(reply.status, 401, "{header}");
        }
    }
    assert_eq!(common::uploads(&server.dir()), 0);
}

/// 209: a thousand connections that do nothing, or too slowly, and an honest client beside them.
#[test]
fn honest_clients_do_not_wait_for_slow_ones() {
    // All are of one address here.
    let server = Fixture::with(|config| config.limits.client_connections = 2048);
    let digest = server.push_blob("a", &noise(2000));
    let target = format!("/v2/a/blobs/{digest}");
    let worst = || {
        let mut times: Vec<_> = (0..200)
            .map(|_| {
                let begun = Instant::now();
                server.get(&target).expect(200);
                begun.elapsed()
            })
            .collect();
        times.sort_unstable();
        times[times.len() * 95 / 100]
    };
    let alone = worst();
    let slow: Vec<_> = (0..999)
        .map(|i| {
            let mut stream = TcpStream::connect(server.address()).unwrap();
            let said = ["", "GET /v2/ HTTP/1.1\r\nHo", "POST /v2/a/blobs/uploads/ HTTP/1.1\r\n"];
            stream.write_all(said[i % 3].as_bytes()).unwrap();
            stream
        })
        .collect();
    let crowded = worst();
    // Neighbours on the machine make times jump; a server that waits for the slow ones needs as long as they
    // may take, which is many seconds.
    let most = (20 * alone).max(Duration::from_secs(2));
    assert!(crowded < most, "alone {alone:?}, crowded {crowded:?}");
    drop(slow);
}

/// 215: bytes that rot or were torn never leave under a digest they do not have.
#[test]
fn rotten_blobs_are_not_served() {
    let server = Fixture::new();
    let (small, large) = (noise(1000), noise(300_000));
    let manifest = server.push_artifact("a", "v1", &[&small, &large]);
    let mut victims = vec![];
    for bytes in [&small, &large] {
        let digest = Digest::sha256_of(bytes);
        server.get(&format!("/v2/a/blobs/{digest}")).expect(200);
        victims.push((digest, bytes.clone()));
    }
    // Bits flip while nobody looks.
    let server = server.restarted(|config| {
        let dir = config.dir.clone();
        for (digest, bytes) in &victims {
            let mut rotten = bytes.clone();
            let middle = rotten.len() / 2;
            rotten[middle] ^= 1;
            std::fs::write(dir.join("blobs/sha256").join(digest.hex()), rotten).unwrap();
        }
    });
    for (digest, bytes) in &victims {
        let target = format!("/v2/a/blobs/{digest}");
        for method in ["HEAD", "GET"] {
            server.ask(method, &target, &["Range: bytes=0-9"], &[]).expect(404);
        }
        // Who pushes it again heals it.
        server.push_blob("a", bytes);
        assert_eq!(&server.get(&target).expect(200).body, bytes);
        // A torn file is noticed by its length, while the server runs.
        let path = server.blob_path(digest);
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let reply = server.get(&target);
        let unharmed = reply.status == 200 && reply.body == *bytes;
        assert!(reply.status == 404 || unharmed, "{}", reply.status);
        std::fs::write(&path, bytes).unwrap();
    }
    // A rotten manifest takes its tag with it.
    let server = server.restarted(|config| {
        let path = config.dir.join("blobs/sha256").join(manifest.hex());
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.push(b' ');
        std::fs::write(&path, bytes).unwrap();
    });
    server.get("/v2/a/manifests/v1").expect_error(404, "MANIFEST_UNKNOWN");
}

/// 216: links and foreign files in the storage are not followed and not served.
#[test]
fn planted_files_are_not_served() {
    let server = Fixture::new();
    let secret = b"a secret of the machine".to_vec();
    let outside = server.temp.path().join("secret");
    std::fs::write(&outside, &secret).unwrap();
    // The right bytes, but through a link: still not ours.
    let digest = server.push_blob("a", &secret);
    let path = server.blob_path(&digest);
    std::fs::remove_file(&path).unwrap();
    symlink(&outside, &path).unwrap();
    let server = server.restarted(|_| {});
    server.get(&format!("/v2/a/blobs/{digest}")).expect_error(404, "BLOB_UNKNOWN");
    // A pipe does not make the server wait.
    std::fs::remove_file(&path).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    server.get(&format!("/v2/a/blobs/{digest}")).expect_error(404, "BLOB_UNKNOWN");
    // Bytes without a link are in no repository.
    let orphan = Digest::sha256_of(b"orphan");
    std::fs::write(server.blob_path(&orphan), b"orphan").unwrap();
    server.get(&format!("/v2/a/blobs/{orphan}")).expect(404);
    server.push("POST", &format!("/v2/b/blobs/uploads/?mount={orphan}"), &[], &[]).expect(202);
}

/// 214: what would have to be unpacked is not taken.
#[test]
fn encoded_bodies_are_refused() {
    let server = Fixture::new();
    let location = server.start_upload("a");
    let digest = Digest::sha256_of(b"x");
    for encoding in ["gzip", "zstd", "br", "deflate, gzip"] {
        let header = format!("Content-Encoding: {encoding}");
        for (method, target) in [
            ("PATCH", location.clone()),
            ("PUT", format!("{location}?digest={digest}")),
            ("POST", format!("/v2/a/blobs/uploads/?digest={digest}")),
            ("PUT", "/v2/a/manifests/v1".to_owned()),
        ] {
            server.push(method, &target, &[&header], b"x").expect_error(415, "UNSUPPORTED");
        }
    }
    let identity = "Content-Encoding: identity";
    server.push("PUT", &format!("{location}?digest={digest}"), &[identity], b"x").expect(201);
}

/// 207, 205: sizes are bounded, before and while bytes come.
#[test]
fn blobs_have_a_size_limit() {
    let server = Fixture::with(|config| config.limits.blob_bytes = 100_000);
    let digest = server.push_blob("a", &noise(100_000));
    let location = server.start_upload("a");
    server.push("PATCH", &location, &[], &noise(100_001)).expect_error(413, "SIZE_INVALID");
    server.push("PATCH", &location, &[], &noise(60_000)).expect(202);
    server.push("PATCH", &location, &[], &noise(60_000)).expect_error(413, "SIZE_INVALID");
    // A stream without an announced length is cut off, and its session is gone.
    let mut chunked = format!("{:x}\r\n", 60_000).into_bytes();
    chunked.extend_from_slice(&noise(60_000));
    chunked.extend_from_slice(b"\r\n0\r\n\r\n");
    server.push("PATCH", &location, &["Transfer-Encoding: chunked"], &chunked).expect(413);
    server.push("GET", &location, &[], &[]).expect(404);
    server.get(&format!("/v2/a/blobs/{digest}")).expect(200);
    assert_eq!(common::uploads(&server.dir()), 0);
}

/// 205: abandoned sessions are bounded in number and in time.
#[test]
fn abandoned_uploads_end() {
    let server = Fixture::with(|config| {
        config.limits.sessions = 5;
        config.limits.session_expiry = MOMENT;
    });
    let locations: Vec<_> = (0..5).map(|_| server.start_upload("a")).collect();
    server.push("PATCH", &locations[0], &[], b"bytes").expect(202);
    let reply = server.push("POST", "/v2/a/blobs/uploads/", &[], &[]);
    let reply = reply.expect_error(429, "TOOMANYREQUESTS");
    assert!(reply.header("retry-after").is_some());
    common::until("the upload to expire", || common::uploads(&server.dir()) == 0);
    server.push("GET", &locations[0], &[], &[]).expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    server.start_upload("a");
}

/// 208: heads have a size.
#[test]
fn header_floods() {
    let server = Fixture::new();
    let ask = |headers: &str| {
        let request = format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        parse(&raw(server.address(), request.as_bytes()), "GET").unwrap().status
    };
    assert_eq!(ask("Connection: close\r\n"), 200);
    assert_eq!(ask(&format!("Cookie: {}\r\n", "x".repeat(1 << 20))), 431);
    assert_eq!(ask(&"X: y\r\n".repeat(10_000)), 431);
    let uri = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(100_000));
    let status = parse(&raw(server.address(), uri.as_bytes()), "GET").unwrap().status;
    assert!(matches!(status, 414 | 431), "{status}");
    server.get("/healthz").expect(200);
}

/// 212: one body, one framing.
#[test]
fn smuggling() {
    let server = Fixture::new();
    let second = "GET /v2/smuggled/tags/list HTTP/1.1\r\nHost: x\r\n\r\n";
    for framing in [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "X: a\r\n b\r\n",
        "X : a\r\n",
    ] {
        let request = format!(
            "POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\n{framing}\r\n0\r\n\r\n{second}"
        );
        let reply = raw(server.address(), request.as_bytes());
        let text = String::from_utf8_lossy(&reply);
        let status = parse(&reply, "GET").map(|_| &text[9..12]);
        // Refused, or taken as one request by the rule of RFC 9112 §6.3 (then without credentials).
        assert!(matches!(status, Some("400" | "401")) || reply.is_empty(), "{framing:?}: {text}");
        if status == Some("400") {
            assert!(
                !text.contains("smuggled"),
                "{framing:?} lets a second request through: {text}"
            );
        }
    }
}

/// 212: what may be said once is not said twice; nothing is stored for who tries.
#[test]
fn heads_that_say_a_thing_twice() {
    let server = Fixture::new();
    let before = server.stored();
    let digest = Digest::sha256_of(b"x");
    let bearer = format!("Authorization: Bearer {TOKEN}");
    let other = "Authorization: Bearer another-token-for-tests";
    let kind = "Content-Type: application/vnd.oci.image.manifest.v1+json";
    let upload = format!("/v2/a/blobs/uploads/?digest={digest}");
    let twice = format!("{upload}&digest={}", Digest::sha256_of(b"y"));
    for (target, headers) in [
        (upload.as_str(), vec![bearer.as_str(), other]),
        (&upload, vec![&bearer, &bearer]),
        (&upload, vec![&bearer, "Content-Type: a/b", "Content-Type: a/c"]),
        (&upload, vec![&bearer, "Content-Range: 0-0", "Content-Range: 1-1"]),
        (&upload, vec![&bearer, "Host: another"]),
        (&upload, vec![&bearer, "Content-Length: 2"]),
        (&twice, vec![&bearer]),
    ] {
        let reply = server.ask("POST", target, &headers, b"x");
        assert_eq!(reply.status, 400, "{target} {headers:?}");
    }
    let reply = server.push("PUT", "/v2/a/manifests/v1", &[kind, kind], b"{}");
    assert_eq!(reply.status, 400);
    server.ask("GET", "/healthz", &["Range: bytes=0-1", "Range: bytes=5-6"], &[]).expect(400);
    assert_eq!(server.stored(), before);
    server.push("POST", &upload, &["Accept: a/b", "Accept: a/c"], b"x").expect(201);
}

/// Nothing that is stored here is a page to a browser: not by its type, and not by guessing.
#[test]
fn stored_pages_are_inert() {
    let server = Fixture::new();
    let page = br#"{"layers":[],"x":"<script>alert(1)</script>"}"#;
    for kind in ["text/html", "image/svg+xml", "application/xhtml+xml", "text/x+json", "*/*"] {
        server.push_typed("a", "v1", kind, page).expect_error(400, "MANIFEST_INVALID");
        let inside = format!(r#"{{"mediaType":"{kind}","layers":[]}}"#);
        let put = server.push("PUT", "/v2/a/manifests/v1", &[], inside.as_bytes());
        put.expect_error(400, "MANIFEST_INVALID");
    }
    for kind in [
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.oci.image.index.v1+json; charset=utf-8",
        "application/json",
    ] {
        server.push_typed("a", "v1", kind, page).expect(201);
    }
    // Somebody else wrote the directory.
    let layout = server.layout();
    let other = br#"{"layers":[],"x":"<script>alert(2)</script>"}"#;
    layout.put_blob(other).unwrap();
    let entry = formats::oci::Descriptor::of("text/html", other);
    layout.set_refs(&[("a:v2".to_owned(), Some(entry))]).unwrap();
    let reply = server.get("/v2/a/manifests/v2").expect(200);
    assert_eq!(reply.header("content-type"), Some("application/octet-stream"));
    let blob = server.push_blob("a", page);
    for target in [&format!("/v2/a/blobs/{blob}"), "/v2/a/manifests/v2", "/nothing", "/healthz"] {
        let reply = server.get(target);
        let policy = Some("default-src 'none'; sandbox");
        assert_eq!(reply.header("content-security-policy"), policy, "{target}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{target}");
    }
}

/// 205: an upload nobody goes on with holds no descriptor, and can still be gone on with.
#[test]
fn abandoned_uploads_hold_nothing_open() {
    let server = Fixture::with(|config| config.limits.upload_rest = MOMENT);
    let bytes = noise(300_000);
    let digest = Digest::sha256_of(&bytes);
    let open = || {
        let files = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let paths = files.filter_map(|file| std::fs::read_link(file.path()).ok());
        let ours = paths.filter(|path| path.starts_with(server.dir()));
        ours.filter(|path| path.components().any(|part| part.as_os_str() == "_uploads")).count()
    };
    let locations: Vec<_> = (0..5).map(|_| server.start_upload("a")).collect();
    for location in &locations {
        server.push("PATCH", location, &[], &bytes[..100_000]).expect(202);
    }
    assert!(open() >= 5, "the search finds what is open");
    common::until("uploads to be closed", || open() == 0);
    let status = server.push("GET", &locations[0], &[], &[]).expect(204);
    assert_eq!(status.header("range"), Some("0-99999"));
    server.push(
        "PATCH",
        &locations[0],
        &["Content-Range: 100000-199999"],
        &bytes[100_000..200_000],
    );
    common::until("the upload to be closed again", || open() == 0);
    let rest = "Content-Range: 200000-299999";
    let last = format!("{}?digest={digest}", locations[0]);
    server.push("PUT", &last, &[rest], &bytes[200_000..]).expect(201);
    assert_eq!(server.get(&format!("/v2/a/blobs/{digest}")).expect(200).body, bytes);
}

/// 206: whatever an upload is refused for, the storage is as it was.
#[test]
fn refused_uploads_leave_nothing() {
    let server = Fixture::with(|config| {
        config.limits.blob_bytes = 50_000;
        config.quota.total = Some(60_000);
    });
    server.push_blob("a", &noise(20_000));
    let location = server.start_upload("a");
    server.push("PATCH", &location, &[], b"0123456789").expect(202);
    let before = server.stored();
    let right = |bytes: &[u8]| format!("?digest={}", Digest::sha256_of(bytes));
    let (much, more) = (noise(45_000), noise(50_001));
    let short = "Content-Range: 10-18";
    let early = "Content-Range: 0-9";
    let whole = "/v2/b/blobs/uploads/";
    for (name, method, target, headers, body, status) in [
        ("another digest", "POST", format!("{whole}{}", right(b"y")), vec![], &b"x"[..], 400),
        ("a quota", "POST", format!("{whole}{}", right(&much)), vec![], &much, 403),
        ("too large", "POST", format!("{whole}{}", right(&more)), vec![], &more, 413),
        (
            "encoded",
            "POST",
            format!("{whole}{}", right(b"x")),
            vec!["Content-Encoding: gzip"],
            b"x",
            415,
        ),
        ("in the middle", "PATCH", location.clone(), vec![early], b"0123456789", 416),
        ("another length", "PATCH", location.clone(), vec![short], b"0123456789", 400),
        (
            "another length",
            "PUT",
            format!("{location}{}", right(b"x")),
            vec![short],
            b"0123456789",
            400,
        ),
    ] {
        let reply = server.push(method, &target, &headers, body);
        assert_eq!(reply.status, status, "{name}");
        assert_eq!(server.stored(), before, "{name}");
    }
    server.push("PUT", &format!("{location}{}", right(b"0123456789")), &[], &[]).expect(201);
}

/// 209: nobody holds a connection for nothing. Each is closed by its own rule.
#[test]
fn slow_clients_are_let_go() {
    let server = Fixture::with(|config| {
        config.limits.head = MOMENT;
        config.limits.idle = MOMENT;
        config.limits.stall = 2 * MOMENT;
        config.limits.rate_window = 2 * MOMENT;
        config.limits.min_rate = 1 << 20;
    });
    let bearer = format!("Authorization: Bearer {TOKEN}");
    let location = server.start_upload("a");
    let head =
        format!("PATCH {location} HTTP/1.1\r\nHost: x\r\n{bearer}\r\nContent-Length: 9999999");
    for (name, said) in [
        ("never a byte", String::new()),
        ("half a head", "GET /healthz HTTP/1.1\r\nHost".to_owned()),
        ("idle after a request", "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".to_owned()),
        ("half a body", format!("{head}\r\n\r\nsome bytes")),
    ] {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.write_all(said.as_bytes()).unwrap();
        wait_for_close(&mut stream, name, &[]);
    }
    // A body that trickles moves all the time, and is still too slow.
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.write_all(format!("{head}\r\n\r\n").as_bytes()).unwrap();
    wait_for_close(&mut stream, "trickling body", b"x");
    // A reader that takes nothing.
    let large = server.push_blob("a", &noise(32 << 20));
    let mut stream = TcpStream::connect(server.address()).unwrap();
    write!(stream, "GET /v2/a/blobs/{large} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    std::thread::sleep(6 * MOMENT);
    let mut got = Vec::new();
    let _ = stream.read_to_end(&mut got);
    assert!(got.len() < 32 << 20, "a reader that stalled was waited for");
    server.get("/healthz").expect(200);
}

/// Reads until the server closes, now and then sending `trickle`.
fn wait_for_close(stream: &mut TcpStream, name: &str, trickle: &[u8]) {
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let begun = Instant::now();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
        if !trickle.is_empty() && stream.write_all(trickle).is_err() {
            return;
        }
        assert!(begun.elapsed() < common::PATIENCE, "{name}: still open");
    }
}

/// 205: a client that dies in mid-upload leaves nothing anybody sees, and can go on.
#[test]
fn a_broken_upload_is_invisible_and_resumable() {
    let server = Fixture::new();
    let bytes = noise(1 << 20);
    let digest = Digest::sha256_of(&bytes);
    let location = server.start_upload("a");
    let mut stream = TcpStream::connect(server.address()).unwrap();
    let head = format!(
        "PATCH {location} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {}\r\n\r\n",
        bytes.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&bytes[..700_000]).unwrap();
    drop(stream);
    server.get(&format!("/v2/a/blobs/{digest}")).expect(404);
    let stored = || -> Option<usize> {
        let reply = server.push("GET", &location, &[], &[]).expect(204);
        reply.header("range")?.strip_prefix("0-")?.parse().ok()
    };
    common::until("what came before the break", || stored() == Some(699_999));
    let rest = format!("Content-Range: 700000-{}", bytes.len() - 1);
    server
        .push("PUT", &format!("{location}?digest={digest}"), &[&rest], &bytes[700_000..])
        .expect(201);
    assert_eq!(server.get(&format!("/v2/a/blobs/{digest}")).expect(200).body, bytes);
}

/// 218 in small: more clients than places; each gets its turn.
#[test]
fn more_connections_than_places() {
    let server = Fixture::with(|config| {
        config.limits.connections = 2;
        config.limits.head = MOMENT;
    });
    let squatters: Vec<_> =
        (0..10).map(|_| TcpStream::connect(server.address()).unwrap()).collect();
    server.get("/healthz").expect(200);
    drop(squatters);
}

/// One writer per directory; readers as many as like.
#[test]
fn two_servers_do_not_write_one_directory() {
    let server = Fixture::new();
    let mut config = common::config(&server.temp, |_| {});
    let error = repo_server::start(config.clone()).unwrap_err();
    assert_eq!(error.reason(), formats::reason::Reason::Busy);
    config.read_only = true;
    let reader = repo_server::start(config).unwrap();
    let digest = server.push_artifact("a", "v1", &[b"layer"]);
    // The other process's tag is seen at once.
    let reply = common::exchange(reader.local_addr(), "GET", "/v2/a/manifests/v1", &[], &[]);
    assert_eq!(
        reply.expect(200).header("docker-content-digest"),
        Some(digest.to_string().as_str())
    );
}
