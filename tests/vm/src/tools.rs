//! QEMU, kernels, firmware and readers, unpacked into the cache; nothing is installed.
//!
//! Debian's `qemu-system-x86` would remove a newer `qemu-utils`, and some of the others upgrade
//! systemd: more than a test may do. Versions are whatever apt resolves; the entry is named by that of the kernel.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use racklet_tools::cmd::{Cmd, which};
use racklet_tools::{apt, cache, paths};

use super::machine::Permits;
use super::platform::{PC, Platform};

/// Unpacked with everything they depend on that this machine has not.
const WITH_DEPENDENCIES: &[&str] = &["qemu-system-x86"];
/// Unpacked alone.
const ALONE: &[&str] = &[
    "ovmf",
    "grub-efi-amd64-bin",
    "systemd-boot-efi",
    "u-boot-qemu",
    "u-boot-tools",
    "busybox-static",
    "cryptsetup-bin",
    "libpopt0",
    "dosfstools",
    "mtools",
];
/// Of the same source as the first of [`WITH_DEPENDENCIES`], and wanted in its version: a machine may
/// have a newer one that no source offers.
const SAME_VERSION: &str = "qemu-utils";
/// Metapackages of the two kernels: all drivers as modules, and few drivers, built in.
const KERNELS: [&str; 2] = ["linux-image-amd64", "linux-image-cloud-amd64"];
/// Of no use in a machine without screen, sound and radio; half of a kernel package. Of the network
/// drivers those stay that lie in no folder of their own: `virtio_net`.
const LEFT_OUT: &[&str] =
    &["gpu", "media", "net/*", "infiniband", "staging", "iio", "usb", "sound", "isdn", "input"];
/// The file of the unpacked kernel.
const UNPACKED: &str = "vmlinux";
/// Raised when the same packages are unpacked differently.
const FORM: &str = "3";

/// The unpacked tools.
#[derive(Debug, Clone)]
pub(super) struct Tools {
    /// In the cache.
    name: String,
    root: PathBuf,
    /// Folders whose files count before those of `root`: of another platform.
    before: Vec<PathBuf>,
    /// Whether QEMU comes with a C library of its own, and is started by its loader.
    own_loader: bool,
    /// What machines they are for.
    pub(super) platform: &'static Platform,
    /// Leave to use them for a machine.
    pub(super) permits: Permits,
}

impl Tools {
    /// Finds them in the cache or fetches them.
    pub(super) fn prepare(machines: usize) -> Result<Self> {
        let missing: Vec<&str> = ["apt-get", "dpkg-deb", "sgdisk", "mke2fs"]
            .into_iter()
            .filter(|program| which(program).is_none())
            .collect();
        if !missing.is_empty() {
            bail!("{} missing: run cargo xtask setup", missing.join(", "));
        }
        if kernel_of(KERNELS[0]).is_err() && paths::is_root() {
            // A clean machine has no lists yet.
            apt::update()?;
        }
        let [full, cloud] = KERNELS.map(kernel_of);
        let (full, cloud) = (full?, cloud?);
        let wanted = [WITH_DEPENDENCIES, ALONE, &[SAME_VERSION], &[full.as_str(), cloud.as_str()]];
        let recipe = cache::digest(&[&wanted.concat().join(" "), FORM]);
        let name = format!("vm-{full}-{recipe}");
        let permits = Permits::new(machines);
        let dir = cache::entry(&name, |dir| {
            eprintln!("fetching QEMU, kernels and firmware (once) …");
            fs::create_dir_all(dir.join("archives/partial"))?;
            fetch(dir, &[full.as_str(), cloud.as_str()]).with_context(
                || "fetch packages for virtual machines; try: apt-get update && cargo xtask vm",
            )?;
            let tools = Tools::at(&name, dir, permits.clone());
            let kernel = tools.kernel(false)?;
            unpack_kernel(&kernel, &kernel.with_file_name(UNPACKED))
        })?;
        Ok(Tools::at(&name, &dir, permits))
    }

    fn at(name: &str, dir: &Path, permits: Permits) -> Self {
        let (name, root) = (name.to_owned(), dir.join("root"));
        let (before, own_loader) = (Vec::new(), false);
        Tools { name, root, before, own_loader, platform: &PC, permits }
    }

    /// The same for another platform, whose own files are in these folders and count first.
    pub(super) fn with_platform(&self, platform: &'static Platform, before: Vec<PathBuf>) -> Self {
        let before = [before, self.before.clone()].concat();
        Tools { before, platform, ..self.clone() }
    }

