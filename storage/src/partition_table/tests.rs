use std::path::Path;
use std::process::Command;

use formats::boot_flags::SlotFlags;
use formats::gpt::{Guid, NewPartition};

use super::*;
use crate::block::{Access, FileDevice};
use crate::sim::{Disk, Fault, Loss, Operation};

const LEN: usize = 4 << 20;
const A: SlotFlags = SlotFlags { priority: 2, tries: 0, successful: true };
const B: SlotFlags = SlotFlags { priority: 1, tries: 3, successful: false };

fn new_table(sector_size: u32, len: usize) -> Table {
    let part = |label, byte, attrs: SlotFlags| NewPartition {
        label,
        type_guid: Guid::LINUX,
        guid: Guid([byte; 16]),
        at: None,
        len: 1 << 20,
        attributes: attrs.put_into(1),
    };
    let parts = [part("root-a", 1, A), part("root-b", 2, SlotFlags::CLEARED)];
    let geometry = Geometry::new(len as u64, sector_size).unwrap();
    Table::create(geometry, Guid([9; 16]), &parts).unwrap()
}

fn activated(table: &Table) -> Table {
    let a = SlotFlags { priority: 1, ..A };
    let b = SlotFlags { priority: 2, ..B };
    table.with_attributes(&[(1, a.put_into(1)), (2, b.put_into(1))]).unwrap()
}

fn simulated(sector_size: u32) -> Disk {
    let disk = Disk::new(LEN, sector_size);
    format(&disk, &new_table(sector_size, LEN)).unwrap();
    Disk::with_content(disk.content(), sector_size)
}

/// Every way in which one of the two copies, or none, is not what it should be.
fn starts(sector_size: u32) -> Vec<(&'static str, Disk)> {
    let good = simulated(sector_size);
    let table = load(&good).unwrap().table;
    let with = |damage: &dyn Fn(&mut Vec<u8>)| {
        let mut content = good.content();
        damage(&mut content);
        Disk::with_content(content, sector_size)
    };
    let (primary, backup) = (table.image(TableCopy::Primary), table.image(TableCopy::Backup));
    let other = activated(&table).image(TableCopy::Backup);
    vec![
        ("both good", with(&|_| {})),
        ("primary array torn", with(&|disk| disk[primary.array_offset as usize] ^= 1)),
        ("primary header gone", with(&|disk| disk[primary.header_offset as usize] = 0)),
        ("backup array torn", with(&|disk| disk[backup.array_offset as usize] ^= 1)),
        ("backup header gone", with(&|disk| disk[backup.header_offset as usize] = 0)),
        (
            "backup differs",
            with(&|disk| {
                let (array, header) = (other.array_offset as usize, other.header_offset as usize);
                disk[array..array + other.array.len()].copy_from_slice(&other.array);
                disk[header..header + other.header.len()].copy_from_slice(&other.header);
            }),
        ),
    ]
}

#[test]
fn every_power_cut_leaves_the_old_or_the_new_table() {
    let losses = [Loss::Nothing, Loss::Everything, Loss::TornLast, Loss::OnlyLast]
        .into_iter()
        .chain((0..40).map(Loss::Random));
    let losses: Vec<Loss> = losses.collect();
    for sector_size in [512, 4096] {
        for (start, disk) in starts(sector_size) {
            let old = load(&disk).unwrap().table;
            let new = activated(&old);
            let whole = Disk::with_content(disk.content(), sector_size);
            write(&whole, &new).unwrap();
            let count = whole.operations().len();
            assert!(count >= 6, "{start}: {count} operations");
            for cut in 0..=count {
                let running = Disk::with_content(disk.content(), sector_size)
                    .with_fault(Fault::CutAfter(cut));
                assert_eq!(write(&running, &new).is_ok(), cut == count, "{start}, cut {cut}");
                for loss in &losses {
                    let name = format!("{start}, sector {sector_size}, cut {cut}, {loss:?}");
                    let found = running.after_power_loss(*loss);
                    let table = load(&found).unwrap_or_else(|error| panic!("{name}: {error:?}"));
                    let table = table.table;
                    let known = table.same_content(&old) || table.same_content(&new);
                    assert!(known, "{name}: neither old nor new");
                    // The next run completes it and leaves both copies equal.
                    write(&found, &new).unwrap_or_else(|error| panic!("{name}: {error:?}"));
                    let after = load(&found).unwrap();
                    assert_eq!(after.repair, None, "{name}");
                    assert!(after.table.same_content(&new), "{name}");
                }
            }
        }
    }
}

fn bootable(table: &Table) -> bool {
    table.partitions().any(|one| {
        let attrs = SlotFlags::of_attributes(one.attributes);
        attrs.priority > 0 && (attrs.successful || attrs.tries > 0)
    })
}

