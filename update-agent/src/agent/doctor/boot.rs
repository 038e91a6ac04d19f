//! The boot flags, and whether the boot loader reads them.

use formats::reason::Reason;
use update_core::update::{Standing, stand};

use super::super::Agent;
use super::{Answer, Level, good};
use crate::boot::BootControl as _;
use crate::boot::bypass;
use crate::config::Backend;
use crate::error::AgentError;

pub(super) fn flags(agent: &Agent) -> Answer {
    agent.disk.flags()?;
    agent.disk.can_write()?;
    match agent.disk.weakness()? {
        None => good(agent.config.boot.backend.name()),
        Some(text) => Ok((Level::Weak, text)),
    }
}

pub(super) fn booted(agent: &Agent) -> Answer {
    agent.disk.check_root()?;
    agent.check_disk()?;
    let slot = agent.disk.booted()?;
    let flags = *agent.disk.flags()?.of(slot);
    let node = agent.node()?;
    if !flags.confirmed() && stand(&node) == Standing::Idle {
        let text = format!("slot {slot} runs but is not marked successful");
        return Err(AgentError::new(Reason::BootRecord, text)
            .hint("if this system works, run `update-agent confirm --adopt` once"));
    }
    good(format!("slot {slot}"))
}

pub(super) fn counting(agent: &Agent) -> Answer {
    let record = agent.state.boot_record()?;
    let tells = agent.config.boot.backend.tells_the_kernel();
    let backend = agent.config.boot.backend;
    if let Some(update) = record.update.as_ref().filter(|update| update.passed_over > 0) {
        return Ok((Level::Weak, bypass::sentence(&agent.config.boot, update.slot)));
    }
    match (record.counting, agent.disk.chooser_booted()) {
        (_, false) if record.chooser && tells => Err(AgentError::new(
            Reason::CountingInactive,
            "earlier boots were counted, this one was not: another boot loader started it",
        )
        .hint(
            "put back the chooser or boot script; if this is how the node boots from now on, run \
             `update-agent confirm --adopt`",
        )),
        (_, true) if agent.config.boot.backend == Backend::GptAttributes => {
            good("boot-select booted this system")
        }
        (_, true) => good("the boot loader that reads these flags booted this system"),
        (Some(true), false) => good("a try was spent at the last trial"),
        (Some(false), false) => Err(AgentError::new(
            Reason::CountingInactive,
            format!(
                "the last trial was booted without spending a try, or two boots in a row passed it \
                 over ({})",
                bypass::causes(backend)
            ),
        )
        .hint(
            "install boot-select as the chooser, or the boot loader of boot.backend; if it is \
             there, run `update-agent confirm --adopt` once",
        )),
        (None, false) => Ok((
            Level::Weak,
            "not proven yet: nothing shows that the boot loader reads these flags; the first \
             trial will"
                .to_owned(),
        )),
    }
}
