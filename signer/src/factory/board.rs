//! Board profiles: how the disk of a kind of machine is laid out, and which boot loader starts it.
//!
//! `docs/first-disk.md` documents the file; `signer/boards/` has one for each boot loader.

mod firmware;
mod types;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use formats::release::ComponentName;
use serde::Deserialize;
use update_agent::config::DEFAULT_PATH;

pub use self::firmware::{Autoboot, Env, Raw, UBoot};
pub use self::types::{Architecture, esp_type, fat_type, reserved_type};
use crate::policy::parse_size;

/// A board profile.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Board {
    /// What starts the slots.
    pub loader: Loader,
    /// What the machine is.
    pub architecture: Architecture,
    /// The names that its device tree gives it, as hardware ids: for a node that takes them from there.
    #[serde(default)]
    pub hardware: Vec<String>,
    /// Programs before the first partition, for the processor's own boot program.
    #[serde(default)]
    pub raw: Vec<Raw>,
    /// Where the first partition begins, but for those of U-Boot's environment.
    #[serde(default = "first_mib")]
    pub partitions_from: Size,
    /// The partition of systemd-boot.
    #[serde(default)]
    pub esp: Option<Esp>,
    /// U-Boot's script, and what it has to know.
    #[serde(default, rename = "u-boot")]
    pub uboot: Option<UBoot>,
    /// U-Boot's environment.
    #[serde(default)]
    pub env: Option<Env>,
    /// The partition that chooses between the others on a Raspberry Pi.
    #[serde(default)]
    pub autoboot: Option<Autoboot>,
    /// What the kernel is and is told; for loaders that have an entry per slot.
    #[serde(default)]
    pub kernel: Kernel,
    /// Where the agent's configuration lies on the node.
    #[serde(default = "config_path")]
    pub config: PathBuf,
    /// The component with the root file system, where it is not the one of `boot.component`.
    #[serde(default)]
    pub system: Option<ComponentName>,
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
    /// U-Boot with our script, the flags in its environment.
    #[serde(rename = "u-boot")]
    UBoot,
    /// The boot loader in a Raspberry Pi, which reads `autoboot.txt`.
    RaspberryPi,
}

impl Loader {
    /// What it is called in messages.
    pub fn name(self) -> &'static str {
        match self {
            Loader::SystemdBoot => "systemd-boot",
            Loader::Chooser => "a chooser",
            Loader::UBoot => "U-Boot",
            Loader::RaspberryPi => "a Raspberry Pi's boot loader",
        }
    }

    /// The value of `boot.backend` in the node's configuration.
    pub fn backend(self) -> &'static str {
        match self {
            Loader::SystemdBoot => "systemd-boot",
            Loader::Chooser => "gpt-attributes",
            Loader::UBoot => "uboot-env",
            Loader::RaspberryPi => "rpi-tryboot",
        }
    }
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
        Kernel { linux: name("kernel"), initrd: name("initrd"), options: String::new() }
    }
}

fn name(text: &str) -> ComponentName {
    text.parse().expect("a component's name")
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

fn first_mib() -> Size {
    Size(1 << 20)
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
        let programs = board.esp.iter_mut().map(|esp| &mut esp.program);
        let raw = board.raw.iter_mut().map(|raw| &mut raw.file);
        let initial = board.env.iter_mut().filter_map(|env| env.initial.as_mut());
        for file in programs.chain(raw).chain(initial) {
            *file = base.join(&*file);
        }
        Ok(board)
    }

    /// The component with the root file system.
    pub fn system(&self, boot: &ComponentName) -> ComponentName {
        match (&self.system, self.loader) {
            (Some(system), _) => system.clone(),
            // What boots is the FAT with firmware and kernel.
            (None, Loader::RaspberryPi) => name("os"),
            (None, _) => boot.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIPPED: [(&str, &str); 5] = [
        ("generic-uefi", include_str!("../../boards/generic-uefi.toml")),
        ("linuxboot", include_str!("../../boards/linuxboot.toml")),
        ("ram-uefi", include_str!("../../boards/ram-uefi.toml")),
        ("raspberry-pi", include_str!("../../boards/raspberry-pi.toml")),
        ("u-boot-arm64", include_str!("../../boards/u-boot-arm64.toml")),
    ];

    #[test]
    fn the_shipped_profiles_are_read() {
        for (name, text) in SHIPPED {
            let board = Board::parse(text, Path::new("/boards")).unwrap_or_else(|error| {
                panic!("{name}: {error}");
            });
            assert_eq!(board.esp.is_some(), board.loader == Loader::SystemdBoot, "{name}");
            // What a system in memory keeps for itself, its logs for one, stays in memory.
            let mount = if name == "ram-uefi" { "/data" } else { "/var" };
            assert_eq!(board.data.mount, Path::new(mount), "{name}");
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
