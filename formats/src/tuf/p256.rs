//! Points of P-256 (FIPS 186-4 §D.1.2.3): whether one is on the curve, and the long spelling of a
//! short one.
//!
//! Only public keys come here, so nothing takes constant time. Signatures are `ring`'s work; it
//! has no function that judges a point by itself.

use std::cmp::Ordering;

/// Four limbs, least significant first.
type Number = [u64; 4];

/// The field: 2^256 - 2^224 + 2^192 + 2^96 - 1.
const P: Number =
    [0xffff_ffff_ffff_ffff, 0x0000_0000_ffff_ffff, 0x0000_0000_0000_0000, 0xffff_ffff_0000_0001];
/// The curve: y² = x³ - 3x + B.
const B: Number =
    [0x3bce_3c3e_27d2_604b, 0x651d_06b0_cc53_b0f6, 0xb3eb_bd55_7698_86bc, 0x5ac6_35d8_aa3a_93e7];
/// (P + 1) / 4: a square to this power is its root, because P is 3 modulo 4.
const ROOT: Number =
    [0x0000_0000_0000_0000, 0x0000_0000_4000_0000, 0x4000_0000_0000_0000, 0x3fff_ffff_c000_0000];

/// Whether `04 ‖ x ‖ y` is a point of the curve. The point at infinity has no such spelling.
pub(super) fn is_point(point: &[u8; 65]) -> bool {
    let [4, coordinates @ ..] = point else { return false };
    let (x, y) = coordinates.split_at(32);
    let (Some(x), Some(y)) = (number(x), number(y)) else { return false };
    times(&y, &y) == right_side(&x)
}

/// `04 ‖ x ‖ y` of `02 ‖ x` or `03 ‖ x` (SEC 1 §2.3.4); `None` when there is no such point.
pub fn decompress(point: &[u8; 33]) -> Option<[u8; 65]> {
    let [sign @ (2 | 3), x @ ..] = point else { return None };
    let square = right_side(&number(x)?);
    let mut y = power(&square, &ROOT);
    if times(&y, &y) != square {
        return None;
    }
    if y[0] & 1 != u64::from(sign & 1) {
        y = minus(&[0; 4], &y);
    }
    let mut whole = [4; 65];
    let (start, end) = whole.split_at_mut(33);
    start.get_mut(1..)?.copy_from_slice(x);
    for (bytes, limb) in end.chunks_exact_mut(8).zip(y.iter().rev()) {
        bytes.copy_from_slice(&limb.to_be_bytes());
    }
    is_point(&whole).then_some(whole)
}

/// A coordinate: below P, so that a point has one spelling.
fn number(bytes: &[u8]) -> Option<Number> {
    let mut number = [0; 4];
    for (limb, bytes) in number.iter_mut().zip(bytes.rchunks_exact(8)) {
        *limb = u64::from_be_bytes(bytes.try_into().ok()?);
    }
    (bytes.len() == 32 && compare(&number, &P) == Ordering::Less).then_some(number)
}

fn right_side(x: &Number) -> Number {
    let cube = times(&times(x, x), x);
    let three = plus(&plus(x, x), x);
    plus(&minus(&cube, &three), &B)
}

fn compare(a: &Number, b: &Number) -> Ordering {
    a.iter().rev().cmp(b.iter().rev())
}

fn plus(a: &Number, b: &Number) -> Number {
    let (sum, carried) = add(a, b);
    if carried || compare(&sum, &P) != Ordering::Less { subtract(&sum, &P).0 } else { sum }
}

fn minus(a: &Number, b: &Number) -> Number {
    let (difference, borrowed) = subtract(a, b);
    if borrowed { add(&difference, &P).0 } else { difference }
}

/// By doubling and adding: 256 steps, microseconds.
fn times(a: &Number, b: &Number) -> Number {
    let mut product = [0; 4];
    for bit in bits(b) {
        product = plus(&product, &product);
        if bit {
            product = plus(&product, a);
        }
    }
    product
}

