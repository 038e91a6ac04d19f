//! The security-version floor of this node: the file of the state, and where one is configured the
//! TPM's counter. What they mean together is [`update_core::floor`].
//!
//! ```text
//!  raise    file ─► counter, step by step ─► file remembers the counter
//!  settle   file behind the counter: an older state; it says since when, and follows as far as runs
//!           counter behind the file: a raise was cut; it is finished
//!  lock     nothing is left to raise in this boot: the TPM counts no more before the next
//!  renew    secret ─► file forgets the counter ─► a new one ─► file remembers it
//! ```

mod report;

use formats::boot_record::Floor;
use formats::reason::Reason;
use formats::tpm::{SECRET_LEN, TpmError};
use storage::host::Host;
use storage::secret::{Readers, Rule};
use update_core::floor::{
    Guarantee, Hold, Judged, STEPS_LIMIT, Tpm, judge, kept, renewed, seen, too_far,
};

use crate::boot::BootControl as _;
use crate::config::FloorConfig;
use crate::disk::Disk;
use crate::error::{AgentError, Because as _};
use crate::state::{State, StateGuard};
use crate::tpm::{Counter, CounterError, Found, Keys, observe};

pub(super) use self::report::guarantee;
pub use self::report::{FloorReport, KeptIn};

/// 1 KiB: the longest owner password that is read.
const OWNER_LIMIT: u64 = 1 << 10;

/// Reads and raises the floor of one node.
#[derive(Clone, Copy)]
pub(super) struct FloorKeeper<'a> {
    pub(super) config: &'a FloorConfig,
    pub(super) state: &'a State,
    pub(super) disk: &'a Disk,
    pub(super) host: &'a dyn Host,
}

