//! What is to be signed next. Pure: the last state, a change, key ids, signatures and the time in,
//! metadata out. Which keys are at hand and how they sign is in [`crate::signing`].
//!
//! ```text
//!  State + Change ─► decide ─► nothing to do
//!                          └─► Proposal: root, targets, delegated targets, without signatures
//!                                 │
//!                 people sign ────┤  in one run, or one after the other on their machines
//!                                 ▼
//!                              assemble ─► Offline: every threshold met
//!                                             │
//!                                             ▼
//!                       online keys sign: UnsignedSnapshot ─► UnsignedTimestamp
//!                                             │
//!                                             ▼
//!                                        next State ─► upload, `tuf:latest` last
//! ```
//!
//! Version discipline (TUF §6.1): a role's version rises by one whenever its bytes change, and a
//! state is only ever built on one that was verified.

mod assemble;
pub mod capacity;
mod change;
pub mod clock;
mod document;
mod draft;
mod error;
mod expiry;
mod first;
mod history;
mod lint;
mod names;
mod online;
mod proposal;
mod release;
pub mod retention;
mod roles;
mod rollout;
mod unlist;

pub use assemble::{Missing, Offline, assemble, check_at_hand, check_versions, missing, to_sign};
pub(crate) use change::channel_of;
pub use change::{Change, ChannelEdit, NewRelease, decide};
pub use error::PlanError;
pub use expiry::{Expiry, ExpiryError, PERIOD_MEMBER, default_period, parse_duration, period_of};
pub use first::RepositoryId;
pub use history::{DEFAULT_KEEP, KEEP_MEMBER, short_paths};
pub use lint::{Component, Finding, Level, check_fit, check_online, lint, lint_change};
pub(crate) use names::counted;
pub use names::key_name;
pub use online::{Restart, UnsignedSnapshot, UnsignedTimestamp};
pub use proposal::{Payload, Proposal, Requirement, Signatures, Signers, requirements};
pub use release::{Proposal as ReleaseProposal, check_offer, check_release, security_version};
pub use retention::Retention;
pub use roles::{Delegation, RoleKeySet, Rotation};
pub use rollout::{
    Rollout, RolloutError, notes, parse_waves, parse_window, schedule_lines, time_of, wave_line,
    windows_line,
};

pub use unlist::{Unlisting, without_bases};

use formats::release::is_word;

pub(crate) fn check_word(what: &'static str, text: &str) -> Result<(), PlanError> {
    if is_word(text, 64) {
        Ok(())
    } else {
        Err(PlanError::Name { what, found: text.chars().take(80).collect() })
    }
}
