//! dm-verity trees (kernel `Documentation/admin-guide/device-mapper/verity`, cryptsetup's superblock):
//! which hash proves a file system block by block, and how it is laid out behind it.
//!
//! ```text
//!  0 ……… data, data_blocks × 4096      as the author made it, filled up with zeros to a block
//!  hash_offset                          superblock (512 bytes of its block)
//!  hash_offset + 4096                   the one top block, then each level below, leaves last
//! ```
//!
//! | superblock offset | size | meaning (integers little-endian) |
//! |---|---|---|
//! | 0 | 8 | `verity\0\0` |
//! | 8 | 4 | 1: version of the superblock |
//! | 12 | 4 | 1: the salt stands before the bytes it salts |
//! | 16 | 16 | UUID, here of the root hash |
//! | 32 | 32 | `sha256`, then zeros |
//! | 64 | 4 | bytes of a data block, 4096 |
//! | 68 | 4 | bytes of a hash block, 4096 |
//! | 72 | 8 | data blocks |
//! | 80 | 2 | bytes of the salt |
//! | 88 | 256 | the salt, then zeros |
//!
//! `veritysetup verify` judges it in the tests of `cargo xtask vm`.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256 as Hasher};

use crate::digest::{Sha256, hex, unhex};

/// Bytes of a block: the page size of every machine we know, and cryptsetup's default.
pub const BLOCK: usize = 4096;
/// Hashes in one block.
const FAN_OUT: u64 = (BLOCK / 32) as u64;

/// What is signed of a tree, and all that a kernel must be told to use it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verity {
    /// Hash of the top block.
    pub root_hash: Sha256,
    /// Up to 256 bytes in hexadecimal; may be empty.
    pub salt: String,
    /// Blocks of 4096 bytes before the tree.
    pub data_blocks: u64,
    /// Where the superblock begins, in bytes; a multiple of 4096.
    pub hash_offset: u64,
}

