//! Images that lie, devices that fail (cases 118–124 and 129–133).

mod stage_image;

use std::error::Error as _;

use formats::reason::Reason;
use stage_image::{Repository, code, noise, sample};
use storage::block::{BlockDevice, DeviceError};
use storage::sim::{Disk, Fault, Operation};
use update_agent::stage::{Resume, StageError};

fn chunk_range(repository: &Repository, number: usize) -> std::ops::Range<usize> {
    let chunk = repository.chunk(number);
    chunk.offset as usize..(chunk.offset + u64::from(chunk.len)) as usize
}

#[test]
fn a_wrong_byte_in_a_frame_reaches_neither_zstd_nor_the_slot() {
    let repository = Repository::new(&sample());
    for number in [0, 1, 3, 4, 7, 8, 10] {
        let disk = repository.disk();
        let source = repository.with_bad_frame(number).source();
        let error = repository.write(&disk, &[&source]).unwrap_err();
        assert_eq!(error.reason(), Reason::HashMismatch, "frame {number}: {error}");
        let start = repository.frame(number).start;
        assert!(error.to_string().starts_with(&format!("os: byte {start} of the blob")), "{error}");
        let (old, new) = (repository.disk().content(), disk.content());
        let range = chunk_range(&repository, number);
        assert!(new[range.clone()] == old[range], "frame {number} was written");
        repository.assert_only_signed_chunks(&disk);
    }
    // A frame of zeros is never looked at.
    let disk = repository.disk();
    repository.write(&disk, &[&repository.with_bad_frame(6).source()]).unwrap();
}

#[test]
fn case_124_a_signed_frame_of_another_chunk_is_not_written() {
    for per_frame in [1, 3] {
        let chunks = sample();
        let mut other = chunks[..per_frame].concat();
        *other.last_mut().unwrap() ^= 1;
        other[0] ^= 1;
        let repository = Repository::with_frames(&chunks, per_frame, |number, frame| {
            if number == 0 {
                *frame = zstd::bulk::compress(&other, 1).unwrap();
            }
        });
        let disk = repository.disk();
        let error = repository.write(&disk, &[&repository.source()]).unwrap_err();
        assert_eq!(error.reason(), Reason::HashMismatch, "{error}");
        assert!(matches!(error, StageError::ChunkHash { chunk: 0, .. }), "{error}");
        let range = chunk_range(&repository, 0);
        assert!(disk.content()[range.clone()] == repository.disk().content()[range]);
        repository.assert_only_signed_chunks(&disk);
    }
}

#[test]
fn signed_frames_of_another_form_are_refused() {
    let long = |len: usize| zstd::bulk::compress(&vec![7; len], 1).unwrap();
    // Content of 5,000 and 40,000 bytes in frames of one and of two chunks.
    type Change = Box<dyn Fn(&mut Vec<u8>)>;
    let rows: Vec<(&str, Change, &str)> = vec![
        ("118 cut off", Box::new(|frame| frame.truncate(frame.len() - 1)), "decompress"),
        ("119 longer", Box::new(move |frame| *frame = long(5001)), "hash_or_length"),
        ("119 shorter", Box::new(move |frame| *frame = long(4999)), "length_mismatch"),
        ("119 a bomb", Box::new(move |frame| *frame = long(60 << 20)), "hash_or_length"),
        ("122 a byte after", Box::new(|frame| frame.push(0)), "decompress"),
        ("122 twice", Box::new(|frame| frame.extend(frame.clone())), "decompress"),
        (
            "122 skippable before",
            Box::new(|frame| {
                frame.splice(0..0, [0x50, 0x2A, 0x4D, 0x18, 1, 0, 0, 0, 9]);
            }),
            "decompress",
        ),
        (
            "120 huge window",
            Box::new(|frame| {
                *frame = [0x28, 0xB5, 0x2F, 0xFD, 0, 21 << 3, 9, 0, 0, 1].to_vec();
            }),
            "decompress",
        ),
        (
            "121 claims 2^62",
            Box::new(|frame| {
                *frame = [
                    &[0x28, 0xB5, 0x2F, 0xFD, 0xE0][..],
                    &(1_u64 << 62).to_le_bytes(),
                    &[9, 0, 0, 1],
                ]
                .concat();
            }),
            "decompress",
        ),
    ];
    for (name, change, expected) in rows {
        for per_frame in [1, 2] {
            let chunks = [vec![7; 5000], vec![7; 40_000], noise(9, 1)];
            let repository = Repository::with_frames(&chunks, per_frame, |number, frame| {
                if number == 0 {
                    change(frame);
                }
            });
            let disk = repository.disk();
            let got = code(repository.write(&disk, &[&repository.source()]));
            match expected {
                // The chunk is full, and right, before it is known that there is more.
                "hash_or_length" => assert_eq!(got, "length_mismatch", "{name}, {per_frame}"),
                expected => assert_eq!(got, expected, "{name}, {per_frame} per frame"),
            }
            repository.assert_only_signed_chunks(&disk);
        }
    }
}

