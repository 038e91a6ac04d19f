//! A rack: five nodes and the flash of one BMC, updated by one `repo-server`.
//!
//! | round | published | node 1 | node 2 | node 3 | node 4 | node 5 and its BMC |
//! |---|---|---|---|---|---|---|
//! | – | 1.0.0 | factory | factory | factory | factory | factory |
//! | 1 | 1.1.0 | 1.1.0 | off | 1.1.0 | off | 1.1.0, bank b |
//! | 2 | 1.2.0, broken on node 3 | off | 1.2.0 | back on 1.1.0 | off | 1.2.0, bank a |
//! | 3 | two new roots, 1.3.0 | 1.3.0 | 1.3.0 | 1.3.0 | 1.3.0, over the roots | 1.3.0, bank b |
//!
//! Nobody tells a node what to do: it is switched on, its agent polls, writes, restarts, confirms.
//!
//! Every node reports to the server. Before round 1, node 4 is switched on once, and reports 1.0.0. After round 2 the
//! channel gets a wave that begins tomorrow, and node 1 is switched on: it waits. Then the server, three hours later
//! by its clock, has to show each node as its own `status` does: node 4 silent, node 3 reverted, node 1 waiting. The
//! pages are read in Chromium, and their pictures kept beside the logs.
//!
//! In the mixed rack each release also has an image for ARMv8, in the same index. After round 2 an ARMv8 board with
//! U-Boot gets bundles of these releases: 1.1.0, which it keeps, and 1.2.0, which panics there and is reverted.

mod fleet;
mod pages;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use racklet_tools::browser;
use racklet_tools::cmd::Cmd;
use racklet_tools::rig::{self, Rig, Server, serve_arguments};
use serde_json::Value;

use super::Cell;
use super::loaders::{UBOOT_ARM, cycle_to};
use super::machine::{DISK, Machine};
use super::small::{Lab, Node, Release, in_pairs};
use super::world::{PRODUCT, World};

pub(super) const CELLS: &[Cell] = &[
    Cell::new("rack", "each agent's status; Chromium, cgpt, cmp", |world, dir| {
        rack(world, dir, None)
    }),
    Cell::new("arm-mixed-rack", "the same; U-Boot 2023.01, fw_printenv", |world, dir| {
        let arm = world.arm_beside(dir)?;
        rack(world, dir, Some(&arm))
    }),
];

/// Where the guests see the server.
const SEEN: &str = "10.0.2.100";
const PORT: u16 = 5443;
/// Bytes of a bank.
const BANK: u64 = 1 << 20;

/// What every node does before its agent starts.
const NETWORK: &str = "for m in failover net_failover virtio_net; do insmod /lib/modules/$m.ko; done\n\
    ip link set lo up\nip link set eth0 up\nip addr add 10.0.2.15/24 dev eth0\n";
/// What the one beside the BMC does, too: its flash is on two disks.
const FLASH: &str = "for m in mtd block2mtd; do insmod /lib/modules/$m.ko; done\n\
    for d in vdb,65536,bmc-a vdc,65536,bmc-b; do\n\
    echo /dev/$d >/sys/module/block2mtd/parameters/block2mtd\ndone\n";

/// One of the five.
struct Member {
    name: &'static str,
    dir: PathBuf,
    flash: bool,
}

