//! Small images that behave like real ones: text that compresses, data that does not, long runs
//! of zeros, and a length that is no multiple of anything. The same seed gives the same bytes.

use std::fs;
use std::path::{Path, PathBuf};

use formats::digest::Sha256;

use super::must;

/// An image file and its content.
#[derive(Debug, Clone)]
pub struct Image {
    /// The file.
    pub path: PathBuf,
    /// What is in it.
    pub bytes: Vec<u8>,
}

impl Image {
    /// Writes an image.
    #[track_caller]
    pub fn write(path: &Path, bytes: Vec<u8>) -> Self {
        must(fs::write(path, &bytes), &format!("write {}", path.display()));
        Image { path: path.to_path_buf(), bytes }
    }

    /// SHA-256 of the content.
    pub fn digest(&self) -> Sha256 {
        Sha256::of(&self.bytes)
    }

    /// Its length in bytes.
    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }
}

const MIB: usize = 1 << 20;

/// The number of a release that shares nothing with the first ones.
pub const UNRELATED: u64 = 101;

/// An operating system of about 8 MiB, of which 5 do not compress.
///
/// Releases differ as releases do: a piece is replaced, a piece is inserted, the rest moves. From
/// one hundred to the next they have nothing in common.
pub fn system(release: u64) -> Vec<u8> {
    let family = release / 100 * 10_000;
    let mut image = text(family + 1, MIB);
    // A file system begins with a boot block, and a text would not be taken for an image.
    image[0] = 0;
    image.extend(noise(family + 2, 3 * MIB));
    image.extend(vec![0; 2 * MIB]);
    image.extend(text(family + 3, MIB / 2));
    image.extend(noise(family + 4, 2 * MIB));
    image.extend(vec![0; 300_001]);
    // One piece in place, one that moves everything after it.
    let changed = noise(1000 + release, 150_000);
    image[2 * MIB..2 * MIB + changed.len()].copy_from_slice(&changed);
    let at = 6 * MIB + MIB / 2 + 77;
    let inserted = noise(2000 + release, 40_000 + 13 * release as usize);
    image.splice(at..at, inserted);
    image
}

/// A firmware blob of about 100 KiB that is another one in each release.
pub fn firmware(release: u64) -> Vec<u8> {
    let mut blob = noise(3000 + release, 90_001);
    blob.extend(vec![0xff; 16_000]);
    blob
}

/// Bytes that do not compress (xorshift64*, and not the generator of other tests: snapshots hold how these bytes
/// are cut into chunks).
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut word = move || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes()
    };
    let mut bytes: Vec<u8> = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend(word());
    }
    bytes.truncate(len);
    bytes
}

/// Bytes that compress well, as logs and scripts do.
fn text(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 64);
    let mut line = 0;
    while bytes.len() < len {
        line += 1;
        bytes.extend(format!("{line:08} unit-{seed}.service: state {}\n", line % 7).bytes());
    }
    bytes.truncate(len);
    bytes
}
