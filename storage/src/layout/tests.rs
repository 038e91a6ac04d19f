use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::Command;

use formats::oci::{Manifest, media_type};
use formats::ustar::{BLOCK, Header, Kind, padding};
use tempfile::TempDir;

use super::*;

fn scratch() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("layout");
    (dir, path)
}

fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor::of("application/octet-stream", bytes)
}

/// A layout with one tagged manifest of two layers.
fn sample(path: &Path) -> (LayoutDir, Descriptor) {
    let layout = LayoutDir::create(path).unwrap();
    let layers: Vec<Descriptor> = [&b"one"[..], &[7; 3000]].map(descriptor).to_vec();
    for bytes in [&b"one"[..], &[7; 3000], formats::oci::EMPTY_CONFIG] {
        layout.put_blob(bytes).unwrap();
    }
    let manifest = Manifest::artifact("application/x", Descriptor::empty(), layers).to_bytes();
    layout.put_blob(&manifest).unwrap();
    let tagged = Descriptor::of(media_type::MANIFEST, &manifest);
    layout.set_refs(&[("tuf:latest".to_owned(), Some(tagged.clone()))]).unwrap();
    (layout, tagged)
}

// --- directory ----------------------------------------------------------------------------------

#[test]
fn a_layout_reads_back_through_another_handle() {
    let (_dir, path) = scratch();
    let (_, tagged) = sample(&path);
    let again = LayoutDir::open(&path).unwrap();
    let found = again.resolve("tuf:latest").unwrap().unwrap();
    assert_eq!((found.digest.clone(), found.size), (tagged.digest, tagged.size));
    assert_eq!(again.resolve("latest").unwrap(), None);
    assert_eq!(again.blobs().unwrap().len(), 4);
    assert_eq!(again.read_blob(&Digest::sha256_of(b"one"), 3).unwrap(), b"one");
    let mut part = [0; 2];
    again.read_blob_at(&Digest::sha256_of(b"one"), &mut part, 1).unwrap();
    assert_eq!(&part, b"ne");
    let mode = fs::metadata(path.join("blobs/sha256").join(found.digest.hex())).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o644);
}

#[test]
fn tags_move_together_and_strangers_stay() {
    let (_dir, path) = scratch();
    let (layout, tagged) = sample(&path);
    let stranger = tagged.clone().annotated("other", "kept");
    let index = Index::new(None, vec![stranger.clone()]);
    fs::write(path.join("index.json"), index.to_bytes()).unwrap();
    layout
        .set_refs(&[
            ("b:2".to_owned(), Some(tagged.clone())),
            ("a:1".to_owned(), Some(tagged.clone())),
        ])
        .unwrap();
    let names = |layout: &LayoutDir| -> Vec<String> {
        layout.refs().unwrap().into_iter().map(|(name, _)| name).collect()
    };
    assert_eq!(names(&layout), ["a:1", "b:2"]);
    assert_eq!(layout.index().unwrap().manifests[0], stranger);
    layout.set_refs(&[("a:1".to_owned(), None), ("c:3".to_owned(), Some(tagged))]).unwrap();
    assert_eq!(names(&layout), ["b:2", "c:3"]);

    // Nothing moves when one of them cannot.
    let missing = descriptor(b"not there");
    let error = layout
        .set_refs(&[("b:2".to_owned(), None), ("d:4".to_owned(), Some(missing))])
        .unwrap_err();
    assert!(matches!(error, LayoutError::MissingBlob(_)));
    assert_eq!(names(&layout), ["b:2", "c:3"]);
}

#[test]
fn writers_of_different_tags_lose_nothing() {
    let (_dir, path) = scratch();
    let (_, tagged) = sample(&path);
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let (path, tagged) = (&path, &tagged);
            scope.spawn(move || {
                let layout = LayoutDir::open(path).unwrap();
                for nth in 0..5 {
                    let name = format!("demo:{writer}.{nth}");
                    layout.set_refs(&[(name, Some(tagged.clone()))]).unwrap();
                }
            });
        }
    });
    assert_eq!(LayoutDir::open(&path).unwrap().refs().unwrap().len(), 21);
}

