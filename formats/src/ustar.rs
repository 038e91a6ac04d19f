//! Headers of a POSIX ustar archive: the one form of tar a bundle may have.
//!
//! Only regular files and directories exist here. Links, devices, sparse files, GNU long names
//! and pax headers are refused, and so is every number that is not plain octal: a blob above
//! [`SIZE_LIMIT`] has to travel in the directory form of a bundle. What `skopeo copy …
//! oci-archive:` writes is of this form.
//!
//! One header is one block of 512 bytes (POSIX.1-2017, pax, "ustar Interchange Format"):
//!
//! | offset | size | field | what is accepted |
//! |---|---|---|---|
//! | 0 | 100 | name | UTF-8, ended by NUL or by the field; see [`Header::name`] |
//! | 100 | 24 | mode, uid, gid | not read; written as 0000644 or 0000755, 0, 0 |
//! | 124 | 12 | size | 11 octal digits, then NUL or space; bytes of content |
//! | 136 | 12 | mtime | not read; written as 0 |
//! | 148 | 8 | checksum | octal sum of the header's bytes with this field as spaces |
//! | 156 | 1 | type | `0` regular file, `5` directory |
//! | 157 | 100 | link name | all NUL |
//! | 257 | 8 | magic, version | `ustar` NUL `00` |
//! | 265 | 80 | user, group, device | not read; written as NUL |
//! | 345 | 155 | name prefix | as the name; joined to it with `/` |
//! | 500 | 12 | – | all NUL |
//!
//! The content follows, filled up with zeros to a whole block. Two blocks of zeros end an archive.

/// Bytes of a header, and the unit content is padded to.
pub const BLOCK: usize = 512;

/// 8 GiB − 1: what eleven octal digits can say.
pub const SIZE_LIMIT: u64 = 0o77_777_777_777;

/// Why a block is not a header we take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UstarError {
    /// Not `ustar\0` `00`: an old, GNU or foreign format, or no tar at all.
    #[error("not a POSIX ustar header (write it with `tar --format=ustar`)")]
    Magic,
    /// The checksum field does not hold the sum of the header.
    #[error("tar header checksum {found:?} is not the header's sum {sum:o}")]
    Checksum {
        /// The number in the field, if it is one.
        found: Option<u64>,
        /// The sum of the bytes.
        sum: u64,
    },
    /// Neither a regular file nor a directory.
    #[error("tar entry {name:?} is of type {kind:?}; only regular files and directories are taken")]
    Kind {
        /// The entry's name as far as it can be read.
        name: String,
        /// The type character.
        kind: char,
    },
    /// The size is negative, base-256 or no octal number, or a directory has one.
    #[error("tar entry {name:?} has no plain octal size")]
    Size {
        /// The entry's name.
        name: String,
    },
    /// A name that is absolute, climbs, or is not a plain UTF-8 path.
    #[error("tar entry name {0:?} leaves the archive or is no plain path")]
    Name(String),
    /// A link name or reserved bytes where there must be none.
    #[error("tar entry {name:?} has bytes in unused header fields")]
    Unused {
        /// The entry's name.
        name: String,
    },
    /// A name that has no place in a header, when writing.
    #[error("{0:?} does not fit a ustar header; use the directory form")]
    TooLong(String),
    /// Content above [`SIZE_LIMIT`], when writing.
    #[error(
        "{name:?} has {size} bytes, above the 8 GiB a ustar header can say; use the directory form"
    )]
    TooLarge {
        /// The entry's name.
        name: String,
        /// Its length in bytes.
        size: u64,
    },
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
}

/// One entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Relative path, components separated by single `/`, none of them `.` or `..`, without
    /// control characters or backslashes. A leading `./` and a directory's final `/` are taken
    /// away; the archive's own root directory (`./`) is the empty name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Length of the content in bytes; 0 for a directory.
    pub size: u64,
}

impl Header {
    /// Parses one block. `Ok(None)` is a block of zeros, half of an archive's end.
    pub fn parse(block: &[u8; BLOCK]) -> Result<Option<Self>, UstarError> {
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let raw = Fields::of(block);
        if raw.magic != MAGIC {
            return Err(UstarError::Magic);
        }
        let (found, sum) = (octal(raw.checksum), sum(block));
        if found != Some(sum) {
            return Err(UstarError::Checksum { found, sum });
        }
        let shown = shown(&raw);
        let kind = match raw.kind {
            b'0' => Kind::File,
            b'5' => Kind::Directory,
            other => return Err(UstarError::Kind { name: shown, kind: char::from(other) }),
        };
        let path = path(&raw).ok_or_else(|| UstarError::Name(shown.clone()))?;
        let name = relative(&path, kind).ok_or(UstarError::Name(shown))?;
        let size = match (octal(raw.size), kind) {
            (Some(size), Kind::File) => size,
            (Some(0), Kind::Directory) => 0,
            _ => return Err(UstarError::Size { name }),
        };
        if raw.link.iter().chain(raw.reserved).any(|byte| *byte != 0) {
            return Err(UstarError::Unused { name });
        }
        Ok(Some(Header { name, kind, size }))
    }

