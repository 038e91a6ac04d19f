//! Public keys of other tools: PEM around the DER of a SubjectPublicKeyInfo (RFC 5280 §4.1,
//! RFC 7468, RFC 5480, RFC 8017).
//!
//! Strict DER only, so that one key has one spelling: two spellings would count as two keys.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A key found in a SubjectPublicKeyInfo.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Spki {
    /// An uncompressed point of P-256: `04 ‖ x ‖ y`.
    P256([u8; 65]),
    /// The DER of an `RSAPublicKey`, the bits of its modulus, and both numbers big-endian.
    Rsa { der: Vec<u8>, bits: usize, modulus: Vec<u8>, exponent: Vec<u8> },
}

const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const END: &str = "-----END PUBLIC KEY-----";

/// id-ecPublicKey with the curve secp256r1, as an AlgorithmIdentifier's content.
const P256: &[u8] = &[
    0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, // id-ecPublicKey
    0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, // secp256r1
];
/// rsaEncryption with NULL parameters.
const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;

/// The key of one PEM block with nothing but white space around it.
pub(super) fn from_pem(text: &str) -> Option<Spki> {
    let body = text.trim().strip_prefix(BEGIN)?.strip_suffix(END)?;
    let body: String = body.chars().filter(|c| !matches!(c, '\n' | '\r')).collect();
    from_der(&STANDARD.decode(body).ok()?)
}

fn from_der(der: &[u8]) -> Option<Spki> {
    let info = only(SEQUENCE, der)?;
    let (algorithm, rest) = take(SEQUENCE, info)?;
    let key = only(BIT_STRING, rest)?.strip_prefix(&[0])?;
    if algorithm == P256 {
        let point: [u8; 65] = key.try_into().ok()?;
        return (point[0] == 4).then_some(Spki::P256(point));
    }
    if algorithm == RSA {
        let (modulus, rest) = take(INTEGER, only(SEQUENCE, key)?)?;
        let modulus = positive(modulus)?;
        let exponent = positive(only(INTEGER, rest)?)?.to_vec();
        let bits = modulus.len() * 8 - modulus.first()?.leading_zeros() as usize;
        let modulus = modulus.to_vec();
        return Some(Spki::Rsa { der: key.to_vec(), bits, modulus, exponent });
    }
    None
}

/// The content of an element that is all of `der`.
fn only(tag: u8, der: &[u8]) -> Option<&[u8]> {
    let (content, rest) = take(tag, der)?;
    rest.is_empty().then_some(content)
}

/// The content of the first element, and what follows it.
fn take(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = der.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => {
            let (&[length], rest) = rest.split_first_chunk()?;
            (length >= 0x80).then_some((usize::from(length), rest))?
        }
        0x82 => {
            let (length, rest) = rest.split_first_chunk()?;
            let length = u16::from_be_bytes(*length);
            (length >= 0x100).then_some((usize::from(length), rest))?
        }
        // No key that is accepted needs 64 KiB.
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// The magnitude of a positive INTEGER in its shortest form.
fn positive(content: &[u8]) -> Option<&[u8]> {
    match content {
        [0, rest @ ..] => (*rest.first()? >= 0x80).then_some(rest),
        [first, ..] => (*first < 0x80).then_some(content),
        [] => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn pem(der: &[u8]) -> String {
        format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode(der))
    }

    /// An element of DER: tag, length, content.
    pub(crate) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = content.len();
        let head = match length {
            0..0x80 => vec![tag, length as u8],
            0x80..0x100 => vec![tag, 0x81, length as u8],
            _ => [&[tag, 0x82][..], &(length as u16).to_be_bytes()].concat(),
        };
        [head, content.to_vec()].concat()
    }

    fn rsa(modulus: &[u8]) -> Vec<u8> {
        let key = tlv(SEQUENCE, &[tlv(INTEGER, modulus), tlv(INTEGER, &[1, 0, 1])].concat());
        let bits = tlv(BIT_STRING, &[&[0][..], &key].concat());
        tlv(SEQUENCE, &[tlv(SEQUENCE, RSA), bits].concat())
    }

    #[test]
    fn a_point_of_p256_in_its_one_spelling() {
        let point = [&[4][..], &[7; 64]].concat();
        let bits = tlv(BIT_STRING, &[&[0][..], &point].concat());
        let der = tlv(SEQUENCE, &[tlv(SEQUENCE, P256), bits].concat());
        let key = Spki::P256(point.try_into().unwrap());
        assert_eq!(from_pem(&pem(&der)), Some(key));
        for cut in 0..der.len() {
            assert_eq!(from_der(&der[..cut]), None, "cut at {cut}");
        }
        assert_eq!(from_der(&[&der[..], &[0]].concat()), None, "bytes after it");
        let mut long_form = der.clone();
        long_form.insert(1, 0x81);
        assert_eq!(from_der(&long_form), None, "a length in a longer form");
        assert_eq!(from_pem(&pem(&der).replace("PUBLIC", "RSA PUBLIC")), None);
    }

    #[test]
    fn the_bits_of_a_modulus_are_counted_exactly() {
        for (modulus, bits) in [
            ([&[0, 0x80][..], &[1; 255]].concat(), Some(2048)),
            ([&[0x40][..], &[1; 255]].concat(), Some(2047)),
            ([&[0, 0x40][..], &[1; 255]].concat(), None), // not the shortest form
            ([&[0x80][..], &[1; 255]].concat(), None),    // negative
            (vec![0], None),
            (vec![], None),
        ] {
            let found = match from_der(&rsa(&modulus)) {
                Some(Spki::Rsa { bits, .. }) => Some(bits),
                _ => None,
            };
            assert_eq!(found, bits, "{:?}…", modulus.get(..2));
        }
    }
}
