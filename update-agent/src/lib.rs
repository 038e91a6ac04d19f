//! The agent on each node: verifies, writes the inactive slot, tries it, confirms or reverts.
//!
//! Decisions are made in `update_core`; this crate performs them. It never writes the slot that
//! runs, never creates a device that is missing, and has no flag and no variable that skips a check.
//!
//! ```text
//!  source ─► trust ─► policy (core) ─► release ─► stage ─► read back ─► disk: next, N tries
//!  registry,          Install,          index,    chunks,   proof         │ reboot
//!  directory, tar     Defer, Refuse     lists     verified                ▼
//!                          history ◄─ confirm / reboot ◄─ health ◄─ trial boot
//! ```
//!
//! The public interface is:
//!
//! | module | holds |
//! |---|---|
//! | [`agent`] | the operations of a node ([`agent::Agent`]), their options and reports |
//! | [`config`] | the configuration file |
//! | [`environment`] | what an agent meets: sources, health checks, the way to restart |
//! | [`factory`] | the state of a node that no agent has run on yet |
//! | [`hooks`] | programs of the operator's that run around an update |
//! | [`progress`] | progress sinks |
//! | [`source`] | repositories that updates come from |
//! | [`error`] | the error of every operation: a stable reason, a text, a hint |
//!
//! Everything else that is public serves this project's programs and tests, is hidden from the
//! documentation and may change.
//!
//! ```no_run
//! use update_agent::agent::{Agent, ApplyOptions, Attempt, Wish};
//! use update_agent::config::Config;
//! use update_agent::progress::Silent;
//!
//! let config = Config::load("/etc/update-agent/update-agent.toml".as_ref())?;
//! let agent = Agent::open(config)?;
//! match agent.apply(&Wish::default(), &ApplyOptions::default(), &Silent)? {
//!     Attempt::Made(report) => println!("{} is in slot {}", report.version, report.slot),
//!     Attempt::UpToDate(why) => println!("{}", why.message),
//! }
//! # Ok::<(), update_agent::error::AgentError>(())
//! ```
//!
//! `examples/embed.rs` is a whole program.

// They panic when nobody reads any more, or the disk under a log is full.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod agent;
pub mod config;
pub mod environment;
pub mod error;
pub mod factory;
pub mod hooks;
pub mod progress;
pub mod source;

#[doc(hidden)]
pub mod boot;
#[doc(hidden)]
pub mod chooser;
#[doc(hidden)]
pub mod commands;
#[doc(hidden)]
pub mod events;
#[doc(hidden)]
pub mod exhausted;
#[doc(hidden)]
pub mod health;
#[doc(hidden)]
pub mod http;
#[doc(hidden)]
pub mod list;
#[doc(hidden)]
pub mod metrics;
#[doc(hidden)]
pub mod place;
#[doc(hidden)]
pub mod release;
mod root_disk;
#[doc(hidden)]
pub mod stage;
#[doc(hidden)]
pub mod state;
#[doc(hidden)]
pub mod tpm;
#[doc(hidden)]
pub mod trust;

mod disk;
mod example;
mod figures;
mod notify;
mod occupied;
mod output;
mod reporting;
mod restart;
pub mod restart_lock;
