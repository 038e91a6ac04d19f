//! One request on a connection of its own: what ChromeDriver and a server under test are asked with.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// A page or a script that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(300);

/// The body of the answer, and its headers as they came.
#[derive(Debug)]
pub struct Reply {
    /// Status line and headers.
    pub head: String,
    /// What follows them.
    pub body: Vec<u8>,
}

/// Asks a server on this machine, over plain HTTP. `head` is the line of the request, and headers.
pub fn ask(address: &str, head: &str, body: &[u8]) -> Result<Reply> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("connect {address}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    let head = format!(
        "{head}\r\nHost: {address}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    receive(&mut stream)
}

fn receive(stream: &mut TcpStream) -> Result<Reply> {
    let mut bytes = Vec::new();
    loop {
        // Not all servers close the connection at once.
        if let Some(reply) = whole(&bytes)? {
            return Ok(reply);
        }
        let mut piece = [0; 64 << 10];
        let count = stream.read(&mut piece).context("an answer in time")?;
        ensure!(count > 0, "cut off: {}", String::from_utf8_lossy(&bytes));
        bytes.extend(piece.iter().take(count));
    }
}

/// The answer, once all of it is there.
fn whole(bytes: &[u8]) -> Result<Option<Reply>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let (head, body) = bytes.split_at(end + 4);
    let head = String::from_utf8_lossy(head).into_owned();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
    });
    let length = length.context("it does not say how long it is")?.context("a length")?;
    Ok(body.get(..length).map(|body| Reply { head, body: body.to_vec() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_all_of_its_body_is_there() {
        let text = b"HTTP/1.1 200 OK\r\nContent-length: 3\r\n\r\nabcd";
        for (len, body) in [(10, None), (text.len() - 2, None), (text.len(), Some("abc"))] {
            let found = whole(&text[..len]).expect("a length is there");
            let found = found.map(|reply| String::from_utf8(reply.body).expect("text"));
            assert_eq!(found.as_deref(), body, "{len} bytes");
        }
        assert!(whole(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
