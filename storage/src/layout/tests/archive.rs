//! Hostile and honest tars: cases 103 to 117.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::PathBuf;

use formats::ustar::{BLOCK, Header, Kind, padding};
use proptest::prelude::*;

use super::*;

/// An entry of a hand-made tar: name, type, content.
type Entry<'a> = (&'a str, u8, Vec<u8>);

fn block(name: &str, kind: u8, size: u64) -> [u8; BLOCK] {
    let header = Header { name: "x".to_owned(), kind: Kind::File, size };
    let mut block = header.to_block().unwrap();
    block[..100].fill(0);
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[156] = kind;
    resum(&mut block);
    block
}

fn resum(block: &mut [u8; BLOCK]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn tar(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, kind, content) in entries {
        out.extend_from_slice(&block(name, *kind, content.len() as u64));
        out.extend_from_slice(content);
        out.resize(out.len() + padding(content.len() as u64) as usize, 0);
    }
    out.resize(out.len() + 2 * BLOCK, 0);
    out
}

fn good_entries() -> Vec<Entry<'static>> {
    let index = Index::new(None, vec![descriptor(b"one").annotated(annotation::REF_NAME, "x:1")]);
    let name = format!("blobs/sha256/{}", Digest::sha256_of(b"one").hex());
    vec![
        ("oci-layout", b'0', LAYOUT_FILE.to_vec()),
        ("index.json", b'0', index.to_bytes()),
        ("blobs/", b'5', vec![]),
        (name.leak(), b'0', b"one".to_vec()),
    ]
}

fn open_bytes(bytes: &[u8]) -> Result<Archive, LayoutError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bundle.tar");
    fs::write(&path, bytes).unwrap();
    Archive::open(&path)
}

