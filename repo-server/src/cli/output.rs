//! What is printed: reports on standard output, errors and notes on standard error.

use std::io::Write as _;
use std::process::ExitCode;

use clap::error::ContextValue;
use formats::error_chain;
use formats::reason::Exit;
use formats::userinfo::hidden;
use storage::log::printable;

use crate::ServerError;

/// An error on standard error, and as JSON where that was asked for; the exit code is its reason's.
pub(super) fn tell_error(error: &ServerError, json: bool) -> ExitCode {
    if json {
        // The exit code and standard error say it, too.
        let _ = print_json(&serde_json::json!({
            "ok": false,
            "code": error.reason().code(),
            "message": error_chain(error),
            "hint": error.hint(),
        }));
    }
    fail(error)
}

/// Tells an error on standard error; the exit code is its reason's.
pub(super) fn fail(error: &ServerError) -> ExitCode {
    let reason = error.reason();
    say(&format!("error[{reason}]: {}", printable(&error_chain(error))));
    say(&format!("  hint: {}", printable(error.hint())));
    ExitCode::from(reason.exit().code())
}

/// Prints help or the version, or what is wrong with the command line.
pub(super) fn explain_usage(error: clap::Error) -> ExitCode {
    let error = without_secrets(error);
    if error.use_stderr() {
        say(error.to_string().trim_end());
        return ExitCode::from(Exit::Usage.code());
    }
    match print(error.to_string().as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// The same error: it repeats what was given, and an address may hold a password. That of a service ends in a journal.
fn without_secrets(mut error: clap::Error) -> clap::Error {
    let mut shown = Vec::new();
    for (kind, value) in error.context() {
        if let ContextValue::String(text) = value {
            shown.push((kind, ContextValue::String(hidden(text))));
        }
    }
    for (kind, value) in shown {
        error.insert(kind, value);
    }
    error
}

/// A line on stderr. A log that is full or gone changes no outcome, as the panic of `eprintln!` would.
pub(super) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A line of a report.
pub(super) fn tell(text: &str) -> Result<(), ServerError> {
    print(format!("{text}\n").as_bytes())
}

/// What was asked for, on standard output: without it there is no success. A reader that went away
/// (`| head`) has what it wanted.
pub(super) fn print(bytes: &[u8]) -> Result<(), ServerError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(ServerError::ReportLost(error))
        }
        _ => Ok(()),
    }
}

pub(super) fn print_json(value: &serde_json::Value) -> Result<(), ServerError> {
    tell(&value.to_string())
}

/// `1 blob`, `2 blobs`.
pub(super) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
