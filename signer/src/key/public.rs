//! Public keys of other tools as TUF key objects, points of tokens, ECDSA signatures.
//!
//! What comes in is judged here, once: an odd key is refused when it is imported, with the reason,
//! and not when its signature counts nothing (cases 40, 192).

use formats::json::Value;
use formats::tuf::{Key, PublicKey, decompress_p256};

/// SubjectPublicKeyInfo of a P-256 key up to its 65-byte point (RFC 5480 §2).
const P256_SPKI: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// A TUF key object whose signatures will count.
pub fn key_object(bytes: &[u8]) -> Result<Key, String> {
    let value = Value::parse(bytes).map_err(|error| error.to_string())?;
    let key = Key::read(&value).map_err(|error| error.to_string())?;
    counted(key)
}

/// An ed25519 key of its 32 bytes.
pub(super) fn ed25519(point: &[u8]) -> Result<Key, String> {
    let point = point.try_into().map_err(|_| "its ed25519 key does not have 32 bytes")?;
    Key::ed25519(point).map_err(|error| error.to_string())
}

/// A P-256 key of its point, compressed or not.
pub(super) fn p256(point: &[u8]) -> Result<Key, String> {
    let whole = match <&[u8; 33]>::try_from(point) {
        Ok(short) => decompress_p256(short).map(Vec::from),
        Err(_) => Some(point.to_vec()).filter(|point| point.len() == 65),
    };
    let whole = whole.ok_or("is not a point of P-256")?;
    let der = [P256_SPKI, &whole].concat();
    key_of("ecdsa", "ecdsa-sha2-nistp256", &pem(&der))
}

/// `r ‖ s` as the DER that TUF clients read (RFC 3279 §2.2.3).
pub(super) fn ecdsa_der(raw: &[u8]) -> Option<Vec<u8>> {
    if raw.len() != 64 {
        return None;
    }
    let integer = |half: &[u8]| {
        let start = half.iter().position(|byte| *byte != 0).unwrap_or(half.len() - 1);
        let mut value = half.get(start..).unwrap_or_default().to_vec();
        if value.first().is_some_and(|byte| byte & 0x80 != 0) {
            value.insert(0, 0);
        }
        [&[0x02, value.len() as u8][..], &value].concat()
    };
    let (r, s) = raw.split_at(32);
    let body = [integer(r), integer(s)].concat();
    Some([&[0x30, body.len() as u8][..], &body].concat())
}

pub(super) fn key_of(keytype: &str, scheme: &str, public: &str) -> Result<Key, String> {
    let value = Value::object([
        ("keytype", Value::from(keytype)),
        ("scheme", Value::from(scheme)),
        ("keyval", Value::object([("public", Value::from(public))])),
    ]);
    counted(Key::read(&value).map_err(|error| error.to_string())?)
}

/// Refuses a key that verifies nothing.
fn counted(key: Key) -> Result<Key, String> {
    if *key.public() == PublicKey::Unknown {
        let text = |name: &str| {
            let value = key.value().get(name).and_then(Value::as_str);
            value.unwrap_or_default().chars().take(40).collect::<String>()
        };
        return Err(format!(
            "is of type {:?} with scheme {:?}, or not a key of that type; nodes verify ed25519, \
             ecdsa-sha2-nistp256 and rsassa-pss-sha256",
            text("keytype"),
            text("scheme")
        ));
    }
    Ok(key)
}

pub(super) fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = "-----BEGIN PUBLIC KEY-----\n".to_owned();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END PUBLIC KEY-----\n");
    pem
}
