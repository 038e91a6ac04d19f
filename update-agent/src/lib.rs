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
//! ```
//! use update_agent::config::Config;
//! let example = include_str!("../update-agent.example.toml");
//! let config = Config::parse(example, std::path::Path::new("/etc/update-agent"))?;
//! assert_eq!(config.boot.tries, 3);
//! # Ok::<(), update_agent::error::AgentError>(())
//! ```

// They panic when nobody reads any more, or the disk under a log is full.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod absent;
pub mod agent;
pub mod boot;
pub mod chooser;
pub mod commands;
pub mod config;
pub mod disk;
pub mod environment;
pub mod error;
pub mod example;
pub mod exhausted;
pub mod health;
pub mod http;
mod notify;
mod occupied;
pub mod output;
pub mod place;
pub mod progress;
pub mod release;
pub mod source;
pub mod stage;
pub mod state;
pub mod tpm;
pub mod trust;
