//! Refusals, end to end: each ends with its reason code and exit code, and what must not change
//! has not changed, byte for byte (the sets M, S, B, F of `docs/threat-model.md`).
//!
//! | module | refuses because of |
//! |---|---|
//! | [`release`] | what is offered: hardware, version, size, security version |
//! | [`trust`] | how it is signed: expiry, thresholds, older metadata |
//! | [`content`] | the bytes: damaged chunks, hostile bundles |
//! | [`machine`] | the node: booted slot, devices, permissions, damaged state, its clock |
//! | [`resources`] | the system: no more descriptors, memory, threads, bytes; nobody reads the report |
//! | [`interrupted`] | what else goes on: a second agent, `kill -9`, Ctrl-C |
//! | [`advice`] | the person: a mistyped place, and what may be advised |
//!
//! [`resigned`] makes what only somebody with keys can publish.

mod advice;
mod content;
mod interrupted;
mod machine;
mod release;
mod resigned;
mod resources;
mod trust;

use racklet_tests::rig::{Before, Node, Release, World};

/// A node that runs 1.0.0 and is offered 1.1.0 by the world's directory.
struct Offered {
    world: World,
    v1: Release,
    v2: Release,
    node: Node,
}

impl Offered {
    #[track_caller]
    fn new() -> Self {
        let world = World::with_repository();
        let (v1, v2) = (world.publish_stable("1.0.0", 1), world.publish_stable("1.1.0", 2));
        let node = Node::from_factory(&world, "node", &v1, &world.repository().reference());
        // There is something trusted to be left untouched.
        let _checked = node.agent(&["check"]).ok();
        Offered { world, v1, v2, node }
    }

    #[track_caller]
    fn before(&self) -> Before {
        Before::of(&self.node, "a")
    }

    /// What was wrong is right again: the next honest run succeeds with no manual step (S8).
    #[track_caller]
    fn recovers(&self) {
        let report = self.node.update(&[], "b");
        assert_eq!(report["version"], "1.1.0", "{report}");
        self.node.expect_slot("b", &self.v2);
        self.node.expect_slot("a", &self.v1);
        self.node.disk.expect_valid();
    }
}
