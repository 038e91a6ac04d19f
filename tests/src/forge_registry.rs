//! A registry with a forge's files behind it, as honest as it is told to be.
//!
//! ```text
//!  request ──► honest answer, head and body ──► how(path, answer) ──► Send, Drip or Stall
//! ```

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use formats::digest::Digest;
use formats::oci::{Descriptor, Manifest, annotation, media_type};

/// What goes back on the wire.
#[derive(Debug, Clone)]
pub enum Answer {
    /// These bytes.
    Send(Vec<u8>),
    /// These bytes at once, then those one by one with a pause before each.
    Drip(Vec<u8>, Vec<u8>, Duration),
    /// Nothing, until the client goes away.
    Stall,
}

impl Answer {
    /// A well-formed answer.
    pub fn of(status: &str, body: &[u8]) -> Self {
        Answer::Send(response(status, body))
    }
}

fn response(status: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// Where the body begins.
pub fn body_start(answer: &[u8]) -> usize {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    end.map_or(answer.len(), |end| end + 4)
}

type How = dyn Fn(&str, Vec<u8>) -> Answer + Send + Sync;

/// A running registry, of the namespace `ns`; stops when dropped.
pub struct Registry {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    stopping: Arc<AtomicBool>,
}

/// What a registry holds.
#[derive(Debug, Clone, Default)]
pub struct Content {
    state: Vec<u8>,
    objects: BTreeMap<String, Vec<u8>>,
}

impl Content {
    /// The TUF state of these files, as [`Forge::served`](racklet_testkit::forge::Forge::served) has them.
    pub fn of(files: &BTreeMap<String, Vec<u8>>) -> Self {
        let layers = files.iter().map(|(name, bytes)| {
            Descriptor::of(media_type::TUF_METADATA, bytes)
                .annotated(annotation::TUF_FILENAME, name)
        });
        let manifest =
            Manifest::artifact(media_type::TUF_STATE, Descriptor::empty(), layers.collect());
        let mut content = Content { state: manifest.to_bytes(), ..Content::default() };
        for bytes in files.values() {
            content.put(bytes);
        }
        content
    }

    /// Adds a manifest or blob of a product, found by its digest.
    pub fn put(&mut self, bytes: &[u8]) {
        self.objects.insert(Digest::sha256_of(bytes).to_string(), bytes.to_vec());
    }

    fn answer(&self, path: &str) -> Vec<u8> {
        if path == "/v2/ns/tuf/manifests/latest" {
            return response("200 OK", &self.state);
        }
        let digest = path.rsplit('/').next().unwrap_or_default();
        match self.objects.get(digest) {
            Some(bytes) => response("200 OK", bytes),
            None => response("404 Not Found", b""),
        }
    }
}

impl Registry {
    /// One that answers honestly.
    pub fn honest(content: Content) -> Self {
        Registry::start(content, |_, answer| Answer::Send(answer))
    }

    /// One that makes of each honest answer what `how` says, given the path asked for.
    pub fn start(
        content: Content,
        how: impl Fn(&str, Vec<u8>) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Registry::run(None, content, Arc::new(how))
    }

    /// An honest one behind TLS.
    pub fn with_tls(config: Arc<rustls::ServerConfig>, content: Content) -> Self {
        Registry::run(Some(config), content, Arc::new(|_, answer| Answer::Send(answer)))
    }

    fn run(tls: Option<Arc<rustls::ServerConfig>>, content: Content, how: Arc<How>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
        let address = listener.local_addr().expect("a bound port has an address");
        let registry = Registry { address, seen: Arc::default(), stopping: Arc::default() };
        let (seen, stopping) = (registry.seen.clone(), registry.stopping.clone());
        let content = Arc::new(content);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stopping.load(Ordering::SeqCst) {
                    return;
                }
                drop(stream.set_nodelay(true));
                let tls = tls.clone().and_then(|tls| rustls::ServerConnection::new(tls).ok());
                let (seen, content, how) = (seen.clone(), content.clone(), how.clone());
                thread::spawn(move || match tls {
                    Some(tls) => {
                        serve(&mut rustls::StreamOwned::new(tls, stream), &seen, &content, &*how);
                    }
                    None => serve(&mut &stream, &seen, &content, &*how),
                });
            }
        });
        registry
    }

    /// `HOST:PORT`.
    pub fn authority(&self) -> String {
        self.address.to_string()
    }

    /// The paths asked for so far.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Wakes the listener, which then sees that it is to stop.
        drop(TcpStream::connect(self.address));
    }
}

fn serve(
    stream: &mut (impl Read + Write),
    seen: &Mutex<Vec<String>>,
    content: &Content,
    how: &How,
) {
    while let Some(path) = read_request(stream) {
        seen.lock().unwrap_or_else(PoisonError::into_inner).push(path.clone());
        let sent = match how(&path, content.answer(&path)) {
            Answer::Send(bytes) => stream.write_all(&bytes).and_then(|()| stream.flush()),
            Answer::Drip(first, rest, pause) => {
                let mut drip = || {
                    stream.write_all(&first)?;
                    stream.flush()?;
                    rest.chunks(1).try_for_each(|byte| {
                        thread::sleep(pause);
                        stream.write_all(byte)?;
                        stream.flush()
                    })
                };
                drip()
            }
            Answer::Stall => stream.read(&mut [0]).and(Err(std::io::ErrorKind::Other.into())),
        };
        if sent.is_err() {
            return;
        }
    }
}

fn read_request(stream: &mut impl Read) -> Option<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > 64 << 10 || stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let text = String::from_utf8(head).ok()?;
    text.split(' ').nth(1).map(str::to_owned)
}
