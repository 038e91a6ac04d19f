//! The newest versions of the peers: those of Debian's next release, unpacked beside this machine's and cached.
//!
//! Users of other updaters run newer ones than a stable Debian has. The packages are not installed: each program runs
//! by the dynamic loader and with the libraries of its own suite, down to the C library, so that nothing of this
//! machine is replaced. Where that suite cannot be reached, this machine's peers take the place and the rows say so.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use racklet_tools::cmd::{Cmd, quoted};
use racklet_tools::debian::foreign::Foreign;
use racklet_tools::{cache, paths, setup};

/// Debian's testing.
const SUITE: &str = "forky";

const PACKAGES: &[&str] =
    &["casync", "docker-registry", "nginx", "rauc", "squashfs-tools", "swupdate", "zchunk", "zstd"];

/// What is called of them.
const PROGRAMS: &[&str] = &[
    "usr/bin/casync",
    "usr/bin/docker-registry",
    "usr/sbin/nginx",
    "usr/bin/rauc",
    "usr/bin/mksquashfs",
    "usr/bin/swupdate",
    "usr/bin/zck",
    "usr/bin/zckdl",
    "usr/bin/zstd",
];

/// What has no newer version here: it makes images and load, and is not measured.
const TOOLS: &[&str] = &["cpio", "dbus-daemon", "wrk"];

/// Starts a program with the loader and the libraries that came with it.
const SCRIPT: &str = "#!/bin/sh\nexec LOADER --library-path LIBRARIES PROGRAM \"$@\"\n";

/// `package version`, a line for each.
const VERSIONS: &str = "versions";

/// The programs of others that ours are measured beside.
pub(super) struct Peers {
    /// Of the newest ones; where there are none, those of this machine are used.
    newest: Option<PathBuf>,
    versions: String,
    /// Why they are not the newest ones.
    why: Option<String>,
}

impl Peers {
    /// The newest ones, unpacked when that was not done this month; this machine's where that fails.
    pub(super) fn find() -> Result<Self> {
        let found = newest().and_then(|dir| Ok((fs::read_to_string(dir.join(VERSIONS))?, dir)));
        match found {
            Ok((versions, dir)) => Ok(Self { newest: Some(dir), versions, why: None }),
            Err(error) => {
                eprintln!("NOTE: the peers are those of this machine: {error:#}");
                let all = setup::BENCH.iter().map(|(package, ..)| *package).chain(["zstd"]);
                let why =
                    format!("not the newest peer: those of Debian {SUITE} could not be fetched");
                Ok(Self { newest: None, versions: installed(all)?, why: Some(why) })
            }
        }
    }

    /// A program of a peer.
    pub(super) fn program(&self, name: &str) -> Cmd {
        Cmd::new(self.file(name)).env("PATH", self.search_path())
    }

    /// Its file, or its name where it is this machine's.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        let found = self.newest.as_ref().map(|dir| dir.join("bin").join(name));
        let installed = || racklet_tools::cmd::which(name).unwrap_or_else(|| name.into());
        found.filter(|file| file.exists()).unwrap_or_else(installed)
    }

    /// Where programs find each other: RAUC calls `mksquashfs`, a shell `zstd`.
    pub(super) fn search_path(&self) -> OsString {
        let usual = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
        let Some(dir) = &self.newest else { return usual };
        let mut path = dir.join("bin").into_os_string();
        path.push(":");
        path.push(usual);
        path
    }

    /// Changes when a version does: what one made, another need not read.
    pub(super) fn name(&self) -> String {
        cache::digest(&[&self.versions])
    }

    /// A row's note, with the reason where its peer is not the newest.
    pub(super) fn note(&self, text: &str) -> String {
        let parts = [Some(text).filter(|text| !text.is_empty()), self.why.as_deref()];
        parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
    }

    /// All versions, for people.
    pub(super) fn sentence(&self) -> Result<String> {
        let list = |text: &str| text.lines().collect::<Vec<_>>().join(", ");
        Ok(match &self.why {
            None => format!(
                "{} (Debian {SUITE}); {} (this machine)",
                list(&self.versions),
                list(&installed(TOOLS.iter().copied())?)
            ),
            Some(why) => format!("{} ({why})", list(&self.versions)),
        })
    }
}

