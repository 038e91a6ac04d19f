//! Reads keys of other tools: PKCS#8 and SubjectPublicKeyInfo, in PEM or DER, and TUF key objects.
//!
//! PEM may have text before and after its block (RFC 7468 §2): `openssl pkcs12` writes "Bag Attributes",
//! editors of some systems a byte order mark. What is not taken is named by what it is, with the way
//! out where there is one.

use formats::tuf::Key;
use zeroize::Zeroizing;

use super::SecretKey;
use super::public::{ed25519, key_object, key_of, p256, pem};

/// What was in a file that is to be imported.
pub enum Imported {
    /// A secret key, of which the public half follows.
    Secret(SecretKey),
    /// A public key.
    Public(Key),
}

/// Reads a key of another tool. A file with both halves gives the secret one.
pub fn import(bytes: &[u8]) -> Result<Imported, String> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if bytes.first() == Some(&SEQUENCE) {
        return match take(SEQUENCE, bytes).and_then(|(content, _)| content.first().copied()) {
            Some(INTEGER) => secret(bytes).map(Imported::Secret),
            _ => public(bytes).map(Imported::Public),
        };
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "is neither text nor DER")?.trim();
    if text.starts_with('{') {
        return key_object(text.as_bytes()).map(Imported::Public);
    }
    let blocks = blocks(text)?;
    let find = |label: &str| blocks.iter().find(|(found, _)| *found == label);
    if let Some((_, body)) = find("PRIVATE KEY") {
        return secret(&der_of(body)?).map(Imported::Secret);
    }
    if let Some((_, body)) = find("PUBLIC KEY") {
        return public(&der_of(body)?).map(Imported::Public);
    }
    match blocks.first() {
        Some(("ENCRYPTED PRIVATE KEY", _)) => {
            Err("is encrypted: decrypt it with `openssl pkcs8 -in FILE` into a private file".into())
        }
        Some((other, _)) => {
            Err(format!("is PEM of {other:?}; PRIVATE KEY (PKCS#8) or PUBLIC KEY is read"))
        }
        None => Err("is neither PEM, DER nor a TUF key object".to_owned()),
    }
}

/// The labels and bodies of all PEM blocks.
fn blocks(text: &str) -> Result<Vec<(&str, &str)>, String> {
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("-----BEGIN ") {
        let (label, after) = after.split_once("-----").ok_or("has a PEM line without an end")?;
        let end = format!("-----END {label}-----");
        let (body, after) =
            after.split_once(end.as_str()).ok_or_else(|| format!("has no line {end:?}"))?;
        blocks.push((label, body));
        rest = after;
    }
    Ok(blocks)
}

fn der_of(body: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    use base64::Engine as _;
    let body: Zeroizing<String> =
        Zeroizing::new(body.chars().filter(|c| !c.is_ascii_whitespace()).collect());
    let der = base64::engine::general_purpose::STANDARD.decode(body.as_bytes());
    der.map(Zeroizing::new).map_err(|_| "is not base64 between its PEM lines".to_owned())
}

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
/// `[0]` of attributes, `[1]` of a public key (RFC 5958 §2), and how ring tags the latter.
const ATTRIBUTES: u8 = 0xa0;
const PUBLIC: u8 = 0x81;
const PUBLIC_OF_RING: u8 = 0xa1;

const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];

/// What people have that nodes do not verify, by its object identifier.
const OTHERS: [(&[u8], &str); 10] = [
    (&[0x2b, 0x65, 0x71], "an Ed448"),
    (&[0x2b, 0x65, 0x6e], "an X25519"),
    (&[0x2b, 0x81, 0x04, 0x00, 0x22], "a P-384"),
    (&[0x2b, 0x81, 0x04, 0x00, 0x23], "a P-521"),
    (&[0x2b, 0x81, 0x04, 0x00, 0x21], "a P-224"),
    (&[0x2b, 0x81, 0x04, 0x00, 0x0a], "a secp256k1"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a], "an RSA-PSS-only"),
    (&[0x2a, 0x86, 0x48, 0xce, 0x38, 0x04, 0x01], "a DSA"),
    (RSA, "an RSA"),
    (P256, "a P-256"),
];

/// An algorithm's identifier and its parameter, where that is an identifier, too.
fn algorithm(content: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let (first, rest) = take(OID, content)?;
    Some((first, take(OID, rest).map(|(parameter, _)| parameter)))
}

fn named(algorithm: (&[u8], Option<&[u8]>)) -> &'static str {
    let id = if algorithm.0 == EC { algorithm.1.unwrap_or_default() } else { algorithm.0 };
    OTHERS.iter().find(|(other, _)| *other == id).map_or("another kind of", |(_, name)| *name)
}

