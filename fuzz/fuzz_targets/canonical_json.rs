//! JSON that is signed: what is read has one canonical form, and one spelling when written.
#![no_main]

use formats::json::Value;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(value) = Value::parse(data) else { return };
    let written = value.to_bytes();
    let again = Value::parse(&written).expect("what is written is read");
    assert_eq!(again, value);
    assert_eq!(again.canonical(), value.canonical());
    assert_eq!(again.to_bytes(), written);
});