#[test]
fn a_blob_is_visible_only_when_it_is_whole() {
    let (_dir, path) = scratch();
    let layout = LayoutDir::create(&path).unwrap();
    let digest = Digest::sha256_of(b"hello");
    let mut writer = layout.blob_writer().unwrap();
    writer.write_all(b"hel").unwrap();
    assert!(!layout.has_blob(&digest).unwrap());
    let wrong = writer.commit(Some(&digest)).unwrap_err();
    assert_eq!(wrong.reason(), Reason::HashMismatch);
    assert!(layout.blobs().unwrap().is_empty());

    let mut writer = layout.blob_writer().unwrap();
    writer.write_all(b"hello").unwrap();
    drop(writer);
    assert_eq!(fs::read_dir(path.join(".tmp")).unwrap().count(), 0, "a dropped writer stays");

    let mut writer = layout.blob_writer().unwrap();
    writer.write_all(b"hello").unwrap();
    assert_eq!(writer.commit(Some(&digest)).unwrap(), digest);
    assert_eq!(layout.read_blob(&digest, 5).unwrap(), b"hello");

    // The algorithm comes only at the end, as a registry's client may do it.
    let mut hasher = formats::digest::Algorithm::Sha512.hasher();
    hasher.update(b"hello");
    let long = hasher.finish();
    let mut writer = layout.blob_writer().unwrap();
    writer.write_all(b"hello").unwrap();
    assert_eq!(writer.commit(Some(&long)).unwrap(), long);
    assert_eq!(layout.read_blob(&long, 5).unwrap(), b"hello");
}

#[test]
fn only_the_dead_lose_their_temporary_files() {
    let (_dir, path) = scratch();
    let layout = LayoutDir::create(&path).unwrap();
    let mut living = layout.blob_writer().unwrap();
    living.write_all(b"alive").unwrap();
    for dead in [".tmp/.tmp-1-0", ".tmp-1-1"] {
        fs::write(path.join(dead), b"left behind").unwrap();
    }
    LayoutDir::create(&path).unwrap();
    assert!(!path.join(".tmp/.tmp-1-0").exists() && !path.join(".tmp-1-1").exists());
    let digest = living.commit(None).unwrap();
    assert_eq!(layout.read_blob(&digest, 5).unwrap(), b"alive");
}

#[test]
fn a_damaged_blob_is_not_given_out_and_is_mended() {
    let (_dir, path) = scratch();
    let layout = LayoutDir::create(&path).unwrap();
    let digest = layout.put_blob(b"bytes").unwrap();
    let file = path.join("blobs/sha256").join(digest.hex());
    fs::write(&file, b"bytez").unwrap();
    assert_eq!(layout.read_blob(&digest, 9).unwrap_err().reason(), Reason::HashMismatch);
    layout.put_blob(b"bytes").unwrap();
    assert_eq!(layout.read_blob(&digest, 9).unwrap(), b"bytes");
    assert_eq!(layout.read_blob(&digest, 4).unwrap_err().reason(), Reason::LengthMismatch);
    let missing = Digest::sha256_of(b"missing");
    assert_eq!(layout.read_blob(&missing, 9).unwrap_err().reason(), Reason::BundleFormat);
}

#[test]
fn one_reference_stands_for_one_digest() {
    let (_dir, path) = scratch();
    let (layout, _) = sample(&path);
    let named = |bytes: &[u8]| descriptor(bytes).annotated(annotation::REF_NAME, "x:1");
    let index = Index::new(None, vec![named(b"one"), named(&[7; 3000])]);
    fs::write(path.join("index.json"), index.to_bytes()).unwrap();
    assert_eq!(layout.resolve("x:1").unwrap_err().reason(), Reason::BundleFormat);
    assert!(layout.set_refs(&[("y:1".to_owned(), None)]).is_err());
}

