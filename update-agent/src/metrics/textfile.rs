//! `metrics.textfile`: the page as a file that node_exporter's textfile collector reads.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::page::Page;
use crate::agent::Agent;

/// The collector runs as a user of its own, and the page holds no secret.
const MODE: u32 = 0o644;

/// The file of a node, if one is configured.
pub(crate) struct Textfile<'a> {
    agent: &'a Agent,
    /// What was logged, so that a daemon logs it once.
    trouble: Option<String>,
}

impl<'a> Textfile<'a> {
    pub(crate) fn of(agent: &'a Agent) -> Self {
        Textfile { agent, trouble: None }
    }

    /// Replaces the file. Trouble is logged and changes nothing else.
    pub(crate) fn write(&mut self) {
        let Some(path) = &self.agent.config.metrics.textfile else { return };
        let trouble = replace(path, Page::of(self.agent).text().as_bytes()).err();
        let trouble = trouble.map(|error| explain(path, &error));
        if let Some(text) = trouble.as_ref().filter(|text| self.trouble.as_ref() != Some(*text)) {
            tracing::warn!("{text}");
        }
        self.trouble = trouble;
    }
}

fn explain(path: &Path, error: &io::Error) -> String {
    let shown = path.display();
    let help = match error.kind() {
        io::ErrorKind::NotFound => "; make its directory, the textfile directory of node_exporter",
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            "; under systemd, name its directory in ReadWritePaths="
        }
        _ => "",
    };
    format!("metrics.textfile {shown} is not written: {error}{help}")
}

/// Readers see the old file or the new one. A crash leaves either, and perhaps a file beside it that no
/// collector reads. Not synced: the next round writes it again.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = beside(path).ok_or(io::ErrorKind::InvalidInput)?;
    let written = write_new(&beside, bytes).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

/// In the same directory, under a name that the collector passes over, and of this process alone.
fn beside(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_string_lossy();
    Some(path.with_file_name(format!(".{name}.{}", std::process::id())))
}

/// Follows no link: others may write in the directory.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(MODE);
    let file = options.open(path).or_else(|error| match error.kind() {
        // Of an earlier process with this id.
        io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            options.open(path)
        }
        _ => Err(error),
    });
    let mut file = file?;
    // Whatever the umask is.
    file.set_permissions(Permissions::from_mode(MODE))?;
    file.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_replaced_whole_and_readable() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.prom");
        replace(&path, b"one\n").unwrap();
        replace(&path, b"two\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "something was left beside it");
    }

    #[test]
    fn what_an_earlier_process_left_is_replaced_and_no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.prom");
        let other = dir.path().join("other");
        fs::write(&other, "not ours").unwrap();
        std::os::unix::fs::symlink(&other, beside(&path).unwrap()).unwrap();
        replace(&path, b"one\n").unwrap();
        assert_eq!(fs::read(&other).unwrap(), b"not ours");
        assert_eq!(fs::read(&path).unwrap(), b"one\n");
    }

    #[test]
    fn a_file_that_cannot_be_written_says_what_helps() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("missing/agent.prom");
        let error = replace(&path, b"").unwrap_err();
        assert!(explain(&path, &error).contains("make its directory"));
        let taken = dir.path().join("agent.prom");
        fs::create_dir_all(taken.join("directory")).unwrap();
        assert!(replace(&taken, b"").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "something was left beside it");
    }
}
