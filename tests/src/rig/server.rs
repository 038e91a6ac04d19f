//! Servers on loopback, with TLS: ours, and Debian's `docker-registry`.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use formats::reason::Exit;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};

use super::must;
use super::programs::program;
use super::run::{Running, tool};
use super::world::{NAMESPACE, World};

/// A CA of its own (`ca.pem`), a certificate for loopback and a push token, in the world's folder.
#[derive(Debug)]
pub struct Credentials {
    /// The CA's certificate.
    pub ca: PathBuf,
    /// The server's certificate.
    pub certificate: PathBuf,
    /// The certificate's key.
    pub key: PathBuf,
    /// A file with the push token.
    pub token: PathBuf,
}

impl Credentials {
    /// Makes them, or finds those that are there.
    #[track_caller]
    pub fn of(world: &World) -> Self {
        let credentials = Credentials {
            ca: world.path("ca.pem"),
            certificate: world.path("server.pem"),
            key: world.path("server.key"),
            token: world.path("push-token"),
        };
        if !credentials.ca.exists() {
            must(credentials.make(), "make certificates");
        }
        credentials
    }

    fn make(&self) -> Result<(), rcgen::Error> {
        let mut ca = CertificateParams::default();
        ca.distinguished_name.push(DnType::CommonName, "racklet test CA");
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let mut server = CertificateParams::new(["127.0.0.1".into(), "localhost".into()])?;
        server.use_authority_key_identifier_extension = true;
        let server = server.signed_by(&key, &ca)?;
        secret(&self.ca, &ca.pem());
        secret(&self.certificate, &server.pem());
        secret(&self.key, &key.serialize_pem());
        secret(&self.token, "a-push-token-of-a-test");
        Ok(())
    }
}

#[track_caller]
fn secret(path: &Path, text: &str) {
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    must(must(file, "create a secret").write_all(text.as_bytes()), "write a secret");
}

/// A running `repo-server`; ended when dropped.
#[derive(Debug)]
pub struct RepoServer {
    /// `127.0.0.1:PORT`.
    pub authority: String,
    running: Running,
}

impl RepoServer {
    /// Serves the world's repository on a free port and waits until it says which.
    #[track_caller]
    pub fn start(world: &World) -> Self {
        RepoServer::serving(world, world.repository().dir())
    }

    /// The same with further options.
    #[track_caller]
    pub fn started(world: &World, options: &[&str]) -> Self {
        RepoServer::serving_with(world, world.repository().dir(), options, &[])
    }

    /// The same with a clock that is ahead, in the words of `faketime`.
    #[track_caller]
    pub fn started_later(world: &World, later: &str, options: &[&str]) -> Self {
        let library = racklet_tools::rig::clock();
        let clock = [("LD_PRELOAD", &*library), ("FAKETIME", later)];
        RepoServer::serving_with(world, world.repository().dir(), options, &clock)
    }

    /// Serves an image layout as it is, with the world's credentials.
    #[track_caller]
    pub fn serving(world: &World, layout: &Path) -> Self {
        RepoServer::serving_with(world, layout, &[], &[])
    }

    #[track_caller]
    fn serving_with(
        world: &World,
        layout: &Path,
        options: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        let credentials = Credentials::of(world);
        let mut server = program("repo-server")
            .args(["serve", "--listen", "127.0.0.1:0", "--dir"])
            .arg(layout)
            .arg("--tls-cert")
            .arg(credentials.certificate)
            .arg("--tls-key")
            .arg(credentials.key)
            .arg("--push-token-file")
            .arg(credentials.token)
            .args(options);
        for (name, value) in variables {
            server = server.env(name, value);
        }
        let mut running = server.start();
        let authority = running.await_line(|line| listening(line, "https://"));
        RepoServer { authority, running }
    }

    /// A world with fresh keys that publishes to a server of its own, over TLS.
    #[track_caller]
    pub fn with_repository() -> (World, Self) {
        let mut world = World::empty();
        let server = RepoServer::start(&world);
        server.is_published_to(&mut world);
        world.init();
        (world, server)
    }

    /// From now on the world publishes to it, over TLS.
    #[track_caller]
    pub fn is_published_to(&self, world: &mut World) {
        let Credentials { ca, token, .. } = Credentials::of(world);
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let (ca, token) = (text(ca), text(token));
        world.publish_to(&self.reference(), &["--ca", &ca, "--token-file", &token]);
    }

    /// The repository reference of our namespace.
    pub fn reference(&self) -> String {
        reference(&self.authority)
    }

    /// Asks it to end, as systemd would, and gives all that it has logged.
    #[track_caller]
    pub fn stop(self) -> String {
        self.running.terminate().exits(Exit::Done).stderr
    }
}

/// A running `docker-registry`, empty at first; ended when dropped.
#[derive(Debug)]
pub struct DockerRegistry {
    /// `127.0.0.1:PORT`.
    pub authority: String,
    _running: Running,
}

impl DockerRegistry {
    /// Starts it on a free port, with the same certificate as [`RepoServer`].
    #[track_caller]
    pub fn start(world: &World) -> Self {
        let Credentials { certificate, key, .. } = Credentials::of(world);
        let config = format!(
            "version: 0.1\n\
             log: {{level: info, formatter: text}}\n\
             storage: {{filesystem: {{rootdirectory: {:?}}}}}\n\
             http: {{addr: '127.0.0.1:0', secret: test, tls: {{certificate: {certificate:?}, key: {key:?}}}}}\n",
            world.path("docker-registry")
        );
        let file = world.path("docker-registry.yml");
        must(fs::write(&file, config), "write the registry's configuration");
        let registry = tool("docker-registry", "docker-registry").arg("serve").arg(file);
        let mut running = registry.start();
        let authority = running.await_line(|line| listening(line, ""));
        DockerRegistry { authority, _running: running }
    }

    /// The repository reference of our namespace.
    pub fn reference(&self) -> String {
        reference(&self.authority)
    }
}

/// The address in `listening on https://127.0.0.1:4711`.
fn listening(line: &str, scheme: &str) -> Option<String> {
    let (_, after) = line.split_once(&format!("listening on {scheme}"))?;
    let end = after.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':');
    Some(after[..end.unwrap_or(after.len())].to_owned())
}

fn reference(authority: &str) -> String {
    format!("docker://{authority}/{NAMESPACE}")
}
