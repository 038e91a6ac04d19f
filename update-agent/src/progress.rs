//! Progress of long work: a bar on a terminal, JSON lines for programs, a line a minute elsewhere.

pub(crate) mod reached;

use std::fs;
use std::io::{IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use indicatif::{ProgressBar, ProgressStyle, WeakProgressBar};
use serde::{Deserialize, Serialize};
use storage::log::printable;

pub use self::reached::Reached;
use crate::events::{self, Event};

/// Told by long work how far it is. One piece of work at a time; any thread may call.
pub trait Progress: Send + Sync {
    /// Work of `total` bytes begins; what was begun before has ended.
    fn begin(&self, what: &str, total: u64);

    /// So many bytes more are done.
    fn advance(&self, bytes: u64);

    /// Something an operator should know that is no error.
    fn note(&self, text: &str);

    /// The work has ended, well or not.
    fn end(&self);
}

/// Progress on stderr: JSON lines when `json`, a bar when it is a terminal, otherwise a line a minute,
/// as an event where events are shown.
pub fn start(json: bool) -> Box<dyn Progress> {
    if json {
        Box::new(JsonLines::new(std::io::stderr()))
    } else if std::io::stderr().is_terminal() {
        Box::new(Bar::default())
    } else {
        Box::new(Minutes::default())
    }
}

/// Shows nothing; notes go to the log.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _what: &str, _total: u64) {}

    fn advance(&self, _bytes: u64) {}

    fn note(&self, text: &str) {
        tracing::warn!("{text}");
    }

    fn end(&self) {}
}

/// The bar that is on the terminal now.
static SHOWN: Mutex<Option<WeakProgressBar>> = Mutex::new(None);

/// Takes away the bar that is on the terminal, if one is: a last line follows.
pub(crate) fn clear() {
    if let Some(bar) = lock(&SHOWN).take().and_then(|bar| bar.upgrade()) {
        bar.finish_and_clear();
    }
}

/// A bar on stderr that goes away when the work has ended.
#[derive(Debug, Default)]
pub struct Bar(Mutex<Option<ProgressBar>>);

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

impl Progress for Bar {
    fn begin(&self, what: &str, total: u64) {
        self.end();
        let style = ProgressStyle::with_template(template(columns()))
            .expect("the templates are constants that a test parses")
            .progress_chars("=> ");
        let bar = ProgressBar::new(total).with_style(style).with_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        *lock(&SHOWN) = Some(bar.downgrade());
        *lock(&self.0) = Some(bar);
    }

    fn advance(&self, bytes: u64) {
        if let Some(bar) = &*lock(&self.0) {
            bar.inc(bytes);
        }
    }

    fn note(&self, text: &str) {
        match &*lock(&self.0) {
            Some(bar) => bar.println(format!("note: {}", printable(text))),
            None => Silent.note(text),
        }
    }

    fn end(&self) {
        if let Some(bar) = lock(&self.0).take() {
            bar.finish_and_clear();
        }
    }
}

/// One line when work has gone on for five seconds, and one a minute after that: for a log.
#[derive(Debug, Default)]
pub struct Minutes(Mutex<Option<Minute>>);

#[derive(Debug)]
struct Minute {
    what: String,
    total: u64,
    done: u64,
    begun: Instant,
    /// Since `begun`.
    due: Duration,
}

/// What ends before needs no line: the report of the command follows.
const FIRST_LINE: Duration = Duration::from_secs(5);

impl Minute {
    /// What is to be told after `took`, if it is due.
    fn due(&mut self, took: Duration) -> Option<Reached> {
        if took < self.due {
            return None;
        }
        self.due = took + Duration::from_secs(60);
        Some(Reached::new(&self.what, self.done, self.total, took))
    }
}

impl Progress for Minutes {
    fn begin(&self, what: &str, total: u64) {
        let (what, begun, due) = (what.to_owned(), Instant::now(), FIRST_LINE);
        *lock(&self.0) = Some(Minute { what, total, done: 0, begun, due });
    }

    fn advance(&self, bytes: u64) {
        let due = match &mut *lock(&self.0) {
            Some(work) => {
                work.done = work.done.saturating_add(bytes);
                work.due(work.begun.elapsed())
            }
            None => None,
        };
        match due {
            Some(reached) if tracing::enabled!(target: events::TARGET, tracing::Level::INFO) => {
                Event::Working(&reached).tell();
            }
            // A command that was started by a script shows no events.
            Some(reached) => {
                let _ = writeln!(storage::log::stderr(), "{reached}");
            }
            None => {}
        }
    }

    fn note(&self, text: &str) {
        Silent.note(text);
    }

    fn end(&self) {
        *lock(&self.0) = None;
    }
}

