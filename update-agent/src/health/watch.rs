//! The hardware watchdog over a trial: fed only while the checks go on and their deadline is not over.
//!
//! ```text
//!  arm ─► feed while the checks run, at most to the deadline ─┬ confirmed: disarm
//!                                                             └ failed, hung, killed: nobody feeds ─► restart
//! ```

use std::path::Path;
use std::sync::Once;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use storage::watchdog::Watchdog;

use super::HealthConfig;
use crate::exhausted::no_thread;

/// A watchdog over a trial, or none.
#[derive(Debug, Default)]
pub struct Watch {
    dog: Option<Watchdog>,
}

impl Watch {
    /// Arms what is configured. A machine without one goes on, and the log says so.
    pub fn arm(config: &HealthConfig) -> Self {
        let Some(path) = &config.watchdog else { return Watch::default() };
        Watch { dog: open(path, config.watchdog_timeout) }
    }

    /// Runs the checks. A check that hangs beyond the deadline starves the watchdog.
    pub fn over<T>(&mut self, left: Duration, checks: impl FnOnce() -> T) -> T {
        let Some(dog) = &mut self.dog else { return checks() };
        let period = dog.timeout() / 3;
        let end = Instant::now() + left;
        let (done, finished) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let feeding = thread::Builder::new().spawn_scoped(scope, move || {
                while Instant::now() < end {
                    let wait = period.min(end.saturating_duration_since(Instant::now()));
                    match finished.recv_timeout(wait) {
                        Err(RecvTimeoutError::Timeout) => {
                            if let Err(error) = dog.feed() {
                                tracing::warn!("feed the watchdog: {error}");
                            }
                        }
                        _ => return,
                    }
                }
            });
            if let Err(error) = feeding {
                tracing::error!("the watchdog is not fed: {}", no_thread(&error));
            }
            let result = checks();
            drop(done);
            result
        })
    }

    /// The trial is confirmed: nobody needs to be restarted any more.
    pub fn disarm(self) {
        if let Some(dog) = self.dog
            && let Err(error) = dog.disarm()
        {
            tracing::warn!("disarm the watchdog: {error}");
        }
    }
}

/// On a system that is not on trial: stops a watchdog that the chooser armed. One that can never be
/// stopped (`nowayout`) is fed for the life of a daemon, and left alone by any other process: what
/// opens it has to feed it. Done once in a process.
pub fn rest(config: &HealthConfig, daemon: bool) {
    static RESTED: Once = Once::new();
    let Some(path) = &config.watchdog else { return };
    RESTED.call_once(|| {
        if !never_stops(path) {
            Watch::arm(config).disarm();
        } else if daemon && let Some(mut dog) = open(path, config.watchdog_timeout) {
            let feeding = thread::Builder::new().spawn(move || {
                loop {
                    thread::sleep(dog.timeout() / 3);
                    if let Err(error) = dog.feed() {
                        tracing::error!("feed the watchdog: {error}");
                    }
                }
            });
            if let Err(error) = feeding {
                tracing::error!("the watchdog is not fed: {}", no_thread(&error));
            }
        }
    });
}

/// Whether the kernel never stops it.
fn never_stops(path: &Path) -> bool {
    let name = match path.strip_prefix("/dev") {
        Ok(name) if name == Path::new("watchdog") => "watchdog0".into(),
        Ok(name) => name.to_path_buf(),
        Err(_) => return false,
    };
    let flag = Path::new("/sys/class/watchdog").join(name).join("nowayout");
    std::fs::read_to_string(flag).is_ok_and(|text| text.trim() == "1")
}

fn open(path: &Path, timeout: Duration) -> Option<Watchdog> {
    match Watchdog::arm(path, timeout) {
        Ok(dog) => Some(dog),
        Err(error) => {
            let shown = path.display();
            tracing::warn!("no watchdog: {shown}: {error}; see `doctor`");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_fed_while_checks_run_and_never_after_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("watchdog");
        std::fs::write(&path, "").unwrap();
        let config = HealthConfig {
            watchdog: Some(path.clone()),
            // A third of a second between two meals.
            watchdog_timeout: Duration::from_secs(1),
            ..HealthConfig::default()
        };
        let meals = || std::fs::read_to_string(&path).unwrap();
        let mut watch = Watch::arm(&config);
        // However long it takes, it is fed again while the check runs.
        let patience = Duration::from_secs(120);
        watch.over(patience, || {
            let begun = std::time::Instant::now();
            while meals().len() < 3 && begun.elapsed() < patience {
                thread::sleep(Duration::from_millis(10));
            }
        });
        let fed = meals().len();
        assert!(fed >= 3, "{fed} meals");
        // It hangs for three times its deadline.
        watch.over(Duration::from_millis(300), || thread::sleep(Duration::from_millis(900)));
        assert!(meals().len() <= fed + 1, "a check that hangs is not fed");
        watch.disarm();
        assert!(meals().ends_with('V'));
        // Without one, the checks run all the same.
        assert_eq!(Watch::default().over(Duration::ZERO, || 7), 7);
    }
}
