//! Board profiles: how the disk of a kind of machine is laid out, and which boot loader starts it.
//!
//! `docs/first-disk.md` documents the file; `signer/boards/` has one for each boot loader.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use formats::gpt::Guid;
use formats::release::ComponentName;
use serde::Deserialize;
use update_agent::config::DEFAULT_PATH;

use crate::policy::parse_size;

/// A board profile.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Board {
    /// What starts the slots.
    pub loader: Loader,
    /// What the machine is.
    pub architecture: Architecture,
    /// The partition of the boot loader; for loaders that have one.
    #[serde(default)]
    pub esp: Option<Esp>,
    /// What the kernel is and is told; for loaders that have an entry per slot.
    #[serde(default)]
    pub kernel: Kernel,
    /// Where the agent's configuration lies on the node.
    #[serde(default = "config_path")]
    pub config: PathBuf,
    /// Bytes of the place of each component in one slot.
    pub slots: BTreeMap<ComponentName, Size>,
    /// What is kept through updates.
    pub data: Data,
}

/// What starts the slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loader {
    /// systemd-boot on an EFI system partition.
    SystemdBoot,
    /// A chooser in the firmware that reads the attributes of the partitions.
    Chooser,
}

impl Loader {
    /// What it is called in messages.
    pub fn name(self) -> &'static str {
        match self {
            Loader::SystemdBoot => "systemd-boot",
            Loader::Chooser => "a chooser",
        }
    }

    /// The value of `boot.backend` in the node's configuration.
    pub fn backend(self) -> &'static str {
        match self {
            Loader::SystemdBoot => "systemd-boot",
            Loader::Chooser => "gpt-attributes",
        }
    }
}

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
}

/// The type of an EFI system partition (UEFI 2.10 §5.3.3).
pub fn esp_type() -> Guid {
    guid("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
}

fn guid(text: &str) -> Guid {
    text.parse().expect("a constant of the right form")
}

/// `[esp]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Esp {
    /// Its length.
    pub size: Size,
    /// The boot loader's program, on the machine that builds the disk.
    pub program: PathBuf,
}

/// `[kernel]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kernel {
    /// The component that holds the kernel, or a unified kernel image.
    pub linux: ComponentName,
    /// The component that holds the initrd; used where the node has it.
    pub initrd: ComponentName,
    /// Further words of the kernel's command line.
    pub options: String,
}

impl Default for Kernel {
    fn default() -> Self {
        let name = |text: &str| text.parse().expect("a component's name");
        Kernel { linux: name("kernel"), initrd: name("initrd"), options: String::new() }
    }
}

/// `[data]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Its length.
    pub size: Size,
    /// The label of its partition.
    #[serde(default = "data_label")]
    pub label: String,
    /// Where the node mounts it.
    #[serde(default = "data_mount")]
    pub mount: PathBuf,
}

fn config_path() -> PathBuf {
    DEFAULT_PATH.into()
}

fn data_label() -> String {
    "data".to_owned()
}

fn data_mount() -> PathBuf {
    "/var".into()
}

/// A number of bytes, written `512KiB`, `16MiB` or `2GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Size(pub u64);

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        parse_size(&text).map(Size).map_err(|error| error.to_string())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::progress::bytes(self.0))
    }
}

impl Board {
    /// Parses a profile; a relative path in it is below `base`. The error is the parser's, with the line.
    pub fn parse(text: &str, base: &Path) -> Result<Self, toml::de::Error> {
        let mut board: Board = toml::from_str(text)?;
        if let Some(esp) = &mut board.esp {
            esp.program = base.join(&esp.program);
        }
        Ok(board)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIPPED: [(&str, &str); 2] = [
        ("generic-uefi", include_str!("../../boards/generic-uefi.toml")),
        ("linuxboot", include_str!("../../boards/linuxboot.toml")),
    ];

    #[test]
    fn the_shipped_profiles_are_read() {
        for (name, text) in SHIPPED {
            let board = Board::parse(text, Path::new("/boards")).unwrap_or_else(|error| {
                panic!("{name}: {error}");
            });
            assert_eq!(board.esp.is_some(), board.loader == Loader::SystemdBoot, "{name}");
            assert_eq!(board.data.mount, Path::new("/var"), "{name}");
        }
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let whole = "loader = \"chooser\"\narchitecture = \"arm64\"\n[slots]\nos = \"1GiB\"\n\
                     [data]\nsize = \"1GiB\"\n";
        assert!(Board::parse(whole, Path::new("/")).is_ok());
        for (from, to) in [
            ("chooser", "lilo"),
            ("arm64", "mips"),
            ("1GiB", "1GB"),
            ("[slots]\nos = \"1GiB\"\n", ""),
            ("[data]", "[data]\nmonut = \"/var\""),
            ("os =", "OS ="),
        ] {
            assert!(Board::parse(&whole.replace(from, to), Path::new("/")).is_err(), "{to}");
        }
    }
}
