//! `grub-env`: the variables of `formats::boot_vars` in GRUB's environment block. Read by
//! `boot/grub/racklet.cfg`.

use formats::boot_vars;
use formats::grub_env::{GrubEnv, GrubEnvError};
use storage::block::{Access, BlockDevice};
use storage::grub_env::{edit, load};
use storage::host::Host;
use update_core::boot::{BootFlags, FlagEdit};

use super::{BootControl, same};
use crate::config::BootConfig;
use crate::error::AgentError;

/// GRUB's environment block.
#[derive(Debug)]
pub(super) struct GrubBlock<'a> {
    host: &'a dyn Host,
    boot: &'a BootConfig,
}

impl<'a> GrubBlock<'a> {
    pub(super) fn new(host: &'a dyn Host, boot: &'a BootConfig) -> Self {
        GrubBlock { host, boot }
    }

    fn open(&self, access: Access) -> Result<Box<dyn BlockDevice>, AgentError> {
        self.host.open_device(&self.boot.grub_env, access).map_err(|error| {
            AgentError::from(error)
                .context("boot.grub_env")
                .or_hint("make it with `grub-editenv FILE create`, on a file system GRUB can write")
        })
    }
}

fn flags_of(env: &GrubEnv) -> BootFlags {
    boot_vars::slots(|name| env.get(name))
}

impl BootControl for GrubBlock<'_> {
    fn flags(&self) -> Result<BootFlags, AgentError> {
        Ok(flags_of(&load(&self.open(Access::Read)?)?))
    }

    fn write(&self, _: FlagEdit, wanted: BootFlags) -> Result<BootFlags, AgentError> {
        let change = |env: &mut GrubEnv| -> Result<(), GrubEnvError> {
            for (name, value) in boot_vars::variables(env.get(boot_vars::ORDER), wanted) {
                env.set(name, &value)?;
            }
            Ok(())
        };
        let after = edit(&self.open(Access::Write)?, change)?;
        same(wanted, flags_of(&after), "GRUB's environment block")
    }

    fn can_write(&self) -> Result<(), AgentError> {
        self.open(Access::Write).map(drop)
    }

    fn weakness(&self) -> Result<Option<String>, AgentError> {
        self.flags()?;
        Ok(Some(
            "GRUB's environment block has one copy, no checksum, and is written in place: a power \
             cut at the wrong moment loses the boot flags; prefer another backend where you can"
                .to_owned(),
        ))
    }
}