#[test]
fn a_frame_larger_than_we_hold_is_refused_before_it_is_fetched() {
    let chunks: Vec<Vec<u8>> = (0..10).map(|n| noise(1 << 20, n)).collect();
    let repository = Repository::with_frames(&chunks, 10, |_, _| {});
    let disk = repository.disk();
    assert_eq!(code(repository.write(&disk, &[&repository.source()])), "decompress");
    assert_eq!(disk.operations(), []);
    let repository = Repository::with_frames(&chunks, 8, |_, _| {});
    repository.write(&disk, &[&repository.source()]).unwrap();
}

#[test]
fn case_131_every_failed_write_ends_the_run() {
    let repository = Repository::new(&sample());
    let source = repository.source();
    let clean = repository.disk();
    repository.write(&clean, &[&source]).unwrap();
    let count = clean.operations().len();
    assert!(count > 12);
    for nth in 0..count {
        for fault in [Fault::ErrorAt(nth), Fault::CutAfter(nth)] {
            let disk = repository.disk().with_fault(fault);
            let Err(error) = repository.write(&disk, &[&source]) else {
                // Threads put flushes together in other ways: this run had fewer operations.
                assert!(disk.operations().len() <= nth, "{fault:?} went unnoticed");
                continue;
            };
            assert_eq!(error.reason(), Reason::SlotIo, "{fault:?}: {error}");
            let cause = error.source().unwrap().to_string();
            assert!(cause.contains("simulated disk"), "{cause}");
            repository.assert_only_signed_chunks(&disk);
        }
    }
}

#[test]
fn case_132_a_lost_or_flipped_write_is_found_on_reading_back() {
    let repository = Repository::new(&sample());
    let source = repository.source();
    let clean = repository.disk();
    repository.write(&clean, &[&source]).unwrap();
    let mut found = 0;
    for nth in 0..clean.operations().len() {
        for fault in [Fault::LoseAt(nth), Fault::FlipAt(nth)] {
            let disk = repository.disk().with_fault(fault);
            let result = repository.write_and_read_back(&disk, &[&source]);
            let done = disk.operations().get(nth).cloned();
            if matches!(done, Some(Operation::Write { .. } | Operation::Zero { .. })) {
                assert_eq!(code(result), "readback", "{fault:?} of {done:?}");
            }

            // All of it is written, whatever happened to this write.
            let disk = repository.disk().with_fault(fault).read_afterwards();
            repository.write(&disk, &[&source]).unwrap();
            let Some(Operation::Write { offset, len } | Operation::Zero { offset, len }) =
                disk.operations().get(nth).cloned()
            else {
                continue;
            };
            let error = repository.read_back(&disk).unwrap_err();
            assert_eq!(error.reason(), Reason::Readback, "{fault:?}");
            assert!(error.to_string().starts_with("os on simulated disk"), "{error}");
            let cause = error.source().unwrap().to_string();
            let touched = repository
                .list
                .chunks()
                .filter(|chunk| (offset..offset + len).contains(&chunk.offset))
                .map(|chunk| format!("chunk {} at byte {} ", chunk.index, chunk.offset));
            assert!(touched.into_iter().any(|text| cause.starts_with(&text)), "{cause}");
            found += 1;

            // The next run sees it and writes it again.
            let repaired = repository
                .write_with(&disk, &[&source], &[], Resume::Whole, &mut |_| Ok(()))
                .unwrap();
            assert!(repaired.written + repaired.zeroed < repository.raw.len() as u64);
            repository.read_back(&disk).unwrap();
        }
    }
    assert!(found >= 12, "{found}");
}

