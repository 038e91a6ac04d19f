//! U-Boot's environment as it lies on a medium: a checksum, maybe a flag, and variables.
//!
//! | offset | size | single copy | one of two copies |
//! |---|---|---|---|
//! | 0 | 4 | CRC-32 of the data, little endian | the same |
//! | 4 | 1 | data begins | flag: which copy is newer |
//! | 5 | … | | data begins |
//!
//! The data is `name=value` texts that each end in a zero byte, then one more zero byte, then
//! padding; the checksum covers all of it. Whether there is a flag is decided when U-Boot is built
//! (`CONFIG_SYS_REDUNDAND_ENVIRONMENT`), and nothing in the bytes says so but the checksum.
//!
//! U-Boot stores the checksum as its processor orders bytes; all nodes here are little endian.
//!
//! Which of two good copies counts ([`FlagRule`]) is U-Boot's and libubootenv's rule, also for equal
//! flags: the first copy.

use std::fmt;

/// Bytes of the checksum.
const CRC_LEN: usize = 4;

/// 64 bytes to 1 MiB: U-Boot's are 8 to 128 KiB.
pub const SIZE_RANGE: std::ops::RangeInclusive<u64> = 64..=1 << 20;

/// Why bytes are not a copy of an environment, or variables do not fit one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UbootEnvError {
    /// The checksum is not that of the data: never written, torn, or of another layout.
    #[error("the checksum does not hold")]
    Checksum,
    /// The variables have no end.
    #[error("the list of variables has no end")]
    Endless,
    /// Too short or too long to be one.
    #[error("{0} bytes are no environment")]
    Size(u64),
    /// A name or value that cannot be stored.
    #[error("{0:?} cannot be a variable of U-Boot")]
    Variable(String),
    /// The variables need more room.
    #[error("the variables need {needed} bytes of {room}; remove some with fw_setenv")]
    Full {
        /// Bytes they need.
        needed: usize,
        /// Bytes there are.
        room: usize,
    },
}

/// Whether copies carry a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One copy, without a flag.
    Single,
    /// Two copies, each with a flag.
    Redundant,
}

impl Layout {
    fn data_offset(self) -> usize {
        match self {
            Layout::Single => CRC_LEN,
            Layout::Redundant => CRC_LEN + 1,
        }
    }
}

/// Which of two good copies counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum FlagRule {
    /// The flag counts up with each write, 255 to 0: eMMC, SD, files, UBI, NAND.
    #[default]
    Incrementing,
    /// 1 is active, 0 obsolete: NOR flash, where one byte can be cleared without an erase.
    ActiveObsolete,
}

impl FlagRule {
    /// The copy that counts, 0 or 1, when both checksums hold.
    pub fn newer(self, flags: [u8; 2]) -> usize {
        let second = match (self, flags) {
            (FlagRule::Incrementing, [0xff, 0]) => true,
            (FlagRule::Incrementing, [0, 0xff]) => false,
            (FlagRule::ActiveObsolete, [_, 0xff]) => true,
            (FlagRule::ActiveObsolete, [0xff, _]) => false,
            (_, [first, second]) => second > first,
        };
        usize::from(second)
    }

    /// The flag of the next copy, after one with `current` counts.
    pub fn next(self, current: u8) -> u8 {
        match self {
            FlagRule::Incrementing => current.wrapping_add(1),
            FlagRule::ActiveObsolete => ACTIVE,
        }
    }
}

/// The flag of an active copy where copies are marked, not counted.
pub const ACTIVE: u8 = 1;
/// The flag of an obsolete copy where copies are marked, not counted.
pub const OBSOLETE: u8 = 0;

/// Variables of an environment, in their order; what we do not know is kept byte for byte.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Env {
    /// `name=value`, without zero bytes, none empty.
    entries: Vec<Vec<u8>>,
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.entries.iter().map(|entry| String::from_utf8_lossy(entry));
        f.debug_list().entries(shown).finish()
    }
}

impl Env {
    /// The value of a variable, if it is text.
    pub fn get(&self, name: &str) -> Option<&str> {
        let value = self.entries.iter().find_map(|entry| value_of(entry, name))?;
        std::str::from_utf8(value).ok()
    }

    /// Sets a variable; where there is none of that name it comes last.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), UbootEnvError> {
        let good_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && b != b'=');
        if !good_name || value.contains('\0') {
            return Err(UbootEnvError::Variable(
                format!("{name}={value}").chars().take(80).collect(),
            ));
        }
        let entry = format!("{name}={value}").into_bytes();
        let there = self.entries.iter().position(|entry| value_of(entry, name).is_some());
        match there.and_then(|index| self.entries.get_mut(index)) {
            Some(old) => *old = entry,
            None => self.entries.push(entry),
        }
        Ok(())
    }

    /// Names and values that are text.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().filter_map(|entry| std::str::from_utf8(entry).ok()?.split_once('='))
    }

    fn parse(data: &[u8]) -> Result<Self, UbootEnvError> {
        let mut entries = Vec::new();
        for entry in data.split(|byte| *byte == 0) {
            if entry.is_empty() {
                return Ok(Env { entries });
            }
            entries.push(entry.to_vec());
        }
        // No empty entry ends the list: a boot loader would read on past it.
        Err(UbootEnvError::Endless)
    }
}

fn value_of<'a>(entry: &'a [u8], name: &str) -> Option<&'a [u8]> {
    entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