fn with(extra: &[Entry<'_>]) -> Vec<u8> {
    let mut entries = good_entries();
    entries.extend_from_slice(extra);
    tar(&entries)
}

/// A good tar with bytes of the header of `index.json` changed.
fn edited(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut tar = with(&[]);
    let header: &mut [u8; BLOCK] = (&mut tar[2 * BLOCK..3 * BLOCK]).try_into().unwrap();
    header[at..at + bytes.len()].copy_from_slice(bytes);
    if at != 148 {
        resum(header);
    }
    tar
}

#[test]
fn a_strict_tar_is_read_in_place() {
    let archive =
        open_bytes(&with(&[("notes/", b'5', vec![]), ("notes/a", b'0', vec![1])])).unwrap();
    let found = archive.resolve("x:1").unwrap().unwrap();
    assert_eq!(archive.read_blob(&found.digest, found.size).unwrap(), b"one");
    assert_eq!(archive.blob_len(&Digest::sha256_of(b"two")).unwrap(), None);
    let past = archive.read_blob_at(&found.digest, &mut [0; 2], 2).unwrap_err();
    assert_eq!(past.reason(), Reason::LengthMismatch);
    let overflow = archive.read_blob_at(&found.digest, &mut [0; 2], u64::MAX).unwrap_err();
    assert_eq!(overflow.reason(), Reason::LengthMismatch);
}

#[test]
fn hostile_tars_are_refused() {
    use Reason::{BundleFormat, PathRefused};
    let mut after_end = with(&[]);
    after_end.extend_from_slice(&[0; BLOCK]);
    after_end.extend_from_slice(b"more");
    after_end.resize(after_end.len().next_multiple_of(BLOCK), 0);
    let mut second_tar = with(&[]);
    second_tar.extend(with(&[]));
    let whole = with(&[]);
    let mut dirty_padding = whole.clone();
    dirty_padding[BLOCK + LAYOUT_FILE.len()] = 1;
    let mut one_zero_block = whole.clone();
    one_zero_block.truncate(whole.len() - BLOCK);
    let mut odd_end = whole.clone();
    odd_end.extend_from_slice(&[0; 100]);
    let mut far_end = whole.clone();
    far_end.resize(far_end.len() + (2 << 20), 0);
    let named = |name| with(&[(name, b'0', vec![])]);
    let typed = |kind| with(&[("extra", kind, vec![])]);
    let blob: &'static str = good_entries()[3].0;
    let rows: Vec<(&str, Vec<u8>, Reason)> = vec![
        // 103
        ("absolute name", named("/etc/passwd"), PathRefused),
        ("climbing name", named("../evil"), PathRefused),
        ("climbing name inside", named("blobs/../../evil"), PathRefused),
        ("climbing directory", with(&[("../", b'5', vec![])]), PathRefused),
        // 104
        ("hard link", typed(b'1'), BundleFormat),
        ("symbolic link", typed(b'2'), BundleFormat),
        ("character device", typed(b'3'), BundleFormat),
        ("block device", typed(b'4'), BundleFormat),
        ("pipe", typed(b'6'), BundleFormat),
        ("contiguous file", typed(b'7'), BundleFormat),
        ("sparse file", typed(b'S'), BundleFormat),
        ("GNU long name", typed(b'L'), BundleFormat),
        ("GNU long link", typed(b'K'), BundleFormat),
        ("pax header", typed(b'x'), BundleFormat),
        ("global pax header", typed(b'g'), BundleFormat),
        // 105
        ("blob twice", with(&[(blob, b'0', b"one".to_vec())]), BundleFormat),
        ("blob twice as ./", with(&[(&format!("./{blob}"), b'0', vec![])]), BundleFormat),
        ("index.json twice", named("index.json"), BundleFormat),
        ("index.json twice as ./", named("./index.json"), BundleFormat),
        ("file and directory", with(&[("index.json", b'5', vec![])]), BundleFormat),
        // 106
        ("wrong checksum", edited(148, b"000001\0 "), BundleFormat),
        ("negative size", edited(124, b"-0000000001\0"), BundleFormat),
        ("base-256 size", edited(124, b"\x80\0\0\0\0\0\0\0\0\0\0\x05"), BundleFormat),
        ("8 GiB declared", edited(124, b"77777777777\0"), BundleFormat),
        ("1 TiB declared", edited(124, b"\x80\0\0\0\0\0\x01\0\0\0\0\0"), BundleFormat),
        ("size past the end", edited(124, b"00000100000\0"), BundleFormat),
        ("empty file", vec![], BundleFormat),
        ("cut inside a header", whole[..100].to_vec(), BundleFormat),
        ("cut inside content", whole[..BLOCK + 5].to_vec(), BundleFormat),
        ("cut before the end", whole[..whole.len() - 2 * BLOCK].to_vec(), BundleFormat),
        ("padding is not zero", dirty_padding, BundleFormat),
        // 108
        ("data after the end", after_end, BundleFormat),
        ("a second tar after the end", second_tar, BundleFormat),
        ("one block of zeros only", one_zero_block, BundleFormat),
        ("end is no whole block", odd_end, BundleFormat),
        ("zeros without end", far_end, BundleFormat),
        // no layout
        ("no entries", tar(&[]), BundleFormat),
        ("no index.json", tar(&good_entries()[..1]), BundleFormat),
        ("no oci-layout", tar(&good_entries()[1..]), BundleFormat),
        ("not a tar", vec![0x7f; 4096], BundleFormat),
    ];
    for (name, bytes, wanted) in rows {
        match open_bytes(&bytes) {
            Ok(_) => panic!("{name}: was taken"),
            Err(error) => assert_eq!(error.reason(), wanted, "{name}: {error:?}"),
        }
    }
}

#[test]
fn every_cut_of_a_tar_is_refused() {
    let whole = with(&[]);
    for len in (0..whole.len()).step_by(64) {
        let found = open_bytes(&whole[..len]);
        assert!(found.is_err(), "cut to {len} of {} bytes", whole.len());
    }
}

#[test]
fn too_many_entries_are_refused_in_bounded_time() {
    // 107: a million empty blobs; the walk stops at the limit.
    let mut bytes = with(&[]);
    bytes.truncate(bytes.len() - 2 * BLOCK);
    for nth in 0..ENTRY_LIMIT {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&(nth as u64).to_le_bytes());
        let name = format!("blobs/sha256/{}", formats::digest::hex(&digest));
        bytes.extend_from_slice(&block(&name, b'0', 0));
    }
    bytes.resize(bytes.len() + 2 * BLOCK, 0);
    assert_eq!(open_bytes(&bytes).unwrap_err().reason(), Reason::MetaLimit);
    let names: Vec<String> = (0..2000).map(|nth| format!("extra-{nth}")).collect();
    let extra: Vec<Entry<'_>> = names.iter().map(|name| (name.as_str(), b'0', vec![])).collect();
    assert_eq!(open_bytes(&with(&extra)).unwrap_err().reason(), Reason::MetaLimit);
}

#[test]
fn what_the_index_does_not_list_is_not_read_and_what_it_lists_must_be_there() {
    // 109
    let unlisted = format!("blobs/sha256/{}", "ab".repeat(32));
    let archive = open_bytes(&with(&[(&unlisted, b'0', b"never".to_vec())])).unwrap();
    assert_eq!(archive.refs().unwrap().len(), 1);
    let mut entries = good_entries();
    entries.pop();
    let archive = open_bytes(&tar(&entries)).unwrap();
    let listed = archive.resolve("x:1").unwrap().unwrap();
    assert_eq!(archive.read_blob(&listed.digest, 9).unwrap_err().reason(), Reason::BundleFormat);
}

