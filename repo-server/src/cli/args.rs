//! The arguments, and the configuration that they say.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use formats::error_chain;
use signer::plan::Retention;
use url::Url;

use super::fleet;
use crate::amount::{bytes, seconds, states};
use crate::{
    Collect, Config, FleetConfig, FleetPlace, Limits, Quota, Refresh, S3, ServerError, Store,
    StoreError, TlsFiles,
};

/// One day: pushes of the largest images over slow lines take hours.
const GRACE: &str = "1d";
/// [`Retention::default`].
const STATES: &str = "256";

/// Defaults as the library has them, as people write them.
const MAX_BLOB: &str = "64GiB";
const MIN_RATE: &str = "4KiB";
const ALARM: &str = "6h";

/// Under which options are listed.
const STORAGE: &str = "Storage";
const NETWORK: &str = "Network and TLS";
const RIGHTS: &str = "Who may push and pull";
const GARBAGE: &str = "Garbage";
const METADATA: &str = "TUF metadata";
const CLIENTS: &str = "Limits of clients";
const FLEET: &str = "Reports and restarts of nodes";
const LOG: &str = "Log";

/// That of --listen.
const PORT: u16 = 5443;

/// Embedded OCI registry and classic TUF tree of Racklet Update.
#[derive(Debug, Parser)]
#[command(name = "repo-server", version, long_version = version(), propagate_version = true)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
    /// Print one JSON object on stdout instead of text.
    #[arg(long, global = true)]
    pub(super) json: bool,
}

/// What `--version` prints after the name.
fn version() -> &'static str {
    static TEXT: LazyLock<String> =
        LazyLock::new(|| build_info::version(env!("CARGO_PKG_VERSION"), &[]));
    &TEXT
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Serve a repository over HTTPS.
    Serve(Box<Serve>),
    /// Read every blob and compare it with its digest.
    Scrub {
        #[command(flatten)]
        place: Location,
    },
    /// Delete what no tag, TUF state or referrer needs.
    ///
    /// No server may be writing to a directory meanwhile; to a bucket it may.
    Gc {
        #[command(flatten)]
        place: Location,
        /// Nothing younger is deleted, because pushes under way need it.
        #[arg(long, value_name = "DURATION", value_parser = seconds, default_value = GRACE)]
        grace: u64,
        /// The newest TUF states that keep their tags; of older ones every 16th stays, then every 256th, and so
        /// on. Or all.
        #[arg(long, value_name = "NUMBER", value_parser = states, default_value = STATES)]
        states: Retention,
        /// Only list what would be deleted.
        #[arg(long)]
        dry_run: bool,
    },
    /// Reports of nodes, and their restart locks: approve nodes, list them, take reports from files.
    ///
    /// Also while a server runs.
    #[command(subcommand)]
    Fleet(fleet::FleetCommand),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Where the repository is.
#[derive(Debug, clap::Args)]
pub(super) struct Location {
    /// The repository: an OCI image layout; `serve` makes one where there is none.
    #[arg(long, value_name = "DIR", required_unless_present = "s3", help_heading = STORAGE)]
    dir: Option<PathBuf>,
    /// The repository in a bucket, which any number of servers may share: BUCKET or BUCKET/prefix.
    /// Credentials come from the environment (AWS_ACCESS_KEY_ID, …) or ~/.aws/credentials.
    #[arg(long, value_name = "BUCKET", conflicts_with = "dir", value_parser = S3::parse,
          help_heading = STORAGE)]
    s3: Option<S3>,
    /// The S3 service, if it is not AWS: https://host:port.
    #[arg(long, value_name = "URL", requires = "s3", help_heading = STORAGE)]
    s3_endpoint: Option<Url>,
    /// The bucket's region; default: AWS_REGION or us-east-1.
    #[arg(long, value_name = "REGION", requires = "s3", help_heading = STORAGE)]
    s3_region: Option<String>,
    /// A file of AWS credentials; its profile is AWS_PROFILE or `default`.
    #[arg(long, value_name = "FILE", requires = "s3", help_heading = STORAGE)]
    s3_credentials: Option<PathBuf>,
    /// CA certificates (PEM) for the service, in addition to the system's.
    #[arg(long, value_name = "FILE", requires = "s3", help_heading = STORAGE)]
    s3_ca: Option<PathBuf>,
    /// Plain HTTP to a service on another machine.
    #[arg(long, requires = "s3_endpoint", help_heading = STORAGE)]
    s3_insecure_http: bool,
}

