//! Packages of another architecture or suite, unpacked; nothing is installed, and this machine's apt is not changed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{SUITE, sources};
use crate::cmd::Cmd;

/// apt for an architecture, with a state of its own below a folder.
pub struct Foreign {
    config: PathBuf,
}

impl Foreign {
    /// Fetches the lists of packages, from where this machine's come.
    pub fn of(dir: &Path, architecture: &str) -> Result<Self> {
        Self::listed(dir, architecture, &sources::of_host(SUITE)?.list(SUITE))
    }

    /// The same for another suite, with its backports.
    pub fn with_backports(dir: &Path, architecture: &str, suite: &str) -> Result<Self> {
        let sources = sources::of_host(suite)?;
        let backports = format!("deb {} {suite}-backports main\n", sources.archive);
        Self::listed(dir, architecture, &(sources.list(suite) + &backports))
    }

    /// Another suite's `main` alone, which testing has where it has neither updates nor security.
    pub fn of_suite(dir: &Path, architecture: &str, suite: &str) -> Result<Self> {
        let archive = sources::of_host(suite)?.archive;
        Self::listed(dir, architecture, &format!("deb {archive} {suite} main\n"))
    }

    fn listed(dir: &Path, architecture: &str, list: &str) -> Result<Self> {
        fs::create_dir_all(dir.join("lists/partial"))
            .and_then(|()| fs::create_dir_all(dir.join("cache/archives/partial")))
            .and_then(|()| fs::write(dir.join("sources.list"), list))
            .with_context(|| format!("make {}", dir.display()))?;
        let shown = dir.display();
        let text = format!(
            "APT::Architecture \"{architecture}\";\nAPT::Architectures \"{architecture}\";\n\
             APT::Sandbox::User \"root\";\nDir::State \"{shown}\";\nDir::State::status \"/dev/null\";\n\
             Dir::Cache \"{shown}/cache\";\nDir::Etc::sourcelist \"{shown}/sources.list\";\n\
             Dir::Etc::sourceparts \"-\";\n"
        );
        let config = dir.join("apt.conf");
        fs::write(&config, text).context("write apt's configuration")?;
        let foreign = Foreign { config };
        foreign.apt("apt-get").args(["-q", "update"]).run()?;
        Ok(foreign)
    }

    fn apt(&self, program: &str) -> Cmd {
        Cmd::new(program).env("APT_CONFIG", &self.config)
    }

    /// The dependency of a package whose name begins so: the kernel of a metapackage.
    pub fn depends_on(&self, package: &str, start: &str) -> Result<String> {
        let text = self.apt("apt-cache").args(["depends", package]).read()?;
        let names = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        let name = names.into_iter().find(|name| name.starts_with(start));
        name.map(str::to_owned).with_context(|| format!("{package} depends on no {start}…"))
    }

    /// `package version`, a line for each.
    pub fn versions(&self, packages: &[&str]) -> Result<String> {
        let text =
            self.apt("apt-cache").args(["show", "--no-all-versions"]).args(packages).read()?;
        let value = |name: &str| -> Vec<String> {
            text.lines().filter_map(|line| line.strip_prefix(name)).map(str::to_owned).collect()
        };
        let lines = value("Package: ").into_iter().zip(value("Version: "));
        Ok(lines.map(|(package, version)| format!("{package} {version}\n")).collect())
    }

    /// Unpacks packages, without those that they depend on.
    pub fn unpack(&self, packages: &[&str], to: &Path) -> Result<()> {
        let archives = self.config.with_file_name("archives");
        fs::create_dir_all(&archives).with_context(|| format!("make {}", archives.display()))?;
        self.apt("apt-get").args(["-q", "download"]).args(packages).current_dir(&archives).run()?;
        extract(&archives, to)
    }

    /// Unpacks packages of a release with everything that they depend on, down to the C library: they run in this
    /// system by the dynamic loader that comes with them.
    pub fn unpack_all(&self, release: &str, packages: &[&str], to: &Path) -> Result<()> {
        self.apt("apt-get")
            .args(["-q", "-y", "install", "--download-only", "--no-install-recommends"])
            .args(["-t", release])
            .args(packages)
            .run()?;
        extract(&self.config.with_file_name("cache").join("archives"), to)
    }
}

fn extract(archives: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(archives)? {
        let path = entry?.path();
        if path.extension().is_some_and(|kind| kind == "deb") {
            Cmd::new("dpkg").arg("-x").arg(path).arg(to).run()?;
        }
    }
    Ok(())
}
