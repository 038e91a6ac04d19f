//! The one reader of files that hold a secret, or that decide whom a program believes.
//!
//! Passphrases, PINs, tokens, private keys and CA files come from where operators keep them: a file,
//! a link that Kubernetes, systemd or Nix made, a descriptor (`/dev/stdin`, `<(pass show x)`).
//! What is read is as private as the weakest step on the way to it, so the path is walked one
//! name at a time on open directories, as `sshd` judges its files:
//!
//! | on the way | has to |
//! |---|---|
//! | a directory | belong to root or to the own user, and be writable by nobody else (or be sticky) |
//! | a symbolic link | belong to root or to the own user; its target is walked by the same rules |
//! | the file | be a regular file, belong to root or to the own user, and be as closed as [`Rule`] says |
//! | an inherited descriptor | be a regular file of the mode above, or a pipe where the rule takes one |
//!
//! The own user is the effective one and, for root, the one that called `sudo`. "Nobody else"
//! does not count the group that only the own user is in: many systems make one for each user,
//! with a umask of 002.
//!
//! Nothing here waits for a named pipe, a device or a socket: they are refused before they are
//! opened. A pipe that was inherited is read to its end.

use std::io::Read as _;
use std::path::Path;

use rustix::fs::{FileType, OFlags, Stat, fcntl_setfl};
use rustix::process::geteuid;
use zeroize::Zeroizing;

use crate::error::{FileError, StoreError};

mod groups;
mod walk;

use walk::{Found, Owners};

/// Who may read a file besides root and the own user. Nobody else may ever change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Nobody: 0600. The group may read what belongs to root, because that is how root gives a
    /// file to an ordinary user (Kubernetes' `fsGroup`, systemd's credentials).
    Nobody,
    /// The group: 0640.
    Group,
    /// Everybody: 0644. For what is no secret, but decides who is believed.
    Everybody,
}

/// What a file has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    readers: Readers,
    pipe: bool,
}

impl Rule {
    /// A regular file that only these can read.
    pub const fn of(readers: Readers) -> Self {
        Rule { readers, pipe: false }
    }

    /// The same, or the pipe behind an inherited descriptor. Reading it waits for its writer.
    #[must_use]
    pub const fn or_pipe(self) -> Self {
        Rule { pipe: true, ..self }
    }
}

/// All bytes of a file of at most `max` bytes.
///
/// Errors: [`StoreError::InsecurePerms`] with the command that mends it,
/// [`StoreError::TooLarge`], and [`StoreError::Read`] for every error of the system.
pub fn read(path: &Path, max: u64, rule: Rule) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let found = walk::open(path, rule.pipe, &Owners::of_this_process())?;
    judge(&found, rule, path)?;
    if FileType::from_raw_mode(found.stat.st_mode) == FileType::Fifo {
        // It was opened without waiting, to see what it is. Now its writer may take its time.
        fcntl_setfl(&found.file, OFlags::empty())
            .map_err(|errno| StoreError::Read(FileError::io("read", path, errno)))?;
    }
    let expected = u64::try_from(found.stat.st_size).unwrap_or(0).min(max);
    // Room for all of it at once: a buffer that grows leaves copies of the secret behind.
    let room = if rule.pipe { max } else { expected }.saturating_add(2).min(ROOM);
    let mut bytes = Zeroizing::new(Vec::with_capacity(room as usize));
    found
        .file
        .take(max.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| StoreError::Read(FileError::io("read", path, error)))?;
    if bytes.len() as u64 > max {
        return Err(StoreError::TooLarge { name: path.display().to_string(), max });
    }
    Ok(bytes)
}

/// 4 MiB: more than any secret; what is reserved at once, whatever a caller allows.
const ROOM: u64 = 4 << 20;

/// Whether a file is as closed as the rule says, without reading it.
pub fn check(path: &Path, rule: Rule) -> Result<(), StoreError> {
    judge(&walk::open(path, rule.pipe, &Owners::of_this_process())?, rule, path)
}

/// The first line of such a file, without its end: text, not empty.
pub fn read_line(path: &Path, max: u64, rule: Rule) -> Result<Zeroizing<String>, StoreError> {
    let bytes = read(path, max, rule)?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match std::str::from_utf8(line) {
        Ok(text) if !text.is_empty() => Ok(Zeroizing::new(text.to_owned())),
        _ => {
            let why = "its first line is empty or not UTF-8";
            let error = std::io::Error::new(std::io::ErrorKind::InvalidData, why);
            Err(StoreError::Read(FileError::io("read", path, error)))
        }
    }
}

/// Judges what was opened, by its descriptor.
fn judge(found: &Found, rule: Rule, path: &Path) -> Result<(), StoreError> {
    match FileType::from_raw_mode(found.stat.st_mode) {
        FileType::RegularFile => {}
        // The pipe was inherited from the parent process; no other process can reach it.
        FileType::Fifo if found.inherited && rule.pipe => return Ok(()),
        _ => return Err(StoreError::Read(FileError::NotRegular(path.to_owned()))),
    }
    Owners::of_this_process().check(path, &found.stat)?;
    match excess(&found.stat, rule.readers, geteuid().as_raw(), groups::is_private) {
        None => Ok(()),
        Some((why, remedy)) => {
            let why = format!("{why} (mode {:03o})", found.stat.st_mode & 0o777);
            let remedy = format!("{remedy} {}", path.display());
            Err(StoreError::InsecurePerms { path: path.to_owned(), why, remedy })
        }
    }
}

/// What a mode allows to others beyond the rule, and the command that takes it away.
fn excess(
    stat: &Stat,
    readers: Readers,
    user: u32,
    is_private: impl Fn(u32, u32) -> bool,
) -> Option<(&'static str, &'static str)> {
    let shared = || !is_private(stat.st_gid, stat.st_uid);
    let given = stat.st_uid == 0 && user != 0;
    let (readable, remedy) = match readers {
        Readers::Nobody if given => (0o004, "chmod 640"),
        Readers::Nobody => (0o044, "chmod 600"),
        Readers::Group => (0o004, "chmod 640"),
        Readers::Everybody => (0, "chmod go-w"),
    };
    if stat.st_mode & 0o002 != 0 || (stat.st_mode & 0o020 != 0 && shared()) {
        return Some(("can be changed by others", remedy));
    }
    (stat.st_mode & readable != 0).then_some(("can be read by others", remedy))
}

#[cfg(test)]
mod tests;
