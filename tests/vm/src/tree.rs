//! A small system as files in memory: written as an initramfs (cpio, `newc`) or into a folder.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use anyhow::{Context, Result};

/// A file of a tree.
#[derive(Debug, Clone)]
enum Node {
    Folder,
    File { bytes: Vec<u8>, mode: u32 },
    Link(String),
}

/// Files by their path, without a leading slash; folders come of themselves.
#[derive(Debug, Clone, Default)]
pub(super) struct Tree {
    nodes: BTreeMap<String, Node>,
}

impl Tree {
    fn put(&mut self, path: &str, node: Node) {
        let mut above = path;
        while let Some((folder, _)) = above.rsplit_once('/') {
            self.nodes.entry(folder.to_owned()).or_insert(Node::Folder);
            above = folder;
        }
        self.nodes.insert(path.to_owned(), node);
    }

    pub(super) fn folder(&mut self, path: &str) {
        self.put(path, Node::Folder);
    }

    pub(super) fn file(&mut self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.put(path, Node::File { bytes: bytes.into(), mode: 0o644 });
    }

    pub(super) fn program(&mut self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.put(path, Node::File { bytes: bytes.into(), mode: 0o755 });
    }

    pub(super) fn copy(&mut self, path: &str, from: &Path) -> Result<()> {
        let bytes = fs::read(from).with_context(|| format!("read {}", from.display()))?;
        self.program(path, bytes);
        Ok(())
    }

    pub(super) fn link(&mut self, path: &str, to: &str) {
        self.put(path, Node::Link(to.to_owned()));
    }

    pub(super) fn remove(&mut self, path: &str) {
        self.nodes.remove(path);
    }

    /// A `newc` archive, as the kernel unpacks it (`Documentation/driver-api/early-userspace`).
    pub(super) fn cpio(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (number, (path, node)) in self.nodes.iter().enumerate() {
            let (mode, bytes): (u32, &[u8]) = match node {
                Node::Folder => (0o40_755, &[]),
                Node::File { bytes, mode } => (0o100_000 | mode, bytes),
                Node::Link(to) => (0o120_777, to.as_bytes()),
            };
            entry(&mut out, number + 1, path, mode, bytes);
        }
        entry(&mut out, 0, "TRAILER!!!", 0, &[]);
        out
    }

    /// Writes it below a folder that exists.
    pub(super) fn write_to(&self, dir: &Path) -> Result<()> {
        for (path, node) in &self.nodes {
            let path = dir.join(path);
            match node {
                Node::Folder => fs::create_dir_all(&path)?,
                Node::File { bytes, mode } => {
                    fs::write(&path, bytes)?;
                    fs::set_permissions(&path, fs::Permissions::from_mode(*mode))?;
                }
                Node::Link(to) => symlink(to, &path)?,
            }
        }
        Ok(())
    }
}

fn entry(out: &mut Vec<u8>, number: usize, path: &str, mode: u32, bytes: &[u8]) {
    let fields = [
        number as u32, // inode
        mode,
        0, // user
        0, // group
        1, // links
        0, // time
        bytes.len() as u32,
        0,
        0,
        0,
        0,
        path.len() as u32 + 1,
        0,
    ];
    out.extend(b"070701");
    for field in fields {
        out.extend(format!("{field:08x}").as_bytes());
    }
    out.extend(path.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend(bytes);
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_before_what_is_in_them() {
        let mut tree = Tree::default();
        tree.file("a/b/c", "text");
        tree.link("a/d", "b/c");
        let archive = tree.cpio();
        assert_eq!(archive.len() % 4, 0);
        let text = String::from_utf8_lossy(&archive);
        let at = |name: &str| text.find(name).unwrap();
        assert!(at("a\0") < at("a/b\0") && at("a/b\0") < at("a/b/c\0"));
        assert_eq!(text.matches("070701").count(), 5);
    }
}
