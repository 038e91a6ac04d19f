//! What the chooser tells the kernel it starts, for the slot's initramfs and for the agent.
//!
//! | word | read by | meaning |
//! |---|---|---|
//! | `racklet.root=SLOT:PARTUUID:ROOT-HASH:DATA-BLOCKS:HASH-OFFSET:SALT` | the slot's initramfs | the signed tree that `/` is read through; the salt is `-` when empty |
//! | `racklet.floor=N` | the agent | the floor of the TPM that was applied |
//! | `racklet.floor=none:WHY` | the agent | no floor was applied: a [`Gap`] |
//!
//! Everything of the tree is passed, because its superblock on the disk is not signed. Words of the
//! chooser come last, and of words said twice the last one counts, as in the kernel.

use std::fmt;

use formats::boot_record::Slot;
use formats::digest::Sha256;
use formats::gpt::Guid;
use formats::verity::Verity;

use super::Approved;
use crate::floor::Tpm;

const ROOT: &str = "racklet.root=";
const FLOOR: &str = "racklet.floor=";

/// The file system that becomes `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// Its slot.
    pub slot: Slot,
    /// Its partition.
    pub partition: Guid,
    /// Its signed tree.
    pub verity: Verity,
}

/// Why a command line says nothing about `/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// No chooser started this kernel.
    #[error("the kernel command line has no {ROOT}…: this kernel was not started by the chooser")]
    Missing,
    /// It is not of this form.
    #[error("{ROOT}… on the kernel command line: {0}")]
    Form(&'static str),
}

impl Root {
    /// The word for the kernel.
    pub fn word(&self) -> String {
        let Verity { root_hash, salt, data_blocks, hash_offset } = &self.verity;
        let salt = if salt.is_empty() { "-" } else { salt };
        let (slot, partition) = (self.slot, self.partition);
        format!("{ROOT}{slot}:{partition}:{root_hash}:{data_blocks}:{hash_offset}:{salt}")
    }

    /// What the chooser said. Never guesses: a word that is wrong anywhere is an error.
    pub fn of_command_line(line: &str) -> Result<Self, RootError> {
        let word = last(line, ROOT).ok_or(RootError::Missing)?;
        let form = RootError::Form;
        let parts: Vec<&str> = word.split(':').collect();
        let [slot, partition, root_hash, data_blocks, hash_offset, salt] = parts[..] else {
            return Err(form("it has not six parts"));
        };
        let slot = match slot {
            "a" => Slot::A,
            "b" => Slot::B,
            _ => return Err(form("the slot is neither a nor b")),
        };
        let number = |text: &str| text.parse::<u64>().map_err(|_| form("a number is none"));
        let verity = Verity {
            root_hash: Sha256::from_hex(root_hash).map_err(|_| form("the root hash is none"))?,
            salt: if salt == "-" { String::new() } else { salt.to_owned() },
            data_blocks: number(data_blocks)?,
            hash_offset: number(hash_offset)?,
        };
        // The length of the partition is the kernel's to compare.
        verity.check(u64::MAX).map_err(|error| form(error.0))?;
        let partition = partition.parse().map_err(|_| form("the partition is no GUID"))?;
        Ok(Root { slot, partition, verity })
    }
}

/// The program that `init=` names, if it does.
pub fn init_of_command_line(line: &str) -> Option<&str> {
    last(line, "init=").filter(|program| program.starts_with('/'))
}

fn last<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.split_ascii_whitespace().filter_map(|word| word.strip_prefix(key)).next_back()
}

/// Why no floor could be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gap {
    /// There is no TPM, it does not answer, it is locked, or the index is somebody else's.
    Unusable,
    /// The TPM has no counter: none was made yet, or it was cleared.
    NoCounter,
    /// The counter stands below its own beginning, which a TPM never does.
    Contradiction,
    /// It is above every slot that could be booted: an old disk, or a counter that somebody raised.
    AboveAll,
}

impl Gap {
    /// All of them.
    pub const ALL: [Gap; 4] = [Gap::Unusable, Gap::NoCounter, Gap::Contradiction, Gap::AboveAll];