/// A primary that is whole and says that nothing can be booted, and a backup that says what can.
fn only_the_backup_boots(sector_size: u32) -> Disk {
    let disk = simulated(sector_size);
    let table = load(&disk).unwrap().table;
    let nothing = SlotFlags::CLEARED.put_into(1);
    let Image { array, array_offset, header, header_offset } =
        table.with_attributes(&[(1, nothing), (2, nothing)]).unwrap().image(TableCopy::Primary);
    disk.write_at(&array, array_offset).unwrap();
    disk.write_at(&header, header_offset).unwrap();
    Disk::with_content(disk.content(), sector_size)
}

/// The only copy that says something bootable is read, and is never lost: not by reading, not by a
/// repair or a change that is cut anywhere.
#[test]
fn the_only_copy_that_says_something_bootable_is_never_overwritten() {
    let losses = [Loss::Nothing, Loss::Everything, Loss::TornLast, Loss::OnlyLast];
    let losses: Vec<Loss> = losses.into_iter().chain((0..6).map(Loss::Random)).collect();
    let boots = |disk: &Disk| load_by(disk, &bootable).is_ok_and(|found| bootable(&found.table));
    for sector_size in [512, 4096] {
        let disk = only_the_backup_boots(sector_size);
        assert!(!bootable(&load(&disk).unwrap().table), "the primary says nothing");
        let choice = load_by(&disk, &bootable).unwrap();
        assert_eq!((bootable(&choice.table), choice.repair), (true, Some(TableCopy::Primary)));
        assert_eq!(disk.operations().len(), 0, "reading writes nothing");
        let new = activated(&choice.table);
        type Step<'a> = &'a dyn Fn(&Disk) -> Result<(), TableError>;
        let change = |disk: &Disk| write_by(disk, &new, &bootable);
        let repair = |disk: &Disk| repair_by(disk, &bootable).map(drop);
        let changes: [Step<'_>; 2] = [&change, &repair];
        for (nth, run) in changes.into_iter().enumerate() {
            let whole = Disk::with_content(disk.content(), sector_size);
            run(&whole).unwrap();
            assert!(bootable(&load(&whole).unwrap().table), "both copies, in the end");
            for cut in 0..whole.operations().len() {
                let running = Disk::with_content(disk.content(), sector_size)
                    .with_fault(Fault::CutAfter(cut));
                run(&running).unwrap_err();
                for loss in &losses {
                    let found = running.after_power_loss(*loss);
                    assert!(
                        boots(&found),
                        "change {nth}, sector {sector_size}, cut {cut}, {loss:?}"
                    );
                }
            }
        }
        // The table of another disk is no better for what it says.
        let strange = Disk::with_content(disk.content(), sector_size);
        let other = Table::create(
            Geometry::new(LEN as u64, sector_size).unwrap(),
            Guid([9; 16]),
            &[NewPartition {
                label: "root-a",
                type_guid: Guid::LINUX,
                guid: Guid([7; 16]),
                at: None,
                len: 1 << 19,
                attributes: A.put_into(1),
            }],
        );
        put(&strange, &other.unwrap(), TableCopy::Backup).unwrap();
        assert!(!bootable(&load_by(&strange, &bootable).unwrap().table));
    }
}

/// A writer that takes the primary's word for it loses what could be booted: the sweep above can fail.
#[test]
fn a_repair_that_believes_every_primary_loses_what_could_be_booted() {
    let disk = only_the_backup_boots(512);
    repair(&disk).unwrap();
    assert!(!bootable(&load_by(&disk, &bootable).unwrap().table));
}

#[test]
fn a_writer_that_forgets_the_flush_is_caught_by_the_sweep() {
    // The same sweep over the order that the `gpt` crate has: arrays, headers, one flush.
    let disk = simulated(512);
    let old = load(&disk).unwrap().table;
    let new = activated(&old);
    for copy in [TableCopy::Backup, TableCopy::Primary] {
        let image = new.image(copy);
        disk.write_at(&image.array, image.array_offset).unwrap();
    }
    let lost = (0..100).any(|seed| load(&disk.after_power_loss(Loss::Random(seed))).is_err());
    assert!(lost, "no state without a table was found");
}

#[test]
fn the_backup_is_durable_before_the_primary_is_touched() {
    let disk = simulated(512);
    let old = load(&disk).unwrap().table;
    write(&disk, &activated(&old)).unwrap();
    let last = (LEN as u64) - 512;
    let wrote = |offset, len| Operation::Write { offset, len };
    assert_eq!(
        disk.operations(),
        [
            wrote(last - 16384, 16384),
            wrote(last, 512),
            Operation::Sync,
            wrote(1024, 16384),
            wrote(512, 512),
            Operation::Sync,
        ]
    );
    let operations = disk.operations().len();
    write(&disk, &activated(&old)).unwrap();
    assert_eq!(disk.operations().len(), operations, "the same again writes nothing");
}

#[test]
fn repair_rewrites_the_whole_loser() {
    for (start, disk) in starts(512) {
        let before = load(&disk).unwrap();
        let content = disk.content();
        let repaired = repair(&disk).unwrap();
        assert_eq!(repaired, before, "{start}");
        let after = load(&disk).unwrap();
        assert_eq!(after.repair, None, "{start}");
        assert!(after.table.same_content(&before.table), "{start}");
        if start == "both good" {
            assert_eq!(disk.content(), content, "nothing to repair, nothing written");
        } else {
            let good = simulated(512).content();
            assert!(disk.content() == good, "{start}: the disk is not as before the damage");
        }
    }
}

#[test]
fn a_disk_without_a_table_is_not_written() {
    let disk = simulated(512);
    let table = load(&disk).unwrap().table;
    let mut content = disk.content();
    content[512] = 0;
    content[LEN - 512] = 0;
    let disk = Disk::with_content(content.clone(), 512);
    for error in
        [load(&disk).unwrap_err(), repair(&disk).unwrap_err(), write(&disk, &table).unwrap_err()]
    {
        assert_eq!(error.reason(), Reason::GptInvalid);
    }
    assert!(disk.content() == content && disk.operations().is_empty());
}

#[test]
fn a_table_of_other_partitions_is_not_written() {
    let disk = simulated(512);
    let part = NewPartition {
        label: "root-a",
        type_guid: Guid::LINUX,
        guid: Guid([7; 16]),
        at: None,
        len: 1 << 20,
        attributes: 0,
    };
    let geometry = Geometry::new(LEN as u64, 512).unwrap();
    let other = Table::create(geometry, Guid([9; 16]), &[part]).unwrap();
    assert!(matches!(write(&disk, &other), Err(TableError::Changed(_))));
    assert!(disk.operations().is_empty());
}

#[test]
fn failing_media_are_reported() {
    let rows = [
        (Fault::ErrorAt(0), Reason::SlotIo),
        (Fault::ErrorAt(2), Reason::SlotIo),
        (Fault::ErrorAt(3), Reason::SlotIo),
        (Fault::ErrorAt(5), Reason::SlotIo),
        (Fault::LoseAt(0), Reason::Readback),
        (Fault::LoseAt(4), Reason::Readback),
        (Fault::FlipAt(3), Reason::Readback),
        (Fault::FlipAt(1), Reason::Readback),
    ];
    for (fault, reason) in rows {
        let disk = simulated(512).with_fault(fault);
        let old = load(&disk).unwrap().table;
        let error = write(&disk, &activated(&old)).unwrap_err();
        assert_eq!(error.reason(), reason, "{fault:?}: {error:?}");
        load(&disk.after_power_loss(Loss::Nothing)).unwrap_or_else(|e| panic!("{fault:?}: {e:?}"));
    }
}

// --- other people's tools as judges -------------------------------------------------------------

/// Whether a tool is installed; a machine without it says so instead of passing silently.
fn have(tool: &str) -> bool {
    let there = Command::new(tool).arg("--help").output().is_ok();
    if !there {
        eprintln!("skipped: {tool} is not installed");
    }
    there
}

fn run(tool: &str, args: &[&str], disk: &Path) -> String {
    let output = Command::new(tool).args(args).arg(disk).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{tool} {args:?}: {text}");
    text
}

fn image_file(len: usize) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.img");
    std::fs::File::create(&path).unwrap().set_len(len as u64).unwrap();
    (dir, path)
}

