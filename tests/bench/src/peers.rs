//! Other people's updaters and servers, set up as their documentation says.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use racklet_tools::cmd::Cmd;

use super::rig::{Bench, answers, free_address};
use super::run::Background;

/// A throw-away certificate both updaters sign with and trust; in the prepared files, because the
/// RAUC bundle there is signed with it.
fn certificate(bench: &Bench) -> Result<(PathBuf, PathBuf)> {
    let both = bench.prepare("signer.pem", |part| {
        let made = Cmd::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650"])
            .args(["-subj", "/CN=bench", "-keyout"])
            .arg(bench.prepared.join("signer.key"))
            .arg("-out")
            .arg(part);
        made.run().map(drop)
    })?;
    Ok((both, bench.prepared.join("signer.key")))
}

/// Makes what is made once.
pub(super) fn prepare(bench: &Bench) -> Result<()> {
    rauc_bundle(bench).map(drop)
}

/// SWUpdate with a signed image.
pub(super) struct Swupdate {
    install: Vec<OsString>,
    program: PathBuf,
    _sockets: Option<Sockets>,
    /// What its image description names as the target.
    pub(super) device: PathBuf,
}

impl Swupdate {
    pub(super) fn prepare(bench: &Bench, compressed: &Path) -> Result<Self> {
        let (certificate, key) = certificate(bench)?;
        let dir = bench.path("swupdate");
        fs::create_dir(&dir)?;
        let device = dir.join("device");
        let digest = racklet_tools::disk::file_digest(compressed)?;
        symlink(fs::canonicalize(compressed)?, dir.join("os.zst"))?;
        let description = format!(
            "software = {{ version = \"1.0\"; hardware-compatibility: [\"1.0\"]; images: ( {{ \
             filename = \"os.zst\"; device = {device:?}; type = \"raw\"; compressed = \"zstd\"; \
             sha256 = \"{digest}\"; }} ); }}\n"
        );
        fs::write(dir.join("sw-description"), description)?;
        Cmd::new("openssl")
            .args(["cms", "-sign", "-nosmimecap", "-binary", "-outform", "DER", "-signer"])
            .args([&certificate])
            .arg("-inkey")
            .args([&key])
            .args(["-in", "sw-description", "-out", "sw-description.sig"])
            .current_dir(&dir)
            .run()?;
        // -L: the image itself, not the link to it.
        Cmd::new("cpio")
            .args(["-o", "-L", "-H", "crc", "--quiet", "-F", "image.swu"])
            .input("sw-description\nsw-description.sig\nos.zst\n")
            .current_dir(&dir)
            .run()?;
        let mut install: Vec<OsString> =
            ["-H", "bench:1.0", "-B", "none", "-m", "-M", "-k"].map(OsString::from).into();
        install.extend([certificate.into(), "-i".into(), dir.join("image.swu").into()]);
        let help = bench.peers.program("swupdate").arg("--help").finish()?.output();
        // Newer ones take plain RSA keys without it, and need a folder for their sockets.
        let newer = help.contains("--digest-provider");
        if newer {
            install.extend(["--digest-provider", "opensslCMS"].map(OsString::from));
        }
        let sockets = if newer { Sockets::make()? } else { None };
        Ok(Self { install, program: bench.peers.file("swupdate"), _sockets: sockets, device })
    }

    pub(super) fn install(&self) -> Cmd {
        Cmd::new(&self.program).args(&self.install)
    }
}

/// Where SWUpdate's sockets are: its package tells systemd to make that folder. Removed when dropped.
struct Sockets;

impl Sockets {
    const FOLDER: &str = "/run/swupdate";

    /// Nothing where the folder is there already.
    fn make() -> Result<Option<Self>> {
        if Path::new(Self::FOLDER).exists() {
            return Ok(None);
        }
        fs::create_dir(Self::FOLDER).with_context(|| format!("make {}", Self::FOLDER))?;
        Ok(Some(Self))
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(Self::FOLDER));
    }
}

/// RAUC's service on a message bus of its own.
pub(super) struct Rauc {
    bus: String,
    program: PathBuf,
    bundle: PathBuf,
    /// What its configuration names as the inactive slot.
    pub(super) device: PathBuf,
    // Ended in this order: the service before its bus.
    _service: Background,
    _daemon: Background,
}

const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:path=BUS</listen><policy context="default">
<allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/>
</policy></busconfig>"#;