#[test]
fn what_is_no_layout_is_refused() {
    let (dir, path) = scratch();
    assert_eq!(LayoutDir::open(&path).unwrap_err().reason(), Reason::Unreachable);
    fs::create_dir(&path).unwrap();
    assert_eq!(LayoutDir::open(&path).unwrap_err().reason(), Reason::BundleFormat);
    fs::write(path.join("oci-layout"), br#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
    assert_eq!(LayoutDir::open(&path).unwrap_err().reason(), Reason::BundleFormat);
    fs::write(path.join("oci-layout"), LAYOUT_FILE).unwrap();
    let layout = LayoutDir::open(&path).unwrap();
    assert_eq!(layout.refs().unwrap_err().reason(), Reason::BundleFormat);
    File::create(path.join("index.json")).unwrap().set_len(INDEX_LIMIT + 1).unwrap();
    assert_eq!(layout.refs().unwrap_err().reason(), Reason::MetaLimit);
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    assert_eq!(LayoutDir::open(&file).unwrap_err().reason(), Reason::PathRefused);
}

#[test]
fn links_and_pipes_inside_are_refused() {
    let (dir, path) = scratch();
    let (_, tagged) = sample(&path);
    let elsewhere = dir.path().join("elsewhere");
    let mut whole = PathBuf::new();
    for part in ["", "oci-layout", "index.json", "blobs", "blobs/sha256", "BLOB"] {
        let part = part.replace("BLOB", &format!("blobs/sha256/{}", tagged.digest.hex()));
        let victim = if part.is_empty() { path.clone() } else { path.join(&part) };
        fs::rename(&victim, &elsewhere).unwrap();
        symlink(&elsewhere, &victim).unwrap();
        let read = LayoutDir::open(&path).and_then(|layout| {
            let found = layout.resolve("tuf:latest")?.unwrap();
            layout.read_blob(&found.digest, found.size)
        });
        assert_eq!(read.unwrap_err().reason(), Reason::PathRefused, "symbolic link at {part:?}");
        fs::remove_file(&victim).unwrap();
        fs::rename(&elsewhere, &victim).unwrap();
        whole = victim;
    }
    // A pipe in place of a blob must not be waited for.
    fs::remove_file(&whole).unwrap();
    make_fifo(&whole);
    let layout = LayoutDir::open(&path).unwrap();
    let error = layout.read_blob(&tagged.digest, tagged.size).unwrap_err();
    assert_eq!(error.reason(), Reason::PathRefused);
}

fn make_fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

// --- tar ----------------------------------------------------------------------------------------

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
    assert_eq!(error.reason(), Reason::LengthMismatch);
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

// --- writing a tar ------------------------------------------------------------------------------

#[test]
fn equal_content_gives_equal_tars() {
    let (dir, path) = scratch();
    let (layout, tagged) = sample(&path);
    let index = layout.index().unwrap();
    let mut blobs = layout.blobs().unwrap();
    let write = |name: &str, blobs: &[Digest]| {
        let path = dir.path().join(name);
        let mut seen = 0;
        let len = Archive::write(&path, &layout, &index, blobs, |at| seen = at).unwrap();
        assert_eq!((len, seen), (fs::metadata(&path).unwrap().len(), len));
        path
    };
    let one = write("one.tar", &blobs);
    blobs.reverse();
    blobs.push(tagged.digest.clone());
    let two = write("two.tar", &blobs);
    let bytes = fs::read(&one).unwrap();
    assert!(bytes == fs::read(&two).unwrap());
    let archive = Archive::open(&one).unwrap();
    for digest in layout.blobs().unwrap() {
        assert_eq!(
            archive.read_blob(&digest, 9999).unwrap(),
            layout.read_blob(&digest, 9999).unwrap()
        );
    }
    assert_eq!(archive.refs().unwrap(), layout.refs().unwrap());
    // Metadata come first, the largest blob last.
    let largest = archive.open_blob(&Digest::sha256_of(&[7; 3000])).unwrap().unwrap();
    assert_eq!(largest.file().1 + 3072 + 1024, bytes.len() as u64);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "a temporary file stays");
}

#[test]
fn a_damaged_source_gives_no_tar() {
    let (dir, path) = scratch();
    let (layout, tagged) = sample(&path);
    fs::write(path.join("blobs/sha256").join(tagged.digest.hex()), b"{}").unwrap();
    let out = dir.path().join("out.tar");
    let index = layout.index().unwrap();
    let blobs = layout.blobs().unwrap();
    let error = Archive::write(&out, &layout, &index, &blobs, |_| {}).unwrap_err();
    assert_eq!(error.reason(), Reason::HashMismatch);
    let copy = LayoutDir::create(&dir.path().join("copy")).unwrap();
    let error = copy.copy_blob(&layout, &tagged.digest).unwrap_err();
    assert_eq!(error.reason(), Reason::HashMismatch);
    assert!(copy.blobs().unwrap().is_empty());
    let missing = [Digest::sha256_of(b"missing")];
    assert!(Archive::write(&out, &layout, &index, &missing, |_| {}).is_err());
    assert!(!out.exists());
}

