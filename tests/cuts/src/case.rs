//! What a sweep needs to know of whatever is cut: a node, a server's store, a publisher.

use storage::sim::Media;
use storage::sim::machine::{CallKind, Recording};

use crate::faults::{Ended, Fault};
use crate::scenario::Recovered;

/// One row of the tables: work on media, ready to be cut.
pub trait Case: Sync {
    /// The work, as the tables call it.
    fn scenario(&self) -> &str;

    /// What it runs on.
    fn place(&self) -> &str;

    /// The work in a sentence.
    fn about(&self) -> &str;

    /// Few enough operations for every second cut of every first one.
    fn is_small(&self) -> bool;

    /// The media when it begins.
    fn base(&self) -> &Media;

    /// The uncut run.
    fn recording(&self) -> &Recording;

    /// Judges media that a cut has left, and goes on from there. `done`: the run had ended, and said
    /// so. In step, equal media give equal recordings.
    fn judge(&self, media: &Media, in_step: bool, done: bool) -> Result<Recovered, String>;

    /// Whether more is asked of a state when the run had ended: then it is looked at once more.
    fn asks_more_when_done(&self) -> bool {
        false
    }

    /// Whether a failure in this state is what the documentation says of this kind of medium.
    fn is_documented(&self, _media: &Media, _recordings: &[Recording]) -> bool {
        false
    }

    /// All calls of the uncut run, reads included.
    fn calls(&self) -> Result<Vec<CallKind>, String>;

    /// A run whose n-th call fails, once or from then on.
    fn with_fault(&self, fault: Fault, nth: usize, for_good: bool) -> Result<Ended, String>;

    /// What the tables call it.
    fn name(&self) -> String {
        format!("{} / {}", self.scenario(), self.place())
    }
}
