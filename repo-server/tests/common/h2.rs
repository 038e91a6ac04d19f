//! HTTP/2 by hand: a client that sends exactly the frames it is told to, and reads when it likes.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use rustls::pki_types::ServerName;
use rustls::version;

use super::keys::{Keys, client};

/// A connection that speaks HTTP/2 frames, written by hand.
pub struct Frames {
    pub tls: rustls::ClientConnection,
    pub socket: TcpStream,
}

impl Frames {
    pub fn connect(address: SocketAddr, keys: &Keys) -> Self {
        let mut config = client(keys, &[&version::TLS13], false);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let tls = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(super::PATIENCE)).unwrap();
        socket.set_write_timeout(Some(super::PATIENCE)).unwrap();
        let mut frames = Frames { tls, socket };
        frames.say(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        frames
    }

    pub fn say(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        rustls::Stream::new(&mut self.tls, &mut self.socket).write_all(bytes)
    }

    /// Reads until the server closes.
    pub fn is_closed(&mut self) -> bool {
        let mut buf = [0; 4096];
        let begun = Instant::now();
        while begun.elapsed() < super::PATIENCE {
            match rustls::Stream::new(&mut self.tls, &mut self.socket).read(&mut buf) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
            }
        }
        false
    }
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// HPACK: GET, https, a path and an authority by literal without indexing.
pub fn get(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x87, 0x04, u8::try_from(path.len()).unwrap()];
    block.extend(path.as_bytes());
    block.extend([0x01, 1, b'x']);
    block
}
