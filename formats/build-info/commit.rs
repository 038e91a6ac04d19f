//! The commit of a work tree, as git names it. Shared by the build script beside this file and by the commands
//! that build what is shipped.

use std::path::Path;
use std::process::Command;

/// `HASH DATE`: twelve digits of the commit, its date in UTC. `HASH-dirty` if tracked files were changed since. None
/// outside a work tree, without git, and for a copy of the sources inside a repository of somebody else.
pub(crate) fn of(sources: &Path) -> Option<String> {
    let git = |args: &[&str]| -> Option<String> {
        let done =
            Command::new("git").args(args).current_dir(sources).env("TZ", "UTC0").output().ok()?;
        done.status.success().then(|| String::from_utf8_lossy(&done.stdout).trim().to_owned())
    };
    git(&["ls-files", "--error-unmatch", "Cargo.toml"])?;
    let named =
        git(&["log", "-1", "--abbrev=12", "--date=format-local:%Y-%m-%d", "--format=%h %cd"])?;
    let (hash, date) = named.split_once(' ')?;
    let changed = !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    Some(format!("{hash}{} {date}", if changed { "-dirty" } else { "" }))
}
