//! The command line: arguments to a configuration, errors to codes.

use std::io::{IsTerminal as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use formats::error_chain;
use formats::reason::Exit;
use signer::plan::Retention;
use storage::interrupt::{self, Ending};
use storage::log::printable;
use tokio::signal::unix::{SignalKind, signal};
use url::Url;

use crate::amount::{bytes, seconds, states};
use crate::{
    Collect, CollectionPlan, Config, Limits, Quota, Refresh, Reloader, S3, Server, ServerError,
    Store, StoreError, TlsFiles,
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
const LOG: &str = "Log";

/// That of --listen.
const PORT: u16 = 5443;

/// Embedded OCI registry and classic TUF tree of Racklet Update.
#[derive(Debug, Parser)]
#[command(name = "repo-server", version, long_version = version(), propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print one JSON object on stdout instead of text.
    #[arg(long, global = true)]
    json: bool,
}

/// What `--version` prints after the name.
fn version() -> &'static str {
    static TEXT: LazyLock<String> =
        LazyLock::new(|| build_info::version(env!("CARGO_PKG_VERSION"), &[]));
    &TEXT
}

#[derive(Debug, Subcommand)]
enum Command {
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
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Where the repository is.
#[derive(Debug, clap::Args)]
struct Location {
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
    fn bucket(&self) -> Option<S3> {
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

    fn open(&self, read_only: bool) -> Result<Store, ServerError> {
        match self.bucket() {
            Some(bucket) => Store::open_bucket(&bucket, read_only, Quota::default()),
            None => Store::open(&self.dir(), read_only),
        }
    }

    fn failed(&self, error: &StoreError) -> ServerError {
        match self.bucket() {
            Some(bucket) => bucket.failed(error),
            None => ServerError::Store { path: self.dir(), why: error_chain(error) },
        }
    }
}

#[derive(Debug, clap::Args)]
struct Serve {
    #[command(flatten)]
    place: Location,
    /// Address and port to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:5443",
          value_parser = address, help_heading = NETWORK)]
    listen: SocketAddr,
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
    log_format: LogFormat,
    /// Log filter, in the syntax of tracing-subscriber: `warn`, `info,access=off`, …
    #[arg(
        help_heading = "Log",
        long,
        value_name = "FILTER",
        default_value = "info",
        env = "REPO_SERVER_LOG"
    )]
    log: String,
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
enum LogFormat {
    Text,
    Json,
}

impl Serve {
    fn config(&self) -> Config {
        let tls = self.tls_cert.clone().zip(self.tls_key.clone());
        Config {
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
        }
    }
}

/// The definition of the command line, for manual pages.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command line of this process to its end.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return explain_usage(&error),
    };
    watch(&cli.command, cli.json);
    let done = survive_file_limits().and_then(|()| match &cli.command {
        Command::Serve(args) => serve(args, cli.json),
        Command::Scrub { place } => scrub(place, cli.json),
        Command::Gc { place, grace, states, dry_run } => {
            collect(place, (Duration::from_secs(*grace), *states), *dry_run, cli.json)
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "repo-server", &mut script);
            print(&script).map(|()| Exit::Done)
        }
    });
    match done {
        Ok(exit) => ExitCode::from(exit.code()),
        Err(error) => {
            interrupt::outcome();
            tell_error(&error, cli.json)
        }
    }
}

/// An error on standard error, and as JSON where that was asked for; the exit code is its reason's.
fn tell_error(error: &ServerError, json: bool) -> ExitCode {
    if json {
        // The exit code and standard error say it, too.
        let _ = print_json(&serde_json::json!({
            "ok": false,
            "code": error.reason().code(),
            "message": error_chain(error),
            "hint": error.hint(),
        }));
    }
    fail(error)
}

