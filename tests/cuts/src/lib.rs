//! The power-cut proof: whole runs of the agent on [`storage::sim::Machine`], with the power cut
//! after every operation, and every state that may be left booted, judged and brought to its goal.
//!
//! ```text
//!  repository (in memory) ─┐
//!  scenario × boot backend ┴─► node runs, recorded ─► every crash state ─► promises S1–S5 hold?
//!                                                          │               boot loader boots?
//!                                                          └─► agent runs again ─► the goal (L1)?
//!                                                                 └─ recorded ─► the second cut
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`repository`] | releases and their metadata, signed by the forge, served from memory |
//! | [`node`] | a machine with a boot backend, and the agent on it |
//! | [`promises`] | what must be true of every state |
//! | [`scenario`] | what is cut of a node, and what must come of it |
//! | [`store`] | what is cut of a publisher, a server's store and a collection of garbage |
//! | [`rows`] | all of them, by name |
//! | [`case`] | what a sweep needs to know of each |
//! | [`sweep`] | all crash states of one scenario, once and twice |
//! | [`faults`] | the n-th call fails, lies or flips a bit |
//! | [`lying`] | what a disk leaves that lies about flushes |
//! | [`variants`] | faulty programs that the sweep must catch |
//! | [`story`] | a failing state as a file, and in words |
//! | [`report`] | the tables |
//!
//! What is promised, the model and what is outside of it: `docs/power-cuts.md`.

pub mod case;
pub mod faults;
pub mod lying;
pub mod node;
pub mod promises;
pub mod report;
pub mod repository;
pub mod rows;
pub mod scenario;
pub mod store;
pub mod story;
pub mod sweep;
pub mod variants;
