//! What the system has no more of: descriptors, room in a file, address space, somewhere to print.
//! One error with its code, nothing half done, and honest clients are served afterwards.
#![allow(clippy::unwrap_used, reason = "these are tests, and so are their parts")]

mod common;

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;

use common::program::{Program, in_directory};
use common::{TOKEN, exchange, noise};
use formats::digest::Digest;

/// The program under a limit of the shell's `ulimit`.
fn limited(limit: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit {limit} && exec \"$0\" \"$@\"")]);
    command.arg(env!("CARGO_BIN_EXE_repo-server"));
    command
}

fn start(temp: &tempfile::TempDir, limit: &str) -> Program {
    Program::start_as(limited(limit), temp.path(), &in_directory(temp.path()), &[])
}

fn push(server: &Program, bytes: &[u8]) -> common::Reply {
    let target = format!("/v2/a/blobs/uploads/?digest={}", Digest::sha256_of(bytes));
    let bearer = format!("Authorization: Bearer {TOKEN}");
    exchange(server.address, "POST", &target, &[&bearer], bytes)
}

fn pull(server: &Program, bytes: &[u8]) -> common::Reply {
    let target = format!("/v2/a/blobs/{}", Digest::sha256_of(bytes));
    exchange(server.address, "GET", &target, &[], &[])
}

/// Idle connections take all descriptors: those of whoever has most go, and a newcomer is served.
#[test]
fn no_descriptor_is_left() {
    let temp = tempfile::tempdir().unwrap();
    let server = start(&temp, "-n 64");
    let bytes = noise(200_000);
    push(&server, &bytes).expect(201);
    let crowd: Vec<TcpStream> = (0..200)
        .filter_map(|_| {
            let from = Ipv4Addr::new(127, 0, 0, 3).into();
            let mut stream = common::connect_from(from, server.address).ok()?;
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
            Some(stream)
        })
        .collect();
    common::until("an answer beside those who have all descriptors", || {
        let reply = pull(&server, &bytes);
        assert!(matches!(reply.status, 200 | 503), "{}", reply.status);
        reply.status == 200 && reply.body == bytes
    });
    drop(crowd);
    push(&server, b"afterwards").expect(201);
}

/// The limit of a file's size is an error to who pushes, and not the end of the server.
#[test]
fn a_file_may_not_grow_any_more() {
    let temp = tempfile::tempdir().unwrap();
    let server = start(&temp, "-f 256");
    let (small, large) = (noise(10_000), noise(1 << 20));
    push(&server, &large).expect_error(507, "DENIED");
    assert_eq!(common::uploads(&temp.path().join("repository")), 0, "half a blob stays");
    pull(&server, &large).expect(404);
    push(&server, &small).expect(201);
    assert_eq!(pull(&server, &small).expect(200).body, small);
}

/// Address space for a tenth of the threads a server may have: it works with those it gets.
#[test]
fn little_address_space() {
    let temp = tempfile::tempdir().unwrap();
    let server = start(&temp, "-v 400000");
    let bytes = noise(1 << 20);
    push(&server, &bytes).expect(201);
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| assert_eq!(pull(&server, &bytes).expect(200).body.len(), bytes.len()));
        }
    });
    assert_eq!(pull(&server, &bytes).expect(200).body, bytes);
}

/// A report that cannot be printed is no success, and one whose reader has seen enough is.
#[test]
fn reports_that_nobody_gets() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("repository");
    storage::layout::LayoutDir::create(&dir).unwrap();
    let dir = dir.to_str().unwrap();
    let listen = ["serve", "--json", "--listen", "127.0.0.1:0", "--dir", dir];
    for args in [
        &["gc", "--dir", dir][..],
        &["gc", "--dry-run", "--json", "--dir", dir],
        &["scrub", "--dir", dir],
        &["scrub", "--json", "--dir", dir],
        &["completions", "bash"],
        &listen,
    ] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_repo-server"));
        let output = command.args(args).stdout(full).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(23), "{args:?}: {said}");
        assert!(said.contains("error[report_lost]: write to standard output"), "{said}");
    }
    for args in [&["gc", "--dir", dir][..], &["scrub", "--dir", dir], &["completions", "bash"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_repo-server"));
        command.args(args).stdout(writer);
        assert_eq!(command.output().unwrap().status.code(), Some(0), "{args:?}");
    }
}
