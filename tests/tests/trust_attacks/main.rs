//! The attacks of `docs/threat-cases.md` that meet the trust core, each under its number.
//!
//! Every test says which reason the node gives and which files of its trusted state are
//! untouched. Cases that meet other parts run elsewhere; the list says where.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use formats::reason::Reason;
use formats::tuf::Role;
use racklet_testkit::forge::{Forge, Node};
use update_core::trust::TrustError;

mod classic;
mod clock;
mod delegations;
mod keys;
mod offline;
mod parser;
mod proofs;
mod properties;

/// Every role of the top level.
const ALL: &[Role] = &Role::TOP_LEVEL;

/// A repository and a node that is up to date with it.
fn settled() -> (Forge, Node) {
    let mut repo = Forge::new();
    repo.publish(&[Role::Targets]);
    let mut node = Node::of(&repo);
    node.refresh(&repo).expect("an honest repository");
    (repo, node)
}

/// Lets the node update and asserts that it refuses for that reason, leaving the stored files of
/// `untouched` as they were, byte for byte, and its known time and delegated roles with them.
#[track_caller]
fn refuses(node: &mut Node, repo: &Forge, reason: Reason, untouched: &[Role]) -> TrustError {
    let before = node.stored.clone();
    let error = node.refresh(repo).expect_err("the attack was not noticed");
    assert_eq!(error.reason(), reason, "{error:?}");
    for role in untouched {
        assert_eq!(node.stored.file(role), before.file(role), "{role} was touched");
    }
    assert_eq!(node.stored.known_time, before.known_time);
    assert_eq!(node.stored.delegated, before.delegated);
    assert!(!error.hint().is_empty() && !error.to_string().ends_with('.'));
    error
}

/// Asserts that the node now updates without complaint.
#[track_caller]
fn recovers(node: &mut Node, repo: &Forge) {
    if let Err(error) = node.refresh(repo) {
        panic!("an honest repository is refused: {error:?}");
    }
}
