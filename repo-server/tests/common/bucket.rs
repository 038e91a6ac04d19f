//! A real S3 server of other people (moto, from the witnesses' environment), started once for each
//! test program, and what is in its buckets.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};

use futures_util::StreamExt as _;
use object_store::aws::AmazonS3Builder;
use object_store::{ObjectStore as _, ObjectStoreExt as _};
use repo_server::S3;

pub const BUCKET: &str = "fleet";

/// It ends with the pipe that this process holds, so with this process.
const PROGRAM: &str = r#"
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
import logging; logging.getLogger("werkzeug").setLevel(logging.ERROR)
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
app = DomainDispatcherApplication(create_backend_app)
server = make_server("127.0.0.1", 0, app, threaded=True)
print("port", server.server_port, flush=True)
server.serve_forever()
"#;

struct Moto {
    address: SocketAddr,
    _child: Mutex<Child>,
}

static MOTO: OnceLock<Moto> = OnceLock::new();

/// Where the S3 server listens.
pub fn address() -> SocketAddr {
    MOTO.get_or_init(start).address
}

fn start() -> Moto {
    let python = racklet_tools::setup::python();
    let python = python.expect("the S3 server for tests is missing: run `cargo xtask setup`");
    let mut command = Command::new(python);
    command.arg("-I").arg("-c").arg(PROGRAM).env_remove("http_proxy").env_remove("HTTP_PROXY");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("start moto");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("its port");
    let port: u16 = line.trim().strip_prefix("port ").expect("moto's port").parse().unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    super::until("moto makes a bucket", || {
        super::exchange(address, "PUT", &format!("/{BUCKET}"), &[], &[]).status == 200
    });
    Moto { address, _child: Mutex::new(child) }
}

/// A part of the bucket that is as unique as the directory.
pub fn place_for(temp: &Path) -> S3 {
    place_at(temp, address())
}

/// The same, through somebody in between.
pub fn place_at(temp: &Path, address: SocketAddr) -> S3 {
    let name = temp.file_name().unwrap().to_str().unwrap().trim_start_matches('.');
    let credentials = temp.join("credentials");
    if !credentials.exists() {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&credentials).unwrap();
        let text = "[default]\naws_access_key_id = test\naws_secret_access_key = test\n";
        file.write_all(text.as_bytes()).unwrap();
    }
    S3 {
        endpoint: Some(format!("http://{address}").parse().unwrap()),
        credentials: Some(credentials),
        ..S3::parse(&format!("{BUCKET}/{name}")).unwrap()
    }
}

/// Whoever looks into the bucket without asking a server.
pub fn client() -> object_store::aws::AmazonS3 {
    let _ = rustls::crypto::ring::default_provider().install_default();
    AmazonS3Builder::new()
        .with_bucket_name(BUCKET)
        .with_endpoint(format!("http://{}", address()))
        .with_allow_http(true)
        .with_access_key_id("test")
        .with_secret_access_key("test")
        .build()
        .unwrap()
}

pub fn run<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}

/// Everything below a place: names without its prefix, and content.
pub fn content(place: &S3) -> Vec<(PathBuf, Vec<u8>)> {
    let client = client();
    let prefix = object_store::path::Path::from(place.prefix.as_str());
    let mut found = run(async {
        let listed: Vec<_> = client.list(Some(&prefix)).collect().await;
        let mut found = Vec::new();
        for meta in listed {
            let path = meta.unwrap().location;
            // It may have gone since.
            let Ok(got) = client.get(&path).await else { continue };
            let bytes = got.bytes().await.unwrap();
            let name = path.as_ref().strip_prefix(prefix.as_ref()).unwrap();
            found.push((PathBuf::from(name.trim_start_matches('/')), bytes.to_vec()));
        }
        found
    });
    found.sort();
    found
}
