//! What a file is, by its first and last bytes: only a raw image can be written to a slot.
//!
//! Pure. [`ALL`] is the one table; `docs/images.md` prints it, and a test compares the two. Whatever
//! is not in it is taken: file systems, boot images, firmware, ciphertext, texts, random bytes.

use super::disk;
use super::probe::{Probe, TAIL, quoted};

/// How a kind is recognised.
#[derive(Clone, Copy)]
enum Sign {
    /// Any of these bytes at that offset.
    At(usize, &'static [&'static [u8]]),
    /// These bytes at the beginning of the last 512.
    Footer(&'static [u8]),
    /// A condition that no single magic can say, and its words in the table.
    Also(fn(&Probe<'_>) -> bool, &'static str),
}

/// A kind of file that no slot boots.
pub struct Kind {
    /// What such a file is: `a file compressed with gzip`.
    pub name: &'static str,
    sign: Sign,
    /// The command that makes a raw image of it, or shows what is in it; `IN` and `OUT` stand for
    /// files. Empty: see [`disk`].
    mend: &'static str,
    /// Ending that the raw image's name loses.
    endings: &'static [&'static str],
}

const fn kind(name: &'static str, sign: Sign, mend: &'static str) -> Kind {
    Kind { name, sign, mend, endings: &[] }
}

const fn packed(
    name: &'static str,
    sign: Sign,
    mend: &'static str,
    endings: &'static [&'static str],
) -> Kind {
    Kind { name, sign, mend, endings }
}

/// Every kind, in the order in which they are asked.
pub const ALL: &[Kind] = &[
    packed(
        "a file compressed with gzip",
        Sign::Also(gzip, "`1f 8b 08` at 0, no reserved flag"),
        "gzip -dc < IN > OUT",
        &["gz"],
    ),
    packed(
        "a file compressed with xz",
        Sign::At(0, &[b"\xfd7zXZ\0"]),
        "xz -dc < IN > OUT",
        &["xz"],
    ),
    packed(
        "a file compressed with zstd",
        Sign::Also(zstd, "`28 b5 2f fd` at 0, also after skippable frames"),
        "zstd -dc < IN > OUT",
        &["zst", "zstd"],
    ),
    packed(
        "a file compressed with bzip2",
        Sign::Also(bzip2, "`BZh1`–`BZh9` at 0 and a block's magic"),
        "bzip2 -dc < IN > OUT",
        &["bz2"],
    ),
    packed(
        "a file compressed with lz4",
        Sign::At(0, &[b"\x04\x22\x4d\x18", b"\x02\x21\x4c\x18"]),
        "lz4 -dc < IN > OUT",
        &["lz4"],
    ),
    packed(
        "a file compressed with lzma",
        Sign::Also(lzma, "`5d 00 00` at 0 and lengths that fit"),
        "xz -dc < IN > OUT",
        &["lzma"],
    ),
    packed(
        "a file compressed with lzip",
        Sign::At(0, &[b"LZIP\x01"]),
        "lzip -dc < IN > OUT",
        &["lz"],
    ),
    packed(
        "a file compressed with lzop",
        Sign::At(0, &[b"\x89LZO\0\r\n\x1a\n"]),
        "lzop -dc < IN > OUT",
        &["lzo"],
    ),
    kind("a zip archive", Sign::At(0, &[b"PK\x03\x04", b"PK\x05\x06"]), "unzip IN"),
    kind("a 7z archive", Sign::At(0, &[b"7z\xbc\xaf\x27\x1c"]), "7z x IN"),
    kind("a tar archive", Sign::At(257, &[b"ustar\0", b"ustar "]), "tar -xf IN"),
    kind("a cpio archive", Sign::At(0, &[b"070701", b"070702", b"070707"]), "cpio -id < IN"),
    kind("a Debian package", Sign::At(0, &[b"!<arch>\ndebian-binary"]), "dpkg-deb -x IN FOLDER"),
    kind("an ar archive", Sign::At(0, &[b"!<arch>\n"]), "ar x IN"),
    kind("an RPM package", Sign::At(0, &[b"\xed\xab\xee\xdb"]), "rpm2cpio IN | cpio -id"),
    kind("a cabinet archive", Sign::At(0, &[b"MSCF\0\0\0\0"]), "cabextract IN"),
    packed(
        "a virtual disk in qcow format",
        Sign::Also(qcow, "`QFI fb` at 0, version 1 to 3"),
        "qemu-img convert -O raw IN OUT",
        &["qcow2", "qcow"],
    ),
    packed(
        "a virtual disk in VMDK format",
        Sign::At(0, &[b"KDMV", b"COWD", b"# Disk DescriptorFile"]),
        "qemu-img convert -f vmdk -O raw IN OUT",
        &["vmdk"],
    ),
    packed(
        "a virtual disk in VDI format",
        Sign::At(64, &[b"\x7f\x10\xda\xbe"]),
        "qemu-img convert -f vdi -O raw IN OUT",
        &["vdi"],
    ),
    packed(
        "a virtual disk in VHDX format",
        Sign::At(0, &[b"vhdxfile"]),
        "qemu-img convert -f vhdx -O raw IN OUT",
        &["vhdx"],
    ),
    packed(
        "a virtual disk in VHD format",
        Sign::Footer(b"conectix"),
        "qemu-img convert -f vpc -O raw IN OUT",
        &["vhd", "vpc"],
    ),
    packed(
        "a virtual disk in DMG format",
        Sign::Footer(b"koly\0\0\0\x04"),
        "qemu-img convert -f dmg -O raw IN OUT",
        &["dmg"],
    ),
    packed(
        "an Android sparse image",
        Sign::At(0, &[b"\x3a\xff\x26\xed"]),
        "simg2img IN OUT",
        &["simg"],
    ),
    kind(
        "the image of a whole disk",
        Sign::Also(
            disk::is_disk,
            "`EFI PART` at 512 or 4096; or `55 aa` at 510, valid partition entries and no file system",
        ),
        "",
    ),
    kind(
        "a pointer of Git LFS",
        Sign::At(0, &[b"version https://git-lfs.github.com/spec/"]),
        "git lfs pull",
    ),
    kind(
        "a page of HTML or XML",
        Sign::Also(
            markup,
            "`<!DOCTYPE html`, `<html` or `<?xml`, whatever the case, at 0 or after a byte order mark and blanks",
        ),
        "head -c 512 IN",
    ),
];

