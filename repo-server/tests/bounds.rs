//! What all clients together may use up, measured from outside while they ask for as much as they
//! may and take nothing: memory has a bound as a sum, and an honest client is served meanwhile.
#![allow(clippy::unwrap_used, reason = "these are tests, and so are their parts")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use common::h2::{frame, get};
use common::keys::{Keys, client, keys};
use common::program::{Program, in_directory};
use common::{TOKEN, noise};
use formats::digest::Digest;
use rustix::process::{Resource, getrlimit, setrlimit};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Stream, version};

/// From one address.
const CROWD: usize = 2048;
/// What the server may have resident, in MiB, and what of it may stay when all have gone.
const MOST: usize = 256;
const AFTERWARDS: usize = 128;
/// What the kernel may keep of answers for each connection, in KiB: what it has not sent yet, and
/// what is on its way to a client that reads nothing.
const QUEUED: usize = 96;
/// Larger than anything a server or a socket keeps of one answer.
const BLOB: usize = 16 << 20;

/// What the connections of a crowd say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    Plain,
    Tls,
    Http2,
}

struct Attack {
    keys: Keys,
    server: Program,
    path: String,
    _temp: tempfile::TempDir,
}

impl Attack {
    /// A server on which one address may have all of a crowd's connections, and a blob.
    fn prepare(says: Says) -> Self {
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum.or(Some(20_000));
        // Inherited by the server, too.
        setrlimit(Resource::Nofile, limit).unwrap();
        let temp = tempfile::tempdir().unwrap();
        let keys = keys(temp.path());
        let mut args = vec!["--client-connections", "4096", "--max-connections", "4096"];
        args.extend(["--client-rate", "0"]);
        let files = [&keys.files.certificate, &keys.files.key].map(|it| it.to_str().unwrap());
        if says != Says::Plain {
            args.extend(["--tls-cert", files[0], "--tls-key", files[1]]);
        }
        let server = Program::start(temp.path(), &in_directory(temp.path()), &args);
        let attack = Attack { keys, server, path: String::new(), _temp: temp };
        let bytes = noise(BLOB);
        let digest = Digest::sha256_of(&bytes);
        let head = format!(
            "POST /v2/a/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Authorization: Bearer {TOKEN}\r\nContent-Length: {BLOB}\r\n\r\n"
        );
        let answer = attack.honest(says, &[head.as_bytes(), &bytes].concat());
        assert!(answer.starts_with(b"HTTP/1.1 201"), "{}", String::from_utf8_lossy(&answer));
        Attack { path: format!("/v2/a/blobs/{digest}"), ..attack }
    }

    fn config(&self, protocol: &[u8]) -> Arc<ClientConfig> {
        let mut config = client(&self.keys, &[&version::TLS13], false);
        config.alpn_protocols = vec![protocol.to_vec()];
        Arc::new(config)
    }

    /// One exchange of somebody else, who reads all of the answer.
    fn honest(&self, says: Says, request: &[u8]) -> Vec<u8> {
        let from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
        let mut socket = common::connect_from(from, self.server.address).unwrap();
        let mut answer = Vec::new();
        if says == Says::Plain {
            socket.write_all(request).unwrap();
            // A server that closes at once resets what it did not read; what it said has come.
            let _ = socket.read_to_end(&mut answer);
        } else {
            let name = ServerName::try_from("127.0.0.1").unwrap();
            let mut tls = ClientConnection::new(self.config(b"http/1.1"), name).unwrap();
            let mut stream = Stream::new(&mut tls, &mut socket);
            stream.write_all(request).unwrap();
            // A server that ends without a last word of TLS has still said all of it.
            let _ = stream.read_to_end(&mut answer);
        }
        answer
    }

    /// Connections that ask for the blob as often as they may and read nothing.
    fn crowd(&self, says: Says, number: usize) -> Vec<TcpStream> {
        let config = self.config(if says == Says::Http2 { b"h2" } else { b"http/1.1" });
        let each = number / 4;
        std::thread::scope(|scope| {
            let parts: Vec<_> = (0..4)
                .map(|_| {
                    let config = Arc::clone(&config);
                    scope.spawn(move || {
                        (0..each).filter_map(|_| self.squat(says, &config)).collect::<Vec<_>>()
                    })
                })
                .collect();
            parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
        })
    }

