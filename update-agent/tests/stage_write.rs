//! Writing images: from sources, from what the slot already holds, from seeds.

mod stage_image;

use std::sync::Mutex;

use formats::chunks::Content;
use formats::reason::Reason;
use stage_image::{Act, Notes, Repository, Scripted, code, journal_lost, noise, pace, sample};
use storage::block::{Access, BlockDevice, FileDevice, Window};
use storage::sim::{Disk, Loss, Operation};
use update_agent::source::Source;
use update_agent::stage::{JournalPoint, Places, Resume, Seed, Written, write_image_at};

const LOOK: Resume = Resume::Whole;

#[test]
fn an_image_is_written_whole_and_read_back() {
    for per_frame in [1, 2, 3, 100] {
        let repository = Repository::with_frames(&sample(), per_frame, |_, _| {});
        let disk = repository.disk();
        let source = repository.source();
        let written = repository.write(&disk, &[&source]).unwrap();
        assert!(disk.content()[..repository.raw.len()] == repository.raw, "{per_frame} per frame");
        repository.assert_only_signed_chunks(&disk);
        let zeroed = (70_001 + 65_536 + (3 << 20) + 5) + 9;
        let expected = Written {
            fetched: repository.frame_bytes(|_| true),
            zeroed,
            written: repository.raw.len() as u64 - zeroed,
            ..Written::default()
        };
        assert_eq!(written, expected, "{per_frame} per frame");
        assert_eq!(disk.operations().last(), Some(&Operation::Sync));
        repository.read_back(&disk).unwrap();
    }
}

#[test]
fn an_empty_image_is_refused() {
    let repository = Repository::new(&[]);
    let disk = Disk::new(4096, 512);
    let error = repository.write(&disk, &[&repository.source()]).unwrap_err();
    assert_eq!(error.reason(), Reason::BundleFormat);
    assert_eq!(
        error.to_string(),
        "os is an image of 0 bytes: its slot would keep the system it has"
    );
    assert_eq!(disk.operations(), [], "nothing was written");
}

#[test]
fn a_plain_file_keeps_its_length_and_what_is_behind_the_image() {
    let repository = Repository::new(&sample());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    // A partition in the middle of a file: offsets of chunks are no block boundaries.
    let old = noise(repository.raw.len() + 3_000_000, 7);
    std::fs::write(&path, &old).unwrap();
    let file = FileDevice::open(&path, Access::Exclusive).unwrap();
    let start = 1_048_576;
    let slot = Window::new(file, start, repository.raw.len() as u64, "slot").unwrap();
    repository.write(&slot, &[&repository.source()]).unwrap();
    repository.read_back(&slot).unwrap();
    let new = std::fs::read(&path).unwrap();
    let (start, end) = (start as usize, start as usize + repository.raw.len());
    assert!(new[..start] == old[..start] && new[end..] == old[end..]);
    assert!(new[start..end] == repository.raw);
    assert_eq!(new.len(), old.len());
}

#[test]
fn case_129_the_image_must_fit() {
    let repository = Repository::new(&sample());
    let source = repository.source();
    let len = repository.raw.len();
    let small = Disk::new(len - 1, 512);
    let error = repository.write(&small, &[&source]).unwrap_err();
    assert_eq!(error.reason(), Reason::SlotSize);
    assert_eq!(
        error.to_string(),
        format!("os has {len} bytes, simulated disk has room for {}", len - 1)
    );
    assert_eq!(small.operations(), [], "nothing was written");
    let equal = Disk::new(len, 512);
    repository.write(&equal, &[&source]).unwrap();
    repository.read_back(&equal).unwrap();
}

#[test]
fn the_blob_must_be_the_one_of_the_list() {
    let repository = Repository::new(&sample());
    let other = Repository::new(&[noise(10, 1)]);
    let (disk, source) = (repository.disk(), repository.source());
    let write = |image| {
        let sources: [&dyn Source; 1] = [&source];
        let progress = Notes::default();
        write_image_at(&pace(), &image, &sources, &[], LOOK, &progress, &mut |_| Ok(()))
    };
    let mut image = repository.image(&disk);
    image.blobs = std::slice::from_ref(&other.blob);
    assert_eq!(code(write(image)), "bundle_format");
    let mut image = repository.image(&disk);
    image.blobs = &[];
    assert_eq!(code(write(image)), "bundle_format");
    assert_eq!(disk.operations(), []);
}

