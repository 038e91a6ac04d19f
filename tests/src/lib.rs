//! Simulators that the tests of this workspace share.
//!
//! | module | simulates |
//! |---|---|
//! | [`forge_registry`] | the forge of `racklet-testkit` behind a registry, as honest as it is told to be |
//! | [`pages`] | a reader who types what the documents print |
//! | [`rig`] | a world for end-to-end tests: real programs, a real disk, a real network |
//! | [`sources`] | nothing: the files of the repository, and the tests in them |

pub mod forge_registry;
pub mod pages;
pub mod rig;
pub mod sources;
