//! When a restart lock is given back, and how a server is asked again that does not answer.
//!
//! A node asks for the lock of its group before it restarts into a release, and keeps asking as it asks the hook
//! before a restart ([`crate::hooks::before_restart`]): a server that grants nothing, or cannot be reached, puts
//! the restart off for a limited time. The lock is asked for first, so that a hook which moves work away has the
//! lock while it does; a lock that is held is asked for again each time, which prolongs it.
//!
//! | the node | the lock |
//! |---|---|
//! | has next what it is going to try | kept |
//! | is on trial, was passed over, or goes back | kept |
//! | has confirmed, has recorded a revert, or has taken back what was next | given back |

use std::time::Duration;

use crate::update::Standing;

/// 1 min, doubled with each failure: a server that restarts is back by then.
const FIRST: Duration = Duration::from_secs(60);
/// 1 h: as long as a lock lasts by default, after which it ends by itself.
const LONGEST: Duration = Duration::from_secs(3600);

/// Whether a node that stands so has no use for its lock any more.
pub fn is_over(standing: &Standing) -> bool {
    match standing {
        Standing::Idle | Standing::Interrupted | Standing::Staged => true,
        Standing::AwaitingReboot
        | Standing::PassedOver
        | Standing::OnTrial { .. }
        | Standing::ConfirmUnfinished
        | Standing::Lost { .. }
        | Standing::RevertUnfinished
        | Standing::Leaving => false,
    }
}

/// How long after so many failures in a row the lock is given back again.
pub fn again(failures: u32) -> Duration {
    FIRST.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_does_not_answer_is_asked_less_and_less_often() {
        let waits: Vec<u64> = (1..9).map(|failures| again(failures).as_secs()).collect();
        assert_eq!(waits, [60, 120, 240, 480, 960, 1920, 3600, 3600]);
        assert_eq!(again(0), FIRST);
        assert_eq!(again(u32::MAX), LONGEST);
    }
}
