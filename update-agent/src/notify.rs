//! Tells systemd how the daemon is, and waits without missing its watchdog.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// The daemon is up.
pub(crate) fn ready() {
    let _ = sd_notify::notify(&[NotifyState::Ready]);
}

/// One line for `systemctl status`.
pub(crate) fn status(text: &str) {
    let _ = sd_notify::notify(&[NotifyState::Status(text)]);
}

/// Waits, feeding systemd's watchdog when the unit has one.
pub(crate) fn wait(duration: Duration) {
    let until = Instant::now() + duration;
    let feed = sd_notify::watchdog_enabled().map(|period| period / 3);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        if feed.is_some() {
            let _ = sd_notify::notify(&[NotifyState::Watchdog]);
        }
        std::thread::sleep(feed.map_or(left, |feed| left.min(feed)));
    }
}