/// With an ARMv8 board beside the others, or without.
fn rack(world: &World, dir: &Path, arm: Option<&World>) -> Result<String> {
    browser::is_there()?;
    let rig = Rig::at(dir, world.server_dir());
    rig.credentials_for(&["127.0.0.1", SEEN])?;
    fs::create_dir(dir.join("repository"))?;
    let serve = || rig.program("repo-server").args(serve_arguments("127.0.0.1:0"));
    let server = rig.serve_by(serve().args(["--fleet", fleet::DIR]))?;
    let behind = ["--repo", &server.reference(), "--ca"].map(str::to_owned);
    let mut behind = behind.to_vec();
    behind.push(dir.join("ca.pem").display().to_string());
    behind.extend(["--token-file".to_owned(), dir.join("push-token").display().to_string()]);
    let lab = Lab::new(world, dir, Some(behind))?;
    let bmc = |version: &str| dir.join(format!("bmc-{version}.bin"));
    let publish = |version: &str, broken: &str| -> Result<()> {
        // Not the same in any block: what a bank holds must be of one release.
        let line = format!("firmware {version}\0");
        fs::write(bmc(version), line.repeat(700_000 / line.len()))?;
        let component = format!("bmc={},hw=bmc-x1", bmc(version).display());
        let breaks = [("etc/breaks", broken)];
        let files = if broken.is_empty() { &[][..] } else { &breaks[..] };
        let mut options = vec!["--channel", "stable", "--component", &component];
        let image = dir.join(format!("os-arm-{version}.img"));
        let other;
        if let Some(arm) = arm {
            arm.image(version, if broken.is_empty() { "ok" } else { "panic" }, &image)?;
            other = format!("os={},hw={}", image.display(), arm.tools.platform.hardware);
            options.extend(["--component", &other]);
        }
        lab.publish(&Release { version, files, options: &options })
    };
    publish("1.0.0", "")?;
    let members: Vec<Member> = ["n1", "n2", "n3", "n4", "n5"]
        .into_iter()
        .map(|name| Member { name, dir: dir.join(name), flash: name == "n5" })
        .collect();
    for member in &members {
        member.make(&lab, &bmc("1.0.0"))?;
    }
    let round = |names: &[&str], version: &str| -> Result<()> {
        let queue: Vec<&Member> = members.iter().filter(|one| names.contains(&one.name)).collect();
        in_pairs(queue, &|member: &Member| {
            member.update(&lab, &server, version).with_context(|| member.name)
        })
    };
    let only = |name: &str, version: &str, says: &str| -> Result<()> {
        let member = members.iter().find(|one| one.name == name).context("a member")?;
        member.look(&lab, &server, version, says).with_context(|| member.name)
    };
    only("n4", "1.0.0", "\"did\":\"")?;
    let mut updates = 0;
    let mut all = |names: &[&str], version: &str| {
        updates += names.len();
        round(names, version)
    };
    publish("1.1.0", "")?;
    all(&["n5", "n1", "n3"], "1.1.0")?;
    publish("1.2.0", "n3\n")?;
    all(&["n3", "n5", "n2"], "1.2.0")?;
    let channel = |options: &[&str]| -> Result<()> {
        let set = lab.signer(&["channel", "set", "--product", PRODUCT, "--channel", "stable"]);
        set.args(options).run().map(drop)
    };
    channel(&["--wave", "100%@+1d"])?;
    only("n1", "1.1.0", "its wave (100 %) begins")?;
    let sentence = seen(&rig, serve(), &members)?;
    channel(&["--clear-waves"])?;
    let board = arm.map(|arm| {
        let dir = dir.join("arm");
        fs::create_dir(&dir)?;
        cycle_to(arm, &dir, &UBOOT_ARM, "1.2.0")
    });
    let board = board.transpose()?;
    for name in ["second", "third"] {
        let key = dir.join(name);
        Cmd::new(world.signer_file()).args(["key", "new", "--out"]).arg(&key).run()?;
        let key = key.with_extension("pub").display().to_string();
        lab.signer(&["rotate", "--role", "root", "--add", &key]).run()?;
    }
    publish("1.3.0", "")?;
    all(&["n5", "n4", "n3", "n1", "n2"], "1.3.0")?;
    for member in &members {
        member.ends_on("1.3.0", &bmc("1.3.0"))?;
    }
    server.stop()?;
    let board = board.map_or_else(String::new, |saw| format!("; an ARMv8 board: {saw}"));
    Ok(format!(
        "{updates} updates over TLS, 1 reverted by itself, 1 from 1.0.0 over 2 new roots; the page: \
         {sentence:?}{board}"
    ))
}

