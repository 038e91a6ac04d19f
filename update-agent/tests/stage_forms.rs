//! Every form an image can be fetched in: alone, mixed, wrong, interrupted. Whatever comes, only
//! signed chunks are written.

mod stage_image;

use std::sync::Mutex;

use formats::chunks::Content;
use stage_image::{Act, Notes, Repository, Scripted, code, journal_lost, noise, pace, sample};
use storage::sim::Disk;
use update_agent::source::Source;
use update_agent::stage::{
    Delta, Image, JournalPoint, Places, Resume, Seed, StageError, Written, plan, write_image_at,
};

const LOOK: Resume = Resume::Whole;

/// A later version of [`sample`]: some chunks a little different, one new, one gone, one moved.
fn successor() -> Vec<Vec<u8>> {
    let mut chunks = sample();
    for changed in [0, 4, 7] {
        let middle = chunks[changed].len() / 2;
        chunks[changed][middle] ^= 1;
    }
    chunks.remove(8);
    chunks.insert(2, noise(7000, 77));
    let moved = chunks.remove(3);
    chunks.push(moved);
    chunks
}

/// The sample as small frames and as large ones in parts.
fn both_forms(chunks: &[Vec<u8>]) -> Repository {
    Repository::with_forms(chunks, 1, Some((2, 3)), |_, _| {})
}

