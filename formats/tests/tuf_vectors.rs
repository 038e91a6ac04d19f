//! Keys and signatures against published vectors (Wycheproof) and against every edge case of
//! ed25519, constructed from the group's definition.
//!
//! What we accept is written down here, once: every vector labelled valid and none labelled
//! invalid, of the set each scheme of TUF means.
//!
//! | scheme | vectors |
//! |---|---|
//! | `ed25519` | all 151 |
//! | `ecdsa-sha2-nistp256` | all 484 of P-256 with SHA-256, DER |
//! | `rsassa-pss-sha256` | 2048, 3072, 4096 bits, SHA-256, MGF1 of SHA-256, salt of 32 bytes; other salts and hashes verify nothing |

#![allow(clippy::unwrap_used, reason = "a vector that cannot be read is a failure")]

use curve25519_dalek::constants::ED25519_BASEPOINT_POINT as B;
use curve25519_dalek::edwards::CompressedEdwardsY;
use curve25519_dalek::{EdwardsPoint, Scalar};
use formats::digest::hex;
use formats::json::Value;
use formats::tuf::{Key, PublicKey, TufError};
use sha2::{Digest as _, Sha512};
use wycheproof::{HashFunction, TestResult, ecdsa, eddsa, rsa_pss_verify as pss};

fn key(keytype: &str, scheme: &str, public: &str) -> Result<Key, TufError> {
    Key::read(&Value::object([
        ("keytype", Value::from(keytype)),
        ("scheme", Value::from(scheme)),
        ("keyval", Value::object([("public", Value::from(public))])),
    ]))
}

/// Accepted and refused vectors of one set.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    accepted: usize,
    refused: usize,
}

impl Count {
    /// Counts one vector, whose label must be our answer.
    fn add(&mut self, what: &str, label: TestResult, accepted: bool) {
        assert_ne!(label, TestResult::Acceptable, "{what}: a label that says neither");
        assert_eq!(accepted, label == TestResult::Valid, "{what}");
        if accepted { self.accepted += 1 } else { self.refused += 1 }
    }
}

/// The key, or `None` for one that is counted: everybody has its private half, so it is refused.
fn unpublished(key: Result<Key, TufError>, published: &mut usize) -> Option<Key> {
    key.map_err(|error| {
        assert!(error.to_string().contains("published"), "{error}");
        *published += 1;
    })
    .ok()
}

#[test]
fn case_42_ed25519_wycheproof() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    let (mut count, mut published) = (Count::default(), 0);
    for group in &set.test_groups {
        let key = key("ed25519", "ed25519", &hex(&group.key.pk));
        let Some(key) = unpublished(key, &mut published) else { continue };
        for test in &group.tests {
            let what = format!("ed25519 {}: {}", test.tc_id, test.comment);
            count.add(&what, test.result, key.public().verifies(&test.msg, &test.sig));
        }
    }
    assert_eq!(count, Count { accepted: 85, refused: 62 });
    assert_eq!(published, 4, "the keys of RFC 8032");
}

#[test]
fn case_43_ecdsa_p256_wycheproof() {
    let set = ecdsa::TestSet::load(ecdsa::TestName::EcdsaSecp256r1Sha256).unwrap();
    let (mut count, mut published) = (Count::default(), 0);
    for group in &set.test_groups {
        let key = key("ecdsa", "ecdsa-sha2-nistp256", &group.pem);
        let Some(key) = unpublished(key, &mut published) else { continue };
        assert!(matches!(key.public(), PublicKey::EcdsaP256(_)), "{}", group.pem);
        for test in &group.tests {
            let what = format!("ecdsa {}: {}", test.tc_id, test.comment);
            count.add(&what, test.result, key.public().verifies(&test.msg, &test.sig));
        }
    }
    assert_eq!(count, Count { accepted: 174, refused: 306 });
    assert_eq!(published, 2, "the generator and its negative");
}

