//! What a factory has to know of a node's configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use formats::boot_record::{PerSlot, Slot};
use formats::release::ComponentName;
use update_agent::config::{Config, EnvFlags};
use update_agent::error::AgentError;
use update_agent::place::Place;

use super::board::Board;
use super::layout::LayoutError;

/// A node, as its configuration describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Where the configuration lies on the node.
    pub config: PathBuf,
    /// The product whose releases it installs.
    pub product: String,
    /// The channel it follows.
    pub channel: String,
    /// The hardware ids it answers to; without those that only the machine itself knows.
    pub hardware: Vec<String>,
    /// Whether it asks the machine for further ones.
    pub asks_machine: bool,
    /// Who keeps the boot flags, as `boot.backend` names it.
    pub backend: &'static str,
    /// The component whose partitions carry the boot flags.
    pub boot: ComponentName,
    /// Whether its chooser verifies slots.
    pub verity: bool,
    /// Where the ESP is mounted.
    pub esp: PathBuf,
    /// The node's own name of the disk.
    pub disk: PathBuf,
    /// Where `fw_env.config` lies, for U-Boot.
    pub env_config: PathBuf,
    /// Whether the newer copy of U-Boot's environment is the one that counts further, as on disks.
    pub env_counts: bool,
    /// The label of the partition with `autoboot.txt`, for a Raspberry Pi.
    pub autoboot: String,
    /// Where the agent keeps its state.
    pub state_dir: PathBuf,
    /// Where its trust root lies.
    pub root: PathBuf,
    /// Where each component lies in each slot.
    pub places: BTreeMap<ComponentName, PerSlot<Where>>,
}

/// Where a component of a slot lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Where {
    /// In the partition of that label.
    Partition(String),
    /// In a file or on a device of that path.
    Path(PathBuf),
    /// In flash memory.
    Flash,
}

impl Node {
    /// Reads a configuration that lies at `at` on the node. It must be one that `update-agent config check`
    /// accepts; files that it names are not looked at.
    pub fn read(text: &str, at: &Path) -> Result<Self, AgentError> {
        let named = |error: AgentError| error.context("the node's configuration");
        let config = Config::parse(text, at.parent().unwrap_or(Path::new("/"))).map_err(named)?;
        config.health.usable().map_err(|error| named(error.into()))?;
        let place = |slot: Slot, name: &ComponentName| match config.slots.of(slot).get(name) {
            Some(Place::Label(label)) => Where::Partition(label.clone()),
            Some(Place::Device(device)) if device.flash.is_none() && device.ext_csd.is_none() => {
                Where::Path(device.device.clone())
            }
            _ => Where::Flash,
        };
        let of =
            |name: &ComponentName| PerSlot { a: place(Slot::A, name), b: place(Slot::B, name) };
        Ok(Node {
            config: at.to_owned(),
            places: config.slots.a.keys().map(|name| (name.clone(), of(name))).collect(),
            product: config.node.product,
            channel: config.node.channel,
            hardware: config.node.hardware,
            asks_machine: config.node.hardware_from.is_some(),
            backend: config.boot.backend.name(),
            boot: config.boot.component,
            verity: config.boot.verity,
            esp: config.boot.esp,
            disk: config.boot.disk,
            env_config: config.boot.env_config,
            env_counts: config.boot.env_flags == EnvFlags::Incrementing,
            autoboot: config.boot.autoboot,
            state_dir: config.state_dir,
            root: config.trust.root,
        })
    }

    /// The node on a board, whose device tree names it.
    pub fn on_board(mut self, board: &Board) -> Result<Self, LayoutError> {
        match (self.asks_machine, board.hardware.is_empty()) {
            (false, false) => return Err(LayoutError::NotAsked),
            (true, true) if self.hardware.is_empty() => return Err(LayoutError::NoHardware),
            _ => self.hardware.extend(board.hardware.iter().cloned()),
        }
        Ok(self)
    }
}
