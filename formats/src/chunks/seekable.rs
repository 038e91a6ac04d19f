//! The zstd seekable table (zstd `contrib/seekable_format` v0.1.1).

/// Length in bytes of the zstd seekable table of that many frames, without checksums: 8 bytes
/// skippable-frame header, 8 per frame, 9 footer (zstd `contrib/seekable_format` v0.1.1).
pub fn seekable_table_len(frames: u32) -> u64 {
    17 + 8 * u64::from(frames)
}

/// The zstd seekable table: for each frame its compressed and its raw length.
pub fn seekable_table(frames: &[(u32, u32)]) -> Vec<u8> {
    let count = u32::try_from(frames.len()).unwrap_or(u32::MAX);
    let mut out = Vec::new();
    out.extend_from_slice(&0x184D_2A5Eu32.to_le_bytes());
    let body = u32::try_from(seekable_table_len(count) - 8).unwrap_or(u32::MAX);
    out.extend_from_slice(&body.to_le_bytes());
    for (compressed, raw) in frames {
        out.extend_from_slice(&compressed.to_le_bytes());
        out.extend_from_slice(&raw.to_le_bytes());
    }
    out.extend_from_slice(&count.to_le_bytes());
    out.push(0);
    out.extend_from_slice(&0x8F92_EAB1u32.to_le_bytes());
    out
}