/// The seed of an ed25519 key (RFC 8410 §7, RFC 5958 §2): version 1, or version 2 with its public half.
fn secret(der: &[u8]) -> Result<SecretKey, String> {
    let broken = || "is not PKCS#8".to_owned();
    let (info, _) = take(SEQUENCE, der).ok_or_else(broken)?;
    let (version, rest) = take(INTEGER, info).ok_or_else(broken)?;
    let (kind, rest) = take(SEQUENCE, rest).ok_or_else(broken)?;
    let kind = algorithm(kind).ok_or_else(broken)?;
    if kind.0 != ED25519 {
        let name = named(kind);
        return Err(format!(
            "is {name} secret key; those that are not ed25519 sign through pkcs11: or cmd:"
        ));
    }
    let (key, rest) = take(OCTET_STRING, rest).ok_or_else(broken)?;
    let seed = take(OCTET_STRING, key).and_then(|(seed, _)| <&[u8; 32]>::try_from(seed).ok());
    let key = SecretKey::from_seed(seed.ok_or("its ed25519 seed does not have 32 bytes")?);
    if !matches!(version, [0 | 1]) {
        return Err("is PKCS#8 of a version that is not known".to_owned());
    }
    if public_half(rest)?.is_some_and(|public| public != key.public()) {
        return Err("has a public half that does not belong to its secret half".to_owned());
    }
    key.key().map_err(|error| error.to_string())?;
    Ok(key)
}

/// What follows the secret: attributes, and the public half in one of two spellings.
fn public_half(rest: &[u8]) -> Result<Option<&[u8]>, String> {
    let rest = take(ATTRIBUTES, rest).map_or(rest, |(_, rest)| rest);
    if rest.is_empty() {
        return Ok(None);
    }
    let ring = || take(PUBLIC_OF_RING, rest).and_then(|(bits, _)| take(BIT_STRING, bits));
    let bits = take(PUBLIC, rest).or_else(ring);
    let public = bits.and_then(|(bits, _)| bits.strip_prefix(&[0]));
    public.map(Some).ok_or_else(|| "has something unknown behind its secret half".to_owned())
}

fn public(der: &[u8]) -> Result<Key, String> {
    let broken = || "is not a SubjectPublicKeyInfo".to_owned();
    let (info, _) = take(SEQUENCE, der).ok_or_else(broken)?;
    let (kind, rest) = take(SEQUENCE, info).ok_or_else(broken)?;
    let kind = algorithm(kind).ok_or_else(broken)?;
    let (bits, _) = take(BIT_STRING, rest).ok_or_else(broken)?;
    let key = bits.strip_prefix(&[0]).ok_or_else(broken)?;
    match kind {
        (ED25519, _) => ed25519(key),
        (EC, Some(P256)) => p256(key),
        (RSA, _) => key_of("rsa", "rsassa-pss-sha256", &pem(der)),
        other => Err(format!(
            "is {} key; nodes verify ed25519, ecdsa-sha2-nistp256 (P-256) and rsassa-pss-sha256 (RSA)",
            named(other)
        )),
    }
}

