//! Memory is shared by all threads, and goes back to the system when a crowd has gone.
//!
//! glibc keeps what is freed for the next allocation, unless it lies at the end of its heap: after
//! some thousand connections that is most of what they took up. Other allocators give it back by
//! themselves.

#![cfg_attr(
    target_env = "gnu",
    expect(unsafe_code, reason = "two functions of glibc that take numbers")
)]

use std::time::Duration;

/// Fewer connections are no crowd.
const CROWD: usize = 64;

/// How often to look whether a crowd has gone.
pub(crate) const LOOK: Duration = Duration::from_secs(2);

/// How many connections there were, for [`Tide::ebbs`].
#[derive(Debug, Default)]
pub(crate) struct Tide {
    high: usize,
}

impl Tide {
    /// Whether a crowd has gone since this was last so: half of the most connections there were.
    pub(crate) fn ebbs(&mut self, connections: usize) -> bool {
        self.high = self.high.max(connections);
        let gone = self.high.saturating_sub(connections);
        if gone < CROWD || connections > self.high / 2 {
            return false;
        }
        self.high = connections;
        true
    }
}

/// Gives what is free back to the system. Blocks for some milliseconds.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> std::ffi::c_int;
        }
        // SAFETY: malloc_trim(3) takes a number and touches no memory that is in use; it may be
        // called by any thread.
        unsafe { malloc_trim(0) };
    }
}

/// Keeps glibc from giving each thread a heap of its own, up to eight for a processor: each takes 64 MiB of
/// addresses, and keeps what it freed from the others.
pub(crate) fn share_heaps() {
    #[cfg(target_env = "gnu")]
    {
        /// `M_ARENA_MAX` of `malloc.h`.
        const ARENA_MAX: std::ffi::c_int = -8;
        unsafe extern "C" {
            fn mallopt(option: std::ffi::c_int, value: std::ffi::c_int) -> std::ffi::c_int;
        }
        // SAFETY: mallopt(3) takes two numbers and may be called by any thread.
        unsafe { mallopt(ARENA_MAX, 2) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_that_goes_is_noticed_once() {
        let mut tide = Tide::default();
        let seen = [(10, false), (0, false), (500, false), (300, false), (250, true), (200, false)];
        for (connections, ebbs) in seen.into_iter().chain([(110, true), (0, true), (0, false)]) {
            assert_eq!(tide.ebbs(connections), ebbs, "{connections}");
        }
    }
}
