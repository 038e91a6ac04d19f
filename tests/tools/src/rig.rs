//! What the demo's programs need around them: a folder, certificates, tokens, a running server.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};

use crate::cmd::{Cmd, quoted};
use crate::debian::Images;
use crate::paths;

/// Repository namespace on the server.
const NAMESPACE: &str = "racklet";

/// How long the server may take to bind: generous, because a busy CI machine is slow to start it.
const START_LIMIT: Duration = Duration::from_secs(30);

/// The demo's folder, which outlives the demo.
pub struct Rig {
    /// The folder itself.
    pub dir: PathBuf,
    programs: PathBuf,
}

impl Rig {
    /// A fresh folder: `keep`, which must not exist yet, or the next `demo-N` beside the programs.
    pub fn create(keep: Option<&Path>, programs: PathBuf) -> Result<Self> {
        let dir = match keep {
            Some(dir) => {
                fs::create_dir_all(dir.parent().unwrap_or(Path::new(".")))?;
                fs::create_dir(dir).with_context(|| format!("create {}", dir.display()))?;
                dir.to_owned()
            }
            // Not in /tmp, which may be small or in memory: disks of gigabytes come here.
            None => next_folder(&paths::target())?,
        };
        let rig = Self { dir: fs::canonicalize(dir)?, programs };
        let path = quoted(&rig.programs.to_string_lossy());
        fs::write(rig.path("env"), format!("PATH={path}:$PATH\nexport PATH\n"))?;
        Ok(rig)
    }

    /// Gives the images short names in this folder: `v1.ext4` … and `firmware-1.bin` …
    pub fn link(&self, images: &Images, firmware: &[PathBuf; 2]) -> Result<()> {
        for version in ["v1", "v2", "v3"] {
            symlink(images.path(version), self.path(&image(version)))?;
        }
        for (number, blob) in firmware.iter().enumerate() {
            symlink(blob, self.path(&blob_name(number)))?;
        }
        Ok(())
    }

    /// A script in this folder that starts one of our programs, wherever it is called.
    /// With the script's arguments after `args`.
    pub fn script(&self, name: &str, program: &str, args: &[&OsStr]) -> Result<()> {
        let words = args.iter().map(|arg| format!(" {}", quoted(&arg.to_string_lossy())));
        self.write_script(name, program, &format!("{} \"$@\"", words.collect::<String>()))
    }

    /// The same; `tail` is what follows the program in a shell.
    pub fn write_script(&self, name: &str, program: &str, tail: &str) -> Result<()> {
        let dir = quoted(&self.dir.to_string_lossy());
        let program = quoted(&self.programs.join(program).to_string_lossy());
        let file = self.path(name);
        fs::write(&file, format!("#!/bin/sh\ncd {dir} || exit\nexec {program}{tail}\n"))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
        Ok(())
    }

    /// A file in this folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// One of our programs in the demo's folder; its command is shown.
    pub fn program(&self, name: &str) -> Cmd {
        Cmd::new(self.programs.join(name)).current_dir(&self.dir).aloud()
    }

    /// A folder that is there, and whose owner removes it; programs from another folder.
    pub fn at(dir: &Path, programs: PathBuf) -> Self {
        Self { dir: dir.to_owned(), programs }
    }

    /// A certificate authority of its own and a certificate for loopback; a push token.
    pub fn credentials(&self) -> Result<()> {
        self.credentials_for(&["127.0.0.1", "localhost"])
    }

