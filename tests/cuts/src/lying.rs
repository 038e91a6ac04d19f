//! A disk that lies about flushes: outside of what is promised. What then happens is measured.

use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use storage::sim::machine::{Call, CallKind, Verdict};

use crate::scenario::Row;
use crate::sweep::Size;

/// What a lying disk left.
#[derive(Debug, Default)]
pub struct Found {
    /// Distinct states.
    pub states: usize,
    /// States that kept every promise.
    pub good: usize,
    /// States by the promise they broke.
    pub broken: BTreeMap<String, usize>,
}

/// Runs a row on media that answer every flush at once and write in any order, and cuts the power.
pub fn measure(row: &Row, size: Size) -> Result<Found, String> {
    let mut node = row.node(&row.base);
    // In step, the writer would wait for flushes that are never seen.
    node = node.out_of_step();
    node.machine.follow(|call: &Call<'_>| match call.kind {
        CallKind::Sync => Verdict::Skip,
        _ => Verdict::Do,
    });
    row.act(&mut node)?;
    let recording = node.machine.recording();
    let mut found = Found::default();
    let mut seen = HashSet::new();
    let cuts = 0..recording.operations().len() + 1;
    recording.crashes(cuts, size.samples, size.seed, &mut |_, media| {
        if !seen.insert(media.hash()) {
            return;
        }
        found.states += 1;
        match catch_unwind(AssertUnwindSafe(|| Row::judge(row, &media, false))) {
            Ok(Ok(_)) => found.good += 1,
            Ok(Err(why)) => {
                let promise = why.split(':').next().unwrap_or_default();
                // Whatever else it says is an error that the next run does not get over.
                let promise = if promise.len() < 4 { promise } else { "S8" }.to_owned();
                *found.broken.entry(promise).or_default() += 1;
            }
            Err(_) => *found.broken.entry("S14".to_owned()).or_default() += 1,
        }
    });
    Ok(found)
}
