//! The configuration: one TOML file, documented by `update-agent.example.toml`.
//!
//! Unknown keys are refused, so that a misspelt check is not a missing check. Relative paths are
//! relative to the configuration file, so a whole node can live under one directory.

mod chooser;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use formats::boot_record::PerSlot;
use formats::reason::Reason;
use formats::release::{AttachmentKind, ComponentName, is_word};
use formats::uboot_env::FlagRule;
use serde::Deserialize;
use storage::StoreError;

pub use self::chooser::{ChooserConfig, RescueEnd};
pub use update_core::daemon::Mode;

use crate::error::{AgentError, Because as _};
use crate::health::{HealthConfig, Probe, deserialize_period};
use crate::place::{Device, Place};
use crate::source::SourceConfig;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
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
    /// What `boot-select` does as `/init`.
    #[serde(default)]
    pub chooser: ChooserConfig,
}

/// `[node]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// The product whose releases it installs.
    pub product: String,
    /// The channel it follows.
    #[serde(default = "stable")]
    pub channel: String,
    /// Hardware ids it answers to; at least one.
    pub hardware: Vec<String>,
    /// A stable name for waves; `/etc/machine-id` when absent.
    #[serde(default)]
    pub id: Option<String>,
    /// `IMAGE_VERSION=` in it is the version of a system that no agent installed.
    #[serde(default = "os_release")]
    pub os_release: PathBuf,
}

/// `[trust]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustConfig {
    /// The root metadata this node was given.
    pub root: PathBuf,
}

/// `[[seed]]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeedConfig {
    /// A file or block device. Only chunks with the signed digests are taken from it.
    pub path: PathBuf,
}

/// `[boot]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
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
    /// Only releases with a dm-verity tree are installed, each with its proof behind it: what a
    /// verifying chooser needs.
    #[serde(default)]
    pub verity: bool,
    /// How to restart the machine.
    #[serde(default = "systemctl_reboot")]
    pub reboot_command: Vec<String>,
}

/// Who keeps the boot flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
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
}

impl BootConfig {
    /// How a machine is restarted whose configuration cannot be read.
    pub(crate) fn default_restart() -> Vec<String> {
        systemctl_reboot()
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
        }
    }

    /// The most tries its record can count.
    pub fn tries_limit(self) -> u8 {
        match self {
            Backend::GptAttributes | Backend::SystemdBoot => 15,
            Backend::UbootEnv | Backend::GrubEnv => formats::boot_vars::TRIES_LIMIT,
        }
    }
}

