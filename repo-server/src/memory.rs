//! Memory is shared by all threads, and goes back to the system when a crowd has gone.
//!
//! glibc keeps what is freed for the next allocation, unless it lies at the end of its heap: after
//! some thousand connections that is most of what they took up. Other allocators give it back by
//! themselves.
//!
//! What a socket holds is memory of the kernel, and counts as much: see [`bound_unsent`].

#![expect(unsafe_code, reason = "functions of the C library that take numbers")]

use std::os::fd::{AsFd, AsRawFd as _};
use std::time::Duration;
use std::{io, mem};

/// Fewer connections are no crowd.
const CROWD: usize = 64;

/// How often to look whether a crowd has gone.
pub(crate) const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// How many connections there were, for [`CrowdWatch::has_gone`].
#[derive(Debug, Default)]
pub(crate) struct CrowdWatch {
    high: usize,
}

impl CrowdWatch {
    /// Whether a crowd has gone since this was last so: half of the most connections there were.
    pub(crate) fn has_gone(&mut self, connections: usize) -> bool {
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
        // SAFETY: malloc_trim(3) takes a number and touches no memory that is in use; it may be
        // called by any thread.
        unsafe { libc::malloc_trim(0) };
    }
}

/// Keeps glibc from giving each thread a heap of its own, up to eight for a processor: each takes 64 MiB of
/// addresses, and keeps what it freed from the others.
pub(crate) fn share_heaps() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: mallopt(3) takes two numbers and may be called by any thread.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, 2) };
    }
}

/// Bounds what the kernel keeps for clients that read nothing: of what it has not sent yet, at most
/// so many bytes of this connection, or of each one that a listening socket accepts.
///
/// Otherwise Linux takes up to 4 MiB of each, and what 2,048 connections ask for and do not read
/// fills the memory it has for TCP as a whole. It then resets connections that the server has
/// closed, which costs their clients the end of an answer. What is on its way to a client that reads
/// is not bounded by this, so far and fast lines stay full.
pub(crate) fn bound_unsent(socket: impl AsFd, bytes: u32) -> io::Result<()> {
    // SAFETY: setsockopt(2) reads an integer of the length it is told, from a variable that lives
    // until it returns; the descriptor is borrowed, so it is open.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NOTSENT_LOWAT,
            (&raw const bytes).cast(),
            mem::size_of_val(&bytes) as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_that_goes_is_noticed_once() {
        let mut crowd = CrowdWatch::default();
        let seen = [(10, false), (0, false), (500, false), (300, false), (250, true), (200, false)];
        for (connections, has_gone) in seen.into_iter().chain([(110, true), (0, true), (0, false)])
        {
            assert_eq!(crowd.has_gone(connections), has_gone, "{connections}");
        }
    }
}
