use std::collections::BTreeSet;

use super::*;
use crate::files::{Files as _, PrivateDir};
use crate::record;

const STATE: &str = "/state";

fn machine() -> Machine {
    let media = Media::new().with_folder(STATE).with_bytes("/disk", &[1; 8192]);
    Machine::on(&media, 0)
}

fn crashes(machine: &Machine) -> Vec<(Crash, Media)> {
    let recording = machine.recording();
    let mut all = Vec::new();
    let cuts = 0..recording.operations().len() + 1;
    recording.crashes(cuts, 8, 1, &mut |crash, media| {
        assert_eq!(recording.after(crash).hash(), media.hash(), "{crash:?}");
        all.push((crash.clone(), media));
    });
    all
}

#[test]
fn a_file_is_old_or_new_after_every_crash() {
    let machine = machine();
    let state = PrivateDir::create_on(&machine, Path::new(STATE)).unwrap();
    state.write_atomic("file", &[1; 2000]).unwrap();
    let machine = Machine::on(&machine.durable(), 0);
    let state = PrivateDir::create_on(&machine, Path::new(STATE)).unwrap();
    state.write_atomic("file", &[2; 3000]).unwrap();
    let mut seen = BTreeSet::new();
    for (crash, media) in crashes(&machine) {
        let after = Machine::on(&media, 0);
        let found =
            PrivateDir::create_on(&after, Path::new(STATE)).unwrap().read("file", 9999).unwrap();
        let found = found.unwrap_or_else(|| panic!("{crash:?}: no file"));
        assert!(found == [1; 2000] || found == [2; 3000], "{crash:?}");
        seen.insert(found.len());
    }
    assert_eq!(seen.len(), 2);
}

/// The sweep can fail: a rename before the content is durable is caught.
#[test]
fn a_file_that_is_not_flushed_before_its_name_is_caught() {
    let machine = machine();
    machine.follow(|call: &Call<'_>| match call.kind {
        CallKind::Sync if call.place.contains(".tmp") => Verdict::Skip,
        _ => Verdict::Do,
    });
    let state = PrivateDir::create_on(&machine, Path::new(STATE)).unwrap();
    state.write_atomic("file", &[2; 3000]).unwrap();
    let torn = crashes(&machine).into_iter().any(|(_, media)| {
        let after = Machine::on(&media, 0);
        let state = PrivateDir::create_on(&after, Path::new(STATE)).unwrap();
        state.read("file", 9999).unwrap().is_some_and(|found| found != [2; 3000])
    });
    assert!(torn);
}

#[test]
fn unflushed_sectors_are_lost_torn_and_reordered() {
    let machine = machine();
    let disk = machine.open_device(Path::new("/disk"), Access::Write).unwrap();
    disk.write_at(&[2; 2048], 0).unwrap();
    disk.sync().unwrap();
    disk.write_at(&[3; 1024], 1024).unwrap();
    disk.write_at(&[4; 1024], 4096).unwrap();
    let states = crashes(&machine);
    let distinct: BTreeSet<u64> = states.iter().map(|(_, media)| media.hash()).collect();
    assert!(distinct.len() > 15, "{}", distinct.len());
    let after = |crash: &Crash| crash.cut > 1;
    for (_, media) in states.iter().filter(|(crash, _)| after(crash)) {
        let bytes = media.bytes("/disk").unwrap();
        assert_eq!(bytes[..1024], [2; 1024], "what was flushed stays");
    }
    let alone = |media: &Media| {
        let bytes = media.bytes("/disk").unwrap();
        bytes[1024] == 2 && bytes[4096] == 4
    };
    assert!(states.iter().any(|(_, media)| alone(media)), "the second without the first");
}

