//! What follows a request to restart: "asked for" is not "done".
//!
//! A command that ends with 0 may have done nothing: an inhibitor, a wrapper, another init system. While
//! this program still runs, the machine has not restarted, and [`next`] says what comes next:
//!
//! | restart | asked in this boot | next |
//! |---|---|---|
//! | any | never | the configured command |
//! | any | not long ago | wait: a machine that restarts has stopped this program by then |
//! | to leave a slot | once | the command again |
//! | to leave a slot | twice | the forced command (`systemctl reboot --force`) |
//! | to leave a slot | three times or more | the kernel, after a sync |
//! | to try a release | once or more | the command again, each time after twice the wait |
//!
//! A slot that is lost must be left, whoever inhibits it. A release that is only to be tried can wait:
//! nothing forces that restart. Means that a node does not have are replaced by the ones before them.
//!
//! How long a granted request is waited for is the node's to say (`boot.reboot_wait`); one that was
//! refused is followed by the next after [`REFUSED_AGAIN`] at most. So the kernel is asked at the latest
//! after three commands and the waits after them: with [`AGAIN`] after 9 minutes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// 1 min: a restart command only passes the request on. One that hangs is ended, and has asked.
pub const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// 2 min: a machine that restarts has stopped this program by then (systemd waits 90 s for a service).
pub const AGAIN: Duration = Duration::from_secs(120);
/// 30 s: a request that was refused changes nothing, so the next need not wait for it.
pub const REFUSED_AGAIN: Duration = Duration::from_secs(30);
/// How long is waited for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits {
    /// After one that was granted.
    pub again: Duration,
    /// Between two polls: the longest wait of a restart that can wait.
    pub interval: Duration,
}

/// Why the machine has to restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// To leave a slot that lost its trial, or was given up.
    Leave,
    /// To try a release that is next.
    Try,
}

/// A way to restart the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Means {
    /// The configured command.
    Command,
    /// The command that stops no service first.
    Forced,
    /// reboot(2), after a sync.
    Kernel,
}

/// Which means a node has beside the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Available {
    /// A forced command.
    pub forced: bool,
    /// The kernel may be asked.
    pub kernel: bool,
}

/// The requests of this boot so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// How many; at least 1.
    pub times: u32,
    /// How long ago the last one was.
    pub ago: Duration,
    /// Whether the last one was refused: its command could not be run, or did not end with 0.
    pub refused: bool,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Ask now, by these means.
    Ask(Means),
    /// Wait so long, then ask.
    Wait(Duration),
}

/// What comes next.
pub fn next(purpose: Purpose, available: Available, asked: Option<Asked>, waits: Waits) -> Next {
    let Some(asked) = asked else { return Next::Ask(Means::Command) };
    let wait = pause(purpose, asked, waits).saturating_sub(asked.ago);
    if wait.is_zero() {
        Next::Ask(means(purpose, available, asked.times))
    } else {
        Next::Wait(wait)
    }
}

/// How long a request is waited for before the next.
fn pause(purpose: Purpose, asked: Asked, waits: Waits) -> Duration {
    let Waits { again, interval } = waits;
    match purpose {
        Purpose::Leave if asked.refused => REFUSED_AGAIN.min(again),
        Purpose::Leave => again,
        Purpose::Try => {
            let doubled = 2_u32.saturating_pow(asked.times.saturating_sub(1));
            again.saturating_mul(doubled).min(interval.max(again))
        }
    }
}

/// The means of the request after so many.
pub fn means(purpose: Purpose, available: Available, times: u32) -> Means {
    match (purpose, times) {
        (Purpose::Leave, 3..) if available.kernel => Means::Kernel,
        (Purpose::Leave, 2..) if available.forced => Means::Forced,
        _ => Means::Command,
    }
}

