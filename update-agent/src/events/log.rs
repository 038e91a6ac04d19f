//! Where the program's log goes: events to the journal where standard error is the journal, everything
//! else, and everything elsewhere, to standard error as lines of text.

use std::fmt;
use std::io;

use tracing::Level;
use tracing::field::Field;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::fmt::layer;
use tracing_subscriber::prelude::*;

use super::TARGET;

/// Starts the log of this process. `level` is the last one that is shown; events of an update that the
/// daemon performs are always shown, and the journal gets them from every command.
pub(crate) fn start(level: Level, daemon: bool) {
    let journal = journal();
    let all = daemon || journal.is_some();
    let events = filter_fn(move |metadata| {
        metadata.target() == TARGET
            && match *metadata.level() {
                // A command ends with its error, which it prints.
                Level::ERROR => all,
                other => other <= if all { level.max(Level::INFO) } else { level },
            }
    });
    // Nothing of `tracing_subscriber`'s own may be told on the same standard error, which panics where
    // that is full; journald adds time stamps.
    let text = || {
        layer()
            .with_writer(storage::log::stderr)
            .without_time()
            .with_target(false)
            .with_ansi(false)
            .log_internal_errors(false)
    };
    let others =
        filter_fn(move |metadata| metadata.target() != TARGET && *metadata.level() <= level);
    let rest = text().with_filter(others).boxed();
    let told = match journal {
        Some(journal) => journal.with_filter(events).boxed(),
        None => {
            let lines = text().fmt_fields(debug_fn(message_only));
            lines.with_filter(events).boxed()
        }
    };
    let _ = tracing_subscriber::registry().with(vec![rest, told]).try_init();
}

/// An event as text is its sentence: the fields say the same.
fn message_only(out: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    if field.name() == "message" { write!(out, "{value:?}") } else { Ok(()) }
}

/// The journal, if systemd connected standard error to it and it listens.
fn journal() -> Option<tracing_journald::Layer> {
    let stream = std::env::var("JOURNAL_STREAM").ok()?;
    let stderr = rustix::fs::fstat(io::stderr()).ok()?;
    if !is_stream(&stream, stderr.st_dev, stderr.st_ino) {
        return None;
    }
    let layer = tracing_journald::layer().ok()?;
    Some(layer.with_field_prefix(None).with_syslog_identifier("update-agent".to_owned()))
}

/// Whether this device and inode are what `$JOURNAL_STREAM` names (systemd.exec(5)).
fn is_stream(named: &str, device: u64, inode: u64) -> bool {
    named == format!("{device}:{inode}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirected_standard_error_is_not_the_journal() {
        assert!(is_stream("9:48213", 9, 48213));
        for other in ["", "9", "9:", "9:4821", "9:482130", "19:48213", "9:48213 "] {
            assert!(!is_stream(other, 9, 48213), "{other:?}");
        }
    }
}
