//! Keys whose private half is not private: published, or cheap to compute.
//!
//! A signature proves nothing when anybody can make it, so such a key is refused wherever it is
//! met, in metadata as well as in a file to be imported. What is looked for costs a fraction of one
//! verification; that two keys share a factor, or that a generator was bad in another way, cannot
//! be told from one public half.

/// Public halves of ed25519: of the seed of zeros that a failed random generator gives, and of the
/// seeds that RFC 8032 §7.1 prints (TEST 1 to 3).
const ED25519: [&str; 4] = [
    "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29",
    "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
    "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
    "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
];
/// Abscissas of P-256: of the private keys 1 and 2 (and their negatives), and of RFC 6979 §A.2.5.
const P256: [&str; 3] = [
    "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296",
    "7cf27b188d034f7e8a52380304b51ac3c08969e277f21b35a60b48fc47669978",
    "60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6",
];

/// 65537: less makes mistakes of padding exploitable; FIPS 186-5 §5.4 allows no less either.
const EXPONENT_MIN: u64 = 65_537;
/// 33 bits, which is what `ring` verifies with: more only costs time.
const EXPONENT_MAX: u64 = (1 << 33) - 1;
/// Odd divisors below 752 are looked for, as CAs have to (CA/Browser Forum BR §6.1.6).
const DIVISOR_MAX: u64 = 752;
/// Whose powers of 65537 leave residues out: moduli of CVE-2017-15361 ("ROCA") are such powers for
/// all of these primes, others for all of them about once in 2^27.
const ROCA: [u64; 17] = [11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157];

/// Why an ed25519 key must not be trusted.
pub(super) fn ed25519(hex: &str) -> Option<&'static str> {
    ED25519.contains(&hex).then_some("is a published key: everybody can sign with it")
}

/// The same of a point of P-256, `04 ‖ x ‖ y`.
pub(super) fn p256(point: &[u8; 65]) -> Option<&'static str> {
    let x = crate::digest::hex(&point[1..33]);
    P256.contains(&x.as_str()).then_some("is a published key: everybody can sign with it")
}

/// The same of an RSA key, both numbers big-endian. Its length is judged elsewhere, before.
pub(super) fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<&'static str> {
    let value = exponent
        .iter()
        .try_fold(0u64, |value, byte| value.checked_mul(256).map(|value| value | u64::from(*byte)));
    match value {
        Some(value) if value.is_multiple_of(2) => return Some("has an even RSA exponent"),
        Some(..EXPONENT_MIN) => return Some("has an RSA exponent below 65537"),
        Some(..=EXPONENT_MAX) => {}
        _ => return Some("has an RSA exponent of more than 33 bits"),
    }
    if modulus.last().is_none_or(|last| last.is_multiple_of(2)) {
        return Some("has an even RSA modulus");
    }
    if (3..DIVISOR_MAX).step_by(2).any(|divisor| remainder(modulus, divisor) == 0) {
        return Some("has an RSA modulus with a small factor");
    }
    let power = |prime: &u64| {
        let residue = remainder(modulus, *prime);
        let next = |power: &u64| Some(power * 65_537 % prime).filter(|power| *power != 1);
        std::iter::successors(Some(1), next).any(|power| power == residue)
    };
    ROCA.iter().all(power).then_some("was made by a chip whose RSA keys can be factored (ROCA)")
}

/// Four bytes at a time: a hundred steps for a key of 3072 bits.
fn remainder(number: &[u8], divisor: u64) -> u64 {
    let (head, rest) = number.split_at(number.len() % 4);
    let join = |bytes: &[u8]| bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
    rest.chunks_exact(4)
        .fold(join(head) % divisor, |left, word| (left << 32 | join(word)) % divisor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remainders_of_long_numbers() {
        for (number, divisor, left) in [
            (&[1, 0][..], 7, 4),
            (&[0xff; 4], 751, 4_294_967_295 % 751),
            (&[1, 0, 0, 0, 0], 3, 1),
            // 2^72 + 1 modulo 241: 2^24 is 1 there.
            (&[1, 0, 0, 0, 0, 0, 0, 0, 0, 1], 241, 2),
            (&[], 3, 0),
        ] {
            assert_eq!(remainder(number, divisor), left, "{number:?} % {divisor}");
        }
    }
}