#[test]
fn after_a_power_cut_only_what_is_missing_is_fetched() {
    for per_frame in [1, 2] {
        let repository = Repository::with_frames(&sample(), per_frame, |_, _| {});
        let source = repository.source();
        let disk = repository.disk();
        let points = Mutex::new(Vec::new());
        let losses = [Loss::Everything, Loss::Nothing, Loss::Random(1), Loss::Random(2)];
        repository
            .write_with(&disk, &[&source], &[], Resume::default(), &mut |point| {
                for loss in losses {
                    points.lock().unwrap().push((point, disk.after_power_loss(loss)));
                }
                Ok(())
            })
            .unwrap();
        let points = points.into_inner().unwrap();
        assert!(points.len() > 4 * 3, "{} journal points", points.len() / 4);
        let all = u64::from(repository.list.chunk_count());
        assert_eq!(u64::from(points.last().unwrap().0.next_chunk), all);
        for (point, cut) in points {
            let JournalPoint { next_chunk, fetched } = point;
            assert!(fetched <= repository.frame_bytes(|_| true));
            let old = cut.content();
            let there = |chunk: &formats::chunks::Chunk| {
                let range = chunk.offset as usize..(chunk.offset + u64::from(chunk.len)) as usize;
                old[range.clone()] == repository.raw[range]
            };
            let promised = repository.list.chunks().filter(|chunk| chunk.index < next_chunk);
            assert!(promised.into_iter().all(|chunk| there(&chunk)), "durable below {next_chunk}");

            // Looking at everything finds everything that survived.
            let again = cut.after_power_loss(Loss::Nothing);
            let done =
                repository.write_with(&again, &[&source], &[], LOOK, &mut |_| Ok(())).unwrap();
            assert!(again.content()[..old.len() - 1000] == repository.raw);
            assert_eq!(done.fetched, repository.frame_bytes(|chunk| !there(chunk)));
            let kept = repository.list.chunks().filter(there).map(|chunk| u64::from(chunk.len));
            assert_eq!(done.reused_target, kept.sum::<u64>());
            assert_eq!(
                done.reused_target + done.zeroed + done.written,
                repository.raw.len() as u64
            );
        }
    }
}

#[test]
fn case_162_what_is_in_the_slot_is_hashed_not_believed() {
    let repository = Repository::new(&sample());
    let source = Scripted::new(repository.source(), |_| Act::Honest);
    let mut content = repository.raw.clone();
    content[50_000] ^= 1; // in the first zero chunk
    content[120_000] ^= 1; // in data chunk 4
    let disk = Disk::with_content(content, 512);
    let done = repository.write_with(&disk, &[&source], &[], LOOK, &mut |_| Ok(())).unwrap();
    assert!(disk.content() == repository.raw);
    assert_eq!((done.zeroed, done.written), (70_001, 100_000));
    assert_eq!(*source.asked.lock().unwrap(), [[repository.frame(4)]]);

    let (progress, len) = (Notes::default(), repository.raw.len() as u64);
    let image = repository.image(&disk);
    let (done, _) =
        write_image_at(&pace(), &image, &[], &[], LOOK, &progress, &mut |_| Ok(())).unwrap();
    assert_eq!(done.reused_target, len, "complete: no source is needed");
    let work = progress.work.into_inner().unwrap();
    assert_eq!(work, [("scan os".to_owned(), len, len), ("write os".to_owned(), 0, 0)]);
}

#[test]
fn seeds_leave_only_the_difference_to_fetch() {
    let old_chunks = sample();
    let mut new_chunks = vec![noise(777, 50)]; // everything moves
    new_chunks.extend(old_chunks.iter().cloned());
    new_chunks[5] = noise(90_000, 51); // was 100,000 bytes
    let (old, new) = (Repository::new(&old_chunks), Repository::new(&new_chunks));
    let booted = Disk::with_content(old.raw.clone(), 512);
    let places = Places::of(&old.own).unwrap();
    let seeds = [Seed { places: &places, device: &booted }];
    for per_frame in [1, 2] {
        let new = Repository::with_frames(&new_chunks, per_frame, |_, _| {});
        let source = new.source();
        let disk = new.disk();
        let done =
            new.write_with(&disk, &[&source], &seeds, Resume::default(), &mut |_| Ok(())).unwrap();
        assert!(disk.content()[..new.raw.len()] == new.raw);
        new.assert_only_signed_chunks(&disk);
        let different = |chunk: &formats::chunks::Chunk| matches!(chunk.index, 0 | 5);
        assert_eq!(done.fetched, new.frame_bytes(different), "{per_frame} per frame");
        assert_eq!(done.written - done.reused_seed, 777 + 90_000);
    }

    // One bit of the booted slot is not what was once written: that chunk is fetched.
    let mut content = old.raw.clone();
    content[3] ^= 1;
    let altered = Disk::with_content(content, 512);
    let seeds = [Seed { places: &places, device: &altered }];
    let (disk, source, progress) = (new.disk(), new.source(), Notes::default());
    let image = new.image(&disk);
    let sources: [&dyn Source; 1] = [&source];
    let done = write_image_at(&pace(), &image, &sources, &seeds, LOOK, &progress, &mut |_| Ok(()));
    assert!(disk.content()[..new.raw.len()] == new.raw);
    assert_eq!(done.unwrap().0.fetched, new.frame_bytes(|chunk| matches!(chunk.index, 0 | 1 | 5)));
    let notes = progress.notes.into_inner().unwrap();
    assert!(notes.len() == 1 && notes[0].starts_with("os: 1 chunks"), "{notes:?}");

    // A seed that is shorter than its list, and one that is no seed at all.
    let short = Disk::with_content(old.raw[..50_000].to_vec(), 512);
    let empty = Disk::new(0, 512);
    let seeds =
        [Seed { places: &places, device: &empty }, Seed { places: &places, device: &short }];
    let disk = new.disk();
    new.write_with(&disk, &[&source], &seeds, LOOK, &mut |_| Ok(())).unwrap();
    assert!(disk.content()[..new.raw.len()] == new.raw);
}

