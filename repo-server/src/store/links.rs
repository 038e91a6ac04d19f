//! Which blobs and manifests were pushed to which repository, on disk, and what is being pushed.
//!
//! ```text
//!  repositories/<name>/_blobs/<algorithm>/<hex>       empty
//!  repositories/<name>/_manifests/<algorithm>/<hex>   the media type it was pushed as
//!  repositories/<name>/_uploads/<algorithm>/<uuid>    bytes received so far
//! ```
//!
//! No component of a repository name begins with `_`, so these never meet a repository. A
//! link is written after the bytes it shows and removed before them; each is one small file that
//! appears whole or not at all, so a crash leaves bytes nobody sees, never a link to half a blob.

use std::fs::File;
use std::time::SystemTime;

use formats::digest::{Algorithm, Digest};
use formats::oci::RepositoryName;
use rustix::fs::Mode;
use storage::{Directory, FileError};

use super::backend::{Kind, Link, UploadKey};
use crate::route::SessionId;

const DIR_MODE: Mode = Mode::from_bits_truncate(0o755);
const FILE_MODE: Mode = Mode::from_bits_truncate(0o644);
const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

const UPLOADS: &str = "_uploads";

impl Kind {
    fn directory(self) -> &'static str {
        match self {
            Kind::Blob => "_blobs",
            Kind::Manifest => "_manifests",
        }
    }
}

/// What is below `repositories/`.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) links: Vec<Link>,
    /// With their length and when they last grew.
    pub(super) uploads: Vec<(UploadKey, u64, SystemTime)>,
}

/// Everything below `repositories/`. With `clean`, what killed writers left is removed on the way.
pub(super) fn read_all(root: &Directory, clean: bool) -> Result<Found, FileError> {
    let mut found = Found::default();
    let mut open = vec![(String::new(), None)];
    while let Some((name, directory)) = open.pop() {
        let directory = directory.as_ref().unwrap_or(root);
        if let Ok(name) = name.parse::<RepositoryName>() {
            read(directory, &name, clean, &mut found)?;
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

fn read(
    repository: &Directory,
    name: &RepositoryName,
    clean: bool,
    found: &mut Found,
) -> Result<(), FileError> {
    for kind in [Kind::Blob, Kind::Manifest] {
        for_each(repository, kind.directory(), clean, |algorithm, directory, hex| {
            let Ok(digest) = format!("{}:{hex}", algorithm.name()).parse() else { return Ok(()) };
            // A planted link is not followed and shows nothing.
            let Ok(Some(file)) = directory.open_file(hex) else { return Ok(()) };
            let modified = modified(&file, directory, hex)?;
            let media_type = std::io::read_to_string(std::io::Read::take(file, 256));
            let Ok(media_type) = media_type else { return Ok(()) };
            found.links.push(Link { name: name.clone(), kind, digest, media_type, modified });
            Ok(())
        })?;
    }
    for_each(repository, UPLOADS, clean, |algorithm, directory, id| {
        let Ok(id) = id.parse::<SessionId>() else { return Ok(()) };
        let Ok(Some(file)) = directory.open_file(id.as_str()) else { return Ok(()) };
        let modified = modified(&file, directory, id.as_str())?;
        let len = file.metadata().map_or(0, |stat| stat.len());
        found.uploads.push((UploadKey { name: name.clone(), id, algorithm }, len, modified));
        Ok(())
    })
}

fn modified(file: &File, directory: &Directory, name: &str) -> Result<SystemTime, FileError> {
    let stat = file.metadata().and_then(|stat| stat.modified());
    let path = directory.shown(name);
    stat.map_err(|source| FileError::Io { action: "stat", path, source })
}

fn for_each(
    repository: &Directory,
    kind: &str,
    clean: bool,
    mut take: impl FnMut(Algorithm, &Directory, &str) -> Result<(), FileError>,
) -> Result<(), FileError> {
    let Some(kind) = repository.subdirectory(kind)? else { return Ok(()) };
    for algorithm in ALGORITHMS {
        let Some(directory) = kind.subdirectory(algorithm.name())? else { continue };
        if clean {
            directory.remove_stale()?;
        }
        for name in directory.names()? {
            take(algorithm, &directory, &name)?;
        }
    }
    Ok(())
}

/// Where uploads to a repository are, made when it is missing.
pub(super) fn uploads(
    root: &Directory,
    name: &RepositoryName,
    algorithm: Algorithm,
) -> Result<Directory, FileError> {
    make(root, name, UPLOADS, algorithm)
}

fn make(
    root: &Directory,
    name: &RepositoryName,
    kind: &str,
    algorithm: Algorithm,
) -> Result<Directory, FileError> {
    let mut parts = name.as_str().split('/').chain([kind, algorithm.name()]);
    let first = parts.next().unwrap_or(kind);
    let mut directory = root.subdirectory_or_create(first, DIR_MODE)?;
    for part in parts {
        directory = directory.subdirectory_or_create(part, DIR_MODE)?;
    }
    Ok(directory)
}

/// Makes a link, durably.
pub(super) fn add(
    root: &Directory,
    name: &RepositoryName,
    kind: Kind,
    digest: &Digest,
    content: &str,
) -> Result<(), FileError> {
    let directory = make(root, name, kind.directory(), digest.algorithm())?;
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

        let found = read_all(&root, true).unwrap().links;
        let found: Vec<_> =
            found.iter().map(|it| (it.name.as_str(), it.kind, it.media_type.as_str())).collect();
        assert_eq!(found, [("a", Kind::Blob, ""), ("a/b", Kind::Manifest, "type/x")]);

        assert!(remove(&root, &a, Kind::Blob, &digest).unwrap());
        assert!(!remove(&root, &a, Kind::Blob, &digest).unwrap());
        assert_eq!(read_all(&root, true).unwrap().links.len(), 1);
    }
}
