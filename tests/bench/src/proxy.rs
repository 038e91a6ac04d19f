//! A TCP proxy that counts what passes and cuts connections: a bad network between two programs.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;

/// A running proxy. Its threads end with the process; they hold nothing but sockets.
pub(super) struct Proxy {
    /// Where it listens.
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Bytes from server to client.
    down: AtomicU64,
    /// Bytes from client to server.
    up: AtomicU64,
    /// HTTP/1 requests without a body, told by the empty line that ends each.
    requests: AtomicUsize,
    /// Connections cut so far.
    cut: AtomicUsize,
    /// For each of the next connections, the bytes after which it is cut.
    budgets: Mutex<Vec<u64>>,
    /// Bytes per second of one connection; 0 is as fast as it goes.
    rate: u64,
}

impl Proxy {
    /// Listens on a free loopback port and passes connections on to `to`. The first connections
    /// are cut after as many bytes as `budgets` says, last entry first. `rate` is in bytes per
    /// second of a connection, 0 for no limit: without one, megabytes lie in the buffers of a
    /// loopback connection when it breaks, as they would on no real link.
    pub(super) fn start(to: &str, budgets: Vec<u64>, rate: u64) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { budgets: Mutex::new(budgets), rate, ..Shared::default() });
        let (to, state) = (to.to_string(), Arc::clone(&shared));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&to) else { continue };
                pass(client, server, &state);
            }
        });
        Ok(Self { address, shared })
    }

    /// Bytes that came from the server so far.
    pub(super) fn down(&self) -> u64 {
        self.shared.down.load(Ordering::Relaxed)
    }

    /// Bytes that came from the client so far.
    pub(super) fn up(&self) -> u64 {
        self.shared.up.load(Ordering::Relaxed)
    }

    /// Requests seen so far.
    pub(super) fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Connections cut so far.
    pub(super) fn cut(&self) -> usize {
        self.shared.cut.load(Ordering::Relaxed)
    }
}

fn pass(client: TcpStream, server: TcpStream, shared: &Arc<Shared>) {
    let pair = (client.try_clone(), server.try_clone());
    let (Ok(mut from_client), Ok(mut to_server)) = pair else { return };
    let (mut to_client, mut from_server) = (client, server);
    let up = Arc::clone(shared);
    std::thread::spawn(move || {
        let mut buffer = [0; 16 << 10];
        let mut ending = 0;
        while let Ok(count @ 1..) = from_client.read(&mut buffer) {
            let bytes = &buffer[..count];
            up.up.fetch_add(count as u64, Ordering::Relaxed);
            up.requests.fetch_add(heads(bytes, &mut ending), Ordering::Relaxed);
            if to_server.write_all(bytes).is_err() {
                break;
            }
        }
        drop(to_server.shutdown(Shutdown::Write));
    });
    let down = Arc::clone(shared);
    std::thread::spawn(move || {
        let mut budget = None;
        let mut buffer = [0; 64 << 10];
        while let Ok(count @ 1..) = from_server.read(&mut buffer) {
            // A budget is taken by a connection that carries something, not by one that is idle.
            let left = budget.get_or_insert_with(|| {
                let mut budgets = down.budgets.lock().expect("no thread panics holding it");
                budgets.pop().unwrap_or(u64::MAX)
            });
            let sent = count.min(usize::try_from(*left).unwrap_or(count));
            *left -= sent as u64;
            down.down.fetch_add(sent as u64, Ordering::Relaxed);
            let written = to_client.write_all(&buffer[..sent]);
            if *left == 0 {
                down.cut.fetch_add(1, Ordering::Relaxed);
                break;
            }
            if written.is_err() {
                break;
            }
            if let Some(pause) = (sent as u64 * 1_000_000).checked_div(down.rate) {
                std::thread::sleep(Duration::from_micros(pause));
            }
        }
        for stream in [&to_client, &from_server] {
            drop(stream.shutdown(Shutdown::Both));
        }
    });
}

/// How many times `\r\n\r\n` ends in `bytes`; `matched` carries over what came before.
fn heads(bytes: &[u8], matched: &mut usize) -> usize {
    const END: &[u8; 4] = b"\r\n\r\n";
    let mut found = 0;
    for &byte in bytes {
        *matched = match (byte == END[*matched], byte) {
            (true, _) => *matched + 1,
            (false, b'\r') => 1,
            _ => 0,
        };
        if *matched == END.len() {
            found += 1;
            *matched = 0;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_across_reads() {
        let mut matched = 0;
        assert_eq!(heads(b"GET / HTTP/1.1\r\nA: b\r\n\r", &mut matched), 0);
        assert_eq!(heads(b"\nGET / HTTP/1.1\r\n\r\nG", &mut matched), 2);
    }

    #[test]
    fn a_connection_ends_after_its_budget_and_the_next_does_not() {
        let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = server.local_addr().expect("bound").to_string();
        std::thread::spawn(move || {
            for mut stream in server.incoming().flatten() {
                drop(stream.write_all(&[7; 100_000]));
            }
        });
        let proxy = Proxy::start(&address, vec![60_000], 0).expect("a free port");
        let fetch = || {
            let mut bytes = Vec::new();
            let mut stream = TcpStream::connect(proxy.address).expect("the proxy listens");
            // Whether the end is a reset or a plain end is the kernel's choice.
            drop(stream.read_to_end(&mut bytes));
            bytes.len()
        };
        assert!(fetch() <= 60_000);
        assert_eq!(fetch(), 100_000);
        assert_eq!((proxy.cut(), proxy.down()), (1, 160_000));
    }
}