    /// The stable word.
    pub fn code(self) -> &'static str {
        match self {
            Gap::Unusable => "unusable",
            Gap::NoCounter => "no_counter",
            Gap::Contradiction => "contradiction",
            Gap::AboveAll => "above_all",
        }
    }
}

/// The floor, as far as a chooser can know it. It has the TPM alone: the agent's file lies on a
/// partition that the chooser does not mount, and that whoever replaces the disk replaces with it.
///
/// | the TPM | the chooser |
/// |---|---|
/// | not configured | [`ChooserFloor::Unset`]: boots what is signed |
/// | a counter of ours | [`ChooserFloor::At`]: refuses a slot whose signed security version is below it |
/// | the same, and no other slot can be booted | [`ChooserFloor::Open`] with [`Gap::AboveAll`] ([`super::Round`]) |
/// | anything else | [`ChooserFloor::Open`]: boots what is signed, says why, and the agent refuses updates |
///
/// The agent never raises the counter above the lowest security version of the slots that may still
/// boot (S5, explored in `update::explore`), so on a node that was not tampered with no slot is ever
/// refused for it, and reverting stays possible. A chooser cannot tell a counter that somebody raised
/// from an old disk. So no state of a TPM keeps a node from booting: a floor that is above every slot
/// costs none its flags, and the agent, which starts with `above_all`, refuses what is below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChooserFloor {
    /// No TPM is configured.
    Unset,
    /// The counter stands for this.
    At(u64),
    /// It cannot be known.
    Open(Gap),
}

impl ChooserFloor {
    /// What the TPM's answer means here.
    pub fn of(tpm: &Tpm) -> Self {
        match tpm {
            Tpm::NotConfigured => ChooserFloor::Unset,
            Tpm::NoCounter => ChooserFloor::Open(Gap::NoCounter),
            Tpm::Unusable(_) => ChooserFloor::Open(Gap::Unusable),
            Tpm::Counter { mark, value, .. } => match mark.floor(*value) {
                Some(floor) => ChooserFloor::At(floor),
                None => ChooserFloor::Open(Gap::Contradiction),
            },
        }
    }

    /// Refuses what is below it.
    pub fn admit(self, release: &Approved) -> Result<(), BelowFloor> {
        match self {
            ChooserFloor::At(floor) if release.security_version() < floor => {
                Err(BelowFloor { security_version: release.security_version(), floor })
            }
            _ => Ok(()),
        }
    }

    /// The word for the kernel; none when no TPM is configured.
    pub fn word(self) -> Option<String> {
        match self {
            ChooserFloor::Unset => None,
            _ => Some(format!("{FLOOR}{self}")),
        }
    }

    /// What the chooser of this boot said; [`ChooserFloor::Unset`] when it said nothing that is known.
    pub fn of_command_line(line: &str) -> Self {
        let Some(word) = last(line, FLOOR) else { return ChooserFloor::Unset };
        let gap = word.strip_prefix("none:");
        let gap = gap.and_then(|code| Gap::ALL.into_iter().find(|gap| gap.code() == code));
        match (gap, word.parse()) {
            (Some(gap), _) => ChooserFloor::Open(gap),
            (None, Ok(floor)) => ChooserFloor::At(floor),
            (None, Err(_)) => ChooserFloor::Unset,
        }
    }
}

impl fmt::Display for ChooserFloor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChooserFloor::Unset => f.write_str("none"),
            ChooserFloor::At(floor) => floor.fmt(f),
            ChooserFloor::Open(gap) => write!(f, "none:{}", gap.code()),
        }
    }
}

/// A slot whose release is older than the floor allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("security version {security_version} is below the TPM's floor {floor}: an older disk?")]
pub struct BelowFloor {
    /// The release's.
    pub security_version: u64,
    /// The TPM's.
    pub floor: u64,
}

#[cfg(test)]
mod tests {
    use formats::tpm::Mark;

    use crate::floor::Hold;

    use super::*;

    fn root(salt: &str) -> Root {
        let verity = Verity {
            root_hash: Sha256::of(b"root"),
            salt: salt.to_owned(),
            data_blocks: 14336,
            hash_offset: 14336 * 4096,
        };
        let partition = "0fc63daf-8483-4772-8e79-3d69d8477de4".parse().unwrap();
        Root { slot: Slot::B, partition, verity }
    }

