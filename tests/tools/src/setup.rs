//! Installs what the other commands call: Debian packages, and Python clients as witnesses.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};

use crate::cmd::{Cmd, which};
use crate::cross::Processor;
use crate::{apt, cache, firmware, paths, postgres};

/// A package, a program or file of it (none: ask dpkg), why.
type Package = (&'static str, &'static str, &'static str);

/// Everything but the bench. Never a `qemu-system-*` here: Debian's removes a `qemu-utils`
/// from backports, so VM tests unpack theirs into a private folder.
const PACKAGES: &[Package] = &[
    ("gcc", "cc", "links Rust programs; compiles ring and zstd"),
    ("libc6-dev", "/usr/include/stdio.h", "C headers for the same"),
    ("git", "git", "what is committed; the tests clone"),
    ("debootstrap", "debootstrap", "real root file systems"),
    ("e2fsprogs", "mke2fs", "ext4 images without mounting: mke2fs -d, debugfs, e2fsck"),
    ("squashfs-tools", "unsquashfs", "packages of squashfs images, for SBOMs; makes such images"),
    ("gdisk", "sgdisk", "makes the demo's disks; witness of our partition tables"),
    ("cgpt", "cgpt", "ChromeOS' own reader of the boot attributes"),
    (
        "dosfstools",
        "mkfs.vfat",
        "EFI system partitions of disks that signer factory makes; fsck.vfat",
    ),
    ("mtools", "mcopy", "their files"),
    ("cpio", "cpio", "systems that run from memory, for signer factory and ram-image"),
    ("swtpm", "swtpm", "a TPM 2.0 in software, for the rollback floor"),
    ("u-boot-tools", "mkimage", "U-Boot's scripts on disks that signer factory makes; reads them"),
    ("libubootenv-tool", "fw_printenv", "reader of U-Boot's environment"),
    ("grub-common", "grub-editenv", "reader of GRUB's environment block, checker of its scripts"),
    ("skopeo", "skopeo", "mirrors repositories; witness of our OCI layouts"),
    ("docker-registry", "docker-registry", "a registry by other people"),
    ("xz-utils", "xz", "unpacks kernels for virtual machines"),
    ("zstd", "zstd", "witness of image blobs"),
    ("python3-venv", "", "python-tuf and oras, as witnesses"),
    ("time", "/usr/bin/time", "peak memory in the demo's summary"),
    ("faketime", "faketime", "wrong clocks, in the end-to-end tests"),
    ("util-linux", "unshare", "namespaces for building images and mounting slots"),
    ("systemd", "systemd-analyze", "checks the units we ship"),
    ("strace", "strace", "an old kernel, by system calls that are refused"),
    ("shellcheck", "shellcheck", "checks the hooks we ship"),
    ("dpkg-dev", "dpkg-parsechangelog", "reads the changelog of our packages, and builds them"),
    ("coreutils", "sha256sum", "witness of what is in a slot"),
    ("softhsm2", "softhsm2-util", "tokens for keys behind PKCS#11"),
    ("openssl", "openssl", "witness of keys and certificates"),
    ("curl", "curl", "a foreign HTTP client"),
    ("sqlite3", "sqlite3", "backs the database of reports up, as the book says"),
    ("postgresql-client", "pg_dump", "the same for PostgreSQL"),
    ("libxml2", "", "a library that PostgreSQL's server calls"),
    ("libldap-2.5-0", "", "the same"),
    ("chromium", "chromium", "the pages of the fleet, as a browser shows them"),
    ("chromium-driver", "chromedriver", "drives it"),
    ("libnss3-tools", "certutil", "tells it which CA a test's server has"),
    (
        "tidy",
        "tidy",
        "judge of their HTML; validator.nu would need a Java, html-validate a Node.js",
    ),
];

/// Of [`PACKAGES`], what `cargo xtask demo` calls: it makes images and disks, and others read them.
const DEMO: &[&str] = &[
    "gcc",
    "libc6-dev",
    "debootstrap",
    "e2fsprogs",
    "gdisk",
    "cgpt",
    "time",
    "util-linux",
    "coreutils",
];

/// What `cargo xtask bench` measures beside ours; not installed by `setup`.
pub const BENCH: &[Package] = &[
    ("rauc", "rauc", "an updater by other people"),
    ("squashfs-tools", "mksquashfs", "makes RAUC's bundles"),
    ("dbus-daemon", "dbus-daemon", "the bus that RAUC's service needs"),
    ("swupdate", "swupdate", "an updater by other people"),
    ("cpio", "cpio", "makes SWUpdate's images"),
    ("casync", "casync", "chunked images by other people"),
    ("zchunk", "zck", "chunked files by other people"),
    ("nginx-light", "nginx", "the yardstick of a web server"),
    ("docker-registry", "docker-registry", "the yardstick of a registry"),
    ("wrk", "wrk", "load"),
];

/// What `cargo xtask package` calls.
const PACKAGING: &[Package] = &[
    ("dpkg-dev", "dpkg-buildpackage", "builds Debian packages"),
    ("debhelper", "dh", "Debian's own rules of where files go and what happens on upgrades"),
];

/// What `cargo xtask night` judges packages with.
const JUDGES: &[Package] = &[
    ("lintian", "lintian", "Debian's policy, checked"),
    ("piuparts", "piuparts", "installs, upgrades and purges packages, and looks for leftovers"),
    ("debootstrap", "debootstrap", "the systems they are installed in"),
];

/// What `docs/first-disk.md` calls beside [`PACKAGES`], and `cargo xtask night` with it.
const FIRST_DISK: &[Package] =
    &[("mmdebstrap", "mmdebstrap", "makes Debian systems, with updates and security")];

/// What lets the kernel start programs of another processor.
const EMULATION: &[Package] = &[
    ("qemu-user-static", "qemu-aarch64-static", "runs programs of other processors"),
    ("binfmt-support", "update-binfmts", "makes the kernel start them with it"),
    ("arch-test", "arch-test", "mmdebstrap asks it whether they start"),
];

/// Where the kernel lists programs that it starts with others.
const BINFMT: &str = "/proc/sys/fs/binfmt_misc";

/// Package, a file of it, why: unpacked into the cache, because installing it would change more than
/// a test may.
const UNPACKED: &[(&str, &str, &str)] = &[
    ("systemd-boot", "usr/bin/bootctl", "reader of boot entries; would upgrade systemd"),
    (
        postgres::PACKAGE.0,
        postgres::PACKAGE.1,
        "keeps reports of nodes for several servers; would start a service",
    ),
    ("prometheus", "usr/bin/promtool", "reads metrics, tests alert rules; would start a service"),
    (
        "prometheus-node-exporter",
        "usr/bin/prometheus-node-exporter",
        "reads metrics from a file; would start a service",
    ),
];

/// Witnesses from PyPI, pinned: what they read today they must read tomorrow.
/// Moto is the S3 server that repo-server's buckets are tested on, jsonschema the judge of what `--json` prints.
const PYTHON: &[&str] = &[
    "tuf==7.0.1",
    "securesystemslib[crypto]==1.6.0",
    "oras==0.2.43",
    "moto[server]==5.2.5",
    "jsonschema==4.26.0",
];

/// Packages that only carry files we read: sigstore's own roots of two generations, a parser of OpenMetrics in
/// Python alone, and a judge of web pages.
const CARRIERS: &[(&str, &str)] =
    &[("sigstore", "4.5.1"), ("sigstore", "3.6.1"), ("prometheus-client", "0.26.0"), AXE];

/// Carries axe-core 4.12.1, a judge of accessibility that runs in a browser; from npm it would need a Node.js.
pub const AXE: (&str, &str) = ("axe-playwright-python", "0.1.8");

/// Options of `cargo xtask setup`.
#[derive(clap::Args)]
pub struct Options {
    /// Only say what is missing (exit 1 when something is).
    #[arg(long)]
    check: bool,
    /// Leave Python alone.
    #[arg(long)]
    no_python: bool,
}

impl Options {
    /// What every test needs.
    pub fn everything() -> Self {
        Self { check: false, no_python: false }
    }

    /// Debian packages only.
    pub fn without_python() -> Self {
        Self { check: false, no_python: true }
    }
}

/// `cargo xtask setup`.
pub fn run(options: &Options) -> Result<()> {
    install(PACKAGES, options.check)?;
    if !options.no_python {
        unpack(options.check)?;
        install_python(options.check)?;
    }
    println!("setup: everything is there");
    Ok(())
}

/// Installs what `cargo xtask demo` calls, and nothing else.
pub fn demo() -> Result<()> {
    let of_demo = |(name, ..): &&Package| DEMO.contains(name);
    install(&PACKAGES.iter().filter(of_demo).copied().collect::<Vec<_>>(), false)
}

/// Installs what `cargo xtask package` calls.
pub fn packaging() -> Result<()> {
    install(PACKAGING, false)
}

/// Installs what packages are judged with.
pub fn judges() -> Result<()> {
    install(JUDGES, false)
}

/// Installs what `docs/first-disk.md` calls.
pub fn first_disk() -> Result<()> {
    install(FIRST_DISK, false)
}

/// Installs what starts programs of another processor in a chroot, and checks that the kernel does.
pub fn emulation(processor: Processor) -> Result<()> {
    install(EMULATION, false)?;
    let entry = Path::new(BINFMT).join(processor.emulator());
    if entry.exists() {
        return Ok(());
    }
    let missing = format!(
        "the kernel does not start programs of {} by itself, there is no {}",
        processor.name(),
        entry.display()
    );
    if !paths::is_root() {
        bail!("{missing}: as root, mount -t binfmt_misc none {BINFMT} && update-binfmts --enable");
    }
    // What systemd does where it is the first process.
    if !Path::new(BINFMT).join("register").exists() {
        Cmd::new("mount").args(["-t", "binfmt_misc", "none", BINFMT]).run()?;
    }
    Cmd::new("update-binfmts").args(["--enable", processor.emulator()]).run()?;
    ensure!(entry.exists(), "{missing} after update-binfmts --enable");
    Ok(())
}

/// Installs what `cargo xtask bench` calls besides.
pub fn bench() -> Result<()> {
    install(BENCH, false)
}

fn install(packages: &[Package], check: bool) -> Result<()> {
    let may = paths::is_root() && !check;
    // Another command may be installing the same; what is missing is asked when it has ended.
    let _alone = match may && !missing(packages).is_empty() {
        true => Some(apt::alone()?),
        false => None,
    };
    let missing = missing(packages);
    if missing.is_empty() {
        return Ok(());
    }
    for (package, _, why) in packages.iter().filter(|(name, ..)| missing.contains(name)) {
        println!("missing: {package} ({why})");
    }
    let options = ["install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"];
    let words = [&options[..], &missing].concat();
    if !may {
        bail!("run as root: apt-get update && apt-get {}", words.join(" "));
    }
    // Lists may be absent or older than the archive; both end in a package not found.
    apt::fetch_lists()?;
    let simulated = Cmd::new("apt-get").args(["-q", "-s"]).args(&words).read()?;
    let all = to_be_installed(&simulated);
    println!("to be installed, with what they depend on ({}): {}", all.len(), all.join(" "));
    let apt = Cmd::new("apt-get").arg("-q").args(&words).aloud();
    apt.env("DEBIAN_FRONTEND", "noninteractive").watch()
}

/// The packages of `apt-get --simulate install`, in its order.
fn to_be_installed(simulated: &str) -> Vec<&str> {
    let lines = simulated.lines().filter_map(|line| line.strip_prefix("Inst "));
    lines.filter_map(|line| line.split(' ').next()).collect()
}

fn missing(packages: &[Package]) -> Vec<&'static str> {
    // A program may come from elsewhere than its package; only where there is none dpkg decides.
    let there = |name: &str, file: &str| match file.chars().next() {
        Some('/') => PathBuf::from(file).exists(),
        Some(_) => which(file).is_some(),
        None => Cmd::new("dpkg-query")
            .args(["-Wf", "${Status}", name])
            .finish()
            .is_ok_and(|done| done.stdout.ends_with(" installed")),
    };
    packages.iter().filter(|(name, file, _)| !there(name, file)).map(|(name, ..)| *name).collect()
}

