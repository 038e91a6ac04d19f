//! The requests to restart: made, remembered, and made again until one is obeyed.
//!
//! What comes next is [`update_core::restart`]'s to say. The requests of a boot are kept in the state,
//! for an agent that is started anew and for `status`; where the state cannot be written, or another
//! agent has it, this process alone remembers them.

use std::path::Path;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use storage::host::Host;
use update_core::restart::{self, Asked, Means, Next, Purpose};

use super::Agent;
use super::driver::Driver;
use super::node::NodeParts;
use super::this_boot::Requests;
use crate::boot::BootControl as _;
use crate::environment::Environment;
use crate::error::AgentError;
use crate::events::{Event, Why};
use crate::state::{RestartAsked, StateGuard};

/// Seconds since the machine started, time in sleep included: no clock can be set there.
const UPTIME: &str = "/proc/uptime";

/// A request that was made in this boot and not obeyed yet.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    pub(crate) asked: RestartAsked,
    /// What comes next.
    pub(crate) next: Next,
    /// The means of the next request.
    pub(crate) means: Means,
}

/// Everything that a request takes.
pub(super) struct Restarter<'a> {
    parts: NodeParts<'a>,
    environment: &'a dyn Environment,
    requests: &'a Requests,
}

impl Restarter<'_> {
    /// Asks for a restart by the means whose turn it is, unless an earlier request may still be obeyed.
    /// `held` where this process has the lock. Gives the time until the next request is due.
    pub(super) fn ask(&self, held: Option<&StateGuard>, purpose: Purpose, why: &str) -> Duration {
        // One at a time: the guard of a trial keeps its requests from a thread of its own.
        let mut last = self.requests.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pending = self.pending(&last).filter(|pending| pending.asked.purpose == purpose);
        let means = match pending.as_ref().map(|pending| (pending.next, pending.means)) {
            Some((Next::Wait(wait), _)) => return wait,
            Some((Next::Ask(means), _)) => means,
            None => Means::Command,
        };
        let mut asked = RestartAsked {
            boot_id: self.parts.disk.boot_id().unwrap_or_default(),
            purpose,
            why: crate::output::printable(why),
            times: pending.map_or(0, |pending| pending.asked.times).saturating_add(1),
            means,
            at: self.parts.state.now(),
            uptime_ms: uptime(self.parts.host).map_or(0, milliseconds),
            refused: None,
        };
        // Before it is made: it may be the last thing that this program does.
        self.keep(held, &asked);
        *last = Some((asked.clone(), Instant::now()));
        let prepared = match purpose {
            Purpose::Try => self.parts.disk.before_try(),
            Purpose::Leave => Ok(()),
        };
        let done =
            prepared.and_then(|()| self.environment.restart(self.parts.config, purpose, means));
        if let Err(error) = done {
            let why = Why { code: error.reason().code(), text: &error.chain() };
            Event::RestartFailed { why }.tell();
            asked.refused = Some(crate::output::printable(&error.chain()));
            self.keep(held, &asked);
        }
        *last = Some((asked, Instant::now()));
        self.pending(&last).map_or(restart::AGAIN, |pending| pending.wait())
    }

    /// The request of this boot that is not obeyed yet.
    fn pending(&self, last: &Option<(RestartAsked, Instant)>) -> Option<Pending> {
        let (asked, ago) = match last {
            Some((asked, made)) => (asked.clone(), made.elapsed()),
            None => {
                let asked = self.parts.state.restart_asked()?;
                if self.parts.disk.boot_id().ok()? != asked.boot_id {
                    return None;
                }
                // Without a clock of the boot the next request is due.
                let now = uptime(self.parts.host).unwrap_or(Duration::MAX);
                (asked.clone(), now.saturating_sub(Duration::from_millis(asked.uptime_ms)))
            }
        };
        let known = Asked { times: asked.times, ago, refused: asked.refused.is_some() };
        let available = self.environment.restart_means(self.parts.config);
        let waits = self.parts.config.restart_waits();
        let next = restart::next(asked.purpose, available, Some(known), waits);
        let means = restart::means(asked.purpose, available, asked.times);
        Some(Pending { asked, next, means })
    }

    /// Keeps a request; where that cannot be, this process remembers it.
    fn keep(&self, held: Option<&StateGuard>, asked: &RestartAsked) {
        let kept = match held {
            Some(held) => self.parts.state.save_restart_asked(held, asked),
            None => self
                .parts
                .state
                .hold()
                .and_then(|held| self.parts.state.save_restart_asked(&held, asked)),
        };
        if let Err(error) = kept {
            tracing::warn!("`status` does not know of the restart: {}", error.chain());
        }
    }
}