    /// The block of this entry: mode 0644 or 0755, owner 0, time 0, so that equal content gives
    /// equal archives. Names above 100 bytes are refused rather than split.
    pub fn to_block(&self) -> Result<[u8; BLOCK], UstarError> {
        if self.size > SIZE_LIMIT {
            return Err(UstarError::TooLarge { name: self.name.clone(), size: self.size });
        }
        let (mut name, kind, mode) = match self.kind {
            Kind::File => (self.name.clone(), b'0', 0o644),
            Kind::Directory => (format!("{}/", self.name), b'5', 0o755),
        };
        if relative(&name, self.kind).as_ref() != Some(&self.name) {
            return Err(UstarError::Name(name));
        }
        if name.len() > NAME_LEN {
            name.truncate(name.trim_end_matches('/').len());
            return Err(UstarError::TooLong(name));
        }
        let mut block = Vec::with_capacity(BLOCK);
        block.extend_from_slice(name.as_bytes());
        block.resize(NAME_LEN, 0);
        for number in [mode, 0, 0] {
            block.extend_from_slice(format!("{number:07o}\0").as_bytes());
        }
        block.extend_from_slice(format!("{:011o}\0{:011o}\0        ", self.size, 0).as_bytes());
        block.push(kind);
        block.resize(257, 0);
        block.extend_from_slice(MAGIC);
        block.resize(BLOCK, 0);
        let mut block: [u8; BLOCK] = block.try_into().expect("resized to one block");
        let sum = format!("{:06o}\0 ", sum(&block));
        block[148..156].copy_from_slice(sum.as_bytes());
        Ok(block)
    }
}

/// Bytes of zeros that follow `size` bytes of content.
pub fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

const NAME_LEN: usize = 100;
const MAGIC: &[u8; 8] = b"ustar\x0000";

struct Fields<'a> {
    name: &'a [u8],
    size: &'a [u8],
    checksum: &'a [u8],
    kind: u8,
    link: &'a [u8],
    magic: &'a [u8],
    prefix: &'a [u8],
    reserved: &'a [u8],
}

impl<'a> Fields<'a> {
    fn of(block: &'a [u8; BLOCK]) -> Self {
        Fields {
            name: &block[..100],
            size: &block[124..136],
            checksum: &block[148..156],
            kind: block[156],
            link: &block[157..257],
            magic: &block[257..265],
            prefix: &block[345..500],
            reserved: &block[500..],
        }
    }
}

/// The sum of all bytes, the checksum field counted as spaces.
fn sum(block: &[u8; BLOCK]) -> u64 {
    let field = 148..156;
    let byte = |(at, byte): (usize, &u8)| if field.contains(&at) { b' ' } else { *byte };
    block.iter().enumerate().map(|each| u64::from(byte(each))).sum()
}

/// At least one octal digit, then only NUL and spaces.
fn octal(field: &[u8]) -> Option<u64> {
    let digits = field.iter().take_while(|byte| (b'0'..=b'7').contains(byte)).count();
    let (digits, rest) = field.split_at(digits);
    if digits.is_empty() || rest.iter().any(|byte| !matches!(byte, 0 | b' ')) {
        return None;
    }
    // At most 12 digits of 3 bits: never overflows.
    Some(digits.iter().fold(0, |value, digit| value << 3 | u64::from(digit - b'0')))
}

/// A field's text up to its first NUL; bytes after that must be NUL too.
fn text(field: &[u8]) -> Option<&str> {
    let len = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    let (text, rest) = field.split_at(len);
    if rest.iter().any(|byte| *byte != 0) {
        return None;
    }
    std::str::from_utf8(text).ok()
}

