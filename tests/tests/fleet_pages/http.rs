//! One request on a connection of its own: what ChromeDriver and the server under test are asked with.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// A page or a script that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(300);

/// The body of the answer, and its headers as they came.
pub(crate) struct Reply {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// Asks a server on this machine, over plain HTTP.
pub(crate) fn ask(address: &str, head: &str, body: &[u8]) -> Reply {
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit of time");
    let length = body.len();
    let head = format!(
        "{head}\r\nHost: {address}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("send the head");
    stream.write_all(body).expect("send the body");
    receive(&mut stream)
}

fn receive(stream: &mut TcpStream) -> Reply {
    let mut bytes = Vec::new();
    loop {
        // Not all servers close the connection at once.
        if let Some(reply) = whole(&bytes) {
            return reply;
        }
        let mut piece = [0; 64 << 10];
        let count = stream.read(&mut piece).expect("an answer in time");
        assert!(count > 0, "cut off: {}", String::from_utf8_lossy(&bytes));
        bytes.extend(piece.iter().take(count));
    }
}

/// The answer, once all of it is there.
fn whole(bytes: &[u8]) -> Option<Reply> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(bytes.get(..end)?).into_owned();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
    });
    let length = length.expect("both servers say how long").expect("a length");
    Some(Reply { head, body: bytes.get(end..end + length)?.to_vec() })
}
