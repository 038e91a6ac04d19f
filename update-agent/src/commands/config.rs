//! `config check`: what is wrong with a configuration, and what it comes to.

use std::path::Path;

use formats::reason::Exit;
use formats::tuf::BUILD_TIME;
use serde::Serialize;

use crate::agent::ROOT_LIMIT;
use crate::config::{Config, Effective, Origin, Setting};
use crate::error::AgentError;
use crate::http::{Client, Limits};
use crate::output::Output;
use crate::source;

/// What `config check --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Report {
    /// The file.
    file: String,
    /// Every value that counts.
    settings: Vec<Row>,
}

/// A value.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Row {
    /// `boot.tries`, `source[0].url`.
    key: String,
    /// The value; paths as they are used, no passwords.
    value: toml::Value,
    /// `file`, `default`, or what outside of the file it was taken from.
    from: &'static str,
    /// The line of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
}

/// `config check`: asks no network and no disk, takes no lock and makes nothing. What the machine has is
/// for `doctor` to say.
pub(super) fn check(path: &Path, output: Output) -> Result<Exit, AgentError> {
    let machine = std::fs::read_to_string("/etc/machine-id").ok();
    let machine = machine.map(|id| id.trim().to_owned()).filter(|id| !id.is_empty());
    let found = Effective::of(path, |name| std::env::var(name).ok(), machine)?;
    let mut errors: Vec<AgentError> = found.problems.into_iter().map(AgentError::config).collect();
    if errors.is_empty() {
        errors.extend(of_files(&found.config));
    }
    if !errors.is_empty() {
        return Err(all(path, errors));
    }
    let report = Report {
        file: path.display().to_string(),
        settings: found.settings.iter().map(row).collect(),
    };
    output.report(&report, &text(path, &found.settings));
    Ok(Exit::Done)
}

/// What is wrong with the checks, and with the files that the configuration names for the agent itself.
fn of_files(config: &Config) -> Vec<AgentError> {
    let mut errors = Vec::new();
    if let Err(error) = config.health.usable() {
        errors.push(error.into());
    }
    if let Err(error) = root(&config.trust.root) {
        errors.push(error.or_config().context("trust.root"));
    }
    for source in &config.sources {
        // A medium may be away.
        if source.url.starts_with("docker:")
            && let Err(error) = source::open(source, Limits::default())
        {
            errors.push(AgentError::from(error).or_config().context(&source.url));
        }
    }
    let lock = &config.restart_lock;
    if let Some(url) = &lock.url
        && let Err(error) = source::server(&lock.as_source(url), Limits::default())
            .and_then(|(_, options)| Ok(Client::new(options)?))
    {
        errors.push(AgentError::from(error).or_config().context("restart_lock"));
    }
    errors
}

/// Whether the trust root can be read and signs itself; the clock is another question.
fn root(path: &Path) -> Result<(), AgentError> {
    let bytes = storage::private::read_trusted(path, ROOT_LIMIT).map_err(|error| {
        AgentError::from(error).or_hint("copy the root.json that `signer init` wrote to this path")
    })?;
    let whenever = u64::try_from(BUILD_TIME.secs()).unwrap_or(0);
    crate::trust::check_root(&bytes, whenever)
}

/// One error for all of them: the first one's reason and words, and the others below.
fn all(path: &Path, mut errors: Vec<AgentError>) -> AgentError {
    let first = errors.remove(0);
    let others: Vec<String> = errors
        .iter()
        .map(|error| format!("  also: {}", error.chain()))
        .chain(first.lines().map(str::to_owned))
        .collect();
    first.excerpt(others.join("\n")).context(format!("configuration {}", path.display()))
}

fn row(setting: &Setting) -> Row {
    let (from, line) = match setting.from {
        Origin::Line(line) => ("file", Some(line)),
        Origin::Default => ("default", None),
        Origin::Outside(name) => (name, None),
    };
    Row { key: setting.place.clone(), value: setting.value.clone(), from, line }
}

/// The configuration as a file could say it, each value with where it comes from.
fn text(path: &Path, settings: &[Setting]) -> String {
    let mut text = format!("# {} is valid; with all defaults it says:\n", path.display());
    let mut before = "";
    for setting in settings {
        let table = setting.place.rsplit_once('.').map_or("", |(table, _)| table);
        if table != before {
            text += &format!("\n{}\n", setting.table);
            before = table;
        }
        let line = format!("{} = {}", setting.key, setting.value);
        text += &format!("{line:40}  # {}\n", setting.from);
    }
    text
}