/// How the two copies of U-Boot's environment are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyConfig {
    /// How far `run` goes by itself.
    #[serde(default)]
    pub mode: Mode,
    /// Between two polls; each is moved by up to a tenth, so that nodes do not poll at once.
    #[serde(default = "one_hour", deserialize_with = "deserialize_period")]
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
    /// Reads, parses and checks the file. It and its directory must not be writable by others.
    pub fn load(path: &Path) -> Result<Self, AgentError> {
        let bytes = storage::private::read_trusted(path, CONFIG_LIMIT)
            .map_err(|error| unreadable(path, error))?;
        let text = String::from_utf8(bytes)
            .because(Reason::Config, format!("configuration {}", path.display()))?;
        let base = path.parent().unwrap_or(Path::new("."));
        Self::parse(&text, base)
            .map_err(|error| error.context(format!("configuration {}", path.display())))
    }

    /// Parses and checks a configuration; relative paths are below `base`.
    pub fn parse(text: &str, base: &Path) -> Result<Self, AgentError> {
        let mut config: Config =
            toml::from_str(text).map_err(|error| AgentError::not_toml(text, &error))?;
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
        below(&mut config.node.os_release);
        let optional =
            [&mut config.floor.tpm, &mut config.floor.tpm_owner, &mut config.chooser.root];
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
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), AgentError> {
        let fail = |text: String| Err(AgentError::config(text));
        if !is_word(&self.node.product, 64) {
            return fail(format!("node.product {:?} is not a product name", self.node.product));
        }
        if !is_word(&self.node.channel, 64) {
            return fail(format!("node.channel {:?} is not a channel name", self.node.channel));
        }
        if self.node.hardware.is_empty() {
            return fail("node.hardware is empty: no release would fit; list its ids".to_owned());
        }
        if let Some(bad) = self.node.hardware.iter().find(|id| !is_word(id, 64)) {
            return fail(format!("node.hardware: {bad:?} is not a hardware id"));
        }
        let limit = self.boot.backend.tries_limit();
        if !(1..=limit).contains(&self.boot.tries) {
            return fail(format!("boot.tries = {} is not 1 to {limit}", self.boot.tries));
        }
        if self.boot.reboot_command.is_empty() {
            return fail("boot.reboot_command is empty; name a command".to_owned());
        }
        let (a, b) = (&self.slots.a, &self.slots.b);
        if !a.keys().eq(b.keys()) {
            return fail("slots.a and slots.b must list the same components".to_owned());
        }
        if !a.contains_key(&self.boot.component) {
            let component = &self.boot.component;
            return fail(format!("boot.component {component:?} is in no slot: add it to both"));
        }
        if !matches!(a.get(&self.boot.component), Some(Place::Label(_)))
            || !matches!(b.get(&self.boot.component), Some(Place::Label(_)))
        {
            let component = &self.boot.component;
            return fail(format!(
                "boot.component {component:?} must be a partition of boot.disk in both slots"
            ));
        }
        let mut places = BTreeSet::new();
        for (name, place) in a.iter().chain(b) {
            let identity = place.identity();
            if places.contains(&identity) {
                return fail(format!(
                    "{identity} is used twice in [slots]; for a board with one bank give {name} a \
                     copy in each slot, and the bank in [single.{name}]"
                ));
            }
            places.insert(identity);
        }
        for (name, one) in a {
            let has_switch = |place: &Place| match place {
                Place::Device(own) => !own.switch.is_empty(),
                Place::Label(_) => false,
            };
            if b.get(name).is_some_and(|other| has_switch(one) != has_switch(other)) {
                return fail(format!("{name} has a switch in one slot only; it needs both ways"));
            }
        }
        for (name, single) in &self.single {
            let copies = [a.get(name), b.get(name)];
            let plain = |place: &Option<&Place>| match place {
                Some(Place::Device(own)) => own.switch.is_empty() && own.runs.is_none(),
                Some(Place::Label(_)) => true,
                None => false,
            };
            if *name == self.boot.component || !copies.iter().all(plain) {
                return fail(format!(
                    "[single.{name}] needs a copy of {name} in both slots, without switch and \
                     runs, and another boot.component"
                ));
            }
            if !single.bank.switch.is_empty() || single.bank.runs.is_some() {
                return fail(format!("[single.{name}] has one bank: there is nothing to switch"));
            }
            if !places.insert(single.bank.device.display().to_string()) {
                return fail(format!("the bank of [single.{name}] is used twice"));
            }
        }
        let index = self.floor.tpm_index;
        let own = formats::tpm::OWNER_INDICES;
        if !own.contains(&index) || !own.contains(&(index.saturating_add(1))) {
            return fail(format!("floor.tpm_index 0x{index:08x} is not 0x01800000 to 0x01bffffe"));
        }
        for source in &self.sources {
            if let Err(error) = crate::source::check_place(&source.url) {
                return fail(format!("[[source]] url: {error}"));
            }
        }
        if self.policy.interval < Duration::from_secs(1) {
            return fail("policy.interval is below a second".to_owned());
        }
        Ok(())
    }
}

impl AgentError {
    fn config(text: String) -> Self {
        AgentError::new(Reason::Config, text).hint("see update-agent.example.toml")
    }

    /// What is wrong, and where, with the lines around it.
    fn not_toml(text: &str, error: &toml::de::Error) -> Self {
        let shown = error.to_string();
        let is_quoted = |line: &&str| {
            line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ').starts_with('|')
        };
        let excerpt: Vec<&str> = shown.lines().skip(1).take_while(is_quoted).collect();
        let before = error.span().and_then(|span| text.get(..span.start));
        let place = before.map_or_else(String::new, |before| {
            format!("line {}: ", before.matches('\n').count() + 1)
        });
        AgentError::config(format!("{place}{}", error.message())).excerpt(excerpt.join("\n"))
    }
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
            ("odd product", "product = \"demo\"", "product = \"../demo\""),
            ("one label twice", "os = \"root-b\"", "os = \"root-a\""),
            ("component in one slot only", "firmware = \"fw-b\"", ""),
            (
                "two digits of tries",
                "#backend = \"gpt-attributes\"",
                "backend = \"uboot-env\"\ntries = 10",
            ),
            ("unknown mode", "mode = \"notify\"", "mode = \"yolo\""),
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
    fn a_mistake_is_shown_where_it_is() {
        let text = EXAMPLE.replacen("\nmode =", "\nmoode =", 1);
        let line = 1 + text.lines().position(|line| line.starts_with("moode")).unwrap();
        let error = Config::parse(&text, Path::new("/")).unwrap_err();
        let start = format!("line {line}: unknown field `moode`, expected one of `mode`");
        assert!(error.to_string().starts_with(&start), "{error}");
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
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o664)).unwrap();
        let open = Config::load(&file).unwrap_err();
        assert_eq!(open.reason(), Reason::InsecurePerms);
        assert_eq!(open.advice(), Some(&*format!("chmod go-w {}", file.display())));
    }
}