impl Location {
    pub(super) fn bucket(&self) -> Option<S3> {
        self.s3.clone().map(|s3| S3 {
            endpoint: self.s3_endpoint.clone(),
            region: self.s3_region.clone(),
            credentials: self.s3_credentials.clone(),
            ca: self.s3_ca.clone(),
            insecure_http: self.s3_insecure_http,
            ..s3
        })
    }

    fn dir(&self) -> PathBuf {
        self.dir.clone().unwrap_or_default()
    }

    pub(super) fn open(&self, read_only: bool) -> Result<Store, ServerError> {
        match self.bucket() {
            Some(bucket) => Store::open_bucket(&bucket, read_only, Quota::default()),
            None => Store::open(&self.dir(), read_only),
        }
    }

    pub(super) fn failed(&self, error: &StoreError) -> ServerError {
        match self.bucket() {
            Some(bucket) => bucket.failed(error),
            None => ServerError::Store { path: self.dir(), why: error_chain(error) },
        }
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct Serve {
    #[command(flatten)]
    place: Location,
    /// Address and port to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:5443",
          value_parser = address, help_heading = NETWORK)]
    pub(super) listen: SocketAddr,
    /// The server's certificate and its chain (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_key", help_heading = NETWORK)]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert", help_heading = NETWORK)]
    tls_key: Option<PathBuf>,
    /// Only clients with a certificate signed by one of these (PEM) may connect.
    #[arg(long, value_name = "FILE", requires = "tls_cert", help_heading = NETWORK)]
    client_ca: Option<PathBuf>,
    /// Allow plain HTTP on any address, for a server behind a TLS proxy.
    #[arg(long, help_heading = NETWORK)]
    insecure_http: bool,
    /// Tokens that may push, one per line, or sha256:<hex> of one; `create-only` before one keeps it
    /// from moving tags. Without this, nobody may push.
    #[arg(long, value_name = "FILE", help_heading = RIGHTS)]
    push_token_file: Option<PathBuf>,
    /// Tokens that may pull. Without this, everybody may pull.
    #[arg(long, value_name = "FILE", help_heading = RIGHTS)]
    pull_token_file: Option<PathBuf>,
    /// Change nothing in the repository.
    #[arg(long, help_heading = STORAGE)]
    read_only: bool,
    /// Let push tokens delete tags, manifests and blobs.
    #[arg(long, help_heading = RIGHTS)]
    allow_delete: bool,
    /// Show the TUF state of this namespace under /metadata and /targets, and watch its timestamp;
    /// "" is that of `tuf` alone. Without this, the only TUF repository there is.
    #[arg(long, value_name = "NS", help_heading = METADATA)]
    namespace: Option<String>,
    /// The largest blob.
    #[arg(long, value_name = "SIZE", value_parser = bytes, default_value = MAX_BLOB,
          help_heading = STORAGE)]
    max_blob: u64,
    /// Quota of all blobs and uploads together.
    #[arg(long, value_name = "SIZE", value_parser = bytes, help_heading = STORAGE)]
    quota: Option<u64>,
    /// Quota of each repository; a blob that several repositories share counts for each.
    #[arg(long, value_name = "SIZE", value_parser = bytes, help_heading = STORAGE)]
    repository_quota: Option<u64>,
    /// Time between garbage collections. Without this, there are none.
    #[arg(long, value_name = "DURATION", value_parser = seconds, help_heading = GARBAGE)]
    gc_interval: Option<u64>,
    /// Nothing younger is garbage.
    #[arg(long, value_name = "DURATION", value_parser = seconds, default_value = GRACE,
          help_heading = GARBAGE)]
    gc_grace: u64,
    /// The newest TUF states that keep their tags in a collection; of older ones every 16th stays, then every
    /// 256th, and so on. Or all.
    #[arg(long, value_name = "NUMBER", value_parser = states, default_value = STATES,
          help_heading = GARBAGE)]
    gc_states: Retention,
    /// Serve /metrics and /healthz on this address, over plain HTTP. Without this, /metrics is served
    /// with the rest, for whoever may pull.
    #[arg(long, value_name = "ADDR", value_parser = address, help_heading = NETWORK)]
    metrics_listen: Option<SocketAddr>,
    /// How long before a TUF timestamp expires an alarm is raised.
    #[arg(long, value_name = "DURATION", value_parser = seconds, default_value = ALARM,
          help_heading = METADATA)]
    alarm_before: u64,
    /// Renew snapshot and timestamp of --namespace with this key (may be given twice). The server then
    /// holds an online key, and logs it; offline keys are refused. `signer refresh` on another machine
    /// is safer.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["read_only", "s3"],
          requires_all = ["refresh_root", "namespace"], help_heading = METADATA)]
    refresh_key: Vec<PathBuf>,
    /// The repository's root.json: nothing else is signed with --refresh-key, and no other timestamp
    /// silences the alarm. May be given without a key.
    #[arg(long, value_name = "FILE", requires = "namespace", help_heading = METADATA)]
    refresh_root: Option<PathBuf>,
    /// The signing log, which detects an old state that is put back; default: signer.log next to the
    /// first key.
    #[arg(long, value_name = "FILE", requires = "refresh_key", help_heading = METADATA)]
    refresh_log: Option<PathBuf>,
    /// How long what is signed lasts: snapshot=DURATION or timestamp=DURATION (may be given twice).
    /// Default: as long as what these keys signed before; at first 7d and 1d.
    #[arg(
        help_heading = "TUF metadata",
        long,
        value_name = "ROLE=DURATION",
        requires = "refresh_key"
    )]
    refresh_expires: Vec<String>,
    /// Take reports of nodes, and show them under /fleet/. Their database is in this directory, outside
    /// of the repository, or in PostgreSQL (postgresql://USER@HOST/DATABASE), where several servers share
    /// it; what is missing there is made.
    #[arg(long, value_name = "DIR|URL", env = "REPO_SERVER_FLEET", help_heading = FLEET)]
    fleet: Option<FleetPlace>,
    /// The password of the PostgreSQL user: the first line of a file that others may not read.
    #[arg(long, value_name = "FILE", requires = "fleet", help_heading = FLEET)]
    fleet_password_file: Option<PathBuf>,
    /// Certificates of those who vouch for the PostgreSQL server. Default: those of the system.
    #[arg(long, value_name = "FILE", requires = "fleet", help_heading = FLEET)]
    fleet_ca: Option<PathBuf>,
    /// Nodes that are approved, one name a line, beside those of `repo-server fleet approve`. Read again
    /// at SIGHUP.
    #[arg(long, value_name = "FILE", requires = "fleet", help_heading = FLEET)]
    fleet_approved: Option<PathBuf>,
    /// How long what a node did is remembered.
    #[arg(long, value_name = "DURATION", requires = "fleet", value_parser = seconds,
          default_value = fleet::RETENTION, help_heading = FLEET)]
    fleet_retention: u64,
    /// Nodes that wait for approval, at most; then the one that was silent for longest is forgotten.
    #[arg(long, value_name = "N", requires = "fleet", default_value_t = crate::fleet::WAITING,
          help_heading = FLEET)]
    fleet_waiting: usize,
    /// So many nodes of this group may restart at once, as the FleetLock protocol has it; may be given for
    /// several groups, in the variable with commas. Without this, nobody gets a restart lock here.
    #[arg(long = "fleet-group", value_name = "NAME=N", requires = "fleet", value_parser = fleet::group,
          env = "REPO_SERVER_FLEET_GROUP", value_delimiter = ',', help_heading = FLEET)]
    fleet_groups: Vec<(String, usize)>,
    /// When a restart lock ends that nobody releases: longer than a restart with all its trials takes.
    #[arg(long, value_name = "DURATION", requires = "fleet", value_parser = seconds,
          default_value = fleet::LOCK_AGE, env = "REPO_SERVER_FLEET_LOCK_AGE", help_heading = FLEET)]
    fleet_lock_age: u64,
    /// Connections of one client (an IPv4 address or an IPv6 /64) at once; an IPv6 /56 may have twice
    /// as many and a /48 four times, but not more than half of --max-connections. A further one takes
    /// the place of an idle one, or is closed.
    #[arg(long, value_name = "N", default_value_t = Limits::default().client_connections,
          help_heading = CLIENTS)]
    client_connections: usize,
    /// Requests per second of one client, in the long run; 0 is no limit.
    #[arg(long, value_name = "N", default_value_t = Limits::default().client_rate,
          help_heading = CLIENTS)]
    client_rate: u32,
    /// Requests of one client at once, after a pause.
    #[arg(long, value_name = "N", default_value_t = Limits::default().client_burst,
          help_heading = CLIENTS)]
    client_burst: u32,
    /// Connections at once. When all are taken, an idle one of the client with most is closed for a
    /// newcomer; while none is idle, newcomers wait.
    #[arg(long, value_name = "N", default_value_t = Limits::default().connections,
          help_heading = CLIENTS)]
    max_connections: usize,
    /// Uploads received at once; further ones get 429.
    #[arg(long, value_name = "N", default_value_t = Limits::default().uploads,
          help_heading = CLIENTS)]
    max_uploads: usize,
    /// How long an upload may be idle before it is deleted.
    #[arg(long, value_name = "DURATION", value_parser = seconds, default_value = "1h",
          help_heading = CLIENTS)]
    upload_expiry: u64,
    /// Minimum rate of a transfer, per second; slower ones are closed.
    #[arg(long, value_name = "SIZE", value_parser = bytes, default_value = MIN_RATE,
          help_heading = CLIENTS)]
    min_rate: u64,
    /// Format of log lines.
    #[arg(long, value_enum, default_value_t = LogFormat::Text, help_heading = LOG)]
    pub(super) log_format: LogFormat,
    /// Log filter, in the syntax of tracing-subscriber: `warn`, `info,access=off`, …
    #[arg(
        help_heading = "Log",
        long,
        value_name = "FILTER",
        default_value = "info",
        env = "REPO_SERVER_LOG"
    )]
    pub(super) log: String,
}

