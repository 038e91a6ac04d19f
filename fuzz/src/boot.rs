//! What lies on disks and in flash, written by boot loaders and by us, and what a TPM answers.

use formats::autoboot::{Autoboot, FILE_LIMIT, boots};
use formats::bls::{BootFiles, EntryFields, EntryName, SlotEntry};
use formats::boot_record::{BootRecord, Floor, History, Journal};
use formats::device_tree::hardware_ids;
use formats::fat::{Found, Volume, find};
use formats::gpt::header::Header;
use formats::gpt::{Geometry, Table, TableCopy};
use formats::grub_env::GrubEnv;
use formats::record::Record;
use formats::release::is_word;
use formats::tpm::{
    Form, HEADER_LEN, Public, RESPONSE_LIMIT, parse_bare, parse_counter, parse_done, parse_session,
    response_len,
};
use formats::uboot_env::{EnvCopy, Layout, parse_config};
use update_core::chooser::{Proof, Trailer};

use crate::two_parts;

/// What the chooser finds behind an image: the trailer in the last block, the proof before it.
pub fn chooser_proof(data: &[u8]) -> bool {
    let _ = Trailer::parse(data.get(data.len().saturating_sub(Trailer::LEN)..).unwrap_or_default());
    let Ok(proof) = Proof::from_bytes(data) else { return false };
    // A time beyond the last year that is written is read as that year.
    assert_eq!(Proof::from_bytes(&proof.to_bytes()).expect("what is written is read"), proof);
    true
}

/// A partition table of a disk of 8 MiB: one sector of header, then the array. The first byte says which copy it is.
pub fn partition_table(data: &[u8]) -> bool {
    let Some((which, rest)) = data.split_first() else { return false };
    let geometry = Geometry::new(8 << 20, 512).expect("a disk");
    let (copy, lba) = match which & 1 {
        0 => (TableCopy::Primary, 1),
        _ => (TableCopy::Backup, geometry.last_lba()),
    };
    let Some((sector, array)) = rest.split_at_checked(512) else { return false };
    let Ok(header) = Header::parse(geometry, copy, lba, sector) else { return false };
    let Ok(table) = Table::parse(geometry, header, array) else { return false };
    for partition in table.partitions() {
        assert!(partition.first_lba <= partition.last_lba, "{partition:?}");
        assert!(partition.last_lba < geometry.last_lba(), "{partition:?}");
    }
    let again = table.with_attributes(&[]).expect("no change is a change");
    assert!(again.same_content(&table));
    true
}

/// A copy of U-Boot's variables in each layout, and its `fw_env.config`.
pub fn uboot_environment(data: &[u8]) -> bool {
    let _ = str::from_utf8(data).map(parse_config);
    let mut accepted = false;
    for layout in [Layout::Single, Layout::Redundant] {
        let Ok(copy) = EnvCopy::parse(data, layout) else { continue };
        accepted = true;
        let written = copy.encode(data.len() as u64, layout).expect("what was read fits");
        let again = EnvCopy::parse(&written, layout).expect("what is written is read");
        assert!(again.env.iter().eq(copy.env.iter()));
    }
    accepted
}

/// GRUB's environment block.
pub fn grub_environment(data: &[u8]) -> bool {
    let Ok(block) = GrubEnv::parse(data) else { return false };
    let written = block.encode().expect("what was read fits");
    assert_eq!(written.len(), data.len());
    GrubEnv::parse(&written).expect("what is written is read");
    true
}

/// `autoboot.txt` of a Raspberry Pi: what is read boots what its text says.
pub fn autoboot(data: &[u8]) -> bool {
    let _ = boots(data, true);
    let Ok(file) = Autoboot::parse(data) else { return false };
    let Ok(written) = file.encode(FILE_LIMIT) else { return false };
    assert_eq!(Autoboot::parse(&written).as_ref(), Ok(&file), "what is written is read");
    for tryboot in [false, true] {
        assert_eq!(boots(&written, tryboot), boots(data, tryboot));
    }
    true
}

/// A boot sector of a FAT of 1 MiB, and a piece of its root directory.
pub fn fat(data: &[u8]) -> bool {
    let Some((sector, directory)) = data.split_first_chunk() else { return false };
    let Ok(volume) = Volume::parse(sector, 1 << 20) else { return false };
    if let Found::File(file) = find(directory, b"AUTOBOOTTXT")
        && let Some(place) = volume.cluster(file.cluster)
    {
        assert!(place.start < place.end && place.end <= 1 << 20, "{place:?}");
    }
    true
}

/// A boot loader entry: the first line is its file name, the rest its content.
pub fn loader_entry(data: &[u8]) -> bool {
    let Some((name, text)) = two_parts(data) else { return false };
    let _ = EntryName::parse(name);
    let ours = SlotEntry::parse(name);
    if let Some(entry) = ours {
        let after = entry.booted_once();
        assert_eq!(
            SlotEntry::parse(&after.to_string()).map(|again| again.to_string()),
            Some(after.to_string())
        );
    }
    let Ok(text) = str::from_utf8(text) else { return false };
    let _ = EntryFields::parse(text);
    BootFiles::parse(text).is_ok() || ours.is_some()
}

/// The property `compatible` of a device tree.
pub fn device_tree(data: &[u8]) -> bool {
    let Ok(ids) = hardware_ids(data) else { return false };
    assert!(!ids.is_empty() && ids.iter().all(|id| is_word(id, 64)), "{ids:?}");
    true
}

/// A record of the agent's state, and what may be in it.
pub fn record(data: &[u8]) -> bool {
    let Ok(record) = Record::parse(data) else { return false };
    let written = record.to_bytes().expect("what was read fits");
    assert_eq!(Record::parse(&written).expect("what is written is read").payload, record.payload);
    let payload = &record.payload;
    let _ = (BootRecord::parse(payload), Journal::parse(payload), History::parse(payload));
    let _ = Floor::parse(payload);
    true
}

/// Answers of a TPM: whatever comes over its device or socket.
pub fn tpm(data: &[u8]) -> bool {
    let public = Public::parse(data, 0x0180_5241);
    if let Ok(public) = &public {
        let beside = public.mark();
        let own = match public.counter() {
            Some(Form::Open(mark)) => Some(mark),
            Some(Form::Guarded) | None => None,
        };
        assert!(beside.is_none() || public.counter().is_none(), "an index is one thing");
        for mark in [beside, own].into_iter().flatten() {
            assert_eq!(mark.floor(mark.base), Some(mark.origin));
        }
    }
    let _ = (parse_bare(data), parse_session(data));
    if let Some(header) = data.first_chunk::<HEADER_LEN>()
        && let Ok(len) = response_len(header)
    {
        assert!((HEADER_LEN..=RESPONSE_LIMIT).contains(&len));
    }
    public.is_ok() || parse_counter(data).is_ok() || parse_done(data).is_ok()
}
