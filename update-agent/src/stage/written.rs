//! What writing took: the figures of an update.

use std::ops::AddAssign;

/// What writing images took. `reused_target + zeroed + written` is their length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// Compressed bytes that came from sources, also those that were of no use.
    pub fetched: u64,
    /// Of these, those of deltas.
    pub fetched_delta: u64,
    /// Raw bytes that were in the slot already.
    pub reused_target: u64,
    /// Raw bytes of zero chunks that were made zero.
    pub zeroed: u64,
    /// Raw bytes that came from seeds.
    pub reused_seed: u64,
    /// Raw bytes written, from seeds and from sources.
    pub written: u64,
}

impl AddAssign for Written {
    fn add_assign(&mut self, other: Self) {
        self.fetched += other.fetched;
        self.fetched_delta += other.fetched_delta;
        self.reused_target += other.reused_target;
        self.zeroed += other.zeroed;
        self.reused_seed += other.reused_seed;
        self.written += other.written;
    }
}
