//! A slot with Debian, systemd as the first process, our units and our example configuration as they are
//! shipped. What a node's owner would add is here, too: file systems, a network, the services that the
//! example's health checks ask.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use racklet_tools::cmd::Cmd;
use racklet_tools::{debian, paths};

use super::super::tree::Tree;
use super::super::world::{World, make_ext4};
use super::Backend;

/// Bytes of a slot.
pub(super) const SLOT: u64 = 128 << 20;

/// Loaded before file systems are mounted. What a kernel has built in is left out.
const MODULES: &[&str] = &["virtio_pci", "virtio_net", "vfat", "nls_cp437", "nls_ascii"];

/// What people edit in the example, and nothing else: names of disks and hosts, the mode, the loader,
/// and how long a broken release may take.
const EDITS: &[(&str, &str)] = &[
    ("docker://updates.example.org/racklet", "docker://10.0.2.100:5443/racklet"),
    ("mode = \"notify\"", "mode = \"auto\""),
    ("#tries = 3", "tries = 1"),
    ("#deadline = \"5m\"", "deadline = \"40s\""),
];

/// Units that only a machine with a longer life than a test needs.
const MASKED: &[&str] = &[
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "serial-getty@ttyS0.service",
    "systemd-update-utmp.service",
];

/// The network, and the services of the example's checks: a web server on 8080 and a port 22.
const SERVICES: &[(&str, &str)] = &[
    (
        "guest-modules.service",
        "[Unit]\nDefaultDependencies=no\nBefore=local-fs-pre.target\nWants=local-fs-pre.target\n\
         [Service]\nType=oneshot\nRemainAfterExit=yes\n\
         ExecStart=/bin/sh -c 'while read -r m; do busybox insmod $m; done </etc/guest-modules'\n",
    ),
    (
        "guest-network.service",
        "[Unit]\nBefore=network-online.target\nWants=network-online.target\n\
         [Service]\nType=oneshot\nRemainAfterExit=yes\n\
         ExecStart=/bin/busybox ip link set eth0 up\n\
         ExecStart=/bin/busybox ip addr add 10.0.2.15/24 dev eth0\n",
    ),
    (
        "guest-web.service",
        "[Service]\nExecStart=/bin/busybox httpd -f -p 127.0.0.1:8080 -h /srv/www\n",
    ),
    ("guest-ssh.socket", "[Socket]\nListenStream=127.0.0.1:22\nAccept=yes\n"),
    ("guest-ssh@.service", "[Service]\nExecStart=/bin/true\nStandardInput=socket\n"),
    (
        "guest-shell.service",
        "[Unit]\nAfter=update-agent.service\n\
         [Service]\nExecStart=/usr/lib/guest-shell\nStandardInput=tty\nStandardOutput=tty\n\
         StandardError=tty\nTTYPath=/dev/ttyS0\nRestart=always\n",
    ),
];

/// What is started at every boot, and by which target.
const WANTED: &[(&str, &str)] = &[
    ("sysinit.target", "guest-modules.service"),
    ("multi-user.target", "guest-network.service"),
    ("multi-user.target", "guest-web.service"),
    ("sockets.target", "guest-ssh.socket"),
    ("multi-user.target", "guest-shell.service"),
    ("multi-user.target", "update-agent.service"),
];

/// The agent's units, as they are shipped.
fn units(tree: &mut Tree) -> Result<()> {
    let dir = paths::root().join("update-agent/systemd");
    for entry in fs::read_dir(&dir).with_context(|| format!("read {}", dir.display()))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".service") || name.ends_with(".timer") {
            tree.file(&format!("usr/lib/systemd/system/{name}"), fs::read(entry.path())?);
        }
    }
    Ok(())
}

/// Of a node whose kernels are components on the ESP, as `signer factory` makes it.
const KERNELS: [(&str, &str); 2] = [
    ("firmware = \"fw-a\"", "kernel = { device = \"/efi/racklet/a/vmlinuz\" }"),
    ("firmware = \"fw-b\"", "kernel = { device = \"/efi/racklet/b/vmlinuz\" }"),
];

