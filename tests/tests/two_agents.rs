//! Two agents on one disk: each has its own product, state directory and pair of partitions, and both change the
//! one partition table. Each waits for the other's edit, and what it reads back is its own.

use std::fs;
use std::path::PathBuf;

use racklet_tests::rig::{
    CLEAR, HARDWARE, Node, Release, Run, TRIES, World, confirmed, program, trial,
};

/// Enough that a table was read back between two writes of the other one, where nothing is locked.
const ROUNDS: usize = 25;

/// An agent: the partitions of its slots, and its configuration.
struct Agent {
    kind: &'static str,
    config: PathBuf,
}

impl Agent {
    fn run(&self, args: &[&str]) -> Run {
        program("update-agent").arg("--config").arg(&self.config).args(args).arg("--json")
    }

    /// Whatever the other one does meanwhile, nothing fails and nobody blames the medium.
    fn rounds(&self) {
        for _ in 0..ROUNDS {
            let done = self.run(&["apply", "--retry"]).ok().json();
            assert_eq!(done["slot"], "b", "{done}");
            let done = self.run(&["revert"]).ok().json();
            assert_eq!(done["given_up"], "b", "{done}");
        }
        let _next = self.run(&["apply", "--retry"]).ok();
    }
}

/// Small images, so that most of the time is the table's.
fn publish(world: &World, product: &str, release: &Release) {
    let component = format!("os={},hw={HARDWARE}", release.firmware.path.display());
    let what = ["publish", "--product", product, "--version", &release.version];
    let _done = world.signer(&what).args(["--component", &component, "--channel", "stable"]).ok();
}

/// The agent of a product, by a configuration of its own beside the node's.
fn agent(node: &Node, product: &str, kind: &'static str) -> Agent {
    let mut text = fs::read_to_string(node.config()).expect("read the configuration");
    let own = |name: &str| format!("\"{name}-{kind}\"");
    let mut replace = |from: String, to: String| {
        assert_eq!(text.matches(&from).count(), 1, "{from:?} in the configuration");
        text = text.replace(&from, &to);
    };
    replace("product = \"demo\"".to_owned(), format!("product = {product:?}"));
    for slot in ["a", "b"] {
        let slots = format!("os = \"root-{slot}\"\nfirmware = \"fw-{slot}\"");
        replace(slots, format!("os = \"{kind}-{slot}\""));
    }
    for name in ["state", "cmdline", "boot_id"] {
        replace(format!("{name:?}"), own(name));
    }
    let config = node.path(&format!("{kind}.toml"));
    fs::write(&config, text).expect("write the configuration");
    let agent = Agent { kind, config };
    let boots = agent.run(&["boot-select", "--simulate"]).ok().json();
    assert_eq!(boots["slot"], "a", "{boots}");
    agent
}

#[test]
fn two_agents_change_one_partition_table_at_once() {
    let world = World::with_repository();
    let (v1, v2) = (world.release("1.0.0", 1), world.release("1.1.0", 2));
    publish(&world, "system", &v1);
    publish(&world, "system", &v2);
    publish(&world, "blob", &v2);
    let node = Node::from_factory(&world, "node", &v1, &world.repository().reference());
    node.disk.set_flags("fw-a", confirmed(1));
    let agents = [agent(&node, "system", "root"), agent(&node, "blob", "fw")];
    std::thread::scope(|scope| {
        for agent in &agents {
            scope.spawn(move || agent.rounds());
        }
    });
    node.disk.expect_valid();
    for Agent { kind, .. } in &agents {
        assert_eq!(node.disk.flags(&format!("{kind}-a")), confirmed(1), "{kind}");
        assert_eq!(node.disk.flags(&format!("{kind}-b")), trial(TRIES), "{kind}");
        let found = node.disk.content(&format!("{kind}-b"), v2.firmware.size());
        assert!(found == v2.firmware.bytes, "{kind}-b does not hold 1.1.0");
    }
    // And each takes back its own.
    for agent in &agents {
        let _given_up = agent.run(&["revert"]).ok();
    }
    node.disk.expect(confirmed(1), CLEAR);
    assert_eq!((node.disk.flags("fw-a"), node.disk.flags("fw-b")), (confirmed(1), CLEAR));
}
