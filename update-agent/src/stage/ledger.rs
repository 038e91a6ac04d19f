//! Which chunks of the image the slot holds: shared by all threads that stage it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use formats::chunks::Chunk;
use update_core::indexes::Indexes;

use super::{StageError, Written};

/// How a chunk came to be in the slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// It was there already.
    Target,
    /// A zero chunk, made zero.
    Zeroed,
    /// Copied from a seed.
    Seed,
    /// Fetched.
    Source,
}

/// What is written when a flush begins, and durable after it.
pub(super) struct Due {
    /// The first chunk that may be missing.
    pub(super) next: u32,
    /// Those that are there.
    pub(super) held: Indexes,
}

/// Which chunks there are, sums, and the first error.
pub(super) struct Ledger {
    state: Mutex<State>,
    /// A flush is due, or all is over.
    due: Condvar,
    /// A flush has begun, or everything is to stop.
    begun: Condvar,
    /// Bytes between two flushes.
    sync_every: u64,
    stopped: AtomicBool,
    fetched: AtomicU64,
    fetched_delta: AtomicU64,
}

struct State {
    held: Indexes,
    chunks: u32,
    /// The first chunk that may be missing.
    next: u32,
    /// Bytes changed since the last flush began.
    unsynced: u64,
    written: Written,
    over: bool,
    failure: Option<StageError>,
}

impl State {
    fn next(&mut self) -> u32 {
        while self.next < self.chunks && self.held.has(self.next) {
            self.next += 1;
        }
        self.next
    }
}

impl Ledger {
    /// Nothing is known of a slot that is to hold so many chunks.
    pub(super) fn new(chunks: u32, sync_every: u64) -> Self {
        let state = State {
            held: Indexes::with_room(chunks),
            chunks,
            next: 0,
            unsynced: 0,
            written: Written::default(),
            over: false,
            failure: None,
        };
        Ledger {
            state: Mutex::new(state),
            due: Condvar::new(),
            begun: Condvar::new(),
            sync_every,
            stopped: AtomicBool::new(false),
            fetched: AtomicU64::new(0),
            fetched_delta: AtomicU64::new(0),
        }
    }

    /// Whether the slot holds this chunk.
    pub(super) fn holds(&self, index: u32) -> bool {
        self.state().held.has(index)
    }

    /// How many chunks the slot holds.
    pub(super) fn held(&self) -> u32 {
        self.state().held.count()
    }

    /// The slot holds the chunk, which was verified before. Gives whether that is new.
    ///
    /// Waits when writing is a whole flush ahead of flushing, so that dirty memory does not pile up
    /// before a slow medium.
    pub(super) fn mark(&self, chunk: &Chunk, origin: Origin) -> bool {
        let mut state = self.state();
        if !state.held.add(chunk.index) {
            return false;
        }
        let len = u64::from(chunk.len);
        let sums = &mut state.written;
        match origin {
            Origin::Target => sums.reused_target += len,
            Origin::Zeroed => sums.zeroed += len,
            Origin::Seed => {
                sums.reused_seed += len;
                sums.written += len;
            }
            Origin::Source => sums.written += len,
        }
        if origin != Origin::Target {
            state.unsynced += len;
            if state.unsynced >= self.sync_every {
                self.due.notify_all();
            }
            let ahead = self.sync_every.saturating_mul(2);
            while state.unsynced >= ahead && !self.stopped() {
                state = self.begun.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
        true
    }

    /// Counts bytes that came from a source: of a delta, or of an image.
    pub(super) fn count_fetched(&self, bytes: u64, of_delta: bool) {
        self.fetched.fetch_add(bytes, Ordering::Relaxed);
        if of_delta {
            self.fetched_delta.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Bytes that came from sources.
    pub(super) fn fetched(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    /// Waits until a flush is due, which must follow now. `None` when there is nothing more to wait for.
    pub(super) fn wait_until_due(&self) -> Option<Due> {
        let mut state = self.state();
        while !state.over && state.unsynced < self.sync_every {
            state = self.due.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.over {
            return None;
        }
        state.unsynced = 0;
        self.begun.notify_all();
        Some(Due { next: state.next(), held: state.held.clone() })
    }

    /// Everything is to stop; the first reason counts.
    pub(super) fn fail(&self, error: StageError) {
        self.state().failure.get_or_insert(error);
        self.stop();
    }

    /// Everything is to stop.
    pub(super) fn stop(&self) {
        // Under the lock, so that nobody goes to sleep in between.
        let state = self.state();
        self.stopped.store(true, Ordering::SeqCst);
        drop(state);
        self.begun.notify_all();
    }

    /// Whether everything is to stop.
    pub(super) fn stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// No chunk is marked any more.
    pub(super) fn finish(&self) {
        self.state().over = true;
        self.due.notify_all();
    }

    /// What was done by now.
    pub(super) fn so_far(&self) -> Written {
        let fetched_delta = self.fetched_delta.load(Ordering::Relaxed);
        Written { fetched: self.fetched(), fetched_delta, ..self.state().written }
    }

    /// What was done, or why it ended.
    pub(super) fn into_result(self) -> Result<Written, StageError> {
        let written = self.so_far();
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        state.failure.map_or(Ok(written), Err)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
