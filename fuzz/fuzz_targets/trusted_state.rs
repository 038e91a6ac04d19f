//! The record of what a node trusts: one spelling.
#![no_main]

use libfuzzer_sys::fuzz_target;
use update_core::trust::Stored;

fuzz_target!(|data: &[u8]| {
    let Ok(stored) = Stored::from_bytes(data) else { return };
    assert_eq!(stored.to_bytes(), data);
});
