//! The story itself, from keys to revert.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use racklet_tools::cmd::Cmd;
use racklet_tools::debian::Images;
use racklet_tools::disk::Flags;
use racklet_tools::rig::{Rig, Server, blob_name, image};
use racklet_tools::show;
use serde_json::Value;

use super::next;
use super::node::{HARDWARE, Node, TRIES, number, text};
use super::story::{Story, Told};

/// The bundle, in the demo's folder.
const STICK: &str = "usb.tar";

/// No bit set: not bootable.
const CLEAR: Flags = Flags { priority: 0, tries: 0, successful: false };

/// A confirmed slot of this priority.
const fn confirmed(priority: u8) -> Flags {
    Flags { priority, tries: 0, successful: true }
}

/// A slot on trial, chosen before a confirmed one.
const fn trial(tries: u8) -> Flags {
    Flags { priority: 2, tries, successful: false }
}

/// Plays everything after the preparations.
pub(super) fn play(
    story: &mut Story,
    rig: &Rig,
    images: &Images,
    firmware: &[PathBuf; 2],
) -> Result<()> {
    let mut server = None;
    story.step(
        "repo-server on loopback, with TLS and a push token",
        "less than a second",
        || {
            rig.credentials()?;
            let started = rig.serve()?;
            next::scripts(rig, &started)?;
            let told = Told::line(format!("listening on https://{}", started.address));
            server = Some(started);
            Ok(told)
        },
    )?;
    let server = server.expect("the step above succeeded");
    let publisher = Publisher { rig, server: &server };

    story
        .step("fresh keys and a first repository: signer init", "a second", || publisher.init())?;
    story.step("publish 1.0.0 (v1)", "20 seconds", || publisher.publish("1.0.0", "v1", 0))?;
    story.step("publish 1.1.0 (v2, security updates), on channel stable", "20 seconds", || {
        publisher.publish("1.1.0", "v2", 1)
    })?;
    story.step("bundle 1.1.0 for a USB stick", "5 seconds", || publisher.bundle("1.1.0"))?;

    let mut first = None;
    story.step("node 1 leaves the factory with v1 in slot a", "ten seconds", || {
        let reference = server.reference();
        let node = Node::from_factory(rig, "node-1", images, &firmware[0], Some(&reference))?;
        let told = factory(&node)?;
        first = Some(node);
        Ok(told)
    })?;
    let node = first.expect("the step above succeeded");

    story.step("node 1: check and plan", "a second", || check_and_plan(&node, "1.1.0"))?;
    story.step("node 1: apply v1 → v2 over the network", "ten seconds", || {
        apply(&node, &["apply"], "b", &images.path("v2"), &firmware[1])
    })?;
    story.step("node 1: boot-select chooses the new slot", "less than a second", || {
        first_trial_boot(&node, "b")
    })?;
    story.step("node 1: v2's own health checks pass; confirm", "a few seconds", || {
        confirm(&node)?;
        node.disk.expect(confirmed(1), confirmed(2))?;
        slots(&node, "health checks from the slot's own file system passed; confirmed")
    })?;
    story.step("node 1: nothing more to do", "less than a second", || {
        let done = node.agent().args(["check", "--json"]).finish()?.expect(1)?;
        Ok(Told::line(format!("check exits 1: {}", done.stdout.trim())))
    })?;

    story.step("publish 1.2.0 (v3, broken), on channel stable", "20 seconds", || {
        publisher.publish("1.2.0", "v3", 1)
    })?;
    story.step("node 1: apply v2 → v3", "ten seconds", || {
        apply(&node, &["apply"], "a", &images.path("v3"), &firmware[1])
    })?;
    story.step("node 1: three boots fail, the fourth is the old system", "20 seconds", || {
        revert(&node)
    })?;
    story.step("node 1: says why, and does not try v3 again", "a second", || {
        remembers(&node, "1.2.0")
    })?;

    story.step("the server stops", "less than a second", || {
        server.stop()?;
        Ok(Told::line("no program listens any more"))
    })?;
    story.step("node 2, no network: apply the bundle from the stick", "20 seconds", || {
        let node = Node::from_factory(rig, "node-2", images, &firmware[0], None)?;
        factory(&node)?;
        let told = apply(&node, &["apply", STICK], "b", &images.path("v2"), &firmware[1])?;
        first_trial_boot(&node, "b")?;
        confirm(&node)?;
        node.disk.expect(confirmed(1), confirmed(2))?;
        told.slots_of(&node)
    })?;
    story.step("what to try next: the lines that change nothing", "a second", || next::check(rig))
}

