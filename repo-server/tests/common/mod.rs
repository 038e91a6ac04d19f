//! A real server on a loopback port, and a client that writes exactly the bytes it is told to.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use formats::digest::Digest;
use formats::oci::{Descriptor, EMPTY_CONFIG, Index, Manifest, media_type};
use repo_server::{Config, Running};

pub mod bucket;
pub mod h2;
pub mod keys;
pub mod program;
pub mod proxy;

/// Whether servers of this program keep their storage in a bucket.
pub const IN_A_BUCKET: bool = matches!(env!("CARGO_CRATE_NAME").as_bytes(), b"bucket");

/// How long a test waits for what should come soon: only a hang takes longer, however busy the machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Waits for a condition that another thread or program brings about.
#[track_caller]
pub fn until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "{what}: did not come true");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub const TOKEN: &str = "push-token-for-tests";

/// A server with a directory of its own.
pub struct Fixture {
    pub temp: tempfile::TempDir,
    pub server: Running,
}

impl Fixture {
    /// Pushing and deleting are on.
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let server = repo_server::start(config(&temp, change)).unwrap();
        Fixture { temp, server }
    }

    /// The same directory, served anew.
    pub fn restarted(self, change: impl FnOnce(&mut Config)) -> Self {
        let Fixture { temp, server } = self;
        server.stop();
        let server = repo_server::start(config(&temp, change)).unwrap();
        Fixture { temp, server }
    }

    pub fn dir(&self) -> PathBuf {
        self.temp.path().join("repository")
    }

    /// Everything in the storage: names, and content.
    pub fn stored(&self) -> Vec<(PathBuf, Vec<u8>)> {
        match IN_A_BUCKET {
            true => bucket::content(&bucket::place_for(self.temp.path())),
            false => tree(&self.dir()),
        }
    }

    /// Uploads under way.
    pub fn uploads(&self) -> usize {
        let mut all = self.stored();
        all.retain(|(path, _)| path.components().any(|part| part.as_os_str() == "_uploads"));
        all.len()
    }

    /// The storage as an image layout.
    pub fn layout(&self) -> storage::layout::LayoutDir {
        let copy = self.temp.path().join("copy");
        if IN_A_BUCKET {
            for (name, bytes) in self.stored() {
                let path = copy.join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, bytes).unwrap();
            }
        }
        let dir = if IN_A_BUCKET { copy } else { self.dir() };
        storage::layout::LayoutDir::open(&dir).unwrap()
    }

    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.dir().join("blobs").join(digest.algorithm().name()).join(digest.hex())
    }

    pub fn address(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// A request of somebody without credentials.
    pub fn ask(&self, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Reply {
        exchange(self.address(), method, target, headers, body)
    }

    pub fn get(&self, target: &str) -> Reply {
        self.ask("GET", target, &[], &[])
    }

    /// A request with the push token.
    pub fn push(&self, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Reply {
        let bearer = format!("Authorization: Bearer {TOKEN}");
        let mut headers = headers.to_vec();
        headers.push(&bearer);
        exchange(self.address(), method, target, &headers, body)
    }

    /// Pushes a blob in one request.
    pub fn push_blob(&self, name: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::sha256_of(bytes);
        let target = format!("/v2/{name}/blobs/uploads/?digest={digest}");
        self.push("POST", &target, &[], bytes).expect(201);
        digest
    }

    /// Opens an upload session and gives its address.
    pub fn start_upload(&self, name: &str) -> String {
        let reply = self.push("POST", &format!("/v2/{name}/blobs/uploads/"), &[], &[]);
        reply.expect(202).header("location").unwrap().to_owned()
    }

    /// Pushes an artifact with these layers under a tag; its digest.
    pub fn push_artifact(&self, name: &str, tag: &str, layers: &[&[u8]]) -> Digest {
        let manifest = self.artifact(name, layers);
        self.push_manifest(name, tag, &manifest.to_bytes())
    }

    pub fn artifact(&self, name: &str, layers: &[&[u8]]) -> Manifest {
        self.push_blob(name, EMPTY_CONFIG);
        let layers = layers.iter().map(|bytes| {
            self.push_blob(name, bytes);
            Descriptor::of("application/octet-stream", bytes)
        });
        Manifest::artifact("application/vnd.test", Descriptor::empty(), layers.collect())
    }

    pub fn push_manifest(&self, name: &str, reference: &str, bytes: &[u8]) -> Digest {
        self.push_typed(name, reference, media_type::MANIFEST, bytes).expect(201);
        Digest::sha256_of(bytes)
    }

    pub fn push_index(&self, name: &str, reference: &str, index: &Index) -> Digest {
        let bytes = index.to_bytes();
        self.push_typed(name, reference, media_type::INDEX, &bytes).expect(201);
        Digest::sha256_of(&bytes)
    }

    pub fn push_typed(&self, name: &str, reference: &str, kind: &str, bytes: &[u8]) -> Reply {
        let kind = format!("Content-Type: {kind}");
        self.push("PUT", &format!("/v2/{name}/manifests/{reference}"), &[&kind], bytes)
    }
}

/// A loopback configuration below `temp`.
pub fn config(temp: &tempfile::TempDir, change: impl FnOnce(&mut Config)) -> Config {
    let tokens = temp.path().join("tokens");
    write_private(&tokens, TOKEN);
    let mut config = Config::new(temp.path().join("repository"));
    if IN_A_BUCKET {
        config.bucket = Some(bucket::place_for(temp.path()));
    }
    config.push_tokens = Some(tokens);
    config.allow_delete = true;
    change(&mut config);
    config
}

pub fn write_private(path: &Path, text: &str) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.unwrap().write_all(text.as_bytes()).unwrap();
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        let text = String::from_utf8_lossy(&self.body[..self.body.len().min(300)]).into_owned();
        assert_eq!(self.status, status, "{:?} {text}", self.headers);
        self
    }

    /// The answer is this error of the specification.
    #[track_caller]
    pub fn expect_error(self, status: u16, code: &str) -> Self {
        let reply = self.expect(status);
        let json: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(json["errors"][0]["code"], code, "{json}");
        reply
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(found, _)| found == name);
        values.next().map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// A connection from an address of this machine: each of 127.0.0.0/8 is a client of its own.
pub fn connect_from(from: IpAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(from, 0))?;
        let stream = socket.connect(to).await?.into_std()?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    })
}

