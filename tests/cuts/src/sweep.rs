//! All crash states of a scenario, once and twice.

use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use storage::sim::Media;
use storage::sim::machine::{Crash, Recording};

use crate::case::Case;

/// How much is tried.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Subsets drawn where not all of them are tried.
    pub samples: usize,
    /// Of so many first cuts, one is followed by second cuts; scenarios that are small take every one.
    pub second_every: u64,
    /// Second cuts after one first cut of a large scenario, at most.
    pub second_cuts: usize,
    /// Ends after so many states that broke a promise.
    pub enough: usize,
    /// Decides all draws.
    pub seed: u64,
}

impl Size {
    /// What CI runs: some minutes on two processors.
    pub fn ci(seed: u64) -> Size {
        Size { samples: 24, second_every: 9, second_cuts: 21, enough: usize::MAX, seed }
    }

    /// A round of a night.
    pub fn deep(seed: u64) -> Size {
        Size { samples: 200, second_every: 2, second_cuts: 60, enough: usize::MAX, seed }
    }

    /// Enough to catch a faulty program.
    pub fn variant(seed: u64) -> Size {
        Size { samples: 8, second_every: u64::MAX, second_cuts: 1, enough: 3, seed }
    }
}

/// A state that broke a promise.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Where it came from.
    pub path: Vec<Crash>,
    /// The media.
    pub media: Media,
    /// Whether the last run had ended when the power failed.
    pub done: bool,
    /// What was broken.
    pub why: String,
    /// What the machine had been asked for, before each cut.
    pub recordings: Vec<Recording>,
}

/// What a sweep found.
#[derive(Debug, Default)]
pub struct Found {
    /// Operations of the uncut run.
    pub operations: usize,
    /// Cuts × losses that were made.
    pub crashes: usize,
    /// Distinct states after one cut.
    pub once: usize,
    /// Distinct states after two, that were not seen after one.
    pub twice: usize,
    /// Recoveries that took two runs, by what kept the first one.
    pub two_runs: BTreeMap<String, usize>,
    /// States that broke a promise.
    pub failures: Vec<Failure>,
    /// How many there were; the list holds the first few.
    pub failed: usize,
    /// States in which a backend that is documented as weak broke a promise, as it is documented.
    pub weak: usize,
    /// Time of all threads together.
    pub busy: Duration,
}

/// Failures that are kept whole.
const KEPT: usize = 5;

struct Shared<'a> {
    row: &'a dyn Case,
    size: Size,
    seen: Mutex<HashSet<u64>>,
    found: Mutex<Found>,
    /// First cuts that second ones follow.
    seconds: Mutex<Vec<(Crash, Media)>>,
    next: AtomicUsize,
}

/// Cuts a row everywhere, on so many threads.
pub fn sweep(row: &dyn Case, size: Size, threads: usize) -> Found {
    sweep_beyond(row, size, threads, HashSet::new()).0
}

