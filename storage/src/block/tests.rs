use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use formats::gpt::{Geometry, Guid, NewPartition, Table};

use super::*;
use crate::sim::{Disk, Fault, Loss, next_random};

fn file(len: u64) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.img");
    fs::File::create(&path).unwrap().set_len(len).unwrap();
    (dir, path)
}

/// A folder where programs are built, which is hardly in memory, as that of temporary files may be.
fn on_disk() -> tempfile::TempDir {
    let program = std::env::current_exe().unwrap();
    tempfile::tempdir_in(program.parent().unwrap()).unwrap()
}

/// How many pages of a file the kernel keeps. `fincore` only looks; a read with `RWF_NOWAIT` begins
/// to read what is not there and may find it.
fn cached_pages(path: &Path) -> u64 {
    let asked = Command::new("fincore")
        .args(["--noheadings", "--output", "PAGES"])
        .arg(path)
        .output()
        .unwrap();
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    String::from_utf8(asked.stdout).unwrap().trim().parse().unwrap()
}

#[test]
fn a_plain_file_is_a_device() {
    let (_dir, path) = file(10_000);
    let device = FileDevice::open(&path, Access::Exclusive).unwrap();
    assert_eq!((device.len(), device.sector_size(), device.is_node()), (10_000, 512, false));
    device.write_at(b"racklet", 9_993).unwrap();
    device.sync().unwrap();
    device.forget_cached(0, 10_000);
    let mut found = [0; 7];
    FileDevice::open(&path, Access::Read).unwrap().read_at(&mut found, 9_993).unwrap();
    assert_eq!(&found, b"racklet");
}

#[test]
fn nothing_is_written_past_the_end() {
    let (_dir, path) = file(10_000);
    let device = FileDevice::open(&path, Access::Write).unwrap();
    let window = Window::new(device, 1_000, 2_000, "part").unwrap();
    for (offset, len) in [(1_999, 2), (2_000, 1), (u64::MAX, 1), (u64::MAX - 1, 2), (0, 2_001)] {
        let bytes = vec![1; usize::try_from(len).unwrap()];
        let results = [
            window.write_at(&bytes, offset),
            window.read_at(&mut bytes.clone(), offset),
            window.zero_range(offset, len),
        ];
        for result in results {
            assert_eq!(result.unwrap_err().reason(), Reason::SlotSize, "{len} bytes at {offset}");
        }
    }
    window.write_at(&[1; 2_000], 0).unwrap();
    let content = fs::read(&path).unwrap();
    assert_eq!(content.len(), 10_000, "the file grew");
    assert!(content[..1_000].iter().chain(&content[3_000..]).all(|byte| *byte == 0));
    for (start, len) in [(9_999, 2), (u64::MAX, 1), (1, u64::MAX)] {
        let device = FileDevice::open(&path, Access::Write).unwrap();
        assert!(Window::new(device, start, len, "part").is_err(), "{len} bytes from {start}");
    }
}

#[test]
fn a_zeroed_range_reads_as_zeros_and_nothing_else_changes() {
    let (_dir, path) = file(1 << 20);
    for (offset, len) in [
        (0, 1 << 20),
        (0, 0),
        (1, 1),
        (100, 4_000),
        (4_096, 4_096),
        (4_095, 4_098),
        (5_000, 20_000),
        ((1 << 20) - 1, 1),
    ] {
        fs::write(&path, vec![0xaa; 1 << 20]).unwrap();
        let device = FileDevice::open(&path, Access::Write).unwrap();
        device.zero_range(offset, len).unwrap();
        let mut expected = vec![0xaa; 1 << 20];
        expected[offset as usize..(offset + len) as usize].fill(0);
        assert!(fs::read(&path).unwrap() == expected, "{len} bytes at {offset}");
    }
}

#[test]
fn a_zeroed_file_takes_no_space() {
    use std::os::unix::fs::MetadataExt as _;
    let (_dir, path) = file(1 << 20);
    fs::write(&path, vec![0xaa; 1 << 20]).unwrap();
    let device = FileDevice::open(&path, Access::Write).unwrap();
    device.zero_range(0, 1 << 20).unwrap();
    device.sync().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().blocks(), 0);
}

