//! The update machine: what is done next, and what must be durable before.
//!
//! ```text
//! stage     clear slot ─► switch back ─► persist Staging ─► write ─► sync, read back ─► persist Staged
//! activate  persist Trial ─► switch ─► make next
//! trial     (boot) check health ─┬ passed ─► confirm ─► persist ─► raise floor
//!                                └ failed ─► persist why ─► reboot … no tries left ─► the boot loader reverts
//! revert    persist Reverting ─► clear slot ─► switch back ─► persist failure ─► reboot
//! withhold  persist why ─► clear slot ─► switch back ─► persist Staged
//! ```
//!
//! *Switch* is for the components that start by themselves, from a bank of their own: a BMC beside
//! the system. The flags move every other component; the record is the commit of both.
//!
//! What a boot shows of its boot loader is [`Evidence`]; [`begin`] takes it into the record first. So is what
//! the slots show of other programs ([`slot_check`]): a release that one of them wrote over is never made next
//! or left next, and nothing is concluded from what the record says of such a slot.
//!
//! [`stand`] says where a node stands after any interruption; [`begin`] starts a piece of work and
//! [`step`] continues it. One effect is under way at a time, and an effect that relies on another
//! is only asked for after that one was reported durable. Cut the power before or after any
//! effect: `explore.rs` walks every state that this can lead to.

mod effect;
mod evidence;
#[cfg(test)]
mod explore;
mod leave;
mod machine;
mod node;
mod observe;
pub mod slot_check;
mod standing;
mod task;
#[cfg(test)]
mod tests;
mod unknown;

pub use effect::{Effect, Event, Order};
pub use evidence::{BootLoader, Evidence};
pub use leave::{Known, Leave, leave_failed_trial};
pub use machine::{State, begin, step};
pub use node::Node;
pub use standing::{Standing, next_slot, stand};
pub use task::{Outcome, Refusal, Task};
pub use unknown::slot_to_leave;
