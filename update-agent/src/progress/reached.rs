//! How far a piece of work is.

use std::fmt;
use std::time::Duration;

use formats::size;
use serde::{Deserialize, Serialize};

/// How far a piece of work is, how fast it goes, and how long it still takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// What is done.
    #[serde(rename = "progress")]
    pub what: String,
    /// Bytes done.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
    /// Bytes per second since it began; absent before anything is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
    /// Seconds it still takes at that rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<u64>,
}

impl Reached {
    /// After `took` of work.
    pub(super) fn new(what: &str, done: u64, total: u64, took: Duration) -> Self {
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let rate = done.saturating_mul(1000).checked_div(millis).filter(|rate| *rate > 0);
        let left = rate.map(|rate| total.saturating_sub(done).div_ceil(rate));
        Reached { what: what.to_owned(), done, total, rate, left }
    }

    /// How much is done, 0 to 100.
    pub fn percent(&self) -> u64 {
        self.done.saturating_mul(100).checked_div(self.total).unwrap_or(100).min(100)
    }
}

impl fmt::Display for Reached {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (done, total) = (size(self.done), size(self.total));
        write!(out, "{}: {} %, {done} of {total}", self.what, self.percent())?;
        if let (Some(rate), Some(left)) = (self.rate, self.left) {
            write!(out, ", {}/s, {} min {} s left", size(rate), left / 60, left % 60)?;
        }
        Ok(())
    }
}