/// The maintainer's side.
struct Publisher<'a> {
    rig: &'a Rig,
    server: &'a Server,
}

impl Publisher<'_> {
    /// `signer COMMAND` against the demo's repository and keys.
    fn signer(&self, command: &str) -> Cmd {
        self.rig
            .program("signer")
            .arg(command)
            .args(["--repo", &self.server.reference(), "--json", "--keys", "keys"])
            .args(["--ca", "ca.pem", "--token-file", "push-token"])
    }

    fn init(&self) -> Result<Told> {
        self.signer("init").run()?;
        // The node's trust root travels with its image, not over the network.
        fs::copy(self.rig.path("keys/root.json"), self.rig.path("root.json"))
            .context("signer init leaves the trust root in the folder of the keys")?;
        let mut keys = 0;
        for entry in fs::read_dir(self.rig.path("keys"))? {
            let meta = entry?.metadata()?;
            let mode = std::os::unix::fs::PermissionsExt::mode(&meta.permissions());
            keys += usize::from(mode & 0o777 == 0o600);
        }
        Ok(Told::line(format!("{keys} files only their owner can read")))
    }

    fn publish(&self, version: &str, system: &str, firmware: usize) -> Result<Told> {
        let os = format!("os={},hw={HARDWARE}", image(system));
        let firmware = format!("firmware={},hw={HARDWARE}", blob_name(firmware));
        let done = self
            .signer("publish")
            .args(["--product", "demo", "--version", version, "--channel", "stable"])
            .args(["--component", &os, "--component", &firmware])
            .run()?;
        let report = done.json()?;
        let told = Told::line(format!("release index {}", text(&report, "index")?));
        Ok(told.bytes(blob_bytes(&report)?).took(done.took))
    }

    fn bundle(&self, version: &str) -> Result<Told> {
        let done = self
            .signer("bundle")
            .args(["--product", "demo", "--version", version, "-o", STICK])
            .run()?;
        let size = fs::metadata(self.rig.path(STICK))?.len();
        Ok(Told::line("one tar file, an OCI image layout").bytes(size).took(done.took))
    }
}

fn factory(node: &Node<'_>) -> Result<Told> {
    node.disk.expect(confirmed(1), CLEAR)?;
    let slot = node.boot()?;
    ensure!(slot == "a", "the factory's disk boots slot {slot}");
    node.disk.expect(confirmed(1), CLEAR)?;
    slots(node, "boot-select picks a; sgdisk and cgpt find both tables valid")
}

fn check_and_plan(node: &Node<'_>, version: &str) -> Result<Told> {
    let check = node.ask(&["check"])?;
    ensure!(check.to_string().contains(version), "check does not offer {version}: {check}");
    let plan = node.ask(&["plan"])?;
    ensure!(plan.to_string().contains(version), "plan is not about {version}: {plan}");
    node.disk.expect(confirmed(1), CLEAR)?;
    Ok(Told::line(format!("{version} is offered; nothing on the disk changed")))
}

/// Applies, then requires: the other slot holds the images, this one is as it was, one trial is
/// set up, both tables are valid.
fn apply(node: &Node<'_>, args: &[&str], slot: &str, os: &Path, firmware: &Path) -> Result<Told> {
    let booted = if slot == "a" { "b" } else { "a" };
    let (_, size) = node.disk.extent(&format!("root-{booted}"))?;
    let before = node.disk.digest(&format!("root-{booted}"), size)?;
    let (done, report, peak) = node.measure(args)?;
    let after = node.disk.digest(&format!("root-{booted}"), size)?;
    ensure!(before == after, "apply changed the booted slot {booted}");
    node.expect_slot(slot, os, firmware)?;
    match slot {
        "a" => node.disk.expect(trial(TRIES), confirmed(1))?,
        _ => node.disk.expect(confirmed(1), trial(TRIES))?,
    }
    let fetched = number(&report, "fetched")?;
    let line = format!(
        "slot {slot} holds the image byte for byte, slot {booted} is untouched; peak memory {}",
        show::bytes(peak << 10)
    );
    Ok(slots(node, &line)?.bytes(fetched).took(done.took))
}

