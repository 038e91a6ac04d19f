//! The files of a data partition, and the script that makes them.
//!
//! `mke2fs -d` keeps the order and the times of the directory it reads, which differ between two machines. A script of
//! `debugfs` creates the same files in the order of their names, all at one time.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::error::FactoryError;

/// Permission bits of a mode, with set-user-id and its like.
const PERMISSIONS: u32 = 0o7777;

/// Files by their path below the root of the partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tree(BTreeMap<PathBuf, Entry>);

/// A file, directory or symbolic link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    mode: u32,
    uid: u32,
    gid: u32,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Directory,
    /// The file whose bytes it has.
    File(PathBuf),
    /// What it points to.
    Link(String),
}

impl Tree {
    /// A directory of root's, and those above it where they are missing.
    pub(super) fn directory(&mut self, path: &Path, mode: u32) {
        self.parents(path);
        self.insert(path, mode, Kind::Directory);
    }

    /// A file of root's with the bytes of another, and the directories above it where they are missing.
    pub(super) fn file(&mut self, path: &Path, mode: u32, from: &Path) {
        self.parents(path);
        self.insert(path, mode, Kind::File(from.to_owned()));
    }

    fn insert(&mut self, path: &Path, mode: u32, kind: Kind) {
        self.0.insert(path.to_owned(), Entry { mode, uid: 0, gid: 0, kind });
    }

    fn parents(&mut self, path: &Path) {
        let above = path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty());
        for path in above {
            let kind = Kind::Directory;
            self.0.entry(path.to_owned()).or_insert(Entry { mode: 0o755, uid: 0, gid: 0, kind });
        }
    }

    /// Whether there is a file or directory below a path.
    pub(super) fn has_below(&self, path: &Path) -> bool {
        self.0.keys().any(|found| found != path && found.starts_with(path))
    }

    /// Gives everything below a path to root.
    pub(super) fn owned_by_root(&mut self, path: &Path) {
        let below = self.0.iter_mut().filter(|(found, _)| found.starts_with(path));
        below.for_each(|(_, entry)| (entry.uid, entry.gid) = (0, 0));
    }

    /// Everything below a directory, with owners and permissions.
    pub(super) fn copy(&mut self, from: &Path, to: &Path) -> Result<(), FactoryError> {
        let failed = FactoryError::file("read", from);
        for found in fs::read_dir(from).map_err(&failed)? {
            let found = found.map_err(&failed)?;
            let (path, to) = (found.path(), to.join(found.file_name()));
            let entry = Entry::of(&path)?;
            let is_directory = entry.kind == Kind::Directory;
            self.0.insert(to.clone(), entry);
            if is_directory {
                self.copy(&path, &to)?;
            }
        }
        Ok(())
    }

    /// The commands of `debugfs -w -f` that make these files in an empty file system.
    pub(super) fn script(&self) -> Result<String, FactoryError> {
        let mut script = String::from("sif \"/\" mode 040755\n");
        for (path, Entry { mode, uid, gid, kind }) in &self.0 {
            // `lost+found` is there already, and belongs to the file system.
            if path.starts_with("lost+found") {
                continue;
            }
            let (parent, name) = split(path)?;
            let (kind_bits, make) = match kind {
                Kind::Directory => (0o040_000, format!("mkdir {name}")),
                Kind::File(from) => (0o100_000, format!("write {} {name}", quoted(from, from)?)),
                Kind::Link(target) => {
                    (0o120_000, format!("symlink {name} {}", quoted(Path::new(target), path)?))
                }
            };
            // Writing to a String cannot fail.
            let _ = write!(
                script,
                "cd {parent}\n{make}\nsif {name} mode 0{:o}\nsif {name} uid {uid}\nsif {name} gid {gid}\n",
                kind_bits | mode & PERMISSIONS
            );
        }
        Ok(script)
    }
}

