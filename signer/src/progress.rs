//! Progress of long work: a bar on a terminal, a line a minute elsewhere.

use std::io::{self, IsTerminal, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle, WeakProgressBar};

use crate::plan::counted;

/// One minute: often enough for whoever watches a job, and few lines for a night's.
const INTERVAL: Duration = Duration::from_secs(60);

/// The bars that are on the terminal now.
static BARS: Mutex<Vec<WeakProgressBar>> = Mutex::new(Vec::new());

/// Counts bytes. Cheap to clone; the default shows nothing.
#[derive(Debug, Clone, Default)]
pub struct Progress(Shown);

#[derive(Debug, Clone, Default)]
enum Shown {
    #[default]
    Nothing,
    Bar(ProgressBar),
    Lines(Arc<Lines>),
}

/// Whether work shows its progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Show {
    /// Never.
    #[default]
    Nothing,
    /// On stderr: a bar if that is a terminal, otherwise lines.
    Progress,
    /// On stderr, in lines.
    Lines,
}

impl Show {
    /// Begins work of `len` bytes.
    pub fn begin(self, label: &str, len: u64) -> Progress {
        match self {
            Show::Nothing => Progress::default(),
            Show::Progress if io::stderr().is_terminal() => Progress(Shown::Bar(bar(label, len))),
            Show::Progress | Show::Lines => {
                Progress(Shown::Lines(Lines::begin(label, len, INTERVAL, say)))
            }
        }
    }
}

