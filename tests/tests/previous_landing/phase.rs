//! Where a node stands when its agent is exchanged.

use std::path::Path;

use formats::reason::Exit;
use racklet_tests::rig::{CLEAR, Flags, Node, Release, TRIES, World, confirmed, trial};

/// Commands that change no slot.
const LOOKS: [&[&str]; 5] = [&["status"], &["history"], &["doctor"], &["check"], &["verify"]];

/// A phase of an update from 1.0.0 in slot a to 1.1.0 in slot b.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// 1.1.0 is offered; nothing was written.
    Fresh,
    /// It is written, not next.
    Staged,
    /// It is next.
    Next,
    /// It is booted, and its checks have not run.
    Trial,
    /// It is booted, its checks have failed, and a restart was asked for.
    Failing,
    /// It has proven itself.
    Confirmed,
    /// It had proven itself, and an operator went back.
    Reverted,
    /// It used up its tries, and that is recorded.
    Failed,
}

/// What the disk and the boot loader say in a phase.
pub(crate) struct Standing {
    /// The booted slot.
    pub(crate) booted: &'static str,
    /// The flags of the slots.
    pub(crate) flags: [Flags; 2],
    /// Whether slot b holds 1.1.0.
    pub(crate) written: bool,
}

/// A world with a node from the factory that is offered 1.1.0.
pub(crate) struct Offered {
    pub(crate) world: World,
    pub(crate) node: Node,
    pub(crate) v2: Release,
}

impl Offered {
    /// A world of its own.
    pub(crate) fn new() -> Self {
        Self::under(None)
    }

    /// A world under this trust root.
    pub(crate) fn under(root: Option<&Path>) -> Self {
        let world = World::with_example_keys(root);
        let v1 = world.publish_stable("1.0.0", 1);
        // Relative: records name the source.
        let node = Node::from_factory(&world, "node", &v1, "oci:../repository:racklet");
        let v2 = world.publish_stable("1.1.0", 2);
        if root.is_some() {
            // Newer than what the other world's node trusts.
            let _renewed = world.signer(&["refresh"]).ok();
        }
        Offered { world, node, v2 }
    }
}

impl Phase {
    pub(crate) const ALL: [Phase; 8] = [
        Phase::Fresh,
        Phase::Staged,
        Phase::Next,
        Phase::Trial,
        Phase::Failing,
        Phase::Confirmed,
        Phase::Reverted,
        Phase::Failed,
    ];

    /// Its name, as that of a folder.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Phase::Fresh => "fresh",
            Phase::Staged => "staged",
            Phase::Next => "next",
            Phase::Trial => "trial",
            Phase::Failing => "failing",
            Phase::Confirmed => "confirmed",
            Phase::Reverted => "reverted",
            Phase::Failed => "failed",
        }
    }

    pub(crate) fn standing(self) -> Standing {
        let (booted, flags, written) = match self {
            Phase::Fresh => ("a", [confirmed(1), CLEAR], false),
            Phase::Staged => ("a", [confirmed(1), CLEAR], true),
            Phase::Next => ("a", [confirmed(1), trial(TRIES)], true),
            Phase::Trial | Phase::Failing => ("b", [confirmed(1), trial(TRIES - 1)], true),
            Phase::Confirmed => ("b", [confirmed(1), confirmed(2)], true),
            Phase::Reverted | Phase::Failed => ("a", [confirmed(1), CLEAR], true),
        };
        Standing { booted, flags, written }
    }

    /// Brings a node from the factory here, by the agent that it has.
    pub(crate) fn reach(self, node: &Node) {
        let boots = |slot: &str| assert_eq!(node.boot(), slot, "{self:?}");
        let _news = node.agent(&["check"]).ok();
        match self {
            Phase::Fresh => {}
            Phase::Staged => drop(node.apply(&["--stage-only"])),
            Phase::Next => drop(node.apply(&[])),
            Phase::Trial => {
                node.apply(&[]);
                boots("b");
            }
            Phase::Failing => {
                node.apply(&[]);
                boots("b");
                fails(node);
            }
            Phase::Confirmed => proves_itself(node, "b"),
            Phase::Reverted => {
                proves_itself(node, "b");
                let _given_up = node.agent(&["revert", "--reason", "by hand"]).ok();
                boots("a");
                let _settled = node.run_once().exits(Exit::Done);
            }
            Phase::Failed => {
                node.apply(&[]);
                for _ in 0..TRIES {
                    boots("b");
                    fails(node);
                }
                boots("a");
                let _recorded = node.run_once().exits(Exit::Done);
            }
        }
        self.stands(node);
    }

    /// Requires that the disk is what this phase says.
    pub(crate) fn stands(self, node: &Node) {
        let Standing { flags: [a, b], .. } = self.standing();
        node.disk.expect(a, b);
    }

    /// What every agent must do from here, whoever brought the node here: end this update, make the next one
    /// whole, and go back.
    pub(crate) fn goes_on(self, it: &Offered) {
        let Offered { world, node, v2 } = it;
        for look in LOOKS {
            let done = node.agent(look).finish();
            let said = done.output();
            let shows = ["status", "history"].contains(&look[0]);
            assert!(if shows { done.code == 0 } else { done.code >= 0 }, "{self:?}\n{said}");
            for fault in ["error[store_", "error[config]"] {
                assert!(!said.contains(fault), "{self:?}: {}\n{said}", done.shown);
            }
        }
        self.stands(node);
        self.ends(node);
        if self.standing().written {
            node.expect_slot("b", v2);
        }
        let v3 = world.publish_stable("1.2.0", 3);
        let (old, new) = match self {
            Phase::Next | Phase::Trial | Phase::Failing | Phase::Confirmed => ("b", "a"),
            Phase::Fresh | Phase::Staged | Phase::Reverted | Phase::Failed => ("a", "b"),
        };
        proves_itself(node, new);
        node.expect_slot(new, &v3);
        let _given_up = node.agent(&["revert", "--reason", "by hand"]).ok();
        assert_eq!(node.boot(), old, "{self:?}: after the revert");
        let _settled = node.run_once().exits(Exit::Done);
        assert_eq!(node.disk.flags(&format!("root-{new}")), CLEAR, "{self:?}");
        assert!(node.disk.flags(&format!("root-{old}")).successful, "{self:?}");
        node.disk.expect_valid();
    }

    /// Ends what is under way.
    fn ends(self, node: &Node) {
        match self {
            Phase::Next | Phase::Failing => assert_eq!(node.boot(), "b", "{self:?}"),
            _ => {}
        }
        let _ended = node.run_once().exits(Exit::Done);
        match self {
            Phase::Next | Phase::Trial | Phase::Failing | Phase::Confirmed => {
                node.disk.expect(confirmed(1), confirmed(2));
            }
            Phase::Fresh | Phase::Staged | Phase::Reverted | Phase::Failed => {
                node.disk.expect(confirmed(1), CLEAR);
            }
        }
    }
}

/// The booted system fails its checks, and asks for a restart.
fn fails(node: &Node) {
    node.set_healthy(false);
    let done = node.run_once();
    assert!(node.reboot_was_asked(), "{}", done.output());
    node.set_healthy(true);
}

/// A whole update into a slot, without a word of what an agent reports: that is not the same in each of them.
fn proves_itself(node: &Node, slot: &str) {
    node.apply(&[]);
    assert_eq!(node.boot(), slot, "the slot on trial");
    let _confirmed = node.run_once().exits(Exit::Done);
    assert!(node.disk.flags(&format!("root-{slot}")).successful, "slot {slot} is not confirmed");
}
