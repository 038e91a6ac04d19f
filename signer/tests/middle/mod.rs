//! Somebody between `signer` and a registry: passes requests on, refuses them, cuts them off, and
//! counts what is sent. One request per connection.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

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
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (rule, log) = (Arc::clone(&rule), Arc::clone(&log));
                std::thread::spawn(move || serve(stream, to, &*rule, &log));
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

fn serve(client: TcpStream, to: SocketAddr, rule: &Rule, log: &Mutex<Vec<Seen>>) {
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
        Act::Cut(most) => *most,
        Act::Pass | Act::Swallow => u64::MAX,
    };
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
    let mut buf = vec![0; 64 << 10];
    loop {
        let room = usize::try_from(most.saturating_sub(passed)).unwrap_or(usize::MAX);
        piece.truncate(room);
        if (&server).write_all(&piece).is_err() {
            break;
        }
        count(piece.len() as u64);
        passed += piece.len() as u64;
        left -= piece.len() as u64;
        if passed >= most {
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
    if !matches!(act, Act::Swallow) {
        let _ = (&client).write_all(&answer);
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