/// One copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvCopy {
    /// Its variables.
    pub env: Env,
    /// Its flag; 0 where copies have none.
    pub flag: u8,
}

impl EnvCopy {
    /// Parses the bytes of one copy, all of them.
    pub fn parse(bytes: &[u8], layout: Layout) -> Result<Self, UbootEnvError> {
        let size_error = UbootEnvError::Size(bytes.len() as u64);
        if !SIZE_RANGE.contains(&(bytes.len() as u64)) {
            return Err(size_error);
        }
        let (crc, _) = bytes.split_first_chunk::<CRC_LEN>().ok_or(size_error.clone())?;
        let data = bytes.get(layout.data_offset()..).ok_or(size_error)?;
        if crc32fast::hash(data) != u32::from_le_bytes(*crc) {
            return Err(UbootEnvError::Checksum);
        }
        let flag = match layout {
            Layout::Single => 0,
            Layout::Redundant => bytes.get(CRC_LEN).copied().unwrap_or(0),
        };
        Ok(EnvCopy { env: Env::parse(data)?, flag })
    }

    /// The bytes of a copy of `size` bytes, padded with zeros as U-Boot does.
    pub fn encode(&self, size: u64, layout: Layout) -> Result<Vec<u8>, UbootEnvError> {
        let wrong = UbootEnvError::Size(size);
        let size = usize::try_from(size).map_err(|_| wrong.clone())?;
        if !SIZE_RANGE.contains(&(size as u64)) {
            return Err(wrong);
        }
        let mut data = Vec::with_capacity(size);
        for entry in &self.env.entries {
            data.extend_from_slice(entry);
            data.push(0);
        }
        data.push(0);
        if self.env.entries.is_empty() {
            data.push(0);
        }
        let room = size - layout.data_offset();
        if data.len() > room {
            return Err(UbootEnvError::Full { needed: data.len(), room });
        }
        data.resize(room, 0);
        let mut bytes = crc32fast::hash(&data).to_le_bytes().to_vec();
        if layout == Layout::Redundant {
            bytes.push(self.flag);
        }
        bytes.extend_from_slice(&data);
        Ok(bytes)
    }
}

/// Where a copy lies, by a line of `fw_env.config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvPlace {
    /// Device or file.
    pub device: String,
    /// First byte; below zero it is counted from the device's end.
    pub offset: i64,
    /// Bytes of the copy.
    pub size: u64,
}

/// A `fw_env.config` that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvConfigError {
    /// A line that is not `device offset size …`.
    #[error("line {line}: {why}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        why: &'static str,
    },
    /// No copies, or more than two.
    #[error("it names {0} copies; an environment has one or two")]
    Copies(usize),
    /// Copies of different sizes.
    #[error("the two copies differ in size")]
    Sizes,
    /// Copies on top of each other: U-Boot would destroy one with the other.
    #[error("the two copies overlap")]
    Overlap,
}

/// Parses a `fw_env.config` (not its YAML form): the copies in U-Boot's order, one or two.
///
/// Numbers in C's spelling. Sizes must be written in hexadecimal with `0x`: libubootenv reads every
/// size as hexadecimal, other tools do not. What follows them (sector size and count) matters for
/// flash only.
pub fn parse_config(text: &str) -> Result<Vec<EnvPlace>, EnvConfigError> {
    let mut places: Vec<EnvPlace> = Vec::new();
    for (index, text) in text.lines().enumerate() {
        let failed = |why| EnvConfigError::Line { line: index + 1, why };
        let mut words = text.split_ascii_whitespace();
        let device = match words.next() {
            None => continue,
            Some(word) if word.starts_with('#') => continue,
            Some(word) => word.to_owned(),
        };
        let offset = words.next().and_then(c_number).ok_or(failed("no offset"))?;
        let size = words.next().ok_or(failed("no size"))?;
        if !size.starts_with("0x") && !size.starts_with("0X") {
            return Err(failed("write the size in hexadecimal, with 0x: tools disagree on others"));
        }
        let size = c_number(size).and_then(|size| u64::try_from(size).ok());
        let size = size.filter(|size| SIZE_RANGE.contains(size));
        let size = size.ok_or(failed("the size is not 0x40 to 0x100000"))?;
        places.push(EnvPlace { device, offset, size });
    }
    match places.as_slice() {
        [_] => {}
        [one, two] if one.size != two.size => return Err(EnvConfigError::Sizes),
        [one, two]
            if one.device == two.device
                && (one.offset < 0) == (two.offset < 0)
                && one.offset.abs_diff(two.offset) < one.size =>
        {
            return Err(EnvConfigError::Overlap);
        }
        [_, _] => {}
        other => return Err(EnvConfigError::Copies(other.len())),
    }
    Ok(places)
}

/// A number as C's `strtoll` with base 0 reads it: `0x…`, `0…` (octal) or decimal.
fn c_number(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    if !digits.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let hexadecimal = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
    let number = match (hexadecimal, digits.strip_prefix('0')) {
        (Some(digits), _) => i64::from_str_radix(digits, 16).ok()?,
        (None, Some(digits)) if !digits.is_empty() => i64::from_str_radix(digits, 8).ok()?,
        _ => digits.parse().ok()?,
    };
    Some(if negative { -number } else { number })
}

#[cfg(test)]
mod tests;
