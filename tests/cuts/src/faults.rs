//! The n-th call fails, lies or flips a bit, for every n: nothing is claimed that is not so, nothing
//! is lost, and once the fault is gone the next run completes.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use storage::sim::machine::{Call, CallKind, Verdict};

use crate::case::Case;
use crate::node::Node;
use crate::promises;
use crate::scenario::{End, Row, end};

/// A way in which calls fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// EIO.
    Error,
    /// ENOSPC.
    Full,
    /// Half of the bytes, then ENOSPC.
    Short,
    /// A flush fails; what it was to make durable is lost, and later flushes succeed.
    Flush,
    /// Reported as written, and lost.
    Lost,
    /// Written with one bit flipped.
    Flipped,
    /// The program is killed. The power stays, so what was not flushed is still there for the next
    /// program, and may be lost later.
    Killed,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 7] = [
        Fault::Error,
        Fault::Full,
        Fault::Short,
        Fault::Flush,
        Fault::Lost,
        Fault::Flipped,
        Fault::Killed,
    ];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Error => "EIO",
            Fault::Full => "ENOSPC",
            Fault::Short => "short write",
            Fault::Flush => "flush EIO",
            Fault::Lost => "written but lost",
            Fault::Flipped => "bit flipped",
            Fault::Killed => "killed",
        }
    }

    /// Whether calls of that kind can fail so.
    pub fn fits(self, kind: CallKind) -> bool {
        match self {
            Fault::Error => kind != CallKind::Sync,
            Fault::Full => !matches!(kind, CallKind::Read | CallKind::Sync | CallKind::Touch),
            Fault::Short | Fault::Lost | Fault::Flipped => kind == CallKind::Write,
            Fault::Flush => kind == CallKind::Sync,
            Fault::Killed => true,
        }
    }

    /// What becomes of the call.
    pub fn verdict(self) -> Verdict {
        match self {
            // `ErrorKind` has no EIO; what matters is that it is none of the expected kinds.
            Fault::Error | Fault::Flush => Verdict::Fail(ErrorKind::Other),
            Fault::Full => Verdict::Fail(ErrorKind::StorageFull),
            Fault::Short => Verdict::Short(ErrorKind::StorageFull),
            Fault::Lost => Verdict::Skip,
            Fault::Flipped => Verdict::Flip,
            Fault::Killed => Verdict::Dead,
        }
    }

    /// A medium that lies about a file: no program can know before it reads the file again.
    pub fn lies(self) -> bool {
        matches!(self, Fault::Lost | Fault::Flipped)
    }
}

/// What the faults of one row came to.
#[derive(Debug, Default)]
pub struct Found {
    /// Calls of the uncut run.
    pub calls: usize,
    /// Runs with a fault.
    pub runs: usize,
    /// Runs that ended well in spite of it.
    pub unharmed: usize,
    /// Runs after which a medium that lied about a file has an older state: outside of what is promised.
    pub lied: usize,
    /// Runs that broke a promise.
    pub failed: usize,
    /// The first few of them.
    pub failures: Vec<String>,
    /// Time of all threads together.
    pub busy: Duration,
}

/// Lets every call of a row's action fail, once and from then on.
pub fn inject(row: &dyn Case, threads: usize) -> Result<Found, String> {
    let kinds = row.calls()?;
    let mut cases = Vec::new();
    for fault in Fault::ALL {
        for (nth, kind) in kinds.iter().enumerate() {
            if fault.fits(*kind) {
                // Nobody is killed for once.
                let ways = if fault == Fault::Killed { [true].as_slice() } else { &[false, true] };
                cases.extend(ways.iter().map(|for_good| (fault, nth, *for_good)));
            }
        }
    }
    let found = Mutex::new(Found { calls: kinds.len(), ..Found::default() });
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                let started = Instant::now();
                while let Some((fault, nth, for_good)) =
                    cases.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let ended = row.with_fault(*fault, *nth, *for_good);
                    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                    found.runs += 1;
                    match ended {
                        Ok(Ended::Unharmed) => found.unharmed += 1,
                        Ok(Ended::Refused) => {}
                        Ok(Ended::Lied) => found.lied += 1,
                        Err(why) => {
                            found.failed += 1;
                            if found.failures.len() < 5 {
                                let how = if *for_good { "from then on" } else { "once" };
                                let name = fault.name();
                                found.failures.push(format!("call {nth}, {name}, {how}: {why}"));
                            }
                        }
                    }
                }
                found.lock().unwrap_or_else(PoisonError::into_inner).busy += started.elapsed();
            });
        }
    });
    Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// How a run with a fault ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Well.
    Unharmed,
    /// With an error; what was there before still is.
    Refused,
    /// The medium lied, and what nobody could know is an older state, or gone.
    Lied,
}

