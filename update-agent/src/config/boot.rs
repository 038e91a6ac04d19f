//! How a node boots.

use std::path::PathBuf;
use std::time::Duration;

use formats::release::ComponentName;
use formats::uboot_env::FlagRule;
use serde::{Deserialize, Serialize};
use update_core::restart::Purpose;

use crate::health::{deserialize_period, serialize_period};

/// `[boot]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BootConfig {
    /// Who keeps the boot flags.
    #[serde(default)]
    pub backend: Backend,
    /// The disk with the slots: a block device, a loop device or a plain file.
    pub disk: PathBuf,
    /// The component whose partitions carry the boot flags.
    #[serde(default = "os_component")]
    pub component: ComponentName,
    /// Trial boots a new release gets: 1 to 15, or to 9 in variables of a boot loader.
    #[serde(default = "three")]
    pub tries: u8,
    /// The kernel command line, which says what booted.
    #[serde(default = "proc_cmdline")]
    pub cmdline: PathBuf,
    /// An id that changes with every boot.
    #[serde(default = "proc_boot_id")]
    pub boot_id: PathBuf,
    /// `uboot-env`: where the environment lies, as for `fw_printenv`.
    #[serde(default = "fw_env_config")]
    pub env_config: PathBuf,
    /// `uboot-env`: what `fw_printenv` and `fw_setenv` lock, taken around each change.
    #[serde(default = "fw_env_lock")]
    pub env_lock: PathBuf,
    /// `uboot-env`: how its two copies are told apart.
    #[serde(default)]
    pub env_flags: EnvFlags,
    /// `uboot-env`: writes an environment of one copy, which a power cut may destroy.
    #[serde(default)]
    pub accept_single_env: bool,
    /// `grub-env`: the environment block.
    #[serde(default = "grubenv")]
    pub grub_env: PathBuf,
    /// `systemd-boot`: where the EFI system partition is mounted.
    #[serde(default = "esp")]
    pub esp: PathBuf,
    /// `rpi-tryboot`: the label of the partition with `autoboot.txt`, the first FAT of the disk.
    #[serde(default = "autoboot")]
    pub autoboot: String,
    /// `rpi-tryboot`: the boot loader's node of the device tree, which names the partition that booted.
    #[serde(default = "firmware_node")]
    pub firmware_node: PathBuf,
    /// `rpi-tryboot`: how to restart the machine into the slot that is next, once.
    #[serde(default = "systemctl_tryboot")]
    pub try_command: Vec<String>,
    /// Only releases with a dm-verity tree are installed, each with its proof behind it: what a
    /// verifying chooser needs.
    #[serde(default)]
    pub verity: bool,
    /// How to restart the machine.
    #[serde(default = "systemctl_reboot")]
    pub reboot_command: Vec<String>,
    /// How long a restart may take until the agent is stopped: after that it asks again.
    #[serde(default = "two_minutes", deserialize_with = "deserialize_period")]
    #[serde(serialize_with = "serialize_period")]
    pub reboot_wait: Duration,
    /// How to restart it out of a lost trial where that command does not; empty: not at all. By default
    /// `systemctl reboot --force`, and nothing where files stand for the kernel's own.
    #[serde(default)]
    pub forced_reboot_command: Option<Vec<String>>,
}

/// Who keeps the boot flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// Attribute bits 48 to 56 of GPT entries, as ChromeOS and Bottlerocket use them.
    #[default]
    GptAttributes,
    /// `BOOT_ORDER` and `BOOT_x_LEFT` in U-Boot's environment.
    UbootEnv,
    /// The same variables in GRUB's environment block.
    GrubEnv,
    /// Boot counters in the names of systemd-boot's entries.
    SystemdBoot,
    /// Partitions that `autoboot.txt` of a Raspberry Pi names.
    RpiTryboot,
}

impl BootConfig {
    /// How a machine is restarted whose configuration cannot be read.
    pub(crate) fn default_restart() -> Vec<String> {
        systemctl_reboot()
    }

    /// The command of a restart for this purpose, behind the key that names it.
    pub(crate) fn command_for(&self, purpose: Purpose) -> (&'static str, &[String]) {
        match purpose {
            Purpose::Try if self.backend.has_to_be_asked() => {
                ("boot.try_command", &self.try_command)
            }
            _ => ("boot.reboot_command", &self.reboot_command),
        }
    }

    /// All commands of restarts, in the same form.
    pub(crate) fn restart_commands(&self) -> Vec<(&'static str, &[String])> {
        let mut commands = [Purpose::Leave, Purpose::Try].map(|it| self.command_for(it)).to_vec();
        commands.dedup();
        commands
    }

