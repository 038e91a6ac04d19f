//! `docs/runbooks/roll-out.md` with a fleet: at each step, exactly those nodes install whose wave has
//! begun.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;

use formats::digest::Sha256;
use formats::reason::Exit;
use racklet_tests::rig::{Done, Image, Node, Release, Run, SlotSizes, World, program, tool};
use serde_json::Value;
use update_core::policy::wave_of;

/// Later than the real clock by nothing; everything else is in minutes, `faketime` takes one unit.
const NOW: &str = "+0";

/// Nodes of the fleet.
const NODES: usize = 24;

/// 2 MiB and 1 MiB: the runbook's images have one.
const SLOTS: SlotSizes = SlotSizes { root: 4096, firmware: 2048 };

/// A repository with the people of the other runbooks, and who follows it.
struct Fleet {
    world: World,
    nodes: Vec<(String, Node)>,
}

impl Fleet {
    fn new() -> Self {
        let world = World::empty();
        let people = "signer key new --out dave/targets\nsigner key new --out erin/targets\n\
                      signer init --repo oci:repository --keys online --targets-keys \
                      dave/targets.pub,erin/targets.pub --targets-threshold 2";
        let _done = shell(&world, NOW, people);
        fs::copy(world.path("online/root.json"), world.path("root.json")).expect("copy the root");
        // Not from the repository: the factory's images need not be anybody's.
        let image = |name: &str| Image::write(&world.path(name), vec![7; 64 << 10]);
        let factory = Release {
            version: "1.0.0".to_owned(),
            os: image("os-factory.img"),
            firmware: image("fw-factory.img"),
        };
        let source = world.repository().reference();
        let nodes = (1..=NODES).map(|number| {
            let id = format!("node-{number:02}");
            let node = Node::with_slots(&world, &id, &factory, &source, SLOTS);
            node.reconfigure("id = \"node-1\"", &format!("id = {id:?}"));
            node.reconfigure("mode = \"notify\"", "mode = \"auto\"");
            // Every trial here passes; however slow the machine is, it may.
            node.reconfigure("deadline = \"600ms\"", "deadline = \"30s\"");
            node.reconfigure("interval = \"100ms\"", "interval = \"10ms\"");
            for slot in ["a", "b"] {
                node.reconfigure(&format!("firmware = \"fw-{slot}\"\n"), "");
            }
            (id, node)
        });
        let nodes = nodes.collect();
        Fleet { world, nodes }
    }

    /// One round of every node's daemon, that much later, and the restarts it asks for: the ids of
    /// those that now run another release, confirmed.
    fn poll(&self, later: &str) -> BTreeSet<String> {
        // Their health checks wait; the machine need not.
        let quarter = self.nodes.len().div_ceil(4);
        thread::scope(|scope| {
            let parts = self.nodes.chunks(quarter);
            let parts: Vec<_> = parts.map(|part| scope.spawn(|| poll_each(part, later))).collect();
            parts.into_iter().flat_map(|part| part.join().expect("a part of the fleet")).collect()
        })
    }

    /// What every node's `check` decides, that much later.
    fn decisions(&self, later: &str) -> Vec<(String, Value)> {
        let check = |node: &Node| node.agent(&["check"]).under(at(later)).finish().json();
        self.nodes.iter().map(|(id, node)| (id.clone(), check(node))).collect()
    }

    /// Nodes whose wave is at most that one, by their ids and the signed digest alone.
    fn up_to(&self, percent: u8, release: Sha256) -> BTreeSet<String> {
        let ids = self.nodes.iter().map(|(id, _)| id.clone());
        ids.filter(|id| wave_of(id, release) <= percent).collect()
    }

    fn channel(&self, later: &str) -> Value {
        let show =
            "signer channel show oci:repository --keys online --product demo --channel stable";
        shell(&self.world, later, &format!("{show} --json")).json()
    }

    /// What the channel offers.
    fn index(&self, later: &str) -> Sha256 {
        let channel = self.channel(later);
        let index = channel["index"].as_str().and_then(|text| text.strip_prefix("sha256:"));
        index.and_then(|hex| Sha256::from_hex(hex).ok()).expect("the channel offers a release")
    }
}

fn poll_each(nodes: &[(String, Node)], later: &str) -> Vec<String> {
    let run = |node: &Node| {
        node.agent(&["run", "--once"]).under(at(later)).finish().exits(Exit::Done).json()
    };
    let mut updated = Vec::new();
    for (id, node) in nodes {
        let did = run(node);
        if node.reboot_was_asked() {
            assert_eq!(did["did"], "applied", "{id}: {did}");
            let _slot = node.boot();
            assert_eq!(run(node)["did"], "confirmed", "{id}");
            updated.push(id.clone());
        }
    }
    updated
}

fn at(later: &str) -> Run {
    tool("faketime", "faketime").args(["-f", later])
}

/// Commands in the world's folder, that much later; each has to work.
fn shell(world: &World, later: &str, script: &str) -> Done {
    let _built = program("signer");
    let _there = tool("faketime", "faketime");
    let programs = std::env::current_exe().expect("where this test is");
    let programs = programs.ancestors().nth(2).expect("target/<profile>/deps/<test>").to_owned();
    let path = std::env::var("PATH").unwrap_or_default();
    Run::new("env")
        .arg("-C")
        .arg(world.dir())
        .args(["faketime", "-f", later, "sh", "-eu", "-c", script])
        .env("PATH", format!("{}:{path}", programs.display()))
        .ok()
}

