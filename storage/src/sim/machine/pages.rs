//! Bytes in pages that copies share until one of them writes.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;

/// 4 KiB: a write of one sector copies no more than this.
const PAGE: usize = 4096;

#[derive(Debug)]
struct Page {
    bytes: [u8; PAGE],
    hash: u64,
}

/// Bytes of some length; a page that is not there is zero.
///
/// Copying costs a pointer per page. Equal bytes have equal hashes, which are kept up to date by
/// every write.
#[derive(Debug, Clone, Default)]
pub(super) struct Pages {
    len: u64,
    pages: Vec<Option<Arc<Page>>>,
    hash: u64,
    /// Unix seconds of the last change; no part of the hash.
    pub(super) modified: u64,
}

impl Pages {
    pub(super) fn new(len: u64) -> Self {
        let mut pages = Pages::default();
        pages.grow(len);
        pages
    }

    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut pages = Pages::new(bytes.len() as u64);
        pages.write(0, bytes);
        pages
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Equal for equal bytes of equal length.
    pub(super) fn hash(&self) -> u64 {
        self.hash ^ self.len.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// A hash of the whole pages that lie in the range, by their place in it.
    pub(super) fn hash_of(&self, offset: u64, len: u64) -> u64 {
        let first = usize::try_from(offset).expect("in memory") / PAGE;
        let count = usize::try_from(len).expect("in memory").div_ceil(PAGE);
        let pages = self.pages.iter().skip(first).take(count).enumerate();
        pages.fold(0, |sum, (nth, page)| sum ^ page.as_ref().map_or(0, |page| mix(nth, page.hash)))
    }

    fn grow(&mut self, len: u64) {
        if len > self.len {
            self.len = len;
            let count = usize::try_from(len).expect("in memory").div_ceil(PAGE);
            self.pages.resize(count, None);
        }
    }

    /// Fills `buf`; what lies behind the end is left alone.
    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) {
        let mut at = usize::try_from(offset).expect("in memory");
        let mut buf = buf;
        while !buf.is_empty() {
            let (number, begin) = (at / PAGE, at % PAGE);
            let take = buf.len().min(PAGE - begin);
            let (head, tail) = buf.split_at_mut(take);
            match self.pages.get(number) {
                Some(Some(page)) => head.copy_from_slice(&page.bytes[begin..begin + take]),
                Some(None) => head.fill(0),
                None => return,
            }
            at += take;
            buf = tail;
        }
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.len).expect("in memory")];
        self.read(0, &mut bytes);
        bytes
    }

    /// Writes, and becomes longer where needed.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.grow(offset + bytes.len() as u64);
        let mut at = usize::try_from(offset).expect("in memory");
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let (number, begin) = (at / PAGE, at % PAGE);
            let take = bytes.len().min(PAGE - begin);
            let (head, tail) = bytes.split_at(take);
            self.write_page(number, begin, head);
            at += take;
            bytes = tail;
        }
    }

    fn write_page(&mut self, number: usize, begin: usize, bytes: &[u8]) {
        let slot = &mut self.pages[number];
        let mut content = match slot {
            Some(page) => {
                if page.bytes[begin..begin + bytes.len()] == *bytes {
                    return;
                }
                self.hash ^= mix(number, page.hash);
                page.bytes
            }
            None => [0; PAGE],
        };
        content[begin..begin + bytes.len()].copy_from_slice(bytes);
        if content.iter().all(|byte| *byte == 0) {
            *slot = None;
            return;
        }
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        let hash = hasher.finish();
        self.hash ^= mix(number, hash);
        *slot = Some(Arc::new(Page { bytes: content, hash }));
    }
}

/// Ties a page to its place.
fn mix(number: usize, hash: u64) -> u64 {
    let mut state = hash ^ (number as u64).wrapping_mul(0xd6e8_feb8_6659_fd93);
    crate::sim::next_random(&mut state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_share_and_equal_bytes_hash_equally() {
        let mut one = Pages::new(10_000);
        one.write(4000, &[7; 300]);
        let before = one.clone();
        let mut other = one.clone();
        other.write(4090, b"between two pages");
        assert_eq!(one.to_vec(), before.to_vec());
        assert_ne!(one.hash(), other.hash());
        other.write(4090, &[7; 17]);
        assert_eq!(one.hash(), other.hash());
        assert_eq!(Pages::of(&one.to_vec()).hash(), one.hash());
        one.write(4000, &[0; 300]);
        assert_eq!(one.hash(), Pages::new(10_000).hash());
        assert_ne!(one.hash(), Pages::new(9_999).hash());
    }
}
