//! What a file is that was given for a bundle and is none.

use std::path::Path;

use formats::ustar::BLOCK;

use super::LayoutError;

/// First bytes by which compressed files are known, and what unpacks them.
const COMPRESSED: [(&[u8], &str); 5] = [
    (b"\x1f\x8b", "gunzip"),
    (b"\xfd7zXZ\0", "unxz"),
    (b"\x28\xb5\x2f\xfd", "unzstd"),
    (b"BZh", "bunzip2"),
    (b"PK\x03\x04", "unzip"),
];

/// What else people have at hand and give by mistake: offset, bytes, name. The first that fits
/// counts; a boot sector stands last, because other things may begin with one.
const OTHERS: [(usize, &[u8], &str); 7] = [
    (0, b"\x7fELF", "a program"),
    (0, b"hsqs", "a squashfs image"),
    (0, b"QFI\xfb", "a qcow2 image"),
    (0, b"\xd0\x0d\xfe\xed", "a device tree or FIT image"),
    (0, b"{", "JSON text"),
    (0, b"ANDROID!", "an Android boot image"),
    (510, b"\x55\xaa", "a disk image"),
];

/// The error for a file that does not begin with the header of a tar, judged by its first block.
/// `None` if it does: then the header's own error says more.
pub(super) fn refuse(path: &Path, head: &[u8; BLOCK]) -> Option<LayoutError> {
    let shown = path.display().to_string();
    if let Some((_, program)) = COMPRESSED.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Some(LayoutError::Compressed { path: shown, program });
    }
    // An archive of an older or GNU form: the header's error says how to write it.
    if head.get(257..262) == Some(b"ustar") {
        return None;
    }
    let fits = |(at, magic, _): &&(usize, &[u8], &str)| {
        head.get(*at..).is_some_and(|rest| rest.starts_with(magic))
    };
    let what = match OTHERS.iter().find(fits) {
        Some((_, _, what)) => what,
        None if head.iter().all(|byte| *byte == 0) => "zeros",
        None if head.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) => {
            "a text"
        }
        None => "an image or something else",
    };
    Some(LayoutError::NotBundle { path: shown, what })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(at: usize, bytes: &[u8]) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        block[at..at + bytes.len()].copy_from_slice(bytes);
        block
    }

    #[test]
    fn what_is_no_bundle_is_called_by_its_name() {
        for (head, expected) in [
            (block(0, b"\x1f\x8b\x08"), Some("stick is compressed; unpack it first: gunzip stick")),
            (
                block(0, b"\x28\xb5\x2f\xfd"),
                Some("stick is compressed; unpack it first: unzstd stick"),
            ),
            (block(510, b"\x55\xaa"), Some("stick is no bundle; it looks like a disk image")),
            (block(0, b"hsqs"), Some("stick is no bundle; it looks like a squashfs image")),
            (block(0, b""), Some("stick is no bundle; it looks like zeros")),
            ([b'a'; BLOCK], Some("stick is no bundle; it looks like a text")),
            ([7; BLOCK], Some("stick is no bundle; it looks like an image or something else")),
            (block(257, b"ustar  \0"), None),
        ] {
            let found = refuse(Path::new("stick"), &head).map(|error| error.to_string());
            assert_eq!(found.as_deref(), expected);
        }
    }
}