/// The `sh` block of a section of the runbook that has this command.
fn block(command: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/runbooks/roll-out.md");
    let text = fs::read_to_string(path).expect("read the runbook");
    let blocks = text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let mut found = blocks.filter(|block| block.contains(command));
    let block = found.next().unwrap_or_else(|| panic!("no block has {command:?}"));
    assert!(found.next().is_none(), "two blocks have {command:?}");
    block.to_owned()
}

/// What a timer does: a timestamp lasts a day.
const REFRESH: &str = "signer refresh --repo oci:repository --keys online";

#[test]
fn a_fleet_follows_the_waves_and_stops() {
    let fleet = Fleet::new();
    let follow = |later: &str, command: &str| shell(&fleet.world, later, &block(command));

    // 10 % now. The plan is shown before it is signed.
    let shown = follow(NOW, "--version 1.1.0").stderr;
    assert!(shown.contains("to be signed: channel demo/stable offers 1.1.0"), "{shown}");
    assert!(shown.contains("wave     50 % of the nodes from 20"), "{shown}");
    let release = fleet.index(NOW);
    let (first, half) = (fleet.up_to(10, release), fleet.up_to(50, release));
    let sizes = (first.len(), half.len());
    assert!(0 < sizes.0 && sizes.0 < sizes.1 && sizes.1 < NODES, "choose other ids: {sizes:?}");
    assert_eq!(fleet.poll(NOW), first, "the first wave");
    assert_eq!(fleet.poll("+230m"), BTreeSet::new(), "nobody before their wave");
    assert!(follow(NOW, "channel show").text().contains("10 % of the nodes may install now"));

    // Held before the second wave has begun to install: it does not.
    let _done = follow("+235m", "channel hold --repo");
    assert_eq!(fleet.channel("+245m")["share"], 0);
    assert_eq!(fleet.poll("+245m"), BTreeSet::new(), "nobody while the channel is held");
    for (id, decided) in fleet.decisions("+245m") {
        let expected = if first.contains(&id) { "up_to_date" } else { "deferred" };
        assert_eq!(decided["decision"], expected, "{id}: {decided}");
    }

    // The hold is over: all of the second wave, and nobody else.
    let shown = follow("+300m", "hold --off").stderr;
    assert!(shown.contains("the channel was held: 50 % of the nodes may install now"), "{shown}");
    assert_eq!(fleet.poll("+305m"), half.difference(&first).cloned().collect(), "the second wave");
    // Given again, the rest is a day away from now, and each node says so.
    let _done = follow("+360m", "--wave 50%@now --wave 100%@+1d");
    let channel = fleet.channel("+361m");
    for (id, decided) in fleet.decisions("+361m") {
        assert_eq!(decided["node_id"], Value::from(id.clone()));
        assert_eq!(decided["wave"], wave_of(&id, release), "{id}");
        if !half.contains(&id) {
            let why = decided["why"].as_str().unwrap_or_default();
            let begins = channel["waves"][1]["start"].as_str().expect("a start");
            assert!(why.ends_with(&format!("its wave (100 %) begins {begins}")), "{id}: {why}");
        }
    }
    let expired = fleet.channel("+1850m");
    assert_eq!(expired["share"], 0, "nobody installs from expired metadata: {expired}");
    assert!(expired["expired"].as_str().is_some_and(|it| it.starts_with("the timestamp ended")));
    let _done = shell(&fleet.world, "+1860m", REFRESH);
    let all: BTreeSet<String> = fleet.nodes.iter().map(|(id, _)| id.clone()).collect();
    assert_eq!(fleet.poll("+1860m"), all.difference(&half).cloned().collect(), "the last wave");
    assert_eq!(fleet.poll("+1865m"), BTreeSet::new(), "all of them have it");
    for (id, node) in &fleet.nodes {
        assert_eq!(node.status()["runs"], "1.1.0", "{id}");
    }
    promoted(&fleet);
}

/// The next release begins with the first wave again, with other nodes, and windows hold it up.
fn promoted(fleet: &Fleet) {
    let shown = shell(&fleet.world, "+1920m", &block("channel promote")).stderr;
    assert!(
        shown.contains("the waves start again for 1.2.0: 1 d 2 h later than before"),
        "{shown}"
    );
    let half = fleet.up_to(50, fleet.index("+1920m"));
    assert!(!half.is_empty() && half.len() < NODES, "choose other ids: {half:?}");
    for (id, decided) in fleet.decisions("+1920m") {
        let expected = if half.contains(&id) { "install" } else { "deferred" };
        assert_eq!(decided["decision"], expected, "{id}: {decided}");
    }
    let text = shell(&fleet.world, "+1920m", &block("--window 22:00+4h")).stderr;
    assert!(text.contains("windows  every day 22:00 to 02:00 UTC"), "{text}");
    assert_eq!(fleet.channel("+1920m")["windows"], serde_json::json!([]));
}