#[test]
fn a_layout_is_copied_between_forms() {
    let (dir, path) = scratch();
    let (layout, _) = sample(&path);
    let tar = dir.path().join("layout.tar");
    let blobs = layout.blobs().unwrap();
    Archive::write(&tar, &layout, &layout.index().unwrap(), &blobs, |_| {}).unwrap();
    let archive = open(&tar).unwrap();
    let copy = LayoutDir::create(&dir.path().join("copy")).unwrap();
    for digest in &blobs {
        copy.copy_blob(archive.as_ref(), digest).unwrap();
    }
    let refs = archive.refs().unwrap();
    copy.set_refs(&refs.into_iter().map(|(name, to)| (name, Some(to))).collect::<Vec<_>>())
        .unwrap();
    assert_eq!(copy.index().unwrap(), layout.index().unwrap());
    assert_eq!(copy.blobs().unwrap(), blobs);
}

// --- other people's tools -----------------------------------------------------------------------

fn skopeo(args: &[&str]) -> bool {
    match Command::new("skopeo").args(args).output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "skopeo {args:?}: {text}");
            true
        }
        Err(_) => {
            eprintln!("skipped: skopeo is not installed");
            false
        }
    }
}

#[test]
fn skopeo_reads_and_writes_the_same_layouts() {
    let (dir, path) = scratch();
    let (layout, tagged) = sample(&path);
    let at = |name: &str| dir.path().join(name).display().to_string();
    let copy = |from: &str, to: &str| {
        skopeo(&["copy", "--insecure-policy", "--preserve-digests", "--all", from, to])
    };
    let (theirs, ours) = (at("theirs.tar"), at("ours.tar"));
    if !copy(
        &format!("oci:{}:tuf:latest", at("layout")),
        &format!("oci-archive:{theirs}:tuf:latest"),
    ) {
        return;
    }
    let archive = Archive::open(Path::new(&theirs)).unwrap();
    let found = archive.resolve("tuf:latest").unwrap().unwrap();
    assert_eq!(found.digest, tagged.digest);
    for digest in layout.blobs().unwrap() {
        assert_eq!(
            archive.read_blob(&digest, 9999).unwrap(),
            layout.read_blob(&digest, 9999).unwrap()
        );
    }

    let index = layout.index().unwrap();
    Archive::write(Path::new(&ours), &layout, &index, &layout.blobs().unwrap(), |_| {}).unwrap();
    copy(&format!("oci-archive:{ours}:tuf:latest"), &format!("oci:{}:x:1", at("back")));
    let back = LayoutDir::open(Path::new(&at("back"))).unwrap();
    assert_eq!(back.resolve("x:1").unwrap().unwrap().digest, tagged.digest);
    // And into a layout of ours, beside what is there.
    copy(&format!("oci:{}:x:1", at("back")), &format!("oci:{}:demo:2", at("layout")));
    let names: Vec<String> = layout.refs().unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["tuf:latest", "demo:2"]);
}

#[test]
fn tar_of_a_directory_is_read_in_posix_form() {
    let (dir, path) = scratch();
    let (_, tagged) = sample(&path);
    let out = dir.path().join("by-tar.tar");
    let run = |format: &str| {
        let mut tar = Command::new("tar");
        tar.arg(format!("--format={format}")).arg("-cf").arg(&out).arg("-C").arg(&path).arg(".");
        assert!(tar.status().unwrap().success());
    };
    run("ustar");
    let archive = Archive::open(&out).unwrap();
    assert_eq!(archive.resolve("tuf:latest").unwrap().unwrap().digest, tagged.digest);
    for format in ["gnu", "pax"] {
        run(format);
        let error = Archive::open(&out).unwrap_err();
        assert_eq!(error.reason(), Reason::BundleFormat, "{format}");
    }
}