#[test]
fn the_next_source_goes_on_where_one_fails() {
    let repository = Repository::new(&sample());
    let good = repository.source();
    let bad_4 = repository.with_bad_frame(4).source();
    let bad_7 = repository.with_bad_frame(7).source();
    let gone = repository.altered(|blob| blob.truncate(200));
    let gone = gone.source();
    type Row<'a> = (&'a str, Vec<&'a dyn Source>);
    let left_out = Scripted::new(repository.source(), |_| Act::LeaveOut(1));
    let fails = Scripted::new(repository.source(), |_| Act::FailAfter(20_000));
    let shifts = Scripted::new(repository.source(), |_| Act::Shift);
    let excess = Scripted::new(repository.source(), |_| Act::Excess);
    let hiccup =
        Scripted::new(repository.source(), |call| [Act::FailAfter(20_000), Act::Honest][call]);
    let rows: &[Row<'_>] = &[
        ("wrong bytes", vec![&bad_4, &good]),
        ("cut off", vec![&gone, &good]),
        ("leaves out", vec![&left_out, &good]),
        ("fails", vec![&fails, &good]),
        ("says wrong offsets", vec![&shifts, &good]),
        ("two bad halves", vec![&bad_4, &bad_7]),
        ("two bad halves, the other way", vec![&bad_7, &bad_4]),
        ("one that hiccups", vec![&hiccup]),
        ("more than was asked for", vec![&excess]),
    ];
    for (name, sources) in rows {
        let (disk, progress) = (repository.disk(), Notes::default());
        let image = repository.image(&disk);
        let done = write_image_at(
            &pace(),
            &image,
            sources,
            &[],
            Resume::default(),
            &progress,
            &mut |_| Ok(()),
        );
        done.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(disk.content()[..repository.raw.len()] == repository.raw, "{name}");
        repository.assert_only_signed_chunks(&disk);
        let notes = progress.notes.into_inner().unwrap();
        assert_eq!(notes.is_empty(), *name == "more than was asked for", "{name}: {notes:?}");
        let work = progress.work.into_inner().unwrap();
        let len = repository.raw.len() as u64;
        assert_eq!(work, [("write os".to_owned(), len, len)], "{name}");
    }
    assert_eq!(hiccup.calls(), 2);
    let rest = repository.frame_bytes(|_| true) - hiccup.asked_bytes(1);
    assert!((5000..20_000).contains(&rest), "{rest} bytes were not asked for again");
}

#[test]
fn when_all_sources_fail_the_first_error_counts() {
    let repository = Repository::new(&sample());
    let bad = repository.with_bad_frame(4).source();
    let fails = Scripted::new(repository.source(), |_| Act::FailAfter(0));
    let left_out = Scripted::new(repository.source(), |_| Act::LeaveOut(0));
    let rows: [(&str, &[&dyn Source], &str); 5] = [
        ("nobody to ask", &[], "unreachable"),
        ("wrong bytes, then none", &[&bad, &fails], "hash_mismatch"),
        ("none, then wrong bytes", &[&fails, &bad], "unreachable"),
        ("less than asked for", &[&left_out], "length_mismatch"),
        ("all of them", &[&left_out, &fails, &bad], "length_mismatch"),
    ];
    for (name, sources, expected) in rows {
        let disk = repository.disk();
        assert_eq!(code(repository.write(&disk, sources)), expected, "{name}");
        repository.assert_only_signed_chunks(&disk);
        assert_eq!(code(repository.read_back(&disk)), "readback", "{name}");
    }
}