/// The content of the first element, if it is of that kind, and what follows it. Lengths of up to
/// two bytes: no key has 64 KiB.
fn take(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = der.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => rest.split_first().map(|(length, rest)| (usize::from(*length), rest))?,
        0x82 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use formats::digest::unhex;

    use super::*;

    /// PKCS#8 of the seed 03…03 up to what version 2 adds.
    fn pkcs8(version: u8, more: &[u8]) -> Vec<u8> {
        let head = [0x30, 0x2e + more.len() as u8, 0x02, 0x01, version];
        let middle = [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
        [&head[..], &middle, &[3; 32], more].concat()
    }

    fn pem_of(label: &str, der: &[u8]) -> String {
        use base64::Engine as _;
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    }

    #[test]
    fn ed25519_keys_come_in_every_spelling_of_pkcs8() {
        let own = SecretKey::from_seed(&[3; 32]).public();
        let other = SecretKey::from_seed(&[4; 32]).public();
        let rfc = |public: &[u8]| [&[0x81, 0x21, 0x00][..], public].concat();
        let ring = |public: &[u8]| [&[0xa1, 0x23, 0x03, 0x21, 0x00][..], public].concat();
        let attributed = [&[0xa0, 0x02, 0x30, 0x00][..], &rfc(&own)].concat();
        for (name, der, said) in [
            ("version 1", pkcs8(0, &[]), ""),
            ("version 2 of RFC 5958", pkcs8(1, &rfc(&own)), ""),
            ("version 2 of ring", pkcs8(1, &ring(&own)), ""),
            ("with attributes", pkcs8(1, &attributed), ""),
            ("another public half", pkcs8(1, &rfc(&other)), "does not belong"),
            ("another public half, ring", pkcs8(1, &ring(&other)), "does not belong"),
            ("a short public half", pkcs8(1, &rfc(&own[..31])), "unknown"),
            ("rubbish behind it", pkcs8(1, &[0x05, 0x00]), "unknown"),
            ("version 3", pkcs8(2, &[]), "version"),
            ("a short seed", [&[0x30, 0x2d][..], &pkcs8(0, &[])[2..47]].concat(), "not PKCS#8"),
        ] {
            let text = pem_of("PRIVATE KEY", &der);
            for bytes in [der.clone(), text.into_bytes()] {
                match import(&bytes) {
                    Ok(Imported::Secret(key)) => {
                        assert_eq!((key.public(), said), (own, ""), "{name}");
                    }
                    Ok(Imported::Public(_)) => panic!("{name}: a public key"),
                    Err(why) => assert!(!said.is_empty() && why.contains(said), "{name}: {why}"),
                }
            }
        }
    }

    #[test]
    fn text_around_pem_and_byte_order_marks_are_skipped() {
        let key = pem_of("PRIVATE KEY", &pkcs8(0, &[]));
        let public = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
        for (name, text) in [
            ("bag attributes", format!("Bag Attributes\n    localKeyID: 01\nKey: <No>\n{key}")),
            ("a byte order mark", format!("\u{feff}{key}")),
            ("lines that end as in DOS", key.replace('\n', "\r\n")),
            ("text behind it", format!("{key}that was it\n")),
            ("both halves", format!("{public}{key}")),
        ] {
            assert!(matches!(import(text.as_bytes()), Ok(Imported::Secret(_))), "{name}");
        }
        for text in ["", "text", "-----BEGIN PRIVATE KEY-----", "-----BEGIN PRIVATE KEY"] {
            assert!(import(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn public_keys_are_taken_or_named_by_what_they_are() {
        let spki = |id: &str, bits: &str| {
            let id = unhex(id).unwrap();
            let bits = [vec![0], unhex(bits).unwrap()].concat();
            let kind = [&[0x30, id.len() as u8][..], &id].concat();
            let bits = [&[0x03, bits.len() as u8][..], &bits].concat();
            let length = (kind.len() + bits.len()) as u8;
            let head = if length < 0x80 { vec![0x30, length] } else { vec![0x30, 0x81, length] };
            [head, kind, bits].concat()
        };
        let ec = |curve: &str| format!("06072a8648ce3d0201{curve}");
        let x = "e4ecb5f3eb6e8a1ca5bdf81c0fdb4a60ae0ae5b1cf1f3a4a19ad2bf2a0d8a7c5";
        let short = (1u8..=255)
            .map(|first| format!("02{first:02x}{}", &x[2..]))
            .find(|point| decompress(point))
            .unwrap();
        let p256 = ec("06082a8648ce3d030107");
        for (name, der, said) in [
            ("compressed P-256", spki(&p256, &short), ""),
            ("no point", spki(&p256, &format!("02{}", "ff".repeat(32))), "not a point"),
            ("the point at infinity", spki(&p256, "00"), "not a point"),
            ("P-384", spki(&ec("06052b81040022"), "04"), "a P-384 key"),
            ("P-521", spki(&ec("06052b81040023"), "04"), "a P-521 key"),
            ("secp256k1", spki(&ec("06052b8104000a"), "04"), "a secp256k1 key"),
            ("Ed448", spki("06032b6571", "04"), "an Ed448 key"),
            ("something else", spki("06022a03", "04"), "another kind of key"),
            ("cut", spki(&p256, &short)[..40].to_vec(), "not a SubjectPublicKeyInfo"),
        ] {
            match import(&der) {
                Ok(Imported::Public(_)) => assert_eq!(said, "", "{name}"),
                Ok(Imported::Secret(_)) => panic!("{name}: a secret key"),
                Err(why) => assert!(!said.is_empty() && why.contains(said), "{name}: {why}"),
            }
        }
    }

    fn decompress(point: &str) -> bool {
        let point = unhex(point).and_then(|point| <[u8; 33]>::try_from(point).ok());
        point.is_some_and(|point| formats::tuf::decompress_p256(&point).is_some())
    }
}
