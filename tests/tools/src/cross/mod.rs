//! Our programs for other processors: compilers in a Debian of their own, and an emulator for the results.
//!
//! rustup's compiler has no standard library for another processor where only package registries are reached, and
//! this machine's Debian may be older than the workspace's `rust-version`. So a Debian 13 is made in a folder, once,
//! with Debian's own compiler of the browsers (`rustc-web`, 1.96), the standard library for the other processor
//! beside it, and a C compiler. cargo runs in there, on this workspace, with the crates that cargo fetched here.
//! `rust-toolchain.toml` does not count there: nothing of rustup is.

pub mod kernel;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::cmd::{Cmd, which};
use crate::debian::sources::{self, Sources};
use crate::{cache, paths};

/// The first suite whose compiler is not older than the workspace's `rust-version`.
pub(crate) const SUITE: &str = "trixie";

const TREE_SH: &str = include_str!("tree.sh");

/// A processor that our programs are built for, beside this machine's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Processor {
    /// ARMv8, 64 bits.
    Aarch64,
    /// ARMv7 with floating point: BMCs.
    Armv7,
}

impl Processor {
    /// As `--target` and folders name it.
    pub fn name(self) -> &'static str {
        match self {
            Processor::Aarch64 => "aarch64",
            Processor::Armv7 => "armv7",
        }
    }

    /// The target, as rustc names it.
    pub fn rust(self) -> &'static str {
        match self {
            Processor::Aarch64 => "aarch64-unknown-linux-gnu",
            Processor::Armv7 => "armv7-unknown-linux-gnueabihf",
        }
    }

    /// The architecture of this machine, as Debian names it; `None` where nothing of ours is built for it.
    pub fn own() -> Option<&'static str> {
        match std::env::consts::ARCH {
            "x86_64" => Some("amd64"),
            "aarch64" => Some(Processor::Aarch64.debian()),
            "arm" => Some(Processor::Armv7.debian()),
            _ => None,
        }
    }

    /// The architecture, as Debian names it.
    pub fn debian(self) -> &'static str {
        match self {
            Processor::Aarch64 => "arm64",
            Processor::Armv7 => "armhf",
        }
    }

    /// How the names of its C compiler and linker begin.
    fn gnu(self) -> &'static str {
        match self {
            Processor::Aarch64 => "aarch64-linux-gnu",
            Processor::Armv7 => "arm-linux-gnueabihf",
        }
    }

    /// The emulator of its programs.
    pub fn emulator(self) -> &'static str {
        match self {
            Processor::Aarch64 => "qemu-aarch64",
            Processor::Armv7 => "qemu-arm",
        }
    }

    /// What its programs load to be told another time, as `faketime` has this machine's load it.
    pub fn clock(self) -> String {
        format!("/usr/lib/{}/faketime/libfaketime.so.1", self.gnu())
    }

    /// What is in its Debian; `:ARCH` marks packages for the processor itself.
    fn packages(self) -> Vec<String> {
        let (debian, gnu) = (self.debian(), self.gnu());
        [
            // Compilers and linkers: of build scripts, of our programs, of C in crates (ring, zstd).
            "rustc-web".to_owned(),
            "cargo-web".to_owned(),
            "gcc".to_owned(),
            "libc6-dev".to_owned(),
            format!("libstd-rust-web-dev:{debian}"),
            format!("libc6-dev:{debian}"),
            format!("gcc-{gnu}"),
            // Debian packages of what was built.
            "debhelper".to_owned(),
            // To run what was built; with a fixed clock, to compare what two builds publish.
            "qemu-user".to_owned(),
            "faketime".to_owned(),
            format!("libfaketime:{debian}"),
        ]
        .to_vec()
    }
}

/// A Debian with compilers for a processor.
#[derive(Debug, Clone)]
pub struct Compilers {
    /// The processor.
    pub processor: Processor,
    /// The folder of [`TREE_SH`] and of the tree.
    dir: PathBuf,
}

impl Compilers {
    /// Finds it in the cache or makes it: as root, in three minutes, from Debian's mirror; 2 GB.
    ///
    /// # Errors
    ///
    /// Not root, no debootstrap, or no package.
    pub fn of(processor: Processor) -> Result<Self> {
        let name = processor.name();
        if !paths::is_root() {
            bail!(
                "building for {name} needs root, because its compilers are in a Debian 13 that is entered with \
                 chroot: run it with sudo"
            );
        }
        let packages = processor.packages();
        let key = cache::digest(&[SUITE, &packages.join(" "), TREE_SH]);
        let dir = cache::entry(&format!("compilers-{name}-{key}"), |work| {
            if which("debootstrap").is_none() {
                bail!("debootstrap is not installed: run `cargo xtask setup`");
            }
            eprintln!("making a Debian 13 with compilers for {name} (three minutes, 2 GB, once) …");
            tree(work, processor, &packages)
        })?;
        Ok(Compilers { processor, dir })
    }

