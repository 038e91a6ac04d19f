//! One agent at a time: an exclusive lock on an open descriptor.
//!
//! The kernel gives the lock back when its holder ends, however it ends, so a killed agent blocks
//! nobody. The process id in the file is for messages; nothing is decided by it.

use std::fs::File;
use std::io::{Read as _, Write as _};

use rustix::fs::{self, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::directory::Directory;
use crate::error::{FileError, StoreError};
use crate::files::FsDir;
use crate::folder::Locked;
use crate::private;

/// The lock on a state directory (file `lock`), held until dropped.
#[derive(Debug)]
pub struct StateLock {
    _held: Box<dyn Locked>,
}

impl StateLock {
    /// Takes the lock, or says at once who has it.
    pub fn acquire(state: &FsDir) -> Result<Self, StoreError> {
        Ok(StateLock { _held: state.lock()? })
    }
}

/// The open file that carries the lock.
#[derive(Debug)]
struct LockFile(File);

impl Locked for LockFile {}

/// Takes the lock of a directory of the system.
pub(crate) fn take(directory: &Directory) -> Result<Box<dyn Locked>, StoreError> {
    let path = directory.shown("lock");
    let failed = |action, errno: Errno| StoreError::Write(FileError::io(action, &path, errno));
    let flags =
        OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = fs::openat(directory.fd(), "lock", flags, Mode::from_bits_truncate(0o600))
        .map_err(|errno| failed("open", errno))?;
    private::check_owned(&fd, &path)?;
    let mut file = File::from(fd);
    loop {
        match fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut text = String::new();
                let _ = (&file).take(20).read_to_string(&mut text);
                return Err(StoreError::Busy { path, holder: text.trim().parse().ok() });
            }
            Err(errno) => return Err(failed("lock", errno)),
        }
    }
    // Only for the message above: a full disk must not keep an agent from working.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(Box::new(LockFile(file)))
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // Said outright: closing alone would leave the lock to a child process that is just being
        // started and has not closed its copy yet. An error means that there is no lock.
        let _ = fs::flock(&self.0, FlockOperation::Unlock);
    }
}
