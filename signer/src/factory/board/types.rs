//! Kinds of machines, and the types of partitions.

use formats::gpt::Guid;
use serde::Deserialize;

/// What the machine is: it decides the type of the root partitions (Discoverable Partitions Specification) and the
/// name of the program that firmware starts (UEFI 2.10 §3.5.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Architecture {
    /// 64-bit PC.
    #[serde(rename = "x86-64")]
    X86_64,
    /// ARMv8.
    #[serde(rename = "arm64")]
    Arm64,
    /// 32-bit ARM.
    #[serde(rename = "arm")]
    Arm,
}

impl Architecture {
    /// The type of a root partition.
    pub fn root_type(self) -> Guid {
        guid(match self {
            Architecture::X86_64 => "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
            Architecture::Arm64 => "b921b045-1df0-41c3-af44-4c6f280d3fae",
            Architecture::Arm => "69dad710-2ce4-4e3c-b16c-21a1d49abed3",
        })
    }

    /// The file on the ESP that firmware starts when nothing else is configured.
    pub fn removable_program(self) -> &'static str {
        match self {
            Architecture::X86_64 => "EFI/BOOT/BOOTX64.EFI",
            Architecture::Arm64 => "EFI/BOOT/BOOTAA64.EFI",
            Architecture::Arm => "EFI/BOOT/BOOTARM.EFI",
        }
    }

    /// What `mkimage` calls it.
    pub fn of_mkimage(self) -> &'static str {
        match self {
            Architecture::X86_64 => "x86_64",
            Architecture::Arm64 => "arm64",
            Architecture::Arm => "arm",
        }
    }
}

/// The type of an EFI system partition (UEFI 2.10 §5.3.3).
pub fn esp_type() -> Guid {
    guid("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
}

/// The type of a FAT that is nothing more special, which a Raspberry Pi reads (Microsoft's "basic data").
pub fn fat_type() -> Guid {
    guid("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7")
}

/// The type of what no system should mount (Linux's "reserved").
pub fn reserved_type() -> Guid {
    guid("8da63339-0007-60c0-c436-083ac8230908")
}

fn guid(text: &str) -> Guid {
    text.parse().expect("a constant of the right form")
}
