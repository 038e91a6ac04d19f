//! A server that misbehaves on request: every answer is written byte by byte as a test says.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use formats::digest::Digest;
use formats::oci::{Descriptor, Manifest, annotation, media_type};
use update_agent::http::{Limits, RetryPolicy};
use update_agent::source::{FetchError, Source, SourceConfig, open};

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Path and query.
    pub(crate) path: String,
    /// Headers by lower-case name.
    pub(crate) headers: BTreeMap<String, String>,
    /// Which connection it came on, from 0.
    pub(crate) connection: usize,
    /// Which request it is, from 0.
    pub(crate) nth: usize,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// First and last byte of a closed single range; any other form fails the test.
    pub(crate) fn range(&self) -> Option<(usize, usize)> {
        let span = self.header("range")?.strip_prefix("bytes=").expect("unit is bytes");
        let (first, last) = span.split_once('-').expect("a closed range");
        Some((first.parse().expect("first byte"), last.parse().expect("last byte")))
    }
}

/// What to send.
#[derive(Clone)]
pub(crate) enum Step {
    /// These bytes.
    Send(Vec<u8>),
    /// These bytes one by one, with a pause after each.
    Drip(Vec<u8>, Duration),
    /// Zeros until the client has had enough.
    Endless,
    /// Nothing, until the client goes away.
    Stall,
    /// The end of the connection.
    Close,
}

/// An answer.
#[derive(Clone)]
pub(crate) struct Reply(pub(crate) Vec<Step>);

impl Reply {
    /// A head with these header lines, and a body.
    pub(crate) fn raw(status: &str, headers: &str, body: &[u8]) -> Self {
        let mut bytes = format!("HTTP/1.1 {status}\r\n{headers}\r\n").into_bytes();
        bytes.extend_from_slice(body);
        Reply(vec![Step::Send(bytes)])
    }

    /// A well-formed answer.
    pub(crate) fn with(status: &str, headers: &str, body: &[u8]) -> Self {
        Reply::raw(status, &format!("{headers}Content-Length: {}\r\n", body.len()), body)
    }

    pub(crate) fn ok(body: &[u8]) -> Self {
        Reply::with("200 OK", "", body)
    }

    pub(crate) fn status(status: &str) -> Self {
        Reply::with(status, "", b"")
    }

    pub(crate) fn redirect(location: &str) -> Self {
        Reply::with("307 Temporary Redirect", &format!("Location: {location}\r\n"), b"moved")
    }

    /// What an honest registry answers for this blob.
    pub(crate) fn blob(seen: &Seen, blob: &[u8]) -> Self {
        let Some((first, last)) = seen.range() else { return Reply::ok(blob) };
        let part = blob.get(first..=last).expect("the client asks for what is there");
        let range = format!("Content-Range: bytes {first}-{last}/{}\r\n", blob.len());
        Reply::with("206 Partial Content", &range, part)
    }

    /// The same, cut off after `count` bytes of the body.
    pub(crate) fn cut(self, count: usize) -> Self {
        let Some(Step::Send(mut bytes)) = self.0.into_iter().next() else { panic!("bytes") };
        let head = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("a head") + 4;
        bytes.truncate(head + count);
        Reply(vec![Step::Send(bytes), Step::Close])
    }

    pub(crate) fn then(mut self, step: Step) -> Self {
        self.0.push(step);
        self
    }
}

type Handler = dyn Fn(&Seen) -> Reply + Send + Sync;

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A running server; stops when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    stopping: Arc<AtomicBool>,
}

impl Server {
    pub(crate) fn start(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Server::run(None, Arc::new(handler))
    }

    pub(crate) fn start_tls(
        config: Arc<rustls::ServerConfig>,
        handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Server::run(Some(config), Arc::new(handler))
    }

