//! When a transfer is given up: after so long in which nothing moved, never because it is long.
//!
//! ```text
//!  request ─► body, part by part ─► last part ─────────────► answer
//!             └ `stall` after each ┘  └ `commit`, and a second for each 64 KiB ┘
//! ```
//!
//! The HTTP client's own limits count from the start of a request and would cut a long body, so none
//! of them is used. Bytes are seen to move where they do: the kernel ends a connection whose peer
//! acknowledged nothing, or had no room, for `stall` (`TCP_USER_TIMEOUT`). It holds up to 4 MiB of a
//! body, so that what is seen here comes in leaps; this ends what TCP does not know of, like a stream
//! of HTTP/2 that its peer lets starve.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::timeout_at;

use super::failure::Failure;
use super::pulse::{BodyProgress, Pulse};

/// 64 KiB a second: what stands between, like a proxy that buffers, may take so long to send on
/// what it has.
const SENT_ON: u64 = 64 << 10;

/// 512 s: what the kernel holds of a body, 4 MiB, takes so long on a line of 64 kbit/s.
const HELD: Duration = Duration::from_secs(512);

/// How long nothing may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// While bytes are to move, either way, and before an answer begins.
    pub stall: Duration,
    /// Until the answer, after the last byte of a body: the registry checks and stores it.
    pub commit: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience { stall: Duration::from_secs(120), commit: Duration::from_secs(600) }
    }
}

impl Patience {
    /// How long it may take after that until something moves.
    pub(super) fn after(&self, taken: BodyProgress) -> Duration {
        match taken {
            BodyProgress { len: 0, .. } => self.stall,
            BodyProgress { sent, len } if sent < len => self.stall + HELD,
            BodyProgress { len, .. } => self.commit + Duration::from_secs(len / SENT_ON),
        }
    }

    /// Awaits a request without a body to speak of.
    pub(super) async fn answer<T>(
        &self,
        len: u64,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let pulse = Pulse::default();
        pulse.beats(BodyProgress { sent: len, len });
        self.watch(&pulse, work).await
    }

    /// Awaits a request; gives up when its pulse stands still for too long.
    pub(super) async fn watch<T>(
        &self,
        pulse: &Pulse,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let mut work = pin!(work);
        loop {
            let (last, taken) = pulse.last();
            let limit = self.after(taken);
            match timeout_at(last + limit, work.as_mut()).await {
                Ok(done) => return done,
                Err(_) if pulse.last() != (last, taken) => {}
                Err(_) => return Err(Failure::Stalled { taken, limit }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_nothing_may_happen() {
        let patience = Patience::default();
        const MIB: u64 = 1 << 20;
        for (sent, len, seconds) in [
            (0, 0, 120),
            (0, MIB, 632),
            (MIB - 1, MIB, 632),
            (MIB, MIB, 616),
            (100, 100, 600),
            // A gigabyte behind a proxy that keeps all of it before it sends it on.
            (1024 * MIB, 1024 * MIB, 600 + 16_384),
        ] {
            let taken = BodyProgress { sent, len };
            assert_eq!(patience.after(taken).as_secs(), seconds, "{taken:?}");
        }
    }
}
