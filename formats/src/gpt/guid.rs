//! GUIDs in the mixed byte order of UEFI (2.10, appendix A).

use std::fmt;
use std::str::FromStr;

use crate::digest::{hex, unhex};

/// A GUID as it stands on the disk.
///
/// | offset | size | written as |
/// |---|---|---|
/// | 0 | 4 | first group, little-endian |
/// | 4 | 2 | second group, little-endian |
/// | 6 | 2 | third group, little-endian |
/// | 8 | 8 | fourth and fifth group, in the order they are written |
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid(pub [u8; 16]);

/// Where each digit pair of the text stands on the disk.
const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];

impl Guid {
    /// All zeros: the type of an entry that is not in use.
    pub const ZERO: Guid = Guid([0; 16]);

    /// A Linux file system (`0fc63daf-8483-4772-8e79-3d69d8477de4`).
    pub const LINUX: Guid = Guid([
        0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d,
        0xe4,
    ]);
}

/// A text that is not a GUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a GUID of the form 01234567-89ab-cdef-0123-456789abcdef")]
pub struct GuidError(String);

impl FromStr for Guid {
    type Err = GuidError;

    /// Takes upper and lower case.
    fn from_str(text: &str) -> Result<Self, GuidError> {
        let error = || GuidError(text.chars().take(64).collect());
        let groups: Vec<&str> = text.split('-').collect();
        if groups.iter().map(|group| group.len()).ne([8, 4, 4, 4, 12]) {
            return Err(error());
        }
        let bytes = unhex(&groups.concat().to_ascii_lowercase()).ok_or_else(error)?;
        let mut guid = Guid::ZERO;
        for (place, byte) in ORDER.iter().zip(bytes) {
            guid.0[*place] = byte;
        }
        Ok(guid)
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = hex(&ORDER.map(|place| self.0[place]));
        let (a, b, c, d, e) =
            (&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]);
        write!(f, "{a}-{b}-{c}-{d}-{e}")
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
