//! What the server uses up, measured from outside: connections by the thousand, and clients that
//! push and pull large blobs at once.
#![allow(clippy::unwrap_used, reason = "these are tests, and so are their parts")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use common::program::{Program, in_directory};
use common::{TOKEN, noise};
use formats::digest::Digest;
use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process, setrlimit};

const MIB: usize = 1 << 20;

/// 218: ten thousand connections cost bounded memory, leak no descriptor, and end in order.
#[test]
fn ten_thousand_connections() {
    const CROWD: usize = 10_000;
    let mut limit = getrlimit(Resource::Nofile);
    let enough = Some(CROWD as u64 + 500);
    assert!(limit.maximum.is_none() || limit.maximum >= enough, "raise `ulimit -Hn`: {limit:?}");
    limit.current = limit.maximum.or(enough);
    // Inherited by the server, too.
    setrlimit(Resource::Nofile, limit).unwrap();
    let temp = tempfile::tempdir().unwrap();
    let all = "12000";
    let most = ["--max-connections", all, "--client-connections", all, "--client-rate", "0"];
    let server = Program::start(temp.path(), &in_directory(temp.path()), &most);
    let (before, memory) = (server.descriptors(), server.resident());
    let mut crowded = 0;
    for _ in 0..2 {
        let mut crowd: Vec<_> =
            (0..CROWD).map(|_| TcpStream::connect(server.address).unwrap()).collect();
        for stream in &mut crowd {
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        }
        for stream in &mut crowd {
            stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200");
        }
        assert!(server.descriptors() >= CROWD, "they are not all there at once");
        crowded = crowded.max(server.resident());
    }
    common::until("the connections to go", || server.descriptors() <= before + 10);
    println!("10,000 connections: {memory} MiB before, {crowded} MiB with them");
    // 25 KiB each in a build without optimisation.
    assert!(crowded - memory < 320, "{crowded} MiB, {memory} before");
    let mut server = server;
    kill_process(Pid::from_child(&server.child), Signal::TERM).unwrap();
    assert!(server.child.wait().unwrap().success());
}

/// Sixteen clients push a blob each, of their own, and then pull each other's, all at once.
fn many_clients(server: &Program, bytes: usize) -> usize {
    let content = Arc::new(noise(bytes));
    let each = |work: fn(SocketAddr, &[u8], u64) -> (), shift: u64| {
        std::thread::scope(|scope| {
            for nth in 0..16_u64 {
                let (content, address) = (Arc::clone(&content), server.address);
                scope.spawn(move || work(address, &content, (nth + shift) % 16));
            }
        });
    };
    each(push, 0);
    let pushed = server.peak();
    each(pull, 5);
    println!(
        "16 x {} MiB: peak {pushed} MiB after pushing, {} after pulling",
        bytes / MIB,
        server.peak()
    );
    server.peak()
}

fn digest_of(nth: u64, content: &[u8]) -> Digest {
    let mut hasher = formats::digest::Algorithm::Sha256.hasher();
    hasher.update(&nth.to_le_bytes());
    hasher.update(&content[8..]);
    hasher.finish()
}

fn push(address: SocketAddr, content: &[u8], nth: u64) {
    let digest = digest_of(nth, content);
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "POST /v2/a/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Authorization: Bearer {TOKEN}\r\nContent-Length: {}\r\n\r\n",
        content.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&nth.to_le_bytes()).unwrap();
    stream.write_all(&content[8..]).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 201"), "{}", String::from_utf8_lossy(&answer));
}

fn pull(address: SocketAddr, content: &[u8], nth: u64) {
    let digest = digest_of(nth, content);
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!("GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let (mut buf, mut got) = (vec![0; 256 << 10], 0);
    loop {
        match stream.read(&mut buf).unwrap() {
            0 => break,
            more => got += more,
        }
    }
    assert!(got > content.len(), "{got} bytes");
}

/// Sixteen clients push 200 MiB each and pull each other's, and memory stays below 64 MiB.
#[test]
fn sixteen_clients_with_200_mib_each() {
    let temp = tempfile::tempdir().unwrap();
    let server = Program::start(temp.path(), &in_directory(temp.path()), &[]);
    let peak = many_clients(&server, 200 * MIB);
    assert!(peak < 64, "{peak} MiB");
}

/// A bucket takes parts of 5 MiB or more, so that much is held for each upload, and for four parts
/// on their way.
#[test]
fn sixteen_clients_and_a_bucket() {
    let temp = tempfile::tempdir().unwrap();
    let place = common::bucket::place_for(temp.path());
    let place = vec![
        "--s3".to_owned(),
        format!("{}/{}", place.bucket, place.prefix),
        "--s3-endpoint".to_owned(),
        place.endpoint.unwrap().to_string(),
        "--s3-credentials".to_owned(),
        place.credentials.unwrap().to_str().unwrap().to_owned(),
    ];
    let server = Program::start(temp.path(), &place, &[]);
    let peak = many_clients(&server, 24 * MIB);
    assert!(peak < 256, "{peak} MiB");
}