fn path(raw: &Fields<'_>) -> Option<String> {
    let (prefix, name) = (text(raw.prefix)?, text(raw.name)?);
    Some(if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") })
}

/// The name in its one spelling, or nothing when it could leave the archive.
fn relative(path: &str, kind: Kind) -> Option<String> {
    let path = match kind {
        Kind::Directory => path.strip_suffix('/').unwrap_or(path),
        Kind::File => path,
    };
    if kind == Kind::Directory && path == "." {
        return Some(String::new());
    }
    let path = path.strip_prefix("./").unwrap_or(path);
    let plain = |part: &str| {
        !matches!(part, "" | "." | "..") && !part.contains(|c: char| c.is_control() || c == '\\')
    };
    path.split('/').all(plain).then(|| path.to_owned())
}

/// The name for an error text, whatever it holds.
fn shown(raw: &Fields<'_>) -> String {
    let name = String::from_utf8_lossy(raw.name);
    name.trim_end_matches('\0').chars().take(NAME_LEN).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(name: &str, size: u64) -> Header {
        Header { name: name.to_owned(), kind: Kind::File, size }
    }

    /// The block with a change and, unless that is what is tested, the right checksum.
    fn edited(at: usize, bytes: &[u8]) -> [u8; BLOCK] {
        let mut block = file("index.json", 5).to_block().unwrap();
        block[at..at + bytes.len()].copy_from_slice(bytes);
        if at != 148 {
            let sum = format!("{:06o}\0 ", sum(&block));
            block[148..156].copy_from_slice(sum.as_bytes());
        }
        block
    }

    #[test]
    fn hostile_headers_are_refused() {
        let rows: &[(&str, usize, &[u8], &str)] = &[
            ("absolute", 0, b"/etc/passwd", "Name"),
            ("climbing", 0, b"../index.js", "Name"),
            ("climbing inside", 0, b"a/../../bcd", "Name"),
            ("empty part", 0, b"a//index.js", "Name"),
            ("backslash", 0, b"..\\index.js", "Name"),
            ("control character", 0, b"inde\x1b[json", "Name"),
            ("not UTF-8", 0, b"\xff\xfe", "Name"),
            ("text after NUL", 50, b"x", "Name"),
            ("file named as directory", 0, b"index.json/", "Name"),
            ("climbing prefix", 345, b"..", "Name"),
            ("old type", 156, b"\0", "Kind"),
            ("hard link", 156, b"1", "Kind"),
            ("symlink", 156, b"2", "Kind"),
            ("character device", 156, b"3", "Kind"),
            ("block device", 156, b"4", "Kind"),
            ("fifo", 156, b"6", "Kind"),
            ("GNU long name", 156, b"L", "Kind"),
            ("GNU long link", 156, b"K", "Kind"),
            ("GNU sparse", 156, b"S", "Kind"),
            ("pax", 156, b"x", "Kind"),
            ("global pax", 156, b"g", "Kind"),
            ("base-256 size", 124, b"\x80\0\0\0\0\0\0\0\0\0\0\x05", "Size"),
            ("negative size", 124, b"-0000000001\0", "Size"),
            ("negative base-256 size", 124, &[0xff; 12], "Size"),
            ("empty size", 124, &[0; 12], "Size"),
            ("padded size", 124, b"          5\0", "Size"),
            ("directory with size", 156, b"5", "Size"),
            ("link name", 157, b"x", "Unused"),
            ("reserved bytes", 500, b"x", "Unused"),
            ("GNU magic", 257, b"ustar  \0", "Magic"),
            ("no magic", 257, &[0; 8], "Magic"),
            ("wrong checksum", 148, b"000001\0 ", "Checksum"),
            ("no checksum", 148, &[0; 8], "Checksum"),
        ];
        for (name, at, bytes, wanted) in rows {
            let error = Header::parse(&edited(*at, bytes)).unwrap_err();
            let variant = format!("{error:?}");
            assert!(variant.starts_with(wanted), "{name}: {variant} instead of {wanted}");
        }
    }

    #[test]
    fn names_have_one_spelling() {
        for (kind, raw, name) in [
            (b"0", "./index.json", "index.json"),
            (b"5", "./", ""),
            (b"5", "./blobs/", "blobs"),
            (b"5", "blobs", "blobs"),
        ] {
            let mut bytes = raw.as_bytes().to_vec();
            bytes.resize(NAME_LEN, 0);
            let mut block = edited(0, &bytes);
            block[156] = kind[0];
            block[124..136].copy_from_slice(b"00000000000\0");
            let sum = format!("{:06o}\0 ", sum(&block));
            block[148..156].copy_from_slice(sum.as_bytes());
            assert_eq!(Header::parse(&block).unwrap().unwrap().name, name);
        }
    }

    #[test]
    fn what_does_not_fit_is_not_written() {
        let long = "a".repeat(101);
        assert_eq!(file(&long, 0).to_block(), Err(UstarError::TooLong(long)));
        assert!(file("a", SIZE_LIMIT).to_block().is_ok());
        let large = file("a", SIZE_LIMIT + 1).to_block();
        assert!(matches!(large, Err(UstarError::TooLarge { .. })));
        assert!(matches!(file("../a", 0).to_block(), Err(UstarError::Name(_))));
    }

    proptest! {
        #[test]
        fn headers_read_back(name in "[a-z]{1,8}(/[a-z0-9]{1,20}){0,3}", size in 0..=SIZE_LIMIT, dir: bool) {
            let kind = if dir { Kind::Directory } else { Kind::File };
            let header = Header { name, kind, size: if dir { 0 } else { size } };
            prop_assert_eq!(Header::parse(&header.to_block().unwrap()).unwrap(), Some(header));
        }

        #[test]
        fn no_block_panics(at in 0..BLOCK, bytes in proptest::collection::vec(any::<u8>(), 1..64)) {
            let mut block = file("blobs/sha256/00", 7).to_block().unwrap();
            for (byte, new) in block.iter_mut().skip(at).zip(&bytes) {
                *byte = *new;
            }
            let sum = format!("{:06o}\0 ", sum(&block));
            block[148..156].copy_from_slice(sum.as_bytes());
            let _ = Header::parse(&block);
        }

        #[test]
        fn padding_fills_a_block(size in 0..u64::MAX / 2) {
            prop_assert_eq!((size + padding(size)) % BLOCK as u64, 0);
            prop_assert!(padding(size) < BLOCK as u64);
        }
    }
}
