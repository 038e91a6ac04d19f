//! Keys of other tools: public and private halves in PEM, points of tokens, ECDSA signatures.
//!
//! What comes in is judged here, once: an odd key is refused when it is imported, with the reason,
//! and not when its signature counts nothing (cases 40, 192).

use formats::digest::hex;
use formats::json::Value;
use formats::tuf::{Key, PublicKey};
use zeroize::Zeroizing;

use super::SecretKey;

/// SubjectPublicKeyInfo of an ed25519 key up to its 32 bytes (RFC 8410 §4).
const ED25519_SPKI: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0];
/// PKCS#8 of an ed25519 key up to its 32-byte seed (RFC 8410 §7).
const ED25519_PKCS8: &[u8] = &[
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
/// SubjectPublicKeyInfo of a P-256 key up to its 65-byte point (RFC 5480 §2).
const P256_SPKI: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// What was in a file that is to be imported.
pub enum Imported {
    /// A secret key, of which the public half follows.
    Secret(SecretKey),
    /// A public key.
    Public(Key),
}

/// Reads a key of another tool: PKCS#8 or SubjectPublicKeyInfo in PEM, or a TUF key object.
pub fn import(bytes: &[u8]) -> Result<Imported, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is not text: convert it to PEM")?.trim();
    if text.starts_with('{') {
        return key_object(text.as_bytes()).map(Imported::Public);
    }
    let label = text.strip_prefix("-----BEGIN ").and_then(|rest| rest.split("-----").next());
    match label {
        Some("PRIVATE KEY") => secret(text).map(Imported::Secret),
        Some("PUBLIC KEY") => public(text).map(Imported::Public),
        Some("ENCRYPTED PRIVATE KEY") => {
            Err("is encrypted: decrypt it with `openssl pkcs8 -in FILE` into a private file".into())
        }
        Some(other) => {
            Err(format!("is PEM of {other:?}; PRIVATE KEY (PKCS#8) or PUBLIC KEY is read"))
        }
        None => Err("is neither PEM nor a TUF key object".to_owned()),
    }
}

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

/// A P-256 key of its uncompressed point.
#[cfg(feature = "pkcs11")]
pub(super) fn p256(point: &[u8]) -> Result<Key, String> {
    if point.len() != 65 {
        return Err("its ECDSA key is not an uncompressed point of P-256".to_owned());
    }
    let der = [P256_SPKI, point].concat();
    key_of("ecdsa", "ecdsa-sha2-nistp256", &pem(&der))
}

/// `r ‖ s` as the DER that TUF clients read (RFC 3279 §2.2.3).
#[cfg(feature = "pkcs11")]
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

fn secret(text: &str) -> Result<SecretKey, String> {
    let der = Zeroizing::new(der_of(text, "PRIVATE KEY")?);
    let seed = der.strip_prefix(ED25519_PKCS8);
    let seed = seed.and_then(|seed| <&[u8; 32]>::try_from(seed).ok());
    let seed = seed.ok_or(
        "is not an ed25519 key in PKCS#8; keys of other types sign through pkcs11: or cmd:",
    )?;
    let key = SecretKey::from_seed(seed);
    key.key().map_err(|error| error.to_string())?;
    Ok(key)
}

fn public(text: &str) -> Result<Key, String> {
    let der = der_of(text, "PUBLIC KEY")?;
    if let Some(point) = der.strip_prefix(ED25519_SPKI) {
        return ed25519(point);
    }
    let canonical = pem(&der);
    if der.starts_with(P256_SPKI) {
        return key_of("ecdsa", "ecdsa-sha2-nistp256", &canonical);
    }
    // RSA, or something that no client verifies: reading it says which.
    key_of("rsa", "rsassa-pss-sha256", &canonical)
}

fn key_of(keytype: &str, scheme: &str, public: &str) -> Result<Key, String> {
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

fn pem(der: &[u8]) -> String {
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

fn der_of(text: &str, label: &str) -> Result<Vec<u8>, String> {
    use base64::Engine as _;
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let body = text.strip_prefix(&begin).and_then(|rest| rest.strip_suffix(&end));
    let body = body.ok_or("is not one block of PEM")?;
    let body: Zeroizing<String> =
        Zeroizing::new(body.chars().filter(|c| !c.is_ascii_whitespace()).collect());
    base64::engine::general_purpose::STANDARD
        .decode(body.as_bytes())
        .map_err(|_| "is not base64 between its PEM lines".to_owned())
}

/// What a key is called in messages: its type and the first digits of its key id.
pub fn short(key: &Key) -> String {
    let kind = match key.public() {
        PublicKey::Ed25519(_) => "ed25519",
        PublicKey::EcdsaP256(_) => "ecdsa-p256",
        PublicKey::RsaPss(_) => "rsa-pss",
        PublicKey::Unknown => "unknown",
    };
    format!("{kind} {}", hex(key.id().0.0.get(..4).unwrap_or_default()))
}
