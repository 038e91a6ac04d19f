//! The configuration: one TOML file, documented by `update-agent.example.toml`.
//!
//! Unknown keys are refused, so that a misspelt check is not a missing check. Relative paths are
//! relative to the configuration file, so a whole node can live under one directory.

mod chooser;
mod effective;
mod hardware;
mod metrics;
mod mistake;
mod rules;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use formats::boot_record::PerSlot;
use formats::reason::Reason;
use formats::release::{AttachmentKind, ComponentName};
use formats::uboot_env::FlagRule;
use serde::{Deserialize, Serialize};
use storage::StoreError;
use update_core::restart::{Purpose, Waits};

pub use self::chooser::{ChooserConfig, RescueEnd};
pub(crate) use self::effective::{Effective, Origin, Setting};
pub use self::metrics::{Listen, MetricsConfig};
pub use update_core::daemon::Mode;

use crate::error::{AgentError, Because as _};
use crate::health::{HealthConfig, Probe, deserialize_period, serialize_period};
use crate::hooks::HooksConfig;
use crate::place::{Device, Place};
use crate::source::SourceConfig;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the agent keeps its durable state; it survives updates, so never inside a slot.
    pub state_dir: PathBuf,
    /// What this node is.
    pub node: NodeConfig,
    /// Whom it trusts.
    pub trust: TrustConfig,
    /// Repositories in order of preference; may be empty on sites without a network.
    #[serde(default, rename = "source")]
    pub sources: Vec<SourceConfig>,
    /// What may hold parts of images beside the slots: files, devices, older images.
    #[serde(default, rename = "seed")]
    pub seeds: Vec<SeedConfig>,
    /// How it boots.
    pub boot: BootConfig,
    /// Where each component of each slot lies.
    pub slots: PerSlot<BTreeMap<ComponentName, Place>>,
    /// Components with a single bank, which have a copy in each slot.
    #[serde(default)]
    pub single: BTreeMap<ComponentName, SingleBank>,
    /// Where the security-version floor is kept, too.
    #[serde(default)]
    pub floor: FloorConfig,
    /// What a trial must pass.
    #[serde(default)]
    pub health: HealthConfig,
    /// When `run` acts by itself.
    #[serde(default)]
    pub policy: PolicyConfig,
    /// Where its metrics are published.
    #[serde(default)]
    pub metrics: MetricsConfig,
    /// Programs that run around an update.
    #[serde(default)]
    pub hooks: HooksConfig,
    /// What `boot-select` does as `/init`.
    #[serde(default)]
    pub chooser: ChooserConfig,
}

/// `[node]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// The product whose releases it installs.
    pub product: String,
    /// The channel it follows.
    #[serde(default = "stable")]
    pub channel: String,
    /// Hardware ids it answers to; at least one, with those of `hardware_from`.
    #[serde(default)]
    pub hardware: Vec<String>,
    /// A device tree's property `compatible`, whose names are hardware ids, too; [`Config::load`] adds them.
    #[serde(default)]
    pub hardware_from: Option<PathBuf>,
    /// A stable name for waves; `/etc/machine-id` when absent.
    #[serde(default)]
    pub id: Option<String>,
    /// `IMAGE_VERSION=` in it is the version of a system that no agent installed.
    #[serde(default = "os_release")]
    pub os_release: PathBuf,
}

/// `[trust]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TrustConfig {
    /// The root metadata this node was given.
    pub root: PathBuf,
}

/// `[[seed]]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SeedConfig {
    /// A file or block device. Only chunks with the signed digests are taken from it.
    pub path: PathBuf,
}

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

/// `[single.NAME]`: a component that starts from its only bank.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SingleBank {
    /// The bank.
    pub bank: Device,
    /// Accepts that a power cut while the bank is written leaves the component without anything to
    /// start from until the agent, or what `recovered_by` names, has put the copy back.
    #[serde(default)]
    pub accept_no_fallback: bool,
    /// What puts the recovery image back when the agent cannot: for the operator, and for `doctor`.
    #[serde(default)]
    pub recovered_by: String,
}

