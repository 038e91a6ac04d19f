//! The security-version floor of this node: the file of the state, and where one is configured the
//! TPM's counter. What they mean together is [`update_core::floor`].
//!
//! ```text
//!  raise    file ─► counter, step by step ─► file remembers the counter
//!  settle   file behind the counter: an older state; it is raised to it, and says since when
//!           counter behind the file: a raise was cut; it is finished
//! ```

use formats::boot_record::Floor;
use formats::reason::Reason;
use storage::secret::{Readers, Rule};
use update_core::floor::{Guarantee, Judged, STEPS_LIMIT, Tpm, judge, seen, too_far};

use crate::agent::Agent;
use crate::error::{AgentError, chain_of};
use crate::state::Held;
use crate::tpm::{Counter, CounterError, Found};

/// A password is short.
const OWNER_LIMIT: u64 = 1 << 10;

impl Agent {
    /// The floor, and how far it can be believed. Changes nothing.
    pub fn floor(&self) -> Result<Judged, AgentError> {
        Ok(judge(&self.state.floor_record()?, &self.ask_tpm()))
    }

    /// Refuses a release that the floor's keeper could not follow, or any while it is lost.
    pub fn check_floor(&self, security_version: u64) -> Result<(), AgentError> {
        let judged = self.floor()?;
        if let Guarantee::Lost(why) = &judged.guarantee {
            return Err(AgentError::new(Reason::FloorLost, why.clone()).hint(LOST_HINT));
        }
        if too_far(&judged, security_version) {
            let text = format!(
                "security version {security_version} is more than {STEPS_LIMIT} above the floor {}: \
                 a TPM counts one by one",
                judged.floor
            );
            return Err(AgentError::new(Reason::MetaLimit, text)
                .hint("publish with a security version that counts by one"));
        }
        Ok(())
    }

    /// Makes the floor durable at no less than `to`, in the file first. A TPM that is lost keeps
    /// nobody from confirming: the file is raised, and updates are refused later.
    pub fn raise_floor(&self, held: &Held, to: u64) -> Result<(), AgentError> {
        self.state.raise_floor(held, to)?;
        if let Err(error) = self.follow(held) {
            tracing::error!(code = error.reason().code(), "floor: {}", error.chain());
        }
        Ok(())
    }

    /// Brings file and counter together after whatever happened between them.
    pub fn settle_floor(&self, held: &Held) -> Result<(), AgentError> {
        if self.config.floor.tpm.is_none() {
            return Ok(());
        }
        let mut file = self.state.floor_record()?;
        let judged = judge(&file, &self.ask_tpm());
        if judged.older_state {
            tracing::warn!(
                "this node's state is older than its TPM: an old disk was put back, or the state \
                 was lost; the floor stays {}",
                judged.floor
            );
            file.security_version = judged.floor;
            file.older_since = Some(self.state.now());
            self.state.save_floor(held, &file)?;
        }
        self.raise_floor(held, judged.floor)
    }

    /// Begins anew with a counter that stands for the file's floor; only on an operator's word.
    pub fn renew_floor(&self, held: &Held) -> Result<Judged, AgentError> {
        let mut file = self.state.floor_record()?;
        (file.tpm, file.older_since) = (None, None);
        match self.open_tpm()? {
            None => self.state.save_floor(held, &file)?,
            Some(mut counter) => {
                // A counter of ours that still counts may know of a higher floor.
                if let Ok(Found::Counter { mark, value }) = counter.look()
                    && let Some(counted) = mark.floor(value)
                {
                    file.security_version = file.security_version.max(counted);
                }
                self.state.save_floor(held, &file)?;
                self.make(held, &mut counter, file)?;
            }
        }
        self.floor()
    }

    /// Raises the counter to the file's floor, making it first when there is none yet.
    fn follow(&self, held: &Held) -> Result<(), AgentError> {
        let Some(mut counter) = self.open_tpm()? else { return Ok(()) };
        let file = self.state.floor_record()?;
        let tpm = look(&mut counter);
        let judged = judge(&file, &tpm);
        match (judged.guarantee, tpm) {
            (Guarantee::Lost(why), _) => {
                Err(AgentError::new(Reason::FloorLost, why).hint(LOST_HINT))
            }
            (Guarantee::NotYet, _) => self.make(held, &mut counter, file),
            (_, Tpm::Counter { mark, value }) => {
                let counted = mark.floor(value).unwrap_or(0);
                let steps = file.security_version.saturating_sub(counted);
                if steps > STEPS_LIMIT {
                    let text = format!("the TPM is {steps} steps behind the floor's file");
                    return Err(AgentError::new(Reason::FloorLost, text).hint(LOST_HINT));
                }
                let value = if steps > 0 { counter.raise(value, steps)? } else { value };
                let tpm = Some(seen(self.config.floor.tpm_index, mark, value));
                if file.tpm == tpm {
                    return Ok(());
                }
                self.state.save_floor(held, &Floor { tpm, ..file })
            }
            _ => Ok(()),
        }
    }

    fn make(&self, held: &Held, counter: &mut Counter, file: Floor) -> Result<(), AgentError> {
        let (mark, value) = counter.make(file.security_version)?;
        let tpm = Some(seen(self.config.floor.tpm_index, mark, value));
        self.state.save_floor(held, &Floor { tpm, ..file })
    }

    fn open_tpm(&self) -> Result<Option<Counter>, AgentError> {
        let config = &self.config.floor;
        let Some(path) = &config.tpm else { return Ok(None) };
        let owner = match &config.tpm_owner {
            None => Vec::new(),
            Some(path) => {
                let rule = Rule::of(Readers::Nobody);
                let mut password =
                    self.host.read_secret(path, OWNER_LIMIT, rule).map_err(|error| {
                        AgentError::from(error).or_config().context("floor.tpm_owner")
                    })?;
                while password.last().is_some_and(u8::is_ascii_whitespace) {
                    password.pop();
                }
                password.to_vec()
            }
        };
        Ok(Some(Counter::open(path, config.tpm_index, owner)?))
    }

    fn ask_tpm(&self) -> Tpm {
        match self.open_tpm() {
            Ok(None) => Tpm::NotConfigured,
            Ok(Some(mut counter)) => look(&mut counter),
            Err(error) => Tpm::Unusable(error.chain()),
        }
    }
}

/// What lies under a counter's index.
pub(crate) fn look(counter: &mut Counter) -> Tpm {
    match counter.look() {
        Ok(Found::Nothing | Found::Fresh) => Tpm::NoCounter,
        Ok(Found::Counter { mark, value }) => Tpm::Counter { mark, value },
        Err(error) => Tpm::Unusable(chain_of(&error)),
    }
}

const LOST_HINT: &str = "nodes go on running and reverting; when you know why the TPM changed, run \
                         `update-agent floor --renew`";

impl CounterError {
    /// The stable reason.
    pub fn reason(&self) -> Reason {
        Reason::FloorLost
    }
}