    #[test]
    fn the_initramfs_reads_what_the_chooser_said() {
        for salt in ["", "00ff"] {
            let root = root(salt);
            let line = format!("console=ttyS0 {} quiet\n", root.word());
            assert_eq!(Root::of_command_line(&line), Ok(root));
        }
    }

    /// The signed options come first, so they cannot point `/` elsewhere by accident.
    #[test]
    fn the_last_word_counts() {
        let (first, last) = (root("aa"), root("bb"));
        let line = format!("{} init=/a {} init=relative init=/b", first.word(), last.word());
        assert_eq!(Root::of_command_line(&line), Ok(last));
        assert_eq!(init_of_command_line(&line), Some("/b"));
        assert_eq!(init_of_command_line("init=/a init=b"), None, "a program without a path");
        assert_eq!(init_of_command_line("rdinit=/a"), None);
    }

    #[test]
    fn what_is_not_of_the_form_is_an_error() {
        let good = root("00ff").word();
        assert_eq!(Root::of_command_line("roothash=00"), Err(RootError::Missing));
        let hash = Sha256::of(b"root").to_string();
        for (what, from, to) in [
            ("slot", "=b:", "=c:"),
            ("partition", "0fc63daf", "fc63daf"),
            ("root hash", hash.as_str(), "00"),
            ("no number", ":14336:", ":many:"),
            ("no data", ":14336:", ":0:"),
            ("tree before the data's end", ":58720256:", ":4096:"),
            ("tree within a block", ":58720256:", ":58720257:"),
            ("salt", ":00ff", ":00fg"),
            ("a part less", ":00ff", ""),
            ("a part more", ":00ff", ":00ff:1"),
        ] {
            let line = good.replace(from, to);
            assert_ne!(line, good, "{what}");
            assert!(matches!(Root::of_command_line(&line), Err(RootError::Form(_))), "{what}");
        }
    }

    fn release(security_version: u64) -> Approved {
        let version = "1.0.0".parse().unwrap();
        Approved { version, security_version, verity: root("").verity }
    }

    #[test]
    fn the_table_of_the_floor() {
        let mark = Mark { base: 100, origin: 3 };
        let rows = [
            ("no TPM configured", Tpm::NotConfigured, None, "none", [true, true, true]),
            (
                "no counter yet, or cleared",
                Tpm::NoCounter,
                Some("none:no_counter"),
                "none:no_counter",
                [true, true, true],
            ),
            (
                "absent, locked, somebody else's",
                Tpm::Unusable("no such device".to_owned()),
                Some("none:unusable"),
                "none:unusable",
                [true, true, true],
            ),
            (
                "below its beginning",
                Tpm::Counter { mark, value: 99, hold: Hold::Unknown },
                Some("none:contradiction"),
                "none:contradiction",
                [true, true, true],
            ),
            (
                "fresh",
                Tpm::Counter { mark, value: 100, hold: Hold::Unknown },
                Some("3"),
                "3",
                [false, true, true],
            ),
            (
                "raised",
                Tpm::Counter { mark, value: 102, hold: Hold::Unknown },
                Some("5"),
                "5",
                [false, false, true],
            ),
        ];
        for (name, tpm, word, shown, admitted) in rows {
            let floor = ChooserFloor::of(&tpm);
            assert_eq!(floor.word(), word.map(|word| format!("{FLOOR}{word}")), "{name}");
            assert_eq!(floor.to_string(), shown, "{name}");
            let found = [2, 3, 5].map(|version| floor.admit(&release(version)).is_ok());
            assert_eq!(found, admitted, "{name}");
            let line = format!("quiet {}", floor.word().unwrap_or_default());
            assert_eq!(ChooserFloor::of_command_line(&line), floor, "{name}: read back");
        }
        for gap in Gap::ALL {
            let line = ChooserFloor::Open(gap).word().unwrap_or_default();
            assert_eq!(ChooserFloor::of_command_line(&line), ChooserFloor::Open(gap));
        }
        assert_eq!(ChooserFloor::of_command_line("racklet.floor=x"), ChooserFloor::Unset);
    }
}