    /// The same with a QEMU of another suite and the C library that it needs, in a folder that counts first.
    pub(super) fn with_emulator(&self, folder: PathBuf) -> Self {
        Tools { before: vec![folder], own_loader: true, ..self.clone() }
    }

    /// The command of QEMU.
    pub(super) fn emulator(&self) -> Command {
        let qemu = self.file(self.platform.qemu);
        if !self.own_loader {
            let mut command = Command::new(qemu);
            command.env("LD_LIBRARY_PATH", self.libraries());
            return command;
        }
        let mut command = Command::new(self.file("usr/lib64/ld-linux-x86-64.so.2"));
        command.arg("--library-path").arg(self.libraries()).arg(qemu);
        command
    }

    /// Their name in the cache.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The kernel with its drivers as modules, unpacked where it comes packed: a PC starts it through its PVH
    /// entry. An emulated processor takes eight seconds to unpack it, at every boot.
    pub(super) fn chooser_kernel(&self) -> Result<PathBuf> {
        let packed = self.kernel(false)?;
        let unpacked = packed.with_file_name(UNPACKED);
        Ok(if unpacked.exists() { unpacked } else { packed })
    }

    /// A file of one of the packages.
    pub(super) fn file(&self, path: &str) -> PathBuf {
        let before = self.before.iter().map(|folder| folder.join(path));
        before.into_iter().find(|file| file.exists()).unwrap_or_else(|| self.root.join(path))
    }

    /// Packages that only some cells need, unpacked in a folder of their own.
    pub(super) fn further(&self, packages: &[&str]) -> Result<PathBuf> {
        cache::entry(&format!("{}-{}", self.name, packages.join("+")), |dir| {
            let archives = dir.join("archives");
            fs::create_dir_all(archives.join("partial"))?;
            Cmd::new("apt-get")
                .args(["-q", "download", "-o", "APT::Sandbox::User=root"])
                .args(["-o", "Debug::NoLocking=1"])
                .args(packages)
                .current_dir(&archives)
                .run()?;
            for entry in fs::read_dir(&archives)?.flatten() {
                if entry.path().extension().is_some_and(|kind| kind == "deb") {
                    Cmd::new("dpkg").arg("-x").arg(entry.path()).arg(dir).run()?;
                }
            }
            Ok(fs::remove_dir_all(&archives)?)
        })
    }

    /// A program of one of the packages, with the libraries that came with it.
    pub(super) fn program(&self, path: &str) -> Cmd {
        Cmd::new(self.file(path)).env("LD_LIBRARY_PATH", self.libraries())
    }

    /// Where the libraries are that came with the programs.
    pub(super) fn libraries(&self) -> OsString {
        let mut path = self.file("usr/lib/x86_64-linux-gnu").into_os_string();
        path.push(":");
        path.push(self.file("lib/x86_64-linux-gnu"));
        path
    }

    /// The kernel with its drivers as modules, or the one with few drivers built in; a platform that has only
    /// one of them uses it for both.
    pub(super) fn kernel(&self, cloud: bool) -> Result<PathBuf> {
        let kinds = self.platform.slot_modules;
        let cloud = if kinds.iter().any(|(kind, _)| *kind == cloud) { cloud } else { !cloud };
        let boot = self.file("boot");
        for entry in fs::read_dir(&boot)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("vmlinuz-") && name.contains("-cloud-") == cloud {
                return Ok(entry.path());
            }
        }
        bail!("no kernel in {}", boot.display())
    }

    /// Modules of a kernel and what they depend on, in the order in which they are loaded.
    pub(super) fn modules(&self, cloud: bool, names: &[&str]) -> Result<Vec<PathBuf>> {
        let kernel = self.kernel(cloud)?;
        let kernel = kernel.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let release = kernel.trim_start_matches("vmlinuz-").to_owned();
        let dir = self.file("lib/modules").join(release);
        let builtin = fs::read_to_string(dir.join("modules.builtin"))?;
        let order = fs::read_to_string(dir.join("modules.order"))?;
        let index = Index { dir, builtin, order };
        let mut found = Vec::new();
        for name in names {
            index.add(name, &mut found)?;
        }
        Ok(found)
    }
}

/// Where modules are, by name.
struct Index {
    dir: PathBuf,
    builtin: String,
    order: String,
}

