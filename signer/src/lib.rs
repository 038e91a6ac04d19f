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
//! | module | does | I/O |
//! |---|---|---|
//! | [`image`] | file → zstd frames, chunk list | streams it is given |
//! | [`key`] | key files, tokens, programs; the one door through which keys sign | yes |
//! | [`state`] | files of a repository → one verified value | no |
//! | [`plan`] | state + change + time → what is signed next; what nodes would refuse | no |
//! | [`signing`] | what is planned, signed with the keys at hand | through [`key`] |
//! | [`policy`] | `signer.toml` → who should sign what, what hardware holds | no |
//! | [`stage`] | a change on its way between signers, as one file | no |
//! | [`shared`] | the same as an artifact beside the metadata | through [`repository`] |
//! | [`summary`] | what is signed, against what is published, for people | no |
//! | [`journal`] | what was signed from here, chained; the signer's memory | its file |
//! | [`attachment`] | SBOMs and provenance, looked at and attached | files |
//! | [`repository`] | registries, layouts, archives behind one trait | yes |
//! | [`published`] | the state as one manifest, moved by one tag | through [`repository`] |
//! | [`verify`] | content down to the last chunk | through [`repository`] |
//! | [`commands`], [`cli`] | what the commands do; arguments and output | yes |
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

// They panic when nobody reads any more, or the disk under a log is full.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod attachment;
#[cfg(feature = "cli")]
pub mod cli;
pub mod commands;
pub mod error;
pub mod image;
pub mod journal;
pub mod key;
pub mod plan;
pub mod policy;
pub mod progress;
pub mod published;
pub mod repository;
pub mod shared;
pub mod signing;
pub mod stage;
pub mod state;
pub mod summary;
pub mod verify;
