//! What the demo's programs need around them: a folder, certificates, tokens, a running server.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};

use crate::cmd::Cmd;
use crate::{dist, paths};

/// Repository namespace on the server.
const NAMESPACE: &str = "racklet";

/// How long the server may take to bind: generous, because a busy CI machine is slow to start it.
const START_LIMIT: Duration = Duration::from_secs(30);

/// The demo's folder and everything in it that outlives a step.
pub(crate) struct Rig {
    pub(super) dir: PathBuf,
    /// Removes the folder when dropped; absent with `--keep`.
    _owned: Option<tempfile::TempDir>,
    programs: PathBuf,
}

impl Rig {
    /// A fresh folder: temporary, or `keep`, which must not exist yet.
    pub(super) fn create(keep: Option<&Path>) -> Result<Self> {
        let (dir, owned) = match keep {
            Some(dir) => {
                fs::create_dir_all(dir.parent().unwrap_or(Path::new(".")))?;
                fs::create_dir(dir).with_context(|| format!("create {}", dir.display()))?;
                (fs::canonicalize(dir)?, None)
            }
            None => {
                // Not in /tmp, which may be small or in memory: disks of gigabytes come here.
                fs::create_dir_all(paths::cache())?;
                let owned = tempfile::Builder::new().prefix("demo-").tempdir_in(paths::cache())?;
                (owned.path().to_path_buf(), Some(owned))
            }
        };
        Ok(Self { dir, _owned: owned, programs: dist::folder() })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// One of our programs, as built for release.
    pub(super) fn program(&self, name: &str) -> Cmd {
        Cmd::new(self.programs.join(name))
    }

    /// A folder that is there, and whose owner removes it; programs from another folder.
    pub(crate) fn at(dir: &Path, programs: PathBuf) -> Self {
        Self { dir: dir.to_owned(), _owned: None, programs }
    }

    /// A certificate authority of its own and a certificate for loopback; a push token.
    pub(super) fn credentials(&self) -> Result<()> {
        self.credentials_for(&["127.0.0.1", "localhost"])
    }

    /// The same for these names.
    pub(crate) fn credentials_for(&self, names: &[&str]) -> Result<()> {
        let mut ca = CertificateParams::default();
        ca.distinguished_name.push(DnType::CommonName, "racklet demo CA");
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut server = CertificateParams::new(names)?;
        server.use_authority_key_identifier_extension = true;
        let server = server.signed_by(&key, &ca)?;
        self.secret("ca.pem", &ca.pem())?;
        self.secret("server.pem", &server.pem())?;
        self.secret("server.key", &key.serialize_pem())?;
        // As random as a private key, whose digest it is.
        let token = super::disk::file_digest(&self.path("server.key"))?;
        self.secret("push-token", &token)
    }

    fn secret(&self, name: &str, text: &str) -> Result<()> {
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(self.path(name))?;
        std::io::Write::write_all(&mut file, text.as_bytes())?;
        Ok(())
    }

    /// Starts `repo-server` on a free loopback port with TLS and waits until it says where.
    pub(crate) fn serve(&self) -> Result<Server> {
        let mut child = Command::new(self.programs.join("repo-server"))
            .arg("serve")
            .arg("--dir")
            .arg(self.path("repository"))
            .args(["--listen", "127.0.0.1:0", "--tls-cert"])
            .arg(self.path("server.pem"))
            .arg("--tls-key")
            .arg(self.path("server.key"))
            .arg("--push-token-file")
            .arg(self.path("push-token"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("start repo-server")?;
        let stderr = child.stderr.take().context("repo-server has a standard error")?;
        let mut server = Server { child, address: String::new() };
        let (tell, told) = mpsc::channel();
        let mut log = fs::File::create(self.path("repo-server.log"))?;
        // Reads on until the server ends, so that a full pipe never stops it.
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some((_, url)) = line.split_once("listening on ") {
                    let word = url.split_whitespace().next().unwrap_or_default();
                    let address = word.trim_start_matches("https://").trim_end_matches('/');
                    drop(tell.send(address.to_string()));
                }
                drop(std::io::Write::write_all(&mut log, format!("{line}\n").as_bytes()));
            }
        });
        match told.recv_timeout(START_LIMIT) {
            Ok(address) => {
                server.address = address;
                Ok(server)
            }
            Err(_) => bail!(
                "repo-server did not say where it listens\n{}",
                fs::read_to_string(self.path("repo-server.log")).unwrap_or_default()
            ),
        }
    }
}

/// A running `repo-server`; ended when dropped.
pub(crate) struct Server {
    child: Child,
    /// `127.0.0.1:PORT`.
    pub(crate) address: String,
}

impl Server {
    /// The repository reference of the demo's namespace.
    pub(crate) fn reference(&self) -> String {
        format!("docker://{}/{NAMESPACE}", self.address)
    }

    /// Asks it to end, as systemd would, and waits.
    pub(crate) fn stop(mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { bail!("repo-server ended with {status}") }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After `stop` both calls find nothing to do.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openssl_accepts_the_certificates_for_loopback() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let rig = Rig::create(Some(&dir.path().join("rig"))).expect("a fresh folder");
        rig.credentials().expect("certificates are made");
        let done = Cmd::new("openssl")
            .args(["verify", "-x509_strict", "-verify_ip", "127.0.0.1", "-CAfile"])
            .args([rig.path("ca.pem"), rig.path("server.pem")])
            .finish()
            .expect("openssl is installed: cargo xtask setup");
        assert_eq!(done.code, 0, "{}", done.output());
        let mode = fs::metadata(rig.path("server.key")).expect("the key is there").permissions();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);
    }
}