/// An address of this machine, in digits: a name may stand for several.
fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        let no_port = text.parse::<IpAddr>().is_ok();
        let port = text.rsplit(':').next().filter(|_| !no_port);
        let port = port.and_then(|port| port.parse::<u16>().ok()).unwrap_or(PORT);
        format!(
            "write an IP address and a port: 127.0.0.1:{port} or [::1]:{port} for this machine alone, \
             0.0.0.0:{port} or [::]:{port} for the network"
        )
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    Text,
    Json,
}

impl Serve {
    pub(super) fn config(&self) -> Result<Config, ServerError> {
        let fleet = self.fleet.clone().map(|place| {
            let files = (self.fleet_password_file.clone(), self.fleet_ca.clone());
            Ok::<_, ServerError>(FleetConfig {
                place: place.with_files(files.0, files.1)?,
                approved: self.fleet_approved.clone(),
                retention: Duration::from_secs(self.fleet_retention),
                waiting: self.fleet_waiting,
                groups: self.fleet_groups.clone(),
                lock_age: Duration::from_secs(self.fleet_lock_age),
            })
        });
        let tls = self.tls_cert.clone().zip(self.tls_key.clone());
        Ok(Config {
            dir: self.place.dir(),
            bucket: self.place.bucket(),
            listen: self.listen,
            tls: tls.map(|(certificate, key)| TlsFiles {
                certificate,
                key,
                client_ca: self.client_ca.clone(),
            }),
            insecure_http: self.insecure_http,
            read_only: self.read_only,
            push_tokens: self.push_token_file.clone(),
            pull_tokens: self.pull_token_file.clone(),
            allow_delete: self.allow_delete,
            namespace: self.namespace.clone(),
            collect: self.gc_interval.map(|seconds| Collect {
                interval: Duration::from_secs(seconds.max(1)),
                grace: Duration::from_secs(self.gc_grace),
                states: self.gc_states,
            }),
            quota: Quota { total: self.quota, repository: self.repository_quota },
            fleet: fleet.transpose()?,
            metrics_listen: self.metrics_listen,
            alarm_before: Duration::from_secs(self.alarm_before),
            refresh: Refresh {
                keys: self.refresh_key.clone(),
                root: self.refresh_root.clone(),
                log: self.refresh_log.clone(),
                expires: self.refresh_expires.clone(),
            },
            limits: Limits {
                client_connections: self.client_connections,
                client_rate: self.client_rate,
                client_burst: self.client_burst,
                blob_bytes: self.max_blob,
                connections: self.max_connections,
                uploads: self.max_uploads,
                session_expiry: Duration::from_secs(self.upload_expiry),
                min_rate: self.min_rate,
                ..Limits::default()
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ALARM_BEFORE;

    /// They are written twice: as people read them, and where programs that embed the server take them from.
    #[test]
    fn defaults_are_those_of_the_library() {
        let Cli { command: Command::Serve(serve), .. } =
            Cli::try_parse_from(["repo-server", "serve", "--dir", "x"]).unwrap()
        else {
            panic!("another command");
        };
        let limits = Limits::default();
        assert_eq!(serve.max_blob, limits.blob_bytes);
        assert_eq!(serve.min_rate, limits.min_rate);
        assert_eq!(serve.alarm_before, ALARM_BEFORE.as_secs());
        assert_eq!((serve.gc_grace, serve.upload_expiry), (86_400, 3600));
        let fleet = FleetConfig::new(std::path::Path::new("x"));
        assert_eq!(serve.fleet_retention, fleet.retention.as_secs());
        assert_eq!(serve.fleet_lock_age, fleet.lock_age.as_secs());
        assert_eq!(serve.gc_states, Retention::default());
    }
}
