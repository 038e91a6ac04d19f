//! How a server is set up: what `repo-server serve` takes, as a type, for embedding too.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use signer::plan::Retention;

use crate::fleet::FleetConfig;
use crate::store::bucket::s3::S3;
use crate::store::quota::Quota;

/// 6 hours: of the day a timestamp lasts by default, a signer that renews it twice has missed one
/// turn, and somebody has a quarter of a day to find out why.
pub const ALARM_BEFORE: Duration = Duration::from_secs(6 * 3600);

/// Everything a server needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// The storage directory: an OCI image layout.
    pub dir: PathBuf,
    /// A bucket instead of the directory.
    pub bucket: Option<S3>,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Certificate and key; plain HTTP without.
    pub tls: Option<TlsFiles>,
    /// Allow plain HTTP on an address that is not loopback.
    pub insecure_http: bool,
    /// Change nothing in the storage.
    pub read_only: bool,
    /// Tokens that may push. `None`: nobody may.
    pub push_tokens: Option<PathBuf>,
    /// Tokens that may pull. `None`: everybody may.
    pub pull_tokens: Option<PathBuf>,
    /// Let push tokens delete tags, manifests and blobs.
    pub allow_delete: bool,
    /// The namespace whose `tuf` repository `/metadata` and `/targets` show, the alarm watches, and
    /// [`Config::refresh`] is about. Without, it is that of the first TUF repository that is the
    /// only one when the server looks.
    pub namespace: Option<String>,
    /// How many bytes may be stored.
    pub quota: Quota,
    /// A place of its own for `/metrics` and `/healthz`, over plain HTTP; otherwise `/metrics` is
    /// for whoever may pull.
    pub metrics_listen: Option<SocketAddr>,
    /// A TUF timestamp that expires sooner than this raises an alarm.
    pub alarm_before: Duration,
    /// What the server itself signs, and what it believes.
    pub refresh: Refresh,
    /// When to collect garbage; `None` never does.
    pub collect: Option<Collect>,
    /// Reports of nodes; `None` takes none.
    pub fleet: Option<FleetConfig>,
    /// Bounds on what clients may use up.
    pub limits: Limits,
}

impl Config {
    /// Plain HTTP on a free loopback port, pull only, default limits.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Config {
            dir: dir.into(),
            bucket: None,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            insecure_http: false,
            read_only: false,
            push_tokens: None,
            pull_tokens: None,
            allow_delete: false,
            namespace: None,
            quota: Quota::default(),
            metrics_listen: None,
            alarm_before: ALARM_BEFORE,
            refresh: Refresh::default(),
            collect: None,
            fleet: None,
            limits: Limits::default(),
        }
    }
}

/// What a server signs by itself, see `docs/server.md`: nothing, and without a root it believes
/// nothing either.
#[derive(Debug, Clone, Default)]
pub struct Refresh {
    /// Key files with which it renews snapshot and timestamp of [`Config::namespace`]; empty: it
    /// signs nothing, and holds no key.
    pub keys: Vec<PathBuf>,
    /// The trust root from which a state must verify to be signed, and its expiry to be believed.
    pub root: Option<PathBuf>,
    /// The signing log; `None`: `signer.log` next to the first key.
    pub log: Option<PathBuf>,
    /// How long what it signs lasts: `snapshot=DURATION`, `timestamp=DURATION`.
    pub expires: Vec<String>,
}

/// How a running server collects garbage: what no tag, TUF state or referrer needs.
#[derive(Debug, Clone, Copy)]
pub struct Collect {
    /// From the end of one collection to the next.
    pub interval: Duration,
    /// Nothing younger is deleted. Longer than the longest push takes.
    pub grace: Duration,
    /// How many old TUF states keep their tags.
    pub states: Retention,
}

/// PEM files of a TLS server.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The server's certificate, then its chain.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
    /// Clients must present a certificate that one of these signed.
    pub client_ca: Option<PathBuf>,
}

/// Bounds on what one client, and all of them, may use up.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once; more wait in the kernel's queue.
    pub connections: usize,
    /// Connections at once of one client; further ones take the place of an idle one of it or are
    /// closed. Wider networks have bounds of their own, see `clients`.
    pub client_connections: usize,
    /// Requests per second of one client, after a burst; 429 above. 0 is no limit.
    pub client_rate: u32,
    /// Requests one client may send at once when it was quiet before.
    pub client_burst: u32,
    /// How often to look how fresh the TUF timestamps are.
    pub alarm_every: Duration,
    /// Time for a TLS handshake.
    pub handshake: Duration,
    /// Time for a request's head, from the first byte or from the end of the answer before.
    pub head: Duration,
    /// Bytes of a request's head; 431 above.
    pub head_bytes: u32,
    /// Header fields of a request; 431 above.
    pub headers: usize,
    /// Requests at once on one HTTP/2 connection; a quarter of it for those that come when there are
    /// more than [`Limits::crowd`] connections.
    pub streams: u32,
    /// With more connections than so many, further ones get less of what costs memory.
    pub crowd: usize,
    /// A connection without a request is closed after this.
    pub idle: Duration,
    /// A connection that has been idle for so long makes room for a newcomer when places are short;
    /// one with a body of which nothing moves, after five times as long.
    pub spare: Duration,
    /// A body of which nothing moves for this long ends its connection.
    pub stall: Duration,
    /// Over this long, a connection that carries a body must reach [`Limits::min_rate`].
    pub rate_window: Duration,
    /// Bytes per second.
    pub min_rate: u64,
    /// No further request on a connection older than this.
    pub max_age: Duration,
    /// Time for requests under way when the server stops.
    pub drain: Duration,
    /// Uploads being received at once; 429 above.
    pub uploads: usize,
    /// Upload sessions open at once; 429 above.
    pub sessions: usize,
    /// An upload session that is idle for this long holds nothing open: its bytes stay, and
    /// hashing begins anew when it is finished.
    pub upload_rest: Duration,
    /// An upload session that is idle for this long is deleted.
    pub session_expiry: Duration,
    /// The largest blob; 413 above.
    pub blob_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 4096,
            // An eighth: a hall of nodes behind one address fits, and no client has all.
            client_connections: 512,
            // Nodes ask some five requests an hour: a hundred thousand behind one address fit.
            client_rate: 500,
            client_burst: 5000,
            alarm_every: Duration::from_secs(30),
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(15),
            head_bytes: 32 << 10,
            headers: 64,
            streams: 16,
            crowd: 128,
            idle: Duration::from_secs(75),
            spare: Duration::from_secs(2),
            stall: Duration::from_secs(120),
            rate_window: Duration::from_secs(30),
            min_rate: 4 << 10,
            max_age: Duration::from_secs(3600),
            drain: Duration::from_secs(30),
            uploads: 64,
            sessions: 1024,
            // With [`Limits::rate_window`] less than a minute after the last byte.
            upload_rest: Duration::from_secs(15),
            session_expiry: Duration::from_secs(3600),
            // 64 GiB: an image for the largest disk a slot has today.
            blob_bytes: 64 << 30,
        }
    }
}