#[test]
fn altered_parts_are_found() {
    // 117: payload intact, another blob in its place, or one bit of it.
    let mut entries = good_entries();
    entries[3].2 = b"oNe".to_vec();
    let archive = open_bytes(&tar(&entries)).unwrap();
    let listed = archive.resolve("x:1").unwrap().unwrap();
    assert_eq!(archive.read_blob(&listed.digest, 9).unwrap_err().reason(), Reason::HashMismatch);
    assert_eq!(
        archive.open_blob(&listed.digest).unwrap().unwrap().verify().unwrap_err().reason(),
        Reason::HashMismatch
    );
    entries[3].2 = b"longer than said".to_vec();
    let archive = open_bytes(&tar(&entries)).unwrap();
    assert_eq!(archive.read_blob(&listed.digest, 3).unwrap_err().reason(), Reason::LengthMismatch);
}

#[test]
fn a_stick_that_changes_is_noticed() {
    // 112, 113: bytes change, or the file becomes shorter, after it was opened.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bundle.tar");
    fs::write(&path, with(&[])).unwrap();
    let archive = Archive::open(&path).unwrap();
    let digest = Digest::sha256_of(b"one");
    let (offset, blob) = {
        let blob = archive.open_blob(&digest).unwrap().unwrap();
        (blob.file().1, blob)
    };
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"two", offset).unwrap();
    assert_eq!(archive.read_blob(&digest, 3).unwrap_err().reason(), Reason::HashMismatch);
    file.set_len(offset + 1).unwrap();
    let error = blob.read_at(&mut [0; 3], 0).unwrap_err();
    assert_eq!(error.reason(), Reason::Unreachable, "the medium's fault: {error}");
    // The name may go: the file stays the one that was opened.
    fs::remove_file(&path).unwrap();
    assert!(blob.read_at(&mut [0; 1], 0).is_ok());
}

#[test]
fn only_a_regular_file_is_opened() {
    // 114
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("good.tar"), with(&[])).unwrap();
    symlink(at("good.tar"), at("link.tar")).unwrap();
    make_fifo(&at("fifo.tar"));
    fs::create_dir(at("dir.tar")).unwrap();
    fs::write(at("empty.tar"), b"").unwrap();
    let held = File::open(at("good.tar")).unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&held);
    let rows = [
        (at("link.tar"), Reason::PathRefused),
        (at("fifo.tar"), Reason::PathRefused),
        (at("dir.tar"), Reason::PathRefused),
        (PathBuf::from(format!("/proc/self/fd/{fd}")), Reason::PathRefused),
        (PathBuf::from("/dev/null"), Reason::PathRefused),
        (at("empty.tar"), Reason::BundleFormat),
        (at("missing.tar"), Reason::Unreachable),
        (at("good.tar/inside"), Reason::Unreachable),
    ];
    for (path, wanted) in rows {
        let error = Archive::open(&path).unwrap_err();
        assert_eq!(error.reason(), wanted, "{}: {error:?}", path.display());
    }
    assert!(Archive::open(&at("good.tar")).is_ok());
}

#[test]
fn large_blobs_are_covered_to_their_last_byte() {
    // 115: sizes around 2^31 and 2^32 in a sparse file, read at both ends.
    for size in [(1u64 << 31) - 1, 1 << 31, (1 << 31) + 1, 1 << 32, (1 << 32) + 1] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("large.tar");
        let mut bytes = with(&[]);
        bytes.truncate(bytes.len() - 2 * BLOCK);
        let digest: Digest = format!("sha256:{}", "cd".repeat(32)).parse().unwrap();
        bytes.extend_from_slice(&block(&format!("blobs/sha256/{}", digest.hex()), b'0', size));
        let start = bytes.len() as u64;
        fs::write(&path, &bytes).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(start + size + padding(size) + 2 * BLOCK as u64).unwrap();
        file.write_all_at(b"z", start + size - 1).unwrap();
        let archive = Archive::open(&path).unwrap();
        assert_eq!(archive.blob_len(&digest).unwrap(), Some(size));
        let mut last = [0];
        archive.read_blob_at(&digest, &mut last, size - 1).unwrap();
        assert_eq!(&last, b"z", "{size}");
        let past = archive.read_blob_at(&digest, &mut last, size).unwrap_err();
        assert_eq!(past.reason(), Reason::LengthMismatch, "{size}");
    }
}

proptest! {
    #[test]
    fn no_tar_panics_and_what_is_read_is_verified(
        edits in proptest::collection::vec((0..5632usize, any::<u8>()), 1..20),
        sum: bool,
    ) {
        let mut bytes = with(&[]);
        for (at, byte) in edits {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        if sum {
            // Get past the checksums of the headers that are where they were.
            for at in [0, 2, 4, 5] {
                let header = &mut bytes[at * BLOCK..(at + 1) * BLOCK];
                resum(header.try_into().unwrap());
            }
        }
        if let Ok(archive) = open_bytes(&bytes) {
            for entry in &archive.named().unwrap() {
                if let Ok(blob) = archive.read_blob(&entry.digest, 1 << 20) {
                    prop_assert!(entry.digest.matches(&blob));
                }
            }
        }
    }
}
