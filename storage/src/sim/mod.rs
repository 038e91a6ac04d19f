//! Simulated media for tests: what a power cut leaves, without cutting power.
//!
//! They stand for the real ones behind the same traits, record what was asked of them, fail when
//! told to, and can be "switched off" after any operation.

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