#[test]
fn faults_do_what_they_are_called() {
    let verdicts = |kind: CallKind, verdict: Verdict| {
        let machine = machine();
        machine
            .follow(move |call: &Call<'_>| if call.kind == kind { verdict } else { Verdict::Do });
        machine
    };
    let open = |machine: &Machine| machine.open_device(Path::new("/disk"), Access::Write).unwrap();
    let byte = |disk: &dyn BlockDevice, at: u64| {
        let mut buf = [0];
        disk.read_at(&mut buf, at).unwrap();
        buf[0]
    };
    let lost = verdicts(CallKind::Write, Verdict::Skip);
    let disk = open(&lost);
    disk.write_at(&[9; 512], 0).unwrap();
    disk.sync().unwrap();
    assert_eq!(byte(&disk, 0), 9, "the cache shows it");
    disk.forget_cached(0, 512);
    assert_eq!(byte(&disk, 0), 1);

    let flipped = verdicts(CallKind::Write, Verdict::Flip);
    let disk = open(&flipped);
    disk.write_at(&[9; 512], 0).unwrap();
    assert_eq!(byte(&disk, 256), 9);
    disk.forget_cached(0, 512);
    assert_eq!(byte(&disk, 256), 9 ^ 0x10);

    let failing = verdicts(CallKind::Sync, Verdict::Fail(io::ErrorKind::Other));
    let disk = open(&failing);
    disk.write_at(&[9; 512], 0).unwrap();
    disk.sync().unwrap_err();
    assert_eq!(byte(&disk, 0), 1, "forgotten");
    failing.unscripted();
    disk.sync().unwrap_err();
    open(&failing).sync().unwrap();
    assert_eq!(failing.durable().bytes("/disk").unwrap()[0], 1);

    let full = verdicts(CallKind::Write, Verdict::Short(io::ErrorKind::StorageFull));
    let state = PrivateDir::create_on(&full, Path::new(STATE)).unwrap();
    state.write_atomic("file", b"long").unwrap_err();
    assert_eq!(state.list().unwrap(), [""; 0]);
    assert_eq!(record::read(&state, "file").unwrap(), None);
}

#[test]
fn a_dump_restores() {
    let machine = machine();
    let state = PrivateDir::create_on(&machine, Path::new(STATE)).unwrap();
    state.write_atomic("file", b"content").unwrap();
    state.subdirectory("inside").unwrap().write_atomic("deep", b"down").unwrap();
    let media = machine.durable();
    let empty = super::tests::machine().durable();
    assert_eq!(empty.restored(&media.dump()).hash(), media.hash());
}

#[test]
fn one_at_a_time() {
    let machine = machine();
    let state = PrivateDir::create_on(&machine, Path::new(STATE)).unwrap();
    let held = state.lock().unwrap();
    assert!(PrivateDir::create_on(&machine, Path::new(STATE)).unwrap().lock().is_err());
    drop(held);
    assert!(state.lock().is_ok());
}

/// A blob on its way: a file that moves to another folder takes its old name along, and is whole
/// wherever it can be seen, when it was flushed before.
#[test]
fn a_move_is_durable_with_the_folder_it_goes_to() {
    let machine = Machine::on(&Media::new().with_folder("/store"), 7);
    let root = machine.open_dir(Path::new("/store"), Policy::Public).unwrap();
    let (from, to) =
        (root.subdirectory_or_create("in").unwrap(), root.subdirectory_or_create("out").unwrap());
    let file = from.create_file("upload").unwrap();
    file.write_all_at(b"a blob", 0).unwrap();
    file.sync().unwrap();
    from.rename("upload", to.as_ref(), "blob").unwrap();
    let moved = machine.recording().operations().len();
    to.sync().unwrap();
    let recording = machine.recording();
    let end = recording.operations().len();
    let mut seen = BTreeSet::new();
    recording.crashes(moved - 1..end + 1, 8, 1, &mut |crash, media| {
        let machine = Machine::on(&media, 8);
        let root = machine.open_dir(Path::new("/store"), Policy::Public).unwrap();
        let read = |folder: &str, name: &str| {
            let file = root.subdirectory(folder).unwrap().unwrap().open_file(name).unwrap()?;
            let mut bytes = [0; 6];
            file.read_exact_at(&mut bytes, 0).unwrap();
            assert_eq!((&bytes, file.stamp().unwrap().modified.0), (b"a blob", 7));
            Some(())
        };
        let found = (read("in", "upload").is_some(), read("out", "blob").is_some());
        assert!(crash.cut < end || found == (false, true), "{found:?} after the flush");
        seen.insert(found);
    });
    // The name it began with was never flushed: that may be lost, too.
    assert_eq!(seen, [(false, false), (true, false), (false, true)].into());
}
