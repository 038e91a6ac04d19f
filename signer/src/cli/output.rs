//! Reports and errors on their way out.

use std::io::{BufRead as _, IsTerminal as _, Read as _, Write};

use formats::error_chain;
use formats::reason::{Exit, Reason};
use serde_json::{Map, Value, json};
use storage::interrupt::{self, Ending};
use storage::log::printable;
use storage::report::line;

use super::warn_of_example_keys;
use crate::commands::{Report, StageReport};
use crate::error::SignerError;
use crate::plan::Finding;
use crate::progress;

/// Prints a report.
pub(super) fn success(report: &impl Report, json: bool) {
    interrupt::outcome();
    warn_of_example_keys(report);
    if json {
        let mut object = members(report);
        object.insert("ok".to_owned(), Value::Bool(true));
        line(&Value::Object(object).to_string());
    } else {
        line(&report.text());
    }
}

/// Says on stderr what somebody should know before anything is signed.
pub(super) fn warn(finding: &Finding) {
    say(&format!("warning: {}", printable(&finding.to_string())));
}

/// Prints a report on standard error, because standard output is what it reports on.
pub(super) fn success_beside(report: &impl Report, json: bool) {
    interrupt::outcome();
    warn_of_example_keys(report);
    let mut object = members(report);
    object.insert("ok".to_owned(), Value::Bool(true));
    let text = if json { Value::Object(object).to_string() } else { report.text() };
    say(&text);
}

/// Prints an error.
pub(super) fn failure(error: &SignerError, json: bool) {
    interrupt::outcome();
    tell(error, json);
}

fn tell(error: &SignerError, json: bool) {
    let reason = error.reason();
    say(&format!("error[{reason}]: {}", printable(&error_chain(error))));
    if !error.hint().is_empty() {
        say(&format!("  hint: {}", printable(&error.hint())));
    }
    if json {
        line(&failure_object(error).to_string());
    }
}

/// Prints a report, and what is wrong with what it reports, if anything.
pub(super) fn success_or(report: &impl Report, error: Option<&SignerError>, json: bool) -> Exit {
    match error {
        None => {
            success(report, json);
            Exit::Done
        }
        Some(error) => {
            report_with_failure(report, error, json);
            error.reason().exit()
        }
    }
}

/// Columns of the terminal behind standard output; `None`: there is no terminal.
pub(super) fn columns() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    // A serial line that nobody told has none.
    Some(if size.ws_col == 0 { 80 } else { usize::from(size.ws_col) })
}

/// Whether a question would be seen, and could be answered.
pub(super) fn somebody_is_there() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Shows what would be signed and asks. No answer is a no.
pub(super) fn agrees(shown: &StageReport) -> bool {
    say(&shown.text());
    answers_yes("sign this?")
}

/// Asks a question. No answer is a no.
pub(super) fn answers_yes(question: &str) -> bool {
    let _ = write!(std::io::stderr(), "{question} [y/N] ");
    let mut answer = String::new();
    let read = std::io::stdin().lock().take(100).read_line(&mut answer);
    read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

/// Prints both what there is and what is wrong with it; in JSON as one object.
fn report_with_failure(report: &impl Report, error: &SignerError, json: bool) {
    interrupt::outcome();
    if !json {
        success(report, json);
        return failure(error, json);
    }
    warn_of_example_keys(report);
    let mut object = members(report);
    if let Value::Object(failure) = failure_object(error) {
        object.extend(failure);
    }
    say(&format!("error[{}]: {}", error.reason(), printable(&error_chain(error))));
    line(&Value::Object(object).to_string());
}

fn members(report: &impl Report) -> Map<String, Value> {
    match serde_json::to_value(report) {
        Ok(Value::Object(object)) => object,
        _ => unreachable!("a report is a struct of texts, numbers and lists"),
    }
}

fn failure_object(error: &SignerError) -> Value {
    json!({
        "ok": false,
        "code": error.reason().code(),
        "message": error_chain(error),
        "hint": error.hint(),
    })
}

/// How a command ends: a report that did not arrive is no success, whatever was done.
pub(super) fn end(exit: Exit) -> Exit {
    interrupt::outcome();
    let Some(error) = storage::report::lost() else { return exit };
    let reason = Reason::ReportLost;
    say(&format!("error[{reason}]: write to standard output: {error}"));
    say("  hint: the command did its work; check the result before you run it again");
    match exit {
        Exit::Done | Exit::Nothing => reason.exit(),
        failed => failed,
    }
}

/// From here on, Ctrl-C and SIGTERM say what stands; as JSON, too, unless standard output is what the
/// command makes.
pub(super) fn watch(json: bool) {
    interrupt::watch(move |ending| {
        progress::clear();
        if let Ending::Now(signal, stands) = ending {
            tell(&SignerError::Interrupted { signal, stands: stands.clone() }, json);
        }
    });
}

/// A line on stderr. A log that is full or gone changes no outcome, as the panic of `eprintln!` would.
pub(super) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