/// Tells another one, and beside that a file, so that `status` can say how far a running apply is.
///
/// The file is no record: it is not flushed, is written once a second at most, and goes away with
/// the work. Whoever reads it asks whether its writer still runs.
pub struct Recorded<'a> {
    inner: &'a dyn Progress,
    path: PathBuf,
    work: Mutex<Option<Work>>,
}

struct Work {
    what: String,
    total: u64,
    done: u64,
    begun: Instant,
    /// When the file was last written.
    told: Option<Instant>,
}

/// What the file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The process that works.
    pub pid: u32,
    /// When it started, in clock ticks of this boot: after a power cut its number is somebody else's.
    #[serde(default)]
    pub started: u64,
    /// Unix seconds of this record.
    pub at: u64,
    /// How far it is.
    #[serde(flatten)]
    pub reached: Reached,
}

/// Name of the file in the state directory.
const RECORD: &str = "progress.json";

impl<'a> Recorded<'a> {
    /// Records in a state directory.
    pub fn new(inner: &'a dyn Progress, state_dir: &Path) -> Self {
        Recorded { inner, path: state_dir.join(RECORD), work: Mutex::default() }
    }

    /// Writes the record if the last one is old. Its failures are nobody's: work goes on.
    fn tell(&self, work: &mut Work) {
        if work.told.is_some_and(|told| told.elapsed() < Duration::from_secs(1)) {
            return;
        }
        work.told = Some(Instant::now());
        let reached = Reached::new(&work.what, work.done, work.total, work.begun.elapsed());
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |at| at.as_secs());
        let record = Record { pid: std::process::id(), started: self_started(), at, reached };
        let new = self.path.with_extension("json.new");
        let Ok(bytes) = serde_json::to_vec(&record) else { return };
        if fs::write(&new, bytes).is_ok() {
            let _ = fs::rename(&new, &self.path);
        }
    }
}

/// What the agent that works in a state directory is at; `None` when none does.
pub fn running(state_dir: &Path) -> Option<Record> {
    let bytes = fs::read(state_dir.join(RECORD)).ok()?;
    let record: Record = serde_json::from_slice(&bytes).ok()?;
    // A killed one leaves its file.
    (started(record.pid)? == record.started).then_some(record)
}

/// When this process started; 0 when `/proc` does not say.
fn self_started() -> u64 {
    static STARTED: OnceLock<u64> = OnceLock::new();
    *STARTED.get_or_init(|| started(std::process::id()).unwrap_or(0))
}

/// When a process that exists started: field 22 of proc_pid_stat(5). The name before it may hold
/// anything, so fields are counted from its end.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

impl Progress for Recorded<'_> {
    fn begin(&self, what: &str, total: u64) {
        self.inner.begin(what, total);
        let mut work =
            Work { what: what.to_owned(), total, done: 0, begun: Instant::now(), told: None };
        self.tell(&mut work);
        *lock(&self.work) = Some(work);
    }

    fn advance(&self, bytes: u64) {
        self.inner.advance(bytes);
        if let Some(work) = &mut *lock(&self.work) {
            work.done = work.done.saturating_add(bytes);
            self.tell(work);
        }
    }

    fn note(&self, text: &str) {
        self.inner.note(text);
    }

    fn end(&self) {
        self.inner.end();
        *lock(&self.work) = None;
    }
}

impl Drop for Recorded<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// One JSON object per line: when work begins, at each further per cent, when it ends.
///
/// ```text
/// {"progress":"write os","done":104857600,"total":1073741824,"rate":52428800,"left":19}
/// {"note":"docker://mirror:5000 failed, going on with the next source"}
/// ```
#[derive(Debug)]
pub struct JsonLines<W>(Mutex<Lines<W>>);

#[derive(Debug)]
struct Lines<W> {
    out: W,
    what: Option<String>,
    total: u64,
    done: u64,
    /// Per cent at which the next line is due.
    due: u64,
    begun: Duration,
    /// Time since any fixed moment.
    clock: fn() -> Duration,
}

impl<W: Write + Send> JsonLines<W> {
    /// Writes to `out`, unbuffered. Lines that cannot be written are dropped: work goes on.
    pub fn new(out: W) -> Self {
        Self::with_clock(out, || {
            static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
            START.get_or_init(Instant::now).elapsed()
        })
    }

    fn with_clock(out: W, clock: fn() -> Duration) -> Self {
        let begun = Duration::ZERO;
        JsonLines(Mutex::new(Lines { out, what: None, total: 0, done: 0, due: 0, begun, clock }))
    }

    /// What was written to.
    pub fn into_inner(self) -> W {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner).out
    }
}

