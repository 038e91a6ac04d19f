//! The guard of a trial: a thread beside the rounds of `run` that asks for the restart where one hangs.
//!
//! ```text
//!  rounds ── before storage is read, after it was read, at the end ──► guard ── restart, by every means
//!                                                                       └── keeps it (another thread)
//! ```
//!
//! How long a round may take is [`update_core::guard`]'s to say, and which means are next
//! [`update_core::restart`]'s. Between the two nothing waits for storage: it may be what hangs.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{Builder, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use update_core::guard::{Told, patience};
use update_core::restart::{Asked, Means, Next};

use crate::agent::Agent;
use crate::exhausted::no_thread;

/// Why the guard restarts.
const HANGS: &str = "the trial did not end by its deadline: the agent hangs";
/// 5 s: storage that works has kept a request by then. It may be the last thing that this program does.
const KEEP_LIMIT: Duration = Duration::from_secs(5);

/// Tells the guard. It ends with this.
pub(super) struct Orders(Sender<Option<Instant>>);

impl Orders {
    /// Tells it where a round is.
    pub(super) fn tell(&self, told: Told) {
        let until = patience(told).map(|patience| Instant::now() + patience);
        // Without a guard nobody listens, which was told at the start.
        let _ = self.0.send(until);
    }
}

/// Starts it, before anything of storage is read.
pub(super) fn start<'scope>(scope: &'scope Scope<'scope, '_>, agent: &'scope Agent) -> Orders {
    let (tell, told) = mpsc::channel();
    let orders = Orders(tell);
    orders.tell(agent.before_reading());
    let guard = Guard { scope, agent, asked: None, keeping: None };
    let guarding = Builder::new().spawn_scoped(scope, move || guard.watch(&told));
    if let Err(error) = guarding {
        tracing::error!("a trial that hangs is not ended: {}", no_thread(&error));
    }
    orders
}

struct Guard<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    agent: &'scope Agent,
    /// The requests of this thread, and when the last one was made.
    asked: Option<(Asked, Instant)>,
    /// The thread that keeps a request. One that hangs is not followed by another.
    keeping: Option<ScopedJoinHandle<'scope, ()>>,
}

impl Guard<'_, '_> {
    fn watch(mut self, orders: &Receiver<Option<Instant>>) {
        let mut until: Option<Instant> = None;
        loop {
            let order = match until {
                Some(at) => orders.recv_timeout(at.saturating_duration_since(Instant::now())),
                None => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match order {
                Ok(order) => until = order,
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => until = Some(Instant::now() + self.restart()),
            }
        }
    }

    /// Asks for the restart by the means whose turn it is. Gives the time until the next request is due.
    fn restart(&mut self) -> Duration {
        let known = self.asked.map(|(asked, at)| Asked { ago: at.elapsed(), ..asked });
        let means = match self.agent.next_restart(known) {
            Next::Wait(wait) => return wait,
            Next::Ask(means) => means,
        };
        tracing::error!("{HANGS}");
        let times = known.map_or(0, |asked| asked.times).saturating_add(1);
        self.keep(times, means);
        let refused = self.agent.restart_by(means).is_err();
        let asked = Asked { times, ago: Duration::ZERO, refused };
        self.asked = Some((asked, Instant::now()));
        match self.agent.next_restart(Some(asked)) {
            Next::Wait(wait) => wait,
            Next::Ask(_) => Duration::ZERO,
        }
    }

    /// Has a request kept, and waits for that a little.
    fn keep(&mut self, times: u32, means: Means) {
        if self.keeping.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        let agent = self.agent;
        let (tell, kept) = mpsc::channel();
        let keep = move || {
            agent.keep_restart(times, means, HANGS);
            let _ = tell.send(());
        };
        self.keeping = Builder::new().spawn_scoped(self.scope, keep).ok();
        // Without a thread the channel is closed already.
        let _ = kept.recv_timeout(KEEP_LIMIT);
    }
}