fn bar(label: &str, len: u64) -> ProgressBar {
    let bar = ProgressBar::new(len).with_style(style(columns())).with_message(label.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    let mut bars = BARS.lock().unwrap_or_else(PoisonError::into_inner);
    bars.retain(|bar| bar.upgrade().is_some());
    bars.push(bar.downgrade());
    bar
}

/// A line on stderr, above the bar if there is one. A log that is full or gone changes no outcome.
pub fn say(text: &str) {
    let bars = BARS.lock().unwrap_or_else(PoisonError::into_inner);
    let bar = bars.iter().filter_map(WeakProgressBar::upgrade).find(|bar| !bar.is_finished());
    match bar {
        Some(bar) => bar.suspend(|| drop(writeln!(io::stderr(), "{text}"))),
        None => drop(writeln!(io::stderr(), "{text}")),
    }
}

/// Takes away the bars that are on the terminal: a last line follows.
#[cfg(feature = "cli")]
pub(crate) fn clear() {
    let bars = std::mem::take(&mut *BARS.lock().unwrap_or_else(PoisonError::into_inner));
    for bar in bars.iter().filter_map(WeakProgressBar::upgrade) {
        bar.finish_and_clear();
    }
}

impl Progress {
    /// That many bytes more are done.
    pub fn add(&self, bytes: u64) {
        match &self.0 {
            Shown::Nothing => {}
            Shown::Bar(bar) => bar.inc(bytes),
            Shown::Lines(lines) => drop(lines.done.fetch_add(bytes, Ordering::Relaxed)),
        }
    }

    /// The work is done: the bar goes away, the result speaks.
    pub fn done(&self) {
        match &self.0 {
            Shown::Nothing => {}
            Shown::Bar(bar) => bar.finish_and_clear(),
            Shown::Lines(lines) => lines.end(),
        }
    }
}

/// Work that says every `interval` how far it is, until it ends or nobody counts any more.
#[derive(Debug)]
struct Lines {
    done: Arc<AtomicU64>,
    /// Closed when the work ends.
    open: Mutex<Option<Sender<()>>>,
}

impl Lines {
    fn begin(label: &str, len: u64, interval: Duration, say: fn(&str)) -> Arc<Self> {
        let (open, ended) = channel();
        let done = Arc::<AtomicU64>::default();
        let (label, count) = (label.to_owned(), Arc::clone(&done));
        std::thread::spawn(move || tell(&label, len, interval, &count, &ended, say));
        Arc::new(Lines { done, open: Mutex::new(Some(open)) })
    }

    fn end(&self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

fn tell(
    label: &str,
    len: u64,
    interval: Duration,
    done: &AtomicU64,
    ended: &Receiver<()>,
    say: fn(&str),
) {
    let mut before = 0;
    while ended.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
        let now = done.load(Ordering::Relaxed);
        say(&line(label, now, len, now - before, interval));
        before = now;
    }
}

/// How far it is: bytes, share, and the rate since the line before.
fn line(label: &str, done: u64, len: u64, gained: u64, interval: Duration) -> String {
    if done >= len {
        return format!("{label}: all of {}, waiting for the end", bytes(len));
    }
    let percent = (u128::from(done) * 100).checked_div(u128::from(len)).unwrap_or(100);
    // Rounded up: what moves at all is not shown as nothing.
    let rate = (gained as f64 / interval.as_secs_f64().max(0.001)).ceil() as u64;
    format!("{label}: {} of {} ({percent} %), {}/s", bytes(done), bytes(len), bytes(rate))
}

/// Bytes for people, few of them in words.
pub(crate) fn bytes(count: u64) -> String {
    if count < 1024 { counted(count, "byte") } else { formats::size(count) }
}

fn style(columns: u16) -> ProgressStyle {
    ProgressStyle::with_template(template(columns))
        .expect("the templates are constants that a test parses")
        .progress_chars("=> ")
}

/// Fits a terminal of so many columns: 67 and a bar, 35 and a bar, or the figures alone.
fn template(columns: u16) -> &'static str {
    match columns {
        80.. => {
            "{msg:20!} [{wide_bar}] {bytes:>10} of {total_bytes:>10} {bytes_per_sec:>12} {eta:>5}"
        }
        50.. => "{msg:20!} [{wide_bar}] {percent:>3} % {eta:>5}",
        _ => "{msg:12!} {percent:>3} %",
    }
}

/// Columns of the terminal behind standard error.
fn columns() -> u16 {
    let size = rustix::termios::tcgetwinsize(std::io::stderr()).ok();
    // A serial line that nobody told has none; indicatif takes 80 then, too.
    let known = size.filter(|size| size.ws_col > 0 && size.ws_row > 0);
    known.map_or(80, |size| size.ws_col)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_parse() {
        for columns in [0, 40, 60, 80, 200] {
            style(columns);
        }
    }

    #[test]
    fn a_line_says_how_far_it_is() {
        const MIB: u64 = 1 << 20;
        for (done, len, gained, expected) in [
            (
                12 * MIB,
                25 * MIB,
                12 * MIB,
                "uploading os: 12.0 MiB of 25.0 MiB (48 %), 204.8 KiB/s",
            ),
            (12 * MIB, 25 * MIB, 0, "uploading os: 12.0 MiB of 25.0 MiB (48 %), 0 bytes/s"),
            (25 * MIB, 25 * MIB, MIB, "uploading os: all of 25.0 MiB, waiting for the end"),
            (0, 0, 0, "uploading os: all of 0 bytes, waiting for the end"),
        ] {
            assert_eq!(line("uploading os", done, len, gained, INTERVAL), expected);
        }
    }

    /// Lines come until the work is done, or everybody who counted is gone; then the thread ends.
    #[test]
    fn lines_come_until_the_work_is_done() {
        static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());
        let say: fn(&str) = |text| SAID.lock().unwrap().push(text.to_owned());
        for finished in [true, false] {
            let (open, ended) = channel();
            let done = Arc::new(AtomicU64::new(3));
            let lines = Lines { done: Arc::clone(&done), open: Mutex::new(Some(open)) };
            let thread = std::thread::spawn(move || {
                tell("building os", 4, Duration::from_millis(1), &done, &ended, say);
            });
            while !SAID.lock().unwrap().iter().any(|line| line.contains("(75 %)")) {
                std::thread::yield_now();
            }
            if finished {
                lines.end()
            } else {
                drop(lines)
            }
            thread.join().unwrap();
            SAID.lock().unwrap().clear();
        }
    }
}
