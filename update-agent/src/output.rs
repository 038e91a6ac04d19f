//! How results and errors reach people and scripts.
//!
//! Results go to standard output: text, or with `--json` exactly one JSON object. Errors go to
//! standard error as `error[code]: …`, and with `--json` also to standard output as
//! `{"ok":false,"code":…,"message":…,"hint":…}`. `docs/schemas/update-agent.json` is the contract of
//! these objects.

use formats::reason::{Exit, Reason};
use serde_json::{Value, json};
use storage::interrupt::{self, Ending, Signal, Stands};
use storage::report;

use crate::error::AgentError;
use crate::progress;

pub(crate) use storage::log::printable;

/// Of the objects that `--json` prints. It rises when a member goes away or means something else;
/// members may be added at any time.
const SCHEMA_VERSION: u32 = 1;

/// The members of reports that are Unix seconds, at whatever depth. Each gets a sibling, `NAME_time`, with
/// the same in the text form of RFC 3339.
const TIMES: [&str; 6] = ["at", "until", "last_check", "older_since", "expires", "offline"];

/// Adds the text forms of all times.
fn with_times(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.values_mut().for_each(with_times);
            for name in TIMES {
                let seconds = members.get(name).and_then(Value::as_i64);
                if let Some(seconds) = seconds {
                    let text = formats::tuf::UnixTime::from_secs(seconds).to_string();
                    members.insert(format!("{name}_time"), json!(text));
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(with_times),
        _ => {}
    }
}

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

    /// Prints a report, which must be an object; `ok` and `schema_version` are added, and its
    /// [`TIMES`] as text.
    pub(crate) fn report(self, report: &impl serde::Serialize, text: &str) {
        let mut value = serde_json::to_value(report).expect("reports have string keys and no maps");
        interrupt::outcome();
        if self.json {
            with_times(&mut value);
            if let Some(object) = value.as_object_mut() {
                object.insert("ok".to_owned(), json!(true));
                object.insert("schema_version".to_owned(), json!(SCHEMA_VERSION));
            }
            report::line(&value.to_string());
        } else if !text.is_empty() {
            report::line(text.trim_end_matches('\n'));
        }
    }

    /// How a command ends: a report that did not arrive is no success, whatever was done.
    pub(crate) fn end(self, exit: Exit) -> Exit {
        interrupt::outcome();
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
        interrupt::outcome();
        self.tell(error);
    }

    /// From here on, Ctrl-C and SIGTERM say what stands.
    pub(crate) fn watch(self) {
        interrupt::watch(move |ending| {
            progress::clear();
            match ending {
                Ending::Now(signal, stands) => self.tell(&interrupted(signal, stands)),
                Ending::Later(signal) => say(&format!(
                    "note: {signal}: this takes a moment more and ends by itself; a second one ends it at once"
                )),
            }
        });
    }

    fn tell(self, error: &AgentError) {
        let message = printable(&error.chain());
        say(&format!("error[{}]: {message}", error.reason()));
        for line in error.lines().unwrap_or_default().lines() {
            say(&printable(line));
        }
        if let Some(hint) = error.advice() {
            say(&format!("  {}", printable(hint)));
        }
        if self.json {
            let mut value = json!({
                "ok": false,
                "schema_version": SCHEMA_VERSION,
                "code": error.reason().code(),
                "message": message,
                "hint": error.advice(),
            });
            if let (Some(lines), Some(object)) = (error.lines(), value.as_object_mut()) {
                let lines: Vec<String> = lines.lines().map(printable).collect();
                object.insert("lines".to_owned(), json!(lines));
            }
            report::line(&value.to_string());
        }
    }
}

fn interrupted(signal: Signal, stands: &Stands) -> AgentError {
    AgentError::new(Reason::Interrupted, format!("ended by {signal}: {}", stands.what))
        .hint(stands.next.as_ref())
}

/// A log that is full or gone changes no outcome, as the panic of `eprintln!` would.
fn say(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr().lock(), "{text}");
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
    fn times_are_told_as_text_too() {
        let mut value = json!({
            "until": null,
            "last_check": 1_764_400_000,
            "events": [{ "at": 0, "detail": "at" }],
        });
        with_times(&mut value);
        let expected = json!({
            "until": null,
            "last_check": 1_764_400_000,
            "last_check_time": "2025-11-29T07:06:40Z",
            "events": [{ "at": 0, "at_time": "1970-01-01T00:00:00Z", "detail": "at" }],
        });
        assert_eq!(value, expected);
    }
}
