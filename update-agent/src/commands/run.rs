//! `run`: the daemon. One round after the other ([`Agent::round`]), each logged, with a wait between.

use std::time::Duration;

use formats::reason::{Exit, Reason};
use update_core::daemon::{Boot, Ended, Wake, after, lets_watchdog_go};
use update_core::update::stand;

use super::RunArgs;
use crate::agent::{Agent, Offered, RoundReport, installed_version};
use crate::config::Mode;
use crate::error::AgentError;
use crate::events::{Event, Why};
use crate::health::watch;
use crate::output::Output;
use crate::{notify, progress};

/// `run`
pub(super) fn run(agent: &Agent, args: RunArgs, output: Output) -> Result<Exit, AgentError> {
    let progress = progress::start(false);
    if args.once {
        let round = agent.round(progress.as_ref());
        // A confirm has let go of it already.
        if !round.as_ref().is_ok_and(RoundReport::is_confirmed) {
            // Whether or not it restarts: this process ends.
            if lets_watchdog_go(Ended::Done, boot(agent)) {
                watch::rest(&agent.config.health, false);
            }
        }
        let report = round?;
        output.report(&report, &text(&report));
        return Ok(Exit::Done);
    }
    notify::ready();
    tell_start(agent);
    let mut jitter = Jitter::new()?;
    let interval = agent.config.policy.interval;
    let mut failures: u32 = 0;
    loop {
        let round = agent.round(progress.as_ref());
        let ended = match &round {
            Ok(report) => {
                failures = 0;
                tell(report);
                if report.is_restarting() { Ended::Restarting } else { Ended::Done }
            }
            Err(error) if error.reason() == Reason::Config => Ended::Misconfigured,
            Err(error) => {
                failures = failures.saturating_add(1);
                if !error.was_told() {
                    let why = Why { code: error.reason().code(), text: &error.chain() };
                    Event::RoundFailed { why }.tell();
                }
                Ended::Failed
            }
        };
        let boot = boot(agent);
        if lets_watchdog_go(ended, boot) {
            // What is about to end cannot feed it.
            watch::rest(&agent.config.health, ended != Ended::Misconfigured);
        }
        let wait = match after(ended, boot, failures, interval) {
            // A round that succeeded never stops the daemon.
            Wake::Stop => return round.map(|_| Exit::Done),
            Wake::Poll => {
                let delayed = round.as_ref().ok().and_then(RoundReport::delay);
                delayed.unwrap_or_else(|| jitter.around(interval))
            }
            Wake::After(wait) => wait,
        };
        notify::status(&format!("next round in {} s", wait.as_secs()));
        notify::wait(wait);
    }
}

/// What this boot has left to prove.
fn boot(agent: &Agent) -> Boot {
    let standing = agent.node().ok().map(|node| stand(&node));
    Boot::of(standing.as_ref())
}

fn tell_start(agent: &Agent) {
    let config = &agent.config;
    let slot = agent.disk.booted().ok();
    let record = agent.state.boot_record().ok();
    let version = slot.zip(record).and_then(|(slot, record)| {
        installed_version(config, &record, slot).map(|version| version.to_string())
    });
    Event::Started {
        product: &config.node.product,
        channel: &config.node.channel,
        mode: match config.policy.mode {
            Mode::Notify => "notify",
            Mode::Stage => "stage",
            Mode::Auto => "auto",
        },
        version: version.as_deref(),
        slot,
    }
    .tell();
}

/// Tells what a round found; what it did has been told by who did it.
fn tell(report: &RoundReport) {
    match report {
        RoundReport::Nothing { .. } => tracing::info!("{}", text(report)),
        RoundReport::Notified { version, decision, why, offered } => {
            let version = &version.to_string();
            let next_step = match offered {
                Offered::Declined => {
                    let why = Why { code: decision.code(), text: why };
                    return Event::Declined { version, why }.tell();
                }
                Offered::Available => "is available: run `update-agent apply`",
                Offered::Staged => "is staged: run `update-agent apply`",
                Offered::Next => "is next: reboot to try it",
                Offered::Delayed(_) | Offered::Restarting => return,
            };
            Event::Offered { version, next_step }.tell();
        }
        _ => {}
    }
}

fn text(report: &RoundReport) -> String {
    match report {
        RoundReport::Nothing { why } => (*why).to_owned(),
        RoundReport::Reverted { slot, reason, why, .. } => {
            format!("slot {slot} was given up: {why} ({reason})")
        }
        RoundReport::Confirmed { slot } => format!("slot {slot} is confirmed"),
        RoundReport::TrialFailed { why } => format!("the trial failed ({why}); restarting"),
        RoundReport::Leaving => "this slot was given up; restarting".to_owned(),
        RoundReport::Notified { version, why, offered, .. } => match offered {
            Offered::Declined => format!("{version}: {why}"),
            Offered::Available => format!("{version} is available: run `update-agent apply`"),
            Offered::Staged => format!("{version} is staged: run `update-agent apply`"),
            Offered::Next => format!("{version} is next: reboot to try it"),
            Offered::Delayed(wait) => {
                format!(
                    "{version} is next; hooks.before_restart is asked again in {} s",
                    wait.as_secs()
                )
            }
            Offered::Restarting => format!("restarting into {version}"),
        },
        RoundReport::Staged { version } => format!("{version} is staged"),
        RoundReport::Applied { version } => format!("restarting into {version}"),
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
