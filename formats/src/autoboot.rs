//! `autoboot.txt`, by which the boot loader of a Raspberry Pi chooses a partition.
//!
//! ```text
//! [all]
//! tryboot_a_b=1            a tryboot reads config.txt as well, not tryboot.txt
//! boot_partition=2         what boots
//! [tryboot]
//! boot_partition=3         what boots once, after a restart with the argument "0 tryboot"
//! [none]                   what follows is for no board: ours
//! BOOT_ORDER=B A           the slots, as in `boot_vars`
//! BOOT_A_LEFT=9999999
//! BOOT_B_LEFT=3
//! racklet_asked=1a2b3c4d   the boot that spent the last try
//! ```
//!
//! The boot loader writes nothing and counts nothing. It boots the first partition, until it is asked for a
//! tryboot, and only for that one boot. So the file names the slots by [`Named::of`]:
//!
//! | flags | `[all]` | `[tryboot]` |
//! |---|---|---|
//! | a slot is confirmed | the confirmed slot that is preferred | the preferred slot, if it is not cleared |
//! | no slot is confirmed | the slot on trial that is preferred | the same slot |
//! | no slot is bootable | what it was | what `[all]` says |
//!
//! A cleared slot, which may be half written, is named nowhere. A slot whose tries are used up stays in `[tryboot]`
//! until it is cleared: its last try is spent before the restart that is to boot it.
//!
//! Source: Raspberry Pi documentation, "autoboot.txt" and "Conditional filters": at most 512 bytes, lines of at
//! most 98 characters, the filters `[all]`, `[none]` and `[tryboot]`, comments after `#`. What the boot loader makes
//! of anything else is not documented, and is refused.

use crate::boot_flags::{BootFlags, SlotFlags};
use crate::boot_record::{PerSlot, Slot};
use crate::boot_vars;

#[cfg(test)]
mod tests;

/// 512 bytes: what the boot loader reads of the file. Also one sector, which a medium writes as a whole.
pub const FILE_LIMIT: usize = 512;
/// 98 characters: what the boot loader reads of a line.
const LINE_LIMIT: usize = 98;
/// Partitions of a GPT as Linux makes it.
const PARTITION_LIMIT: u32 = 128;

const PARTITION: &str = "boot_partition";
const A_B: &str = "tryboot_a_b";
/// The boot that spent the last try.
const ASKED: &str = "racklet_asked";
/// What is ours, in the order in which it is written.
const OURS: [&str; 4] = [boot_vars::ORDER, "BOOT_A_LEFT", "BOOT_B_LEFT", ASKED];

/// Why bytes are no `autoboot.txt` that this program may change, or do not fit it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AutobootError {
    /// Longer than the boot loader reads, or empty.
    #[error("it has {0} bytes, not 1 to {FILE_LIMIT}")]
    Size(usize),
    /// A line whose meaning to the boot loader is not documented.
    #[error("line {0} is none that can stand there")]
    Line(usize),
    /// A line that must be there is missing.
    #[error("[all] has no {0}")]
    Missing(&'static str),
    /// A partition that is no slot's.
    #[error("[all] boots partition {0}, which is that of no slot")]
    Stranger(u32),
    /// The text needs more room.
    #[error("the text needs {needed} bytes and the file has {room}")]
    Full {
        /// Bytes it needs.
        needed: usize,
        /// Bytes there are.
        room: usize,
    },
}

/// The slots that the file names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    /// What boots.
    pub default: Slot,
    /// What boots once, after a restart that asks for it.
    pub tried: Slot,
}

impl Named {
    /// The slots to name for these flags; `now` is what boots at the moment.
    pub fn of(flags: BootFlags, now: Slot) -> Named {
        let flags = boot_vars::ranked(flags);
        let best = |fits: &dyn Fn(SlotFlags) -> bool| {
            let slots = Slot::BOTH.into_iter().filter(|slot| fits(*flags.of(*slot)));
            slots.max_by_key(|slot| flags.of(*slot).priority)
        };
        let confirmed = best(&SlotFlags::confirmed);
        let default = confirmed.or_else(|| best(&SlotFlags::bootable));
        let tried = match confirmed {
            Some(_) => best(&|own| own.priority > 0),
            None => default,
        };
        let default = default.unwrap_or(now);
        Named { default, tried: tried.unwrap_or(default) }
    }
}

