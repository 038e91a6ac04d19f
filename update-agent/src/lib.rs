//! The agent on each node: verifies, writes the inactive slot, tries it, confirms or reverts.

pub mod health;
pub mod http;
pub mod progress;
pub mod source;
pub mod stage;
