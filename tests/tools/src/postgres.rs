//! A PostgreSQL server for a test: Debian's program from the cache, a database in a folder that goes with it.
//!
//! It listens on a Unix socket in its folder, and on loopback when it is given a certificate. It refuses to be root:
//! root starts it as `nobody`.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::{paths, setup};

/// Debian's package, by the version of its release, and a program in it.
pub const PACKAGE: (&str, &str) = ("postgresql-15", "usr/lib/postgresql/15/bin/postgres");
/// The user of the database, its name, and the user's password.
pub const USER: &str = "fleet";
/// Of [`USER`], everywhere but at the socket.
pub const PASSWORD: &str = "a password for tests";

/// `nobody`
const NOBODY: u32 = 65_534;
/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that runs; ends when dropped.
pub struct Postgres {
    folder: PathBuf,
    child: Option<Child>,
    port: u16,
    tls: bool,
}

impl Postgres {
    /// Makes a database in `folder`, which is empty, and starts the server. `certificate`: its chain and key as PEM;
    /// with one it takes connections over TCP, and those over TLS only.
    pub fn start(folder: &Path, certificate: Option<(&str, &str)>) -> Result<Self> {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
        let home = folder.join("postgres");
        fs::create_dir(&home)?;
        let file = |name: &str, text: &str| -> Result<()> {
            let path = home.join(name);
            let mut options = fs::OpenOptions::new();
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            options.write(true).create_new(true).open(&path)?.write_all(text.as_bytes())?;
            own(&path)
        };
        own(&home)?;
        file("password", PASSWORD)?;
        let data = home.join("data");
        let mut initdb = program("initdb")?;
        initdb.args(["-U", USER, "-A", "scram-sha-256", "-N", "--locale=C.UTF-8", "-D"]).arg(&data);
        let made = initdb.arg("--pwfile").arg(home.join("password")).output()?;
        ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let remote = if certificate.is_some() { "hostssl all all all scram-sha-256\n" } else { "" };
        fs::write(data.join("pg_hba.conf"), format!("local all all trust\n{remote}"))?;
        if let Some((chain, key)) = certificate {
            file("server.pem", chain)?;
            file("server.key", key)?;
        }
        // Free when it was asked; two tests that ask at once get different ones.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let tls = certificate.is_some();
        let mut server = Postgres { folder: home, child: None, port, tls };
        server.switch_on()?;
        Ok(server)
    }

    /// Starts it again, or for the first time.
    pub fn switch_on(&mut self) -> Result<()> {
        let mut command = program("postgres")?;
        command.arg("-D").arg(self.folder.join("data")).arg("-k").arg(&self.folder);
        command.args(["-p", &self.port.to_string()]);
        if self.tls {
            let setting =
                |name: &str, file: &str| format!("{name}={}", self.folder.join(file).display());
            command.args(["-h", "127.0.0.1", "-c", "ssl=on"]);
            command.args(["-c", &setting("ssl_cert_file", "server.pem")]);
            command.args(["-c", &setting("ssl_key_file", "server.key")]);
        } else {
            command.args(["-h", ""]);
        }
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.join("postgres.log"))?;
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        let child = self.child.insert(child.context("start postgres")?);
        // It writes this line when it takes connections.
        let ready =
            |text: &str| text.lines().any(|line| line == "ready" || line.starts_with("ready "));
        let until = Instant::now() + PATIENCE;
        loop {
            let status = fs::read_to_string(self.folder.join("data/postmaster.pid"));
            if status.is_ok_and(|text| ready(&text)) {
                return Ok(());
            }
            if let Some(ended) = child.try_wait()? {
                let log = fs::read_to_string(self.folder.join("postgres.log")).unwrap_or_default();
                bail!("postgres ended with {ended}\n{log}");
            }
            ensure!(Instant::now() < until, "postgres did not start in {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The power fails: nothing is written any more.
    pub fn kill(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        child.kill()?;
        child.wait()?;
        // Its processes end when they notice; a new server waits for none of them.
        let pid = self.folder.join("data/postmaster.pid");
        if pid.exists() { fs::remove_file(pid).context("forget its process id") } else { Ok(()) }
    }

    /// The address of its database, by the socket.
    pub fn local(&self) -> String {
        let folder = self.folder.display().to_string().replace('/', "%2F");
        format!("postgresql://{USER}@{folder}:{}/postgres", self.port)
    }

    /// The same over TCP, by this name of the machine.
    pub fn remote(&self, host: &str) -> String {
        format!("postgresql://{USER}@{host}:{}/postgres", self.port)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // At once: connections that are open are cut, and what is shared is given back.
        let pid = rustix::process::Pid::from_child(&child);
        let _asked = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
        let _ended = child.wait();
    }
}

/// One of its programs, as a user that it takes.
fn program(name: &str) -> Result<Command> {
    let (package, file) = PACKAGE;
    let server = setup::unpacked(package, file);
    let server = server.with_context(|| format!("{package} is not there: cargo xtask setup"))?;
    let mut command = Command::new(server.with_file_name(name));
    command.current_dir("/").env("LC_ALL", "C.UTF-8");
    if paths::is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    Ok(command)
}

fn own(path: &Path) -> Result<()> {
    if paths::is_root() {
        chown(path, Some(NOBODY), Some(NOBODY))?;
    }
    Ok(())
}