    /// What an operator does to try the release that is next: the first words of a sentence.
    pub(crate) fn how_to_try(&self) -> String {
        match self.backend.has_to_be_asked() {
            true => format!("restart by `{}`", shown(&self.try_command)),
            false => "reboot".to_owned(),
        }
    }

    /// Whether the boot is that of this machine, and not of files that stand for it in a rehearsal.
    pub(crate) fn is_of_this_machine(&self) -> bool {
        self.cmdline == proc_cmdline() && self.boot_id == proc_boot_id()
    }

    /// The command that restarts without stopping services; empty where there is none.
    pub(crate) fn forced_command(&self) -> Vec<String> {
        match &self.forced_reboot_command {
            Some(argv) => argv.clone(),
            None if self.is_of_this_machine() => Self::default_forced_restart(),
            None => Vec::new(),
        }
    }

    /// The forced command of a machine whose configuration cannot be read.
    pub(crate) fn default_forced_restart() -> Vec<String> {
        let mut argv = systemctl_reboot();
        argv.push("--force".to_owned());
        argv
    }
}

impl Backend {
    /// The name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Backend::GptAttributes => "gpt-attributes",
            Backend::UbootEnv => "uboot-env",
            Backend::GrubEnv => "grub-env",
            Backend::SystemdBoot => "systemd-boot",
            Backend::RpiTryboot => "rpi-tryboot",
        }
    }

    /// Whether its flags, or the number that its boot loader starts, are those of the boot component's partition.
    /// The others start a slot by a text that somebody wrote, from wherever it lies.
    pub(crate) fn boots_a_partition(self) -> bool {
        matches!(self, Backend::GptAttributes | Backend::RpiTryboot)
    }

    /// Whether its boot loader tells the kernel what the flags say. Otherwise its entries are fixed texts.
    pub(crate) fn tells_the_kernel(self) -> bool {
        !matches!(self, Backend::SystemdBoot | Backend::RpiTryboot)
    }

    /// Whether its boot loader tries a slot only after a restart that asks for it.
    pub(crate) fn has_to_be_asked(self) -> bool {
        self == Backend::RpiTryboot
    }

    /// The most tries its record can count.
    pub fn tries_limit(self) -> u8 {
        match self {
            Backend::GptAttributes | Backend::SystemdBoot => 15,
            Backend::UbootEnv | Backend::GrubEnv | Backend::RpiTryboot => {
                formats::boot_vars::TRIES_LIMIT
            }
        }
    }
}

/// How the two copies of U-Boot's environment are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EnvFlags {
    /// Each copy counts up: eMMC, SD cards, files.
    #[default]
    Incrementing,
    /// One is marked active: NOR flash.
    ActiveObsolete,
}

impl EnvFlags {
    pub(crate) fn rule(self) -> FlagRule {
        match self {
            EnvFlags::Incrementing => FlagRule::Incrementing,
            EnvFlags::ActiveObsolete => FlagRule::ActiveObsolete,
        }
    }
}

fn os_component() -> ComponentName {
    "os".parse().expect("a component name")
}

fn three() -> u8 {
    3
}

fn proc_cmdline() -> PathBuf {
    "/proc/cmdline".into()
}

fn proc_boot_id() -> PathBuf {
    "/proc/sys/kernel/random/boot_id".into()
}

fn fw_env_config() -> PathBuf {
    "/etc/fw_env.config".into()
}

fn fw_env_lock() -> PathBuf {
    "/var/lock/fw_printenv.lock".into()
}

fn grubenv() -> PathBuf {
    "/boot/grub/grubenv".into()
}

fn esp() -> PathBuf {
    "/efi".into()
}

fn autoboot() -> String {
    "autoboot".to_owned()
}

fn firmware_node() -> PathBuf {
    "/proc/device-tree/chosen/bootloader".into()
}

fn systemctl_tryboot() -> Vec<String> {
    let mut argv = systemctl_reboot();
    argv.push("--reboot-argument=0 tryboot".to_owned());
    argv
}

/// A command as a shell would take it, for people.
fn shown(argv: &[String]) -> String {
    let word = |word: &String| match word.contains(' ') {
        true => format!("'{word}'"),
        false => word.clone(),
    };
    argv.iter().map(word).collect::<Vec<_>>().join(" ")
}

fn two_minutes() -> Duration {
    update_core::restart::AGAIN
}

fn systemctl_reboot() -> Vec<String> {
    vec!["systemctl".to_owned(), "reboot".to_owned()]
}
