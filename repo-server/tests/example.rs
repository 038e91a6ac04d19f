//! The example serves a directory, until it is told to stop.
#![allow(clippy::unwrap_used, reason = "these are tests, and so are their parts")]

mod common;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::{Fixture, exchange};

/// Cargo builds examples next to the folder of the test programs.
fn example() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let target = tests.parent().and_then(|deps| deps.parent()).unwrap();
    let program = target.join("examples/serve");
    assert!(program.exists(), "build it first: cargo build -p repo-server --examples");
    program
}

#[test]
fn the_example_serves_a_directory() {
    let pushed = Fixture::new();
    pushed.push_artifact("racklet/demo", "1.0.0", &[b"layer"]);
    let dir = pushed.dir();
    let mut server = Command::new(example())
        .arg(&dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut url = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut url).unwrap();
    let address = url.trim().strip_prefix("http://").unwrap().strip_suffix("/v2/").unwrap();
    let address = address.parse().unwrap();
    assert_eq!(exchange(address, "GET", "/v2/", &[], &[]).status, 200);
    assert_eq!(exchange(address, "GET", "/v2/racklet/demo/manifests/1.0.0", &[], &[]).status, 200);
    server.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert!(server.wait().unwrap().success());
}
