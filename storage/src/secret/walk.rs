//! Walks a path one name at a time, on open directories: what was judged is what is gone through.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    CWD, FileType, Mode, OFlags, PROC_SUPER_MAGIC, Stat, fstat, fstatfs, openat, readlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::groups;
use crate::error::{FileError, StoreError};

/// As many as the kernel follows (path_resolution(7)); ends circles.
const LINKS: u32 = 40;

/// An open file at the end of a path that nobody else could have made to lead elsewhere.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) file: File,
    pub(super) stat: Stat,
    /// It was a descriptor of this process, not a name.
    pub(super) inherited: bool,
}

/// Whose files are taken: root's, the own user's, and those of who called `sudo`.
///
/// `sudo` sets `SUDO_UID`; git asks it for the same reason: root's command line names files of the
/// user who typed it, who is root already.
#[derive(Debug)]
pub(super) struct Owners(Vec<u32>);

impl Owners {
    pub(super) fn of_this_process() -> Self {
        let own = geteuid().as_raw();
        let caller = std::env::var("SUDO_UID").ok().filter(|_| own == 0);
        let caller = caller.and_then(|uid| uid.parse().ok());
        Owners([Some(0), Some(own), caller].into_iter().flatten().collect())
    }

    pub(super) fn check(&self, path: &Path, stat: &Stat) -> Result<(), StoreError> {
        if self.0.contains(&stat.st_uid) {
            return Ok(());
        }
        let why = format!("belongs to user {}", stat.st_uid);
        let remedy = format!("chown -h {} {}", geteuid().as_raw(), path.display());
        Err(StoreError::InsecurePerms { path: path.to_owned(), why, remedy })
    }

    /// A directory in which nobody else can exchange an entry.
    fn check_directory(&self, path: &Path, stat: &Stat) -> Result<(), StoreError> {
        self.check(path, stat)?;
        let sticky = stat.st_mode & 0o1000 != 0;
        let shared = || !groups::is_private(stat.st_gid, stat.st_uid);
        let open = stat.st_mode & 0o002 != 0 || (stat.st_mode & 0o020 != 0 && shared());
        if !open || sticky {
            return Ok(());
        }
        let (why, remedy) = ("can be changed by others".to_owned(), path.display());
        let remedy = format!("chmod go-w {remedy}");
        Err(StoreError::InsecurePerms { path: path.to_owned(), why, remedy })
    }
}

/// Opens the file that a path leads to. With `pipe`, an inherited pipe as well.
pub(super) fn open(path: &Path, pipe: bool, owners: &Owners) -> Result<Found, StoreError> {
    let failed = |errno: Errno| StoreError::Read(FileError::io("open", path, errno));
    let start = match path.is_absolute() {
        true => PathBuf::new(),
        false => std::env::current_dir()
            .map_err(|error| StoreError::Read(FileError::io("open", path, error)))?,
    };
    let mut rest = names(&start.join(path));
    let (mut at, mut shown) = root(owners)?;
    let mut links = 0;
    while let Some(name) = rest.pop() {
        let here = shown.join(&name);
        let entry = entry(&at, &name).map_err(failed)?;
        let stat = fstat(&entry).map_err(failed)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                owners.check_directory(&here, &stat)?;
                shown = if name == ".." { parent(&shown) } else { here };
                at = entry;
            }
            // In `/proc/self/fd`: no path, but something that is open already.
            FileType::Symlink if rest.is_empty() && is_proc(&at) => {
                return inherited(&at, &name, path, pipe);
            }
            FileType::Symlink => {
                owners.check(&here, &stat)?;
                links += 1;
                if links > LINKS {
                    return Err(failed(Errno::LOOP));
                }
                let target = readlinkat(&entry, c"", Vec::new()).map_err(failed)?;
                let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                if target.is_absolute() {
                    (at, shown) = root(owners)?;
                }
                rest.extend(names(&target));
            }
            _ if !rest.is_empty() => return Err(failed(Errno::NOTDIR)),
            FileType::RegularFile => return regular(&at, &name, path),
            _ => break,
        }
    }
    Err(StoreError::Read(FileError::NotRegular(path.to_owned())))
}

/// The names of a path, last one first.
fn names(path: &Path) -> Vec<OsString> {
    let name = |component: Component<'_>| match component {
        Component::Normal(_) | Component::ParentDir => Some(component.as_os_str().to_owned()),
        _ => None,
    };
    path.components().rev().filter_map(name).collect()
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(path).to_owned()
}

fn root(owners: &Owners) -> Result<(OwnedFd, PathBuf), StoreError> {
    let path = PathBuf::from("/");
    let failed = |errno: Errno| StoreError::Read(FileError::io("open", Path::new("/"), errno));
    let fd = openat(CWD, &path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed)?;
    owners.check_directory(&path, &fstat(&fd).map_err(failed)?)?;
    Ok((fd, path))
}

/// An entry as such: a link is not followed, a device not opened.
fn entry(at: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    openat(at, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

fn is_proc(at: &OwnedFd) -> bool {
    fstatfs(at).is_ok_and(|stat| stat.f_type == PROC_SUPER_MAGIC)
}

const READ: OFlags =
    OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

fn regular(at: &OwnedFd, name: &OsStr, path: &Path) -> Result<Found, StoreError> {
    let failed = |errno: Errno| StoreError::Read(FileError::io("open", path, errno));
    let fd = openat(at, name, READ | OFlags::NOFOLLOW, Mode::empty()).map_err(failed)?;
    let stat = fstat(&fd).map_err(failed)?;
    Ok(Found { file: fd.into(), stat, inherited: false })
}

/// Opens what an entry of `/proc/PID/fd` stands for, unless that would wait.
fn inherited(at: &OwnedFd, name: &OsStr, path: &Path, pipe: bool) -> Result<Found, StoreError> {
    let failed = |errno: Errno| StoreError::Read(FileError::io("open", path, errno));
    let refused = || StoreError::Read(FileError::NotRegular(path.to_owned()));
    let fd = openat(at, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    match FileType::from_raw_mode(fstat(&fd).map_err(failed)?.st_mode) {
        FileType::RegularFile => {}
        FileType::Fifo if pipe => {}
        _ => return Err(refused()),
    }
    let file: File = openat(at, name, READ, Mode::empty())
        .map_err(|errno| StoreError::Read(FileError::io("open", path, io::Error::from(errno))))?
        .into();
    let stat = fstat(&file).map_err(failed)?;
    Ok(Found { file, stat, inherited: true })
}
