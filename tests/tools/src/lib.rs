//! What the project's own commands share: `cargo xtask`, the virtual machines, the benchmark.
//!
//! | module | holds |
//! |---|---|
//! | [`cmd`] | other programs: run, shown, followed, their exit and output checked |
//! | [`paths`] | where things are: the workspace, cargo's target |
//! | [`cache`] | what all clones on a machine share |
//! | [`programs`] | our own programs, built as tests want them or as they are shipped |
//! | [`apt`] | this machine's packages, one command at a time |
//! | [`cross`] | compilers for other processors, cached |
//! | [`setup`] | packages of Debian and Python that the commands call |
//! | [`debian`], [`firmware`] | real system images and firmware, cached |
//! | [`disk`], [`config`] | a node's disk, and its configuration |
//! | [`rig`] | a served repository with its certificates and tokens |
//! | [`browser`] | Debian's Chromium, for the pages of the fleet |
//! | [`postgres`] | a PostgreSQL server for a test |
//! | [`room`] | whether the disk has room for a run |
//! | [`report`] | what became of the virtual machines |
//! | [`show`], [`pulse`] | sizes, times, tables; a sign of life of long work |
//!
//! Nothing of it is shipped, and none of our own crates is linked: `cargo xtask` starts before they are built.

pub mod apt;
pub mod browser;
pub mod cache;
pub mod cmd;
pub mod config;
pub mod cross;
pub mod debian;
pub mod disk;
pub mod firmware;
pub mod paths;
pub mod postgres;
pub mod programs;
pub mod pulse;
pub mod report;
pub mod rig;
pub mod room;
pub mod setup;
pub mod show;
