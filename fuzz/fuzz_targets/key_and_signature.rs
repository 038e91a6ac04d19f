//! Keys and signatures: `KEY-OBJECT NUL SIGNATURE NUL MESSAGE`. Nothing verifies under a key
//! nobody can use, and nothing that is not as long as its scheme says.
#![no_main]

use formats::json::Value;
use formats::tuf::{Key, PublicKey};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(3, |byte| *byte == 0);
    let Some(object) = parts.next() else { return };
    let Ok(value) = Value::parse(object) else { return };
    let Ok(key) = Key::read(&value) else { return };
    assert_eq!(Key::read(key.value()).expect("what was read is read").id(), key.id());
    let (signature, message) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let verifies = key.public().verifies(message, signature);
    match key.public() {
        PublicKey::Unknown => assert!(!verifies),
        PublicKey::Ed25519(point) => {
            assert!(!point.is_weak());
            assert!(!verifies || signature.len() == 64);
        }
        PublicKey::EcdsaP256(point) => assert_eq!(point[0], 4),
        PublicKey::RsaPss(der) => assert!(der.len() > 256),
    }
});
