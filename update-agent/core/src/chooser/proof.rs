//! The proof of a slot, and where it lies in it.
//!
//! ```text
//!  slot   image ……… (room) ……… proof, to a multiple of 4096 │ trailer, the last 4096 bytes
//! ```
//!
//! | trailer offset | size | meaning (integers little-endian) |
//! |---|---|---|
//! | 0 | 8 | `RKLPROOF` |
//! | 8 | 4 | 1 |
//! | 12 | 4 | bytes of the proof |
//! | 16 | 32 | SHA-256 of the proof |
//!
//! | proof offset | size | meaning |
//! |---|---|---|
//! | 0 | 8 | `RKLBOOT1` |
//! | 8 | 8 | seconds since 1970 at which the metadata was accepted |
//! | 16 | 2 + n | the release's version, with its length before it |
//! | 18+n | 4 | number of files |
//! | 22+n | … | each file: 2 + name, 4 + bytes, lengths before them; names ascending, none twice |

use std::collections::BTreeMap;

use formats::digest::Sha256;
use formats::tuf::UnixTime;
use formats::version::Version;

use super::ProofError;

const MAGIC: &[u8; 8] = b"RKLBOOT1";
const TRAILER_MAGIC: &[u8; 8] = b"RKLPROOF";
/// Bytes of the trailer, and what a proof is aligned to.
const BLOCK: u64 = 4096;
/// 16 MiB: the largest targets metadata we accept, three times.
const LIMIT: u32 = 16 << 20;

/// The metadata by which a release was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// When.
    pub known_time: UnixTime,
    /// Which release of the machine's product.
    pub version: Version,
    /// TUF files by the names a repository gives them: `2.root.json`, `timestamp.json`, …
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Proof {
    /// The record. Equal proofs give equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(self.known_time.secs().to_le_bytes());
        let word = |out: &mut Vec<u8>, text: &str| {
            let bytes = text.as_bytes();
            out.extend((bytes.len() as u16).to_le_bytes());
            out.extend(bytes);
        };
        word(&mut out, self.version.as_str());
        out.extend((self.files.len() as u32).to_le_bytes());
        for (name, bytes) in &self.files {
            word(&mut out, name);
            out.extend((bytes.len() as u32).to_le_bytes());
            out.extend(bytes);
        }
        out
    }

    /// Reads a record.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ProofError> {
        let mut rest = bytes.strip_prefix(MAGIC).ok_or(ProofError::Form("begins otherwise"))?;
        let known_time = UnixTime::from_secs(i64::from_le_bytes(take(&mut rest)?));
        let version = word(&mut rest)?
            .parse()
            .map_err(|_| ProofError::Form("names a version that is none"))?;
        let mut files = BTreeMap::new();
        for _ in 0..u32::from_le_bytes(take(&mut rest)?) {
            let name = word(&mut rest)?;
            if files.last_key_value().is_some_and(|(last, _)| *last >= name) {
                return Err(ProofError::Form("has its files out of order"));
            }
            let len = u32::from_le_bytes(take(&mut rest)?) as usize;
            files.insert(name, take_slice(&mut rest, len)?.to_vec());
        }
        if !rest.is_empty() {
            return Err(ProofError::Form("is followed by bytes"));
        }
        Ok(Proof { known_time, version, files })
    }
}

/// The last block of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// Bytes of the proof.
    pub len: u32,
    /// Their digest: a torn proof is none.
    pub sha256: Sha256,
}

impl Trailer {
    /// Bytes of a trailer.
    pub const LEN: usize = BLOCK as usize;

    /// The trailer of a proof.
    pub fn of(proof: &[u8]) -> Self {
        Trailer { len: proof.len() as u32, sha256: Sha256::of(proof) }
    }

    /// Its block.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut out = TRAILER_MAGIC.to_vec();
        out.extend(1u32.to_le_bytes());
        out.extend(self.len.to_le_bytes());
        out.extend(self.sha256.0);
        out.resize(Self::LEN, 0);
        out
    }

    /// Reads a block.
    pub fn parse(block: &[u8]) -> Result<Self, ProofError> {
        let mut rest = block.strip_prefix(TRAILER_MAGIC).ok_or(ProofError::Form("is missing"))?;
        if u32::from_le_bytes(take(&mut rest)?) != 1 {
            return Err(ProofError::Form("is of a later form"));
        }
        let len = u32::from_le_bytes(take(&mut rest)?);
        if len > LIMIT {
            return Err(ProofError::Form("is longer than 16 MiB"));
        }
        Ok(Trailer { len, sha256: Sha256(take(&mut rest)?) })
    }
}

/// Where a proof of `len` bytes and its trailer begin in a slot of `slot_len` bytes; `None` when
/// it does not fit behind the first `used` bytes.
pub fn place(len: u64, slot_len: u64, used: u64) -> Option<(u64, u64)> {
    let trailer = (slot_len / BLOCK * BLOCK).checked_sub(BLOCK)?;
    let proof = trailer.checked_sub(len.checked_next_multiple_of(BLOCK)?)?;
    (len <= u64::from(LIMIT) && used <= proof).then_some((proof, trailer))
}

fn word(rest: &mut &[u8]) -> Result<String, ProofError> {
    let len = usize::from(u16::from_le_bytes(take(rest)?));
    let text = str::from_utf8(take_slice(rest, len)?);
    Ok(text.map_err(|_| ProofError::Form("has a name that is not UTF-8"))?.to_owned())
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], ProofError> {
    let (head, tail) = rest.split_first_chunk().ok_or(ProofError::Form("ends early"))?;
    *rest = tail;
    Ok(*head)
}

fn take_slice<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], ProofError> {
    let (head, tail) = rest.split_at_checked(len).ok_or(ProofError::Form("ends early"))?;
    *rest = tail;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_read_as_it_was_written_and_never_cut() {
        let files = [("1.root.json", 3), ("timestamp.json", 0), ("7.targets.json", 100)];
        let proof = Proof {
            known_time: UnixTime::from_secs(1_800_000_000),
            version: "1.2.0".parse().unwrap(),
            files: files.map(|(name, len)| (name.to_owned(), vec![7; len])).into(),
        };
        let bytes = proof.to_bytes();
        assert_eq!(Proof::from_bytes(&bytes).unwrap(), proof);
        for cut in 0..bytes.len() {
            assert!(Proof::from_bytes(&bytes[..cut]).is_err(), "{cut}");
        }
        assert!(Proof::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
        let trailer = Trailer::of(&bytes);
        assert_eq!(Trailer::parse(&trailer.to_bytes()).unwrap(), trailer);
        assert!(Trailer::parse(&[0; 4096]).is_err());
    }

    #[test]
    fn a_proof_lies_at_the_end_of_the_slot_or_nowhere() {
        let slot = 100 * BLOCK;
        assert_eq!(place(1, slot, 0), Some((98 * BLOCK, 99 * BLOCK)));
        assert_eq!(place(4097, slot, 97 * BLOCK), Some((97 * BLOCK, 99 * BLOCK)));
        assert_eq!(place(4097, slot, 97 * BLOCK + 1), None);
        assert_eq!(place(1, slot + 5, 0), Some((98 * BLOCK, 99 * BLOCK)), "odd slots");
        assert_eq!(place(u64::MAX, slot, 0), None);
        assert_eq!(place(0, 10, 0), None);
    }
}