impl Pending {
    /// Whether it is to leave the slot that runs.
    pub(crate) fn leaves(&self) -> bool {
        self.asked.purpose == Purpose::Leave
    }

    /// Until the next request.
    pub(crate) fn wait(&self) -> Duration {
        match self.next {
            Next::Wait(wait) => wait,
            Next::Ask(_) => Duration::ZERO,
        }
    }
}

impl Driver<'_> {
    pub(super) fn restarter(&self) -> Restarter<'_> {
        let (parts, environment) = (self.parts, self.environment);
        Restarter { parts, environment, requests: &self.boot.requests }
    }
}

impl Agent {
    fn restarter(&self) -> Restarter<'_> {
        let (parts, environment) = (self.parts(), self.environment.as_ref());
        Restarter { parts, environment, requests: &self.boot.requests }
    }

    /// Asks for a restart; see [`Restarter::ask`].
    pub(crate) fn ask_restart(
        &self,
        held: Option<&StateGuard>,
        purpose: Purpose,
        why: &str,
    ) -> Duration {
        self.restarter().ask(held, purpose, why)
    }

    /// Asks for a restart out of this boot by these means, and touches no storage: nothing is kept.
    pub(crate) fn restart_by(&self, means: Means) -> Result<(), AgentError> {
        self.environment.restart(&self.config, Purpose::Leave, means).inspect_err(|error| {
            let why = Why { code: error.reason().code(), text: &error.chain() };
            Event::RestartFailed { why }.tell();
        })
    }

    /// What comes after these requests to leave this boot, the storage aside.
    pub(crate) fn next_restart(&self, asked: Option<Asked>) -> Next {
        let available = self.environment.restart_means(&self.config);
        restart::next(Purpose::Leave, available, asked, self.config.restart_waits())
    }

    /// Keeps a request that was made with [`Agent::restart_by`], for `status` and for the rounds. May wait for
    /// storage as long as that hangs.
    pub(crate) fn keep_restart(&self, times: u32, means: Means, why: &str) {
        let mut last = self.boot.requests.0.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = RestartAsked {
            boot_id: self.disk.boot_id().unwrap_or_default(),
            purpose: Purpose::Leave,
            why: crate::output::printable(why),
            times,
            means,
            at: self.state.now(),
            uptime_ms: uptime(self.host.as_ref()).map_or(0, milliseconds),
            refused: None,
        };
        *last = Some((asked.clone(), Instant::now()));
        self.restarter().keep(None, &asked);
    }

    /// The request to restart that is not obeyed yet, if there is one.
    pub(crate) fn restart_pending(&self) -> Option<Pending> {
        let last = self.boot.requests.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.restarter().pending(&last)
    }

    /// Whether this boot is to be left: a restart out of it was asked for.
    pub(crate) fn is_lost(&self) -> bool {
        self.restart_pending().is_some_and(|pending| pending.leaves())
    }
}

/// How long the machine has run.
pub(super) fn uptime(host: &dyn Host) -> Option<Duration> {
    let text = host.read_kernel(Path::new(UPTIME)).ok()?;
    let seconds = text.split_ascii_whitespace().next()?.parse::<f64>().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
