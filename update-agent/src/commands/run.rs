//! `run`: the daemon. One round after the other ([`Agent::round`]), each logged, with a wait between.
//!
//! What comes after a round is [`update_core::daemon`]'s to say. Beside the rounds runs the guard of a
//! trial ([`guard`]): it asks for the restart where a round hangs beyond the deadline.

use std::thread;
use std::time::Duration;

use formats::reason::{Exit, Reason};
use update_core::daemon::{Boot, Ended, Pace, Wake, after, lets_watchdog_go};
use update_core::guard::Told;
use update_core::restart::Purpose;

use super::RunArgs;
use super::guard::{self, Orders};
use crate::agent::{Agent, Obstacle, Offered, RoundReport, installed_version, lost};
use crate::config::{BootConfig, Mode};
use crate::error::AgentError;
use crate::events::{Event, Why};
use crate::health::watch;
use crate::metrics::Textfile;
use crate::output::Output;
use crate::progress::Progress;
use crate::reporting::Reporter;
use crate::{metrics, notify, progress};

/// `run`
pub(super) fn run(agent: &Agent, args: RunArgs, output: Output) -> Result<Exit, AgentError> {
    let progress = progress::start(false);
    thread::scope(|scope| {
        let orders = guard::start(scope, agent);
        match args.once {
            true => once(agent, progress.as_ref(), &orders, output),
            false => daemon(agent, progress.as_ref(), &orders),
        }
    })
}

/// One round; a boot that has something to prove has it guarded.
fn guarded_round(
    agent: &Agent,
    progress: &dyn Progress,
    orders: &Orders,
) -> Result<RoundReport, AgentError> {
    orders.tell(agent.before_reading());
    let boot = agent.unproven();
    let left = if boot == Boot::Unproven { agent.deadline_left() } else { Duration::ZERO };
    orders.tell(Told::Read { boot, left });
    let round = agent.round(progress);
    orders.tell(Told::Ended);
    round
}

/// One round, and on trial as many as it takes: one that fails is repeated until the deadline, and then
/// the trial is lost.
fn proven_round(
    agent: &Agent,
    progress: &dyn Progress,
    orders: &Orders,
) -> Result<RoundReport, AgentError> {
    let mut log = Log::of(agent);
    loop {
        let round = guarded_round(agent, progress, orders);
        let boot = agent.unproven();
        let Err(error) = &round else { return round };
        if boot != Boot::Unproven {
            return round;
        }
        match after(ended(&round), boot, pace(agent, boot, 1)) {
            Wake::After(wait) => {
                log.tell(&round);
                notify::wait(wait);
            }
            _ => {
                let why = unended(agent, Some(error));
                agent.ask_restart(None, Purpose::Leave, &why);
                return Ok(RoundReport::TrialFailed { why });
            }
        }
    }
}

/// `run --once`
fn once(
    agent: &Agent,
    progress: &dyn Progress,
    orders: &Orders,
    output: Output,
) -> Result<Exit, AgentError> {
    let round = proven_round(agent, progress, orders);
    // A confirm has let go of it already.
    if !round.as_ref().is_ok_and(RoundReport::is_confirmed) {
        // Whether or not it restarts: this process ends.
        if lets_watchdog_go(Ended::Done, agent.unproven()) {
            watch::rest(&agent.config.health, false);
        }
    }
    if !round.as_ref().is_ok_and(RoundReport::is_restarting) {
        Reporter::once(agent);
    }
    let report = round?;
    if let RoundReport::TrialFailed { why } = &report {
        let error = lost(why);
        // The report is what programs get on standard output.
        output.report(&report, "");
        Output::TEXT.error(&error);
        return Ok(error.reason().exit());
    }
    let refused = agent.restart_pending().and_then(|pending| pending.asked.refused);
    if let Some(refused) = refused.filter(|_| report.is_restarting()) {
        return Err(AgentError::new(Reason::Config, refused).hint("restart the machine by hand"));
    }
    output.report(&report, &text(&report, &agent.config.boot));
    Ok(Exit::Done)
}

/// Round after round.
fn daemon(agent: &Agent, progress: &dyn Progress, orders: &Orders) -> Result<Exit, AgentError> {
    notify::ready();
    metrics::start_listener(agent);
    let reporter = Reporter::start(agent);
    let mut textfile = Textfile::of(agent);
    // A first round on trial takes as long as the checks do.
    textfile.write();
    reporter.tell();
    tell_start(agent);
    let mut jitter = Jitter::new()?;
    let mut log = Log::of(agent);
    let mut failures: u32 = 0;
    loop {
        let round = guarded_round(agent, progress, orders);
        failures = if round.is_ok() { 0 } else { failures.saturating_add(1) };
        let ended = ended(&round);
        log.tell(&round);
        textfile.write();
        reporter.tell();
        let boot = agent.unproven();
        if lets_watchdog_go(ended, boot) {
            // What is about to end cannot feed it.
            watch::rest(&agent.config.health, ended != Ended::Misconfigured);
        }
        let wait = match after(ended, boot, pace(agent, boot, failures)) {
            // A round that succeeded never stops the daemon.
            Wake::Stop => return round.map(|_| Exit::Done),
            Wake::Poll => {
                let delayed = round.as_ref().ok().and_then(RoundReport::delay);
                let wait = delayed.unwrap_or_else(|| jitter.around(agent.config.policy.interval));
                agent.restart_lock_again().map_or(wait, |again| wait.min(again))
            }
            Wake::Retry(wait) => jitter.around(wait),
            Wake::After(wait) => wait,
            Wake::Leave => {
                let why = unended(agent, round.as_ref().err());
                agent.ask_restart(None, Purpose::Leave, &why)
            }
        };
        notify::status(&format!("next round in {} s", wait.as_secs()));
        notify::wait(wait);
    }
}

