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
        let bar = ProgressBar::new(len).with_style(style(columns())).with_message(label.to_owned());
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
    #[test]
    fn the_templates_parse() {
        for columns in [0, 40, 60, 80, 200] {
            super::style(columns);
        }
    }
}