    /// One of them; `None` when the server refuses it.
    fn squat(&self, says: Says, config: &Arc<ClientConfig>) -> Option<TcpStream> {
        let mut socket = TcpStream::connect(self.server.address).ok()?;
        socket.set_read_timeout(Some(common::PATIENCE)).unwrap();
        let again = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", self.path).repeat(16);
        if says == Says::Plain {
            socket.write_all(again.as_bytes()).ok()?;
            return Some(socket);
        }
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let mut tls = ClientConnection::new(Arc::clone(config), name).unwrap();
        let mut stream = Stream::new(&mut tls, &mut socket);
        if says == Says::Tls {
            stream.write_all(again.as_bytes()).ok()?;
            return Some(socket);
        }
        // The largest windows there are: what the server sends is bounded by itself alone.
        let mut said = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        said.extend(frame(4, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]));
        said.extend(frame(8, 0, 0, &0x7fff_0000_u32.to_be_bytes()));
        stream.write_all(&said).ok()?;
        let mut settings = [0; 9];
        stream.read_exact(&mut settings).ok()?;
        let mut allowed = vec![0; usize::from(settings[2])];
        stream.read_exact(&mut allowed).ok()?;
        let streams = allowed.chunks(6).find(|it| it[..2] == [0, 3]).map_or(100, |it| it[5]);
        let ask = |i: u32| frame(1, 5, 2 * i + 1, &get(&self.path));
        let all: Vec<u8> = (0..u32::from(streams)).flat_map(ask).collect();
        stream.write_all(&all).ok()?;
        Some(socket)
    }

    /// KiB of answers in the server's sockets.
    fn queued(&self) -> usize {
        let port = format!(":{:04X}", self.server.address.port());
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        // proc(5): the local address, the other one, the state, and both queues.
        let queue = |line: &str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let bytes = fields.get(4)?.split(':').next()?;
            fields[1].ends_with(&port).then(|| usize::from_str_radix(bytes, 16).unwrap())
        };
        table.lines().filter_map(queue).sum::<usize>() >> 10
    }

    /// Waits until nothing grows any more.
    fn settle(&self) {
        let (mut peak, mut same) = (0, 0);
        while same < 10 {
            std::thread::sleep(Duration::from_millis(100));
            let now = self.server.peak();
            same = if now == peak { same + 1 } else { 0 };
            peak = now;
        }
    }
}

/// The most that was resident while they were there; afterwards it goes back to less.
fn measure(says: Says, number: usize) -> usize {
    let attack = Attack::prepare(says);
    let (before, descriptors) = (attack.server.resident(), attack.server.descriptors());
    let crowd = attack.crowd(says, number);
    attack.settle();
    let request = format!("GET {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", attack.path);
    let answer = attack.honest(says, request.as_bytes());
    assert!(answer.len() > BLOB, "an honest client got {} bytes", answer.len());
    let (held, peak, queued) = (crowd.len(), attack.server.peak(), attack.queued());
    assert!(queued <= held * QUEUED, "the kernel holds {} MiB", queued >> 10);
    drop(crowd);
    common::until("connections to go", || attack.server.descriptors() <= descriptors + 5);
    common::until("memory to go back", || attack.server.resident() <= AFTERWARDS);
    let after = attack.server.resident();
    println!(
        "{says:?}: {before} MiB before, {peak} with {held} connections, {after} afterwards; \
         {} MiB in sockets",
        queued >> 10
    );
    peak
}

#[test]
fn http_1_clients_that_read_nothing() {
    let peak = measure(Says::Plain, CROWD);
    assert!(peak <= MOST, "{peak} MiB");
}

#[test]
fn tls_clients_that_read_nothing() {
    let peak = measure(Says::Tls, CROWD);
    assert!(peak <= MOST, "{peak} MiB");
}

#[test]
fn http_2_clients_that_read_nothing() {
    let peak = measure(Says::Http2, CROWD);
    assert!(peak <= MOST, "{peak} MiB");
}
