//! apt of this machine, one command at a time: `apt-get update` fails where another one runs, instead of waiting.

use std::fs::File;

use anyhow::Result;

use crate::cache;
use crate::cmd::Cmd;

/// Waits for every other command of ours that changes packages or their lists; ends when it is dropped.
pub(crate) fn alone() -> Result<File> {
    cache::exclusive("apt")
}

/// Fetches the lists of packages.
///
/// # Errors
///
/// Not root, no network, or another program's apt at work.
pub fn update() -> Result<()> {
    let _alone = alone()?;
    fetch_lists()
}

/// [`update`], for who is [`alone`].
pub(crate) fn fetch_lists() -> Result<()> {
    Cmd::new("apt-get").args(["-q", "update"]).aloud().watch()
}
