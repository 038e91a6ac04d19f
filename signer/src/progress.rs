//! Progress of long work: a bar on a terminal, nothing elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Counts bytes. Cheap to clone; the default shows nothing.
#[derive(Debug, Clone, Default)]
pub struct Progress(Option<ProgressBar>);

/// Whether work shows its progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Show {
    /// Never.
    #[default]
    Nothing,
    /// On stderr, if that is a terminal.
    Terminal,
}

impl Show {
    /// Begins work of `len` bytes.
    pub fn begin(self, label: &str, len: u64) -> Progress {
        if self == Show::Nothing || !std::io::stderr().is_terminal() {
            return Progress::default();
        }
        let bar = ProgressBar::new(len).with_style(style()).with_message(label.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        Progress(Some(bar))
    }
}

impl Progress {
    /// That many bytes more are done.
    pub fn add(&self, bytes: u64) {
        if let Some(bar) = &self.0 {
            bar.inc(bytes);
        }
    }

    /// The work is done: the bar goes away, the result speaks.
    pub fn done(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

fn style() -> ProgressStyle {
    let template =
        "{msg:24} [{bar:30}] {bytes:>10} of {total_bytes:>10} {bytes_per_sec:>12} {eta:>5}";
    ProgressStyle::with_template(template)
        .expect("the template is a constant that a test parses")
        .progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_template_parses() {
        super::style();
    }
}