/// Why a boot that did not prove itself is left.
fn unended(agent: &Agent, error: Option<&AgentError>) -> String {
    let pending = agent.restart_pending().filter(|pending| pending.leaves());
    match (pending, error) {
        (Some(pending), _) => pending.asked.why,
        (None, Some(error)) => format!("the trial did not end by its deadline: {}", error.chain()),
        (None, None) => "the trial did not end by its deadline".to_owned(),
    }
}

fn ended(round: &Result<RoundReport, AgentError>) -> Ended {
    match round {
        Ok(report) if report.is_restarting() => Ended::Restarting,
        Ok(_) => Ended::Done,
        Err(error) if error.reason() == Reason::Config => Ended::Misconfigured,
        Err(error) if matches!(error.reason().exit(), Exit::Transport | Exit::Busy) => {
            Ended::Unreached
        }
        Err(_) => Ended::Failed,
    }
}

fn pace(agent: &Agent, boot: Boot, failures: u32) -> Pace {
    let left = match boot {
        Boot::Unproven => agent.deadline_left(),
        Boot::Settled | Boot::Unknown => Duration::ZERO,
    };
    Pace {
        failures,
        interval: agent.config.policy.interval,
        health: agent.config.health.interval,
        left,
        restart: agent.restart_pending().map_or(Duration::ZERO, |pending| pending.wait()),
    }
}

/// The log of rounds. What fails again and again in the same way is told once.
#[derive(Debug)]
struct Log<'a> {
    boot: &'a BootConfig,
    failed: Option<String>,
}

impl<'a> Log<'a> {
    fn of(agent: &'a Agent) -> Self {
        Log { boot: &agent.config.boot, failed: None }
    }

    fn tell(&mut self, round: &Result<RoundReport, AgentError>) {
        match round {
            Ok(report) => {
                self.failed = None;
                tell(report, self.boot);
            }
            Err(error) => {
                let (code, said) = (error.reason().code(), error.chain());
                if self.failed.as_ref() == Some(&said) {
                    tracing::debug!(code, "again: {said}");
                } else if !error.was_told() {
                    Event::RoundFailed { why: Why { code, text: &said } }.tell();
                }
                self.failed = Some(said);
            }
        }
    }
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
fn tell(report: &RoundReport, boot: &BootConfig) {
    match report {
        RoundReport::Nothing { .. } => tracing::info!("{}", text(report, boot)),
        RoundReport::Notified { version, decision, why, offered, obstacle } => {
            let version = &version.to_string();
            let next_step = match offered {
                Offered::Declined => {
                    let why = Why { code: decision.code(), text: why };
                    return Event::Declined { version, why }.tell();
                }
                Offered::Available => &waits("available", obstacle.as_ref()),
                Offered::Staged => &waits("staged", obstacle.as_ref()),
                Offered::Next => &format!("is next: {} to try it", boot.how_to_try()),
                Offered::Delayed(_) | Offered::Restarting => return,
            };
            Event::Offered { version, next_step }.tell();
        }
        _ => {}
    }
}

/// What an operator does about a release.
fn waits(how: &str, obstacle: Option<&Obstacle>) -> String {
    match obstacle {
        None => format!("is {how}: run `update-agent apply`"),
        Some(obstacle) => format!("is {how}{}", obstacle.text()),
    }
}

fn text(report: &RoundReport, boot: &BootConfig) -> String {
    match report {
        RoundReport::Nothing { why } => (*why).to_owned(),
        RoundReport::Reverted { slot, reason, why, .. } => {
            format!("slot {slot} was given up: {why} ({reason})")
        }
        RoundReport::Confirmed { slot } => format!("slot {slot} is confirmed"),
        RoundReport::TrialFailed { why } => format!("the trial failed ({why}); restarting"),
        RoundReport::Withheld { version, slot, why } => {
            format!("{version} is not next any more, and stays written in slot {slot}: {why}")
        }
        RoundReport::Leaving => "this slot was given up; restarting".to_owned(),
        RoundReport::Notified { version, why, offered, obstacle, .. } => match offered {
            Offered::Declined => format!("{version}: {why}"),
            Offered::Available => format!("{version} {}", waits("available", obstacle.as_ref())),
            Offered::Staged => format!("{version} {}", waits("staged", obstacle.as_ref())),
            Offered::Next => format!("{version} is next: {} to try it", boot.how_to_try()),
            Offered::Delayed(wait) => {
                format!("{version} is next; the restart is put off for {} s", wait.as_secs())
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
