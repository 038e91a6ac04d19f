//! Root metadata: what is read is written, and read again as the same. Takes the signed object, or
//! a whole file.
#![no_main]

use formats::json::Value;
use formats::tuf::{Envelope, Metadata, Root};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let signed = match Envelope::parse(data) {
        Ok(envelope) => envelope.signed().clone(),
        Err(_) => match Value::parse(data) {
            Ok(value) => value,
            Err(_) => return,
        },
    };
    let Ok(document) = Root::parse(&signed) else { return };
    let again = Root::parse(&document.to_value()).expect("what is written is read");
    assert_eq!(again, document);
    assert!((1..=i64::MAX as u64).contains(&document.header().version));
});