/// One request on a connection of its own.
pub fn exchange(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[&str],
    body: &[u8],
) -> Reply {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    let chunked = headers.iter().any(|it| it.to_ascii_lowercase().starts_with("transfer-"));
    if !chunked && (!body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH")) {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    let mut sent = head.into_bytes();
    sent.extend_from_slice(body);
    let reply = raw(address, &sent);
    parse(&reply, method).unwrap_or_else(|| panic!("no answer to {method} {target}: {reply:?}"))
}

/// Sends bytes and reads until the server closes, for at most 20 s.
pub fn raw(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // The server may answer and close before it has read everything; that is its right.
    let _ = stream.write_all(bytes);
    let mut reply = Vec::new();
    if let Err(error) = stream.read_to_end(&mut reply) {
        let waits = [std::io::ErrorKind::WouldBlock, std::io::ErrorKind::TimedOut];
        assert!(!waits.contains(&error.kind()), "the server does not close the connection");
    }
    reply
}

pub fn parse(reply: &[u8], method: &str) -> Option<Reply> {
    let end = reply.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&reply[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    if status == 100 {
        return parse(&reply[end + 4..], method);
    }
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let body = reply[end + 4..].to_vec();
    let reply = Reply { status, headers, body };
    if method == "HEAD" {
        assert!(reply.body.is_empty(), "HEAD with a body");
    } else if let Some(length) = reply.header("content-length") {
        assert_eq!(length.parse::<usize>().ok()?, reply.body.len(), "a body cut short");
    }
    Some(reply)
}

/// Bytes that do not repeat, the same on every run.
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[0]
        })
        .collect()
}

/// A TUF state of one file: a timestamp that expires that many seconds from now.
pub fn publish_timestamp(
    layout: &storage::layout::LayoutDir,
    repository: &str,
    version: u64,
    seconds: i64,
) {
    publish_state(layout, repository, version, seconds, None);
}

/// The same, beside targets metadata of `targets` bytes.
pub fn publish_state(
    layout: &storage::layout::LayoutDir,
    repository: &str,
    version: u64,
    seconds: i64,
    targets: Option<usize>,
) {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let expires = formats::tuf::UnixTime::from_secs(i64::try_from(now).unwrap() + seconds);
    let text = serde_json::json!({
        "signatures": [],
        "signed": { "_type": "timestamp", "version": version, "expires": expires.to_string() },
    });
    let text = text.to_string().into_bytes();
    let targets = targets.map(|len| ("1.targets.json", vec![b' '; len]));
    let files: Vec<_> = [("timestamp.json", text)].into_iter().chain(targets).collect();
    let layers = files.iter().map(|(name, bytes)| {
        Descriptor::of(media_type::TUF_METADATA, bytes)
            .annotated(formats::oci::annotation::TUF_FILENAME, name)
    });
    let state = Manifest::artifact(media_type::TUF_STATE, Descriptor::empty(), layers.collect());
    let state = state.to_bytes();
    for bytes in files.iter().map(|(_, bytes)| &bytes[..]).chain([EMPTY_CONFIG, &state]) {
        layout.put_blob(bytes).unwrap();
    }
    let latest = Descriptor::of(media_type::MANIFEST, &state);
    layout.set_refs(&[(format!("{repository}:latest"), Some(latest))]).unwrap();
}

/// Uploads under way below a repository's directory.
pub fn uploads(dir: &Path) -> usize {
    let mut files = tree(&dir.join("repositories"));
    files.retain(|(path, _)| path.components().any(|part| part.as_os_str() == "_uploads"));
    files.len()
}

/// Everything below a directory: names, and content of files. For "nothing changed".
pub fn tree(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() {
                open.push(path);
            } else {
                let content = std::fs::read(&path).unwrap_or_default();
                found.push((path, content));
            }
        }
    }
    found.sort();
    found
}