/// The shipped example with [`EDITS`] and the line that names the loader.
fn configuration(backend: &Backend) -> Result<String> {
    let mut text =
        fs::read_to_string(paths::root().join("update-agent/update-agent.example.toml"))?;
    let loader = ("#backend = \"gpt-attributes\"", backend.line);
    let kernels = if backend.made { &KERNELS[..] } else { &[] };
    for (from, to) in EDITS.iter().chain([&loader]).chain(kernels) {
        ensure!(text.matches(from).count() == 1, "the example says {from:?} not just once");
        text = text.replace(from, to);
    }
    Ok(text)
}

/// The files that make the small Debian a node, and nothing of it executable that is not.
fn node(world: &World, dir: &Path, backend: &Backend) -> Result<Tree> {
    let mut tree = Tree::default();
    tree.copy("usr/bin/update-agent", world.agent_file())?;
    units(&mut tree)?;
    tree.file("etc/update-agent/update-agent.toml", configuration(backend)?);
    for (name, from) in [("root.json", "keys/root.json"), ("ca.pem", "ca.pem")] {
        tree.file(&format!("etc/update-agent/{name}"), fs::read(dir.join(from))?);
    }
    tree.folder("efi");
    tree.folder("srv/www");
    tree.file("etc/machine-id", "7261636b6c657400000000000000000a\n");
    tree.file("etc/fstab", file_systems(backend));
    if backend.made {
        let dir = paths::root().join("update-agent/boot/identity");
        tree.copy("usr/lib/racklet/identity", &dir.join("racklet-identity.sh"))?;
        let unit = "racklet-identity.service";
        tree.file(&format!("usr/lib/systemd/system/{unit}"), fs::read(dir.join(unit))?);
        let wants = format!("etc/systemd/system/sysinit.target.wants/{unit}");
        tree.link(&wants, &format!("/usr/lib/systemd/system/{unit}"));
    }
    let console = "[Journal]\nStorage=volatile\nForwardToConsole=yes\nTTYPath=/dev/ttyS0\nMaxLevelConsole=info\n";
    tree.file("etc/systemd/journald.conf.d/console.conf", console);
    tree.program("usr/lib/guest-shell", include_str!("shell.sh"));
    for (name, text) in SERVICES {
        tree.file(&format!("etc/systemd/system/{name}"), *text);
    }
    for (target, unit) in WANTED {
        let at = format!("etc/systemd/system/{target}.wants/{unit}");
        let folder = if unit.starts_with("guest") { "/etc" } else { "/usr/lib" };
        tree.link(&at, &format!("{folder}/systemd/system/{unit}"));
    }
    for unit in MASKED {
        tree.link(&format!("etc/systemd/system/{unit}"), "/dev/null");
    }
    let mut list = String::new();
    for module in world.tools.modules(true, MODULES)? {
        let name = module.file_name().unwrap_or_default().to_string_lossy().into_owned();
        tree.copy(&format!("usr/lib/guest-modules/{name}"), &module)?;
        list.push_str(&format!("/usr/lib/guest-modules/{name}\n"));
    }
    tree.file("etc/guest-modules", list);
    tree.copy("boot/vmlinuz", &world.tools.kernel(true)?)?;
    Ok(tree)
}

/// What is mounted beside the slot.
fn file_systems(backend: &Backend) -> String {
    let (data, esp) = match backend.made {
        true => ("PARTLABEL=data", "PARTLABEL=esp"),
        false => ("/dev/nvme0n1p6", "/dev/nvme0n1p1"),
    };
    let mut text = format!("{data} /var ext4 defaults 0 0\ntmpfs /tmp tmpfs mode=1777 0 0\n");
    if !backend.esp.is_empty() {
        text += &format!("{esp} {} vfat umask=0077 0 0\n", backend.esp);
    }
    text
}

/// Debian's sgdisk, with the library that it needs beyond the small Debian's.
fn sgdisk(world: &World, tree: &Path) -> Result<()> {
    let found = world.tools.further(&["gdisk", "libpopt0"])?;
    for (folder, to) in [("sbin", "sbin"), ("lib", "lib"), ("usr/lib", "lib")] {
        let from = found.join(folder);
        if from.is_dir() {
            Cmd::new("cp").arg("-a").arg(from.join(".")).arg(tree.join("usr").join(to)).run()?;
        }
    }
    Ok(())
}

