//! Sets of small numbers, one bit each: chunks of an image, pieces of a covering.

/// Indexes from 0 on. Takes one bit for each up to the largest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Indexes(Vec<u64>);

impl Indexes {
    /// None, with room for those below `end`.
    pub fn with_room(end: u32) -> Self {
        Indexes(vec![0; (end as usize).div_ceil(64)])
    }

    /// Whether an index is one of them.
    pub fn has(&self, index: u32) -> bool {
        self.0.get(index as usize / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    /// Adds one; whether it is new.
    pub fn add(&mut self, index: u32) -> bool {
        let new = !self.has(index);
        let at = index as usize / 64;
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        if let Some(word) = self.0.get_mut(at) {
            *word |= 1 << (index % 64);
        }
        new
    }

    /// How many.
    pub fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_there_and_nothing_else() {
        let mut set = Indexes::with_room(70);
        assert!(set.is_empty() && !set.has(0) && !set.has(u32::MAX));
        let added = [0, 63, 64, 69, 70, 500];
        assert_eq!(added.map(|index| set.add(index)), [true; 6]);
        assert_eq!(added.map(|index| set.add(index)), [false; 6]);
        let found: Vec<u32> = (0..1000).filter(|index| set.has(*index)).collect();
        assert_eq!((found.as_slice(), set.count(), set.is_empty()), (added.as_slice(), 6, false));
    }
}
