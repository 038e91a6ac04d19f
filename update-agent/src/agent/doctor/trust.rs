//! Trust root, clock, sources and floor.

use std::path::Path;

use formats::reason::Reason;
use formats::tuf::BUILD_TIME;
use update_core::chooser::ChooserFloor;
use update_core::floor::Guarantee;
use update_core::trust::{CLOCK_TOLERANCE, Clock, Limits, Refresh, Stored};

use super::super::Agent;
use super::super::floor::guarantee;
use super::{Answer, Level, good};
use crate::error::{AgentError, Because as _};
use crate::figures::time;
use crate::source::TufState;
use crate::trust;

const TPM: &str = "/dev/tpmrm0";

pub(super) fn root(agent: &Agent) -> Answer {
    let root = agent.shipped_root()?;
    // Whether it signs itself; the clock is a question of its own.
    let whenever = Clock { system: BUILD_TIME, build: BUILD_TIME };
    Refresh::begin(Stored::default(), &root, whenever, Limits::default())
        .because(Reason::Config, root_in_use(agent)?)
        .map_err(|error| error.hint("it is the root.json that `signer init` wrote"))?;
    if agent.trusts_example_keys() {
        return Ok((Level::Weak, crate::example::WARNING.to_owned()));
    }
    good(root_in_use(agent)?)
}

/// The trust root that counts, which after a reset is not the one that the configuration names.
fn root_in_use(agent: &Agent) -> Result<String, AgentError> {
    let configured = agent.config.trust.root.display();
    Ok(match agent.state.enrolled_root()? {
        Some(_) => format!("that of the last `reset --root`; {configured} counts no more"),
        None => configured.to_string(),
    })
}

pub(super) fn clock(agent: &Agent) -> Answer {
    let stored = agent.state.trust()?;
    let now = agent.state.now();
    update_core::trust::start_time(trust::clock(now), stored.known_time)?;
    // No proof: what it said then may have been wrong.
    let last = agent.state.report().last_success.unwrap_or_default();
    if last > now.saturating_add(CLOCK_TOLERANCE.unsigned_abs()) {
        let (last, now) = (time(last), time(now));
        let text =
            format!("it says {now}, and at the last check it said {last}: see that it is set");
        return Ok((Level::Weak, text));
    }
    good("not behind what is known to have happened")
}

pub(super) fn sources(agent: &Agent) -> Answer {
    if agent.config.sources.is_empty() {
        return good("none configured: updates come by bundle");
    }
    let mut texts = Vec::new();
    for source in agent.environment.sources(&agent.config, None)? {
        let state = source.tuf_state(None)?;
        let files = match state {
            TufState::Changed { files, .. } => files.len(),
            TufState::Unchanged => 0,
        };
        texts.push(format!("{} ({files} files)", source.describe()));
    }
    good(texts.join(", "))
}

pub(super) fn floor(agent: &Agent) -> Answer {
    let judged = agent.judged_floor()?;
    let text = guarantee(&judged);
    // Only a verifying chooser could look at it.
    let chooser = agent.config.boot.verity && agent.disk.chooser_booted();
    match judged.guarantee {
        Guarantee::Tpm if judged.open => Ok((Level::Weak, text)),
        Guarantee::Tpm if chooser => match agent.disk.chooser_floor() {
            ChooserFloor::At(_) if !judged.older_state => good(text),
            ChooserFloor::At(_) => Ok((Level::Weak, text)),
            ChooserFloor::Open(gap) => Ok((
                Level::Weak,
                format!("{text}; the chooser of this boot could not apply it: {}", gap.code()),
            )),
            ChooserFloor::Unset => Ok((
                Level::Weak,
                format!("{text}; the chooser does not look at it: set floor.tpm in its own file"),
            )),
        },
        Guarantee::Tpm if !judged.older_state => good(text),
        Guarantee::Lost(_) => Err(AgentError::new(Reason::FloorLost, text)
            .hint("when you know why the TPM changed, run `update-agent floor --renew`")),
        Guarantee::File if Path::new(TPM).exists() => {
            Ok((Level::Weak, format!("{text}; this machine has a TPM: set floor.tpm = {TPM:?}")))
        }
        _ => Ok((Level::Weak, text)),
    }
}