impl Index {
    fn add(&self, name: &str, found: &mut Vec<PathBuf>) -> Result<()> {
        let file = format!("/{}.ko", name.replace('_', "-"));
        let other = format!("/{}.ko", name.replace('-', "_"));
        let is = |line: &&str| line.ends_with(&file) || line.ends_with(&other);
        let Some(line) = self.order.lines().find(is) else {
            ensure!(self.builtin.lines().any(|line| is(&line)), "no kernel module {name}");
            return Ok(());
        };
        let path = self.dir.join(line);
        if found.contains(&path) {
            return Ok(());
        }
        let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        // `.modinfo` holds NUL-terminated `key=value` texts.
        let depends = bytes
            .windows(9)
            .position(|window| window == b"\0depends=")
            .and_then(|at| bytes.get(at + 9..))
            .map(|rest| rest.split(|byte| *byte == 0).next().unwrap_or_default());
        let depends = String::from_utf8_lossy(depends.unwrap_or_default()).into_owned();
        for needed in depends.split(',').filter(|name| !name.is_empty()) {
            self.add(needed, found)?;
        }
        found.push(path);
        Ok(())
    }
}

/// Takes the ELF file out of a bzImage (Linux boot protocol 2.08).
///
/// | offset | length | value |
/// |---|---|---|
/// | 0x1F1 | 1 | sectors of the real-mode part behind the first one; 0 is 4 |
/// | 0x248 | 4 | where the packed kernel begins behind that part |
/// | 0x24C | 4 | its length: an xz stream, and four bytes more |
fn unpack_kernel(image: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(image)?;
    let field = |at: usize| -> Option<usize> {
        Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?) as usize)
    };
    let packed = || {
        let sectors = match *bytes.get(0x1f1)? {
            0 => 4,
            sectors => usize::from(sectors),
        };
        let start = (sectors + 1) * 512 + field(0x248)?;
        bytes.get(start..start.checked_add(field(0x24c)?)?)
    };
    let packed = packed().with_context(|| format!("{} is no bzImage", image.display()))?;
    let (from, part) = (to.with_extension("xz"), to.with_extension("part"));
    fs::write(&from, packed)?;
    let line = "xz -dc --single-stream \"$1\" >\"$2\"";
    Cmd::new("sh").args(["-c", line, "sh"]).arg(&from).arg(&part).run()?;
    fs::remove_file(from)?;
    Ok(fs::rename(part, to)?)
}

/// The kernel package a metapackage stands for.
fn kernel_of(meta: &str) -> Result<String> {
    let text = Cmd::new("apt-cache").args(["depends", meta]).read()?;
    let name = text.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
    match name {
        Some(rest) => Ok(format!("linux-image-{rest}")),
        None => bail!("apt knows no {meta}: run apt-get update"),
    }
}

fn fetch(dir: &Path, kernels: &[&str]) -> Result<()> {
    let root = dir.join("root");
    let archives = dir.join("archives");
    fs::create_dir_all(&root)?;
    let option = |text: String| ["-o".to_owned(), text];
    let common = [
        option("APT::Sandbox::User=root".to_owned()),
        option("Debug::NoLocking=1".to_owned()),
        option(format!("Dir::Cache::archives={}/", archives.display())),
    ]
    .concat();
    Cmd::new("apt-get")
        .args(["-q", "-y", "install", "--download-only", "--no-install-recommends"])
        .args(&common)
        .args(WITH_DEPENDENCIES)
        .run()?;
    let mut alone = Vec::new();
    for package in ALONE {
        // Some are part of others in other releases of Debian.
        let known = Cmd::new("apt-cache").args(["show", package]).finish()?;
        if known.code == 0 {
            alone.push(*package);
        }
    }
    let about = ["show", "--no-all-versions", WITH_DEPENDENCIES[0]];
    let about = Cmd::new("apt-cache").args(about).read()?;
    let version = about.lines().find_map(|line| line.strip_prefix("Version: "));
    let version = version.context("apt names no version of QEMU")?;
    Cmd::new("apt-get")
        .args(["-q", "download"])
        .args(&common)
        .args(&alone)
        .arg(format!("{SAME_VERSION}={version}"))
        .args(kernels)
        .current_dir(&archives)
        .run()?;
    for entry in fs::read_dir(&archives)?.flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.ends_with(".deb") {
            continue;
        }
        if name.starts_with("linux-image-") {
            let excluded = LEFT_OUT.iter().map(|kind| format!("--exclude=*/drivers/{kind}/*"));
            let excluded: Vec<String> = excluded.chain(["--exclude=./usr/*".to_owned()]).collect();
            let script = format!(
                "dpkg-deb --fsys-tarfile \"$1\" | tar -x -C \"$2\" {}",
                excluded.iter().map(|text| format!("'{text}'")).collect::<Vec<_>>().join(" ")
            );
            Cmd::new("sh").args(["-ec", &script, "sh"]).arg(&path).arg(&root).run()?;
        } else {
            Cmd::new("dpkg").arg("-x").arg(&path).arg(&root).run()?;
        }
        fs::remove_file(&path)?;
    }
    Ok(())
}
