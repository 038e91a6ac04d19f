//! A node: a disk, a configuration, a state folder, and the boots that `boot-select` simulates.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use racklet_tools::config;
use serde_json::Value;

use super::disk::{CLEAR, Disk, SlotSizes, confirmed};
use super::must;
use super::programs::program;
use super::run::{Done, Run};
use super::world::{PRODUCT, Release, World};

/// The hardware id of the nodes here.
pub const HARDWARE: &str = "racklet-cu-v1";

/// Boots that an unconfirmed slot gets.
pub const TRIES: u8 = 3;

/// One simulated machine, in a folder of its own.
#[derive(Debug)]
pub struct Node {
    dir: PathBuf,
    /// Its disk.
    pub disk: Disk,
    /// Its agent, where that is not the one of this commit.
    other_agent: Mutex<Option<PathBuf>>,
}

impl Node {
    /// A machine as it leaves the factory: slot a holds `release`, confirmed and booted; slot b is
    /// empty. `source` is its only repository; empty for a machine without a network.
    #[track_caller]
    pub fn from_factory(world: &World, name: &str, release: &Release, source: &str) -> Self {
        Node::with_slots(world, name, release, source, SlotSizes::default())
    }

    /// [`Node::from_factory`] with slots of other sizes.
    #[track_caller]
    pub fn with_slots(
        world: &World,
        name: &str,
        release: &Release,
        source: &str,
        sizes: SlotSizes,
    ) -> Self {
        let dir = world.path(name);
        must(fs::create_dir(&dir), "make the node's folder");
        let disk = Disk::create(&dir.join("disk.img"), sizes);
        disk.preinstall("root-a", &release.os.bytes);
        disk.preinstall("fw-a", &release.firmware.bytes);
        disk.set_flags("root-a", confirmed(1));
        let node = Node { dir, disk, other_agent: Mutex::default() };
        must(fs::create_dir(node.path("sentinel")), "make the sentinel tree");
        must(fs::write(node.path("sentinel/file"), "not the agent's"), "write a sentinel");
        let os_release = format!("ID=debian\nIMAGE_VERSION={}\n", release.version);
        must(fs::write(node.path("os-release"), os_release), "write os-release");
        must(fs::write(node.config(), toml(world, &node, source)), "write the configuration");
        node.set_healthy(true);
        assert_eq!(node.boot(), "a", "the slot a factory's disk boots");
        node.disk.expect(confirmed(1), CLEAR);
        node
    }

    /// A path in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.path("update-agent.toml")
    }

    /// The agent's state folder.
    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// Changes the configuration; `from` must be in it exactly once.
    #[track_caller]
    pub fn reconfigure(&self, from: &str, to: &str) {
        let text = must(fs::read_to_string(self.config()), "read the configuration");
        assert_eq!(text.matches(from).count(), 1, "{from:?} in the configuration");
        must(fs::write(self.config(), text.replace(from, to)), "write the configuration");
    }

    /// `update-agent ARGS` with this machine's configuration and `--json`.
    #[track_caller]
    pub fn agent(&self, args: &[&str]) -> Run {
        self.agent_in_words(args).arg("--json")
    }

    /// Exchanges its agent from now on; `None` for the one of this commit.
    pub fn exchange_agent(&self, agent: Option<&Path>) {
        let mut kept = self.other_agent.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = agent.map(Path::to_path_buf);
    }

    /// `update-agent ARGS` as a person sees it.
    #[track_caller]
    pub fn agent_in_words(&self, args: &[&str]) -> Run {
        let other = self.other_agent.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let agent = other.map_or_else(|| program("update-agent"), Run::new);
        agent.arg("--config").arg(self.config()).args(args)
    }

    /// `update-agent apply ARGS`, which has to work; gives what it reports.
    #[track_caller]
    pub fn apply(&self, args: &[&str]) -> Value {
        self.agent(&["apply"]).args(args).ok().json()
    }

    /// `update-agent status`.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.agent(&["status"]).ok().json()
    }

    /// One boot: the chooser picks a slot and spends a try; gives the slot's name.
    #[track_caller]
    pub fn boot(&self) -> String {
        let document = self.agent(&["boot-select", "--simulate"]).ok().json();
        let slot = document["slot"].as_str().unwrap_or_default().to_owned();
        let cmdline = must(fs::read_to_string(self.path("cmdline")), "read the command line");
        let word = format!("racklet.slot={slot}");
        assert!(cmdline.split_whitespace().any(|found| found == word), "{slot}: {cmdline}");
        slot
    }

    /// One that runs 1.0.0 from its factory in slot a, and has 1.1.0 next in slot b.
    #[track_caller]
    pub fn with_next(world: &World) -> Self {
        let v1 = world.publish_stable("1.0.0", 1);
        let node = Node::from_factory(world, "node", &v1, &world.repository().reference());
        world.publish_stable("1.1.0", 2);
        node.apply(&[]);
        node
    }

    /// What the daemon does after a boot and at each poll.
    #[track_caller]
    pub fn run_once(&self) -> Done {
        self.agent(&["run", "--once"]).finish()
    }

    /// Whether the booted system passes its health check from now on.
    #[track_caller]
    pub fn set_healthy(&self, healthy: bool) {
        let file = self.path("healthy");
        let _absent = fs::remove_file(&file);
        if healthy {
            must(fs::write(&file, ""), "make the node healthy");
        }
    }

    /// Whether a reboot was asked for since the last call.
    pub fn reboot_was_asked(&self) -> bool {
        fs::remove_file(self.path("reboot-asked")).is_ok()
    }

    /// Requires that a slot holds exactly these images, by what lies on the disk.
    #[track_caller]
    pub fn expect_slot(&self, slot: &str, release: &Release) {
        for (kind, image) in [("root", &release.os), ("fw", &release.firmware)] {
            let label = format!("{kind}-{slot}");
            let found = self.disk.content(&label, image.size());
            assert!(found == image.bytes, "{label} does not hold {}", release.version);
        }
    }

    /// Carries an update from apply over the boot to the confirmed slot.
    #[track_caller]
    pub fn update(&self, args: &[&str], slot: &str) -> Value {
        let report = self.apply(args);
        assert_eq!(report["slot"], slot, "the slot that was written: {report}");
        assert_eq!(self.boot(), slot, "the slot on trial");
        let done = self.run_once().exits(formats::reason::Exit::Done).json();
        assert_eq!(done["did"], "confirmed", "{done}");
        report
    }
}

fn toml(world: &World, node: &Node, source: &str) -> String {
    let ca = world.path("ca.pem");
    let with_ca = ca.exists() && source.starts_with("docker:");
    let check = format!("[\"test\", \"-e\", {:?}]", node.path("healthy"));
    config::Node {
        state: Path::new("state"),
        product: PRODUCT,
        hardware: HARDWARE,
        identity: "id = \"node-1\"\nos_release = \"os-release\"\n",
        root: &world.path("root.json"),
        source: (!source.is_empty())
            .then(|| config::Source { url: source, ca: with_ca.then_some(ca.as_path()) }),
        disk: Path::new("disk.img"),
        tries: TRIES,
        cmdline: Path::new("cmdline"),
        boot_id: Path::new("boot_id"),
        reboot: &node.path("reboot-asked"),
        trial: ["600ms", "100ms"],
        check: ["web", &check],
    }
    .text()
}