/// Why a description fits no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("verity: {0}")]
pub struct VerityError(pub &'static str);

impl Verity {
    /// Refuses what no image of `raw_size` bytes can have.
    pub fn check(&self, raw_size: u64) -> Result<(), VerityError> {
        let data = self.data_blocks.checked_mul(BLOCK as u64);
        if self.data_blocks == 0 || data.is_none_or(|data| data > self.hash_offset) {
            return Err(VerityError("the tree does not lie behind the data"));
        }
        if !self.hash_offset.is_multiple_of(BLOCK as u64) {
            return Err(VerityError("the tree does not begin with a block"));
        }
        let end = self.hash_offset.checked_add(tree_len(self.data_blocks));
        if end.is_none_or(|end| end > raw_size) {
            return Err(VerityError("the tree ends behind the image"));
        }
        if self.salt.len() > 512 || (!self.salt.is_empty() && unhex(&self.salt).is_none()) {
            return Err(VerityError("the salt is not hexadecimal, or too long"));
        }
        Ok(())
    }

    /// Length of the data in bytes, as [`Verity::check`] accepted it.
    pub fn data_len(&self) -> u64 {
        self.data_blocks.saturating_mul(BLOCK as u64)
    }

    /// Parameters of device-mapper's target `verity` with data and tree on one device.
    pub fn target_parameters(&self, device: &str) -> String {
        let salt = if self.salt.is_empty() { "-" } else { &self.salt };
        format!(
            "1 {device} {device} {BLOCK} {BLOCK} {} {} sha256 {} {salt}",
            self.data_blocks,
            self.hash_offset / BLOCK as u64 + 1,
            self.root_hash,
        )
    }
}

/// Bytes of superblock and tree for that many data blocks.
pub fn tree_len(data_blocks: u64) -> u64 {
    let levels: u64 = levels(data_blocks).iter().sum();
    (levels + 1).saturating_mul(BLOCK as u64)
}

/// Blocks of each level, leaves first; the last one is the top block.
fn levels(data_blocks: u64) -> Vec<u64> {
    let mut found = Vec::new();
    let mut blocks = data_blocks;
    // A single block is its own top block: its hash is the root hash.
    while blocks > 1 {
        blocks = blocks.div_ceil(FAN_OUT);
        found.push(blocks);
    }
    found
}

/// Makes a tree from the data, block by block. Keeps 32 bytes for each block.
#[derive(Debug)]
pub struct Builder {
    salt: Vec<u8>,
    leaves: Vec<u8>,
    blocks: u64,
}

impl Builder {
    /// Begins a tree. The salt may be empty; at most 256 bytes of it are used.
    pub fn new(salt: &[u8]) -> Self {
        let salt = salt.get(..256).unwrap_or(salt).to_vec();
        Builder { salt, leaves: Vec::new(), blocks: 0 }
    }

    /// Takes the next data block; a short one counts as filled up with zeros.
    pub fn push(&mut self, block: &[u8]) {
        self.leaves.extend(self.hash(block));
        self.blocks += 1;
    }

    fn hash(&self, block: &[u8]) -> [u8; 32] {
        let mut hasher = Hasher::new();
        hasher.update(&self.salt);
        hasher.update(block);
        hasher.update(&[0; BLOCK][..BLOCK.saturating_sub(block.len())]);
        hasher.finalize().into()
    }

    /// Superblock and tree, which belong right behind the data, and what is to be signed.
    pub fn finish(self) -> (Verity, Vec<u8>) {
        let mut levels: Vec<Vec<u8>> = Vec::new();
        let mut hashes = self.leaves.clone();
        while hashes.len() > 32 {
            let level = padded(hashes);
            hashes = level.chunks(BLOCK).flat_map(|block| self.hash(block)).collect();
            levels.push(level);
        }
        let root = Sha256(hashes.try_into().unwrap_or_default());
        let mut tree = self.superblock(root);
        for level in levels.iter().rev() {
            tree.extend(level);
        }
        let verity = Verity {
            root_hash: root,
            salt: hex(&self.salt),
            data_blocks: self.blocks,
            hash_offset: self.blocks * BLOCK as u64,
        };
        (verity, tree)
    }

    fn superblock(&self, root: Sha256) -> Vec<u8> {
        let mut block = b"verity\0\0".to_vec();
        block.extend(1u32.to_le_bytes());
        block.extend(1u32.to_le_bytes());
        // The same image has the same UUID everywhere.
        block.extend(&root.0[..16]);
        block.extend(b"sha256");
        block.resize(64, 0);
        block.extend((BLOCK as u32).to_le_bytes());
        block.extend((BLOCK as u32).to_le_bytes());
        block.extend(self.blocks.to_le_bytes());
        block.extend((self.salt.len() as u16).to_le_bytes());
        block.resize(88, 0);
        block.extend(&self.salt);
        padded(block)
    }
}

fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(BLOCK).max(BLOCK), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(blocks: u64) -> (Verity, Vec<u8>) {
        let mut builder = Builder::new(b"salt");
        for number in 0..blocks {
            builder.push(&number.to_le_bytes().repeat(BLOCK / 8));
        }
        builder.finish()
    }

    #[test]
    fn lengths_are_known_before() {
        for blocks in [1, 2, 127, 128, 129, 128 * 128, 128 * 128 + 1] {
            let (verity, bytes) = tree(blocks);
            assert_eq!(bytes.len() as u64, tree_len(blocks), "{blocks}");
            verity.check(verity.hash_offset + tree_len(blocks)).unwrap();
            verity.check(verity.hash_offset + tree_len(blocks) - 1).unwrap_err();
        }
    }

    /// By cryptsetup 2.6.1: `veritysetup format --salt=73616c74 --uuid=…` of the same data.
    #[test]
    fn the_root_hash_is_cryptsetups() {
        let expected = [(1, ROOT_1), (129, ROOT_129)];
        for (blocks, root) in expected {
            assert_eq!(tree(blocks).0.root_hash.to_hex(), root, "{blocks}");
        }
    }

    const ROOT_1: &str = "02c7d121869b589993de67261b43b1dbdb761c952946eba8f8ba02baf98fdced";
    const ROOT_129: &str = "29a8fe7f1e9841e5dbeece69dec84782773f842898f9ba58da2e4b031ca842f2";

    #[test]
    fn senseless_descriptions_are_refused() {
        let (good, bytes) = tree(200);
        let size = good.hash_offset + bytes.len() as u64;
        type Row = (&'static str, fn(&mut Verity));
        let rows: [Row; 6] = [
            ("no data", |v| v.data_blocks = 0),
            ("overflow", |v| v.data_blocks = u64::MAX),
            ("tree inside the data", |v| v.hash_offset -= BLOCK as u64),
            ("tree behind the image", |v| v.hash_offset += BLOCK as u64),
            ("not on a block", |v| v.hash_offset += 1),
            ("odd salt", |v| v.salt = "7 1 x".to_owned()),
        ];
        for (name, damage) in rows {
            let mut verity = good.clone();
            damage(&mut verity);
            assert!(verity.check(size).is_err(), "{name}");
        }
    }
}
