//! A node: a disk, a configuration, a state folder, and the boots that `boot-select` simulates.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use racklet_tools::cmd::{Cmd, Finished};
use racklet_tools::config;
use racklet_tools::debian::Images;
use racklet_tools::disk::{Disk, file_digest};
use racklet_tools::rig::Rig;
use serde_json::Value;

/// A node's configuration, in its folder.
const CONFIG: &str = "update-agent.toml";

const HEALTH_SH: &str = include_str!("health-of-slot.sh");

/// The hardware id that the demo's OS images are for.
pub(super) const HARDWARE: &str = "racklet-cu-v1";

/// Boots that an unconfirmed slot gets.
pub(super) const TRIES: u8 = 3;

/// One simulated machine.
pub(super) struct Node<'a> {
    rig: &'a Rig,
    /// Its folder in the demo's.
    name: String,
    dir: PathBuf,
    pub(super) disk: Disk,
}

impl<'a> Node<'a> {
    /// A machine as it leaves the factory: slot a holds `v1` and its firmware, confirmed; slot b
    /// is empty. `source` is its only repository; none for a machine without a network.
    pub(super) fn from_factory(
        rig: &'a Rig,
        name: &str,
        images: &Images,
        firmware: &std::path::Path,
        source: Option<&str>,
    ) -> Result<Self> {
        let dir = rig.path(name);
        fs::create_dir(&dir)?;
        let disk = Disk::create_aloud(&dir.join("disk.img"), images.size)?;
        disk.preinstall("root-a", &images.path("v1"))?;
        disk.preinstall("fw-a", firmware)?;
        disk.mark_confirmed("root-a")?;
        let health = dir.join("health-of-slot.sh");
        fs::write(&health, HEALTH_SH)?;
        let node = Self { rig, name: name.to_owned(), dir, disk };
        fs::write(node.dir.join(CONFIG), node.toml(images, source))?;
        let config = node.dir.join(CONFIG);
        rig.script(
            &format!("{name}/agent"),
            "update-agent",
            &["--config".as_ref(), config.as_os_str()],
        )?;
        Ok(node)
    }

    fn toml(&self, images: &Images, source: Option<&str>) -> String {
        let kind = if images.debian { "chroot" } else { "script" };
        let (health, cmdline) = (self.dir.join("health-of-slot.sh"), self.dir.join("cmdline"));
        let check = format!("[\"sh\", {health:?}, {:?}, {cmdline:?}, {kind:?}]", self.disk.path());
        let ca = self.rig.path("ca.pem");
        config::Node {
            state: &self.dir.join("state"),
            product: "demo",
            hardware: HARDWARE,
            identity: "",
            root: &self.rig.path("root.json"),
            source: source.map(|url| config::Source { url, ca: Some(&ca) }),
            disk: self.disk.path(),
            tries: TRIES,
            cmdline: &cmdline,
            boot_id: &self.dir.join("boot_id"),
            reboot: &self.dir.join("reboot-asked"),
            trial: ["6s", "1s"],
            check: ["slot", &check],
        }
        .text()
    }

    /// `update-agent` with this machine's configuration.
    pub(super) fn agent(&self) -> Cmd {
        self.rig.program("update-agent").arg("--config").arg(format!("{}/{CONFIG}", self.name))
    }

    /// Runs an agent command with `--json`, requires exit 0, and returns its document.
    pub(super) fn ask(&self, args: &[&str]) -> Result<Value> {
        self.agent().args(args).arg("--json").run()?.json()
    }

    /// Like [`Node::ask`], under `time`, for the peak memory in KiB beside the document.
    pub(super) fn measure(&self, args: &[&str]) -> Result<(Finished, Value, u64)> {
        let peak = self.dir.join("peak");
        let agent = self.agent().args(args).arg("--json");
        let done = agent.under("/usr/bin/time", &["-f", "%M", "-o"], &peak).run()?;
        let document = done.json()?;
        let text = fs::read_to_string(peak).context("/usr/bin/time wrote no figure")?;
        Ok((done, document, text.trim().parse()?))
    }

    /// One boot: the chooser picks a slot and spends a try; returns the slot's name.
    pub(super) fn boot(&self) -> Result<String> {
        let document = self.ask(&["boot-select", "--simulate"])?;
        let slot = text(&document, "slot")?;
        let cmdline = fs::read_to_string(self.dir.join("cmdline")).context("read the cmdline")?;
        ensure!(
            cmdline.split_whitespace().any(|word| word == format!("racklet.slot={slot}")),
            "boot-select chose {slot} but wrote the command line `{}`",
            cmdline.trim()
        );
        Ok(slot)
    }

    /// Whether a reboot was asked for since the last call.
    pub(super) fn reboot_was_asked(&self) -> bool {
        fs::remove_file(self.dir.join("reboot-asked")).is_ok()
    }

    /// Requires that a slot holds exactly these images, by SHA-256 of what lies on the disk.
    pub(super) fn expect_slot(
        &self,
        slot: &str,
        os: &std::path::Path,
        firmware: &std::path::Path,
    ) -> Result<()> {
        for (label, image) in [(format!("root-{slot}"), os), (format!("fw-{slot}"), firmware)] {
            let found = self.disk.digest(&label, fs::metadata(image)?.len())?;
            let wanted = file_digest(image)?;
            ensure!(found == wanted, "{label} holds {found}, the image is {wanted}");
        }
        Ok(())
    }
}

/// A text member of a JSON document.
pub(super) fn text(document: &Value, member: &str) -> Result<String> {
    let value = document.pointer(&format!("/{}", member.replace('.', "/")));
    value
        .and_then(Value::as_str)
        .map(str::to_string)
        .with_context(|| format!("no text `{member}` in {document}"))
}

/// A whole number in a JSON document.
pub(super) fn number(document: &Value, member: &str) -> Result<u64> {
    let value = document.pointer(&format!("/{}", member.replace('.', "/")));
    value.and_then(Value::as_u64).with_context(|| format!("no number `{member}` in {document}"))
}
