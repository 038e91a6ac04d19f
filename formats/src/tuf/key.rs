//! Keys: the object that is hashed to the key id, and the public key inside it.
//!
//! | keytype | scheme | public | |
//! |---|---|---|---|
//! | `ed25519` | `ed25519` | 64 hex digits | ours; RFC 8032, verified strictly |
//! | `ecdsa`, `ecdsa-sha2-nistp256` | `ecdsa-sha2-nistp256` | PEM | verify only |
//! | `rsa` | `rsassa-pss-sha256` | PEM, 2048 to 8192 bits | verify only |
//! | anything else, or a key not of its type | | | counts zero signatures (TUF §4.2) |

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::VerifyingKey;
use ring::signature::{ECDSA_P256_SHA256_ASN1, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};

use super::TufError;
use super::fields::Fields;
use super::spki::{self, Spki};
use super::{p256, weak};
use crate::digest::{DigestError, Sha256, unhex};
use crate::json::Value;

/// SHA-256 over the canonical form of the whole key object (TUF §4.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub Sha256);

impl FromStr for KeyId {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        Sha256::from_hex(text).map(KeyId)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A key as metadata carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    id: KeyId,
    value: Value,
    public: PublicKey,
}

/// What verifies signatures. Equal values are the same key material, whatever the key objects
/// around them look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicKey {
    /// A canonical point of large order.
    Ed25519(VerifyingKey),
    /// An uncompressed point, `04 ‖ x ‖ y`.
    EcdsaP256(Box<[u8; 65]>),
    /// The DER of an `RSAPublicKey` of 2048 to 8192 bits, for PSS with SHA-256.
    RsaPss(Vec<u8>),
    /// A type, scheme or form this reader does not know. Verifies nothing.
    Unknown,
}

impl Key {
    /// The key object of an ed25519 public key, without any further member.
    ///
    /// Errors: [`TufError::KeyInvalid`] for bytes that are no point, or a weak one.
    pub fn ed25519(public: &[u8; 32]) -> Result<Self, TufError> {
        Key::read(&Value::object([
            ("keytype", Value::from("ed25519")),
            ("scheme", Value::from("ed25519")),
            ("keyval", Value::object([("public", Value::from(crate::digest::hex(public)))])),
        ]))
    }

    /// Reads a key object. Members that are not known stay, and are part of the key id.
    ///
    /// Errors: [`TufError::Format`], and [`TufError::KeyInvalid`] for a key that no document should
    /// trust, because others can sign with it or it has two spellings: a small-order or
    /// non-canonical ed25519 point, one that is not on P-256, RSA below 2048 or above 8192 bits, with
    /// a small or even exponent or a factor that is found at once, and keys whose private half is
    /// published.
    pub fn read(value: &Value) -> Result<Self, TufError> {
        let id = KeyId(Sha256::of(&value.canonical()));
        let fields = Fields::of(value, format!("key {id}"))?;
        let (keytype, scheme) = (fields.text("keytype")?, fields.text("scheme")?);
        let keyval = fields.object("keyval")?;
        let public = match (keytype, scheme) {
            ("ed25519", "ed25519") => ed25519(keyval.text("public")?),
            ("ecdsa" | "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256") => {
                ecdsa(keyval.text("public")?)
            }
            ("rsa", "rsassa-pss-sha256") => rsa(keyval.text("public")?),
            _ => Ok(PublicKey::Unknown),
        };
        let public = public.map_err(|problem| TufError::KeyInvalid { keyid: id, problem })?;
        Ok(Key { id, value: value.clone(), public })
    }

    /// Its key id.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// What verifies its signatures.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The key object as it was read.
    pub fn value(&self) -> &Value {
        &self.value
    }
}

fn ed25519(text: &str) -> Result<PublicKey, &'static str> {
    let bytes = unhex(text).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    let Some(bytes) = bytes else { return Ok(PublicKey::Unknown) };
    if !is_canonical(&bytes) {
        return Err("is not the canonical encoding of an ed25519 point");
    }
    let key = VerifyingKey::from_bytes(&bytes).map_err(|_| "is not an ed25519 point")?;
    // With a small-order key one signature verifies for many messages.
    if key.is_weak() {
        return Err("is an ed25519 point of small order");
    }
    match weak::ed25519(text) {
        Some(problem) => Err(problem),
        None => Ok(PublicKey::Ed25519(key)),
    }
}