impl Kind {
    fn fits(&self, probe: &Probe<'_>) -> bool {
        match self.sign {
            Sign::At(offset, magics) => magics.iter().any(|magic| probe.has(offset, magic)),
            // Whoever is shorter than a footer has none.
            Sign::Footer(magic) => probe.tail.len() == TAIL && probe.tail.starts_with(magic),
            Sign::Also(holds, _) => holds(probe),
        }
    }

    /// What to run, for a file of that name: what is printed works in a shell, whatever the name.
    pub fn mend(&self, path: &str, probe: &Probe<'_>) -> String {
        if self.mend.is_empty() {
            return disk::mend(path, probe);
        }
        let word = |word: &str| match word {
            "IN" => quoted(path),
            "OUT" => quoted(&self.raw_name(path)),
            word => word.to_owned(),
        };
        let words: Vec<String> = self.mend.split(' ').map(word).collect();
        format!("`{}`", words.join(" "))
    }

    /// Another name than `path`: without its ending if that says the kind, else with one more.
    fn raw_name(&self, path: &str) -> String {
        let stem = self.endings.iter().find_map(|ending| path.strip_suffix(&format!(".{ending}")));
        match stem.filter(|stem| !stem.is_empty() && !stem.ends_with('/')) {
            Some(stem) if has_ending(stem) => stem.to_owned(),
            Some(stem) => format!("{stem}.img"),
            None => format!("{path}.raw"),
        }
    }

    /// A row of the table in `docs/images.md`: what, how it is recognised, what to run.
    pub fn row(&self) -> String {
        let sign = match self.sign {
            Sign::At(offset, magics) => {
                let magics: Vec<String> = magics.iter().map(|magic| shown(magic)).collect();
                format!("{} at {offset}", magics.join(" or "))
            }
            Sign::Footer(magic) => format!("{} at 512 before the end", shown(magic)),
            Sign::Also(_, words) => words.to_owned(),
        };
        let mend = if self.mend.is_empty() { disk::MEND } else { self.mend };
        // A bar would end the cell.
        let mend = mend.replace('|', "\\|");
        format!("| {} | {sign} | `{mend}` |", self.name)
    }
}

