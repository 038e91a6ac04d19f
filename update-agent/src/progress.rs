//! Progress of long work: a bar on a terminal, JSON lines for programs, nothing elsewhere.

use std::io::{IsTerminal as _, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

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

/// Progress on stderr: JSON lines when `json`, a bar when it is a terminal, otherwise nothing.
pub fn start(json: bool) -> Box<dyn Progress> {
    if json {
        Box::new(JsonLines::new(std::io::stderr()))
    } else if std::io::stderr().is_terminal() {
        Box::new(Bar::default())
    } else {
        Box::new(Silent)
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

/// A bar on stderr that goes away when the work has ended.
#[derive(Debug, Default)]
pub struct Bar(Mutex<Option<ProgressBar>>);

const TEMPLATE: &str =
    "{msg:24} [{bar:30}] {bytes:>10} of {total_bytes:>10} {bytes_per_sec:>12} {eta:>5}";

impl Progress for Bar {
    fn begin(&self, what: &str, total: u64) {
        self.end();
        let style = ProgressStyle::with_template(TEMPLATE)
            .expect("the template is a constant that a test parses")
            .progress_chars("=> ");
        let bar = ProgressBar::new(total).with_style(style).with_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        *lock(&self.0) = Some(bar);
    }

    fn advance(&self, bytes: u64) {
        if let Some(bar) = &*lock(&self.0) {
            bar.inc(bytes);
        }
    }

    fn note(&self, text: &str) {
        match &*lock(&self.0) {
            Some(bar) => bar.println(format!("note: {text}")),
            None => Silent.note(text),
        }
    }

    fn end(&self) {
        if let Some(bar) = lock(&self.0).take() {
            bar.finish_and_clear();
        }
    }
}

/// One JSON object per line: when work begins, at each further per cent, when it ends.
///
/// ```text
/// {"progress":"write os","done":0,"total":1073741824}
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
}

impl<W: Write + Send> JsonLines<W> {
    /// Writes to `out`, unbuffered. Lines that cannot be written are dropped: work goes on.
    pub fn new(out: W) -> Self {
        JsonLines(Mutex::new(Lines { out, what: None, total: 0, done: 0, due: 0 }))
    }

    /// What was written to.
    pub fn into_inner(self) -> W {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner).out
    }
}

impl<W: Write> Lines<W> {
    fn line(&mut self) {
        if let Some(what) = &self.what {
            let (done, total) = (self.done, self.total);
            let line = serde_json::json!({ "progress": what, "done": done, "total": total });
            let _ = writeln!(self.out, "{line}");
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
    fn the_template_parses() {
        ProgressStyle::with_template(TEMPLATE).unwrap();
    }

    #[test]
    fn lines_come_once_per_percent() {
        let lines = JsonLines::new(Vec::new());
        lines.advance(5);
        lines.end();
        lines.begin("write os", 1000);
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
            r#"{"done":0,"progress":"write os","total":1000}"#,
            r#"{"done":10,"progress":"write os","total":1000}"#,
            r#"{"done":20,"progress":"write os","total":1000}"#,
            r#"{"note":"a \"note\""}"#,
            r#"{"done":1000,"progress":"write os","total":1000}"#,
            r#"{"done":0,"progress":"read back os","total":0}"#,
            r#"{"done":0,"progress":"read back os","total":0}"#,
            r#"{"done":0,"progress":"next","total":18446744073709551615}"#,
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }
}
