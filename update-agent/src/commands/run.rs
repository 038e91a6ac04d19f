//! `run`: observe, decide, act.
//!
//! After a boot it first finishes what the boot left to do: a trial is checked and confirmed, or
//! restarted; a revert is recorded. Then it polls, one conditional request when nothing changed,
//! and goes as far as `policy.mode` lets it.

use std::time::Duration;

use formats::reason::{Exit, Reason};
use serde_json::{Value, json};
use update_core::update::{Outcome, Standing, stand};

use super::RunArgs;
use crate::agent::{Agent, Probed, Trial, Verdict, Wish};
use crate::config::Mode;
use crate::error::AgentError;
use crate::notify;
use crate::output::Output;
use crate::progress::Progress;
use crate::state::StateGuard;

/// What a round ended with.
enum Round {
    /// Nothing is left to do before the next poll.
    Idle(Value, String),
    /// The machine is restarting.
    Restarting(Value, String),
}

/// `run`
pub(super) fn run(agent: &Agent, args: RunArgs, output: Output) -> Result<Exit, AgentError> {
    if args.once {
        let progress = crate::progress::start(false);
        return match single_round(agent, progress.as_ref())? {
            Round::Idle(value, text) | Round::Restarting(value, text) => {
                output.result(value, &text);
                Ok(Exit::Done)
            }
        };
    }
    notify::ready();
    let progress = crate::progress::start(false);
    let mut jitter = Jitter::new()?;
    loop {
        match once(agent, progress.as_ref()) {
            Ok(Round::Idle(_, text)) => {
                tracing::info!("{text}");
                rest_watchdog(agent, true);
            }
            Ok(Round::Restarting(_, text)) => {
                tracing::info!("{text}");
                return Ok(Exit::Done);
            }
            // A configuration does not heal by itself; everything else may.
            Err(error) if error.reason() == Reason::Config => return Err(error),
            Err(error) => {
                agent.note_error(&error);
                tracing::error!(code = error.reason().code(), "{}", error.chain());
            }
        }
        let wait = jitter.around(agent.config.policy.interval);
        notify::status(&format!("next poll in {} s", wait.as_secs()));
        notify::wait(wait);
    }
}

/// `run --once`, but for its output.
pub fn run_once(agent: &Agent, progress: &dyn Progress) -> Result<(), AgentError> {
    agent.noting(|| single_round(agent, progress).map(drop))
}

fn single_round(agent: &Agent, progress: &dyn Progress) -> Result<Round, AgentError> {
    let round = once(agent, progress);
    // A confirm has let go of it already.
    if !round.as_ref().is_ok_and(confirmed_now) {
        rest_watchdog(agent, false);
    }
    round
}

/// A chooser arms the watchdog at every boot; a system that is not on trial has nothing to prove.
fn rest_watchdog(agent: &Agent, daemon: bool) {
    let on_trial = |node| matches!(stand(&node), Standing::OnTrial { .. } | Standing::Leaving);
    // Unknown is not "no": a watchdog that fires costs a reboot, one that was let go costs the node.
    if agent.node().is_ok_and(|node| !on_trial(node)) {
        crate::health::watch::rest(&agent.config.health, daemon);
    }
}

/// One round: after a boot, finish; then poll and act.
fn once(agent: &Agent, progress: &dyn Progress) -> Result<Round, AgentError> {
    let held = agent.state.hold()?;
    if let Some(round) = after_boot(agent, &held)? {
        if confirmed_now(&round) {
            agent.floor_keeper().lock(&held);
        }
        return Ok(round);
    }
    agent.floor_keeper().lock(&held);
    if agent.config.sources.is_empty() {
        let text = "no source is configured; bundles are applied by hand".to_owned();
        return Ok(Round::Idle(json!({ "did": "nothing" }), text));
    }
    poll(agent, held, progress)
}

