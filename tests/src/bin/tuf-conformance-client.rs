//! The client that theupdateframework/tuf-conformance drives: `update_core::trust` behind the
//! suite's command line, over plain HTTP.
//!
//! ```text
//! client --metadata-dir D init ROOT
//! client --metadata-dir D --metadata-url U refresh
//! client --metadata-dir D --metadata-url U --target-name T … --target-dir DIR --target-base-url B download
//! ```
//!
//! Exit code 0 if all of it succeeded, else 1. `D/state` is the trusted state, one record;
//! `D/<role>.json` are copies of what is in it, for the suite to look at.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use formats::tuf::{Role, UnixTime, url_component};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use update_core::trust::{
    Clock, Limits, Refresh, Reply, SignedTarget, Step, Stored, TrustedSet, Workflow,
};

/// Longest one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    match Client::from_args(std::env::args().skip(1)).and_then(|client| client.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The command line.
#[derive(Debug, Default)]
struct Client {
    metadata_dir: PathBuf,
    metadata_url: String,
    target_names: Vec<String>,
    target_dir: PathBuf,
    target_base_url: String,
    command: Vec<String>,
}

impl Client {
    fn from_args(mut args: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut client = Client::default();
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--metadata-dir" => client.metadata_dir = value()?.into(),
                "--metadata-url" => client.metadata_url = value()?,
                "--target-name" => client.target_names.push(value()?),
                "--target-dir" => client.target_dir = value()?.into(),
                "--target-base-url" => client.target_base_url = value()?,
                _ => client.command.push(arg),
            }
        }
        Ok(client)
    }

    fn run(&self) -> anyhow::Result<()> {
        let command: Vec<&str> = self.command.iter().map(String::as_str).collect();
        match command.as_slice() {
            ["init", root] => self.init(Path::new(root)),
            ["refresh"] => runtime()?.block_on(self.refresh()).map(drop),
            ["download"] => runtime()?.block_on(self.download()),
            other => bail!("unknown command {other:?}"),
        }
    }

    fn init(&self, root: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(&self.metadata_dir)?;
        let root = fs::read(root).with_context(|| format!("read {}", root.display()))?;
        replace(&self.metadata_dir.join("trusted-root"), &root)?;
        replace(&self.metadata_dir.join("root.json"), &root)
    }

    async fn refresh(&self) -> anyhow::Result<TrustedSet> {
        let root = fs::read(self.metadata_dir.join("trusted-root")).context("not initialised")?;
        let stored = match fs::read(self.metadata_dir.join("state")) {
            Ok(bytes) => Stored::from_bytes(&bytes)?,
            Err(error) if error.kind() == ErrorKind::NotFound => Stored::default(),
            Err(error) => return Err(error).context("read the trusted state"),
        };
        let clock = Clock { system: system_time(), build: UnixTime::EPOCH };
        let mut refresh = Refresh::begin(stored, &root, clock, Limits::default())?;
        self.drive(&mut refresh).await
    }

    async fn download(&self) -> anyhow::Result<()> {
        let mut set = self.refresh().await?;
        for name in &self.target_names {
            let target = self.drive(&mut set.find_target(name)?).await?;
            let consistent = set.root().consistent_snapshot;
            self.fetch_target(&target, consistent).await?;
        }
        Ok(())
    }

    async fn drive<W: Workflow>(&self, workflow: &mut W) -> anyhow::Result<W::Output> {
        loop {
            match workflow.next()? {
                Step::Fetch(fetch) => {
                    let url = format!(
                        "{}/{}",
                        self.metadata_url.trim_end_matches('/'),
                        url_component(&fetch.file_name)
                    );
                    workflow.respond(get(&url, fetch.max_len).await?);
                }
                Step::Persist(stored) => self.persist(&stored)?,
                Step::Done(output) => return Ok(output),
            }
        }
    }

    /// The record first; the copies follow from it.
    fn persist(&self, stored: &Stored) -> anyhow::Result<()> {
        replace(&self.metadata_dir.join("state"), &stored.to_bytes())?;
        let delegated = stored.delegated.keys().cloned().map(Role::Delegated);
        for role in Role::TOP_LEVEL.into_iter().chain(delegated) {
            let copy = self.metadata_dir.join(url_component(&role.meta_name()));
            match stored.file(&role) {
                Some(bytes) => replace(&copy, bytes)?,
                None if copy.exists() => fs::remove_file(copy)?,
                None => {}
            }
        }
        Ok(())
    }

    async fn fetch_target(&self, target: &SignedTarget, consistent: bool) -> anyhow::Result<()> {
        let (name, file) = (target.name(), target.file());
        let path = self.target_dir.join(url_component(name));
        if fs::read(&path).is_ok_and(|bytes| file.check(name, &bytes).is_ok()) {
            return Ok(());
        }
        let known = file.hashes.known();
        let hash = known.first().with_context(|| format!("{name} has no hash that is known"))?;
        let (directory, base) = name.rsplit_once('/').unwrap_or(("", name));
        let mut components: Vec<String> =
            directory.split('/').filter(|part| !part.is_empty()).map(url_component).collect();
        components.push(match consistent {
            true => format!("{}.{}", hash.hex(), url_component(base)),
            false => url_component(base),
        });
        let base_url = self.target_base_url.trim_end_matches('/');
        match get(&format!("{base_url}/{}", components.join("/")), file.length).await? {
            Reply::Bytes(bytes) => {
                file.check(name, &bytes)?;
                replace(&path, &bytes)
            }
            Reply::NotFound => bail!("{name} is not there"),
            Reply::TooLong => bail!("{name} is longer than its signed length"),
        }
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

fn system_time() -> UnixTime {
    let secs = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    UnixTime::from_secs(i64::try_from(secs).unwrap_or(i64::MAX))
}

/// Writes a file whole: temporary name, sync, rename.
fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let temporary = path.with_extension("new");
    let written = fs::write(&temporary, bytes)
        .and_then(|()| fs::File::open(&temporary)?.sync_all())
        .and_then(|()| fs::rename(&temporary, path));
    written.with_context(|| format!("write {}", path.display()))
}

/// One GET of at most `max_len` bytes. Only 404 and 403 mean that the file is not there: object
/// stores answer 403 for what does not exist.
async fn get(url: &str, max_len: u64) -> anyhow::Result<Reply> {
    let reply = tokio::time::timeout(REQUEST_TIMEOUT, request(url, max_len)).await;
    reply.with_context(|| format!("GET {url}: timeout"))?.with_context(|| format!("GET {url}"))
}

async fn request(url: &str, max_len: u64) -> anyhow::Result<Reply> {
    let uri: Uri = url.parse()?;
    if uri.scheme_str() != Some("http") {
        bail!("not an http URL");
    }
    let authority = uri.authority().context("no host")?;
    let stream = TcpStream::connect((authority.host(), authority.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header("host", authority.as_str())
        .header("connection", "close")
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let reply = match response.status() {
        StatusCode::OK => read_body(response.into_body(), max_len).await?,
        StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => Reply::NotFound,
        other => bail!("the server answers {other}"),
    };
    connection.abort();
    Ok(reply)
}

async fn read_body(mut body: hyper::body::Incoming, max_len: u64) -> anyhow::Result<Reply> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame?.data_ref() {
            bytes.extend_from_slice(data);
        }
        if bytes.len() as u64 > max_len {
            return Ok(Reply::TooLong);
        }
    }
    Ok(Reply::Bytes(bytes))
}