/// Which of the filters lets a line through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Section {
    All,
    Tryboot,
    None,
}

/// The file. Comments are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Autoboot {
    comments: Vec<String>,
    default: u32,
    tried: u32,
    ours: Vec<(&'static str, String)>,
}

impl Autoboot {
    /// A file that boots one partition, and nothing else.
    pub fn new(default: u32) -> Self {
        Autoboot { comments: Vec::new(), default, tried: default, ours: Vec::new() }
    }

    /// Parses the whole file.
    ///
    /// # Errors
    ///
    /// The boot loader's rules leave open what it would boot, or a tryboot would read other files.
    pub fn parse(bytes: &[u8]) -> Result<Self, AutobootError> {
        if bytes.is_empty() || bytes.len() > FILE_LIMIT {
            return Err(AutobootError::Size(bytes.len()));
        }
        let (mut section, mut a_b, mut default, mut tried) = (Section::All, false, None, None);
        let (mut comments, mut ours) = (Vec::new(), Vec::new());
        for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
            let wrong = || AutobootError::Line(number);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let printable = line.iter().all(|byte| (b' '..=b'~').contains(byte));
            let line = std::str::from_utf8(line).ok().filter(|_| printable).ok_or_else(wrong)?;
            match (section, line.split_once('=')) {
                _ if line.len() > LINE_LIMIT => return Err(wrong()),
                _ if line.is_empty() => {}
                _ if line.starts_with('#') => comments.push(line.to_owned()),
                _ if line.starts_with('[') => {
                    // Each once, in this order: how filters combine otherwise is not documented for this file.
                    let next = filter(line).filter(|next| *next > section);
                    let begins = line == "[all]" && section == Section::All;
                    let first = begins && default.is_none() && !a_b;
                    section = next.or(first.then_some(Section::All)).ok_or_else(wrong)?;
                }
                (Section::All, Some((A_B, "1"))) if !a_b => a_b = true,
                (Section::All, Some((PARTITION, value))) if default.is_none() => {
                    default = Some(partition(value).ok_or_else(wrong)?);
                }
                (Section::Tryboot, Some((PARTITION, value))) if tried.is_none() => {
                    tried = Some(partition(value).ok_or_else(wrong)?);
                }
                (Section::None, Some((name, value))) => {
                    let known = OURS.into_iter().find(|known| *known == name);
                    let known = known.filter(|known| ours.iter().all(|(name, _)| name != known));
                    ours.push((known.ok_or_else(wrong)?, value.to_owned()));
                }
                _ => return Err(wrong()),
            }
        }
        let default = default.ok_or(AutobootError::Missing(PARTITION))?;
        if !a_b {
            return Err(AutobootError::Missing("tryboot_a_b=1"));
        }
        Ok(Autoboot { comments, default, tried: tried.unwrap_or(default), ours })
    }

    /// The flags of the slots on these partitions, as the boot loader acts.
    ///
    /// Where our lines contradict the boot loader's, its own decide: another program wrote them. Then the slot that
    /// boots counts as confirmed, and the other one as cleared.
    pub fn flags(&self, partitions: &PerSlot<u32>) -> Result<BootFlags, AutobootError> {
        let slot_of =
            |number: u32| Slot::BOTH.into_iter().find(|slot| *partitions.of(*slot) == number);
        let default = slot_of(self.default).ok_or(AutobootError::Stranger(self.default))?;
        let stored = boot_vars::slots(|name| self.own(name));
        let named = Named::of(stored, default);
        let agree = named.default == default && slot_of(self.tried) == Some(named.tried);
        if agree && stored.of(default).bootable() {
            return Ok(stored);
        }
        let mut flags = BootFlags::default();
        *flags.of_mut(default) = SlotFlags { priority: 2, tries: 0, successful: true };
        Ok(flags)
    }

    /// Says these flags from now on. `asked` is the boot that spends a try by it, if one does.
    pub fn set(
        &mut self,
        partitions: &PerSlot<u32>,
        flags: BootFlags,
        asked: Option<&str>,
    ) -> Result<(), AutobootError> {
        let now = Slot::BOTH.into_iter().find(|slot| *partitions.of(*slot) == self.default);
        let named = Named::of(flags, now.ok_or(AutobootError::Stranger(self.default))?);
        self.default = *partitions.of(named.default);
        self.tried = *partitions.of(named.tried);
        self.ours = boot_vars::variables(None, flags).to_vec();
        self.ours.extend(asked.map(|boot| (ASKED, short(boot))));
        Ok(())
    }

    /// Whether this boot has spent a try, and the flags have not changed since.
    pub fn asked_in(&self, boot: &str) -> bool {
        self.own(ASKED) == Some(&short(boot))
    }

    /// Whether a tryboot boots another partition than every other boot.
    pub fn tries_another(&self) -> bool {
        self.tried != self.default
    }

    /// The file of exactly `len` bytes; what it needs less is filled with empty lines.
    pub fn encode(&self, len: usize) -> Result<Vec<u8>, AutobootError> {
        if len == 0 || len > FILE_LIMIT {
            return Err(AutobootError::Size(len));
        }
        let mut lines = self.comments.clone();
        lines.extend(["[all]".to_owned(), format!("{A_B}=1")]);
        lines.push(format!("{PARTITION}={}", self.default));
        lines.extend(["[tryboot]".to_owned(), format!("{PARTITION}={}", self.tried)]);
        if !self.ours.is_empty() {
            lines.push("[none]".to_owned());
            lines.extend(self.ours.iter().map(|(name, value)| format!("{name}={value}")));
        }
        let mut bytes = lines.join("\n").into_bytes();
        bytes.push(b'\n');
        if bytes.len() > len {
            return Err(AutobootError::Full { needed: bytes.len(), room: len });
        }
        bytes.resize(len, b'\n');
        Ok(bytes)
    }

    fn own(&self, name: &str) -> Option<&str> {
        self.ours.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }
}

