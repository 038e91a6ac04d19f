//! The envelope of every metadata file, and its signatures' hexadecimal.
#![no_main]

use formats::tuf::{Envelope, envelope_bytes};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(envelope) = Envelope::parse(data) else { return };
    let bytes = envelope_bytes(envelope.signed(), envelope.signatures());
    let again = Envelope::parse(&bytes).expect("what is written is read");
    assert_eq!(again, envelope);
    for signature in envelope.signatures() {
        if let Some(bytes) = signature.bytes() {
            assert_eq!(signature.sig.len(), 2 * bytes.len());
        }
    }
});