impl<W: Write> Lines<W> {
    fn line(&mut self) {
        if let Some(what) = &self.what {
            let took = (self.clock)().saturating_sub(self.begun);
            let reached = Reached::new(what, self.done, self.total, took);
            if let Ok(line) = serde_json::to_string(&reached) {
                let _ = writeln!(self.out, "{line}");
            }
        }
    }

    fn end(&mut self) {
        if self.what.is_some() {
            self.line();
            self.what = None;
        }
    }
}

impl<W: Write + Send> Progress for JsonLines<W> {
    fn begin(&self, what: &str, total: u64) {
        let mut lines = lock(&self.0);
        lines.end();
        (lines.what, lines.total, lines.done, lines.due) = (Some(what.to_owned()), total, 0, 1);
        lines.begun = (lines.clock)();
        lines.line();
    }

    fn advance(&self, bytes: u64) {
        let mut lines = lock(&self.0);
        lines.done = lines.done.saturating_add(bytes);
        let percent = lines.done.saturating_mul(100).checked_div(lines.total).unwrap_or(100);
        // The last line is written by `end`.
        if percent >= lines.due && percent < 100 {
            lines.due = percent + 1;
            lines.line();
        }
    }

    fn note(&self, text: &str) {
        let _ = writeln!(lock(&self.0).out, "{}", serde_json::json!({ "note": text }));
    }

    fn end(&self) {
        lock(&self.0).end();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_parse() {
        for columns in [0, 40, 60, 80, 200] {
            ProgressStyle::with_template(template(columns)).unwrap();
        }
    }

    #[test]
    fn lines_come_once_per_percent_with_rate_and_time_left() {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NOW: AtomicU64 = AtomicU64::new(100);
        let lines =
            JsonLines::with_clock(Vec::new(), || Duration::from_secs(NOW.load(Ordering::SeqCst)));
        lines.advance(5);
        lines.end();
        lines.begin("write os", 1000);
        NOW.store(102, Ordering::SeqCst);
        for _ in 0..25 {
            lines.advance(1);
        }
        lines.note("a \"note\"");
        lines.advance(975);
        lines.end();
        lines.end();
        lines.begin("read back os", 0);
        lines.advance(0);
        lines.begin("next", u64::MAX);
        let text = String::from_utf8(lines.into_inner()).unwrap();
        let expected = [
            r#"{"progress":"write os","done":0,"total":1000}"#,
            r#"{"progress":"write os","done":10,"total":1000,"rate":5,"left":198}"#,
            r#"{"progress":"write os","done":20,"total":1000,"rate":10,"left":98}"#,
            r#"{"note":"a \"note\""}"#,
            r#"{"progress":"write os","done":1000,"total":1000,"rate":500,"left":0}"#,
            r#"{"progress":"read back os","done":0,"total":0}"#,
            r#"{"progress":"read back os","done":0,"total":0}"#,
            r#"{"progress":"next","done":0,"total":18446744073709551615}"#,
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_log_gets_a_line_after_five_seconds_and_one_a_minute() {
        let (what, begun, due) = ("write os".to_owned(), Instant::now(), FIRST_LINE);
        let mut work = Minute { what, total: 1 << 30, done: 0, begun, due };
        let mut lines = Vec::new();
        for second in 0..200 {
            work.done = second << 22;
            lines.extend(work.due(Duration::from_secs(second)).map(|reached| reached.to_string()));
        }
        let expected = [
            "write os: 1 %, 20.0 MiB of 1.0 GiB, 4.0 MiB/s, 4 min 11 s left",
            "write os: 25 %, 260.0 MiB of 1.0 GiB, 4.0 MiB/s, 3 min 11 s left",
            "write os: 48 %, 500.0 MiB of 1.0 GiB, 4.0 MiB/s, 2 min 11 s left",
            "write os: 72 %, 740.0 MiB of 1.0 GiB, 4.0 MiB/s, 1 min 11 s left",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_running_work_can_be_asked_after() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(running(dir.path()), None);
        let progress = Recorded::new(&Silent, dir.path());
        progress.begin("write os", 1000);
        progress.advance(10);
        let found = running(dir.path()).unwrap();
        assert_eq!((found.pid, found.reached.what.as_str()), (std::process::id(), "write os"));
        assert_eq!(found.reached.total, 1000);
        drop(progress);
        assert_eq!(running(dir.path()), None, "it goes away with the work");
        // What a killed agent leaves says nothing: no process has this number.
        let left = Record { pid: u32::MAX, ..found.clone() };
        fs::write(dir.path().join(RECORD), serde_json::to_vec(&left).unwrap()).unwrap();
        assert_eq!(running(dir.path()), None);
        // Nor does one whose number another process has since the restart.
        let left = Record { started: found.started + 1, ..found };
        fs::write(dir.path().join(RECORD), serde_json::to_vec(&left).unwrap()).unwrap();
        assert_eq!(running(dir.path()), None);
    }
}
