use std::collections::BTreeSet;
use std::process::Command;

use formats::autoboot::boots;
use formats::boot_flags::{BootFlags, SlotFlags};
use formats::boot_record::PerSlot;

use super::*;
use crate::sim::fat::{FILE, VOLUME, with_autoboot};
use crate::sim::{Disk, Fault, Loss};

const PARTITIONS: PerSlot<u32> = PerSlot { a: 2, b: 3 };

const FACTORY: &[u8] = b"[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=2\n";

fn padded(len: usize) -> Vec<u8> {
    let mut bytes = FACTORY.to_vec();
    bytes.resize(len, b'\n');
    bytes
}

fn disk() -> Disk {
    Disk::with_content(with_autoboot(&padded(256)), 512)
}

fn on_trial() -> BootFlags {
    PerSlot {
        a: SlotFlags { priority: 1, tries: 0, successful: true },
        b: SlotFlags { priority: 2, tries: 3, successful: false },
    }
}

fn try_b(file: &mut Autoboot) -> Result<(), AutobootError> {
    file.set(&PARTITIONS, on_trial(), None)
}

#[test]
fn one_sector_is_written_and_read_back() {
    let disk = disk();
    let before = disk.content();
    let after = edit(&disk, try_b).unwrap();
    assert_eq!(after.flags(&PARTITIONS), Ok(on_trial()));
    assert_eq!(load(&disk).unwrap(), after);
    edit(&disk, try_b).unwrap();
    assert_eq!(disk.operations().len(), 2, "one write, one flush, and nothing the second time");
    let changed: BTreeSet<usize> =
        (0..VOLUME).filter(|at| before[*at] != disk.content()[*at]).map(|at| at / 512).collect();
    assert_eq!(changed, BTreeSet::from([FILE / 512]));
    for fault in [Fault::LoseAt(0), Fault::FlipAt(0)] {
        let disk = self::disk().with_fault(fault);
        assert_eq!(edit(&disk, try_b).unwrap(), after, "it is written once more");
        assert_eq!(load(&disk).unwrap(), after);
    }
}

/// The boot loader finds the old partitions or the new ones, wherever the power fails, on media of any sector.
#[test]
fn every_power_cut_leaves_the_old_or_the_new_file() {
    for sector in [512, 4096] {
        let mut seen = BTreeSet::new();
        for cut in 0..=2 {
            for seed in 0..50 {
                let content = with_autoboot(&padded(256));
                let disk = Disk::with_content(content, sector).with_fault(Fault::CutAfter(cut));
                let _ = edit(&disk, try_b);
                let left = disk.after_power_loss(Loss::Random(seed));
                let bytes = read(&left).unwrap();
                let found = (boots(&bytes, false), boots(&bytes, true));
                assert!([(2, 2), (2, 3)].contains(&found), "cut {cut}: {found:?}");
                assert!(Autoboot::parse(&bytes).is_ok(), "cut {cut}: no whole file");
                seen.insert(found);
            }
        }
        assert_eq!(seen.len(), 2, "both were seen");
    }
}

/// A file of two sectors could be torn: the sweep would see it.
#[test]
fn a_file_across_two_sectors_is_caught_by_the_sweep() {
    let mut torn = 0;
    let (old, new) = (padded(512), {
        let mut file = Autoboot::parse(&padded(512)).unwrap();
        try_b(&mut file).unwrap();
        file.encode(512).unwrap()
    });
    for seed in 0..50 {
        // The partition of a tryboot is in one sector, and the flags are in the next one.
        let at = 512 - 63;
        let mut content = vec![b'\n'; 2048];
        content[at..at + 512].copy_from_slice(&old);
        let disk = Disk::with_content(content, 512).with_fault(Fault::CutAfter(1));
        disk.write_at(&new, at as u64).and_then(|()| disk.sync()).unwrap_err();
        let left = disk.after_power_loss(Loss::Random(seed)).content();
        let bytes = &left[at..at + 512];
        torn += usize::from(bytes != old && bytes != new);
    }
    assert!(torn > 0, "no torn file was found");
}

