//! A FAT with one file, for media in memory. The tests compare it with what `mkfs.fat` and `mcopy` make.

/// Bytes of the volume.
pub const VOLUME: usize = 64 << 10;
/// Where the file begins: behind boot sector, two tables and a root directory of one sector.
pub const FILE: usize = 4 * 512;

/// A FAT12 of [`VOLUME`] bytes whose root directory holds `autoboot.txt`.
pub fn with_autoboot(content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; VOLUME];
    let mut put = |at: usize, what: &[u8]| bytes[at..at + what.len()].copy_from_slice(what);
    let sectors = u16::try_from(VOLUME / 512).expect("a small volume");
    // Jump, then: 512 bytes a sector, one a cluster, one reserved, two tables of one sector, 16 entries;
    // sectors, kind of medium, length of a table, and the geometry that old readers want.
    put(0, &[0xeb, 0x3c, 0x90]);
    put(3, b"mkfs.fat");
    put(11, &512_u16.to_le_bytes());
    put(13, &[1, 1, 0, 2, 16, 0]);
    put(19, &sectors.to_le_bytes());
    put(21, &[0xf8, 1, 0, 16, 0, 2, 0]);
    put(38, b"\x29\0\0\0\0NO NAME    FAT12   ");
    put(510, &[0x55, 0xaa]);
    for table in [512, 1024] {
        // Cluster 2 is the last one of its file.
        put(table, &[0xf8, 0xff, 0xff, 0xff, 0x0f]);
    }
    put(1536, b"AUTOBOOTTXT\x20");
    put(1536 + 26, &2_u16.to_le_bytes());
    put(1536 + 28, &u32::try_from(content.len()).expect("a small file").to_le_bytes());
    put(FILE, content);
    bytes
}