    fn run(tls: Option<Arc<rustls::ServerConfig>>, handler: Arc<Handler>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound");
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let stopping = Arc::new(AtomicBool::new(false));
        let server = Server { address, seen: seen.clone(), stopping: stopping.clone() };
        let requests = Arc::new(AtomicUsize::new(0));
        thread::spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                if stopping.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                stream.set_nodelay(true).expect("TCP");
                let tls = tls.clone().map(|c| rustls::ServerConnection::new(c).expect("a config"));
                let (handler, seen, requests) = (handler.clone(), seen.clone(), requests.clone());
                thread::spawn(move || {
                    let mut stream: Box<dyn Stream> = match tls {
                        Some(tls) => Box::new(rustls::StreamOwned::new(tls, stream)),
                        None => Box::new(stream),
                    };
                    while let Some((path, headers)) = read_head(&mut *stream) {
                        let nth = requests.fetch_add(1, Ordering::SeqCst);
                        let request = Seen { path, headers, connection, nth };
                        seen.lock().expect("log").push(request.clone());
                        if !answer(&mut *stream, handler(&request)) {
                            return;
                        }
                    }
                });
            }
        });
        server
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("log").clone()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A source at this server over plain HTTP, in the namespace `ns`.
    pub(crate) fn source(&self) -> Box<dyn Source> {
        self.source_with(quick())
    }

    pub(crate) fn source_with(&self, limits: Limits) -> Box<dyn Source> {
        open(&self.config(), limits).expect("a source")
    }

    pub(crate) fn config(&self) -> SourceConfig {
        let url = format!("docker://{}/ns", self.address);
        SourceConfig { plain_http: true, ..SourceConfig::at(&url) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

/// Patient limits, and retries that follow each other at once.
pub(crate) fn quick() -> Limits {
    Limits {
        retry: RetryPolicy {
            attempts: 3,
            base: Duration::from_millis(1),
            cap: Duration::from_millis(2),
            budget: Duration::from_secs(60),
        },
        ..Limits::default()
    }
}

fn read_head(stream: &mut dyn Stream) -> Option<(String, BTreeMap<String, String>)> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let text = String::from_utf8(head).expect("a request is text");
    let mut lines = text.lines();
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    Some((path, headers))
}

/// Sends an answer; `false` when the connection is over.
fn answer(stream: &mut dyn Stream, reply: Reply) -> bool {
    for step in reply.0 {
        let sent = match step {
            Step::Send(bytes) => stream.write_all(&bytes).and_then(|()| stream.flush()),
            Step::Drip(bytes, pause) => bytes.chunks(1).try_for_each(|byte| {
                thread::sleep(pause);
                stream.write_all(byte).and_then(|()| stream.flush())
            }),
            Step::Endless => {
                while stream.write_all(&[0; 4096]).is_ok() {}
                return false;
            }
            Step::Stall => {
                let _ = stream.read(&mut [0]);
                return false;
            }
            Step::Close => return false,
        };
        if sent.is_err() {
            return false;
        }
    }
    true
}

/// Bytes that compress badly and are the same every time.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

pub(crate) fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor::of("application/octet-stream", bytes)
}

/// The manifest of a TUF state with these files.
pub(crate) fn state(files: &[(&str, &[u8])]) -> Vec<u8> {
    let layers = files
        .iter()
        .map(|(name, bytes)| {
            Descriptor::of(media_type::TUF_METADATA, bytes)
                .annotated(annotation::TUF_FILENAME, name)
        })
        .collect();
    Manifest::artifact(media_type::TUF_STATE, Descriptor::empty(), layers).to_bytes()
}

/// The reason code of an error, and its text for the failure message.
#[track_caller]
pub(crate) fn code<T: std::fmt::Debug>(result: Result<T, FetchError>) -> &'static str {
    match result {
        Ok(value) => panic!("this should have failed: {value:?}"),
        Err(error) => {
            println!("{}: {error}", error.reason());
            error.reason().code()
        }
    }
}

pub(crate) fn digest_path(bytes: &[u8]) -> String {
    format!("/v2/ns/demo/blobs/{}", Digest::sha256_of(bytes))
}
