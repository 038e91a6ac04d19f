//! The demo's narration: numbered steps with their time, and the table at the end.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use racklet_tools::pulse::Pulse;
use racklet_tools::show;

/// At the latest after so long a step gives a sign of life.
const PULSE: Duration = Duration::from_secs(30);

/// Steps done so far, and what stands in the summary.
pub(super) struct Story {
    steps: usize,
    started: Instant,
    rows: Vec<Vec<String>>,
}

/// What a step tells when it did what it should.
pub(super) struct Told {
    /// One line: what was seen and checked.
    pub(super) line: String,
    /// Bytes fetched or written, where that means something.
    pub(super) bytes: Option<u64>,
    /// State of the slots afterwards, for the summary; empty keeps the step out of it.
    pub(super) slots: String,
    /// Time of the work itself, where checks around it would spoil the figure.
    pub(super) took: Option<Duration>,
}

impl Told {
    pub(super) fn line(line: impl Into<String>) -> Self {
        Self { line: line.into(), bytes: None, slots: String::new(), took: None }
    }

    pub(super) fn bytes(mut self, bytes: u64) -> Self {
        self.bytes = Some(bytes);
        self
    }

    pub(super) fn slots(mut self, slots: impl Into<String>) -> Self {
        self.slots = slots.into();
        self
    }

    pub(super) fn took(mut self, took: Duration) -> Self {
        self.took = Some(took);
        self
    }
}

impl Story {
    pub(super) fn begin() -> Self {
        let heading = ["step", "time", "bytes", "slots afterwards"].map(String::from).to_vec();
        Self { steps: 0, started: Instant::now(), rows: vec![heading] }
    }

    /// Runs one step and tells it, first how long it usually takes; its error names the step.
    pub(super) fn step(
        &mut self,
        what: &str,
        usually: &str,
        work: impl FnOnce() -> Result<Told>,
    ) -> Result<()> {
        self.steps += 1;
        println!("[{:>2}] {what} (usually {usually})", self.steps);
        let started = Instant::now();
        let pulse = Pulse::new(PULSE, |line| println!("  {line}"));
        let told = work().with_context(|| format!("step {}, {what}", self.steps))?;
        drop(pulse);
        let took = told.took.unwrap_or_else(|| started.elapsed());
        println!("     {}", told.line.replace('\n', "\n     "));
        let bytes = told.bytes.map_or_else(|| "–".to_string(), show::bytes);
        println!(
            "     ok, {}{}",
            show::time(took),
            match told.bytes {
                Some(_) => format!(", {bytes}"),
                None => String::new(),
            }
        );
        self.rows.push(vec![what.to_string(), show::time(took), bytes, told.slots]);
        Ok(())
    }

    /// Prints the table and the closing line.
    pub(super) fn end(self) {
        println!("\n{}", show::table(&self.rows));
        println!(
            "demo: {} steps, all as they should be, {}",
            self.steps,
            show::time(self.started.elapsed())
        );
    }
}