/// The same, without the states that are known (hashes), and all that are known then.
pub fn sweep_beyond(
    row: &dyn Case,
    size: Size,
    threads: usize,
    known: HashSet<u64>,
) -> (Found, HashSet<u64>) {
    let shared = Shared {
        row,
        size,
        seen: Mutex::new(known),
        found: Mutex::new(Found {
            operations: row.recording().operations().len(),
            ..Found::default()
        }),
        seconds: Mutex::new(Vec::new()),
        next: AtomicUsize::new(0),
    };
    // All first cuts first, so that a state counts as one of them where it is one.
    for pass in [Shared::first_cuts, Shared::second_cuts] {
        shared.next.store(0, Ordering::SeqCst);
        std::thread::scope(|scope| {
            for _ in 0..threads.max(1) {
                scope.spawn(|| {
                    let started = Instant::now();
                    pass(&shared);
                    lock(&shared.found).busy += started.elapsed();
                });
            }
        });
    }
    let seen = shared.seen.into_inner().unwrap_or_else(PoisonError::into_inner);
    (shared.found.into_inner().unwrap_or_else(PoisonError::into_inner), seen)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared<'_> {
    fn first_cuts(&self) {
        let recording = self.row.recording();
        loop {
            let cut = self.next.fetch_add(1, Ordering::Relaxed);
            let enough = lock(&self.found).failed >= self.size.enough;
            if cut > recording.operations().len() || enough {
                return;
            }
            let Size { samples, seed, .. } = self.size;
            recording.crashes(cut..cut + 1, samples, seed, &mut |crash, media| {
                self.first(crash, media);
            });
        }
    }

    fn is_new(&self, hash: u64) -> bool {
        lock(&self.seen).insert(hash)
    }

    /// A state by its hash; one after the end of the run is another one where that matters.
    fn key(&self, media: &Media, done: bool) -> u64 {
        let other = if done && self.row.asks_more_when_done() { 0x5bd1_e995_9d1b_54a5 } else { 0 };
        media.hash() ^ other
    }

    fn first(&self, crash: &Crash, media: Media) {
        let done = crash.cut == self.row.recording().operations().len();
        let hash = self.key(&media, done);
        let new = self.is_new(hash);
        {
            let mut found = lock(&self.found);
            found.crashes += 1;
            found.once += usize::from(new);
        }
        if !new {
            return;
        }
        let recordings = || vec![self.row.recording().clone()];
        let good = self.judge(std::slice::from_ref(crash), &media, done, recordings);
        let small = self.row.is_small() && self.size.second_every != u64::MAX;
        let every = if small { 1 } else { self.size.second_every.max(1) };
        if good && (hash ^ self.size.seed).is_multiple_of(every) {
            lock(&self.seconds).push((crash.clone(), media));
        }
    }

    fn second_cuts(&self) {
        let small = self.row.is_small();
        loop {
            let nth = self.next.fetch_add(1, Ordering::Relaxed);
            let Some((first, media)) = lock(&self.seconds).get(nth).cloned() else { return };
            let Ok(again) = self.row.judge(&media, true, false) else { continue };
            let again = again.recording;
            let count = again.operations().len() + 1;
            let step = if small { 1 } else { count.div_ceil(self.size.second_cuts.max(1)) };
            let samples = if small { self.size.samples.min(4) } else { 1 };
            let seed = self.size.seed.wrapping_add(nth as u64);
            for cut in (nth % step..count).step_by(step) {
                again.crashes(cut..cut + 1, samples, seed, &mut |second, media| {
                    let done = cut + 1 == count;
                    let new = self.is_new(self.key(&media, done));
                    {
                        let mut found = lock(&self.found);
                        found.crashes += 1;
                        found.twice += usize::from(new);
                    }
                    if new {
                        let path = [first.clone(), second.clone()];
                        let recordings = || vec![self.row.recording().clone(), again.clone()];
                        self.judge(&path, &media, done, recordings);
                    }
                });
            }
        }
    }

    fn judge(
        &self,
        path: &[Crash],
        media: &Media,
        done: bool,
        recordings: impl Fn() -> Vec<Recording>,
    ) -> bool {
        let judged = catch_unwind(AssertUnwindSafe(|| self.row.judge(media, false, done)));
        let why = match judged {
            Ok(Ok(recovered)) => {
                if let Some(first) = recovered.first {
                    let reason = first.split(';').next().unwrap_or_default();
                    let reason = reason.chars().take(90).collect();
                    *lock(&self.found).two_runs.entry(reason).or_default() += 1;
                }
                return true;
            }
            Ok(Err(why)) => why,
            Err(_) => "S14: panic".to_owned(),
        };
        let recordings = recordings();
        let mut found = lock(&self.found);
        if self.row.is_documented(media, &recordings) {
            found.weak += 1;
            return false;
        }
        found.failed += 1;
        if found.failures.len() < KEPT {
            let (path, media) = (path.to_vec(), media.clone());
            found.failures.push(Failure { path, media, done, why, recordings });
        }
        false
    }
}
