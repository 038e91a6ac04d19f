//! What is looked at of a file, and its name as a shell reads it. Pure.

/// 128 KiB: partition tables and every superblock that tells a file system from a disk lie in it.
pub const HEAD: usize = 128 << 10;
/// 512 bytes: the footers of virtual disks.
pub const TAIL: usize = 512;

/// What is looked at of a file.
#[derive(Debug, Clone, Copy)]
pub struct Probe<'a> {
    /// Its length in bytes.
    pub len: u64,
    /// Its first [`HEAD`] bytes, or all of them.
    pub head: &'a [u8],
    /// Its last [`TAIL`] bytes, or all of them.
    pub tail: &'a [u8],
}

impl Probe<'_> {
    /// Whether these bytes stand there.
    pub fn has(&self, offset: usize, magic: &[u8]) -> bool {
        self.head.get(offset..).is_some_and(|rest| rest.starts_with(magic))
    }

    pub(super) fn byte(&self, offset: usize) -> u8 {
        self.head.get(offset).copied().unwrap_or_default()
    }
}

/// As a shell reads it back.
pub(super) fn quoted(path: &str) -> String {
    let plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | '+' | '=');
    // A file that looks like an option is one to most programs.
    let path = if path.starts_with('-') { format!("./{path}") } else { path.to_owned() };
    if !path.is_empty() && path.chars().all(plain) {
        return path;
    }
    format!("'{}'", path.replace('\'', r"'\''"))
}