    /// The same for these names.
    pub fn credentials_for(&self, names: &[&str]) -> Result<()> {
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
        let token = crate::disk::file_digest(&self.path("server.key"))?;
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
    pub fn serve(&self) -> Result<Server> {
        self.serve_by(self.program("repo-server").args(serve_arguments("127.0.0.1:0")))
    }

    /// The same by a command that begins so: with further options, with another clock.
    pub fn serve_by(&self, command: Cmd) -> Result<Server> {
        let mut child = command
            .into_command()
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

/// How the demo's folder is served, by programs that run in it.
pub fn serve_arguments(listen: &str) -> [&str; 11] {
    [
        "serve",
        "--dir",
        "repository",
        "--listen",
        listen,
        "--tls-cert",
        "server.pem",
        "--tls-key",
        "server.key",
        "--push-token-file",
        "push-token",
    ]
}

/// What a program of this machine loads to be told another time, which `FAKETIME` says. `faketime` itself would stand
/// between us and the program, and pass no signal on.
pub fn clock() -> String {
    forget_dead_clocks();
    format!("/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1", std::env::consts::ARCH)
}

/// Removes what programs with another clock left in shared memory when they were killed. It is named after their process
/// ids, and one that gets such an id again does not start.
pub fn forget_dead_clocks() {
    for entry in fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        if owner_of_clock(&name.to_string_lossy()).is_some_and(|id| !is_alive(id)) {
            // Another test may have been faster.
            let _gone = fs::remove_file(path);
        }
    }
}

/// The process id in the name of a clock's shared memory or semaphore.
fn owner_of_clock(name: &str) -> Option<u32> {
    let id = name.strip_prefix("faketime_shm_").or(name.strip_prefix("sem.faketime_sem_"))?;
    id.parse().ok()
}

fn is_alive(id: u32) -> bool {
    Path::new("/proc").join(id.to_string()).exists()
}

/// The name of an image in the demo's folder.
pub fn image(version: &str) -> String {
    format!("{version}.ext4")
}

/// The name of the firmware with this index (0 or 1) in the demo's folder.
pub fn blob_name(index: usize) -> String {
    format!("firmware-{}.bin", index + 1)
}

/// Makes the first `demo-N` that is not there yet.
fn next_folder(parent: &Path) -> Result<PathBuf> {
    fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    for number in 1.. {
        let dir = parent.join(format!("demo-{number}"));
        match fs::create_dir(&dir) {
            Ok(()) => return Ok(dir),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(error).with_context(|| format!("create {}", dir.display()));
            }
        }
    }
    bail!("no number is left for a folder demo-N in {}", parent.display())
}

/// A running `repo-server`; ended when dropped.
pub struct Server {
    child: Child,
    /// `127.0.0.1:PORT`.
    pub address: String,
}

impl Server {
    /// The repository reference of the demo's namespace.
    pub fn reference(&self) -> String {
        format!("docker://{}/{NAMESPACE}", self.address)
    }

    /// Asks it to end, as systemd would, and waits.
    pub fn stop(mut self) -> Result<()> {
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
    fn clocks_of_programs_that_ended_are_forgotten() {
        let here = std::process::id();
        assert_eq!(owner_of_clock(&format!("faketime_shm_{here}")), Some(here));
        assert_eq!(owner_of_clock("sem.faketime_sem_17"), Some(17));
        assert_eq!([owner_of_clock("other_17"), owner_of_clock("faketime_shm_x")], [None, None]);
        let mut ended = std::process::Command::new("true").spawn().expect("start it");
        ended.wait().expect("its end");
        let (mine, theirs) = (here, ended.id());
        let file = |id: u32| Path::new("/dev/shm").join(format!("faketime_shm_{id}"));
        for id in [mine, theirs] {
            fs::write(file(id), "").expect("shared memory");
        }
        forget_dead_clocks();
        assert!(file(mine).exists() && !file(theirs).exists());
        fs::remove_file(file(mine)).expect("remove it");
    }

    #[test]
    fn each_demo_has_a_folder_of_its_own_and_scripts_run_from_anywhere() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let first = next_folder(dir.path()).expect("a folder");
        assert_eq!(first, dir.path().join("demo-1"));
        let second = next_folder(dir.path()).expect("another folder");
        assert_eq!(second, dir.path().join("demo-2"));

        let keep = dir.path().join("it's here");
        let rig = Rig::create(Some(&keep), "/bin".into()).expect("a fresh folder");
        assert!(Rig::create(Some(&keep), "/bin".into()).is_err(), "it is there already");
        rig.script("say", "printf", &["%s|".as_ref(), "two words".as_ref()]).expect("a script");
        let said = Cmd::new(rig.path("say")).arg("and $one").current_dir(Path::new("/")).read();
        assert_eq!(said.expect("it runs"), "two words|and $one|");
    }

    #[test]
    fn openssl_accepts_the_certificates_for_loopback() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let rig =
            Rig::create(Some(&dir.path().join("rig")), PathBuf::new()).expect("a fresh folder");
        rig.credentials().expect("certificates are made");
        let done = Cmd::new("openssl")
            .args(["verify", "-x509_strict", "-verify_ip", "127.0.0.1", "-CAfile"])
            .args([rig.path("ca.pem"), rig.path("server.pem")])
            .finish()
            .expect("openssl is installed: cargo xtask setup");
        assert_eq!(done.code, 0, "{}", done.output());
        let mode = fs::metadata(rig.path("server.key")).expect("the key is there").permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
    }
}