/// `package version` of packages of this machine, a line for each that it has.
fn installed(packages: impl Iterator<Item = &'static str>) -> Result<String> {
    let format = "${Package} ${Version}\\n";
    Ok(Cmd::new("dpkg-query").args(["-Wf", format]).args(packages).finish()?.stdout)
}

/// The folder with the newest ones.
fn newest() -> Result<PathBuf> {
    // The suite moves. What was newest a month ago may not be so any more.
    let month = Cmd::new("date").args(["-u", "+%Y-%m"]).read()?;
    let key = cache::digest(&[&PACKAGES.join(" "), &PROGRAMS.join(" "), SCRIPT]);
    cache::entry(&format!("peers-{SUITE}-{month}-{key}"), |dir| {
        ensure!(paths::is_root(), "apt unpacks as root only");
        eprintln!("fetching the peers of Debian {SUITE} and their libraries (once a month) …");
        let architecture = Cmd::new("dpkg").arg("--print-architecture").read()?;
        let foreign = Foreign::of_suite(&dir.join("apt"), &architecture, SUITE)?;
        foreign.unpack_all(SUITE, PACKAGES, dir)?;
        fs::write(dir.join(VERSIONS), foreign.versions(PACKAGES)?)?;
        fs::remove_dir_all(dir.join("apt")).context("remove the lists of packages")?;
        scripts(dir)
    })
}

/// [`SCRIPT`] for each program.
fn scripts(dir: &Path) -> Result<()> {
    let libraries = dir.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
    let loader = fs::read_dir(&libraries)?
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with("ld-linux-"))
        .with_context(|| format!("{} has no dynamic loader", libraries.display()))?
        .path();
    let bin = dir.join("bin");
    fs::create_dir(&bin)?;
    let word = |path: &Path| quoted(&path.to_string_lossy());
    for program in PROGRAMS {
        let file = dir.join(program);
        let script = bin.join(file.file_name().context("a program has a name")?);
        let text = SCRIPT.replace("LOADER", &word(&loader)).replace("LIBRARIES", &word(&libraries));
        fs::write(&script, text.replace("PROGRAM", &word(&file)))?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    }
    // Their C library may want a newer kernel or processor.
    ["rauc", "swupdate", "zstd"]
        .iter()
        .try_for_each(|program| Cmd::new(bin.join(program)).arg("--version").run().map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(newest: Option<&str>, why: Option<&str>) -> Peers {
        let versions = "rauc 1.15\nzstd 1.5\n".to_owned();
        Peers { newest: newest.map(PathBuf::from), versions, why: why.map(str::to_owned) }
    }

    #[test]
    fn a_row_says_when_its_peer_is_not_the_newest() {
        let newest = peers(Some("/cache/peers"), None);
        assert_eq!([newest.note(""), newest.note("signed")], ["", "signed"]);
        let older = peers(None, Some("not the newest"));
        assert_eq!(
            [older.note(""), older.note("signed")],
            ["not the newest", "signed; not the newest"]
        );
        assert_eq!(older.sentence().expect("no call"), "rauc 1.15, zstd 1.5 (not the newest)");
    }

    #[test]
    fn the_newest_programs_are_found_first_and_those_of_this_machine_otherwise() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let script = dir.path().join("bin/sh");
        fs::create_dir(dir.path().join("bin")).expect("a folder");
        fs::write(&script, "").expect("a script");
        let newest = peers(dir.path().to_str(), None);
        assert_eq!(newest.file("sh"), script);
        assert_eq!(Some(newest.file("bash")), racklet_tools::cmd::which("bash"));
        let path = newest.search_path();
        assert_eq!(std::env::split_paths(&path).next(), script.parent().map(PathBuf::from));
        assert_eq!(peers(None, None).file("sh"), racklet_tools::cmd::which("sh").expect("a shell"));
    }
}
