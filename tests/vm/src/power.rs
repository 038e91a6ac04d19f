//! Power that fails at random moments of a boot.
//!
//! ```text
//!  one whole boot     0 ── mark ─── mark ──────── mark ─── ready ─ +10 %     how long each phase takes here
//!  cut i of n         one moment in the i-th n-th of that, as a share of its phase
//!  the machine        reaches the mark of that phase ─► that share of its length ─► killed
//! ```
//!
//! Moments are uniform over the whole boot, and each is counted from the mark of its phase in the machine
//! that is cut, so that a computer that is busy meanwhile moves no cut from the slot into the firmware.
//! What a cut hit is what the machine had said until then; a phase that was hit too rarely gets more.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use racklet_testkit::random::Random;

use super::machine::Machine;

/// What is switched off again and again.
pub(super) struct Subject<'a> {
    /// Switches it on.
    pub(super) start: &'a dyn Fn() -> Result<Machine>,
    /// What must be the same afterwards, byte by byte.
    pub(super) record: &'a dyn Fn() -> Result<Vec<u8>>,
    /// The phases of a boot and what the machine says when each begins; the first one at power-on.
    pub(super) marks: &'a [(&'a str, &'a str)],
    /// What it says at the end.
    pub(super) ready: &'a str,
}

/// Cuts `cuts` times, and each phase a sixteenth of that at least and once, then boots. Ends with the
/// counts.
pub(super) fn cycles(subject: &Subject<'_>, cuts: u32) -> Result<String> {
    let least = (cuts / 16).max(1);
    let seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(1, |since| since.as_nanos() as u64);
    let saw = || format!("power cuts, seed {seed}");
    let lengths = measure(subject).with_context(saw)?;
    let untouched = (subject.record)()?;
    let whole: f64 = lengths.iter().sum();
    let mut random = Random::seeded(seed);
    let mut hits = vec![0u32; lengths.len()];
    let one = |phase: usize, share: f64| -> Result<usize> {
        let hit = cut(subject, &lengths, phase, share).with_context(saw)?;
        let at = || format!("at {share:.2} of {}, seed {seed}", subject.marks[phase].0);
        ensure!((subject.record)()? == untouched, "the record changed by a cut {}", at());
        Ok(hit)
    };
    for number in 0..cuts {
        let mut moment = (f64::from(number) + random.share()) / f64::from(cuts) * whole;
        let mut phase = 0;
        while phase + 1 < lengths.len() && moment >= lengths[phase] {
            moment -= lengths[phase];
            phase += 1;
        }
        hits[one(phase, moment / lengths[phase])?] += 1;
    }
    for phase in 0..lengths.len() {
        // The machine may be faster than it was; early moments hit surely.
        for _ in 0..3 * least {
            if hits[phase] < least {
                hits[one(phase, random.share() / 2.0)?] += 1;
            }
        }
    }
    let names = subject.marks.iter().map(|(name, _)| name);
    let counts: Vec<String> =
        hits.iter().zip(names).map(|(count, name)| format!("{count} {name}")).collect();
    let counts = counts.join(", ");
    ensure!(
        hits.iter().all(|count| *count >= least),
        "each phase shall be cut {least} times: {counts} (seed {seed})"
    );
    let mut machine = (subject.start)()?;
    machine.expect(subject.ready).with_context(saw)?;
    let all: u32 = hits.iter().sum();
    Ok(format!("{all} cuts over {whole:.1} s ({counts}), seed {seed}; 0 changes"))
}

/// Seconds of each phase of a whole boot; the last one goes on for a tenth of the boot.
fn measure(subject: &Subject<'_>) -> Result<Vec<f64>> {
    let mut machine = (subject.start)()?;
    let mut begins = vec![0.0];
    for (_, mark) in subject.marks.iter().skip(1) {
        machine.expect(mark)?;
        begins.push(machine.age().as_secs_f64());
    }
    machine.expect(subject.ready)?;
    begins.push(machine.age().as_secs_f64() * 1.1);
    drop(machine.cut());
    Ok(begins.windows(2).map(|pair| pair[1] - pair[0]).collect())
}

/// One cut; the phase it hit.
fn cut(subject: &Subject<'_>, lengths: &[f64], phase: usize, share: f64) -> Result<usize> {
    let mut machine = (subject.start)()?;
    if phase > 0 {
        machine.expect(subject.marks[phase].1)?;
    }
    std::thread::sleep(Duration::from_secs_f64(lengths[phase] * share));
    let said = machine.cut();
    let reached = |mark: &str| said.iter().any(|line| line.contains(mark));
    let later = subject.marks.iter().skip(1).filter(|(_, mark)| reached(mark));
    Ok(later.count())
}
