//! Content digests: the OCI form `sha256:<64 hex>` and the bare SHA-256 of TUF and images.
//!
//! Only the canonical spelling is accepted: lower-case hexadecimal of exactly the algorithm's
//! length (OCI image-spec §"Digests"). A digest therefore is safe to use as a file name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256 as Sha256Core, Sha512 as Sha512Core};

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// No `algorithm:hex` form.
    #[error("a digest reads algorithm:hex")]
    Form,
    /// An algorithm other than sha256 or sha512.
    #[error("digest algorithm {0:?} is not sha256 or sha512")]
    Algorithm(String),
    /// Wrong length, upper case or not hexadecimal.
    #[error("a {algorithm} digest has {expected} lower-case hexadecimal digits")]
    Hex {
        /// The algorithm's name.
        algorithm: &'static str,
        /// How many digits it takes.
        expected: usize,
    },
}

/// The two algorithms registries must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, 32 bytes.
    Sha256,
    /// SHA-512, 64 bytes.
    Sha512,
}

impl Algorithm {
    /// The name in front of the colon.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    /// The algorithm of that name.
    pub fn from_name(name: &str) -> Result<Self, DigestError> {
        match name {
            "sha256" => Ok(Algorithm::Sha256),
            "sha512" => Ok(Algorithm::Sha512),
            other => Err(DigestError::Algorithm(other.chars().take(32).collect())),
        }
    }

    /// A hasher that takes bytes as they come.
    pub fn hasher(self) -> Hasher {
        match self {
            Algorithm::Sha256 => Hasher(HasherState::Sha256(Sha256Core::new())),
            Algorithm::Sha512 => Hasher(HasherState::Sha512(Box::new(Sha512Core::new()))),
        }
    }
}

/// A running digest.
#[derive(Clone)]
pub struct Hasher(HasherState);

#[derive(Clone)]
enum HasherState {
    Sha256(Sha256Core),
    Sha512(Box<Sha512Core>),
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

impl Hasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            HasherState::Sha256(h) => h.update(bytes),
            HasherState::Sha512(h) => h.update(bytes),
        }
    }

    /// The digest of all bytes taken.
    pub fn finish(self) -> Digest {
        match self.0 {
            HasherState::Sha256(h) => Digest::Sha256(Sha256(h.finalize().into())),
            HasherState::Sha512(h) => Digest::Sha512(Box::new(h.finalize().into())),
        }
    }
}

/// A bare SHA-256, the only hash that signed documents use.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// The hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Sha256(Sha256Core::digest(bytes).into())
    }

    /// Exactly 64 lower-case hexadecimal digits.
    pub fn from_hex(text: &str) -> Result<Self, DigestError> {
        let mut out = [0; 32];
        decode_lower(text, &mut out)
            .ok_or(DigestError::Hex { algorithm: "sha256", expected: 64 })?;
        Ok(Sha256(out))
    }

    /// 64 lower-case hexadecimal digits.
    pub fn to_hex(self) -> String {
        hex(&self.0)
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl Serialize for Sha256 {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.to_hex())
    }
}

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Sha256::from_hex(&String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

/// An OCI digest.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Digest {
    /// `sha256:…`
    Sha256(Sha256),
    /// `sha512:…`
    Sha512(Box<[u8; 64]>),
}

impl Digest {
    /// The SHA-256 digest of `bytes`.
    pub fn sha256_of(bytes: &[u8]) -> Self {
        Digest::Sha256(Sha256::of(bytes))
    }

    /// Its algorithm.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Digest::Sha256(_) => Algorithm::Sha256,
            Digest::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The digits after the colon; a safe file name.
    pub fn hex(&self) -> String {
        match self {
            Digest::Sha256(h) => h.to_hex(),
            Digest::Sha512(h) => hex(h.as_slice()),
        }
    }

    /// The SHA-256, or nothing for another algorithm.
    pub fn as_sha256(&self) -> Option<Sha256> {
        match self {
            Digest::Sha256(h) => Some(*h),
            Digest::Sha512(_) => None,
        }
    }

    /// Whether `bytes` have this digest.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        let mut hasher = self.algorithm().hasher();
        hasher.update(bytes);
        hasher.finish() == *self
    }
}

impl From<Sha256> for Digest {
    fn from(hash: Sha256) -> Self {
        Digest::Sha256(hash)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (name, digits) = text.split_once(':').ok_or(DigestError::Form)?;
        match Algorithm::from_name(name)? {
            Algorithm::Sha256 => Sha256::from_hex(digits).map(Digest::Sha256),
            Algorithm::Sha512 => {
                let mut out = [0; 64];
                decode_lower(digits, &mut out)
                    .ok_or(DigestError::Hex { algorithm: "sha512", expected: 128 })?;
                Ok(Digest::Sha512(Box::new(out)))
            }
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm().name(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Lower-case hexadecimal of any bytes.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    out
}

/// Bytes of a lower-case hexadecimal text of even length; `None` for anything else.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let mut out = vec![0; text.len() / 2];
    decode_lower(text, &mut out)?;
    Some(out)
}

fn decode_lower(text: &str, out: &mut [u8]) -> Option<()> {
    fn digit(byte: u8) -> Option<u8> {
        match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        }
    }
    let text = text.as_bytes();
    if text.len() != out.len().checked_mul(2)? {
        return None;
    }
    for (pair, byte) in text.chunks_exact(2).zip(out) {
        let &[high, low] = pair else { return None };
        *byte = digit(high)? << 4 | digit(low)?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_spelling_is_a_digest() {
        let good = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(good.parse::<Digest>().unwrap().to_string(), good);
        let long = format!("sha512:{}", "0a".repeat(64));
        assert_eq!(long.parse::<Digest>().unwrap().to_string(), long);
        for bad in [
            "",
            ":",
            "sha256",
            "sha256:",
            "sha256:../../etc/passwd",
            "sha256:ABC",
            &format!("sha256:{}", "0A".repeat(32)),
            &format!("sha256: {}", "0a".repeat(32)),
            &format!("sha256:{}", "0a".repeat(31)),
            &format!("sha256:{}", "0a".repeat(33)),
            &format!("sha256-{}", "0a".repeat(32)),
            &format!("md5:{}", "0a".repeat(16)),
            &format!("sha512:{}", "0a".repeat(32)),
            &format!("sha256:{}é", "0a".repeat(31)),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad:?} was taken as a digest");
        }
    }

    #[test]
    fn a_streamed_digest_is_the_digest_of_the_whole() {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let mut hasher = algorithm.hasher();
            hasher.update(b"rack");
            hasher.update(b"let");
            assert!(hasher.finish().matches(b"racklet"));
        }
    }
}