#[test]
fn what_is_no_device_is_refused_and_nothing_is_created() {
    let (dir, path) = file(4_096);
    let at = |name: &str| dir.path().join(name);
    symlink(&path, at("link")).unwrap();
    assert!(Command::new("mkfifo").arg(at("fifo")).status().unwrap().success());
    for access in [Access::Read, Access::Write, Access::Exclusive] {
        for bad in [at("missing"), at("link"), at("fifo"), dir.path().into(), "/dev/null".into()] {
            let error = FileDevice::open(&bad, access).unwrap_err();
            assert_eq!(error.reason(), Reason::SlotIo, "{} {access:?}: {error:?}", bad.display());
        }
    }
    assert!(!at("missing").exists());
    let missing = FileDevice::open(Path::new("/dev/racklet-none"), Access::Write).unwrap_err();
    assert!(matches!(missing, DeviceError::Missing(_)));
    assert!(!Path::new("/dev/racklet-none").exists());
}

#[test]
fn a_read_only_device_is_not_written() {
    let (_dir, path) = file(4_096);
    let device = FileDevice::open(&path, Access::Read).unwrap();
    assert_eq!(device.write_at(&[1], 0).unwrap_err().reason(), Reason::SlotIo);
    assert_eq!(device.zero_range(0, 4_096).unwrap_err().reason(), Reason::SlotIo);
}

#[test]
fn a_failed_flush_stays_failed() {
    let disk = Disk::new(4_096, 512).with_fault(Fault::ErrorAt(1));
    disk.write_at(&[1; 512], 0).unwrap();
    for _ in 0..2 {
        let error = disk.sync().unwrap_err();
        assert!(matches!(error, DeviceError::Sync { .. }));
        assert_eq!(error.reason(), Reason::SlotIo);
    }
}

