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
//! appears whole or not at all, so a crash leaves bytes without a link, never a link to half a blob.

use std::time::SystemTime;

use formats::digest::{Algorithm, Digest};
use formats::oci::RepositoryName;
use storage::FileError;
use storage::dir::{Dir, DirFile, FileStamp};

use super::backend::{Link, LinkKind, UploadKey};
use crate::route::SessionId;

const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

const UPLOADS: &str = "_uploads";

impl LinkKind {
    fn directory(self) -> &'static str {
        match self {
            LinkKind::Blob => "_blobs",
            LinkKind::Manifest => "_manifests",
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

/// Everything below `repositories/`. With `clean`, what killed writers left is removed on the way, or
/// made durable: what is built on it from now on must not outlive it.
pub(super) fn read_all(root: &dyn Dir, clean: bool) -> Result<Found, FileError> {
    let mut found = Found::default();
    let mut open: Vec<(String, Option<Box<dyn Dir>>)> = vec![(String::new(), None)];
    while let Some((name, directory)) = open.pop() {
        let directory = directory.as_deref().unwrap_or(root);
        if let Ok(name) = name.parse::<RepositoryName>() {
            read(directory, &name, clean, &mut found)?;
        }
        if clean {
            directory.sync()?;
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
    repository: &dyn Dir,
    name: &RepositoryName,
    clean: bool,
    found: &mut Found,
) -> Result<(), FileError> {
    for kind in [LinkKind::Blob, LinkKind::Manifest] {
        for_each(repository, kind.directory(), clean, |algorithm, directory, hex| {
            let Ok(digest) = format!("{}:{hex}", algorithm.name()).parse() else { return Ok(()) };
            let Some(file) = ours(directory.open_file(hex))? else { return Ok(()) };
            let modified = stamp(file.as_ref(), directory, hex)?.modified();
            let Some(media_type) = read_short(file.as_ref(), directory, hex)? else {
                return Ok(());
            };
            found.links.push(Link { name: name.clone(), kind, digest, media_type, modified });
            Ok(())
        })?;
    }
    for_each(repository, UPLOADS, clean, |algorithm, directory, id| {
        let Ok(id) = id.parse::<SessionId>() else { return Ok(()) };
        let Some(file) = ours(directory.open_file(id.as_str()))? else { return Ok(()) };
        let stamp = stamp(file.as_ref(), directory, id.as_str())?;
        let key = UploadKey { name: name.clone(), id, algorithm };
        found.uploads.push((key, stamp.len, stamp.modified()));
        Ok(())
    })
}

fn stamp(file: &dyn DirFile, directory: &dyn Dir, name: &str) -> Result<FileStamp, FileError> {
    let path = directory.shown(name);
    file.stamp().map_err(|source| FileError::Io { action: "stat", path, source })
}

/// A planted link or pipe is not followed and shows nothing. What cannot be opened is an error: a
/// collection would take what it shows for garbage.
fn ours<T>(opened: Result<Option<T>, FileError>) -> Result<Option<T>, FileError> {
    match opened {
        Err(FileError::Symlink(_) | FileError::NotRegular(_)) => Ok(None),
        opened => opened,
    }
}

/// What a link says, if that is text; a media type is shorter than 256 bytes.
fn read_short(
    file: &dyn DirFile,
    directory: &dyn Dir,
    name: &str,
) -> Result<Option<String>, FileError> {
    let failed = |source| FileError::Io { action: "read", path: directory.shown(name), source };
    let mut bytes = [0; 256];
    let mut len = 0;
    while let got @ 1.. = file.read_at(&mut bytes[len..], len as u64).map_err(failed)? {
        len += got;
    }
    Ok(std::str::from_utf8(&bytes[..len]).ok().map(str::to_owned))
}

fn for_each(
    repository: &dyn Dir,
    kind: &str,
    clean: bool,
    mut take: impl FnMut(Algorithm, &dyn Dir, &str) -> Result<(), FileError>,
) -> Result<(), FileError> {
    let Some(kind) = repository.subdirectory(kind)? else { return Ok(()) };
    if clean {
        kind.sync()?;
    }
    for algorithm in ALGORITHMS {
        let Some(directory) = kind.subdirectory(algorithm.name())? else { continue };
        if clean {
            directory.remove_stale()?;
            directory.sync()?;
        }
        for name in directory.names()? {
            take(algorithm, directory.as_ref(), &name)?;
        }
    }
    Ok(())
}

/// Where uploads to a repository are, made when it is missing.
pub(super) fn uploads(
    root: &dyn Dir,
    name: &RepositoryName,
    algorithm: Algorithm,
) -> Result<Box<dyn Dir>, FileError> {
    make(root, name, UPLOADS, algorithm)
}

fn make(
    root: &dyn Dir,
    name: &RepositoryName,
    kind: &str,
    algorithm: Algorithm,
) -> Result<Box<dyn Dir>, FileError> {
    let mut parts = name.as_str().split('/').chain([kind, algorithm.name()]);
    let first = parts.next().unwrap_or(kind);
    let mut directory = root.subdirectory_or_create(first)?;
    for part in parts {
        directory = directory.subdirectory_or_create(part)?;
    }
    Ok(directory)
}

/// Makes a link, durably.
pub(super) fn add(
    root: &dyn Dir,
    name: &RepositoryName,
    kind: LinkKind,
    digest: &Digest,
    content: &str,
) -> Result<(), FileError> {
    let directory = make(root, name, kind.directory(), digest.algorithm())?;
    directory.replace(&digest.hex(), content.as_bytes())
}

/// Removes a link, durably; whether there was one.
pub(super) fn remove(
    root: &dyn Dir,
    name: &RepositoryName,
    kind: LinkKind,
    digest: &Digest,
) -> Result<bool, FileError> {
    let mut directory: Option<Box<dyn Dir>> = None;
    let parts = name.as_str().split('/').chain([kind.directory(), digest.algorithm().name()]);
    for part in parts {
        let above = directory.as_deref().unwrap_or(root);
        match above.subdirectory(part)? {
            Some(inside) => directory = Some(inside),
            None => return Ok(false),
        }
    }
    let directory = directory.as_deref().unwrap_or(root);
    let removed = directory.unlink(&digest.hex())?;
    directory.sync()?;
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use storage::dir::Policy;
    use storage::host::{Host as _, System};

    use super::*;

    #[test]
    fn links_are_found_again_and_strangers_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let root = System.open_dir(dir.path(), Policy::Public).unwrap();
        let (a, b): (RepositoryName, RepositoryName) =
            ("a".parse().unwrap(), "a/b".parse().unwrap());
        let digest = Digest::sha256_of(b"x");
        add(root.as_ref(), &a, LinkKind::Blob, &digest, "").unwrap();
        add(root.as_ref(), &b, LinkKind::Manifest, &digest, "type/x").unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(outside.path().join("_blobs/sha256")).unwrap();
        std::fs::write(outside.path().join("_blobs/sha256").join(digest.hex()), "").unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("planted")).unwrap();
        std::fs::write(dir.path().join("a/_blobs/sha256/not-a-digest"), "").unwrap();

        let found = read_all(root.as_ref(), true).unwrap().links;
        let found: Vec<_> =
            found.iter().map(|it| (it.name.as_str(), it.kind, it.media_type.as_str())).collect();
        assert_eq!(found, [("a", LinkKind::Blob, ""), ("a/b", LinkKind::Manifest, "type/x")]);

        assert!(remove(root.as_ref(), &a, LinkKind::Blob, &digest).unwrap());
        assert!(!remove(root.as_ref(), &a, LinkKind::Blob, &digest).unwrap());
        assert_eq!(read_all(root.as_ref(), true).unwrap().links.len(), 1);
    }
}