/// What the boot loader boots by a file, from the rules of its documentation alone: the model that the tests and
/// `boot-select --simulate` boot by. 0 stands for the first partition that it can boot.
///
/// Unlike [`Autoboot::parse`], it reads whatever is there, as the boot loader does.
pub fn boots(bytes: &[u8], tryboot: bool) -> u32 {
    let text = String::from_utf8_lossy(bytes.get(..FILE_LIMIT).unwrap_or(bytes)).into_owned();
    let (mut passes, mut found) = (true, 0);
    for line in text.lines() {
        match line {
            "[all]" => passes = true,
            "[tryboot]" => passes = passes && tryboot,
            _ if line.starts_with('[') => passes = false,
            _ => {
                let value = line.strip_prefix(PARTITION).and_then(|rest| rest.strip_prefix('='));
                if let Some(number) = value.filter(|_| passes).and_then(|text| text.parse().ok()) {
                    found = number;
                }
            }
        }
    }
    found
}

fn filter(line: &str) -> Option<Section> {
    match line {
        "[tryboot]" => Some(Section::Tryboot),
        "[none]" => Some(Section::None),
        _ => None,
    }
}

/// A decimal number of a partition.
fn partition(text: &str) -> Option<u32> {
    let digits = (1..=3).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| digits)?;
    (1..=PARTITION_LIMIT).contains(&number).then_some(number)
}

/// 8 characters of a boot id: random enough to tell boots apart, and short.
fn short(boot: &str) -> String {
    boot.chars().filter(char::is_ascii_alphanumeric).take(8).collect()
}