fn unpack(check: bool) -> Result<()> {
    for (package, file, why) in UNPACKED {
        if unpacked(package, file).is_some() {
            continue;
        }
        println!("missing: {package} ({why})");
        if check {
            bail!("{package} is not unpacked: run cargo xtask setup");
        }
        firmware::package(package)?;
    }
    Ok(())
}

/// A file of a package, installed or unpacked into the cache.
pub fn unpacked(package: &str, file: &str) -> Option<PathBuf> {
    let installed = Path::new("/").join(file);
    let in_cache = || Some(cache::find(&firmware::package_entry(package))?.join(file));
    if installed.is_file() { Some(installed) } else { in_cache().filter(|file| file.is_file()) }
}

/// The Python that has exactly the witnesses from PyPI.
pub fn python() -> Option<PathBuf> {
    Some(cache::find(&venv_entry())?.join("bin/python"))
}

/// The folder that holds a package from PyPI of which only files are read: `sigstore`, `4.5.1`.
pub fn carrier(name: &str, version: &str) -> Option<PathBuf> {
    cache::find(&format!("{name}-{version}"))
}

fn venv_entry() -> String {
    format!("python-{}", cache::digest(PYTHON))
}

/// A virtual environment with exactly [`PYTHON`], and [`CARRIERS`] beside it.
fn install_python(check: bool) -> Result<()> {
    let there = python().is_some() && CARRIERS.iter().all(|(n, v)| carrier(n, v).is_some());
    if there {
        return Ok(());
    }
    if check {
        bail!("Python witnesses missing: run cargo xtask setup");
    }
    let quiet = ["install", "--quiet", "--no-input", "--disable-pip-version-check"];
    let venv = cache::entry(&venv_entry(), |dir| {
        Cmd::new("python3").args(["-m", "venv", "--clear"]).arg(dir).run()?;
        Cmd::new(dir.join("bin/pip")).args(quiet).args(PYTHON).watch()
    })?;
    for (name, version) in CARRIERS {
        cache::entry(&format!("{name}-{version}"), |dir| {
            Cmd::new(venv.join("bin/pip"))
                .args(quiet)
                .args(["--no-deps", "--upgrade", "--target"])
                .arg(dir)
                .arg(format!("{name}=={version}"))
                .watch()
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_packages_is_read_from_a_simulation() {
        let text = "Reading package lists...\nThe following NEW packages will be installed:\n  \
            debootstrap wget\nInst wget (1.21 Debian:12/stable [amd64])\n\
            Inst debootstrap (1.0 Debian:12/stable [all])\nConf wget (1.21 Debian:12/stable [amd64])\n";
        assert_eq!(to_be_installed(text), ["wget", "debootstrap"]);
    }

    #[test]
    fn the_demo_installs_what_is_known_and_no_servers_of_others() {
        let known: Vec<&str> = PACKAGES.iter().map(|(name, ..)| *name).collect();
        assert!(DEMO.iter().all(|name| known.contains(name)), "{DEMO:?}");
        assert!(DEMO.len() < known.len() / 2, "{DEMO:?}");
    }
}