/// What the last boot left to do. `None`: nothing, go on.
fn after_boot(agent: &Agent, held: &StateGuard) -> Result<Option<Round>, AgentError> {
    match agent.settle(held)? {
        Outcome::Reverted { slot, reboot, reason, detail } => {
            let text = format!("slot {slot} was given up: {detail} ({reason})");
            let value = json!({ "did": "reverted", "slot": slot, "reason": reason, "why": detail });
            if reboot {
                agent.reboot()?;
                return Ok(Some(Round::Restarting(value, text)));
            }
            return Ok(Some(Round::Idle(value, text)));
        }
        Outcome::Confirmed(slot) => return Ok(Some(confirmed(slot))),
        _ => {}
    }
    let node = agent.node()?;
    if let Some(trial) = Trial::under_way(&node) {
        return Ok(Some(match trial.probe(&agent.driver(held))? {
            Probed::Confirmed(slot) => confirmed(slot),
            Probed::Failed(why) => {
                let text = format!("the trial failed ({why}); restarting");
                Round::Restarting(json!({ "did": "trial_failed", "why": why }), text)
            }
        }));
    }
    match stand(&node) {
        Standing::Leaving => {
            agent.reboot()?;
            let text = "this slot was given up; restarting".to_owned();
            Ok(Some(Round::Restarting(json!({ "did": "leaving" }), text)))
        }
        _ => Ok(None),
    }
}

fn confirmed_now(round: &Round) -> bool {
    matches!(round, Round::Idle(value, _) if value["did"] == "confirmed")
}

fn confirmed(slot: formats::boot_record::Slot) -> Round {
    Round::Idle(json!({ "did": "confirmed", "slot": slot }), format!("slot {slot} is confirmed"))
}

fn poll(agent: &Agent, held: StateGuard, progress: &dyn Progress) -> Result<Round, AgentError> {
    let sources = agent.sources(&Wish::default())?;
    let refreshed = sources.refresh(&agent.state, &held, &agent.shipped_root()?)?;
    let inputs = agent.inputs();
    let Some(offer) = refreshed.decide(&inputs, &held, &Wish::default())? else {
        let text = "the channel offers nothing yet".to_owned();
        return Ok(Round::Idle(json!({ "did": "nothing" }), text));
    };
    let judged = offer.judged();
    let (version, why) = (judged.version().to_string(), judged.decided.why().to_owned());
    let decision = Verdict::from(&judged.decided.decision);
    let said = json!({ "did": "notified", "version": version, "decision": decision, "why": why });
    if decision != Verdict::Install {
        return Ok(Round::Idle(said, format!("{version}: {why}")));
    }
    let node = agent.node()?;
    let same = node.record.update.as_ref().is_some_and(|u| u.release.index == judged.signed.index);
    let mode = agent.config.policy.mode;
    match (mode, stand(&node)) {
        (Mode::Notify, _) => {
            Ok(Round::Idle(said, format!("{version} is available: run `update-agent apply`")))
        }
        (Mode::Stage, Standing::Staged) if same => {
            Ok(Round::Idle(said, format!("{version} is staged: run `update-agent apply`")))
        }
        (_, Standing::AwaitingReboot) if same => {
            if mode == Mode::Auto {
                agent.reboot()?;
                return Ok(Round::Restarting(said, format!("restarting into {version}")));
            }
            Ok(Round::Idle(said, format!("{version} is next: reboot to try it")))
        }
        _ => {
            agent.config.health.usable()?;
            let stage_only = mode == Mode::Stage;
            let plan = offer.resolve(&inputs)?;
            plan.install(&agent.driver(&held), &[], stage_only, progress)?;
            if stage_only {
                let value = json!({ "did": "staged", "version": version });
                return Ok(Round::Idle(value, format!("{version} is staged")));
            }
            drop(held);
            agent.reboot()?;
            let value = json!({ "did": "applied", "version": version });
            Ok(Round::Restarting(value, format!("restarting into {version}")))
        }
    }
}

/// Moves each wait by up to a tenth, so that nodes that started together do not poll together.
struct Jitter(u64);

impl Jitter {
    fn new() -> Result<Self, AgentError> {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed)
            .map_err(|error| AgentError::new(Reason::StoreIo, format!("draw jitter: {error}")))?;
        Ok(Jitter(u64::from_le_bytes(seed) | 1))
    }

    fn around(&mut self, interval: Duration) -> Duration {
        // xorshift64: spread is all that is wanted.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let fraction = u32::try_from(self.0 % 2001).unwrap_or(1000);
        interval * (9000 + fraction) / 10_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_stay_within_a_tenth_and_differ() {
        let mut jitter = Jitter(7);
        let hour = Duration::from_secs(3600);
        let waits: Vec<Duration> = (0..1000).map(|_| jitter.around(hour)).collect();
        assert!(waits.iter().all(|wait| *wait >= hour * 9 / 10 && *wait <= hour * 11 / 10));
        let distinct: std::collections::BTreeSet<_> = waits.iter().collect();
        assert!(distinct.len() > 500);
    }
}
