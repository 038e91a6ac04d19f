//! Which blobs and manifests were pushed to which repository, on disk.
//!
//! ```text
//!  repositories/<name>/_blobs/<algorithm>/<hex>       empty
//!  repositories/<name>/_manifests/<algorithm>/<hex>   the media type it was pushed as
//! ```
//!
//! No component of a repository name begins with `_`, so the two kinds of directory never meet. A
//! link is written after the bytes it shows and removed before them; each is one small file that
//! appears whole or not at all, so a crash leaves bytes nobody sees, never a link to half a blob.

use std::collections::BTreeMap;

use formats::digest::{Algorithm, Digest};
use formats::oci::RepositoryName;
use rustix::fs::Mode;
use storage::{Directory, FileError};

use super::catalog::Linked;

const DIR_MODE: Mode = Mode::from_bits_truncate(0o755);
const FILE_MODE: Mode = Mode::from_bits_truncate(0o644);
const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

/// The kind of a link.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Blob,
    Manifest,
}

impl Kind {
    fn directory(self) -> &'static str {
        match self {
            Kind::Blob => "_blobs",
            Kind::Manifest => "_manifests",
        }
    }
}

/// Everything that is linked below `repositories/`. With `clean`, what killed writers left is
/// removed on the way.
pub(super) fn read_all(
    root: &Directory,
    clean: bool,
) -> Result<BTreeMap<RepositoryName, Linked>, FileError> {
    let mut found = BTreeMap::new();
    let mut open = vec![(String::new(), None)];
    while let Some((name, directory)) = open.pop() {
        let directory = directory.as_ref().unwrap_or(root);
        if let Ok(name) = name.parse::<RepositoryName>() {
            let linked = read(directory, clean)?;
            if linked != Linked::default() {
                found.insert(name, linked);
            }
        }
        for child in directory.names()? {
            let below = if name.is_empty() { child.clone() } else { format!("{name}/{child}") };
            if below.parse::<RepositoryName>().is_err() {
                continue;
            }
            // A planted link or file is not ours and shows nothing.
            if let Ok(Some(inside)) = directory.subdirectory(&child) {
                open.push((below, Some(inside)));
            }
        }
    }
    Ok(found)
}

fn read(repository: &Directory, clean: bool) -> Result<Linked, FileError> {
    let mut linked = Linked::default();
    for_each(repository, Kind::Blob, clean, |_, _, digest| {
        linked.blobs.insert(digest);
        Ok(())
    })?;
    for_each(repository, Kind::Manifest, clean, |directory, hex, digest| {
        let Some(file) = directory.open_file(hex)? else { return Ok(()) };
        if let Ok(media_type) = std::io::read_to_string(std::io::Read::take(file, 256)) {
            linked.manifests.insert(digest, media_type);
        }
        Ok(())
    })?;
    Ok(linked)
}

fn for_each(
    repository: &Directory,
    kind: Kind,
    clean: bool,
    mut take: impl FnMut(&Directory, &str, Digest) -> Result<(), FileError>,
) -> Result<(), FileError> {
    let Some(kind) = repository.subdirectory(kind.directory())? else { return Ok(()) };
    for algorithm in ALGORITHMS {
        let Some(directory) = kind.subdirectory(algorithm.name())? else { continue };
        if clean {
            directory.remove_stale()?;
        }
        for hex in directory.names()? {
            if let Ok(digest) = format!("{}:{hex}", algorithm.name()).parse() {
                take(&directory, &hex, digest)?;
            }
        }
    }
    Ok(())
}

/// Makes a link, durably.
pub(super) fn add(
    root: &Directory,
    name: &RepositoryName,
    kind: Kind,
    digest: &Digest,
    content: &str,
) -> Result<(), FileError> {
    let mut directory = None;
    let parts = name.as_str().split('/').chain([kind.directory(), digest.algorithm().name()]);
    for part in parts {
        let above = directory.as_ref().unwrap_or(root);
        directory = Some(above.subdirectory_or_create(part, DIR_MODE)?);
    }
    let directory = directory.as_ref().unwrap_or(root);
    directory.replace(&digest.hex(), content.as_bytes(), FILE_MODE)
}

/// Removes a link, durably; whether there was one.
pub(super) fn remove(
    root: &Directory,
    name: &RepositoryName,
    kind: Kind,
    digest: &Digest,
) -> Result<bool, FileError> {
    let mut directory = None;
    let parts = name.as_str().split('/').chain([kind.directory(), digest.algorithm().name()]);
    for part in parts {
        let above = directory.as_ref().unwrap_or(root);
        match above.subdirectory(part)? {
            Some(inside) => directory = Some(inside),
            None => return Ok(false),
        }
    }
    let directory = directory.as_ref().unwrap_or(root);
    let removed = directory.remove(&digest.hex())?;
    directory.sync()?;
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_again_and_strangers_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let root = Directory::open(dir.path()).unwrap();
        let (a, b): (RepositoryName, RepositoryName) =
            ("a".parse().unwrap(), "a/b".parse().unwrap());
        let digest = Digest::sha256_of(b"x");
        add(&root, &a, Kind::Blob, &digest, "").unwrap();
        add(&root, &b, Kind::Manifest, &digest, "type/x").unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(outside.path().join("_blobs/sha256")).unwrap();
        std::fs::write(outside.path().join("_blobs/sha256").join(digest.hex()), "").unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("planted")).unwrap();
        std::fs::write(dir.path().join("a/_blobs/sha256/not-a-digest"), "").unwrap();

        let found = read_all(&root, true).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), [&a, &b]);
        assert_eq!(found[&a].blobs.iter().collect::<Vec<_>>(), [&digest]);
        assert_eq!(found[&b].manifests[&digest], "type/x");

        assert!(remove(&root, &a, Kind::Blob, &digest).unwrap());
        assert!(!remove(&root, &a, Kind::Blob, &digest).unwrap());
        assert!(!read_all(&root, true).unwrap().contains_key(&a));
    }
}
