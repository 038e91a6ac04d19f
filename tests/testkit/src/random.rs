//! The random generator of all tests: reproducible from a seed that a test prints, and nothing more.

use std::collections::VecDeque;

/// SplitMix64 (Steele, Lea, Flood 2014), after a script where there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Random {
    script: VecDeque<u8>,
    state: u64,
}

impl Random {
    /// The same seed, the same draws, on every machine.
    pub fn seeded(seed: u64) -> Self {
        Self { script: VecDeque::new(), state: seed }
    }

    /// A seed of this process, which is printed.
    pub fn of_this_run() -> Self {
        let seed = u64::from(std::process::id());
        println!("seed {seed}");
        Self::seeded(seed)
    }

    /// One draw for each byte of a script, as a fuzzer writes it; then as seeded with 0.
    pub fn scripted(script: &[u8]) -> Self {
        Self { script: script.iter().copied().collect(), state: 0 }
    }

    /// A generator of its own, which begins with a part of the script.
    pub fn fork(&mut self) -> Self {
        let own = self.script.len().min(8);
        Self { script: self.script.drain(..own).collect(), state: self.word() }
    }

    /// 64 bits.
    pub fn word(&mut self) -> u64 {
        if let Some(byte) = self.script.pop_front() {
            return byte.into();
        }
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.state;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    /// From 0 to below `limit`; 0 when that is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.word() % limit.max(1) as u64) as usize
    }

    /// Whether the one case of so many comes.
    pub fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    /// From 0 to below 1.
    pub fn share(&mut self) -> f64 {
        (self.word() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// One of them; there must be one.
    pub fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// Bytes that do not compress.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let words = std::iter::repeat_with(|| self.word().to_le_bytes());
        words.flatten().take(len).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first words that the authors' own program prints for these seeds.
    #[test]
    fn the_words_are_those_of_the_authors() {
        let mut random = Random::seeded(0);
        assert_eq!(random.word(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(random.word(), 0x6e78_9e6a_a1b9_65f4);
        let mut random = Random::seeded(1_234_567);
        assert_eq!(random.word(), 6_457_827_717_110_365_317);
    }

    #[test]
    fn draws_stay_within_their_limits() {
        let mut random = Random::seeded(7);
        assert!((0..1000).all(|_| random.below(3) < 3));
        assert!((0..1000).all(|_| (0.0..1.0).contains(&random.share())));
        assert_eq!(random.below(0), 0);
        assert_eq!(random.bytes(13).len(), 13);
    }

    #[test]
    fn a_script_comes_first_and_is_shared_with_a_fork() {
        let mut random = Random::scripted(&[1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(random.word(), 1);
        let mut fork = random.fork();
        assert_eq!((fork.word(), fork.word()), (2, 3));
        // The script is used up; the first word after it became the seed of the fork.
        let mut seeded = Random::seeded(0);
        seeded.word();
        assert_eq!(random.word(), seeded.word());
    }
}