#[test]
fn case_43_rsa_pss_wycheproof() {
    use pss::TestName as Name;
    let mut count = Count::default();
    for name in [
        Name::RsaPss2048Sha256Mgf1SaltLen32,
        Name::RsaPss3072Sha256Mgf1SaltLen32,
        Name::RsaPss4096Sha256Mgf1SaltLen32,
    ] {
        for group in &pss::TestSet::load(name).unwrap().test_groups {
            let key = key("rsa", "rsassa-pss-sha256", &group.pem).unwrap();
            assert!(matches!(key.public(), PublicKey::RsaPss(_)), "{}", group.pem);
            for test in &group.tests {
                let what = format!("{name:?} {}: {}", test.tc_id, test.comment);
                count.add(&what, test.result, key.public().verifies(&test.msg, &test.sig));
            }
        }
    }
    assert_eq!(count, Count { accepted: 189, refused: 135 });
}

/// The scheme of TUF says SHA-256 twice and a salt as long as the hash. What is validly signed in
/// any other way is not signed.
#[test]
fn case_40_rsa_pss_with_other_parameters_verifies_nothing() {
    use pss::TestName as Name;
    let sha256 = HashFunction::Sha2_256;
    let mut refused = 0;
    for name in [
        Name::RsaPss2048Sha1Mgf1SaltLen20,
        Name::RsaPss2048Sha256Mgf1SaltLen0,
        Name::RsaPss2048Sha256Mgf1Sha1_20,
        Name::RsaPss2048Sha384Mgf1SaltLen48,
        Name::RsaPssmisc,
    ] {
        for group in &pss::TestSet::load(name).unwrap().test_groups {
            let ours =
                group.hash == sha256 && group.mgf_hash == Some(sha256) && group.salt_size == 32;
            let key = key("rsa", "rsassa-pss-sha256", &group.pem).unwrap();
            for test in group.tests.iter().filter(|test| test.result == TestResult::Valid) {
                let what = format!("{name:?} {}: {}", test.tc_id, test.comment);
                assert_eq!(key.public().verifies(&test.msg, &test.sig), ours, "{what}");
                refused += usize::from(!ours);
            }
        }
    }
    assert!(refused > 300, "only {refused} vectors of other parameters");
}

/// The eight points whose order divides 8: multiples of ℓ·P for a P that has such a part.
fn torsion() -> Vec<EdwardsPoint> {
    // Scalars are reduced by ℓ, so ℓ·P is (ℓ - 1)·P + P.
    let times_order = |point: EdwardsPoint| point * (-Scalar::ONE) + point;
    let generator = (0..=255u8)
        .filter_map(|y| {
            let mut bytes = [0; 32];
            bytes[0] = y;
            CompressedEdwardsY(bytes).decompress()
        })
        .map(times_order)
        .find(|point| *point * Scalar::from(4u8) != EdwardsPoint::default())
        .expect("a point with a part of order 8");
    let mut points = vec![EdwardsPoint::default()];
    for _ in 1..8 {
        points.push(points.last().unwrap() + generator);
    }
    points
}

/// Every byte string that decodes to this point: RFC 8032 §5.1.3 without its refusal of y ≥ p
/// and of a negative zero. The first one is the canonical one.
fn encodings(point: &EdwardsPoint) -> Vec<[u8; 32]> {
    let canonical = point.compress().to_bytes();
    let mut all = vec![canonical];
    // y + p fits 255 bits for y < 19 only.
    for y in 0..19u8 {
        for sign in [0, 0x80] {
            let mut above = [0xff; 32];
            (above[0], above[31]) = (0xed + y, 0x7f | sign);
            all.push(above);
        }
    }
    let mut negative_zero = canonical;
    negative_zero[31] ^= 0x80;
    all.push(negative_zero);
    all.retain(|bytes| CompressedEdwardsY(*bytes).decompress() == Some(*point));
    all
}

fn challenge(r: &[u8; 32], a: &[u8; 32], message: u8) -> Scalar {
    let hash = Sha512::new().chain_update(r).chain_update(a).chain_update([message]).finalize();
    Scalar::from_bytes_mod_order_wide(&hash.into())
}

/// A point written in one of its spellings.
struct Spelt {
    scalar: Scalar,
    point: EdwardsPoint,
    bytes: [u8; 32],
    /// In its canonical spelling, and not of small order.
    good: bool,
}