#[test]
fn cgpt_and_sgdisk_read_what_we_write() {
    if !have("cgpt") || !have("sgdisk") {
        return;
    }
    let (_dir, path) = image_file(LEN);
    let device = FileDevice::open(&path, Access::Write).unwrap();
    format(&device, &new_table(512, LEN)).unwrap();
    let old = load(&device).unwrap().table;
    write(&device, &activated(&old)).unwrap();

    let verdict = run("sgdisk", &["-v"], &path);
    assert!(verdict.contains("No problems found"), "{verdict}");
    let info = run("sgdisk", &["-i", "2"], &path);
    assert!(info.contains("Attribute flags: 0032000000000001"), "{info}");
    assert!(info.contains("Partition name: 'root-b'"), "{info}");
    let show = run("cgpt", &["show", "-v"], &path);
    assert!(show.contains("Pri GPT header") && show.contains("Sec GPT header"), "{show}");
    assert!(!show.contains("INVALID"), "{show}");
    for (bit, wanted) in [("-P", "2"), ("-T", "3"), ("-S", "0")] {
        assert_eq!(run("cgpt", &["show", "-i", "2", bit], &path).trim(), wanted, "cgpt {bit}");
    }
}

#[test]
fn we_read_what_sgdisk_and_cgpt_write() {
    if !have("cgpt") || !have("sgdisk") {
        return;
    }
    let (_dir, path) = image_file(LEN);
    let first =
        ["-n", "1:0:+1M", "-c", "1:root-a", "-n", "2:0:+1M", "-c", "2:root-b", "-n", "7:0:0"];
    run("sgdisk", &first, &path);
    run("cgpt", &["add", "-i", "2", "-P", "5", "-T", "6", "-S", "1"], &path);
    let device = FileDevice::open(&path, Access::Write).unwrap();
    let choice = load(&device).unwrap();
    assert_eq!(choice.repair, None);
    let found = choice.table.find("root-b").unwrap();
    let wanted = SlotFlags { priority: 5, tries: 6, successful: true };
    assert_eq!(SlotFlags::of_attributes(found.attributes), wanted);
    assert_eq!(found.first_lba, 2048 + (2 << 10));

    // Only the eight bytes asked for change in either array.
    let before = std::fs::read(&path).unwrap();
    let cleared = SlotFlags::CLEARED.put_into(found.attributes);
    write(&device, &choice.table.with_attributes(&[(2, cleared)]).unwrap()).unwrap();
    let after = std::fs::read(&path).unwrap();
    let sums = |at: usize| [(at + 16, 4), (at + 88, 4)];
    let entry = |array: usize| (array + 128 + 48, 8);
    let mut allowed = vec![entry(1024), entry(LEN - 512 - 16384)];
    allowed.extend(sums(512));
    allowed.extend(sums(LEN - 512));
    for at in (0..LEN).filter(|at| before[*at] != after[*at]) {
        let ours = allowed.iter().any(|(start, len)| (*start..start + len).contains(&at));
        assert!(ours, "byte {at} changed");
    }
    let verdict = run("sgdisk", &["-v"], &path);
    assert!(verdict.contains("No problems found"), "{verdict}");
}

