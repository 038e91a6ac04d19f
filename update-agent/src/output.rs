//! How results and errors reach people and scripts.
//!
//! Results go to standard output: text, or with `--json` exactly one JSON object. Errors go to
//! standard error as `error[code]: …`, and with `--json` also to standard output as
//! `{"ok":false,"code":…,"message":…,"hint":…}`.

use formats::reason::{Exit, Reason};
use serde_json::{Value, json};
use storage::report;

use crate::error::AgentError;

pub(crate) use storage::log::printable;

/// Where and how to print.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// One JSON object instead of text.
    pub(crate) json: bool,
}

impl Output {
    /// For people.
    pub(crate) const TEXT: Output = Output { json: false };
    /// For programs.
    pub(crate) const JSON: Output = Output { json: true };

    /// Prints a result. `value` must be an object; `"ok":true` is added.
    pub(crate) fn result(self, mut value: Value, text: &str) {
        if self.json {
            if let Some(object) = value.as_object_mut() {
                object.insert("ok".to_owned(), json!(true));
            }
            report::line(&value.to_string());
        } else if !text.is_empty() {
            report::line(text.trim_end_matches('\n'));
        }
    }

    /// Prints a report of the library: an object.
    pub(crate) fn report(self, report: &impl serde::Serialize, text: &str) {
        let value = serde_json::to_value(report).expect("reports have string keys and no maps");
        self.result(value, text);
    }

    /// How a command ends: a report that did not arrive is no success, whatever was done.
    pub(crate) fn end(self, exit: Exit) -> Exit {
        let Some(error) = report::lost() else { return exit };
        let error = AgentError::from_cause(Reason::ReportLost, "write to standard output", error)
            .hint("what the command did is done; `update-agent status` tells how the node stands");
        // Not to standard output again.
        Output::TEXT.error(&error);
        match exit {
            Exit::Done | Exit::Nothing => error.reason().exit(),
            failed => failed,
        }
    }

    /// Prints an error.
    pub(crate) fn error(self, error: &AgentError) {
        let message = printable(&error.chain());
        say(&format!("error[{}]: {message}", error.reason()));
        for line in error.lines().unwrap_or_default().lines() {
            say(&printable(line));
        }
        if let Some(hint) = error.advice() {
            say(&format!("  {}", printable(hint)));
        }
        if self.json {
            let value = json!({
                "ok": false,
                "code": error.reason().code(),
                "message": message,
                "hint": error.advice(),
            });
            report::line(&value.to_string());
        }
    }
}

/// A log that is full or gone changes no outcome, as the panic of `eprintln!` would.
fn say(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// `1.5 MiB` and the like.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut whole = count;
    let mut tenths = 0;
    while whole >= 1024 && unit + 1 < UNITS.len() {
        tenths = whole % 1024 * 10 / 1024;
        whole /= 1024;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or("B");
    if unit == 0 { format!("{whole} {name}") } else { format!("{whole}.{tenths} {name}") }
}

/// `2026-11-21T10:00:00Z`.
pub(crate) fn time(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    formats::tuf::UnixTime::from_secs(seconds).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_tamed() {
        assert_eq!(printable("a\nb\u{1b}[31m"), "a\\nb\\u{1b}[31m");
        assert!(printable(&"x".repeat(1 << 20)).len() < 20_000);
    }

    #[test]
    fn sizes_are_readable() {
        let rows = [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1 << 30, "1.0 GiB")];
        for (count, text) in rows {
            assert_eq!(bytes(count), text);
        }
    }
}
