//! Our own programs, built in two ways: as tests want them, and as they are shipped.
//!
//! `update-agent` is shipped as one static file, built for size: nodes may have little flash, no C library of
//! ours, and start it as `/init`. `signer` and `repo-server` are linked as the machine they run on is.

use std::convert::Infallible;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

use crate::cmd::Cmd;
use crate::cross::{Compilers, Processor};
use crate::paths;

#[path = "../../../formats/build-info/commit.rs"]
mod commit;

/// What is shipped.
pub const PROGRAMS: [&str; 3] = ["signer", "repo-server", "update-agent"];

/// Bytes that the agent may have: what nodes with little flash have room for, beside a kernel.
const AGENT_LIMIT: u64 = 8 << 20;

/// Where `cargo xtask dist` leaves what is shipped.
pub fn shipped_folder() -> PathBuf {
    paths::target().join("shipped")
}

/// The command that builds every program, test and example as tests want them: soon built, with checked arithmetic,
/// and fast where it has to be. What else CI does takes them from there, so that CI compiles everything once.
pub fn build_all() -> Cmd {
    Cmd::cargo().args(["build", "--locked", "--workspace", "--all-targets"])
}

/// Of [`build_all`] what is shipped; more may be added. With `--workspace` and `--examples` cargo chooses the
/// crates' features as it does for tests; without them a tenth of the crates would be compiled twice.
pub fn command() -> Cmd {
    let bins = PROGRAMS.iter().flat_map(|program| ["--bin", program]);
    Cmd::cargo().args(["build", "--locked", "--workspace", "--examples"]).args(bins)
}

/// Where [`build_all`] and [`command`] leave them.
pub fn tests_folder() -> PathBuf {
    paths::target().join("debug")
}

/// The static agent as it is shipped.
pub fn agent() -> Result<PathBuf> {
    Place::here().agent()
}

/// Where [`agent`] leaves it.
pub fn agent_file() -> Result<PathBuf> {
    Place::here().agent_file()
}

/// A copy of the sources, the home of cargo's crates, and where the outputs go. None of the three is to be seen
/// in what is built.
pub struct Place {
    /// The sources.
    pub sources: PathBuf,
    /// The home of cargo.
    pub cargo_home: PathBuf,
    /// Cargo's target directory.
    pub target: PathBuf,
    /// The compilers for another processor; none for this machine's own.
    pub compilers: Option<Compilers>,
}

impl Place {
    /// The workspace itself.
    pub fn here() -> Self {
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
        let cargo_home =
            std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
        Self { sources: paths::root(), cargo_home, target: paths::target(), compilers: None }
    }

    /// The same for another processor, with its compilers and all crates at hand; the outputs go to a folder of
    /// their own.
    pub fn cross(processor: Processor) -> Result<Self> {
        let compilers = Compilers::of(processor)?;
        compilers.fetch()?;
        let here = Self::here();
        let target = here.target.join(format!("cross-{}", processor.name()));
        Ok(Self { target, compilers: Some(compilers), ..here })
    }

    /// Where `cargo xtask dist` leaves what is shipped.
    pub fn shipped_folder(&self) -> PathBuf {
        match &self.compilers {
            None => shipped_folder(),
            Some(there) => paths::target().join(format!("shipped-{}", there.processor.name())),
        }
    }

    /// The target of what is built, as rustc names it.
    pub fn rust_target(&self) -> Result<String> {
        match &self.compilers {
            None => host(),
            Some(there) => Ok(there.processor.rust().to_owned()),
        }
    }

