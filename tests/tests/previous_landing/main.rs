//! The agent of the previous landing and the agent of this commit, one after the other on the same node.
//!
//! | module | the agent of the previous landing | run by |
//! |---|---|---|
//! | [`fixtures`] | its state as it left it, in `fixtures/` | every run of the tests |
//! | [`both_ways`] | the program, built from the commit that `tests/previous-landing` names | `cargo xtask previous` |
//!
//! [`phase`] says where a node stands when its agent is exchanged, and what every agent must do from there.

mod both_ways;
mod fixtures;
mod phase;
