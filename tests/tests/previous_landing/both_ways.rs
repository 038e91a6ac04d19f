//! With the programs themselves: each agent goes on where the other one stopped.

use std::path::PathBuf;

use formats::reason::Exit;
use racklet_tests::rig::{CLEAR, Node, World, confirmed};

use super::phase::{Offered, Phase};

/// The agent of the previous landing, as `cargo xtask previous` names it.
pub(crate) fn previous_agent() -> PathBuf {
    let named = std::env::var_os("RACKLET_PREVIOUS_AGENT").map(PathBuf::from);
    let agent = named.expect("RACKLET_PREVIOUS_AGENT: run `cargo xtask previous`");
    assert!(agent.is_file(), "there is no {}", agent.display());
    agent
}

#[test]
#[ignore = "needs the agent of the previous landing: cargo xtask previous"]
fn this_agent_goes_on_where_the_previous_one_stopped() {
    let previous = previous_agent();
    for phase in Phase::ALL {
        let it = Offered::new();
        it.node.exchange_agent(Some(&previous));
        phase.reach(&it.node);
        it.node.exchange_agent(None);
        phase.goes_on(&it);
    }
}

#[test]
#[ignore = "needs the agent of the previous landing: cargo xtask previous"]
fn the_previous_agent_goes_on_where_this_one_stopped() {
    let previous = previous_agent();
    for phase in Phase::ALL {
        let it = Offered::new();
        phase.reach(&it.node);
        it.node.exchange_agent(Some(&previous));
        phase.goes_on(&it);
        // And this one again, which wrote first.
        it.node.exchange_agent(None);
        let status = it.node.status();
        assert_eq!(status["standing"], "idle", "{phase:?}: {status}");
    }
}

/// The agent is part of what it updates: another one runs after each boot.
#[test]
#[ignore = "needs the agent of the previous landing: cargo xtask previous"]
fn they_take_turns_in_one_update_and_its_revert() {
    let previous = previous_agent();
    for (first, second) in [(None, Some(previous.as_path())), (Some(previous.as_path()), None)] {
        let it = Offered::new();
        let node = &it.node;
        node.exchange_agent(first);
        node.apply(&[]);
        node.exchange_agent(second);
        assert_eq!(node.boot(), "b");
        let _confirmed = node.run_once().exits(Exit::Done);
        node.disk.expect(confirmed(1), confirmed(2));
        node.expect_slot("b", &it.v2);
        let _given_up = node.agent(&["revert", "--reason", "by hand"]).ok();
        node.exchange_agent(first);
        assert_eq!(node.boot(), "a");
        let _settled = node.run_once().exits(Exit::Done);
        node.disk.expect(confirmed(1), CLEAR);
        // What the other one recorded as given up is not installed by itself again.
        node.agent(&["apply"]).finish().refused(formats::reason::Reason::FailedBefore);
    }
}

/// Old releases move to a role that the previous agent never heard of.
#[test]
#[ignore = "needs the agent of the previous landing: cargo xtask previous"]
fn the_previous_agent_updates_across_the_history_of_a_repository() {
    let previous = previous_agent();
    let world = World::with_repository();
    let source = world.repository().reference();
    let v1 = world.publish_stable("1.0.0", 1);
    let [follows, pinned] = ["follows", "pinned"].map(|name| {
        let node = Node::from_factory(&world, name, &v1, &source);
        node.exchange_agent(Some(&previous));
        let _nothing = node.agent(&["check"]).finish().exits(Exit::Nothing);
        node
    });
    let v2 = world.publish_stable("1.1.0", 2);
    let v3 = world.publish_stable("1.2.0", 3);
    let _archived = world.signer(&["release", "archive", "--keep", "1"]).ok();
    follows.update(&[], "b");
    follows.expect_slot("b", &v3);
    pinned.update(&["--version", "1.1.0"], "b");
    pinned.expect_slot("b", &v2);
}