/// The calls of the uncut run of a node.
pub(crate) fn calls_of_node(row: &Row) -> Result<(Vec<CallKind>, End), String> {
    let kinds = Arc::new(Mutex::new(Vec::new()));
    let mut node = row.node(&row.base);
    let noted = Arc::clone(&kinds);
    node.machine.follow(move |call: &Call<'_>| {
        noted.lock().unwrap_or_else(PoisonError::into_inner).push(call.kind);
        Verdict::Do
    });
    row.act(&mut node)?;
    node.machine.unscripted();
    let success = stands(row, &node)?;
    let kinds = kinds.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok((kinds, success))
}

/// Where a node stands by what certainly survives a power cut now.
fn stands(row: &Row, node: &Node<'_>) -> Result<End, String> {
    let booted = node.booted.ok_or("nothing booted")?;
    end(&row.node(&node.machine.durable()).running(booted))
}

/// One run of a node.
pub(crate) fn one(
    row: &Row,
    success: &End,
    fault: Fault,
    nth: usize,
    for_good: bool,
) -> Result<Ended, String> {
    let mut node = row.node(&row.base).out_of_step();
    let hit_file = Arc::new(AtomicUsize::new(0));
    let hits = Arc::clone(&hit_file);
    let only_copy = row.kit.only_copy();
    node.machine.follow(move |call: &Call<'_>| {
        let hit = if for_good { call.nth >= nth } else { call.nth == nth };
        if !hit || !fault.fits(call.kind) {
            return Verdict::Do;
        }
        // Only where it is read back can a lie be found out.
        let only_copy = only_copy.is_some_and(|(device, offset, len)| {
            call.place == device && (offset..offset + len).contains(&call.offset)
        });
        let unsure = !crate::node::is_device(call.place) || only_copy;
        let torn = fault == Fault::Short && only_copy;
        if (fault.lies() && unsure) || torn {
            hits.fetch_add(1, Ordering::Relaxed);
        }
        fault.verdict()
    });
    let done = row.act(&mut node);
    node.machine.unscripted();
    let lied = hit_file.load(Ordering::Relaxed) > 0;
    let media = node.machine.durable();
    if done.is_ok() && !lied {
        let found = stands(row, &node).map_err(|why| format!("S9: success, but {why}"))?;
        if found != *success {
            return Err(format!("S9: success, but {found:?} instead of {success:?}"));
        }
    }
    let mut after = row.node(&media);
    if !lied {
        promises::check(&after, &row.known, &row.before)?;
    }
    match row.finish(&mut after) {
        Ok(_) if done.is_ok() => Ok(Ended::Unharmed),
        Ok(_) => Ok(Ended::Refused),
        Err(_) if lied => survives(row, &media).map(|()| Ended::Lied),
        Err(why) => Err(why),
    }
}

/// What even a medium that lies leaves: a slot boots, holds a whole release, and is never lost.
fn survives(row: &Row, media: &storage::sim::Media) -> Result<(), String> {
    // The one copy without a checksum may be anything now: documented.
    if row.kit.only_copy().is_some() {
        return Ok(());
    }
    let mut node = row.node(media);
    node.boot().map_err(|error| format!("S3 after a lie: {}", error.chain()))?;
    let slot = node.booted.ok_or("nothing booted")?;
    match row.known.held(&row.kit, media, slot) {
        Some(_) => Ok(()),
        None => Err(format!("S2 after a lie: slot {slot} boots and holds no whole release")),
    }
}