/// Whether the y coordinate is below p = 2^255 - 19: `from_bytes` reduces it, so that a point
/// would have two encodings and count as two keys.
fn is_canonical(bytes: &[u8; 32]) -> bool {
    let [first, middle @ .., last] = bytes;
    !(*first >= 0xed && middle.iter().all(|byte| *byte == 0xff) && last & 0x7f == 0x7f)
}

fn ecdsa(text: &str) -> Result<PublicKey, &'static str> {
    let Some(Spki::P256(point)) = spki::from_pem(text) else { return Ok(PublicKey::Unknown) };
    if !p256::is_point(&point) {
        return Err("is not a point of P-256");
    }
    match weak::p256(&point) {
        Some(problem) => Err(problem),
        None => Ok(PublicKey::EcdsaP256(Box::new(point))),
    }
}

fn rsa(text: &str) -> Result<PublicKey, &'static str> {
    match spki::from_pem(text) {
        Some(Spki::Rsa { bits: ..2048, .. }) => Err("is RSA of less than 2048 bits"),
        Some(Spki::Rsa { bits: 8193.., .. }) => Err("is RSA of more than 8192 bits"),
        Some(Spki::Rsa { der, modulus, exponent, .. }) => match weak::rsa(&modulus, &exponent) {
            Some(problem) => Err(problem),
            None => Ok(PublicKey::RsaPss(der)),
        },
        _ => Ok(PublicKey::Unknown),
    }
}

