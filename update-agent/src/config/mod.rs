//! The configuration: one TOML file, documented by `update-agent.example.toml`.
//!
//! Unknown keys are refused, so that a misspelt check is not a missing check. Relative paths are
//! relative to the configuration file, so a whole node can live under one directory.

mod boot;
mod chooser;
mod effective;
mod hardware;
mod hooks;
mod metrics;
mod mistake;
mod reports;
mod restart_lock;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use formats::boot_record::PerSlot;
use formats::reason::Reason;
use formats::release::{AttachmentKind, ComponentName};
use serde::{Deserialize, Serialize};
use storage::StoreError;
use update_core::restart::Waits;

pub use self::boot::{Backend, BootConfig, EnvFlags};
pub use self::chooser::{ChooserConfig, RescueEnd};
pub(crate) use self::effective::{Effective, Origin, Setting};
pub use self::hooks::HooksConfig;
pub use self::metrics::{Listen, MetricsConfig};
pub use self::reports::ReportsConfig;
pub use self::restart_lock::RestartLockConfig;
pub use update_core::daemon::Mode;

use crate::error::{AgentError, Because as _};
use crate::health::{HealthConfig, Probe, deserialize_period, serialize_period};
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
    /// What it says of itself.
    #[serde(default)]
    pub reports: ReportsConfig,
    /// Programs that run around an update.
    #[serde(default)]
    pub hooks: HooksConfig,
    /// Whom it asks before it restarts into a release.
    #[serde(default)]
    pub restart_lock: RestartLockConfig,
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
        let RestartLockConfig { ca, client_cert, client_key, token_file, .. } =
            &mut config.restart_lock;
        for file in [ca, client_cert, client_key, token_file].into_iter().flatten() {
            *file = base.join(&*file);
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