/// What the pages say three hours later: the node with the short interval, that between two polls, is overdue.
fn seen(rig: &Rig, serve: Cmd, members: &[Member]) -> Result<String> {
    let row = |name, state, release, runs, code| {
        let silent = name == "n4";
        fleet::Expected { name, state, release, runs, code, silent }
    };
    let expected = [
        row("n1", "waiting", "1.2.0", "1.1.0", Some("wave")),
        row("n2", "confirmed", "1.2.0", "1.2.0", None),
        row("n3", "reverted", "1.2.0", "1.1.0", Some("unhealthy")),
        row("n4", "confirmed", "1.0.0", "1.0.0", None),
        row("n5", "confirmed", "1.2.0", "1.2.0", None),
    ];
    fleet::approve(rig, expected.len())?;
    // The other one writes the repository.
    let later = serve.args(["--read-only", "--fleet", fleet::DIR]).env("FAKETIME", "+3h");
    let server = rig.serve_by(later.env("LD_PRELOAD", rig::clock()))?;
    let status = |name: &str| {
        let member = members.iter().find(|one| one.name == name).context("a member")?;
        let said = fs::read_to_string(member.dir.join("status.json"))?;
        serde_json::from_str(&said).context("its status")
    };
    let sentence = fleet::compare(rig, &server, &expected, &status)?;
    server.stop()?;
    Ok(sentence)
}

impl Member {
    fn disk(&self) -> PathBuf {
        self.dir.join("disk.img")
    }

    fn bank(&self, slot: &str) -> PathBuf {
        self.dir.join(format!("bank-{slot}.img"))
    }

    /// As it leaves the factory.
    fn make(&self, lab: &Lab<'_>, bmc: &Path) -> Result<()> {
        fs::create_dir(&self.dir)?;
        let more = format!(
            "[[source]]\nurl = \"docker://{SEEN}:{PORT}/racklet\"\nca = \"ca.pem\"\nreports = true\n\
             [policy]\nmode = \"auto\"\n[reports]\nname = \"{}\"\ninterval = \"{}\"\n",
            self.name,
            if self.name == "n4" { "1m" } else { "12h" },
        );
        let ca = fs::read_to_string(lab.dir.join("ca.pem"))?;
        let setup = if self.flash { format!("{NETWORK}{FLASH}") } else { NETWORK.to_owned() };
        let files = [("ca.pem", &*ca), ("setup.sh", &*setup), ("name", self.name)];
        let mut node = Node { more: &more, files: &files, ..Node::default() };
        if self.flash {
            node.hardware = "\"vm-q35\", \"bmc-x1\"";
            node.slots =
                ["bmc = { device = \"/dev/mtd0\" }\n", "bmc = { device = \"/dev/mtd1\" }\n"];
            let mut bank = fs::read(bmc)?;
            bank.resize(BANK as usize, 0xff);
            fs::write(self.bank("a"), bank)?;
            fs::write(self.bank("b"), vec![0xff; BANK as usize])?;
        }
        lab.disk(&self.disk(), "1.0.0", &node)
    }

    /// Switches it on; the log is named after `what`.
    fn start(&self, lab: &Lab<'_>, server: &Server, what: &str) -> Result<Machine> {
        let busybox = lab.world.tools.file("bin/busybox");
        let port = server.address.rsplit(':').next().unwrap_or_default();
        let forward = format!(
            "user,id=n,restrict=on,guestfwd=tcp:{SEEN}:{PORT}-cmd:{} nc 127.0.0.1 {port}",
            busybox.display()
        );
        let mut arguments = lab.board(None)?;
        let mut drive = |name: &str, file: &Path| {
            let drive = DISK.replace("id=d0", &format!("id={name}"));
            arguments.extend(["-drive".to_owned(), format!("{drive}{}", file.display())]);
            if name != "d0" {
                let device = format!("virtio-blk-pci,drive={name}");
                arguments.extend(["-device".to_owned(), device]);
            }
        };
        drive("d0", &self.disk());
        if self.flash {
            drive("d1", &self.bank("a"));
            drive("d2", &self.bank("b"));
        }
        arguments.extend(["-netdev".to_owned(), forward]);
        arguments.extend(["-device", "virtio-net-pci,netdev=n,romfile="].map(str::to_owned));
        let log = self.dir.join(format!("{what}.log"));
        lab.start(arguments, 180, &log)
    }