/// `[floor]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FloorConfig {
    /// The TPM 2.0 whose counter keeps the floor: `/dev/tpmrm0`, or a socket that speaks the same.
    #[serde(default)]
    pub tpm: Option<PathBuf>,
    /// The counter's NV index; the one after it carries what the counter stands for.
    #[serde(default = "tpm_index")]
    pub tpm_index: u32,
    /// A private file with the owner's password of the TPM; it is empty on most machines.
    #[serde(default)]
    pub tpm_owner: Option<PathBuf>,
}

impl Default for FloorConfig {
    fn default() -> Self {
        FloorConfig { tpm: None, tpm_index: tpm_index(), tpm_owner: None }
    }
}

/// In the range that the TCG leaves to the owner of a platform.
fn tpm_index() -> u32 {
    0x0180_5241
}

/// `[policy]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyConfig {
    /// How far `run` goes by itself.
    #[serde(default)]
    pub mode: Mode,
    /// Between two polls; each is moved by up to a tenth, so that nodes do not poll at once.
    #[serde(default = "one_hour", deserialize_with = "deserialize_period")]
    #[serde(serialize_with = "serialize_period")]
    pub interval: Duration,
    /// What a release must have attached, beside its images: `sbom`, `provenance`.
    #[serde(default)]
    pub require: Vec<AttachmentKind>,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        PolicyConfig { mode: Mode::default(), interval: one_hour(), require: Vec::new() }
    }
}

fn stable() -> String {
    "stable".to_owned()
}

