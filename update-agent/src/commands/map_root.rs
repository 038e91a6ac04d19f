//! `map-root`: what an initramfs mounts at `/`.

use formats::reason::Exit;
use serde::Serialize;

use super::MapRootArgs;
use crate::chooser;
use crate::error::AgentError;
use crate::output::Output;

/// The root file system that the chooser's word names.
#[derive(Debug, Serialize)]
struct MapRootReport {
    /// Its device node.
    root: String,
}

/// `map-root`
pub(super) fn map_root(args: &MapRootArgs, output: Output) -> Result<Exit, AgentError> {
    let root = chooser::map_root(args.wait)?.display().to_string();
    let report = MapRootReport { root };
    output.report(&report, &report.root);
    Ok(Exit::Done)
}
