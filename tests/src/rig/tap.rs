//! A tap on the line between a node and a server: counts what the server sends, and can stop the
//! line at a chosen byte for as long as a test wants.
//!
//! It knows nothing of what passes, so TLS goes through it untouched. A stopped line is how a test
//! kills or watches an agent in the very middle of its work without any waiting for luck.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::must;

/// Until the stop has been reached; an agent that asks for nothing has hung.
const DEADLINE: Duration = Duration::from_secs(60);

/// The tap.
#[derive(Debug)]
pub struct Tap {
    /// Where a client connects, `127.0.0.1:PORT`.
    pub authority: String,
    line: Arc<Line>,
}

#[derive(Debug, Default)]
struct Line {
    meter: Mutex<Meter>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Meter {
    passed: u64,
    stop_at: Option<u64>,
    stopped: bool,
}

impl Tap {
    /// Opens a tap to a server at `authority`.
    #[track_caller]
    pub fn to(authority: &str) -> Self {
        let listener = must(TcpListener::bind("127.0.0.1:0"), "bind the tap");
        let own = must(listener.local_addr(), "where the tap is");
        let line = Arc::new(Line::default());
        let (server, shared) = (authority.to_owned(), Arc::clone(&line));
        // Ends with the process: a test has but a few.
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(&server) else { continue };
                connect(&client, &server, &shared);
            }
        });
        Tap { authority: own.to_string(), line }
    }

    /// Bytes that have passed from the server to clients.
    pub fn passed(&self) -> u64 {
        self.line.meter().passed
    }

    /// Stops the line after so many more bytes from the server.
    pub fn stop_after(&self, bytes: u64) {
        let mut meter = self.line.meter();
        meter.stop_at = Some(meter.passed + bytes);
    }

    /// Waits until the line has stopped.
    #[track_caller]
    pub fn await_stop(&self) {
        let waited =
            self.line.changed.wait_timeout_while(self.line.meter(), DEADLINE, |m| !m.stopped);
        let (meter, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(!timeout.timed_out(), "only {} bytes have passed the tap", meter.passed);
    }

    /// Lets everything pass again.
    pub fn open(&self) {
        let mut meter = self.line.meter();
        (meter.stop_at, meter.stopped) = (None, false);
        self.line.changed.notify_all();
    }
}

impl Line {
    fn meter(&self) -> MutexGuard<'_, Meter> {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many of `len` bytes may pass now; waits while it is none.
    fn allowance(&self, len: usize) -> usize {
        let mut meter = self.meter();
        loop {
            let left = meter.stop_at.map_or(u64::MAX, |at| at.saturating_sub(meter.passed));
            let allowed = usize::try_from(left).unwrap_or(usize::MAX).min(len);
            if allowed > 0 {
                meter.passed += allowed as u64;
                return allowed;
            }
            meter.stopped = true;
            self.changed.notify_all();
            meter = self.changed.wait(meter).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Joins two sockets; each way ends when its source does.
fn connect(client: &TcpStream, server: &TcpStream, line: &Arc<Line>) {
    let clone = |socket: &TcpStream| socket.try_clone();
    let (Ok(up_from), Ok(up_to)) = (clone(client), clone(server)) else { return };
    let (Ok(down_from), Ok(down_to)) = (clone(server), clone(client)) else { return };
    let line = Arc::clone(line);
    thread::spawn(move || pump(up_from, up_to, |len| len));
    thread::spawn(move || pump(down_from, down_to, |len| line.allowance(len)));
}

fn pump(mut from: TcpStream, mut to: TcpStream, allowance: impl Fn(usize) -> usize) {
    let mut buffer = [0; 16 << 10];
    'line: while let Ok(len @ 1..) = from.read(&mut buffer) {
        let mut rest = &buffer[..len];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(allowance(rest.len()));
            if to.write_all(now).is_err() {
                break 'line;
            }
            rest = later;
        }
    }
    drop(to.shutdown(Shutdown::Write));
    drop(from.shutdown(Shutdown::Read));
}
