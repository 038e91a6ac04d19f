//! What the tests of several packages share.
//!
//! | module | holds |
//! |---|---|
//! | [`forge`] | a hostile TUF repository with all keys, and a node that updates from it |
//! | [`mutate`] | mutations of such a repository, chosen by a seed or by a fuzzer |
//! | [`random`] | the random generator of all tests: whoever draws prints the seed |

pub mod forge;
pub mod mutate;
pub mod random;