#[test]
fn what_cannot_be_written_in_place_is_refused_and_stays() {
    let good = with_autoboot(&padded(256));
    let changed = |at: usize, bytes: &[u8]| {
        let mut content = good.clone();
        content[at..at + bytes.len()].copy_from_slice(bytes);
        content
    };
    let rows: [(&str, Vec<u8>, &str); 8] = [
        ("nothing", vec![0; 100], "it is no FAT file system"),
        ("no FAT", vec![0; VOLUME], "it is no FAT file system"),
        ("a cut FAT", good[..VOLUME - 512].to_vec(), "its file system has 65536 bytes"),
        ("no file", changed(1536, b"CONFIG  TXT"), "has no autoboot.txt in its root directory"),
        ("an empty file", changed(1536 + 28, &[0, 0]), "it has 0 bytes, not 1 to 512"),
        ("a long file", changed(1536 + 28, &[1, 2]), "it has 513 bytes, not 1 to 512"),
        ("no cluster", changed(1536 + 26, &[0, 0]), "has no autoboot.txt"),
        ("a short file", with_autoboot(FACTORY), "the text needs 1"),
    ];
    for (name, content, said) in rows {
        let disk = Disk::with_content(content.clone(), 512);
        let error = edit(&disk, try_b).unwrap_err();
        assert_eq!(error.reason(), Reason::BootRecord, "{name}");
        assert!(error.to_string().contains(said), "{name}: {error}");
        assert_eq!(disk.content(), content, "{name}");
    }
}

/// Volumes that `mkfs.fat` makes; after an edit `fsck.fat` finds nothing and `mtype` reads the new file.
#[test]
fn file_systems_of_others_are_read_and_stay_whole() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("autoboot.txt");
    std::fs::write(&text, padded(256)).unwrap();
    let run = |program: &str, args: &[&str]| {
        let done = Command::new(program).args(args).output();
        let done = done.unwrap_or_else(|error| panic!("{program} (dosfstools, mtools): {error}"));
        assert!(done.status.success(), "{program} {args:?}: {done:?}");
        done.stdout
    };
    // (bits, MiB, bytes a sector, files before it)
    let rows = [("12", 1, "512", 0), ("16", 16, "512", 40), ("32", 40, "512", 40)];
    for (bits, mib, sector, others) in rows {
        let path = dir.path().join(format!("{bits}-{mib}.img"));
        let image = path.to_str().unwrap();
        std::fs::write(&path, vec![0; mib << 20]).unwrap();
        run("mkfs.fat", &["-F", bits, "-S", sector, "-s", "1", image]);
        for nth in 0..others {
            // Long names take several entries, so that a FAT32's directory has several clusters.
            let name = format!("::a long name of another file {nth}.txt");
            run("mcopy", &["-i", image, text.to_str().unwrap(), &name]);
        }
        run("mcopy", &["-i", image, text.to_str().unwrap(), "::autoboot.txt"]);
        let disk = Disk::with_content(std::fs::read(&path).unwrap(), 512);
        let wanted = edit(&disk, try_b).unwrap().encode(256).unwrap();
        std::fs::write(&path, disk.content()).unwrap();
        run("fsck.fat", &["-n", image]);
        assert_eq!(run("mtype", &["-i", image, "::autoboot.txt"]), wanted, "FAT{bits}");
    }
    // The volume of the simulated machine is one that they accept, too.
    let path = dir.path().join("sim.img");
    std::fs::write(&path, with_autoboot(&padded(256))).unwrap();
    run("fsck.fat", &["-n", path.to_str().unwrap()]);
    assert_eq!(run("mtype", &["-i", path.to_str().unwrap(), "::autoboot.txt"]), padded(256));
}