    /// Switches it on and waits until its agent, which has nothing to write, says `says`.
    fn look(&self, lab: &Lab<'_>, server: &Server, version: &str, says: &str) -> Result<()> {
        let mut machine = self.start(lab, server, &format!("{version}-again"))?;
        machine.expect(says)?;
        machine.expect(&format!("version={version}"))?;
        self.keep_status(&mut machine)?;
        Ok(())
    }

    /// What the node says of itself, kept for the comparison with what the server shows.
    fn keep_status(&self, machine: &mut Machine) -> Result<Value> {
        let said = machine.ok("agent status --json")?;
        fs::write(self.dir.join("status.json"), said.trim())?;
        serde_json::from_str(said.trim()).context("its status")
    }

    /// Switches it on and waits until it runs what it should.
    fn update(&self, lab: &Lab<'_>, server: &Server, version: &str) -> Result<()> {
        let broken = self.name == "n3" && version == "1.2.0";
        let mut machine = self.start(lab, server, version)?;
        machine.expect(&format!("{version} verified, on trial, 1 tries left"))?;
        let ready = if broken {
            machine.expect(&format!("{version} verified, on trial, 0 tries left"))?;
            machine.expect("\"did\":\"reverted\"")?;
            machine.expect("@@ready slot=b version=1.1.0")?
        } else {
            machine.expect("\"did\":\"confirmed\"")?;
            machine.expect(&format!("version={version}"))?
        };
        let status = self.keep_status(&mut machine)?;
        let slot = status["booted"].as_str().unwrap_or_default();
        let runs = &status["slots"][slot];
        let wanted = if broken { "1.1.0" } else { version };
        let well = runs["version"] == wanted && runs["confirmed"] == true;
        ensure!(well && ready.contains(&format!("slot={slot}")), "after {ready:?}: {status:#}");
        let failed = status["failures"].as_array().map_or(0, Vec::len);
        // A node remembers what failed on it.
        let ever = self.name == "n3" && version != "1.1.0";
        ensure!(failed == usize::from(ever), "failures at {version}: {status:#}");
        if version == "1.3.0" {
            ensure!(status["metadata"]["root"] == 3, "its root: {status:#}");
        }
        fs::write(self.dir.join("slot"), slot)?;
        Ok(())
    }

    /// The disk and the flash, by other people's eyes; then they are of no use any more.
    fn ends_on(&self, version: &str, bmc: &Path) -> Result<()> {
        let slot = fs::read_to_string(self.dir.join("slot"))?;
        let number = if slot == "a" { "1" } else { "2" };
        for (option, expected) in [("-S", "1"), ("-P", "2"), ("-T", "0")] {
            let show = ["show", "-i", number, option];
            let found = Cmd::new("cgpt").args(show).arg(self.disk()).read()?;
            let where_ = format!("{}: {version} is in slot {slot}", self.name);
            ensure!(found.trim() == expected, "{where_}; cgpt show {option}: {found}");
        }
        if self.flash {
            let len = fs::metadata(bmc)?.len().to_string();
            Cmd::new("cmp").args(["-n", &len]).arg(bmc).arg(self.bank(&slot)).run()?;
            fs::remove_file(self.bank("a"))?;
            fs::remove_file(self.bank("b"))?;
        }
        fs::remove_file(self.disk())?;
        Ok(())
    }
}
