//! The decisions of the update agent, pure: no I/O, no clock, no randomness.
//!
//! Facts, time and random numbers come in as arguments, decisions go out as values, so every one
//! of them can be enumerated. The manifest lists nothing that could touch the world, and
//! `clippy.toml` in this folder bans the standard library's ways to do so.
//!
//! ```text
//!  metadata bytes ─► trust ─► signed targets ─► policy ─► Install / DeferUntil / Refuse
//!  Install ─► update (effects, one at a time) ─► boot flags ─► boot loader ─► probation ─► confirm
//! ```
//!
//! ```
//! use formats::boot_record::{PerSlot, Slot};
//! use update_core::boot::{SlotFlags, FlagEdit, select};
//!
//! let flags = PerSlot { a: SlotFlags { priority: 1, tries: 0, successful: true }, b: SlotFlags::CLEARED };
//! let next = FlagEdit::Activate { slot: Slot::B, tries: 3 }.apply(flags);
//! let choice = select(next).expect("slot A is still bootable");
//! assert_eq!((choice.slot, choice.flags.b.tries), (Slot::B, 2));
//! ```

pub mod asking;
pub mod boot;
pub mod bundle;
pub mod chooser;
pub mod cut;
pub mod daemon;
pub mod emmc;
pub mod fetch;
pub mod floor;
pub mod guard;
pub mod hooks;
pub mod image;
pub mod indexes;
pub mod policy;
pub mod probation;
pub mod reporting;
pub mod restart;
pub mod restart_lock;
pub mod resume;
pub mod single;
pub mod trust;
pub mod update;
pub mod withheld;
