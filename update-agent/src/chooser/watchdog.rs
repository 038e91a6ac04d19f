//! The hardware watchdog, armed before a slot is tried and left running.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use super::{say, sys};

/// Between two feedings while the chooser waits: below any watchdog's own period.
const SLICE: Duration = Duration::from_secs(2);

/// An armed watchdog, or none. Never disarmed: its file is left open, and its letter is not `V`.
#[derive(Debug)]
pub(super) struct Watchdog {
    file: Option<File>,
    timeout: Duration,
}

impl Watchdog {
    /// Arms it. A machine without one boots all the same, and says so on the console.
    pub(super) fn arm(path: &Path, timeout: Duration) -> Self {
        let mut armed = Watchdog { file: None, timeout };
        if path.as_os_str().is_empty() {
            return armed;
        }
        match OpenOptions::new().write(true).open(path) {
            Ok(file) => {
                match sys::set_watchdog_timeout(&file, timeout) {
                    Ok(real) => armed.timeout = real,
                    // It has a period of its own, which cannot be changed.
                    Err(error) => say(format_args!("watchdog: set its timeout: {error}")),
                }
                armed.file = Some(file);
                armed.feed();
            }
            Err(error) => say(format_args!("no watchdog, a hang would not end: {error}")),
        }
        armed
    }

    /// The period it was armed with, if it was.
    pub(super) fn armed(&self) -> Option<Duration> {
        self.file.as_ref().map(|_| self.timeout)
    }

    /// Starts its period again.
    pub(super) fn feed(&mut self) {
        if let Some(file) = &mut self.file {
            // A watchdog that cannot be fed fires: nothing else can be done about it here.
            let _ = file.write_all(b"\n");
        }
    }

    /// Waits and feeds.
    pub(super) fn sleep(&mut self, wait: Duration) {
        let mut left = wait;
        while !left.is_zero() {
            self.feed();
            let now = left.min(SLICE);
            std::thread::sleep(now);
            left -= now;
        }
    }
}