    /// Fetches the crates that a build needs, here: nothing in there reaches a network.
    pub fn fetch(&self) -> Result<()> {
        let targets = ["--target", self.processor.rust(), "--target", &crate::programs::host()?];
        Cmd::cargo().args(["fetch", "--locked", "--quiet"]).args(targets).watch()
    }

    /// A command in there, in a folder of this machine. It sees these folders, under their own names, and nothing
    /// of the environment but `variables`. More arguments may be added.
    pub fn command(
        &self,
        folder: &Path,
        seen: &[&Path],
        variables: &[(&str, OsString)],
        program: &str,
    ) -> Cmd {
        let seen: Vec<String> = seen.iter().map(|path| path.display().to_string()).collect();
        let mut command = namespaced(&self.dir)
            .arg("run")
            .arg(self.dir.join("tree"))
            .arg(folder)
            .env("SEEN", seen.join("\n"))
            .args(["env", "-i", "PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8", "HOME=/root"]);
        for (name, value) in variables {
            let mut word = OsString::from(format!("{name}="));
            word.push(value);
            command = command.arg(word);
        }
        command.arg(program)
    }

    /// cargo in there, on the sources in a folder, with the crates of `cargo_home`; never with a network.
    pub fn cargo(
        &self,
        sources: &Path,
        cargo_home: &Path,
        target: &Path,
        variables: &[(&str, OsString)],
    ) -> Result<Cmd> {
        fs::create_dir_all(target).with_context(|| format!("make {}", target.display()))?;
        // It may be a link to the registry of another home.
        let registry = cargo_home.join("registry");
        let registry = fs::canonicalize(&registry)
            .with_context(|| format!("find cargo's crates in {}", registry.display()))?;
        let rust = self.processor.rust().to_uppercase().replace('-', "_");
        let gnu = self.processor.gnu();
        let (linker, runner) =
            (format!("CARGO_TARGET_{rust}_LINKER"), format!("CARGO_TARGET_{rust}_RUNNER"));
        let own = [
            ("CARGO_HOME", cargo_home.into()),
            ("CARGO_TARGET_DIR", target.into()),
            ("CARGO_NET_OFFLINE", "true".into()),
            ("CARGO_INCREMENTAL", "0".into()),
            ("CARGO_TERM_COLOR", "never".into()),
            (linker.as_str(), format!("{gnu}-gcc").into()),
            (runner.as_str(), self.processor.emulator().into()),
        ];
        let variables = [&own[..], variables].concat();
        Ok(self.command(sources, &[sources, cargo_home, &registry, target], &variables, "cargo"))
    }
}

/// `tree.sh` of a folder in namespaces of its own: no mount outlives it.
fn namespaced(dir: &Path) -> Cmd {
    let unshare = ["--mount", "--pid", "--fork", "--kill-child", "sh"];
    Cmd::new("unshare").args(unshare).arg(dir.join("tree.sh"))
}

/// Makes a Debian with these packages in `work/tree`, beside the `tree.sh` that enters it.
fn tree(work: &Path, processor: Processor, packages: &[String]) -> Result<()> {
    let sources: Sources = sources::of_host(SUITE)?;
    fs::write(work.join("tree.sh"), TREE_SH).context("write tree.sh")?;
    let mut command = namespaced(work)
        .arg("new")
        .arg(work.join("tree"))
        .args([SUITE, &sources.archive, processor.debian()])
        .args(packages)
        .env("APT_OPTIONS", &sources.options)
        .input(sources.list(SUITE));
    if let Some(proxy) = sources.http_proxy() {
        command = command.env("http_proxy", proxy);
    }
    let log = work.join("new.log");
    let done = command.finish()?;
    fs::write(&log, done.output()).with_context(|| format!("write {}", log.display()))?;
    match done.code {
        0 => Ok(()),
        code => {
            let text = done.output();
            let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
            bail!(
                "debootstrap and apt ended with {code}: {last}\nall of it is in {}",
                log.display()
            )
        }
    }
}
