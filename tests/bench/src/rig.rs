//! What every measurement needs: a folder, programs, images, a signed repository, nodes.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use racklet_tools::cmd::Cmd;
use racklet_tools::disk::{Disk, file_digest};

use super::newest::Peers;
use super::run::{Loop, Measured, limited, measure};

/// One bench run.
pub(super) struct Bench {
    /// Everything of this run; removed at its end.
    pub(super) dir: PathBuf,
    /// What peers prepare once from the same images: kept between runs.
    pub(super) prepared: PathBuf,
    /// Other people's programs.
    pub(super) peers: Peers,
    /// Folder of signer, repo-server and update-agent.
    pub(super) programs: PathBuf,
    pub(super) v1: PathBuf,
    pub(super) v2: PathBuf,
    /// v2 with v1's kernel, where there is one.
    pub(super) v2_same_kernel: Option<PathBuf>,
    pub(super) repetitions: usize,
    pub(super) quick: bool,
    /// When everything must be over.
    pub(super) deadline: Instant,
}

/// Versions of the images in the repository.
pub(super) const V1: &str = "1.0.0";
pub(super) const V2_SAME_KERNEL: &str = "1.0.1";
pub(super) const V2: &str = "1.1.0";
/// The same images again, with a delta artifact from [`V1`].
pub(super) const V2_SAME_KERNEL_DELTA: &str = "1.0.2";
pub(super) const V2_DELTA: &str = "1.1.1";

/// Lets curl push to our server; a secret to nobody.
pub(super) const TOKEN: &str = "token-of-the-benchmark";

impl Bench {
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(super) fn program(&self, name: &str) -> Cmd {
        Cmd::new(self.programs.join(name))
    }

    /// At most `seconds`, and not past the end of the run.
    pub(super) fn limit(&self, seconds: u64) -> Duration {
        let left = self.deadline.saturating_duration_since(Instant::now());
        Duration::from_secs(seconds).min(left)
    }

    /// Runs and measures a command of at most `seconds`.
    pub(super) fn measure(&self, cmd: Cmd, seconds: u64) -> Result<Measured> {
        measure(cmd, self.limit(seconds), &self.dir)
    }

    /// Runs a command of at most `seconds`.
    pub(super) fn run(&self, cmd: Cmd, seconds: u64) -> Result<()> {
        limited(cmd, self.limit(seconds)).run().map(drop)
    }

    /// A shell line whose first parameters are these paths; every part of a pipe must succeed.
    pub(super) fn shell(&self, line: &str, paths: &[&Path]) -> Cmd {
        let line = format!("set -eo pipefail; {line}");
        let bash = Cmd::new("bash").env("PATH", self.peers.search_path());
        bash.args(["-c", &line, "bench"]).args(paths)
    }

    /// A file that peers need and that depends on the images only: made when it is not there.
    /// `make` writes to the path it is given.
    pub(super) fn prepare(
        &self,
        name: &str,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let file = self.prepared.join(name);
        if !file.exists() {
            eprintln!("  preparing {name} (once) …");
            // The ending stays: casync tells an index from a store by it.
            let part = self.prepared.join(format!("part-{name}"));
            make(&part)?;
            fs::rename(&part, &file)?;
        }
        Ok(file)
    }

    /// `image` as one zstd stream.
    pub(super) fn zstd(&self, name: &str, image: &Path, options: &[&str]) -> Result<PathBuf> {
        self.prepare(name, |part| {
            self.run(
                self.peers
                    .program("zstd")
                    .args(["-q"])
                    .args(options)
                    .arg(image)
                    .arg("-o")
                    .arg(part),
                300,
            )
        })
    }

    /// `signer COMMAND` on a repository whose keys lie beside it.
    pub(super) fn signer(&self, command: &str, repository: &Path) -> Cmd {
        self.program("signer")
            .arg(command)
            .arg("--repo")
            .arg(format!("oci:{}", repository.display()))
            .arg("--keys")
            .arg(repository.with_extension("keys"))
            .arg("--json")
    }

    pub(super) fn publish(&self, repository: &Path, version: &str, image: &Path) -> Cmd {
        self.signer("publish", repository)
            .args(["--product", "bench", "--version", version, "--channel", "stable"])
            .args(["--component", &format!("os={},hw=bench", image.display())])
    }

    /// The repository all nodes read, with every image.
    pub(super) fn repository(&self) -> PathBuf {
        self.path("repository")
    }

    pub(super) fn publish_all(&self) -> Result<()> {
        let repository = self.repository();
        self.run(self.signer("init", &repository), 30)?;
        // In the order of their versions: a release below the last one is refused.
        let mut releases = vec![(V1, &self.v1, false)];
        if let Some(image) = &self.v2_same_kernel {
            releases.extend([(V2_SAME_KERNEL, image, false), (V2_SAME_KERNEL_DELTA, image, true)]);
        }
        releases.extend([(V2, &self.v2, false), (V2_DELTA, &self.v2, true)]);
        for (version, image, with_delta) in releases {
            let mut publish = self.publish(&repository, version, image);
            if with_delta {
                publish = publish.args(["--delta-from", V1]);
            }
            self.run(publish, 240)?;
        }
        Ok(())
    }