/// Debian's kexec, with the libraries of Xen that it is linked to.
fn kexec(world: &World, tree: &Path) -> Result<()> {
    let named = ["--recurse", "--important", "kexec-tools"];
    let depends = Cmd::new("apt-cache").arg("depends").args(named).read()?;
    let ours = |line: &&str| {
        ["kexec-tools", "libxen", "libyajl"].iter().any(|name| line.starts_with(name))
    };
    let packages: BTreeSet<&str> = depends.lines().filter(ours).collect();
    let found = world.tools.further(&packages.into_iter().collect::<Vec<_>>())?;
    for folder in ["sbin", "usr/lib/x86_64-linux-gnu"] {
        let to = tree.join("usr").join(folder.trim_start_matches("usr/"));
        Cmd::new("cp").arg("-a").arg(found.join(folder).join(".")).arg(to).run()?;
    }
    Ok(())
}

/// The base of all releases, and what lies in `/var` of a new node.
pub(super) fn base(world: &World, dir: &Path, backend: &Backend) -> Result<(PathBuf, PathBuf)> {
    let tree = dir.join("tree");
    Cmd::new("cp").arg("-a").arg(debian::minimal_tree()?).arg(&tree).run()?;
    if backend.kexec {
        kexec(world, &tree)?;
    }
    if backend.made {
        sgdisk(world, &tree)?;
    }
    node(world, dir, backend)?.write_to(&tree)?;
    if backend.made {
        Cmd::new("cp").arg("-a").arg(tree.join("var")).arg(dir.join("var")).run()?;
        let config = tree.join("etc/update-agent/update-agent.toml");
        fs::copy(config, dir.join("update-agent.toml"))?;
    }
    let (image, var) = (dir.join("base.img"), dir.join("var.img"));
    make_ext4(&tree.join("var"), &var, super::VAR << 20, "var")?;
    make_ext4(&tree, &image, SLOT, "os")?;
    fs::remove_dir_all(&tree)?;
    Ok((image, var))
}

/// What is wrong with a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// The page that the health check asks for is not there.
    NoPage,
    /// The web server never answers for that page, and systemd refuses to restart.
    Hangs,
    /// The file system with the boot flags is mounted read-only.
    ReadOnlyFlags,
}

/// A release: the base that says its version, with a web page that the health check asks for.
pub(super) fn release(dir: &Path, base: &Path, version: &str, fault: Fault) -> Result<PathBuf> {
    let image = dir.join(format!("os-{version}.img"));
    Cmd::new("cp").arg("--sparse=always").arg(base).arg(&image).run()?;
    let about = dir.join("os-release");
    fs::write(&about, format!("ID=debian\nNAME=Debian\nIMAGE_VERSION={version}\n"))?;
    let page = format!("write {} /srv/www/healthz\n", about.display());
    let fault = match fault {
        Fault::None => page,
        Fault::NoPage => String::new(),
        // Who opens a FIFO to read waits for a writer.
        Fault::Hangs => "cd /srv/www\nmknod healthz p\ncd /etc/systemd/system\n\
             symlink reboot.target /dev/null\n"
            .to_owned(),
        Fault::ReadOnlyFlags => {
            let fstab = dir.join("fstab");
            let read = "cat /etc/fstab";
            let table = Cmd::new("debugfs").args(["-R", read]).arg(&image).read()?;
            let changed = table.replace(" vfat umask", " vfat ro,umask");
            ensure!(changed != table, "the flags lie on no file system of their own: {table}");
            fs::write(&fstab, changed)?;
            format!("{page}rm /etc/fstab\nwrite {} /etc/fstab\n", fstab.display())
        }
    };
    let script =
        format!("rm /usr/lib/os-release\nwrite {} /usr/lib/os-release\n{fault}", about.display());
    Cmd::new("debugfs").args(["-w", "-f", "-"]).arg(&image).input(script).run()?;
    // debugfs tells of failures in its text alone.
    let said = Cmd::new("debugfs").args(["-R", "cat /usr/lib/os-release"]).arg(&image).read()?;
    ensure!(said.contains(version), "debugfs did not write os-release: {said}");
    Ok(image)
}
