//! Key files on disk.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use formats::tuf::Key;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use storage::StoreError;
use storage::secret::{self, Readers, Rule};
use zeroize::Zeroizing;

use super::{
    DocumentError, KeyDocument, KeyError, KeyLocation, PUBLIC_ENDING, SECRET_ENDING, SecretKey,
    UriError, public,
};

/// 16 KiB: forty times a key file; bounds what a wrong path makes us read.
const FILE_LIMIT: u64 = 16 << 10;

/// Writes `DIR/NAME.key` (0600) and `DIR/NAME.pub`, making DIR (0700) when it is missing.
///
/// Neither file may exist. Both are synced; after a crash between them the secret key is there
/// and [`write_public`] makes the other.
pub fn create(directory: &Path, name: &str, key: &SecretKey) -> Result<(), KeyError> {
    create_from(directory, name, SECRET_ENDING, &key.to_bytes(), &key.key()?)
}

/// The same with the bytes of the private file given: a secret under a passphrase, or the URI of
/// a key that lies elsewhere.
pub fn create_from(
    directory: &Path,
    name: &str,
    kind: &str,
    bytes: &[u8],
    key: &Key,
) -> Result<(), KeyError> {
    let (private, public) = (ending(name, kind), ending(name, PUBLIC_ENDING));
    let shown = directory.join(&private);
    make_directory(directory)?;
    let dir = open_directory(directory).map_err(|error| write_error(directory)(error.into()))?;
    if exists(&dir, &public).map_err(write_error(&shown))? {
        return Err(KeyError::Exists { path: directory.join(&public) });
    }
    write_new(&dir, &private, 0o600, bytes).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => KeyError::Exists { path: shown.clone() },
        _ => write_error(&shown)(error),
    })?;
    write_public(directory, name, key)
}

/// Makes a directory (0700) when it is missing.
pub fn make_directory(directory: &Path) -> Result<(), KeyError> {
    match rustix::fs::mkdir(directory, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(write_error(directory)(error.into())),
    }
}

/// Puts other bytes in the place of a private file, whole or not at all.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), KeyError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let failed = write_error(path);
    // tempfile makes files that only their owner can reach.
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(&failed)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(&failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    File::open(directory).and_then(|dir| dir.sync_all()).map_err(&failed)
}

/// Writes `DIR/NAME.pub`, which must not exist.
pub fn write_public(directory: &Path, name: &str, key: &Key) -> Result<(), KeyError> {
    let file = ending(name, PUBLIC_ENDING);
    let shown = directory.join(&file);
    let mut bytes = key.value().to_bytes();
    bytes.push(b'\n');
    let dir = open_directory(directory).map_err(|error| write_error(directory)(error.into()))?;
    write_new(&dir, &file, 0o644, &bytes).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => KeyError::Exists { path: shown.clone() },
        _ => write_error(&shown)(error),
    })
}

/// Reads a key file, see [`secret::read`].
pub fn read(path: &Path) -> Result<KeyDocument, KeyError> {
    let bytes = read_private(path, "key")?;
    KeyDocument::parse(&bytes)
        .map_err(|source| KeyError::Document { path: path.to_owned(), source })
}

/// The bytes of a file that only its owner can read, or of a pipe that this process was given.
pub fn read_private(path: &Path, what: &'static str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let rule = Rule::of(Readers::Nobody).or_pipe();
    secret::read(path, FILE_LIMIT, rule).map_err(|error| unread(what, path, error))
}

/// The first line of such a file.
pub(super) fn read_private_line(
    path: &Path,
    what: &'static str,
) -> Result<Zeroizing<String>, KeyError> {
    let rule = Rule::of(Readers::Nobody).or_pipe();
    secret::read_line(path, FILE_LIMIT, rule).map_err(|error| unread(what, path, error))
}

/// Reads a public key file: a TUF key object as it stands in root metadata (TUF §4.3). Nobody else
/// may change it: whoever could would choose a signer.
pub fn read_public(path: &Path) -> Result<Key, KeyError> {
    let what = "public key";
    let rule = Rule::of(Readers::Everybody).or_pipe();
    let bytes = secret::read(path, FILE_LIMIT, rule).map_err(|error| unread(what, path, error))?;
    public::key_object(&bytes).map_err(|why| KeyError::Document {
        path: path.to_owned(),
        source: DocumentError::Public(why),
    })
}