#[test]
fn case_133_a_failed_flush_is_final() {
    let repository = Repository::new(&sample());
    let source = repository.source();
    let clean = repository.disk();
    repository.write(&clean, &[&source]).unwrap();
    let last = clean.operations().len() - 1;
    let mut failed = 0;
    for nth in 0..=last {
        let disk = repository.disk().with_fault(Fault::ErrorAt(nth));
        let result = repository.write(&disk, &[&source]);
        if disk.operations().get(nth) == Some(&Operation::Sync) {
            assert_eq!(code(result), "slot_io");
            assert_eq!(code(repository.write(&disk, &[&source])), "slot_io", "a second one too");
            failed += 1;
        }
    }
    assert!(failed > 0);
}

#[test]
fn reading_back_finds_every_changed_chunk_and_ignores_what_is_behind() {
    let repository = Repository::new(&sample());
    let mut content = repository.raw.clone();
    content.extend([1; 5000]);
    repository.read_back(&Disk::with_content(content.clone(), 512)).unwrap();
    for chunk in repository.list.chunks() {
        for at in [chunk.offset, chunk.offset + u64::from(chunk.len) - 1] {
            let mut bad = content.clone();
            bad[at as usize] ^= 0x80;
            let disk = Disk::with_content(bad, 512);
            let error = repository.read_back(&disk).unwrap_err();
            assert_eq!(error.reason(), Reason::Readback);
            let cause = error.source().unwrap().to_string();
            let expected = format!("chunk {} at byte {} ", chunk.index, chunk.offset);
            assert!(cause.starts_with(&expected), "{cause}");
        }
    }
    let short = Disk::with_content(content[..repository.raw.len() - 1].to_vec(), 512);
    assert_eq!(code(repository.read_back(&short)), "slot_size");
    assert_eq!(short.len(), repository.raw.len() as u64 - 1);
}

/// A medium that says it has more room than it has, as forged cards do: what lies past its end is written over its
/// beginning.
struct Forged {
    disk: Disk,
    says: u64,
}

impl Forged {
    /// Calls `act` with each part of a range that lies together.
    fn parts(
        &self,
        offset: u64,
        len: usize,
        mut act: impl FnMut(u64, std::ops::Range<usize>) -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        let mut at = 0;
        while at < len {
            let place = (offset + at as u64) % self.disk.len();
            let room = usize::try_from(self.disk.len() - place).expect("in memory");
            let part = at..len.min(at + room);
            at = part.end;
            act(place, part)?;
        }
        Ok(())
    }
}

impl BlockDevice for Forged {
    fn len(&self) -> u64 {
        self.says
    }

    fn sector_size(&self) -> u32 {
        512
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), DeviceError> {
        self.parts(offset, buf.len(), |place, part| self.disk.read_at(&mut buf[part], place))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), DeviceError> {
        self.parts(offset, bytes.len(), |place, part| self.disk.write_at(&bytes[part], place))
    }

    fn reads_beside_writes(&self) -> bool {
        true
    }

    fn zero_range(&self, offset: u64, len: u64) -> Result<(), DeviceError> {
        self.write_at(&vec![0; usize::try_from(len).expect("in memory")], offset)
    }

    fn sync(&self) -> Result<(), DeviceError> {
        self.disk.sync()
    }

    fn describe(&self) -> String {
        "forged disk".to_owned()
    }
}

/// What was read while more was written may have been written over since.
#[test]
fn a_medium_with_less_room_than_it_says_is_found_on_reading_back() {
    // Nothing of it is zero: every chunk is where it should be or it is not.
    let chunks: Vec<Vec<u8>> = (0..40).map(|n| noise(150_000, n)).collect();
    let repository = Repository::new(&chunks);
    let source = repository.source();
    let len = repository.raw.len();
    for lacks in [1, 4096, 1 << 20, 1_300_000, 3_000_000] {
        let disk = Disk::with_content(vec![0xA5; len - lacks], 512);
        let forged = Forged { disk, says: len as u64 };
        let result = repository.write_and_read_back(&forged, &[&source]);
        assert_eq!(code(result), "readback", "{lacks} bytes less");
    }
    let disk = Disk::with_content(vec![0xA5; len], 512);
    let honest = Forged { disk, says: len as u64 };
    repository.write_and_read_back(&honest, &[&source]).unwrap();
}
