//! `[chooser]`: what `boot-select` does as `/init` of an initramfs.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::health::{deserialize_period, serialize_period};

/// `[chooser]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChooserConfig {
    /// For the agent: the root.json that the chooser in the firmware has, so that nothing is written
    /// that it would refuse. Every root of the repository from the first one on when absent. The
    /// chooser itself has `trust.root`.
    pub root: Option<PathBuf>,
    /// Kernel modules to load first, in this order, each with its parameters: `FILE [NAME=VALUE]…`.
    pub modules: Vec<String>,
    /// The hardware watchdog to arm before a slot is tried; none when empty.
    pub watchdog: PathBuf,
    /// How long the booted slot may take before it feeds the watchdog.
    #[serde(deserialize_with = "deserialize_period", serialize_with = "serialize_period")]
    pub watchdog_timeout: Duration,
    /// How long the disk may take to appear.
    #[serde(deserialize_with = "deserialize_period", serialize_with = "serialize_period")]
    pub disk_wait: Duration,
    /// Added to the kernel's command line.
    pub append: String,
    /// How often the disk is looked at again when no slot can be booted.
    pub rescue_rounds: u32,
    /// What is done after that.
    pub rescue: RescueEnd,
    /// The shell of `rescue = "shell"`.
    pub shell: Vec<String>,
}

impl Default for ChooserConfig {
    fn default() -> Self {
        ChooserConfig {
            root: None,
            modules: Vec::new(),
            watchdog: "/dev/watchdog".into(),
            watchdog_timeout: Duration::from_secs(120),
            disk_wait: Duration::from_secs(30),
            append: String::new(),
            // 5 + 10 + 20 + 40 + 80 + 160 seconds.
            rescue_rounds: 6,
            rescue: RescueEnd::Reboot,
            shell: vec!["/bin/sh".to_owned()],
        }
    }
}

/// What the chooser does when no slot could be booted for long enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RescueEnd {
    /// Restarts the machine: firmware may know another way.
    Reboot,
    /// Switches it off.
    PowerOff,
    /// Gives a shell to whoever is at the console, which is root on this machine.
    Shell,
}
