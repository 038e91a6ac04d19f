//! A real registry behind a line that fails at the n-th request, for every n: refused, cut before
//! it arrives, or answered to nobody. Readers see the old state or the new one, and the same
//! command run again completes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use common::{Fixture, NOW, component, copy_tree, noise};
use formats::reference::Reference;
use repo_server::{Config, Running};
use signer::commands::{PublishRequest, verify};
use signer::progress::Show;
use signer::repository::{Access, Backoff, ClientOptions, Registry, open};

/// What happens to the chosen request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The server answers 503.
    Unavailable,
    /// The line is cut before the request arrives.
    Lost,
    /// The request is carried out, and its answer is lost.
    Unanswered,
}

/// How often it happens: the client tries again, and meets it again or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Times {
    Once,
    FromThenOn,
}

/// A line to a server that counts requests: one for each connection.
struct Line {
    address: SocketAddr,
    seen: Arc<AtomicUsize>,
}

impl Line {
    fn to(server: SocketAddr, at: usize, (fault, times): (Fault, Times)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&seen);
        // Ends with the process.
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let counter = Arc::clone(&counter);
                thread::spawn(move || {
                    let meets = move |n| match times {
                        Times::Once => n == at,
                        Times::FromThenOn => n >= at,
                    };
                    drop(carry(&client, server, &counter, meets, fault));
                });
            }
        });
        Line { address, seen }
    }
}

fn carry(
    mut client: &TcpStream,
    server: SocketAddr,
    counter: &AtomicUsize,
    meets: impl Fn(usize) -> bool,
    fault: Fault,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if client.read(&mut byte)? == 0 {
            // A connection that was opened in advance is no request.
            return Ok(());
        }
        head.push(byte[0]);
    }
    let fault = meets(counter.fetch_add(1, Ordering::SeqCst)).then_some(fault);
    match fault {
        Some(Fault::Lost) => return client.shutdown(Shutdown::Both),
        Some(Fault::Unavailable) => {
            client.write_all(
                b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            )?;
            return client.shutdown(Shutdown::Write);
        }
        _ => {}
    }
    let mut server = TcpStream::connect(server)?;
    // The server closes after its answer, so the next request is another connection.
    head.truncate(head.len() - 2);
    head.extend_from_slice(b"connection: close\r\n\r\n");
    server.write_all(&head)?;
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || drop(std::io::copy(&mut from, &mut to)));
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    if fault.is_none() {
        client.write_all(&answer)?;
    }
    client.shutdown(Shutdown::Both)
}

const TOKEN: &str = "a-token-that-is-long-enough";

fn connect(fixture: &Fixture, address: SocketAddr) -> Box<dyn Registry> {
    let reference: Reference = format!("docker://{address}/racklet").parse().unwrap();
    let token_file = Some(fixture.path("token"));
    // Nobody else waits for this server.
    let pause = Duration::from_millis(1);
    let backoff = Backoff { attempts: 2, first: pause, most: pause, ..Backoff::default() };
    let options =
        ClientOptions { plain_http: true, token_file, backoff, ..ClientOptions::default() };
    open(&reference, Access::Write, &options).unwrap()
}

fn server(fixture: &Fixture, name: &str) -> Running {
    let token = fixture.path("token");
    if !token.exists() {
        use std::os::unix::fs::OpenOptionsExt as _;
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&token);
        file.unwrap().write_all(TOKEN.as_bytes()).unwrap();
    }
    let mut config = Config::new(fixture.path(name));
    config.push_tokens = Some(token);
    repo_server::start(config).unwrap()
}

fn small(fixture: &Fixture, version: &str, seed: u64) -> PublishRequest {
    let path = fixture.path(&format!("os-{version}.img"));
    std::fs::write(&path, noise(3000, seed)).unwrap();
    let components = vec![component("os", path, &["cu-v1"])];
    PublishRequest { components, ..fixture.request(version, "os.img") }
}

#[test]
fn case_195_a_registry_that_refuses_the_nth_request() {
    every_request_meets(Fault::Unavailable, Times::FromThenOn);
}

#[test]
fn case_195_a_registry_that_never_hears_the_nth_request() {
    every_request_meets(Fault::Lost, Times::FromThenOn);
}

#[test]
fn case_195_a_registry_whose_nth_answer_is_lost() {
    every_request_meets(Fault::Unanswered, Times::FromThenOn);
}

#[test]
fn case_195_a_request_that_is_made_again_was_carried_out_before() {
    every_request_meets(Fault::Unanswered, Times::Once);
}

fn every_request_meets(fault: Fault, times: Times) {
    let fixture = Fixture::new();
    let (mut faults, mut new) = (0, 0);
    let before = {
        let server = server(&fixture, "pristine");
        let direct = connect(&fixture, server.local_addr());
        fixture.init_to(direct.as_ref(), NOW).unwrap();
        let first = small(&fixture, "1.0.0", 1);
        let state = fixture.publish_to(direct.as_ref(), &first, NOW).unwrap().state;
        server.stop();
        state
    };
    for n in 0.. {
        let name = format!("served-{n}");
        copy_tree(&fixture.path("pristine"), &fixture.path(&name));
        let server = server(&fixture, &name);
        let direct = connect(&fixture, server.local_addr());
        let line = Line::to(server.local_addr(), n, (fault, times));
        let request = small(&fixture, "1.1.0", 2);
        let ended = fixture.publish_to(connect(&fixture, line.address).as_ref(), &request, NOW);
        let visible = || {
            verify(direct.as_ref(), Some(&fixture.root()), NOW.plus(60), Show::Nothing)
                .unwrap_or_else(|error| panic!("{fault:?} at request {n}: {error}"))
                .state
        };
        let seen = visible();
        let reached = line.seen.load(Ordering::SeqCst) > n;
        if let Ok(report) = &ended {
            assert_eq!(seen, report.state, "{fault:?} at request {n}");
        } else {
            faults += 1;
            assert!(reached, "{fault:?} at request {n}: failed without a fault");
            assert!(seen == before || fault == Fault::Unanswered, "{fault:?} at request {n}");
            new += usize::from(seen != before);
            let again = fixture.publish_to(direct.as_ref(), &request, NOW.plus(60));
            let again =
                again.unwrap_or_else(|error| panic!("{fault:?} at {n}: the next run: {error}"));
            assert_eq!(visible(), again.state);
            assert_ne!(again.state, before);
        }
        server.stop();
        let _ = std::fs::remove_dir_all(fixture.path(&name));
        if !reached {
            assert!(n > 20, "only {n} requests");
            break;
        }
    }
    println!(
        "{fault:?} {times:?}: {faults} failed runs, after {new} of them the new state was there"
    );
    if times == Times::FromThenOn {
        assert_eq!(new > 0, fault == Fault::Unanswered, "only a lost answer leaves the new state");
    }
}