impl Entry {
    fn of(path: &Path) -> Result<Self, FactoryError> {
        let failed = FactoryError::file("read", path);
        let about = fs::symlink_metadata(path).map_err(&failed)?;
        let of_kind = |kind| FactoryError::Kind { path: path.to_owned(), kind };
        let file_type = about.file_type();
        let kind = if file_type.is_dir() {
            Kind::Directory
        } else if file_type.is_file() {
            Kind::File(path.to_owned())
        } else if file_type.is_symlink() {
            let target = fs::read_link(path).map_err(&failed)?;
            let unknown = || failed(io::Error::other("the target is not UTF-8"));
            Kind::Link(target.into_os_string().into_string().map_err(|_| unknown())?)
        } else if file_type.is_fifo() {
            return Err(of_kind("a named pipe"));
        } else if file_type.is_socket() {
            return Err(of_kind("a socket"));
        } else {
            return Err(of_kind("a device"));
        };
        let (mode, uid, gid) = (about.permissions().mode(), about.uid(), about.gid());
        Ok(Entry { mode, uid, gid, kind })
    }
}

/// The directory and the name of a path, as words of a script.
fn split(path: &Path) -> Result<(String, String), FactoryError> {
    let parent = path.parent().unwrap_or(Path::new(""));
    let name = Path::new(path.file_name().unwrap_or_default());
    Ok((quoted(&Path::new("/").join(parent), path)?, quoted(name, path)?))
}

/// A word of a script. `debugfs` has no way to write some characters.
fn quoted(word: &Path, of: &Path) -> Result<String, FactoryError> {
    let writable = |text: &&str| !text.chars().any(|c| c == '"' || c.is_control());
    match word.to_str().filter(writable) {
        Some(text) => Ok(format!("\"{text}\"")),
        None => {
            let kind =
                "named with a quotation mark, a control character or bytes that are not UTF-8";
            Err(FactoryError::Kind { path: of.to_owned(), kind })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_made_in_order_with_their_directories() {
        let mut tree = Tree::default();
        tree.file(Path::new("lib/agent/record 0"), 0o600, Path::new("/tmp/x"));
        tree.directory(Path::new("cache"), 0o700);
        let script = tree.script().unwrap();
        let made: Vec<&str> = script
            .lines()
            .filter(|line| line.starts_with("mkdir") || line.starts_with("write"))
            .collect();
        let expected = [
            "mkdir \"cache\"",
            "mkdir \"lib\"",
            "mkdir \"agent\"",
            "write \"/tmp/x\" \"record 0\"",
        ];
        assert_eq!(made, expected);
        assert!(script.contains("cd \"/lib/agent\"\nwrite"), "{script}");
        assert!(script.contains("sif \"record 0\" mode 0100600\n"), "{script}");
        assert!(script.contains("sif \"cache\" mode 040700\n"), "{script}");
    }

    #[test]
    fn a_directory_is_copied_with_modes_and_links() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("log")).unwrap();
        fs::write(dir.path().join("log/one"), "1").unwrap();
        std::os::unix::fs::symlink("one", dir.path().join("log/two")).unwrap();
        fs::set_permissions(dir.path().join("log/one"), fs::Permissions::from_mode(0o4711))
            .unwrap();
        let mut tree = Tree::default();
        tree.copy(dir.path(), Path::new("")).unwrap();
        let script = tree.script().unwrap();
        assert!(script.contains("sif \"one\" mode 0104711\n"), "{script}");
        assert!(script.contains("symlink \"two\" \"one\"\n"), "{script}");
        assert!(script.contains("mkdir \"log\"\n"), "{script}");
    }

    #[test]
    fn what_cannot_be_copied_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("s")).unwrap();
        let error = Tree::default().copy(dir.path(), Path::new("")).unwrap_err();
        assert!(error.to_string().contains("is a socket"), "{error}");
        let mut tree = Tree::default();
        tree.file(Path::new("a\"b"), 0o644, Path::new("/x"));
        assert!(matches!(tree.script(), Err(FactoryError::Kind { .. })));
    }
}