    /// A node that has room for the image in both slots.
    pub(super) fn node(&self, source: &str, size: u64, booted: Booted) -> Result<Node> {
        let dir = tempfile::Builder::new().prefix("node-").tempdir_in(&self.dir)?;
        let disk = Disk::create(&dir.path().join("disk.img"), size)?;
        if booted == Booted::FromFactory {
            disk.preinstall("root-a", &self.v1)?;
        }
        disk.mark_confirmed("root-a")?;
        let root = self.repository().with_extension("keys").join("root.json");
        let agent = self.programs.join("update-agent");
        let mut node = Node { agent, dir, disk, device: None, inactive: "root-b" };
        node.configure(source, &root)?;
        if booted == Booted::Installed {
            let from = format!("oci:{}", self.repository().display());
            self.run(node.agent().args(["apply", &from, "--version", V1]), 120)?;
            node.boot()?;
            node.agent().arg("confirm").run()?;
            node.inactive = "root-a";
        }
        node.settle()?;
        Ok(node)
    }
}

/// What the slot holds that a node has booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Booted {
    /// Zeros: there is nothing to reuse.
    Nothing,
    /// v1, written by the agent itself in an earlier update, and confirmed.
    Installed,
    /// v1, written by somebody else.
    FromFactory,
}

/// A machine that can be updated once.
pub(super) struct Node {
    agent: PathBuf,
    // Before the folder: fields are dropped in order, and a loop device holds its file.
    device: Option<Loop>,
    disk: Disk,
    dir: tempfile::TempDir,
    /// Label of the partition that the next update writes.
    inactive: &'static str,
}

impl Node {
    /// The same node, its disk behind a loop device.
    pub(super) fn on_loop(mut self, source: &str, root: &Path) -> Result<Self> {
        self.device = Some(Loop::over(self.disk.path())?);
        self.configure(source, root)?;
        Ok(self)
    }

    /// The same node of another repository.
    pub(super) fn of(self, source: &str, root: &Path) -> Result<Self> {
        self.configure(source, root)?;
        Ok(self)
    }

    /// The same node of a registry behind TLS, with these keys of its source.
    pub(super) fn over_tls(self, source: &str, keys: &str, root: &Path) -> Result<Self> {
        self.configure_with(source, keys, root)?;
        Ok(self)
    }

    fn configure(&self, source: &str, root: &Path) -> Result<()> {
        let plain = if source.starts_with("docker:") { "plain_http = true" } else { "" };
        self.configure_with(source, plain, root)
    }

    fn configure_with(&self, source: &str, keys: &str, root: &Path) -> Result<()> {
        let dir = self.dir.path();
        let loop_device = self.device.as_ref().map(|device| Path::new(device.device()));
        let disk = loop_device.unwrap_or(self.disk.path());
        let text = format!(
            r#"state_dir = {state:?}
[node]
product = "bench"
hardware = ["bench"]
[trust]
root = {root:?}
[[source]]
url = {source:?}
{keys}
[boot]
disk = {disk:?}
cmdline = {cmdline:?}
boot_id = {boot_id:?}
[slots.a]
os = "root-a"
[slots.b]
os = "root-b"
[[health.check]]
name = "none"
command = ["true"]
"#,
            state = dir.join("state"),
            cmdline = dir.join("cmdline"),
            boot_id = dir.join("boot_id"),
        );
        fs::write(dir.join("agent.toml"), text)?;
        self.boot()
    }

    fn boot(&self) -> Result<()> {
        self.agent().args(["boot-select", "--simulate"]).run().map(drop)
    }

    pub(super) fn agent(&self) -> Cmd {
        Cmd::new(&self.agent).arg("--config").arg(self.dir.path().join("agent.toml")).arg("--json")
    }

    /// The same, for a process that will be killed.
    pub(super) fn killable(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.agent);
        command.arg("--config").arg(self.dir.path().join("agent.toml")).arg("--json");
        command.args(arguments);
        command
    }

    /// Writes what was written to the disk behind the node's back of any cache.
    pub(super) fn settle(&self) -> Result<()> {
        settle(self.disk.path())
    }

    /// Requires that the updated slot holds the image, by the digest of what lies on the disk.
    pub(super) fn expect(&self, image: &Path) -> Result<()> {
        self.expect_digest(&file_digest(image)?, fs::metadata(image)?.len())
    }

    /// The same of an image that is not there any more.
    pub(super) fn expect_digest(&self, wanted: &str, length: u64) -> Result<()> {
        let found = self.disk.digest(self.inactive, length)?;
        ensure!(found == wanted, "{} holds {found}, not {wanted}", self.inactive);
        Ok(())
    }
}

/// Waits until everything written to a file is on its disk, so that the next measurement does
/// not pay for this one.
pub(super) fn settle(file: &Path) -> Result<()> {
    Cmd::new("sync").arg(file).run().map(drop)
}

/// A file of so many bytes that nothing can compress.
pub(super) fn random(file: &Path, length: u64) -> Result<()> {
    let mut source = File::open("/dev/urandom")?.take(length);
    std::io::copy(&mut source, &mut File::create(file)?)?;
    Ok(())
}

/// `127.0.0.1:PORT` that nobody listened on a moment ago.
pub(super) fn free_address() -> Result<String> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

/// Whether somebody accepts connections there.
pub(super) fn answers(address: &str) -> bool {
    std::net::TcpStream::connect(address).is_ok()
}

/// Length of a file in bytes.
pub(super) fn length(file: &Path) -> Result<f64> {
    let meta = fs::metadata(file).with_context(|| format!("look at {}", file.display()))?;
    Ok(meta.size() as f64)
}