impl FloorKeeper<'_> {
    /// The floor, and how far it can be believed. Changes nothing.
    pub(super) fn judged(&self) -> Result<Judged, AgentError> {
        let (file, tpm) = (self.state.floor_record()?, self.ask_tpm());
        // Only a counter is compared with what runs.
        let counts = matches!(tpm, Tpm::Counter { .. });
        Ok(judge(&file, &tpm, counts.then(|| self.runs()).flatten()))
    }

    /// The security version of the booted slot, where it is confirmed and the record knows it.
    fn runs(&self) -> Option<u64> {
        let booted = self.disk.booted().ok()?;
        let confirmed = self.disk.flags().ok()?.of(booted).confirmed();
        let content = self.state.boot_record().ok()?.slots.of(booted).clone()?;
        confirmed.then_some(content.release.security_version)
    }

    /// Refuses a release that the floor's keeper could not follow, or any while it is lost.
    pub(super) fn check(&self, security_version: u64) -> Result<(), AgentError> {
        let judged = self.judged()?;
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

    /// Makes the floor durable at no less than `to`, in the file first. A lost TPM does not prevent
    /// confirming: the file is raised, and later updates are refused.
    pub(super) fn raise(&self, held: &StateGuard, to: u64) -> Result<(), AgentError> {
        self.state.raise_floor(held, to)?;
        if let Err(error) = self.follow(held) {
            tracing::error!(code = error.reason().code(), "floor: {}", error.chain());
        }
        Ok(())
    }

    /// Brings file and counter together after whatever happened between them.
    pub(super) fn settle(&self, held: &StateGuard) -> Result<(), AgentError> {
        if self.config.tpm.is_none() {
            return Ok(());
        }
        let file = self.state.floor_record()?;
        let runs = self.runs();
        let judged = judge(&file, &self.ask_tpm(), runs);
        let mut after = file.clone();
        if judged.older_state {
            after.security_version = kept(&file, &judged, runs);
            if after.older_since.is_none() || after.security_version > file.security_version {
                tracing::warn!(
                    "the state of this node is older than its TPM: an old disk was put back, or the \
                     state was lost; the floor stays {}",
                    judged.floor
                );
                after.older_since = Some(self.state.now());
            }
        }
        if after != file {
            self.state.save_floor(held, &after)?;
        }
        self.raise(held, after.security_version)
    }

    /// Locks the counter until the next boot. Call it when the boot is settled: nothing is left to
    /// raise then. A counter that cannot be locked is logged, and updates go on.
    pub(super) fn lock(&self, _: &StateGuard) {
        let locked = || -> Result<(), AgentError> {
            let Some(mut counter) = self.open_tpm()? else { return Ok(()) };
            let file = self.state.floor_record()?;
            let found = counter.look()?;
            let Found::Counter { mark, value, hold: Hold::Own, locked: false } = found else {
                return Ok(());
            };
            // A counter that is behind could not follow any more.
            if mark.floor(value).is_some_and(|counted| counted >= file.security_version) {
                counter.lock()?;
            }
            Ok(())
        };
        if let Err(error) = locked() {
            tracing::warn!(code = error.reason().code(), "lock the floor: {}", error.chain());
        }
    }

    /// Begins anew with a counter of our own that stands for [`renewed`]; only on an operator's word.
    ///
    /// A crash leaves the old floor, or the new one without its counter, which the next work makes.
    pub(super) fn renew(&self, held: &StateGuard) -> Result<Judged, AgentError> {
        let file = self.state.floor_record()?;
        let security_version = renewed(&file, &self.ask_tpm(), self.runs());
        let file = Floor { security_version, tpm: None, older_since: None };
        if self.config.tpm.is_some() {
            // Whoever learned the old one learns nothing of the new counter.
            self.draw_secret(held)?;
        }
        self.state.save_floor(held, &file)?;
        if let Some(mut counter) = self.open_tpm()? {
            self.make(held, &mut counter, file)?;
        }
        self.judged()
    }

    /// Raises the counter to the file's floor, making it first when there is none yet.
    fn follow(&self, held: &StateGuard) -> Result<(), AgentError> {
        let Some(mut counter) = self.open_tpm()? else { return Ok(()) };
        let file = self.state.floor_record()?;
        let tpm = observe(&mut counter);
        let judged = judge(&file, &tpm, self.runs());
        match (judged.guarantee, tpm) {
            (Guarantee::Lost(why), _) => {
                Err(AgentError::new(Reason::FloorLost, why).hint(LOST_HINT))
            }
            (Guarantee::NotYet, _) => {
                // Kept before the TPM learns it: a counter whose secret is lost counts no more.
                drop(counter);
                if self.state.tpm_secret()?.is_none() {
                    self.draw_secret(held)?;
                }
                match self.open_tpm()? {
                    Some(mut counter) => self.make(held, &mut counter, file),
                    None => Ok(()),
                }
            }
            (_, Tpm::Counter { mark, value, hold }) => {
                let counted = mark.floor(value).unwrap_or(0);
                let steps = file.security_version.saturating_sub(counted);
                if steps > STEPS_LIMIT {
                    let text = format!("the TPM is {steps} steps behind the floor's file");
                    return Err(AgentError::new(Reason::FloorLost, text).hint(LOST_HINT));
                }
                let value = match steps {
                    0 => value,
                    _ => match counter.raise(value, steps, hold) {
                        Err(CounterError::Tpm(TpmError::Locked)) => {
                            tracing::info!("the TPM's counter follows after the next restart");
                            return Ok(());
                        }
                        raised => raised?,
                    },
                };
                let tpm = Some(seen(self.config.tpm_index, mark, value));
                if file.tpm == tpm {
                    return Ok(());
                }
                self.state.save_floor(held, &Floor { tpm, ..file })
            }
            _ => Ok(()),
        }
    }

    fn draw_secret(&self, held: &StateGuard) -> Result<(), AgentError> {
        let mut secret = [0; SECRET_LEN];
        getrandom::fill(&mut secret).because(Reason::StoreIo, "draw the TPM counter's secret")?;
        self.state.save_tpm_secret(held, &secret)
    }

    fn make(
        &self,
        held: &StateGuard,
        counter: &mut Counter,
        file: Floor,
    ) -> Result<(), AgentError> {
        let (mark, value) = counter.make(file.security_version)?;
        let tpm = Some(seen(self.config.tpm_index, mark, value));
        self.state.save_floor(held, &Floor { tpm, ..file })
    }

    fn open_tpm(&self) -> Result<Option<Counter>, AgentError> {
        let config = self.config;
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
        let keys = Keys { owner, secret: self.state.tpm_secret()? };
        Ok(Some(Counter::open(path, config.tpm_index, keys)?))
    }

    fn ask_tpm(&self) -> Tpm {
        match self.open_tpm() {
            Ok(None) => Tpm::NotConfigured,
            Ok(Some(mut counter)) => observe(&mut counter),
            Err(error) => Tpm::Unusable(error.chain()),
        }
    }
}

const LOST_HINT: &str = "nodes go on running and reverting; when you know why the TPM changed, run \
                         `update-agent floor --renew`";