#[test]
fn the_simulated_disk_loses_only_what_was_not_flushed() {
    let disk = Disk::new(4_096, 512);
    disk.write_at(&[1; 1_024], 0).unwrap();
    disk.sync().unwrap();
    disk.write_at(&[2; 1_024], 512).unwrap();
    disk.write_at(&[3; 1_024], 2_048).unwrap();
    let sectors = |loss| -> Vec<u8> {
        disk.after_power_loss(loss).content().iter().step_by(512).copied().collect()
    };
    assert_eq!(sectors(Loss::Nothing), [1, 2, 2, 0, 3, 3, 0, 0]);
    assert_eq!(sectors(Loss::Everything), [1, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(sectors(Loss::TornLast), [1, 2, 2, 0, 3, 0, 0, 0]);
    assert_eq!(sectors(Loss::OnlyLast), [1, 1, 0, 0, 3, 3, 0, 0]);
    let mut seen: Vec<Vec<u8>> = (0..200).map(|seed| sectors(Loss::Random(seed))).collect();
    assert!(seen.iter().all(|found| found[0] == 1), "a flushed sector was lost");
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 16, "all ways to lose four sectors");
}

// --- real block devices: only where the machine lets us ------------------------------------------

/// A loop device on a file, given back when dropped.
struct Loop(PathBuf);

impl Loop {
    fn on(path: &Path, args: &[&str]) -> Option<Loop> {
        let output = Command::new("losetup").args(["-f", "--show"]).args(args).arg(path).output();
        match output {
            Ok(output) if output.status.success() => {
                Some(Loop(String::from_utf8(output.stdout).unwrap().trim().into()))
            }
            _ => {
                eprintln!("skipped: no loop devices here");
                None
            }
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.0).status();
    }
}

/// Opens what was closed a moment ago: a process that another test is just starting may have a
/// copy of the descriptor until it becomes another program.
fn reopened<T>(open: impl Fn() -> Result<T, DeviceError>) -> T {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
    loop {
        match open() {
            Err(DeviceError::InUse { .. }) if std::time::Instant::now() < deadline => {
                std::thread::yield_now();
            }
            result => return result.unwrap(),
        }
    }
}

#[test]
fn a_loop_device_is_a_device() {
    let (_dir, path) = file(1 << 20);
    let Some(node) = Loop::on(&path, &["--sector-size", "4096"]) else { return };
    let device = FileDevice::open(&node.0, Access::Exclusive).unwrap();
    assert_eq!((device.len(), device.sector_size(), device.is_node()), (1 << 20, 4096, true));
    let device = device.with_sector_size(512);
    assert_eq!(device.sector_size(), 4096, "a node knows its own sector size");
    device.write_at(&[0xaa; 100_000], 5_000).unwrap();
    device.zero_range(10_000, 50_000).unwrap();
    device.sync().unwrap();
    let mut expected = vec![0; 1 << 20];
    expected[5_000..105_000].fill(0xaa);
    expected[10_000..60_000].fill(0);
    let mut found = vec![1; 1 << 20];
    device.forget_cached(0, 1 << 20);
    device.read_at(&mut found, 0).unwrap();
    assert!(found == expected);
    let mut buffer = Vec::new();
    assert!(device.read_medium(&mut buffer, 3, 200_000).unwrap() == &expected[3..200_003]);
    // Held: nobody else gets it alone, reading goes on.
    let second = FileDevice::open(&node.0, Access::Exclusive).unwrap_err();
    assert_eq!(second.reason(), Reason::SlotActive);
    assert!(FileDevice::open(&node.0, Access::Read).is_ok());
}

/// Ranges that begin and end anywhere, on a file whose length is no number of blocks.
#[test]
fn what_is_read_from_the_medium_is_what_was_written() {
    let content: Vec<u8> = (0..100_003_u32).flat_map(|at| at.to_le_bytes()).collect();
    let len = content.len();
    // A file system on a disk, and one in memory, which may not read past its memory.
    let here = on_disk();
    for dir in [here.path(), Path::new("/dev/shm")] {
        let Ok(file) = tempfile::NamedTempFile::new_in(dir) else { continue };
        fs::write(file.path(), &content).unwrap();
        let device = FileDevice::open(file.path(), Access::Write).unwrap();
        device.sync().unwrap();
        let mut buffer = Vec::new();
        for (offset, count) in [
            (0, 1),
            (0, 4096),
            (1, 4096),
            (4095, 2),
            (5, 300_000),
            (len - 5, 5),
            (0, len),
            (len, 0),
        ] {
            let read = device.read_medium(&mut buffer, offset as u64, count).unwrap();
            assert!(read == &content[offset..offset + count], "{count} bytes at {offset}");
        }
        assert!(buffer.len() <= len + 3 * 4096, "{}", buffer.len());
        let past = device.read_medium(&mut buffer, len as u64 - 4, 5).unwrap_err();
        assert_eq!(past.reason(), Reason::SlotSize);
        // What was written and not flushed is seen, too.
        device.write_at(b"racklet", 8_190).unwrap();
        assert_eq!(device.read_medium(&mut buffer, 8_190, 7).unwrap(), b"racklet");
        let window = Window::new(device, 1_000, 20_000, "part").unwrap();
        assert_eq!(window.read_medium(&mut buffer, 7_190, 7).unwrap(), b"racklet");
        assert_eq!(window.read_medium(&mut buffer, 19_998, 2).unwrap(), &content[20_998..21_000]);
        assert!(window.read_medium(&mut buffer, 19_998, 3).is_err(), "past the window");
    }
}

/// An image that is read back takes no memory away from the system.
#[test]
fn what_is_read_from_the_medium_is_not_kept_in_memory() {
    let dir = on_disk();
    let path = dir.path().join("disk.img");
    fs::write(&path, vec![0xaa; 1 << 20]).unwrap();
    let device = FileDevice::open(&path, Access::Write).unwrap();
    device.sync().unwrap();
    let in_memory = |read: &dyn Fn()| {
        device.forget_cached(0, 1 << 20);
        read();
        cached_pages(&path) > 0
    };
    if in_memory(&|| ()) {
        println!("skipped: the file system here forgets nothing, or does not say so");
        return;
    }
    assert!(in_memory(&|| device.read_at(&mut vec![0; 1 << 20], 0).unwrap()));
    assert!(!in_memory(&|| {
        let mut buffer = Vec::new();
        let read = device.read_medium(&mut buffer, 0, 1 << 20).unwrap();
        assert!(read.iter().all(|byte| *byte == 0xaa));
    }));
}

/// Pieces of any length at any place, from where they lie and from elsewhere, on several threads: neighbours share
/// pages, of which the ends go another way than the rest.
fn written_in_pieces(device: &dyn BlockDevice, seed: u64) -> Vec<u8> {
    let len = usize::try_from(device.len()).unwrap();
    let mut random = seed;
    let content: Vec<u8> = (0..len).map(|_| next_random(&mut random) as u8).collect();
    let mut cuts = vec![0, len];
    cuts.extend((0..40).map(|_| next_random(&mut random) as usize % len));
    // Some of them where pages begin, and some close by.
    cuts.extend((0..20).map(|_| next_random(&mut random) as usize % len / 4096 * 4096));
    cuts.extend((0..10).map(|_| next_random(&mut random) as usize % (len - 9000)));
    cuts.sort_unstable();
    let mut pieces: Vec<&[usize]> = cuts.windows(2).collect();
    for at in (1..pieces.len()).rev() {
        pieces.swap(at, next_random(&mut random) as usize % (at + 1));
    }
    std::thread::scope(|scope| {
        for own in pieces.chunks(pieces.len().div_ceil(4)) {
            let content = &content;
            scope.spawn(move || {
                for (nth, piece) in own.iter().enumerate() {
                    let (from, bytes) = (piece[0] as u64, &content[piece[0]..piece[1]]);
                    let written = match nth % 4 {
                        0 => device.write_medium(bytes, from),
                        1 => {
                            let mut placed = Placed::zeroed(from, bytes.len());
                            placed.copy_from_slice(bytes);
                            device.write_medium(&placed, from)
                        }
                        _ => device.write_medium(&Placed::copied(from, bytes), from),
                    };
                    written.unwrap();
                }
            });
        }
    });
    content
}

#[test]
fn what_is_written_to_the_medium_in_pieces_is_there() {
    // A file system on a disk, one in memory, and a loop device.
    let here = on_disk();
    for dir in [here.path(), Path::new("/dev/shm")] {
        let Ok(file) = tempfile::NamedTempFile::new_in(dir) else { continue };
        file.as_file().set_len(2_000_003).unwrap();
        let on_loop = (dir == here.path()).then(|| {
            file.as_file().set_len(2 << 20).unwrap();
            Loop::on(file.path(), &["--sector-size", "4096"])
        });
        let node = on_loop.flatten();
        let path = node.as_ref().map_or(file.path(), |node| &node.0);
        for seed in 1..6 {
            let device = reopened(|| FileDevice::open(path, Access::Exclusive));
            let expected = written_in_pieces(&device, seed);
            let mut found = vec![0; expected.len()];
            device.read_at(&mut found, 0).unwrap();
            assert!(found == expected, "seed {seed}, in memory");
            device.sync().unwrap();
            device.forget_cached(0, device.len());
            let mut buffer = Vec::new();
            assert!(
                device.read_medium(&mut buffer, 0, found.len()).unwrap() == expected,
                "seed {seed}, on the medium"
            );
        }
    }
    // One that begins within a page of the device below, and one that begins with a page.
    for start in [512 * 63, 64 << 10] {
        let (_dir, path) = file(2 << 20);
        let whole = FileDevice::open(&path, Access::Write).unwrap();
        let window = Window::new(&whole, start, 1_900_000, "part").unwrap();
        let expected = written_in_pieces(&window, start);
        let content = fs::read(&path).unwrap();
        let start = usize::try_from(start).unwrap();
        assert!(content[start..start + expected.len()] == expected, "window at {start}");
        assert!(content[..start].iter().all(|byte| *byte == 0), "before the window");
        assert!(window.write_medium(&[1; 2], 1_899_999).is_err(), "past the window");
    }
}

/// An image that is written takes no memory away from the system, but for pages that pieces share.
#[test]
fn what_is_written_to_the_medium_is_not_kept_in_memory() {
    let dir = on_disk();
    let path = dir.path().join("disk.img");
    fs::write(&path, vec![0; 1 << 20]).unwrap();
    let device = FileDevice::open(&path, Access::Write).unwrap();
    let in_memory = |write: &dyn Fn()| {
        device.sync().unwrap();
        device.forget_cached(0, 1 << 20);
        write();
        cached_pages(&path)
    };
    if in_memory(&|| ()) > 0 {
        println!("skipped: the file system here forgets nothing, or does not say so");
        return;
    }
    let bytes = vec![0xaa; 1 << 20];
    assert!(in_memory(&|| device.write_at(&bytes, 0).unwrap()) > 200);
    let placed = Placed::copied(0, &bytes);
    assert_eq!(in_memory(&|| device.write_medium(&placed, 0).unwrap()), 0);
    let placed = Placed::copied(100, &bytes[..800_000]);
    assert_eq!(in_memory(&|| device.write_medium(&placed, 100).unwrap()), 2, "its two ends");
}

/// What is read back after a write must not come from memory, also where it is less than a page.
#[test]
fn a_sector_that_is_forgotten_is_not_in_memory() {
    let (_dir, path) = file(1 << 20);
    let device = FileDevice::open(&path, Access::Write).unwrap();
    let in_memory = || cached_pages(&path) > 0;
    device.write_at(&vec![0xaa; 1 << 20], 0).unwrap();
    device.sync().unwrap();
    device.forget_cached(0, 1 << 20);
    if in_memory() {
        println!("skipped: the file system here forgets nothing, or does not say so");
        return;
    }
    for offset in [512, 65_536 - 512, 131_072, (1 << 20) - 512] {
        device.write_at(&[0xbb; 512], offset).unwrap();
        device.sync().unwrap();
        assert!(in_memory(), "{offset}");
        device.forget_cached(offset, 512);
        assert!(!in_memory(), "{offset}");
    }
}

#[test]
fn what_is_in_use_is_not_opened_alone() {
    let (dir, path) = file(8 << 20);
    let Some(node) = Loop::on(&path, &[]) else { return };
    // The file below a loop device.
    let below = FileDevice::open(&path, Access::Exclusive).unwrap_err();
    assert_eq!(below.reason(), Reason::SlotActive);
    assert!(FileDevice::open(&path, Access::Write).is_ok());
    // A mounted file system.
    let made = Command::new("mkfs.ext4").arg("-q").arg(&node.0).status();
    let point = dir.path().join("mnt");
    fs::create_dir(&point).unwrap();
    let mounted = Command::new("mount").arg(&node.0).arg(&point).status();
    if !made.is_ok_and(|s| s.success()) || !mounted.is_ok_and(|s| s.success()) {
        eprintln!("skipped: cannot mount here");
        return;
    }
    let active = FileDevice::open(&node.0, Access::Exclusive);
    assert!(Command::new("umount").arg(&point).status().unwrap().success());
    assert_eq!(active.unwrap_err().reason(), Reason::SlotActive);
    reopened(|| FileDevice::open(&node.0, Access::Exclusive));
}

#[test]
fn a_partition_of_a_file_is_a_window_and_its_loop_device_claims_only_it() {
    let (_dir, path) = file(8 << 20);
    let open = |start| open_partition(&path, 1, start, 1 << 20, Access::Exclusive);
    open(1 << 20).unwrap().write_at(b"slot", 0).unwrap();
    assert_eq!(&fs::read(&path).unwrap()[1 << 20..][..4], b"slot");
    assert_eq!(open((7 << 20) + 1).err().unwrap().reason(), Reason::SlotSize);
    let Some(_node) = Loop::on(&path, &["--offset", "1048576", "--sizelimit", "1048576"]) else {
        return;
    };
    assert_eq!(open(1 << 20).err().unwrap().reason(), Reason::SlotActive);
    assert!(open(2 << 20).is_ok() && open(0).is_ok());
}

#[test]
fn a_partition_of_a_disk_is_its_own_node() {
    let (_dir, path) = file(8 << 20);
    let part = NewPartition {
        label: "root-a",
        type_guid: Guid::LINUX,
        guid: Guid([1; 16]),
        at: None,
        len: 1 << 20,
        attributes: 0,
    };
    let geometry = Geometry::new(8 << 20, 512).unwrap();
    let table = Table::create(geometry, Guid([9; 16]), &[part]).unwrap();
    let disk = FileDevice::open(&path, Access::Write).unwrap();
    crate::partition_table::format(&disk, &table).unwrap();
    let found = table.find("root-a").unwrap();
    let (start, len) = (found.offset(geometry), found.len(geometry));

    let Some(node) = Loop::on(&path, &[]) else { return };
    // The kernel knows no partitions yet: a window of the whole.
    let window = open_partition(&node.0, 1, start, len, Access::Exclusive).unwrap();
    assert!(window.describe().starts_with("partition 1"), "{}", window.describe());
    drop(window);
    let added = Command::new("partx").arg("-a").arg(&node.0).status();
    if !added.is_ok_and(|status| status.success()) {
        eprintln!("skipped: partx cannot add partitions here");
        return;
    }
    let part_node = PathBuf::from(format!("{}p1", node.0.display()));
    let result = std::panic::catch_unwind(|| {
        let slot = reopened(|| open_partition(&node.0, 1, start, len, Access::Exclusive));
        assert_eq!(slot.describe(), part_node.display().to_string());
        assert_eq!(slot.len(), len);
        slot.write_at(b"slot", 0).unwrap();
        slot.sync().unwrap();
        // The disk stays writable for its table, the partition is taken.
        assert!(FileDevice::open(&node.0, Access::Write).is_ok());
        let second = open_partition(&node.0, 1, start, len, Access::Exclusive);
        assert_eq!(second.err().unwrap().reason(), Reason::SlotActive);
        drop(slot);
        let moved = open_partition(&node.0, 1, start + 512, len, Access::Exclusive);
        assert_eq!(moved.err().unwrap().reason(), Reason::SlotActive);
    });
    let _ = Command::new("partx").arg("-d").arg(&node.0).status();
    result.unwrap();
    assert_eq!(&fs::read(&path).unwrap()[start as usize..][..4], b"slot");
}
