//! The tables.

use crate::scenario::Row;
use crate::sweep::Found;

/// The head of the table of cuts.
pub fn head() -> String {
    format!(
        "{:42} {:>6} {:>9} {:>9} {:>9} {:>8} {:>6} {:>7}",
        "scenario / backend", "ops", "crashes", "once", "twice", "failures", "weak", "seconds"
    )
}

/// A row of it.
pub fn line(row: &Row, found: &Found) -> String {
    format!(
        "{:42} {:6} {:9} {:9} {:9} {:8} {:6} {:7.1}",
        row.name(),
        found.operations,
        found.crashes,
        found.once,
        found.twice,
        found.failed,
        found.weak,
        found.busy.as_secs_f64()
    )
}