fn first_trial_boot(node: &Node<'_>, slot: &str) -> Result<Told> {
    let chosen = node.boot()?;
    ensure!(chosen == slot, "boot-select chose {chosen}, not the trial in {slot}");
    let flags = node.disk.flags(&format!("root-{slot}"))?;
    ensure!(flags == trial(TRIES - 1), "one try should be spent: {flags}");
    node.disk.tables_valid()?;
    slots(node, &format!("slot {slot}, one try spent"))
}

/// What the daemon does after a boot: the trial's checks, then confirm.
fn after_boot(node: &Node<'_>) -> Result<racklet_tools::cmd::Finished> {
    node.agent().args(["run", "--once", "--json"]).finish()
}

fn confirm(node: &Node<'_>) -> Result<()> {
    after_boot(node)?.expect(0)?;
    ensure!(!node.reboot_was_asked(), "a healthy system asked for a reboot");
    Ok(())
}

fn revert(node: &Node<'_>) -> Result<Told> {
    let mut line = String::new();
    for left in (0..TRIES).rev() {
        let slot = node.boot()?;
        ensure!(slot == "a", "boot-select chose {slot} while slot a has tries");
        let flags = node.disk.flags("root-a")?;
        ensure!(flags == trial(left), "tries are not counted: {flags}");
        let done = after_boot(node)?;
        ensure!(node.reboot_was_asked(), "unhealthy, but no reboot asked:\n{}", done.output());
        line.push_str(&format!("boot of a fails its health check, {left} tries left\n"));
    }
    let slot = node.boot()?;
    ensure!(slot == "b", "tries are used up, but boot-select chose {slot}");
    node.disk.tables_valid()?;
    after_boot(node)?;
    ensure!(!node.reboot_was_asked(), "the old system asked for a reboot");
    let flags = node.disk.flags("root-b")?;
    ensure!(flags.successful, "slot b is no longer confirmed: {flags}");
    line.push_str("boot of b: reverted to the confirmed system");
    slots(node, &line)
}

fn remembers(node: &Node<'_>, version: &str) -> Result<Told> {
    let status = node.ask(&["status"])?;
    let failure = failure_of(&status, version)
        .with_context(|| format!("status does not tell that {version} failed: {status}"))?;
    let (a, b) = (node.disk.flags("root-a")?, node.disk.flags("root-b")?);
    let done = node.agent().args(["apply", "--json"]).finish()?;
    ensure!(
        (node.disk.flags("root-a")?, node.disk.flags("root-b")?) == (a, b),
        "apply changed the boot attributes for a release that failed before"
    );
    let answer = done.output().trim().to_string();
    Ok(Told::line(format!("status: {failure}\napply again exits {}: {answer}", done.code)))
}

/// The recorded failure of a release, wherever `status` tells it.
fn failure_of(status: &Value, version: &str) -> Option<String> {
    let failures = status.get("failures")?.as_array()?;
    let failure = failures.iter().find(|failure| failure.to_string().contains(version))?;
    Some(failure.to_string())
}

/// A line, and the state of the slots as `cgpt` tells it.
fn slots(node: &Node<'_>, line: &str) -> Result<Told> {
    Told::line(line).slots_of(node)
}

impl Told {
    fn slots_of(self, node: &Node<'_>) -> Result<Self> {
        let (a, b) = (node.disk.flags("root-a")?, node.disk.flags("root-b")?);
        let line = format!("{}\ncgpt: root-a {a}; root-b {b}", self.line);
        Ok(Self { line, ..self }.slots(format!("a {}, b {}", a.word(), b.word())))
    }
}

/// Compressed size of all images of a publish.
fn blob_bytes(report: &Value) -> Result<u64> {
    let components = report["components"].as_array().context("no components in the report")?;
    components.iter().map(|component| number(component, "blob_size")).sum()
}