/// The means of which every further request to leave a slot makes use: no other is left.
pub fn last(available: Available) -> Means {
    means(Purpose::Leave, available, u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const WAITS: Waits = Waits { again: AGAIN, interval: HOUR };
    const ALL: Available = Available { forced: true, kernel: true };
    const NONE: Available = Available { forced: false, kernel: false };

    /// The requests of a boot that nothing ends: when each is made, counted from the first, and how.
    fn requests(
        purpose: Purpose,
        available: Available,
        refused: bool,
        took: Duration,
    ) -> Vec<(u64, Means)> {
        let (mut now, mut last, mut asked) = (Duration::ZERO, Duration::ZERO, None::<Asked>);
        let mut made = Vec::new();
        while made.len() < 6 {
            let known = asked.map(|asked| Asked { ago: now.saturating_sub(last), ..asked });
            match next(purpose, available, known, WAITS) {
                Next::Wait(wait) => {
                    assert!(!wait.is_zero(), "it never spins");
                    now += wait;
                }
                Next::Ask(means) => {
                    made.push((now.as_secs(), means));
                    now += took;
                    last = now;
                    let times = made.len() as u32;
                    asked = Some(Asked { times, ago: Duration::ZERO, refused });
                }
            }
        }
        made
    }

    #[test]
    fn what_follows_a_request() {
        use Means::{Command as C, Forced as F, Kernel as K};
        use Purpose::{Leave, Try};
        let instant = Duration::ZERO;
        // (purpose, means that it has, each is refused, each takes so long, what is asked when)
        type Row = (Purpose, Available, bool, Duration, [(u64, Means); 6]);
        let rows: [Row; 8] = [
            (
                Leave,
                ALL,
                false,
                instant,
                [(0, C), (120, C), (240, F), (360, K), (480, K), (600, K)],
            ),
            (Leave, ALL, true, instant, [(0, C), (30, C), (60, F), (90, K), (120, K), (150, K)]),
            (
                Leave,
                ALL,
                false,
                COMMAND_LIMIT,
                [(0, C), (180, C), (360, F), (540, K), (720, K), (900, K)],
            ),
            (
                Leave,
                Available { kernel: false, ..ALL },
                true,
                instant,
                [(0, C), (30, C), (60, F), (90, F), (120, F), (150, F)],
            ),
            (
                Leave,
                Available { forced: false, ..ALL },
                true,
                instant,
                [(0, C), (30, C), (60, C), (90, K), (120, K), (150, K)],
            ),
            (Leave, NONE, true, instant, [(0, C), (30, C), (60, C), (90, C), (120, C), (150, C)]),
            (
                Try,
                ALL,
                false,
                instant,
                [(0, C), (120, C), (360, C), (840, C), (1800, C), (3720, C)],
            ),
            (Try, ALL, true, instant, [(0, C), (120, C), (360, C), (840, C), (1800, C), (3720, C)]),
        ];
        for (purpose, available, refused, took, expected) in rows {
            let found = requests(purpose, available, refused, took);
            assert_eq!(found, expected, "{purpose:?} {available:?} {refused} {took:?}");
        }
    }

    /// Whatever the commands answer, and however long they take to do so.
    #[test]
    fn a_lost_slot_reaches_the_kernel_in_time_and_nothing_else_does() {
        for refused in [false, true] {
            for took in [Duration::ZERO, Duration::from_secs(7), COMMAND_LIMIT] {
                let made = requests(Purpose::Leave, ALL, refused, took);
                let kernel = made.iter().find(|(_, means)| *means == Means::Kernel);
                assert!(kernel.is_some_and(|(at, _)| *at <= 540), "{made:?}");
                let polite = requests(Purpose::Try, ALL, refused, took);
                assert!(polite.iter().all(|(_, means)| *means == Means::Command), "{polite:?}");
            }
        }
    }

    /// Whoever asks until the last means was asked for has asked for all of them, each means after the ones
    /// before it, and ends.
    #[test]
    fn the_last_means_comes_after_all_others() {
        use Means::{Command as C, Forced as F, Kernel as K};
        let rows: [(Available, &[Means]); 4] = [
            (ALL, &[C, C, F, K]),
            (Available { kernel: false, ..ALL }, &[C, C, F]),
            (Available { forced: false, ..ALL }, &[C, C, C, K]),
            (NONE, &[C]),
        ];
        for (available, expected) in rows {
            let mut asked: Vec<Means> = Vec::new();
            while asked.last() != Some(&last(available)) {
                let times = u32::try_from(asked.len()).expect("few requests");
                asked.push(means(Purpose::Leave, available, times));
            }
            assert_eq!(asked, expected, "{available:?}");
        }
    }

    #[test]
    fn a_restart_that_can_wait_waits_at_most_for_a_poll() {
        let asked = |times| Asked { times, ago: Duration::ZERO, refused: true };
        for times in [1, 2, 6, 40, u32::MAX] {
            let Next::Wait(wait) = next(Purpose::Try, ALL, Some(asked(times)), WAITS) else {
                panic!("{times}: it spins");
            };
            assert!(wait >= AGAIN && wait <= HOUR, "{times}: {wait:?}");
        }
    }
}