fn os_release() -> PathBuf {
    "/etc/os-release".into()
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

fn one_hour() -> Duration {
    Duration::from_secs(3600)
}

/// Where the configuration is looked for.
pub const DEFAULT_PATH: &str = "/etc/update-agent/update-agent.toml";

/// 1 MiB: a configuration is a page or two.
const CONFIG_LIMIT: u64 = 1 << 20;

impl Config {
    /// How long a restart is waited for.
    pub(crate) fn restart_waits(&self) -> Waits {
        Waits { again: self.boot.reboot_wait, interval: self.policy.interval }
    }

    /// Reads, parses and checks the file, and asks the machine for its hardware ids where the file says so.
    /// The file and its directory must not be writable by others.
    pub fn load(path: &Path) -> Result<Self, AgentError> {
        let text = text_of(path)?;
        Self::parse(&text, base_of(path))
            .and_then(Config::with_own_hardware)
            .map_err(|error| error.context(format!("configuration {}", path.display())))
    }

    /// Parses and checks a configuration; relative paths are below `base`.
    pub fn parse(text: &str, base: &Path) -> Result<Self, AgentError> {
        let config = Config::read(text, base)?;
        match mistakes(config.problems()) {
            None => Ok(config),
            Some(error) => Err(error),
        }
    }

    /// Parses a configuration, which may still contradict itself: see [`Config::problems`].
    fn read(text: &str, base: &Path) -> Result<Self, AgentError> {
        let mut config: Config =
            toml::from_str(text).map_err(|error| mistake::not_toml(text, &error))?;
        let below = |path: &mut PathBuf| *path = base.join(&*path);
        below(&mut config.state_dir);
        below(&mut config.trust.root);
        below(&mut config.boot.disk);
        below(&mut config.boot.cmdline);
        below(&mut config.boot.boot_id);
        below(&mut config.boot.env_config);
        below(&mut config.boot.env_lock);
        below(&mut config.boot.grub_env);
        below(&mut config.boot.esp);
        below(&mut config.boot.firmware_node);
        below(&mut config.node.os_release);
        let optional = [
            &mut config.node.hardware_from,
            &mut config.floor.tpm,
            &mut config.floor.tpm_owner,
            &mut config.chooser.root,
        ];
        for path in optional.into_iter().flatten() {
            below(path);
        }
        if let Some(path) = &mut config.health.watchdog {
            below(path);
        }
        // A bare name is looked for in PATH; a path is like every other here.
        let program = |argv: &mut Vec<String>| {
            if let Some(first) = argv.first_mut().filter(|first| first.contains('/')) {
                *first = base.join(&*first).display().to_string();
            }
        };
        program(&mut config.boot.reboot_command);
        program(&mut config.boot.try_command);
        let mut forced = config.boot.forced_command();
        program(&mut forced);
        config.boot.forced_reboot_command = Some(forced);
        config.hooks.commands_mut().into_iter().for_each(program);
        for check in &mut config.health.checks {
            if let Probe::Command(argv) = &mut check.probe {
                program(argv);
            }
        }
        for place in config.slots.a.values_mut().chain(config.slots.b.values_mut()) {
            place.resolve(base);
        }
        for single in config.single.values_mut() {
            single.bank.resolve(base);
        }
        for seed in &mut config.seeds {
            below(&mut seed.path);
        }
        for source in &mut config.sources {
            for transport in ["oci:", "oci-archive:"] {
                if let Some(path) = source.url.strip_prefix(transport) {
                    source.url = format!("{transport}{}", base.join(path).display());
                }
            }
            let SourceConfig { ca, client_cert, client_key, token_file, auth_file, .. } = source;
            for file in [ca, client_cert, client_key, token_file, auth_file].into_iter().flatten() {
                *file = base.join(&*file);
            }
        }
        config.metrics.resolve(base);
        Ok(config)
    }
}

impl AgentError {
    pub(crate) fn config(text: String) -> Self {
        AgentError::new(Reason::Config, text).hint("see update-agent.example.toml")
    }
}

/// What a configuration file says, if nobody else could have written it.
fn text_of(path: &Path) -> Result<String, AgentError> {
    let bytes = storage::private::read_trusted(path, CONFIG_LIMIT)
        .map_err(|error| unreadable(path, error))?;
    String::from_utf8(bytes).because(Reason::Config, format!("configuration {}", path.display()))
}

/// What relative paths in a configuration file are relative to.
fn base_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

/// One error for all that is wrong with a configuration; `None`: nothing is.
fn mistakes(problems: Vec<String>) -> Option<AgentError> {
    let (first, others) = problems.split_first()?;
    let error = match others.len() {
        0 => AgentError::config(first.clone()),
        1 => AgentError::config(format!("{first} (and another mistake)")),
        more => AgentError::config(format!("{first} (and {more} other mistakes)")),
    };
    let lines: Vec<String> = others.iter().map(|other| format!("  also: {other}")).collect();
    Some(error.excerpt(lines.join("\n")))
}

/// Why the configuration cannot be read, and what helps: it is another thing each time.
fn unreadable(path: &Path, error: StoreError) -> AgentError {
    let shown = path.display();
    match &error {
        StoreError::Read(cause) if cause.is_missing() => {
            AgentError::new(Reason::Config, format!("there is no configuration {shown}"))
                .hint("name it with --config; update-agent.example.toml is one to begin with")
        }
        _ => AgentError::from(error).or_config(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../update-agent.example.toml");

    #[test]
    fn the_example_is_a_configuration() {
        let config = Config::parse(EXAMPLE, Path::new("/etc/update-agent")).unwrap();
        assert_eq!(config.node.product, "demo");
        assert_eq!(config.trust.root, Path::new("/etc/update-agent/root.json"));
        assert_eq!(config.slots.b.len(), 2);
        config.health.usable().unwrap();
    }

    #[test]
    fn commented_defaults_of_the_example_are_the_defaults() {
        // Uncommenting every `#key = value` line must still parse, and change nothing.
        let uncommented: String = EXAMPLE
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if !rest.starts_with([' ', '#']) && rest.contains('=') => rest,
                _ => line,
            })
            .flat_map(|line| [line, "\n"])
            .collect();
        assert_ne!(uncommented, EXAMPLE);
        let base = Path::new("/etc/update-agent");
        assert_eq!(Config::parse(&uncommented, base), Config::parse(EXAMPLE, base));
    }

    #[test]
    fn relative_places_are_below_the_file() {
        let text = EXAMPLE.replace("docker://updates.example.org/racklet", "oci:repo:ns");
        let config = Config::parse(&text, Path::new("/etc/update-agent")).unwrap();
        assert_eq!(config.sources[0].url, "oci:/etc/update-agent/repo:ns");
        let text = text.replace("oci:repo:ns", "oci-archive:/media/b.tar");
        let config = Config::parse(&text, Path::new("/etc/update-agent")).unwrap();
        assert_eq!(config.sources[0].url, "oci-archive:/media/b.tar");
    }

    /// Files that stand for the kernel's own are those of a rehearsal on somebody's machine.
    #[test]
    fn only_the_machine_itself_is_restarted_by_force() {
        let forced = |lines: &str| {
            let text = EXAMPLE.replace("[boot]\n", &format!("[boot]\n{lines}\n"));
            let config = Config::parse(&text, Path::new("/etc/update-agent")).unwrap();
            let available = crate::restart::available(&config.boot);
            (config.boot.forced_command().join(" "), available.forced, available.kernel)
        };
        let rows = [
            ("", ("systemctl reboot --force", true, true)),
            ("forced_reboot_command = []", ("", false, false)),
            ("forced_reboot_command = [\"halt\"]", ("halt", true, true)),
            ("boot_id = \"boot_id\"", ("", false, false)),
            ("cmdline = \"cmdline\"", ("", false, false)),
            ("boot_id = \"boot_id\"\nforced_reboot_command = [\"halt\"]", ("halt", true, false)),
        ];
        for (lines, (command, by_force, by_kernel)) in rows {
            assert_eq!(forced(lines), (command.to_owned(), by_force, by_kernel), "{lines}");
        }
    }

    #[test]
    fn only_a_restart_into_the_slot_that_is_next_asks_for_a_trial() {
        let commands = |lines: &str| {
            let text = EXAMPLE.replace("[boot]\n", &format!("[boot]\n{lines}\n"));
            let config = Config::parse(&text, Path::new("/etc/update-agent")).unwrap();
            let of = |purpose| config.boot.command_for(purpose).1.join(" ");
            (of(Purpose::Try), of(Purpose::Leave), config.boot.how_to_try())
        };
        let plain = "systemctl reboot";
        let tryboot = "systemctl reboot --reboot-argument=0 tryboot";
        let quoted = "restart by `systemctl reboot '--reboot-argument=0 tryboot'`";
        let rows = [
            ("", (plain, plain, "reboot")),
            ("try_command = [\"other\"]", (plain, plain, "reboot")),
            ("backend = \"rpi-tryboot\"", (tryboot, plain, quoted)),
            (
                "backend = \"rpi-tryboot\"\ntry_command = [\"./try\"]",
                ("/etc/update-agent/./try", plain, "restart by `/etc/update-agent/./try`"),
            ),
        ];
        for (lines, (to_try, to_leave, how)) in rows {
            let expected = (to_try.to_owned(), to_leave.to_owned(), how.to_owned());
            assert_eq!(commands(lines), expected, "{lines}");
        }
    }

    #[test]
    fn programs_of_commands_are_places_too() {
        let text = EXAMPLE.replace("[boot]\n", "[boot]\nreboot_command = [\"./restart\"]\n")
            + "[[health.check]]\nname = \"own\"\ncommand = [\"checks/own.sh\", \"a/b\"]\n\
               [[health.check]]\nname = \"bare\"\ncommand = [\"true\"]\n";
        let config = Config::parse(&text, Path::new("/etc/update-agent")).unwrap();
        assert_eq!(config.boot.reboot_command, ["/etc/update-agent/./restart"]);
        let commands: Vec<String> = config
            .health
            .checks
            .iter()
            .filter_map(|check| match &check.probe {
                Probe::Command(argv) => Some(argv.join(" ")),
                _ => None,
            })
            .collect();
        assert!(
            commands.contains(&"/etc/update-agent/checks/own.sh a/b".to_owned()),
            "{commands:?}"
        );
        assert!(commands.contains(&"true".to_owned()), "{commands:?}");
    }

    #[test]
    fn senseless_configurations_are_refused_with_a_reason() {
        let rows = [
            ("a misspelt key", "\nmode =", "\nmoode ="),
            ("no hardware", "hardware = [\"racklet-cu-v1\"]", "hardware = []"),
            ("no hardware key", "hardware = [\"racklet-cu-v1\"]", ""),
            ("odd product", "product = \"demo\"", "product = \"../demo\""),
            ("one label twice", "os = \"root-b\"", "os = \"root-a\""),
            ("component in one slot only", "firmware = \"fw-b\"", ""),
            (
                "two digits of tries",
                "#backend = \"gpt-attributes\"",
                "backend = \"uboot-env\"\ntries = 10",
            ),
            (
                "no command to try a slot",
                "#backend = \"gpt-attributes\"",
                "backend = \"rpi-tryboot\"\ntry_command = []",
            ),
            (
                "autoboot.txt in a slot",
                "#backend = \"gpt-attributes\"",
                "backend = \"rpi-tryboot\"\nautoboot = \"root-a\"",
            ),
            ("unknown mode", "mode = \"notify\"", "mode = \"yolo\""),
            ("no time to restart in", "[boot]\n", "[boot]\nreboot_wait = \"10ms\"\n"),
            ("no program to force it", "[boot]\n", "[boot]\nforced_reboot_command = [\"\"]\n"),
            ("a source as for other programs", "url = \"docker://", "url = \"https://"),
            ("a misspelt transport", "url = \"docker://", "url = \"dockr://"),
        ];
        for (name, from, to) in rows {
            assert!(EXAMPLE.contains(from), "{name}: the example has no {from:?}");
            let error = Config::parse(&EXAMPLE.replacen(from, to, 1), Path::new("/")).unwrap_err();
            assert_eq!(error.reason(), Reason::Config, "{name}");
        }
    }

    #[test]
    fn all_mistakes_are_told_at_once_with_what_may_be_meant() {
        let text = EXAMPLE
            .replacen("product = \"demo\"", "product = \"Demo\"", 1)
            .replacen("#tries = 3", "tries = 77", 1)
            .replacen("# proxy = \"http://proxy.example.org:3128\"", "proxy = \"socks5://p:1\"", 1);
        let error = Config::parse(&text, Path::new("/")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "node.product \"Demo\" is not a product name: 1 to 64 of a-z 0-9 . _ -, starting and \
             ending with a letter or digit, no two marks in a row; is \"demo\" meant? (and 2 other \
             mistakes)"
        );
        assert_eq!(
            error.lines(),
            Some(
                "  also: [[source]] proxy \"socks5://p:1\": only HTTP proxies are supported: \
                 http://HOST[:PORT]\n  also: boot.tries = 77 is not 1 to 15"
            )
        );
    }

    #[test]
    fn a_mistake_is_shown_where_it_is() {
        let text = EXAMPLE.replacen("\nmode =", "\nmoode =", 1);
        let line = 1 + text.lines().position(|line| line.starts_with("moode")).unwrap();
        let error = Config::parse(&text, Path::new("/")).unwrap_err();
        let start = format!("line {line}: unknown field `moode`, expected one of `mode`");
        assert!(error.to_string().starts_with(&start), "{error}");
        assert!(error.to_string().ends_with("; is `mode` meant?"), "{error}");
        assert!(!error.to_string().contains('\n'), "one sentence: {error}");
        let excerpt = error.lines().unwrap();
        assert!(excerpt.contains(&format!("{line} | moode =")), "{excerpt}");
        assert!(excerpt.ends_with("| ^^^^^"), "{excerpt}");
    }

    #[test]
    fn a_configuration_that_cannot_be_read_says_what_helps() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agent.toml");
        let missing = Config::load(&file).unwrap_err();
        assert_eq!(missing.reason(), Reason::Config);
        assert!(missing.to_string().contains(&file.display().to_string()), "{missing}");
        assert!(missing.advice().unwrap().contains("--config"));
        std::fs::write(&file, EXAMPLE).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
        let open = Config::load(&file).unwrap_err();
        assert_eq!(open.reason(), Reason::InsecurePerms);
        assert_eq!(open.advice(), Some(&*format!("chmod go-w {}", file.display())));
    }
}
