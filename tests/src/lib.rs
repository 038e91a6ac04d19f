//! Simulators that the tests of this workspace share.
//!
//! | module | simulates |
//! |---|---|
//! | [`forge`] | a hostile TUF repository with all keys, and a node that updates from it |

pub mod forge;