/// From here on, Ctrl-C and SIGTERM say what stands. The server stops in order instead.
fn watch(command: &Command, json: bool) {
    let what = match command {
        Command::Serve(_) | Command::Completions { .. } => return,
        Command::Scrub { .. } => "not every blob was read, and nothing was changed",
        Command::Gc { dry_run: true, .. } => "nothing was deleted",
        Command::Gc { .. } => "not everything was looked at, and what was deleted was garbage",
    };
    interrupt::stands(what, "");
    interrupt::watch(move |ending| {
        if let Ending::Now(signal, stands) = ending {
            tell_error(&ServerError::Interrupted { signal, stands: stands.clone() }, json);
        }
    });
}

/// Tells an error on standard error; the exit code is its reason's.
fn fail(error: &ServerError) -> ExitCode {
    let reason = error.reason();
    say(&format!("error[{reason}]: {}", printable(&error_chain(error))));
    say(&format!("  hint: {}", printable(error.hint())));
    ExitCode::from(reason.exit().code())
}

/// Prints help or the version, or what is wrong with the command line.
fn explain_usage(error: &clap::Error) -> ExitCode {
    if error.use_stderr() {
        say(error.to_string().trim_end());
        return ExitCode::from(Exit::Usage.code());
    }
    match print(error.to_string().as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn serve(args: &Serve, json: bool) -> Result<Exit, ServerError> {
    start_log(args)?;
    let failed = |source| ServerError::Listen { address: args.listen.to_string(), source };
    let runtime = crate::threads().build();
    let runtime = runtime.map_err(|source| ServerError::Io {
        doing: "start the threads of",
        path: PathBuf::from("this process"),
        source,
    })?;
    runtime.block_on(async {
        let server = Server::bind(args.config()).await?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
        say(&format!("listening on {}", server.url()));
        if let Some(address) = server.metrics_addr() {
            say(&format!("metrics on http://{address}/metrics"));
        }
        if json {
            print_json(&serde_json::json!({ "ok": true, "url": server.url() }))?;
        }
        // Fails when systemd did not start this program.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        let reloader = server.reloader();
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                reload(&reloader);
            }
        });
        server
            .run(async {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
                tracing::info!("stopping");
            })
            .await;
        Ok(Exit::Done)
    })
}

/// On SIGHUP. Files that are wrong change nothing: the server goes on with what it had.
fn reload(reloader: &Reloader) {
    match reloader.reload() {
        Ok(()) => tracing::info!("certificates and tokens reloaded"),
        Err(error) => {
            tracing::error!(
                error = error_chain(&error),
                "reload failed; the previous certificates and tokens stay in use"
            );
        }
    }
}

/// A line on stderr. A log that is full or gone changes no outcome, as the panic of `eprintln!` would.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A line of a report.
fn tell(text: &str) -> Result<(), ServerError> {
    print(format!("{text}\n").as_bytes())
}

/// What was asked for, on standard output: without it there is no success. A reader that went away
/// (`| head`) has what it wanted.
fn print(bytes: &[u8]) -> Result<(), ServerError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(ServerError::ReportLost(error))
        }
        _ => Ok(()),
    }
}