    /// cargo with the compilers told to write other names for our folders (`RUSTFLAGS` cannot hold a space).
    fn cargo(&self, flags: &[&str]) -> Result<Cmd> {
        let names = [(&self.cargo_home, "/cargo"), (&self.sources, "/racklet-update")];
        let rust = names.map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()));
        let c = names.map(|(from, to)| format!("'-ffile-prefix-map={}={to}'", from.display()));
        let mut rust: Vec<&str> =
            rust.iter().map(String::as_str).chain(flags.iter().copied()).collect();
        if self.compilers.is_some() {
            // Of this machine's own build clippy looks at all warnings; nobody does of another.
            rust.push("-Dwarnings");
        }
        let variables: [(&str, OsString); 4] = [
            ("CARGO_ENCODED_RUSTFLAGS", rust.join("\u{1f}").into()),
            ("CFLAGS", c.join(" ").into()),
            ("CC_SHELL_ESCAPED_FLAGS", "1".into()),
            // Of this work tree: a copy of its files is none, and the compilers' Debian has no git.
            ("RACKLET_COMMIT", built_from().into()),
        ];
        if let Some(there) = &self.compilers {
            return there.cargo(&self.sources, &self.cargo_home, &self.target, &variables);
        }
        let mut cargo = Cmd::cargo().current_dir(&self.sources);
        for (name, value) in variables {
            cargo = cargo.env(name, value);
        }
        Ok(cargo.env("CARGO_HOME", &self.cargo_home).env("CARGO_TARGET_DIR", &self.target))
    }

    /// cargo as tests are built with it, by the compilers for another processor.
    pub fn plain_cargo(&self, variables: &[(&str, OsString)]) -> Result<Cmd> {
        let there = self.compilers.as_ref().context("there are no compilers for another one")?;
        there.cargo(&self.sources, &self.cargo_home, &self.target, variables)
    }

    /// `signer` and `repo-server`.
    pub fn others(&self) -> Result<[(PathBuf, &'static str); 2]> {
        let args =
            ["build", "--release", "--locked", "--bins", "-p", "signer", "-p", "repo-server"];
        let target = self.rust_target()?;
        self.cargo(&[])?.args(args).args(["--target", &target]).watch()?;
        let release = self.target.join(target).join("release");
        Ok(["signer", "repo-server"].map(|program| (release.join(program), program)))
    }

    /// `update-agent`, without a dynamic loader, and no larger than its limit of 8 MiB.
    pub fn agent(&self) -> Result<PathBuf> {
        self.agent_command()?.watch()?;
        let file = self.agent_file()?;
        ensure!(is_static(&file)?, "{} asks for a dynamic loader", file.display());
        let size = std::fs::metadata(&file)?.len();
        ensure!(size <= AGENT_LIMIT, "update-agent has {size} bytes, more than {AGENT_LIMIT}");
        Ok(file)
    }

    /// The command that builds it.
    pub fn agent_command(&self) -> Result<Cmd> {
        // With the target named, build scripts and macros are built without its flags. Relative relocations packed
        // (DT_RELR) are 3 KB instead of 265; a static program relocates itself, so no loader has to know them.
        let relocations = "link-arg=-Wl,-z,pack-relative-relocs";
        let cargo = self.cargo(&["-C", "target-feature=+crt-static", "-C", relocations])?;
        let args = ["build", "--locked", "-p", "update-agent", "--profile", "dist"];
        Ok(cargo.args(args).args(["--target", &self.rust_target()?]))
    }

    /// Where it lies.
    pub fn agent_file(&self) -> Result<PathBuf> {
        Ok(self.target.join(self.rust_target()?).join("dist/update-agent"))
    }
}

/// The commit that `--version` of what is shipped names, with its date: `RACKLET_COMMIT`, or that of the work tree. It
/// is asked for once: a commit that is made meanwhile does not give three programs two origins.
pub fn built_from() -> &'static str {
    static COMMIT: OnceLock<String> = OnceLock::new();
    COMMIT.get_or_init(|| {
        let given = std::env::var("RACKLET_COMMIT").ok().filter(|given| !given.trim().is_empty());
        given.or_else(|| commit::of(&paths::root())).unwrap_or_else(|| "unknown".to_owned())
    })
}

/// The target of this toolchain, as rustc names it.
pub fn host() -> Result<String> {
    let text = Cmd::new("rustc").arg("-vV").current_dir(&paths::root()).read()?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names its host")?.to_owned())
}

/// Whether a program needs no other file to start: its ELF program headers name no interpreter.
pub fn is_static(file: &Path) -> Result<bool> {
    let headers = Cmd::new("readelf").args(["-Wl"]).arg(file).read()?;
    Ok(!headers.contains("INTERP"))
}

/// Builds what is shipped, with all that belongs to it; the folder.
pub fn shipped() -> Result<PathBuf> {
    Cmd::cargo().args(["run", "--quiet", "--bin", "xtask", "--", "dist"]).watch()?;
    Ok(shipped_folder())
}

/// Becomes another of the project's commands: builds it with the features that everything else here has, and ends
/// as it ends. Returns only when cargo cannot be started.
pub fn become_command(program: &str, arguments: &[OsString]) -> Result<Infallible> {
    let cargo = Cmd::cargo().args(["run", "--bin", program, "--"]).args(arguments);
    Err(cargo.into_command().exec()).context("start cargo")
}
