//! One round of the daemon: after a boot, finish what the boot left to do; then ask what is offered,
//! and go as far as `policy.mode` lets it.

use std::time::Duration;

use formats::boot_record::Slot;
use formats::reason::RecordedReason;
use formats::version::Version;
use serde::Serialize;
use update_core::daemon::{self, Action, Facts, Mode};
use update_core::restart::Purpose;
use update_core::update::{Node, Outcome, Standing, Task, stand};

use super::update::{Probed, Refreshed, Trial, unexpected};
use super::{Agent, Obstacle, Pending, Verdict, Wish};
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
        /// Why it would not be installed as this node stands, if the operator is to install it.
        #[serde(skip)]
        obstacle: Option<Obstacle>,
    },
    /// A release is written and read back, not next.
    Staged {
        /// Its version.
        version: Version,
    },
    /// What was next must not be tried for now: it is not next any more, and stays written.
    Withheld {
        /// Its version.
        version: Version,
        /// The slot.
        slot: Slot,
        /// Why.
        why: String,
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
    /// It is next; a hook put the restart off, and is asked again after this time.
    Delayed(Duration),
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
            | RoundReport::Withheld { .. }
            | RoundReport::Staged { .. } => false,
        }
    }

    /// When a restart that was put off is due again.
    pub fn delay(&self) -> Option<Duration> {
        match self {
            RoundReport::Notified { offered: Offered::Delayed(wait), .. } => Some(*wait),
            _ => None,
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
            let finished = self.finish_boot(&held)?;
            self.tell_end(&held)?;
            if let Some(report) = finished {
                if report.is_confirmed() {
                    self.parts().floor().lock(&held);
                }
                return Ok(report);
            }
            self.parts().floor().lock(&held);
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
                    self.ask_restart(Some(held), Purpose::Leave, &why);
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
        match (self.next(&node, offer), Trial::under_way(&node)) {
            (Action::Probe, Some(trial)) => Ok(Some(match trial.probe(&self.driver(held))? {
                Probed::Confirmed(slot) => RoundReport::Confirmed { slot },
                Probed::Failed(why) => RoundReport::TrialFailed { why },
            })),
            (Action::Restart, trial) => {
                let why = match self.restart_pending().filter(Pending::leaves) {
                    Some(pending) => pending.asked.why,
                    None => format!("slot {} was given up", node.booted),
                };
                self.ask_restart(Some(held), Purpose::Leave, &why);
                Ok(Some(match trial {
                    Some(_) => RoundReport::TrialFailed { why },
                    None => RoundReport::Leaving,
                }))
            }
            _ => Ok(None),
        }
    }

    fn next(&self, node: &Node, offer: daemon::Offer) -> Action {
        let update = node.record.update.as_ref();
        daemon::next(Facts {
            mode: self.config.policy.mode,
            standing: &stand(node),
            offer,
            lost: self.is_lost(),
            taken_back: update.is_some_and(|update| update.withheld.is_some()),
        })
    }

    /// Takes back what is next, where its channel says so since.
    fn withhold(
        &self,
        held: &StateGuard,
        refreshed: &mut Refreshed<'_>,
    ) -> Result<Option<RoundReport>, AgentError> {
        let node = self.node()?;
        let Some(update) = node.record.update.as_ref().filter(|update| !update.named) else {
            return Ok(None);
        };
        let Some(why) = refreshed.withheld(self.parts(), held, &update.release)? else {
            return Ok(None);
        };
        if self.next(&node, daemon::Offer::Withheld) != Action::Withhold {
            return Ok(None);
        }
        let version = update.release.version.version();
        match self.run(held, Task::Withhold { why })?.outcome {
            Outcome::Withheld { slot, why } => {
                Ok(Some(RoundReport::Withheld { version, slot, why }))
            }
            other => Err(unexpected("withdrawal", &other)),
        }
    }

    /// One conditional request when nothing changed; the stations of an update when something is
    /// offered and the mode lets it be installed.
    fn poll(&self, held: StateGuard, progress: &dyn Progress) -> Result<RoundReport, AgentError> {
        let sources = self.sources(&Wish::default())?;
        let mut refreshed = self.refresh(&held, &sources)?;
        let withheld = self.withhold(&held, &mut refreshed)?;
        let parts = self.parts();
        let offer = refreshed.decide(parts, &held, &Wish::default())?;
        if let Some(withheld) = withheld {
            return Ok(withheld);
        }
        let Some(offer) = offer else {
            return Ok(RoundReport::Nothing { why: "the channel offers nothing yet" });
        };
        let judged = offer.judged();
        let version = judged.version().clone();
        let (decision, why) =
            (Verdict::from(&judged.decided.decision), judged.decided.why().to_owned());
        let notified = |offered| {
            let (version, why) = (version.clone(), why.clone());
            RoundReport::Notified { version, decision, why, offered, obstacle: None }
        };
        if decision != Verdict::Install {
            return Ok(notified(Offered::Declined));
        }
        let node = self.node()?;
        let update = node.record.update.as_ref();
        let same = update.is_some_and(|update| update.release.index == judged.signed.index);
        match self.next(&node, daemon::Offer::Install { same }) {
            Action::Restart => Ok(notified(self.restart_into_next(&held, &version)?)),
            Action::Install { activate } => {
                self.config.health.usable()?;
                let plan = offer.resolve(parts)?;
                for warning in self.ask_before_apply()? {
                    tracing::warn!("{warning}; the release on trial has to pass it");
                }
                plan.install(&self.driver(&held), &[], !activate, progress)?;
                if !activate {
                    return Ok(RoundReport::Staged { version });
                }
                if self.config.policy.mode != Mode::Auto {
                    return Ok(notified(Offered::Next));
                }
                match self.restart_into_next(&held, &version)? {
                    delayed @ Offered::Delayed(_) => Ok(notified(delayed)),
                    _ => Ok(RoundReport::Applied { version }),
                }
            }
            Action::Rest | Action::Ask | Action::Probe | Action::Withhold => {
                let mut report = notified(match (self.config.policy.mode, stand(&node)) {
                    (Mode::Stage, Standing::Staged) => Offered::Staged,
                    (Mode::Stage, Standing::AwaitingReboot) => Offered::Next,
                    _ => Offered::Available,
                });
                if let RoundReport::Notified { obstacle, .. } = &mut report {
                    *obstacle = self.obstacle(judged);
                }
                Ok(report)
            }
        }
    }
}