fn power(a: &Number, exponent: &Number) -> Number {
    let mut power = [1, 0, 0, 0];
    for bit in bits(exponent) {
        power = times(&power, &power);
        if bit {
            power = times(&power, a);
        }
    }
    power
}

/// Most significant first.
fn bits(number: &Number) -> impl Iterator<Item = bool> {
    number.iter().rev().flat_map(|limb| (0..64).rev().map(move |at| limb >> at & 1 == 1))
}

fn add(a: &Number, b: &Number) -> (Number, bool) {
    each(a, b, u64::overflowing_add)
}

fn subtract(a: &Number, b: &Number) -> (Number, bool) {
    each(a, b, u64::overflowing_sub)
}

/// Limb by limb, with what is carried or borrowed.
fn each(a: &Number, b: &Number, step: fn(u64, u64) -> (u64, bool)) -> (Number, bool) {
    let (mut out, mut over) = ([0; 4], false);
    for (out, (a, b)) in out.iter_mut().zip(a.iter().zip(b)) {
        let (limb, first) = step(*a, *b);
        let (limb, second) = step(limb, u64::from(over));
        (*out, over) = (limb, first || second);
    }
    (out, over)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::unhex;

    // The base point (FIPS 186-4), its double, and RFC 6979 §A.2.5.
    const POINTS: [(&str, &str); 3] = [
        (
            "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296",
            "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5",
        ),
        (
            "7cf27b188d034f7e8a52380304b51ac3c08969e277f21b35a60b48fc47669978",
            "07775510db8ed040293d9ac69f7430dbba7dade63ce982299e04b79d227873d1",
        ),
        (
            "60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6",
            "7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299",
        ),
    ];

    #[test]
    fn points_are_on_the_curve_in_one_spelling() {
        for (x, y) in POINTS {
            let whole: [u8; 65] = unhex(&format!("04{x}{y}")).unwrap().try_into().unwrap();
            assert!(is_point(&whole), "{x}");
            let negative = minus(&[0; 4], &number(&whole[33..]).unwrap());
            for sign in [2, 3] {
                let mut short: [u8; 33] = unhex(&format!("00{x}")).unwrap().try_into().unwrap();
                short[0] = sign;
                let found = decompress(&short).unwrap();
                assert!(is_point(&found));
                let same = found == whole;
                assert_eq!(same, whole[64] & 1 == sign & 1, "{x} {sign}");
                assert!(same || number(&found[33..]) == Some(negative));
            }
            for at in [1, 32, 33, 64] {
                let mut off = whole;
                off[at] ^= 1;
                assert!(!is_point(&off), "{x}: byte {at}");
            }
            for head in [0, 2, 3, 6] {
                let mut other = whole;
                other[0] = head;
                assert!(!is_point(&other), "{x}: {head}");
            }
        }
    }

    #[test]
    fn what_is_no_point_is_refused() {
        let p: String = P.iter().rev().map(|limb| format!("{limb:016x}")).collect();
        let zero = "0".repeat(64);
        // x = 0 has a point; x = P spells the same one again.
        let short = |x: &str| decompress(&unhex(&format!("02{x}")).unwrap().try_into().unwrap());
        let at_zero = short(&zero).unwrap();
        assert!(is_point(&at_zero));
        let y = crate::digest::hex(&at_zero[33..]);
        for (x, y) in [(&zero, zero.as_str()), (&p, &y), (&"f".repeat(64), &zero)] {
            let point = unhex(&format!("04{x}{y}")).unwrap().try_into().unwrap();
            assert!(!is_point(&point), "{x}");
        }
        assert_eq!(short(&p), None);
        // Half of all x are no point's.
        assert_eq!((1u8..=8).filter(|x| short(&format!("{x:064x}")).is_none()).count(), 5);
    }
}