fn has_ending(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    name.trim_start_matches('.').contains('.')
}

/// The kind of a file that is no raw image.
pub fn recognise(probe: &Probe<'_>) -> Option<&'static Kind> {
    ALL.iter().find(|kind| kind.fits(probe))
}

/// Magic bytes for people: as text where most of it is text.
fn shown(magic: &[u8]) -> String {
    if magic.iter().filter(|byte| matches!(byte, b' '..=b'~')).count() * 2 > magic.len() {
        return format!("`{}`", magic.escape_ascii());
    }
    let bytes: Vec<String> = magic.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("`{}`", bytes.join(" "))
}

/// RFC 1952 §2.3: deflate is the only method, three flag bits are reserved.
fn gzip(probe: &Probe<'_>) -> bool {
    probe.has(0, b"\x1f\x8b\x08") && probe.byte(3) & 0xe0 == 0
}

/// RFC 8878 §3.1: frames of data, and skippable ones, with which parallel compressors begin.
fn zstd(probe: &Probe<'_>) -> bool {
    let mut at = 0;
    while probe.byte(at) & 0xf0 == 0x50 && probe.has(at + 1, b"\x2a\x4d\x18") {
        let len = probe.head.get(at + 4..at + 8).and_then(|len| len.try_into().ok());
        let len = len.map_or(0, u32::from_le_bytes) as usize;
        let Some(next) = at.checked_add(8).and_then(|at| at.checked_add(len)) else { return false };
        at = next;
    }
    probe.has(at, b"\x28\xb5\x2f\xfd")
}

/// A block begins with the digits of pi; an empty file ends with those of its square root.
fn bzip2(probe: &Probe<'_>) -> bool {
    probe.has(0, b"BZh")
        && probe.byte(3).is_ascii_digit()
        && [b"\x31\x41\x59\x26\x53\x59", b"\x17\x72\x45\x38\x50\x90"]
            .iter()
            .any(|m| probe.has(4, *m))
}

/// The format has no magic: the usual properties, a dictionary of a power of two (or one and a half
/// of it), and a length that is not known or below 256 GiB, as xz-utils asks.
fn lzma(probe: &Probe<'_>) -> bool {
    let Some(header) = probe.head.get(..13) else { return false };
    let Some(dictionary) = header.get(1..5).and_then(|len| len.try_into().ok()) else {
        return false;
    };
    let Some(len) = header.get(5..13).and_then(|len| len.try_into().ok()) else { return false };
    let (dictionary, len) = (u32::from_le_bytes(dictionary), u64::from_le_bytes(len));
    let one_bit = dictionary.is_power_of_two();
    let two_bits = dictionary % 3 == 0 && (dictionary / 3).is_power_of_two();
    header.starts_with(&[0x5d, 0, 0])
        && dictionary >= 1 << 12
        && (one_bit || two_bits)
        && (len == u64::MAX || len < 1 << 38)
}

fn qcow(probe: &Probe<'_>) -> bool {
    probe.has(0, b"QFI\xfb\0\0\0") && (1..=3).contains(&probe.byte(7))
}

/// What a server answers that has no such image, saved in its place.
fn markup(probe: &Probe<'_>) -> bool {
    let text = probe.head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(probe.head).trim_ascii_start();
    [&b"<!DOCTYPE html"[..], b"<html", b"<?xml"].iter().any(|start| {
        text.get(..start.len()).is_some_and(|begins| begins.eq_ignore_ascii_case(start))
    })
}

#[cfg(test)]
mod tests {
    use super::super::probe::HEAD;
    use super::*;

    fn found(bytes: &[u8]) -> Option<&'static str> {
        let head = &bytes[..bytes.len().min(HEAD)];
        let tail = &bytes[bytes.len() - bytes.len().min(TAIL)..];
        recognise(&Probe { len: bytes.len() as u64, head, tail }).map(|kind| kind.name)
    }

    fn with(len: usize, parts: &[(usize, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; len];
        for (at, part) in parts {
            bytes[*at..at + part.len()].copy_from_slice(part);
        }
        bytes
    }

    /// Formats whose tools a builder seldom has; those of the others are tried with the real tools.
    #[test]
    fn headers_as_the_specifications_have_them() {
        let lzma = b"\x5d\x00\x00\x80\x00\xff\xff\xff\xff\xff\xff\xff\xff\x00";
        let skip =
            [&b"\x50\x2a\x4d\x18\x04\0\0\0"[..], &[1, 2, 3, 4], b"\x28\xb5\x2f\xfd"].concat();
        let old = b"\x02\x21\x4c\x18";
        let rows: &[(&str, Vec<u8>)] = &[
            ("a file compressed with lzma", with(4096, &[(0, lzma)])),
            ("a file compressed with lzip", with(4096, &[(0, b"LZIP\x01\x0c")])),
            ("a file compressed with lzop", with(4096, &[(0, b"\x89LZO\0\r\n\x1a\n\x10")])),
            ("a file compressed with lz4", with(4096, &[(0, old)])),
            ("a file compressed with zstd", with(4096, &[(0, &skip)])),
            ("a file compressed with bzip2", b"BZh9\x17\x72\x45\x38\x50\x90\0\0\0\0".to_vec()),
            ("a zip archive", b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec()),
            ("a 7z archive", with(4096, &[(0, b"7z\xbc\xaf\x27\x1c\0\x04")])),
            ("a tar archive", with(10_240, &[(0, b"oci-layout"), (257, b"ustar  \0")])),
            ("a cpio archive", with(4096, &[(0, b"070702000002d1")])),
            ("an RPM package", with(4096, &[(0, b"\xed\xab\xee\xdb\x03\0")])),
            ("a cabinet archive", with(4096, &[(0, b"MSCF\0\0\0\0\x2c")])),
            ("a virtual disk in VMDK format", b"# Disk DescriptorFile\nversion=1\n".to_vec()),
            ("a virtual disk in DMG format", with(8192, &[(7680, b"koly\0\0\0\x04\0\0\x02\0")])),
            ("an Android sparse image", with(4096, &[(0, b"\x3a\xff\x26\xed\x01\0\0\0")])),
            (
                "a pointer of Git LFS",
                b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n".to_vec(),
            ),
            ("a page of HTML or XML", b"<!DOCTYPE html>\n<title>404</title>".to_vec()),
            ("a page of HTML or XML", b"\r\n  <!doctype HTML public".to_vec()),
            ("a page of HTML or XML", b"<HTML><head>".to_vec()),
            ("a page of HTML or XML", b"\xef\xbb\xbf\n<?xml version='1.0'?><Error/>".to_vec()),
        ];
        for (name, bytes) in rows {
            assert_eq!(found(bytes), Some(*name));
        }
    }

    /// What a slot may well hold.
    #[test]
    fn images_are_taken() {
        let fat = |at: usize, name: &'static [u8]| {
            // Boot code that looks like an entry of a partition table.
            let entry = b"\x80\0\0\0\x0c\0\0\0\x01\0\0\0\x01\0\0\0";
            with(
                1 << 20,
                &[(0, b"\xeb\x3c\x90mkfs.fat"), (at, name), (446, entry), (510, b"\x55\xaa")],
            )
        };
        let noise: Vec<u8> = (0..200_000u32)
            .flat_map(|n| (n.wrapping_mul(2_654_435_761) ^ 0x5bd1_e995).to_le_bytes())
            .collect();
        let rows: &[(&str, Vec<u8>)] = &[
            ("ext4", with(1 << 20, &[(1080, b"\x53\xef")])),
            ("squashfs", with(1 << 20, &[(0, b"hsqs\x05\0\0\0")])),
            ("erofs", with(1 << 20, &[(1024, b"\xe2\xe1\xf5\xe0")])),
            ("btrfs", with(1 << 20, &[(65_600, b"_BHRfS_M")])),
            ("xfs", with(1 << 20, &[(0, b"XFSB\0\0\x10\0")])),
            ("f2fs", with(1 << 20, &[(1024, b"\x10\x20\xf5\xf2")])),
            ("FAT16", fat(54, b"FAT16   ")),
            ("FAT32", fat(82, b"FAT32   ")),
            ("NTFS", fat(3, b"NTFS    ")),
            ("exFAT", fat(3, b"EXFAT   ")),
            ("UBI", with(1 << 20, &[(0, b"UBI#\x01\0\0\0")])),
            ("UBIFS", with(1 << 20, &[(0, b"\x31\x18\x10\x06\x9c\x0a")])),
            ("FIT", with(1 << 20, &[(0, b"\xd0\x0d\xfe\xed\0\0")])),
            (
                "uImage of a kernel that is packed",
                with(4096, &[(0, b"\x27\x05\x19\x56"), (64, b"\x1f\x8b\x08\0")]),
            ),
            ("bzImage", with(1 << 20, &[(0, b"MZ\xea\x07"), (510, b"\x55\xaa"), (514, b"HdrS")])),
            ("EFI program", with(1 << 20, &[(0, b"MZ"), (128, b"PE\0\0")])),
            ("Android boot image", with(1 << 20, &[(0, b"ANDROID!\0\0\x80\0")])),
            ("LUKS", with(1 << 20, &[(0, b"LUKS\xba\xbe\0\x02")])),
            ("ISO 9660", with(1 << 20, &[(32_769, b"CD001\x01")])),
            (
                "boot sector without partitions",
                with(1 << 20, &[(0, b"\xeb\x63\x90"), (510, b"\x55\xaa")]),
            ),
            (
                "ext4 behind a boot sector",
                with(
                    1 << 20,
                    &[
                        (446, b"\x80\0\0\0\x83\0\0\0\x01\0\0\0\x01\0\0\0"),
                        (510, b"\x55\xaa"),
                        (1080, b"\x53\xef"),
                    ],
                ),
            ),
            ("erased flash", vec![0xff; 65_536]),
            ("random bytes", noise),
            ("a byte", b"x".to_vec()),
            ("reserved flags of gzip", with(4096, &[(0, b"\x1f\x8b\x08\xe0")])),
            ("a label before binary data", with(4096, &[(0, b"BOARD FIRMWARE V1.0 BUILD 0042")])),
            ("a text", b"the first system of this board\n".to_vec()),
            ("a script", b"#!/bin/sh\nexec start\n".to_vec()),
            ("a JSON document", b"{\"fans\": [\"slow\"]}\n".to_vec()),
            ("a text that begins like a page", b"<hardware>\n".to_vec()),
            ("blanks", b" \r\n\t".repeat(50_000)),
            ("zeros", vec![0; 1 << 20]),
        ];
        for (name, bytes) in rows {
            assert_eq!(found(bytes), None, "{name}");
        }
    }

    /// Random bytes of every length are taken: the weakest sign is that of lzma.
    #[test]
    fn random_bytes_are_no_kind() {
        let mut state = 1u64;
        for round in 0..20_000usize {
            let bytes: Vec<u8> = (0..round % 600)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 56) as u8
                })
                .collect();
            assert_eq!(found(&bytes), None, "{bytes:02x?}");
        }
    }

    #[test]
    fn what_is_printed_can_be_typed() {
        let mend = |name: &str, path: &str| {
            let kind = ALL.iter().find(|kind| kind.name == name).unwrap();
            kind.mend(path, &Probe { len: 0, head: &[], tail: &[] })
        };
        let gzip = |path| mend("a file compressed with gzip", path);
        assert_eq!(gzip("os.img.gz"), "`gzip -dc < os.img.gz > os.img`");
        assert_eq!(gzip("out/os.gz"), "`gzip -dc < out/os.gz > out/os.img`");
        assert_eq!(gzip("os.img"), "`gzip -dc < os.img > os.img.raw`");
        assert_eq!(gzip("my os.gz"), "`gzip -dc < 'my os.gz' > 'my os.img'`");
        assert_eq!(gzip("-o.gz"), "`gzip -dc < ./-o.gz > ./-o.img`");
        assert_eq!(gzip("it's"), r"`gzip -dc < 'it'\''s' > 'it'\''s.raw'`");
        let qcow = mend("a virtual disk in qcow format", "os.qcow2");
        assert_eq!(qcow, "`qemu-img convert -O raw os.qcow2 os.img`");
    }
}