impl PublicKey {
    /// Whether `signature` is this key's over `message`. Never for [`PublicKey::Unknown`].
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            PublicKey::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(message, &signature).is_ok()),
            PublicKey::EcdsaP256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point.as_slice())
                    .verify(message, signature)
                    .is_ok()
            }
            PublicKey::RsaPss(der) => UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, der)
                .verify(message, signature)
                .is_ok(),
            PublicKey::Unknown => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};

    use super::super::spki::tests::tlv;
    use super::*;
    use crate::reason::Reason;

    fn object(keytype: &str, scheme: &str, public: &str) -> Value {
        Value::object([
            ("keytype", Value::from(keytype)),
            ("scheme", Value::from(scheme)),
            ("keyval", Value::object([("public", Value::from(public))])),
        ])
    }

    #[test]
    fn unknown_members_are_kept_and_change_the_key_id() {
        let public = SigningKey::from_bytes(&[1; 32]).verifying_key().to_bytes();
        let plain = Key::ed25519(&public).unwrap();
        let mut members = plain.value().as_object().unwrap().clone();
        members.insert("x-owner".into(), Value::from("@ada"));
        let marked = Key::read(&Value::Object(members)).unwrap();
        assert_ne!(plain.id(), marked.id());
        assert_eq!(plain.public(), marked.public());
        assert_eq!(Key::read(marked.value()), Ok(marked));
    }

    #[test]
    fn case_40_a_key_that_is_not_of_its_type_verifies_nothing() {
        let signing = SigningKey::from_bytes(&[1; 32]);
        let hex = crate::digest::hex(signing.verifying_key().as_bytes());
        let signature = signing.sign(b"m").to_bytes();
        let good = Key::read(&object("ed25519", "ed25519", &hex)).unwrap();
        assert!(good.public().verifies(b"m", &signature));
        for (keytype, scheme, public) in [
            ("ecdsa", "ecdsa-sha2-nistp256", hex.as_str()),
            ("rsa", "rsassa-pss-sha256", &hex),
            ("rsa", "rsassa-pkcs1v15-sha256", &hex),
            ("ed25519", "ed25519ph", &hex),
            ("ed25519", "ed25519", &hex.to_uppercase()),
            ("ed25519", "ed25519", "-----BEGIN PUBLIC KEY-----"),
            ("ed25519", "ed25519", ""),
            ("sphincs", "sphincs-shake-128s", "??"),
        ] {
            let key = Key::read(&object(keytype, scheme, public)).unwrap();
            assert_eq!(key.public(), &PublicKey::Unknown, "{keytype} {scheme} {public}");
            assert!(!key.public().verifies(b"m", &signature));
        }
    }

    /// The eight points of small order, and encodings above p: constructed from the curve's
    /// definition (RFC 8032 §5.1): y = 0, ±1 and the order-8 points' y.
    #[test]
    fn case_42_weak_and_ambiguous_points_are_refused() {
        let order_8 = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a";
        let other_8 = "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05";
        let mut points: Vec<[u8; 32]> =
            [order_8, other_8].iter().map(|hex| unhex(hex).unwrap().try_into().unwrap()).collect();
        let mut minus_one = [0xff; 32];
        (minus_one[0], minus_one[31]) = (0xec, 0x7f);
        let mut one = [0; 32];
        one[0] = 1;
        points.extend([[0; 32], one, minus_one]);
        // p itself (an encoding of 0), p + 1 (of 1), and the largest.
        for first in [0xed, 0xee, 0xff] {
            let mut above = [0xff; 32];
            (above[0], above[31]) = (first, 0x7f);
            points.push(above);
        }
        for point in points {
            for sign in [0, 0x80] {
                let mut point = point;
                point[31] |= sign;
                let hex = crate::digest::hex(&point);
                let error = Key::read(&object("ed25519", "ed25519", &hex)).expect_err(&hex);
                assert_eq!(error.reason(), Reason::KeyInvalid, "{hex}: {error}");
            }
        }
    }

    #[test]
    fn case_41_a_signature_has_one_form() {
        let signing = SigningKey::from_bytes(&[2; 32]);
        let public = Key::ed25519(signing.verifying_key().as_bytes()).unwrap();
        let good = signing.sign(b"m").to_bytes();
        assert!(public.public().verifies(b"m", &good));
        // S + L, with L = 2^252 + 27742317777372353535851937790883648493, little-endian.
        let order = unhex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010")
            .expect("hexadecimal");
        let mut high = good;
        let mut carry = 0u16;
        for (byte, add) in high[32..].iter_mut().zip(order) {
            carry += u16::from(*byte) + u16::from(add);
            *byte = carry as u8;
            carry >>= 8;
        }
        assert!(!public.public().verifies(b"m", &high));
        for bad in [&good[..63], &[], &[good.as_slice(), &[0]].concat()] {
            assert!(!public.public().verifies(b"m", bad));
        }
    }

    // Public keys and signatures over "racklet", made with Python's `cryptography`; the private
    // halves were not kept.
    const RSA_PEM: &str = "-----BEGIN PUBLIC KEY-----\n\
        MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA4UylzDxnOsLJU3LICJcV\n\
        tZDF+faESyX09Sxj35aM/cY02LcO5lfn114eMpvL111CdmCJjmcfXL/vKqAjmFHF\n\
        M9zqJ9oyv0eAquZxH4wKroS9sxaww9e3Cxf+EOv/aPWAmOzkyWRp5l+cAlnwMK+v\n\
        ibQm/lUKWE3/bD9xJMBrO+U3QZkB5danGcItfuqdnr9YKtPOPjoazHTx4Vs6S8xu\n\
        ciUbca/KQzZhisKVLWf+WyOaWDwv3lPP6huECimvy6UxR/+76NVvallJEztqe1MY\n\
        Y3UTsykkXTTac+HxF9K0MyEZsCJmeMlMA+RLQn3thfv87d+tNcq/N/oJ+ReYSKOk\n\
        uwIDAQAB\n\
        -----END PUBLIC KEY-----\n";
    const RSA_PSS: &str = "b2e285a8268e26dbdf1aea9159b829ac3d4eb8f7a0c07ff8b9741b57f5446ec9f86e11491041baf9\
        08449d9ffbdf3bdb60027bcf6deacbd28a9685b56c57896bca0388ecf087caab312f57012f66119e\
        1c3e011eacb7f77d560dd3a55da4c4105bedad80a9936e55019f07dc5961a4efba5cf44ffde7ab64\
        613ee507e479af9a2a38f0b3b21ec9c096b443c95d6e9ddbb7a7a84f1eff098e0d771f994f537e31\
        0de8db3862f24621a52dd5686e846d7d770ede782316c8905ae6882a4d630141633f41f91f5f5a19\
        e268e09a50f196e2896508395c9c73d37b8edd1e5edb963e40b90540f8b15fee51e3ee95805e34ca\
        06d3fb39f1e0dd2a76f48cad67e98f07";
    const RSA_PKCS1: &str = "ca046ace466e4e932769017c381f2ba3448dfad0000dfaba1746c1805a47e924147b887c3b07f6ac\
        5d0ed6b715f47d6ee0be2deba01da1ac263961765116b0cc30b71188a68a084b3b1b852f9ae036c6\
        7f7934bae103ba8cd25071c28d21e1307d54b5db6aa87ebbb146f574f95bd077e6a136ee9f5f2827\
        f60dc1a356e1d2ac48f13a356fda87870f3c52bbe1e44139ed23a1ed7b852619975a13e25d7abc73\
        eb072d9f190654cf46e5a15e4b3565d9fbc0c9b1c76b093c51e0359f493dd2bdaba17aee6a3fc886\
        88231b31f33a3e490bc551c84d00bfd85f03e92859ffff3f75a15e2190853dec2769166c0d2a4bbf\
        625518c5568652778448b9361081fd4b";
    const P256_PEM: &str = "-----BEGIN PUBLIC KEY-----\n\
        MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEgxoM2vbOyfT7KA0GPSSYyQM2P6aL\n\
        G0u29BrlXJKDIeB6G7hoSUbnX094R0EvcsXgLCW6h+EJ34wGbD6nMvGfGg==\n\
        -----END PUBLIC KEY-----\n";
    const P256_SIG: &str = "3045022100c942b5e71a30dbd9f0f6a87c7b7f605d52db10e65d761d043d4c44829b2d820a022043\
        3aa135ee9277b8e25752c3ce6160a0a2f3c6408441a1a39cd395a4bd081ce2";
    const P384_PEM: &str = "-----BEGIN PUBLIC KEY-----\n\
        MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEuwMCepwLVg1+jHbwJ0jebspMtylOkRdQ\n\
        eZkaXq9XYA+GA7vK7cAZn7oikWrgXsmgQkKgoF0hLipE6Rv4ZaUhYj+Khbckp+eV\n\
        AMiUFm9eUHL9sUhABsGln7W+HaGhXUQ6\n\
        -----END PUBLIC KEY-----\n";
    const P384_SIG: &str = "3065023100aad24f18e0324e625abb2d65b684469fafb5745bf5de34a8a613a28edfd77d8d9911f7\
        c8fd03f15d1dcc9151b4584c8f02303492fd6999f2be1e94a75600dd49109cae43fb6d6fa6219a2e\
        e49220a431a413636d1bf7e22bf7314b1740056c539549";

    #[test]
    fn keys_of_other_tools_verify_what_they_signed_and_nothing_else() {
        let rsa = Key::read(&object("rsa", "rsassa-pss-sha256", RSA_PEM)).unwrap();
        let p256 = Key::read(&object("ecdsa", "ecdsa-sha2-nistp256", P256_PEM)).unwrap();
        for (key, good) in [(&rsa, RSA_PSS), (&p256, P256_SIG)] {
            let good = unhex(good).unwrap();
            assert!(key.public().verifies(b"racklet", &good));
            assert!(!key.public().verifies(b"rackleT", &good));
            for at in 0..good.len() {
                let mut bad = good.clone();
                bad[at] ^= 1;
                assert!(!key.public().verifies(b"racklet", &bad), "byte {at}");
            }
            assert!(!key.public().verifies(b"racklet", &good[..good.len() - 1]));
            assert!(!key.public().verifies(b"racklet", &[&good[..], &[0]].concat()));
        }
        // Another padding of the same key, and another curve under the same scheme.
        assert!(!rsa.public().verifies(b"racklet", &unhex(RSA_PKCS1).unwrap()));
        let p384 = Key::read(&object("ecdsa", "ecdsa-sha2-nistp256", P384_PEM)).unwrap();
        assert_eq!(p384.public(), &PublicKey::Unknown);
        assert!(!p384.public().verifies(b"racklet", &unhex(P384_SIG).unwrap()));
        // The older name of the key type, as sigstore wrote it, is the same key material.
        let old = Key::read(&object("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256", P256_PEM));
        assert_eq!(old.unwrap().public(), p256.public());
    }

    fn pem(algorithm: &[u8], key: &[u8]) -> String {
        use base64::Engine as _;
        let bits = tlv(0x03, &[&[0][..], key].concat());
        let der = tlv(0x30, &[tlv(0x30, algorithm), bits].concat());
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
    }

    const RSA: &[u8] =
        &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
    const P256: &[u8] = &[
        0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
        0x3d, 0x03, 0x01, 0x07,
    ];

    fn rsa_pem(modulus: &[u8], exponent: &[u8]) -> String {
        let integer = |bytes: &[u8]| {
            let sign = bytes.first().is_some_and(|first| first & 0x80 != 0);
            let zero: &[u8] = if sign { &[0] } else { &[] };
            tlv(0x02, &[zero, bytes].concat())
        };
        pem(RSA, &tlv(0x30, &[integer(modulus), integer(exponent)].concat()))
    }

    /// The modulus of `RSA_PEM`.
    fn modulus() -> Vec<u8> {
        match spki::from_pem(RSA_PEM) {
            Some(Spki::Rsa { modulus, .. }) => modulus,
            other => panic!("{other:?}"),
        }
    }

    /// A number of the form k·M + 65537^a mod M, as CVE-2017-15361 says primes were made, found
    /// with Python for the primes 3 to 157; 2048 bits, no prime factor below 752.
    const ROCA: &str = "921270fc635e4ea02f142aa8c452d1000473f544f319687ebb3a913fb3fb667c7eb1ec146839ee79\
        88032e0e9e8b2df52a8a908f4d669e7bd04e3a2705fa0715b5d167b046e514ac637203e05276ee69\
        d09dbd4413a9d85d08c61c2585a7a9a5166f394fc080659d4c4eec5612ca8abeeb20eb83eacd81e9\
        8701eb2b38194904a9dadb77608b2cdd752faf2f7dd84dbf7cb17873dd253afa4ab9bf4b76dd4451\
        bb24f00dec91bcc9f5085475ff41e1e964d2d94b78f078d45028f33d5d6296f858cb33f95233eb13\
        1013a105f62155bdba4f04f9ef75aaace0c3e55bd76736e1cbc5bc8400578d566d2c928a4a21400b\
        6964f00e57284b3d227dc66e7d4d28fb";

    /// A row is a key with which somebody else can sign, or that costs more than it is worth.
    #[test]
    fn a_key_that_others_can_sign_with_is_refused() {
        let good = modulus();
        // 2^2047 + 1: three divides it.
        let three = [&[0x80][..], &[0; 254], &[1]].concat();
        let even = [&good[..255], &[0]].concat();
        let rsa = |modulus: &[u8], exponent: &[u8]| {
            ("rsa", "rsassa-pss-sha256", rsa_pem(modulus, exponent))
        };
        let point = |hex: &str| ("ecdsa", "ecdsa-sha2-nistp256", pem(P256, &unhex(hex).unwrap()));
        let ed = |hex: &str| ("ed25519", "ed25519", hex.to_owned());
        let g = "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296";
        let gy = "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5";
        let minus_gy = "b01cbd1c01e58065711814b583f061e9d431cca994cea1313449bf97c840ae0a";
        for (name, (keytype, scheme, public), said) in [
            ("e = 1", rsa(&good, &[1]), "below 65537"),
            ("e = 2", rsa(&good, &[2]), "even RSA exponent"),
            ("e = 3", rsa(&good, &[3]), "below 65537"),
            ("e = 65536", rsa(&good, &[1, 0, 0]), "even RSA exponent"),
            ("e of 34 bits", rsa(&good, &[2, 0, 0, 0, 1]), "more than 33 bits"),
            ("e of 2048 bits", rsa(&good, &good), "more than 33 bits"),
            ("an even modulus", rsa(&even, &[1, 0, 1]), "even RSA modulus"),
            ("a small factor", rsa(&three, &[1, 0, 1]), "small factor"),
            ("2047 bits", rsa(&[&[0x7f][..], &good[1..]].concat(), &[1, 0, 1]), "less than 2048"),
            ("1 bit", rsa(&[1], &[1, 0, 1]), "less than 2048"),
            ("8200 bits", rsa(&[0xff; 1025], &[1, 0, 1]), "more than 8192"),
            ("ROCA", rsa(&unhex(ROCA).unwrap(), &[1, 0, 1]), "ROCA"),
            ("private key 1", point(&format!("04{g}{gy}")), "published"),
            ("private key n - 1", point(&format!("04{g}{minus_gy}")), "published"),
            ("off the curve", point(&format!("04{g}{g}")), "not a point"),
            ("0, 0", point(&format!("04{}", "00".repeat(64))), "not a point"),
            ("x above p", point(&format!("04{}{gy}", "ff".repeat(32))), "not a point"),
            (
                "a seed of zeros",
                ed("3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29"),
                "published",
            ),
            (
                "RFC 8032, test 1",
                ed("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"),
                "published",
            ),
        ] {
            let error = Key::read(&object(keytype, scheme, &public)).expect_err(name);
            assert_eq!(error.reason(), Reason::KeyInvalid, "{name}");
            assert!(error.to_string().contains(said), "{name}: {error}");
        }
        // The good ones are taken, and other spellings of a point are no key at all.
        for exponent in [&[1, 0, 1][..], &[1, 0xff, 0xff, 0xff, 0xff]] {
            let (keytype, scheme, public) = rsa(&good, exponent);
            let key = Key::read(&object(keytype, scheme, &public)).unwrap();
            assert!(matches!(key.public(), PublicKey::RsaPss(_)));
        }
        for hex in ["00", &format!("02{g}"), &format!("06{g}{gy}")] {
            let (keytype, scheme, public) = point(hex);
            let key = Key::read(&object(keytype, scheme, &public)).unwrap();
            assert_eq!(key.public(), &PublicKey::Unknown, "{hex}");
        }
    }
}
