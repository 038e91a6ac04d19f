//! One round of the daemon: after a boot, finish what the boot left to do; then ask what is offered,
//! and go as far as `policy.mode` lets it.

use formats::boot_record::Slot;
use formats::reason::RecordedReason;
use formats::version::Version;
use serde::Serialize;
use update_core::daemon::{self, Action, Facts, Mode};
use update_core::update::{Outcome, Standing, stand};

use super::update::{Probed, Trial};
use super::{Agent, Verdict, Wish};
use crate::error::AgentError;
use crate::progress::Progress;
use crate::state::StateGuard;

/// What a round did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "did", rename_all = "snake_case")]
pub enum RoundReport {
    /// There was nothing to ask, or nothing is offered.
    Nothing {
        /// Why.
        #[serde(skip)]
        why: &'static str,
    },
    /// A revert is recorded: of a trial that was lost, or one that was cut.
    Reverted {
        /// The slot that was marked bad.
        slot: Slot,
        /// Why.
        reason: RecordedReason,
        /// In words.
        why: String,
        /// Whether the machine is restarting to leave it.
        #[serde(skip)]
        restarting: bool,
    },
    /// The trial has passed.
    Confirmed {
        /// The slot.
        slot: Slot,
    },
    /// The trial has failed; the machine is restarting.
    TrialFailed {
        /// Why.
        why: String,
    },
    /// The booted slot was marked bad; the machine is restarting to leave it.
    Leaving,
    /// A release is offered, and nothing was installed.
    Notified {
        /// Its version.
        version: Version,
        /// What was decided.
        decision: Verdict,
        /// Why.
        why: String,
        /// Where it stands.
        #[serde(skip)]
        offered: Offered,
    },
    /// A release is written and read back, not next.
    Staged {
        /// Its version.
        version: Version,
    },
    /// A release is next; the machine is restarting into it.
    Applied {
        /// Its version.
        version: Version,
    },
}

/// Where a release stands that was offered and not installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offered {
    /// The rules do not let it be installed now.
    Declined,
    /// It waits for an operator.
    Available,
    /// It is staged, and waits for an operator.
    Staged,
    /// It is next, and waits for a restart.
    Next,
    /// It is next, and the machine is restarting into it.
    Restarting,
}

impl RoundReport {
    /// Whether the machine is restarting: the caller has nothing more to do.
    pub fn is_restarting(&self) -> bool {
        match self {
            RoundReport::Reverted { restarting, .. } => *restarting,
            RoundReport::Notified { offered, .. } => *offered == Offered::Restarting,
            RoundReport::TrialFailed { .. }
            | RoundReport::Leaving
            | RoundReport::Applied { .. } => true,
            RoundReport::Nothing { .. }
            | RoundReport::Confirmed { .. }
            | RoundReport::Staged { .. } => false,
        }
    }

    /// Whether this round confirmed the booted slot.
    pub fn is_confirmed(&self) -> bool {
        matches!(self, RoundReport::Confirmed { .. })
    }
}

impl Agent {
    /// One round of the daemon. The machine may be restarting when it returns.
    pub fn round(&self, progress: &dyn Progress) -> Result<RoundReport, AgentError> {
        self.noting(|| {
            let held = self.state.hold()?;
            if let Some(report) = self.finish_boot(&held)? {
                if report.is_confirmed() {
                    self.floor_keeper().lock(&held);
                }
                return Ok(report);
            }
            self.floor_keeper().lock(&held);
            if self.config.sources.is_empty() {
                let why = "no source is configured; bundles are applied by hand";
                return Ok(RoundReport::Nothing { why });
            }
            self.poll(held, progress)
        })
    }

    /// What the last boot left to do. `None`: nothing, go on.
    fn finish_boot(&self, held: &StateGuard) -> Result<Option<RoundReport>, AgentError> {
        match self.settle(held)? {
            Outcome::Reverted { slot, reboot: restarting, reason, detail: why } => {
                if restarting {
                    self.reboot()?;
                }
                return Ok(Some(RoundReport::Reverted { slot, reason, why, restarting }));
            }
            Outcome::Confirmed(slot) => return Ok(Some(RoundReport::Confirmed { slot })),
            _ => {}
        }
        let node = self.node()?;
        let offer = match self.config.sources.is_empty() {
            true => daemon::Offer::NoSource,
            false => daemon::Offer::NotAsked,
        };
        match (self.next(&stand(&node), offer), Trial::under_way(&node)) {
            (Action::Probe, Some(trial)) => Ok(Some(match trial.probe(&self.driver(held))? {
                Probed::Confirmed(slot) => RoundReport::Confirmed { slot },
                Probed::Failed(why) => RoundReport::TrialFailed { why },
            })),
            (Action::Restart, _) => {
                self.reboot()?;
                Ok(Some(RoundReport::Leaving))
            }
            _ => Ok(None),
        }
    }

    fn next(&self, standing: &Standing, offer: daemon::Offer) -> Action {
        daemon::next(Facts { mode: self.config.policy.mode, standing, offer })
    }

    /// One conditional request when nothing changed; the stations of an update when something is
    /// offered and the mode lets it be installed.
    fn poll(&self, held: StateGuard, progress: &dyn Progress) -> Result<RoundReport, AgentError> {
        let sources = self.sources(&Wish::default())?;
        let refreshed = sources.refresh(&self.state, &held, &self.shipped_root()?)?;
        let inputs = self.inputs();
        let Some(offer) = refreshed.decide(&inputs, &held, &Wish::default())? else {
            return Ok(RoundReport::Nothing { why: "the channel offers nothing yet" });
        };
        let judged = offer.judged();
        let version = judged.version().clone();
        let (decision, why) =
            (Verdict::from(&judged.decided.decision), judged.decided.why().to_owned());
        let notified = |offered| {
            let version = version.clone();
            Ok(RoundReport::Notified { version, decision, why: why.clone(), offered })
        };
        if decision != Verdict::Install {
            return notified(Offered::Declined);
        }
        let node = self.node()?;
        let update = node.record.update.as_ref();
        let same = update.is_some_and(|update| update.release.index == judged.signed.index);
        let standing = stand(&node);
        match self.next(&standing, daemon::Offer::Install { same }) {
            Action::Restart => {
                self.reboot()?;
                notified(Offered::Restarting)
            }
            Action::Install { activate } => {
                self.config.health.usable()?;
                let plan = offer.resolve(&inputs)?;
                plan.install(&self.driver(&held), &[], !activate, progress)?;
                if !activate {
                    return Ok(RoundReport::Staged { version });
                }
                drop(held);
                self.reboot()?;
                Ok(RoundReport::Applied { version })
            }
            Action::Rest | Action::Ask | Action::Probe => {
                notified(match (self.config.policy.mode, standing) {
                    (Mode::Stage, Standing::Staged) => Offered::Staged,
                    (Mode::Stage, Standing::AwaitingReboot) => Offered::Next,
                    _ => Offered::Available,
                })
            }
        }
    }
}
