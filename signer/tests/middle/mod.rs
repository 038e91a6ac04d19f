//! Somebody between `signer` and a registry: passes requests on, refuses them, cuts them off, takes
//! its time, and counts what is sent. One request per connection.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A request's head.
#[derive(Debug, Clone)]
pub struct Head {
    pub method: String,
    pub target: String,
    pub headers: BTreeMap<String, String>,
    lines: String,
}

impl Head {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    fn len(&self) -> u64 {
        self.header("content-length").and_then(|it| it.parse().ok()).unwrap_or(0)
    }
}

/// What is done with a request.
pub enum Act {
    Pass,
    /// An answer of its own: status line, headers.
    Answer(String),
    /// Passes so many bytes of the body on and cuts both sides.
    Cut(u64),
    /// Passes all of it on, and cuts before the answer comes back.
    Swallow,
    /// Passes it on as fast as a line of so many bytes a second, which all requests share.
    Slow(u64),
    /// Takes all of it before any of it is passed on, at that rate.
    Keep(u64),
    /// Answers without having read the body, and closes.
    Shut(String),
    /// Takes so many bytes, and then nothing for as long as the client waits.
    Stop(u64),
    /// Passes all of it on, and so many bytes of the answer back; then nothing.
    Stall(u64),
}

/// When the line is free again.
type Pace = Mutex<Instant>;

/// Waits until that many bytes have passed.
fn pace(pace: &Pace, bytes: usize, rate: u64) {
    let until = {
        let mut free = pace.lock().unwrap();
        *free = (*free).max(Instant::now()) + Duration::from_secs_f64(bytes as f64 / rate as f64);
        *free
    };
    std::thread::sleep(until.saturating_duration_since(Instant::now()));
}

/// Nothing more, and nobody is told: what the kernels hold goes nowhere.
fn stand_still() -> ! {
    loop {
        std::thread::park();
    }
}

/// What was asked for, and how many bytes of body came with it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub head: Head,
    pub body: u64,
}

pub struct Middle {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

type Rule = dyn Fn(&Head) -> Act + Send + Sync;

impl Middle {
    /// Before `to`, by this rule.
    pub fn before(to: SocketAddr, rule: impl Fn(&Head) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let (rule, log): (Arc<Rule>, _) = (Arc::new(rule), Arc::clone(&seen));
        let line = Arc::new(Mutex::new(Instant::now()));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (rule, log, line) = (Arc::clone(&rule), Arc::clone(&log), Arc::clone(&line));
                std::thread::spawn(move || serve(stream, to, &*rule, &log, &line));
            }
        });
        Middle { address, seen }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Bytes of bodies, and requests, of that method.
    pub fn sent(&self, method: &str) -> (u64, usize) {
        let seen = self.seen();
        let mine: Vec<_> = seen.iter().filter(|it| it.head.method == method).collect();
        (mine.iter().map(|it| it.body).sum(), mine.len())
    }
}

fn serve(client: TcpStream, to: SocketAddr, rule: &Rule, log: &Mutex<Vec<Seen>>, line: &Pace) {
    let Some((head, early)) = read_head(&client) else { return };
    let act = rule(&head);
    let number = {
        let mut log = log.lock().unwrap();
        log.push(Seen { head: head.clone(), body: 0 });
        log.len() - 1
    };
    let count = |bytes: u64| log.lock().unwrap()[number].body += bytes;
    let most = match &act {
        Act::Answer(text) => {
            // The body first, or the client sees a reset instead of the answer.
            drain(&client, head.len() - early.len() as u64);
            let text = format!("HTTP/1.1 {text}\r\nConnection: close\r\n\r\n");
            let _ = (&client).write_all(text.as_bytes());
            return;
        }
        Act::Shut(text) => {
            let text = format!("HTTP/1.1 {text}\r\nConnection: close\r\n\r\n");
            let _ = (&client).write_all(text.as_bytes());
            return;
        }
        Act::Cut(most) | Act::Stop(most) => *most,
        _ => u64::MAX,
    };
    let mut early = early;
    if let Act::Keep(rate) = act {
        let mut buf = vec![0; 16 << 10];
        while (early.len() as u64) < head.len() {
            match (&client).read(&mut buf) {
                Ok(0) | Err(_) => return,
                Ok(got) => early.extend_from_slice(&buf[..got]),
            }
            pace(line, buf.len(), rate);
        }
    }
    let Ok(server) = TcpStream::connect(to) else { return };
    let mut lines = String::new();
    for line in head.lines.lines() {
        let lower = line.to_ascii_lowercase();
        if !lower.starts_with("connection:") && !line.is_empty() {
            lines.push_str(line);
            lines.push_str("\r\n");
        }
    }
    lines.push_str("Connection: close\r\n\r\n");
    if (&server).write_all(lines.as_bytes()).is_err() {
        return;
    }
    let (mut left, mut passed) = (head.len(), 0);
    let mut piece = early;
    let mut buf = vec![0; if matches!(act, Act::Slow(_)) { 8 << 10 } else { 64 << 10 }];
    loop {
        let room = usize::try_from(most.saturating_sub(passed)).unwrap_or(usize::MAX);
        piece.truncate(room);
        if (&server).write_all(&piece).is_err() {
            break;
        }
        count(piece.len() as u64);
        passed += piece.len() as u64;
        left -= piece.len() as u64;
        if let Act::Slow(rate) = act {
            pace(line, piece.len(), rate);
        }
        if passed >= most {
            if matches!(act, Act::Stop(_)) {
                stand_still();
            }
            let _ = server.shutdown(Shutdown::Both);
            return;
        }
        if left == 0 {
            break;
        }
        match (&client).read(&mut buf) {
            Ok(0) | Err(_) => return,
            Ok(got) => piece = buf[..got].to_vec(),
        }
    }
    let mut answer = Vec::new();
    let _ = (&server).read_to_end(&mut answer);
    match act {
        Act::Swallow => {}
        Act::Stall(most) => {
            answer.truncate(usize::try_from(most).unwrap_or(usize::MAX));
            let _ = (&client).write_all(&answer);
            stand_still();
        }
        _ => drop((&client).write_all(&answer)),
    }
}

fn drain(client: &TcpStream, mut left: u64) {
    let mut buf = vec![0; 64 << 10];
    while left > 0 {
        match (&*client).read(&mut buf) {
            Ok(0) | Err(_) => return,
            Ok(got) => left = left.saturating_sub(got as u64),
        }
    }
}

/// The head, and what of the body came with it.
fn read_head(client: &TcpStream) -> Option<(Head, Vec<u8>)> {
    let mut text = Vec::new();
    let mut buf = [0; 4096];
    let end = loop {
        if let Some(at) = text.windows(4).position(|it| it == b"\r\n\r\n") {
            break at + 4;
        }
        match (&*client).read(&mut buf).ok()? {
            0 => return None,
            got => text.extend_from_slice(&buf[..got]),
        }
    };
    let rest = text.split_off(end);
    let lines = String::from_utf8(text).ok()?;
    let mut parts = lines.lines().next()?.split(' ');
    let (method, target) = (parts.next()?.to_owned(), parts.next()?.to_owned());
    let headers = lines.lines().skip(1).filter_map(|line| line.split_once(':'));
    let headers =
        headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    Some((Head { method, target, headers, lines }, rest))
}
