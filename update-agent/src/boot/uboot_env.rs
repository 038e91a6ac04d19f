//! `uboot-env`: `BOOT_ORDER`, `BOOT_A_LEFT` and `BOOT_B_LEFT` (`formats::boot_vars`) in U-Boot's
//! environment, which lies where `fw_env.config` says. Read by `boot/uboot/boot.cmd`.

use std::path::{Path, PathBuf};

use formats::boot_vars;
use formats::reason::Reason;
use formats::uboot_env::{Env, EnvPlace, UbootEnvError, parse_config};
use storage::block::extent::Extent;
use storage::block::{Access, BlockDevice};
use storage::host::Host;
use storage::shared_lock::SharedLock;
use storage::uboot_env::{Place, Places, UbootEnv};
use update_core::boot::{BootFlags, FlagEdit};

use super::{BootControl, same, twice};
use crate::config::BootConfig;
use crate::error::{AgentError, Because as _};

/// U-Boot's environment.
#[derive(Debug)]
pub(super) struct UbootEnvironment<'a> {
    host: &'a dyn Host,
    boot: &'a BootConfig,
}

/// 64 KiB: a configuration is two lines.
const CONFIG_LIMIT: u64 = 1 << 16;

/// What the copies of the environment stand for; nothing when the configuration cannot be read, which its own
/// use tells.
pub(crate) fn extents(host: &dyn Host, boot: &BootConfig) -> Vec<Extent> {
    let of = |place: &EnvPlace| -> Vec<Extent> {
        let device = host.extents(&path_of(boot, place));
        // Counted from the end: somewhere in it.
        let part = |extent: &Extent| match u64::try_from(place.offset) {
            Ok(offset) => extent.part(offset, place.size),
            Err(_) => extent.clone(),
        };
        device.iter().map(part).collect()
    };
    read_places(host, boot).iter().flatten().flat_map(of).collect()
}

/// Where `boot.env_config` says that the copies lie.
fn read_places(host: &dyn Host, boot: &BootConfig) -> Result<Vec<EnvPlace>, AgentError> {
    let path = &boot.env_config;
    let shown = format!("boot.env_config {}", path.display());
    let bytes = host.read_trusted(path, CONFIG_LIMIT).map_err(|error| {
        AgentError::from(error)
            .or_config()
            .context(&shown)
            .hint("write it as for fw_printenv: two lines `device offset size`")
    })?;
    let text = String::from_utf8(bytes).because(Reason::Config, &*shown)?;
    parse_config(&text).because(Reason::Config, shown)
}

/// A device that it names; relative paths are below its folder.
fn path_of(boot: &BootConfig, place: &EnvPlace) -> PathBuf {
    boot.env_config.parent().unwrap_or(Path::new("/")).join(&place.device)
}

impl<'a> UbootEnvironment<'a> {
    pub(super) fn new(host: &'a dyn Host, boot: &'a BootConfig) -> Self {
        UbootEnvironment { host, boot }
    }

    fn open(&self, access: Access) -> Result<UbootEnv<Box<dyn BlockDevice>>, AgentError> {
        let places = read_places(self.host, self.boot)?;
        let size = places.first().map_or(0, |place| place.size);
        let mut found = places.iter().map(|place| self.place(place, access));
        let first = found.next().transpose()?;
        let second = found.next().transpose()?;
        let places = match (first, second) {
            (Some(first), Some(second)) => Places::Redundant([first, second]),
            (Some(only), None) => Places::Single(only),
            (None, _) => {
                return Err(AgentError::new(Reason::Config, "boot.env_config names no copy"));
            }
        };
        Ok(UbootEnv::new(places, size, self.boot.env_flags.rule()))
    }

    fn place(
        &self,
        place: &EnvPlace,
        access: Access,
    ) -> Result<Place<Box<dyn BlockDevice>>, AgentError> {
        let path = path_of(self.boot, place);
        let device = self.host.open_device(&path, access).map_err(|error| {
            AgentError::from(error).context(format!("boot.env_config, {}", place.device))
        })?;
        let offset = match u64::try_from(place.offset) {
            Ok(offset) => offset,
            // Counted from the end; what is before the beginning is found by the first read.
            Err(_) => device.len().saturating_sub(place.offset.unsigned_abs()),
        };
        Ok(Place { device, offset })
    }
}

fn flags_of(env: &Env) -> BootFlags {
    boot_vars::slots(|name| env.get(name))
}

impl BootControl for UbootEnvironment<'_> {
    fn flags(&self) -> Result<BootFlags, AgentError> {
        Ok(flags_of(&self.open(Access::Read)?.load()?.env))
    }

    fn write(&self, _: FlagEdit, wanted: BootFlags) -> Result<BootFlags, AgentError> {
        let _locked = self.lock()?;
        twice(|| self.put(wanted))
    }

    fn can_write(&self) -> Result<(), AgentError> {
        self.open(Access::Write).map(drop)
    }

    fn weakness(&self) -> Result<Option<String>, AgentError> {
        let env = self.open(Access::Read)?;
        let loaded = env.load()?;
        Ok(match loaded.damaged {
            _ if env.is_single() && !self.boot.accept_single_env => {
                let text = "U-Boot's environment has a single copy: no update will be written";
                return Err(AgentError::new(Reason::BootRecord, text).hint(
                    "configure a redundant environment in U-Boot and boot.env_config, or set \
                     boot.accept_single_env",
                ));
            }
            _ if env.is_single() => Some(
                "a single copy, as accepted: a power cut while it is written loses the boot flags"
                    .to_owned(),
            ),
            Some(copy) => Some(format!(
                "copy {} of U-Boot's environment is not whole; the next edit rewrites it. If it \
                 never becomes whole, U-Boot was built for a single copy",
                copy + 1
            )),
            None => None,
        })
    }
}

impl UbootEnvironment<'_> {
    /// Keeps `fw_setenv` from changing it.
    fn lock(&self) -> Result<Option<SharedLock>, AgentError> {
        let locked = self.host.lock_file(&self.boot.env_lock);
        locked.map_err(|error| AgentError::from(error).context("boot.env_lock"))
    }

    fn put(&self, wanted: BootFlags) -> Result<BootFlags, AgentError> {
        let env = self.open(Access::Write)?;
        let change = |env: &mut Env| -> Result<(), UbootEnvError> {
            for (name, value) in boot_vars::variables(env.get(boot_vars::ORDER), wanted) {
                env.set(name, &value)?;
            }
            Ok(())
        };
        let after =
            if self.boot.accept_single_env { env.edit_single(change)? } else { env.edit(change)? };
        same(wanted, flags_of(&after), "U-Boot's environment")
    }
}
