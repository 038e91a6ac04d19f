//! Simulated media for tests: what a power cut leaves, without cutting power.
//!
//! They stand for the real ones behind the same traits, record what was asked of them, fail when
//! told to, and can be "switched off" after any operation.
//!
//! | simulator | stands for | used where |
//! |---|---|---|
//! | [`Machine`] | devices and folders below one [`Host`](crate::host::Host), all of it recorded | a program, or more than one medium, is cut |
//! | [`Disk`] | one [`BlockDevice`](crate::block::BlockDevice) | one structure on one device is cut |
//! | [`MemFiles`] | one [`Files`](crate::files::Files) | the layer above files is cut |
//! | [`Flash`] | one flash chip | erasing and programming are cut |
//!
//! A [`Machine`] could stand for the others only in part:
//!
//! - A [`Disk`] may have sectors of 4096 bytes, for which `partition_table` is tested; a machine has 512. What a
//!   cut leaves of it has names ([`Loss`]), which tables of tests list, and it needs no host that opens it.
//! - [`MemFiles`] tears [`write_atomic`](crate::files::Files::write_atomic), which a machine's folder never does: two
//!   copies of a record have to survive that (`record`, and the trusted state in `tests/tests/trust_cuts.rs`).

mod disk;
pub mod fat;
mod files;
mod flash;
pub mod machine;

pub use disk::{Disk, Fault, Loss, Operation};
pub use files::{FilesFault, Interrupted, MemFiles};
pub use flash::{Flash, FlashFault};
pub use machine::{Machine, Media};

/// SplitMix64: reproducible from a printed seed, and nothing more.
pub(crate) fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut value = *state;
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
