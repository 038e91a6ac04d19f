//! `repo-server` on a repository of this run, on loopback, with and without TLS.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use racklet_tools::rig::Rig;

use super::rig::{Bench, Node, TOKEN, answers, free_address};
use super::run::Background;

/// On the repository that all nodes read, over plain HTTP.
pub(super) fn plain(bench: &Bench) -> Result<(Background, String)> {
    start(bench, &bench.repository(), None)
}

/// A certificate and its key.
pub(super) type Certificate = [PathBuf; 2];

/// Without an access log; all nodes of a fleet are one client here.
fn start(
    bench: &Bench,
    repository: &Path,
    tls: Option<&Certificate>,
) -> Result<(Background, String)> {
    let address = free_address()?;
    let token = bench.path("token");
    fs::write(&token, TOKEN)?;
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600))?;
    let log = bench.path("repo-server.log");
    let mut command = Command::new(bench.programs.join("repo-server"));
    command.args(["serve", "--listen", &address, "--log", "warn"]);
    command.args(["--client-connections", "2048", "--client-rate", "0"]);
    command.arg("--dir").arg(repository).arg("--push-token-file").arg(token);
    if let Some([certificate, key]) = tls {
        command.arg("--tls-cert").arg(certificate).arg("--tls-key").arg(key);
    }
    let server = Background::start(&mut command, &log)?.until(&log, || answers(&address))?;
    Ok((server, address))
}

/// One behind TLS.
pub(super) struct Secure {
    pub(super) process: Background,
    pub(super) address: String,
    /// What nginx has, too.
    pub(super) certificate: Certificate,
    /// What nodes trust.
    authority: PathBuf,
    root: PathBuf,
}

impl Secure {
    /// On a repository whose keys lie beside it.
    pub(super) fn start(bench: &Bench, repository: &Path) -> Result<Self> {
        let rig = Rig::at(&bench.path("tls"), bench.programs.clone());
        if !rig.dir.exists() {
            fs::create_dir(&rig.dir)?;
            rig.credentials_for(&["127.0.0.1"])?;
        }
        let certificate = [rig.path("server.pem"), rig.path("server.key")];
        let (process, address) = start(bench, repository, Some(&certificate))?;
        let root = repository.with_extension("keys").join("root.json");
        Ok(Self { process, address, certificate, authority: rig.path("ca.pem"), root })
    }

    /// The same node, which reads this repository from here.
    pub(super) fn secured(&self, node: Node) -> Result<Node> {
        let keys = format!("ca = {:?}", self.authority);
        node.over_tls(&format!("docker://{}", self.address), &keys, &self.root)
    }
}
