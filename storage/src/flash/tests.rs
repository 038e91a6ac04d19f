use super::*;
use crate::block::{Access, BlockDevice};
use crate::sim::{self, FlashFault};

const ERASE: usize = 4096;

fn nor() -> Geometry {
    Geometry { kind: Kind::Nor, len: 8 * ERASE as u64, erase: ERASE as u32, page: 1 }
}

fn nand() -> Geometry {
    Geometry { kind: Kind::Nand, page: 512, ..nor() }
}

/// An image of `len` bytes that differs in every block; what remains of a block is zeros.
fn image(release: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 512) as u8 ^ (at % 251) as u8 ^ release).collect()
}

/// Writes an image in pieces that end inside blocks, out of order.
fn install<F: Flash>(bank: &Bank<F>, image: &[u8]) -> Result<(), DeviceError> {
    let mut pieces: Vec<(usize, &[u8])> =
        image.chunks(1500).enumerate().map(|(nth, piece)| (nth * 1500, piece)).collect();
    for pair in pieces.chunks_mut(2) {
        pair.reverse();
    }
    for (at, piece) in pieces {
        bank.write_at(piece, at as u64)?;
    }
    bank.sync()?;
    bank.complete()
}

fn content<F: Flash>(bank: &Bank<F>, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    bank.read_at(&mut bytes, 0).unwrap();
    bytes
}

/// A flash that holds an image.
fn holding(geometry: Geometry, image: &[u8]) -> sim::Flash {
    let bank = Bank::new(sim::Flash::new(geometry)).unwrap();
    install(&bank, image).unwrap();
    bank.flash().after_power_loss()
}

#[test]
fn an_image_is_written_over_another_and_read_back() {
    for geometry in [nor(), nand()] {
        let (old, new) = (image(1, 7 * ERASE), image(2, 6 * ERASE + 700));
        let bank = Bank::new(holding(geometry, &old)).unwrap();
        install(&bank, &new).unwrap();
        let again = Bank::new(bank.flash().after_power_loss()).unwrap();
        assert_eq!(content(&again, new.len()), new, "{geometry:?}");
        assert_eq!(again.len(), 8 * ERASE as u64);
        // Byte n of the image is byte n of the flash: a raw image is not shifted.
        assert_eq!(again.flash().cells()[..new.len()], new);
    }
}

/// Case 144: a cut in any erase or program leaves no image that a boot loader could take for one,
/// and the next run completes.
#[test]
fn case_144_a_cut_in_any_erase_or_program_leaves_no_bootable_bank() {
    let (old, new) = (image(1, 8 * ERASE), image(2, 8 * ERASE));
    let mut states = 0;
    for geometry in [nor(), nand()] {
        for cut in 0.. {
            for seed in [1, 2, 3] {
                let flash = holding(geometry, &old).with_seed(seed);
                let bank = Bank::new(flash.with_fault(FlashFault::CutDuring(cut))).unwrap();
                if install(&bank, &new).is_ok() {
                    assert!(cut > 16, "{geometry:?}: only {cut} operations");
                    break;
                }
                states += 1;
                let found = bank.flash().after_power_loss();
                let cells = found.cells();
                let header = |image: &[u8]| cells[..ERASE] == image[..ERASE];
                // By the header it is bootable; then it has to be whole.
                assert!(!header(&old), "{geometry:?}, cut {cut}: the old header over other bytes");
                assert!(!header(&new) || cells == new, "{geometry:?}, cut {cut}: a torn image");
                // On NOR even its first bytes are last of all.
                let head = geometry.kind == Kind::Nor && cells[..64] == new[..64];
                assert!(!head || cells == new, "cut {cut}: a head over a torn first block");
                let bank = Bank::new(found).unwrap();
                install(&bank, &new).unwrap();
                assert_eq!(content(&bank, new.len()), new, "{geometry:?}, cut {cut}");
            }
            let done = Bank::new(holding(geometry, &old).with_fault(FlashFault::CutDuring(cut)));
            if install(&done.unwrap(), &new).is_ok() {
                break;
            }
        }
    }
    println!("{states} states");
    assert!(states > 100, "{states}");
}

/// A writer that leaves the header until its turn comes is caught by the same sweep.
#[test]
fn a_header_that_is_not_last_is_caught() {
    let (old, new) = (image(1, 8 * ERASE), image(2, 8 * ERASE));
    let torn = (0..30).any(|cut| {
        let flash = holding(nor(), &old).with_fault(FlashFault::CutDuring(cut));
        let bank = Bank::without_header(flash).unwrap();
        let _cut = install(&bank, &new);
        let cells = bank.flash().after_power_loss().cells();
        cells[..ERASE] == new[..ERASE] && cells != new
    });
    assert!(torn);
}

/// Case 142: factory bad blocks are skipped on NAND as its boot loaders skip them, and refused on
/// NOR; a block that goes bad is marked, and the next run writes the bank anew around it.
#[test]
fn case_142_bad_blocks() {
    let new = image(2, 6 * ERASE);
    let bank = Bank::new(sim::Flash::new(nand()).with_bad([1, 4])).unwrap();
    assert_eq!((bank.len(), bank.bad_blocks()), (6 * ERASE as u64, 2));
    install(&bank, &new).unwrap();
    let cells = bank.flash().cells();
    // As `nand read` would: the good blocks in order.
    let read: Vec<u8> = [0, 2, 3, 5, 6, 7]
        .into_iter()
        .flat_map(|block: usize| cells[block * ERASE..][..ERASE].to_vec())
        .collect();
    assert_eq!(read, new);

    let refused = Bank::new(sim::Flash::new(nor()).with_bad([5])).unwrap_err();
    assert_eq!(refused.reason(), formats::reason::Reason::SlotIo);

    let mut marked = 0;
    for operation in 0..40 {
        let flash =
            holding(nand(), &image(1, 7 * ERASE)).with_fault(FlashFault::WearOutAt(operation));
        let bank = Bank::new(flash).unwrap();
        let Err(error) = install(&bank, &new) else { break };
        assert_eq!(error.reason(), formats::reason::Reason::SlotIo, "operation {operation}");
        // The same handle never goes on.
        assert!(bank.write_at(b"x", 0).is_err() && bank.sync().is_err());
        let found = bank.flash().after_power_loss();
        assert_eq!(found.bad().len(), 1, "operation {operation}: marked");
        marked += 1;
        let next = Bank::new(found).unwrap();
        assert_eq!(next.len(), 7 * ERASE as u64);
        install(&next, &new).unwrap();
        assert_eq!(content(&next, new.len()), new, "operation {operation}: the next run works");
    }
    assert!(marked > 10, "{marked}");
}

