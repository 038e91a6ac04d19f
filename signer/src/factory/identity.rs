//! Numbers that look random and are the same whenever the inputs are: GUIDs of the disk and of its parts.

use formats::digest::Sha256;
use formats::gpt::Guid;

/// What all numbers of a disk are drawn from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(Sha256);

impl Seed {
    /// The seed of these inputs, each told from the next by its length.
    pub fn of(inputs: &[&[u8]]) -> Self {
        let mut bytes = Vec::new();
        for input in inputs {
            bytes.extend_from_slice(&(input.len() as u64).to_le_bytes());
            bytes.extend_from_slice(input);
        }
        Seed(Sha256::of(&bytes))
    }

    fn draw(self, what: &str) -> [u8; 16] {
        let sum = Sha256::of(&[&self.0.0[..], what.as_bytes()].concat());
        *sum.0.first_chunk().expect("a digest has more than 16 bytes")
    }

    /// A GUID of version 8 (RFC 9562 §5.8), one for each text.
    pub fn guid(self, what: &str) -> Guid {
        let mut bytes = self.draw(what);
        // The third group is little-endian on the disk: its high byte comes second.
        bytes[7] = bytes[7] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Guid(bytes)
    }

    /// The serial number of a FAT volume, as `mkfs.vfat -i` takes it.
    pub fn volume_id(self) -> String {
        let [a, b, c, d, ..] = self.draw("volume");
        format!("{a:02x}{b:02x}{c:02x}{d:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_inputs_give_the_same_numbers_and_others_give_others() {
        let seed = Seed::of(&[b"index", b"config"]);
        assert_eq!(seed.guid("disk"), Seed::of(&[b"index", b"config"]).guid("disk"));
        assert_eq!(seed.guid("disk").to_string(), GOLDEN, "a disk that is made again is the same");
        assert_ne!(seed.guid("disk"), seed.guid("esp"));
        assert_ne!(seed, Seed::of(&[b"indexc", b"onfig"]));
        assert_eq!(seed.volume_id().len(), 8);
    }

    const GOLDEN: &str = "3c09a653-74dc-838c-94aa-42c5fa3c8ef9";

    #[test]
    fn guids_are_of_version_8() {
        for number in 0..50 {
            let text = Seed::of(&[b"x"]).guid(&number.to_string()).to_string();
            assert!(text[14..].starts_with('8'), "{text}");
            assert!("89ab".contains(&text[19..20]), "{text}");
        }
    }
}