fn write(
    image: &Image<'_>,
    sources: &[&dyn Source],
    seeds: &[Seed<'_>],
    notes: &Notes,
    journal: &mut dyn FnMut(JournalPoint) -> Result<(), StageError>,
) -> Result<Written, StageError> {
    write_image_at(&pace(), image, sources, seeds, LOOK, notes, journal).map(|(done, _)| done)
}

/// A disk that holds an image, with some bytes changed.
fn holding_but(repository: &Repository, changes: &[(u64, u8)]) -> Disk {
    let mut content = repository.raw.clone();
    content.resize(content.len() + 1000, 0xA5);
    for (at, byte) in changes {
        content[*at as usize] = *byte;
    }
    Disk::with_content(content, 512)
}

/// A disk that holds an image.
fn holding(repository: &Repository) -> Disk {
    holding_but(repository, &[])
}

fn assert_holds(repository: &Repository, disk: &Disk, name: &str) {
    assert!(disk.content()[..repository.raw.len()] == repository.raw, "{name}");
    repository.assert_only_signed_chunks(disk);
    repository.read_back(disk).unwrap_or_else(|error| panic!("{name}: {error}"));
}

#[test]
fn a_full_install_takes_the_large_frames_and_few_chunks_the_small_ones() {
    // Far apart repetitions: only the large frames find them.
    let mut chunks: Vec<Vec<u8>> = (0..24).map(|n| noise(90_000, n % 4)).collect();
    chunks[3] = noise(80_000, 99);
    let repository = Repository::with_forms(&chunks, 1, Some((3, 8)), |_, _| {});
    assert!(repository.blobs[1].size < repository.blobs[0].size / 2);
    let source = repository.source();
    let disk = repository.disk();
    let written =
        write(&repository.image(&disk), &[&source], &[], &Notes::default(), &mut |_| Ok(()))
            .unwrap();
    assert!(written.fetched < repository.blobs[1].size, "without its table");
    assert_holds(&repository, &disk, "full");
    // One chunk is missing: its small frame is less than the large one up to it.
    let at = repository.chunk(20).offset;
    let damaged = holding_but(&repository, &[(at, repository.raw[at as usize] ^ 1)]);
    let planned = plan(&repository.image(&damaged), |hash| {
        Content::Data(*hash) != repository.chunk(3).content
    });
    let once = repository.frame(3);
    assert_eq!(planned.unwrap().fetch, once.end - once.start);
    let written =
        write(&repository.image(&damaged), &[&source], &[], &Notes::default(), &mut |_| Ok(()))
            .unwrap();
    let frame = repository.frame(20);
    assert_eq!(written.fetched, frame.end - frame.start);
    assert_eq!(written.reused_target, (repository.raw.len() - 90_000) as u64);
    assert!(damaged.content()[..repository.raw.len()] == repository.raw);
}

#[test]
fn a_delta_from_the_booted_slot_is_the_smallest() {
    let (base, target) = (both_forms(&sample()), both_forms(&successor()));
    let booted = holding(&base);
    for per_frame in [1, 2, 100] {
        let (list, blob) = target.delta_from(&base, per_frame);
        let delta = Delta { list: &list, blob: &blob, base: &base.own, device: &booted };
        let places = Places::of(&base.own).unwrap();
        let seeds = [Seed { places: &places, device: &booted }];
        let disk = target.disk();
        let source = target.source();
        let image = Image { deltas: &[delta], ..target.image(&disk) };
        let written =
            write(&image, &[&source], &seeds, &Notes::default(), &mut |_| Ok(())).unwrap();
        assert_eq!(written.fetched, blob.size, "{per_frame} chunks per frame");
        assert!(blob.size < 8000, "the new chunk of 7000 bytes, and little more: {}", blob.size);
        assert_holds(&target, &disk, "delta");
        let known: Vec<Content> = base.list.chunks().map(|chunk| chunk.content).collect();
        let planned = plan(&image, |hash| known.contains(&Content::Data(*hash))).unwrap();
        assert!(planned.fetch == blob.size && planned.delta > 0, "{planned:?}");
        assert_eq!(written.fetched_delta, planned.delta, "{per_frame} chunks per frame");
    }
    assert_eq!(booted.operations(), [], "the booted slot is only read");
}

/// Wrong bytes from anywhere cost a refetch, never correctness.
#[test]
fn whatever_is_wrong_with_a_delta_the_image_is_right() {
    let (base, target) = (both_forms(&sample()), both_forms(&successor()));
    let (list, blob) = target.delta_from(&base, 2);
    let source = target.source();
    // In every frame's prefix.
    let at = base.chunk(4).offset + 50_000;
    let changed = holding_but(&base, &[(at, base.raw[at as usize] ^ 1)]);
    let honest = holding(&base);
    let empty = Disk::new(10, 512);
    let other = both_forms(&[noise(100, 50)]);
    // (name, delta's base, its device, where the delta comes from)
    type Row<'a> = (&'a str, &'a Repository, &'a Disk, &'a dyn Source);
    let flipped = target.altered_blob(&blob, |bytes| bytes[40] ^= 1);
    let cut = target.altered_blob(&blob, |bytes| bytes.truncate(50));
    let none = target.without_blob(&blob);
    let rows: [Row<'_>; 6] = [
        ("the base is not what it was", &base, &changed, &source),
        ("the base cannot be read", &base, &empty, &source),
        ("a delta of another image", &other, &honest, &source),
        ("a flipped bit in the delta", &base, &honest, &flipped.source()),
        ("a delta that is cut off", &base, &honest, &cut.source()),
        ("a source without the delta", &base, &honest, &none.source()),
    ];
    for (name, base, device, source) in rows {
        let delta = Delta { list: &list, blob: &blob, base: &base.own, device };
        let places = Places::of(&base.own).unwrap();
        let seeds = [Seed { places: &places, device }];
        let (disk, notes) = (target.disk(), Notes::default());
        let image = Image { deltas: &[delta], ..target.image(&disk) };
        write(&image, &[source], &seeds, &notes, &mut |_| Ok(()))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_holds(&target, &disk, name);
        assert!(!notes.notes.lock().unwrap().is_empty(), "{name}: nothing was said");
    }
}

#[test]
fn wrong_bytes_of_one_form_are_replaced_by_another() {
    let repository = both_forms(&sample());
    for number in [0, 1] {
        let bad = repository.altered_blob(&repository.blobs[number], |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x40;
        });
        let disk = repository.disk();
        let written =
            write(&repository.image(&disk), &[&bad.source()], &[], &Notes::default(), &mut |_| {
                Ok(())
            });
        written.unwrap_or_else(|error| panic!("form {number}: {error}"));
        assert_holds(&repository, &disk, "one form wrong");
    }
    // When all of them are, the error says so, and nothing unsigned is in the slot.
    let bad = |repository: &Repository| {
        let flip = |bytes: &mut Vec<u8>| bytes.iter_mut().for_each(|byte| *byte ^= 1);
        repository.altered_blob(&repository.blobs[0], flip).altered_blob(&repository.blobs[1], flip)
    };
    let disk = repository.disk();
    let image = repository.image(&disk);
    let written =
        write(&image, &[&bad(&repository).source()], &[], &Notes::default(), &mut |_| Ok(()));
    assert_eq!(code(written), "hash_mismatch");
    repository.assert_only_signed_chunks(&disk);
}

