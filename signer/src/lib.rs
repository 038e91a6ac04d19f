//! Keys, building and publishing releases, bundles, and a look at what is there.
//!
//! ```text
//!  images ──► image ────► blobs, manifests ─────────────────┐  uploaded first, invisible
//!  keys ────► key ──┐                                       ├─► repository ─► registry, directory
//!  state ───► plan ─┴──► targets, snapshot, timestamp ──────┘  `tuf:latest` moves last
//!    ▲                                                                │
//!    └────────── verified, or nothing is signed on top of it ◄───────┘
//! ```
//!
//! It refuses to build on metadata it did not verify, to sign what nodes would refuse, to give out
//! a signature that does not verify, to replace a key, and to read one that others can read. It
//! takes the time from the system clock and has no flag that weakens a check.
//!
//! The public interface is:
//!
//! | module | does | I/O |
//! |---|---|---|
//! | [`commands`] | one function per command: collaborators and a request in, a report out that serializes | yes |
//! | [`plan`] | state + change + time → what is signed next; what nodes would refuse | no |
//! | [`signing`] | what is planned, signed with the keys at hand | through [`key`] |
//! | [`state`] | files of a repository → one verified value | no |
//! | [`published`] | the state as one manifest, moved by one tag | through [`repository`] |
//! | [`repository`] | registries, layouts, archives behind one trait | yes |
//! | [`key`] | key files, tokens, programs; the one door through which keys sign | yes |
//! | [`image`], [`attachment`] | file → zstd frames, chunk list; SBOMs and provenance | files |
//! | [`vulnerability`] | SBOMs, VEX documents, OSV records → which release is affected, and why | no |
//! | [`policy`] | `signer.toml` → who should sign what, what hardware holds | no |
//! | `factory` | a published release → the first disk of a node | files, programs that make file systems |
//! | [`journal`] | what was signed from here, chained; the signer's memory | its file |
//! | [`error`], [`progress`] | why a command failed, with stable codes; how far it is | the terminal |
//!
//! The other modules are public for the programs and tests of this workspace only: `cli` (arguments
//! and output), `stage` and `shared` (a change on its way between signers, as a file and as an
//! artifact), `summary` (what is signed, for people), `verify` (content down to the last chunk).
//!
//! `examples/publish.rs` makes a repository and publishes a release. In short:
//!
//! ```
//! use signer::commands::{Delivery, InitRequest, Signing, init};
//! use signer::repository::{Access, ClientOptions, open};
//!
//! let dir = tempfile::tempdir()?;
//! let reference = format!("oci:{}", dir.path().join("repository").display()).parse()?;
//! let registry = open(&reference, Access::Write, &ClientOptions::default())?;
//! let keys = dir.path().join("keys");
//! let request = InitRequest { keys: keys.clone(), ..Default::default() };
//! let now = formats::tuf::UnixTime::from_secs(1_800_000_000);
//! init(registry.as_ref(), &mut Signing::default(), &request, Delivery::Publish, now)?;
//! assert!(keys.join("root.json").exists());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

// They panic when the reader has gone or the disk under a log is full.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod attachment;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod commands;
pub mod error;
#[cfg(feature = "factory")]
pub mod factory;
pub mod image;
pub mod journal;
pub mod key;
mod new_file;
pub mod plan;
pub mod policy;
pub mod progress;
pub mod published;
pub mod repository;
pub mod retention;
#[doc(hidden)]
pub mod shared;
pub mod signing;
#[doc(hidden)]
pub mod stage;
pub mod state;
#[doc(hidden)]
pub mod summary;
#[doc(hidden)]
pub mod verify;
pub mod vulnerability;