impl Rauc {
    /// Makes the bundle if there is none and starts the service.
    pub(super) fn start(bench: &Bench) -> Result<Self> {
        let bundle = rauc_bundle(bench)?;
        let (certificate, _) = certificate(bench)?;
        let dir = bench.path("rauc");
        fs::create_dir_all(dir.join("mount"))?;
        let device = dir.join("device");
        let config = format!(
            "[system]\ncompatible=bench\nbootloader=noop\nstatusfile={0}/status\n\
             mountprefix={0}/mount\nbundle-formats=plain verity\n\
             [keyring]\npath={1}\n[slot.os.0]\ndevice={0}/device\ntype=ext4\nbootname=A\n\
             [slot.os.1]\ndevice={0}/booted\ntype=ext4\nbootname=B\n",
            dir.display(),
            certificate.display()
        );
        fs::write(dir.join("system.conf"), config)?;
        symlink("/dev/null", dir.join("booted"))?;
        let socket = dir.join("bus");
        fs::write(dir.join("bus.conf"), BUS.replace("BUS", &socket.to_string_lossy()))?;
        let log = dir.join("bus.log");
        let mut daemon = Command::new("dbus-daemon");
        daemon.arg("--nofork").arg("--config-file").arg(dir.join("bus.conf"));
        let daemon = Background::start(&mut daemon, &log)?.until(&log, || socket.exists())?;

        let bus = format!("unix:path={}", socket.display());
        let log = dir.join("service.log");
        let program = bench.peers.file("rauc");
        let mut service = Command::new(&program);
        service.arg("--conf").arg(dir.join("system.conf"));
        service.args(["--override-boot-slot=B", "service"]);
        service.env("DBUS_STARTER_BUS_TYPE", "session").env("DBUS_SESSION_BUS_ADDRESS", &bus);
        let rauc = Background::start(&mut service, &log)?;
        let up = || on_bus(Cmd::new(&program).arg("status"), &bus).run().is_ok();
        let service = rauc.until(&log, up)?;
        Ok(Self { bus, program, bundle, device, _service: service, _daemon: daemon })
    }

    /// Makes a bundle of v2 at `file`, which must not exist.
    pub(super) fn bundle(bench: &Bench, file: &Path) -> Result<Cmd> {
        let (certificate, key) = certificate(bench)?;
        let input = bench.path("rauc-input");
        if !input.exists() {
            fs::create_dir(&input)?;
            Cmd::new("cp")
                .arg("--sparse=always")
                .arg(&bench.v2)
                .arg(input.join("os.ext4"))
                .run()?;
            let manifest = "[update]\ncompatible=bench\nversion=2\n[image.os]\nfilename=os.ext4\n";
            fs::write(input.join("manifest.raucm"), manifest)?;
        }
        let cmd = bench.peers.program("rauc").arg("bundle").arg("--cert").arg(certificate);
        Ok(cmd.arg("--key").arg(key).arg(input).arg(file))
    }

    pub(super) fn install(&self) -> Cmd {
        on_bus(Cmd::new(&self.program).arg("install").arg(&self.bundle), &self.bus)
    }
}

fn on_bus(cmd: Cmd, bus: &str) -> Cmd {
    cmd.env("DBUS_STARTER_BUS_TYPE", "session").env("DBUS_SESSION_BUS_ADDRESS", bus)
}

/// The bundle of v2, signed; made once.
fn rauc_bundle(bench: &Bench) -> Result<PathBuf> {
    bench.prepare("v2.raucb", |part| bench.run(Rauc::bundle(bench, part)?, 400))
}

/// nginx on a folder, tuned as in the project's yardstick; over TLS 1.3 with this certificate and its key.
pub(super) fn nginx(
    bench: &Bench,
    root: &Path,
    tls: Option<[&Path; 2]>,
) -> Result<(Background, String)> {
    let address = free_address()?;
    let dir = bench.path(if tls.is_some() { "nginx-tls" } else { "nginx" });
    fs::create_dir_all(&dir)?;
    let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("{name}_temp_path {}/{name}; ", dir.display()))
        .collect();
    // As root it would change to a user who may not read the cache folder.
    let user = if racklet_tools::paths::is_root() { "user root;" } else { "" };
    let tls = tls.map_or_else(
        || format!("listen {address};"),
        |[certificate, key]| {
            let (certificate, key) = (certificate.display(), key.display());
            format!(
                "listen {address} ssl; ssl_protocols TLSv1.3; ssl_certificate {certificate}; \
                 ssl_certificate_key {key};"
            )
        },
    );
    let config = format!(
        "{user} worker_processes 2; daemon off; pid {0}/pid; error_log {0}/error.log;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; keepalive_requests 1000000; sendfile on; tcp_nopush on;\n\
         open_file_cache max=100; {temp}\n\
         server {{ {tls} root {1}; }} }}\n",
        dir.display(),
        root.display()
    );
    fs::write(dir.join("nginx.conf"), config)?;
    let log = dir.join("log");
    let mut command = Command::new(bench.peers.file("nginx"));
    command.arg("-c").arg(dir.join("nginx.conf")).arg("-e").arg(dir.join("error.log"));
    Ok((Background::start(&mut command, &log)?.until(&log, || answers(&address))?, address))
}

/// Debian's docker-registry on a folder, without an access log.
pub(super) fn docker_registry(bench: &Bench) -> Result<(Background, String)> {
    let address = free_address()?;
    let dir = bench.path("docker-registry");
    fs::create_dir_all(dir.join("data"))?;
    let config = format!(
        "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
         storage: {{filesystem: {{rootdirectory: {0}/data}}, cache: {{blobdescriptor: inmemory}}}}\n\
         http: {{addr: \"{address}\"}}\n",
        dir.display()
    );
    fs::write(dir.join("config.yml"), config)?;
    let log = dir.join("log");
    let mut command = Command::new(bench.peers.file("docker-registry"));
    command.arg("serve").arg(dir.join("config.yml"));
    Ok((Background::start(&mut command, &log)?.until(&log, || answers(&address))?, address))
}
