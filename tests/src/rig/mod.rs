//! A world for end-to-end tests: real programs, a real disk, a real network, all in one folder.
//!
//! ```text
//!  World ── keys, images, repository (oci:DIR)      signer
//!    ├── RepoServer, DockerRegistry ── TLS          repo-server, docker-registry
//!    │      └── Tap ── counts bytes, stops the line at a chosen one
//!    └── Node ── disk, configuration, state         update-agent
//!           └── Before ── what must not have changed
//! ```
//!
//! Programs are driven by their command lines alone, and what they did is read back with tools of
//! other people: `sgdisk` makes the disks, `cgpt` reads the boot attributes.
//!
//! Everything here **panics** when the world is not as it should be, at the line of the test that
//! asked: a test has no use for an error. A missing tool is such a panic, never a skipped test.
//! Nothing waits for luck: every wait has a condition and a deadline.

mod before;
mod disk;
mod images;
mod layout;
mod node;
mod people;
mod programs;
mod redact;
mod run;
mod server;
mod tap;
mod world;

pub use before::Before;
pub use disk::{CLEAR, Disk, Flags, SlotSizes, confirmed, trial};
pub use images::{Image, UNRELATED, firmware, system};
pub use layout::Repository;
pub use node::{HARDWARE, Node, TRIES};
pub use programs::{program, programs};
pub use redact::redact;
pub(crate) use run::venv_bin;
pub use run::{Done, Run, Running, tool, venv};
pub use server::{Credentials, DockerRegistry, RepoServer};
pub use tap::Tap;
pub use world::{NAMESPACE, PRODUCT, Release, World};

/// Takes a value out of a result, or panics with what was being done and why it failed.
#[track_caller]
pub(crate) fn must<T, E: std::fmt::Display>(result: Result<T, E>, what: &str) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{what}: {error}"),
    }
}