#[test]
fn few_requests_for_many_frames() {
    let chunks: Vec<Vec<u8>> = (0..5000).map(|n| noise(300, n)).collect();
    let repository = Repository::new(&chunks);
    let source = Scripted::new(repository.source(), |_| Act::Honest);
    let disk = repository.disk();
    let done = repository.write(&disk, &[&source]).unwrap();
    assert!(disk.content()[..repository.raw.len()] == repository.raw);
    assert_eq!(done.fetched, repository.frame_bytes(|_| true));
    let asked = source.asked.lock().unwrap();
    assert!(asked.iter().all(|ranges| ranges.len() <= 1), "neighbours are one range");
    assert!(asked.len() <= 3, "{} calls", asked.len());
}

#[test]
fn a_journal_that_cannot_be_written_ends_the_run() {
    let repository = Repository::new(&sample());
    let source = repository.source();
    for fail_at in 0..3 {
        let disk = repository.disk();
        let mut calls = 0;
        let result =
            repository.write_with(&disk, &[&source], &[], Resume::default(), &mut |_point| {
                calls += 1;
                if calls > fail_at {
                    return Err(journal_lost());
                }
                Ok(())
            });
        assert_eq!(code(result), "store_io");
        assert_eq!(calls, fail_at + 1);
        repository.assert_only_signed_chunks(&disk);
    }
}

#[test]
fn repeated_chunks_are_each_written() {
    let chunk = noise(10_000, 1);
    let repository = Repository::new(&[chunk.clone(), vec![0; 4096], chunk.clone(), chunk]);
    let disk = repository.disk();
    repository.write(&disk, &[&repository.source()]).unwrap();
    repository.read_back(&disk).unwrap();
    let writes = disk.operations().into_iter().filter(|op| matches!(op, Operation::Write { .. }));
    assert_eq!(writes.count(), 3);
    assert_eq!(repository.chunk(1).content, Content::Zero);
    assert!(disk.len() > repository.raw.len() as u64);
}

#[test]
fn a_journal_that_panics_hangs_nobody() {
    let repository = Repository::new(&sample());
    let (disk, source) = (repository.disk(), repository.source());
    let run = std::panic::AssertUnwindSafe(|| {
        let mut journal = |_| panic!("on purpose");
        repository.write_with(&disk, &[&source], &[], Resume::default(), &mut journal)
    });
    assert!(std::panic::catch_unwind(run).is_err());
}

/// Random images, old contents, seeds that are partly wrong and sources that are partly wrong: as
/// long as one source is honest, the image is there in the end, and nothing else was written.
#[test]
fn any_mixture_ends_with_the_signed_image() {
    for seed in 0..60_u64 {
        let random = noise(64, seed + 1);
        let below = |nth: usize, limit: usize| usize::from(random[nth]) % limit;
        let chunks: Vec<Vec<u8>> = (0..5 + below(0, 30))
            .map(|n| match (n * 7 + below(1, 50)) % 5 {
                0 => vec![0; 1 + n * below(2, 5000)],
                1 => vec![9; 1 + n * 100],
                _ => noise(1 + n * below(3, 1000), n as u64 % 20),
            })
            .collect();
        let repository = Repository::with_frames(&chunks, 1 + below(4, 4), |_, _| {});
        let flip_some = |bytes: &mut [u8], count: usize, from: usize| {
            for nth in 0..count {
                let at = below(from + nth, 256) * bytes.len() / 256;
                bytes[at] ^= 1 << (nth % 8);
            }
        };
        let mut old = repository.raw.clone();
        flip_some(&mut old, below(5, 4), 10);
        let cut = below(6, 256) * old.len() / 256;
        old[cut..].fill(0xA5);
        old.extend([0xA5; 1000]);
        let disk = Disk::with_content(old, 512);
        let mut seed_bytes = repository.raw.clone();
        flip_some(&mut seed_bytes, below(7, 6), 20);
        let seed_disk = Disk::with_content(seed_bytes, 512);
        let places = Places::of(&repository.own).unwrap();
        let seeds = [Seed { places: &places, device: &seed_disk }];
        let bad = repository.altered(|blob| flip_some(blob, 1 + below(8, 3), 30));
        let (bad, good) = (bad.source(), repository.source());
        let resume = if below(9, 2) == 0 { Resume::Whole } else { Resume::Nothing };
        let done = repository.write_with(
            &disk,
            &[&bad, &good],
            if below(41, 2) == 0 { &seeds } else { &[] },
            resume,
            &mut |_| Ok(()),
        );
        done.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert!(disk.content()[..repository.raw.len()] == repository.raw, "seed {seed}");
        repository.assert_only_signed_chunks(&disk);
        repository.read_back(&disk).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}
