//! What of the work tree belongs to the repository.

use anyhow::Result;
use racklet_tools::cmd::Cmd;
use racklet_tools::paths;

/// Files git knows, relative to the workspace root.
pub(crate) fn tracked_files() -> Result<Vec<String>> {
    let text = Cmd::new("git").arg("ls-files").current_dir(&paths::root()).read()?;
    Ok(text.lines().map(str::to_string).collect())
}
