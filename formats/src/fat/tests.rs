use proptest::prelude::*;

use super::*;

/// The boot sector that `mkfs.fat` makes for these figures; the other fields do not matter here.
fn sector(per_cluster: u8, entries: u16, sectors: u32, table: u32) -> [u8; BOOT_SECTOR] {
    let mut bytes = [0; BOOT_SECTOR];
    bytes[11..13].copy_from_slice(&512_u16.to_le_bytes());
    bytes[13] = per_cluster;
    bytes[14..16].copy_from_slice(&(if entries == 0 { 32_u16 } else { 1 }).to_le_bytes());
    bytes[16] = 2;
    bytes[17..19].copy_from_slice(&entries.to_le_bytes());
    match u16::try_from(sectors) {
        Ok(small) => bytes[19..21].copy_from_slice(&small.to_le_bytes()),
        Err(_) => bytes[32..36].copy_from_slice(&sectors.to_le_bytes()),
    }
    match entries {
        0 => {
            bytes[36..40].copy_from_slice(&table.to_le_bytes());
            bytes[44..48].copy_from_slice(&2_u32.to_le_bytes());
        }
        _ => bytes[22..24].copy_from_slice(&u16::try_from(table).unwrap().to_le_bytes()),
    }
    bytes[510..].copy_from_slice(&[0x55, 0xaa]);
    bytes
}

const MIB: u64 = 1 << 20;

#[test]
fn the_parts_of_a_volume_follow_from_its_boot_sector() {
    // As `mkfs.fat -F 12 -s 4`, `-F 16` and `-F 32` lay out 1, 16 and 64 MiB.
    let fat12 = Volume::parse(&sector(4, 512, 2048, 2), MIB).unwrap();
    assert_eq!(fat12.root(), &Root::Region(5 * 512..37 * 512));
    assert_eq!(fat12.cluster(2), Some(37 * 512..41 * 512));
    assert_eq!((fat12.cluster(1), fat12.cluster(503)), (None, Some(2041 * 512..2045 * 512)));
    assert_eq!(fat12.cluster(504), None, "three sectors are left, which are no cluster");

    let fat16 = Volume::parse(&sector(4, 512, 32_768, 32), 16 * MIB).unwrap();
    assert_eq!(fat16.root(), &Root::Region(65 * 512..97 * 512));

    let fat32 = Volume::parse(&sector(1, 0, 131_072, 1009), 64 * MIB).unwrap();
    assert_eq!(fat32.root(), &Root::Chain(2));
    assert_eq!(fat32.cluster(2), Some(2050 * 512..2051 * 512));
    assert_eq!(fat32.link(2), 32 * 512 + 8);
    assert_eq!(fat32.next(3_u32.to_le_bytes()), Some(3));
    // The upper four bits are reserved.
    assert_eq!(fat32.next(0xf000_0003_u32.to_le_bytes()), Some(3));
    for end in [0x0fff_ffff_u32, 0x0fff_fff8, 0x0fff_fff7, 0, 1] {
        assert_eq!(fat32.next(end.to_le_bytes()), None);
    }
}

#[test]
fn what_is_no_fat_is_refused() {
    let good = sector(4, 512, 2048, 2);
    let changed = |at: usize, value: u8| {
        let mut bytes = good;
        bytes[at] = value;
        Volume::parse(&bytes, MIB)
    };
    assert!(changed(0, 0xeb).is_ok());
    for (name, at, value) in [
        ("no signature", 510, 0),
        ("sectors of 768 bytes", 12, 3),
        ("clusters of 3 sectors", 13, 3),
        ("clusters of no sector", 13, 0),
        ("no reserved sector", 14, 0),
        ("no table", 16, 0),
        ("a table of no sector", 22, 0),
        ("tables longer than the volume", 23, 0xff),
    ] {
        assert_eq!(changed(at, value), Err(FatError::NotFat), "{name}");
    }
    let short = FatError::Short { claimed: MIB, there: MIB - 1 };
    assert_eq!(Volume::parse(&good, MIB - 1), Err(short));
}

#[test]
fn a_name_is_found_among_others() {
    let entry = |name: &[u8; 11], attributes: u8, cluster: u32, len: u32| {
        let mut bytes = [0; ENTRY];
        bytes[..11].copy_from_slice(name);
        bytes[11] = attributes;
        bytes[20..22].copy_from_slice(&(cluster >> 16).to_le_bytes()[..2]);
        bytes[26..28].copy_from_slice(&cluster.to_le_bytes()[..2]);
        bytes[28..].copy_from_slice(&len.to_le_bytes());
        bytes
    };
    let name = b"AUTOBOOTTXT";
    let others = [
        entry(name, LABEL, 0, 0),
        entry(name, DIRECTORY, 9, 0),
        entry(b"\xe5UTOBOOTTXT", 0x20, 9, 9),
        entry(b"CONFIG  TXT", 0x20, 9, 9),
        entry(b"Aa\0u\0t\0o\0b\0", 0x0f, 9, 9),
    ]
    .concat();
    let file = FileEntry { cluster: 0x0001_0203, len: 256 };
    let all = [others.clone(), entry(name, 0x20, 0x0001_0203, 256).to_vec()].concat();
    assert_eq!(find(&all, name), Found::File(file));
    assert_eq!(find(&others, name), Found::More);
    assert_eq!(find(&[others, vec![0; ENTRY], all].concat(), name), Found::End);
}

proptest! {
    #[test]
    fn strangers_never_panic(bytes in proptest::collection::vec(any::<u8>(), BOOT_SECTOR), len: u64, number: u32) {
        let mut sector: [u8; BOOT_SECTOR] = bytes.clone().try_into().unwrap();
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        if let Ok(volume) = Volume::parse(&sector, len) {
            if let Some(range) = volume.cluster(number) {
                prop_assert!(range.end <= len);
            }
            let _ = (volume.link(number), volume.next(number.to_le_bytes()));
        }
        let _ = find(&bytes, b"AUTOBOOTTXT");
    }
}
