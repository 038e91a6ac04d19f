//! A hardware watchdog: it restarts the machine unless it is fed.
//!
//! ```text
//!  open (armed by the kernel) ─► timeout ─► feed … feed ─► disarm: the letter V, then close
//!                                             └ the process dies or stops feeding: the machine restarts
//! ```
//! Sources: `Documentation/watchdog/watchdog-api.rst`. Anything that takes bytes can stand for it in
//! tests: `1` is a meal, `V` the end.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::fs::OFlags;

use crate::ioctl;

/// A watchdog that waits for its food. Dropped without [`Watchdog::disarm`], it goes on waiting.
#[derive(Debug)]
pub struct Watchdog {
    file: File,
    timeout: Duration,
}

impl Watchdog {
    /// Opens and thereby arms it. Drivers know some timeouts only; [`Watchdog::timeout`] tells which
    /// one it took.
    ///
    /// One program at a time can have it: `EBUSY` when systemd does.
    pub fn arm(path: &Path, timeout: Duration) -> io::Result<Self> {
        let flags = OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::APPEND;
        let flags = i32::try_from(flags.bits()).unwrap_or(0);
        let file = OpenOptions::new().write(true).custom_flags(flags).open(path)?;
        let wanted = i32::try_from(timeout.as_secs().max(1)).unwrap_or(i32::MAX);
        let taken = match ioctl::watchdog_set_timeout(&file, wanted) {
            Ok(seconds) => u64::try_from(seconds).unwrap_or(0).max(1),
            // A driver with a fixed timeout, or what stands for one in a test.
            Err(_) => timeout.as_secs().max(1),
        };
        let mut watchdog = Watchdog { file, timeout: Duration::from_secs(taken) };
        watchdog.feed()?;
        Ok(watchdog)
    }

    /// How long it waits for the next meal.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// It waits anew from now on.
    pub fn feed(&mut self) -> io::Result<()> {
        self.file.write_all(b"1")
    }

    /// Stops it, unless the kernel was built or told never to (`nowayout`).
    pub fn disarm(mut self) -> io::Result<()> {
        self.file.write_all(b"V")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_is_told_in_which_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("watchdog");
        let arm = || Watchdog::arm(&path, Duration::from_secs(60));
        assert_eq!(arm().unwrap_err().kind(), io::ErrorKind::NotFound, "nothing is created");
        std::fs::write(&path, "").unwrap();
        let mut watchdog = arm().unwrap();
        assert_eq!(watchdog.timeout(), Duration::from_secs(60));
        watchdog.feed().unwrap();
        watchdog.disarm().unwrap();
        drop(arm().unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "11V1", "no V when it is only dropped");
    }
}