/// Makes a write beyond the file-size limit an error that is told, not the end of this program: the
/// kernel sends SIGXFSZ, and a program that handles it gets EFBIG.
fn survive_file_limits() -> Result<(), ServerError> {
    let failed = |source| ServerError::Io {
        doing: "handle SIGXFSZ of",
        path: PathBuf::from("this process"),
        source,
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let _inside = runtime.enter();
    let number = rustix::process::Signal::XFSZ.as_raw();
    // The handler stays when what listens to it is gone.
    signal(SignalKind::from_raw(number)).map(drop).map_err(failed)
}

fn start_log(args: &Serve) -> Result<(), ServerError> {
    let filter = tracing_subscriber::EnvFilter::try_new(&args.log)
        .map_err(|error| ServerError::Config(format!("--log {}: {error}", args.log)))?;
    let lines = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(filter)
        // It would be told on the same standard error, with a panic where that is full or gone.
        .log_internal_errors(false);
    match args.log_format {
        // Colours are escapes, and of those none passes.
        LogFormat::Text => lines.with_ansi(false).with_writer(storage::log::stderr).init(),
        // JSON escapes what ends a line by itself.
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
    Ok(())
}

fn scrub(place: &Location, json: bool) -> Result<Exit, ServerError> {
    let store = place.open(true)?;
    let show = std::io::stderr().is_terminal() && !json;
    let checked = store.scrub(|digest, len| {
        if show {
            let _ = write!(std::io::stderr(), "\r{digest} {:>8} MiB", len >> 20);
        }
    });
    if show {
        say("");
    }
    let (read, rotten) = checked.map_err(|error| place.failed(&error))?;
    interrupt::outcome();
    let damaged = rotten.len();
    if json {
        let rotten: Vec<_> = rotten
            .iter()
            .map(|(digest, why)| serde_json::json!({ "digest": digest, "why": why }))
            .collect();
        let ok = rotten.is_empty();
        print_json(&serde_json::json!({ "ok": ok, "read": read, "rotten": rotten }))?;
    } else {
        for (digest, why) in &rotten {
            tell(&format!("{digest}: {why}"))?;
        }
        tell(&format!("{} read, {damaged} damaged", count(read, "blob")))?;
    }
    // Damaged blobs are content that a client would refuse.
    Ok(if damaged == 0 { Exit::Done } else { Exit::Content })
}

fn collect(
    place: &Location,
    (grace, keep): (Duration, Retention),
    dry: bool,
    json: bool,
) -> Result<Exit, ServerError> {
    let store = match place.bucket() {
        Some(_) => place.open(false)?,
        None => {
            // A mistyped name must not become a repository, and what is only looked at must not change.
            let looked_at = place.open(true)?;
            if dry { looked_at } else { place.open(false)? }
        }
    };
    let (now, failed) = (SystemTime::now(), |error: StoreError| place.failed(&error));
    let (states, done) = match dry {
        true => {
            let states = store.old_states(keep).map_err(failed)?;
            let plan = store.plan_collection(grace, now, keep).map_err(failed)?;
            interrupt::outcome();
            if !json {
                show(&states, &plan)?;
            }
            (states.len(), plan.garbage())
        }
        false => {
            let states = store.retire(keep).map_err(failed)?;
            (states, store.collect(grace, now, keep).map_err(failed)?)
        }
    };
    interrupt::outcome();
    if json {
        print_json(&serde_json::json!({
            "ok": true,
            "dry_run": dry,
            "states": states,
            "links": done.links,
            "blobs": done.blobs,
            "bytes": done.bytes,
            "kept": done.kept,
            "young": done.young,
        }))?;
    } else {
        let verb = if dry { "would be removed" } else { "removed" };
        let (blobs, links) = (count(done.blobs, "blob"), count(done.links, "link"));
        let (mib, kept) = (done.bytes >> 20, count(done.kept, "blob"));
        let states = count(states, "old state");
        tell(&format!("{states}, {blobs} ({mib} MiB) and {links} {verb}, {kept} kept"))?;
    }
    Ok(Exit::Done)
}

/// What a collection would remove, one line each. What only an old state needs is not among it: it goes later.
fn show(states: &[String], plan: &CollectionPlan) -> Result<(), ServerError> {
    for state in states {
        tell(&format!("state {state}"))?;
    }
    for (repository, digest) in plan.links() {
        tell(&format!("link {repository}@{digest}"))?;
    }
    for (digest, len) in plan.blobs() {
        tell(&format!("blob {digest} {len}"))?;
    }
    Ok(())
}

/// `1 blob`, `2 blobs`.
fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn print_json(value: &serde_json::Value) -> Result<(), ServerError> {
    tell(&value.to_string())
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
        assert_eq!(serve.gc_states, Retention::default());
    }
}