/// The bytes of a key of another tool. Its mode is the other tool's; a pipe keeps it off the disk.
pub fn read_import(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let what = "key to import";
    let rule = Rule::of(Readers::Everybody).or_pipe();
    secret::read(path, FILE_LIMIT, rule).map_err(|error| unread(what, path, error))
}

/// Reads a `.uri` file. As private as a key: who can write it chooses what signs.
pub fn read_uri(path: &Path) -> Result<KeyLocation, KeyError> {
    let bytes = read_private(path, "key URI")?;
    let wrong = |why: String| KeyError::Uri { path: path.to_owned(), why };
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong("is not UTF-8".to_owned()))?;
    text.trim().parse().map_err(|error: UriError| wrong(error.to_string()))
}

fn unread(what: &'static str, path: &Path, error: StoreError) -> KeyError {
    let path = path.to_owned();
    let source = match error {
        StoreError::InsecurePerms { path, why, remedy } => {
            return KeyError::Permissions { what, path, why, remedy };
        }
        StoreError::Read(error) => error.into(),
        other => io::Error::other(other),
    };
    KeyError::Read { what, path, source }
}

fn open_directory(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn exists(dir: &OwnedFd, name: &str) -> io::Result<bool> {
    match rustix::fs::statat(dir, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A new file that has its mode from its first moment on, synced with its directory entry. A
/// failed write leaves nothing.
fn write_new(dir: &OwnedFd, name: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file: File =
        rustix::fs::openat(dir.as_fd(), name, flags, Mode::from_raw_mode(mode))?.into();
    let written = file
        .write_all(bytes)
        .and_then(|()| file.sync_all())
        .and_then(|()| Ok(rustix::fs::fsync(dir)?));
    if written.is_err() {
        // Half a key is no key; if this fails too, reading it will.
        let _ = rustix::fs::unlinkat(dir, name, rustix::fs::AtFlags::empty());
    }
    written
}

fn ending(name: &str, ending: &str) -> String {
    format!("{name}.{ending}")
}

fn write_error(path: &Path) -> impl Fn(io::Error) -> KeyError + use<> {
    let path: PathBuf = path.to_owned();
    move |source| KeyError::Write { path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn chmod(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_key_is_private_from_its_first_moment() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        let key = SecretKey::from_seed(&[3; 32]);
        create(&keys, "root", &key).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&keys), 0o700);
        assert_eq!(mode(&keys.join("root.key")), 0o600);
        assert_eq!(read(&keys.join("root.key")).unwrap().key().unwrap(), key.key().unwrap());
        assert_eq!(read_public(&keys.join("root.pub")).unwrap(), key.key().unwrap());
    }

    #[test]
    fn nothing_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let key = SecretKey::from_seed(&[3; 32]);
        create(dir.path(), "root", &key).unwrap();
        let again = create(dir.path(), "root", &SecretKey::from_seed(&[4; 32]));
        assert!(matches!(again, Err(KeyError::Exists { .. })), "{again:?}");
        std::fs::remove_file(dir.path().join("root.pub")).unwrap();
        let again = create(dir.path(), "root", &SecretKey::from_seed(&[4; 32]));
        assert!(matches!(again, Err(KeyError::Exists { .. })), "{again:?}");
        assert_eq!(read(&dir.path().join("root.key")).unwrap().key().unwrap(), key.key().unwrap());
    }

    #[test]
    fn what_others_can_reach_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        create(dir.path(), "root", &SecretKey::from_seed(&[3; 32])).unwrap();
        let path = dir.path().join("root.key");
        for mode in [0o640, 0o604, 0o602, 0o644] {
            chmod(&path, mode);
            let error = read(&path).expect_err("a loose mode was accepted");
            assert_eq!(error.reason().code(), "insecure_perms", "{mode:o}");
        }
        chmod(&path, 0o400);
        assert!(read(&path).is_ok());
        let link = dir.path().join("link.key");
        symlink(&path, &link).unwrap();
        assert!(read(&link).is_ok(), "a link of ours, as Kubernetes makes them");
        assert!(matches!(read(dir.path()), Err(KeyError::Read { what: "key", .. })));
    }

    #[test]
    fn a_public_key_file_is_a_tuf_key() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in
            [("empty", ""), ("text", "ssh-ed25519 AAAA"), ("secret", r#"{"type":"racklet-key-1"}"#)]
        {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            assert!(matches!(read_public(&path), Err(KeyError::Document { .. })), "{name}");
        }
    }
}