/// Case 143: how much fits is known before anything is erased.
#[test]
fn case_143_too_many_bad_blocks_are_known_before_the_first_erase() {
    let bank = Bank::new(sim::Flash::new(nand()).with_bad([0, 1, 2])).unwrap();
    let image = image(2, 6 * ERASE);
    assert!(bank.len() < image.len() as u64);
    let error = bank.write_at(&image, 0).unwrap_err();
    assert_eq!(error.reason(), formats::reason::Reason::SlotSize);
    assert_eq!(bank.flash().operations(), 0);
}

/// Case 145: a bit that is not as it was programmed is found by the read-back of its block.
#[test]
fn case_145_a_flipped_bit_is_found() {
    let new = image(2, 8 * ERASE);
    let mut found = 0;
    for geometry in [nor(), nand()] {
        for operation in 0.. {
            let flash = holding(geometry, &image(1, 8 * ERASE));
            let bank = Bank::new(flash.with_fault(FlashFault::FlipAt(operation))).unwrap();
            let result = install(&bank, &new);
            if bank.flash().operations() <= operation {
                break;
            }
            // A flip in an erase is programmed over, or found.
            match result {
                Ok(()) => assert_eq!(bank.flash().cells(), new, "operation {operation}"),
                Err(_) => found += 1,
            }
        }
    }
    assert!(found > 8, "{found}");
}

/// Case 147: controllers that fail on pages that were never programmed.
#[test]
fn case_147_empty_pages_that_cannot_be_read_count_as_empty() {
    for geometry in [nor(), nand()].map(|geometry| Geometry { page: 512, ..geometry }) {
        if geometry.kind == Kind::Nor {
            continue;
        }
        let bank = Bank::new(sim::Flash::new(geometry).failing_when_empty()).unwrap();
        assert_eq!(content(&bank, ERASE), vec![0xff; ERASE]);
        let new = image(2, 5 * ERASE);
        install(&bank, &new).unwrap();
        assert_eq!(content(&bank, new.len()), new);
    }
}

/// Case 148: a thousand attempts that fail wear out one block by a thousand erases, and no other.
#[test]
fn case_148_failed_attempts_wear_the_first_block_only() {
    let new = image(2, 8 * ERASE);
    let mut flash = holding(nor(), &image(1, 8 * ERASE));
    for _ in 0..1000 {
        let bank = Bank::new(flash).unwrap();
        // The attempt ends before the header is written: say, the last chunk is not to be had.
        bank.write_at(&new[..7 * ERASE], 0).unwrap();
        bank.sync().unwrap();
        flash = bank.flash().after_power_loss();
    }
    let erases = flash.erases();
    assert!(erases[0] <= 1002 && erases[1..].iter().all(|count| *count <= 3), "{erases:?}");
}

#[test]
fn a_flag_that_only_clears_bits_of_nor_costs_no_erase() {
    let bank = Bank::without_header(holding(nor(), &image(1, 8 * ERASE))).unwrap();
    bank.write_at(&[1], 9000).unwrap();
    bank.sync().unwrap();
    let before = bank.flash().erases();
    bank.write_at(&[0], 9000).unwrap();
    bank.sync().unwrap();
    assert_eq!(bank.flash().erases(), before);
    assert_eq!(content(&bank, 9001)[9000], 0);
}

#[test]
fn a_plain_file_holds_the_same_rules() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bank.img");
    std::fs::write(&path, vec![0; 8 * ERASE + 100]).unwrap();
    for kind in [Kind::Nor, Kind::Nand] {
        let page = if kind == Kind::Nor { 1 } else { 512 };
        let open = || FileFlash::open(&path, Access::Exclusive, kind, ERASE as u32, page).unwrap();
        let bank = Bank::new(open().with_bad(Some(3).filter(|_| kind == Kind::Nand))).unwrap();
        let new = image(page as u8, 7 * ERASE);
        install(&bank, &new).unwrap();
        assert_eq!(content(&bank, new.len()), new);
    }
    let flash = FileFlash::open(&path, Access::Write, Kind::Nor, ERASE as u32, 1).unwrap();
    flash.erase(0).unwrap();
    flash.program(&[0xf0, 0xf0], 0).unwrap();
    flash.program(&[0x0f, 0x3f], 0).unwrap();
    let mut bytes = [0; 2];
    flash.read(&mut bytes, 0).unwrap();
    assert_eq!(bytes, [0x00, 0x30], "bits are only cleared, as on a SPI-NOR chip");
}

#[test]
fn what_is_no_flash_is_refused() {
    for (erase, page) in [(0, 1), (100, 1), (4096, 0), (4096, 3), (8 << 20, 1)] {
        let geometry = Geometry { erase, page, ..nor() };
        assert!(geometry.check("x").is_err(), "{erase} {page}");
    }
    assert!(Geometry { len: 0, ..nor() }.check("x").is_err());
}