/// x·B + T for each of these x, the eight T of small order, and every spelling of the sum.
fn spelt_points() -> Vec<Spelt> {
    let mut all = Vec::new();
    for scalar in [Scalar::ZERO, Scalar::from(0x1234_5678_9abc_u64)] {
        for part in torsion() {
            let point = B * scalar + part;
            for (nth, bytes) in encodings(&point).into_iter().enumerate() {
                let good = nth == 0 && !point.is_small_order();
                all.push(Spelt { scalar, point, bytes, good });
            }
        }
    }
    all
}

/// Every key A = a·B + T with every R = r·B + U, in every spelling. S = r + k·a, so the equation
/// with cofactor, 8·S·B = 8·R + 8·k·A, always holds: all that verifiers disagree about is here
/// (eprint 2020/1244, table 5).
///
/// Accepted is exactly: A canonical and of large order, R canonical and of large order, and the
/// equation without cofactor.
#[test]
fn case_42_every_combination_of_small_order_parts() {
    let points = spelt_points();
    assert_eq!(points.len(), 14 + 8, "eight small points have six more spellings");
    let (mut tried, mut accepted, mut keys_refused) = (0, 0, 0);
    for a in &points {
        let key = key("ed25519", "ed25519", &hex(&a.bytes));
        assert_eq!(key.is_ok(), a.good, "key {}", hex(&a.bytes));
        keys_refused += usize::from(!a.good);
        let Ok(key) = &key else { continue };
        for r in &points {
            for message in 0..32 {
                let k = challenge(&r.bytes, &a.bytes, message);
                let s = r.scalar + k * a.scalar;
                let (left, right) = (B * s, r.point + a.point * k);
                let eight = Scalar::from(8u8);
                assert_eq!(left * eight, right * eight, "with cofactor it always holds");
                let signature = [r.bytes, s.to_bytes()].concat();
                let found = key.public().verifies(&[message], &signature);
                let what = format!("key {} signature {}", hex(&a.bytes), hex(&signature));
                assert_eq!(found, r.good && left == right, "{what} message {message}");
                tried += 1;
                accepted += usize::from(found);
            }
        }
    }
    println!("{keys_refused} keys refused; {tried} signatures, {accepted} accepted");
    assert_eq!(keys_refused, 14);
    // Of 8 × 8 pairs of good points, one challenge in eight cancels the parts of small order.
    assert!((128..512).contains(&accepted), "{accepted}");
}

/// y from p to 2^255 - 1: a second spelling of a point, of whatever order.
#[test]
fn case_42_keys_above_the_prime_are_refused() {
    let mut large = 0;
    for y in 0..19u8 {
        for sign in [0, 0x80] {
            let mut bytes = [0xff; 32];
            (bytes[0], bytes[31]) = (0xed + y, 0x7f | sign);
            let point = CompressedEdwardsY(bytes).decompress();
            large += usize::from(point.is_some_and(|point| !point.is_small_order()));
            assert!(key("ed25519", "ed25519", &hex(&bytes)).is_err(), "{}", hex(&bytes));
        }
    }
    assert!(large > 10, "{large} of them are points of large order");
}

/// S, S + ℓ, S + 2ℓ … as far as 32 bytes go: one signature has one form (RFC 8032 §5.1.7).
#[test]
fn case_41_s_is_below_the_order() {
    let (a, r) = (Scalar::from(77u8), Scalar::from(99u8));
    let [a_bytes, r_bytes] = [a, r].map(|scalar| (B * scalar).compress().to_bytes());
    let key = key("ed25519", "ed25519", &hex(&a_bytes)).unwrap();
    // ℓ = (ℓ - 1) + 1, and ℓ - 1 is even.
    let mut order = (-Scalar::ONE).to_bytes();
    order[0] += 1;
    let mut s = (r + challenge(&r_bytes, &a_bytes, 5) * a).to_bytes();
    let mut forms = 0;
    loop {
        let signature = [r_bytes, s].concat();
        assert_eq!(key.public().verifies(&[5], &signature), forms == 0, "{}", hex(&signature));
        forms += 1;
        let mut carry = 0u16;
        for (byte, add) in s.iter_mut().zip(order) {
            carry += u16::from(*byte) + u16::from(add);
            *byte = carry as u8;
            carry >>= 8;
        }
        if carry > 0 {
            break;
        }
    }
    assert!(forms >= 15, "{forms}");
}