#[test]
fn what_arrived_of_a_large_frame_is_kept() {
    let chunks: Vec<Vec<u8>> = (0..30).map(|n| noise(60_000, n % 9)).collect();
    let repository = Repository::with_forms(&chunks, 1, Some((2, 15)), |_, _| {});
    let disk = repository.disk();
    let cutting = Scripted::new(repository.source(), |call| match call {
        0 => Act::FailAfter(200_000),
        _ => Act::Honest,
    });
    let notes = Notes::default();
    let first = write(&repository.image(&disk), &[&cutting], &[], &notes, &mut |_| Ok(()));
    first.unwrap();
    assert_holds(&repository, &disk, "resumed");
    // One frame of everything was cut once: what came before is not fetched again.
    let asked: u64 = (0..cutting.calls()).map(|call| cutting.asked_bytes(call)).sum();
    let solid = repository.blobs[1].size;
    assert!(asked < 2 * solid, "{asked} of {solid}");
    let again: u64 = (1..cutting.calls()).map(|call| cutting.asked_bytes(call)).sum();
    let fine = repository.blobs[0].size;
    assert!(again < fine - 150_000 && again <= solid, "{again} of {solid} or {fine}");
}

/// Everything at once, many times: forms, sources that fail, seeds that lie, cuts.
#[test]
fn any_mixture_of_forms_ends_with_the_signed_image() {
    let (base, target) = (both_forms(&sample()), both_forms(&successor()));
    let (list, blob) = target.delta_from(&base, 2);
    let damaged = target.altered_blob(&target.blobs[1], |bytes| bytes[30_000] ^= 1);
    for seed in 0..40_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut draw = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 20) % below
        };
        let changes: Vec<(u64, u8)> =
            (0..draw(4)).map(|_| (draw(base.raw.len() as u64), draw(256) as u8)).collect();
        let booted = holding_but(&base, &changes);
        let disk = if draw(2) == 0 { target.disk() } else { grown(&holding(&base), &target) };
        let failing = Scripted::new(
            target.source(),
            match draw(4) {
                0 => |_| Act::FailAfter(3000),
                1 => |_| Act::LeaveOut(2),
                2 => |_| Act::Shift,
                _ => |_| Act::Excess,
            },
        );
        let (bad, good) = (damaged.source(), target.source());
        let sources: [&dyn Source; 3] = [&failing, &bad, &good];
        let delta = [Delta { list: &list, blob: &blob, base: &base.own, device: &booted }];
        let places = Places::of(&base.own).unwrap();
        let seeds = [Seed { places: &places, device: &booted }];
        let deltas = if draw(2) == 0 { &delta[..] } else { &[] };
        let image = Image { deltas, ..target.image(&disk) };
        let seeds = if draw(3) == 0 { &[][..] } else { &seeds };
        let calls = Mutex::new(0u64);
        let stop = draw(6);
        for run in 0..8 {
            let journal = &mut |_| {
                let mut calls = calls.lock().unwrap();
                *calls += 1;
                if run < 2 && *calls == stop {
                    return Err(journal_lost());
                }
                Ok(())
            };
            if write(&image, &sources, seeds, &Notes::default(), journal).is_ok() {
                break;
            }
        }
        assert!(disk.content()[..target.raw.len()] == target.raw, "seed {seed}");
        target.read_back(&disk).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        target.assert_only_signed_writes(&disk);
    }
}

/// The same content on a disk long enough for the target.
fn grown(disk: &Disk, target: &Repository) -> Disk {
    let mut content = disk.content().to_vec();
    content.resize(target.raw.len() + 1000, 0);
    Disk::with_content(content, 512)
}