#[test]
fn a_moved_main_table_stays_where_sgdisk_put_it() {
    if !have("sgdisk") {
        return;
    }
    let (_dir, path) = image_file(LEN);
    run("sgdisk", &["-j", "1000", "-n", "1:0:+1M", "-c", "1:root-a"], &path);
    let device = FileDevice::open(&path, Access::Write).unwrap();
    // Firmware behind the header, where a usual table would be.
    device.write_at(&[0xab; 4096], 1024).unwrap();
    let table = load(&device).unwrap().table;
    write(&device, &table.with_attributes(&[(1, A.put_into(0))]).unwrap()).unwrap();
    device.write_at(&[0xff; 16], 1000 * 512).unwrap();
    assert_eq!(repair(&device).unwrap().repair, Some(TableCopy::Primary));
    let mut firmware = [0; 4096];
    device.read_at(&mut firmware, 1024).unwrap();
    assert_eq!(firmware, [0xab; 4096]);
    let verdict = run("sgdisk", &["-v"], &path);
    assert!(verdict.contains("No problems found"), "{verdict}");
}

#[test]
fn a_4kn_disk_is_read_in_its_own_sectors() {
    let (_dir, path) = image_file(64 << 20);
    let open = || FileDevice::open(&path, Access::Write).unwrap().with_sector_size(4096);
    format(&open(), &new_table(4096, 64 << 20)).unwrap();
    assert_eq!(&std::fs::read(&path).unwrap()[4096..4104], b"EFI PART");
    let table = load(&open()).unwrap().table;
    write(&open(), &activated(&table)).unwrap();
    assert_eq!(load(&open()).unwrap().repair, None);
    let as_512 = load(&FileDevice::open(&path, Access::Read).unwrap());
    assert_eq!(as_512.unwrap_err().reason(), Reason::GptInvalid);
}

#[test]
fn a_disk_longer_than_its_image_is_used() {
    let (_dir, path) = image_file(LEN);
    format(&FileDevice::open(&path, Access::Write).unwrap(), &new_table(512, LEN)).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(2 * LEN as u64).unwrap();
    let device = FileDevice::open(&path, Access::Write).unwrap();
    let choice = load(&device).unwrap();
    assert_eq!(choice.repair, None);
    write(&device, &activated(&choice.table)).unwrap();
    assert_eq!(load(&device).unwrap().repair, None);
}
