//! `doctor`: what would go wrong at the first update, found before it.
//!
//! It opens what an update writes as an update does, and changes and makes nothing.

mod boot;
mod disk;
mod environment;
mod kernel;
pub(crate) mod sandbox;
mod trust;

use formats::reason::Reason;
use serde::Serialize;

use super::Agent;
use crate::error::AgentError;
use crate::hooks::Hook;

/// Whether this node can really update and revert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DoctorReport {
    /// Whether nothing was found that an update or a revert would fail of.
    pub ready: bool,
    /// What was found, in the order in which it was looked at.
    pub findings: Vec<Finding>,
    /// The reason of the first bad finding.
    #[serde(skip)]
    pub first_bad: Option<Reason>,
}

/// What was found of one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// In words, with what to do.
    pub text: String,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// It is as it should be.
    #[serde(rename = "ok")]
    Good,
    /// It works, with less than the node could have.
    Weak,
    /// An update or a revert would fail.
    Bad,
}

type Answer = Result<(Level, String), AgentError>;
type Check = fn(&Agent) -> Answer;

/// The row that only nodes with hooks have.
const HOOKS: &str = "hooks";

const CHECKS: [(&str, Check); 18] = [
    ("sandbox", environment::limits),
    ("trust root", trust::root),
    ("clock", trust::clock),
    ("partition table", disk::partition_table),
    ("boot flags", boot::flags),
    ("slots", disk::slots),
    ("booted slot", boot::booted),
    ("boot counting", boot::counting),
    ("state", disk::state),
    ("health checks", environment::health),
    ("restart", environment::restart),
    (HOOKS, environment::hooks),
    ("sources", trust::sources),
    ("kernel", environment::kernel),
    ("floor", trust::floor),
    ("watchdog", environment::watchdog),
    ("update set", disk::update_set),
    ("node id", environment::node_id),
];

impl Agent {
    /// Whether this node can really update and revert, and what to do if not. Asks the sources, and runs the
    /// health checks once. Changes nothing; `Ok` also when an update would fail.
    pub fn doctor(&self) -> DoctorReport {
        let has_hooks = Hook::ALL.iter().any(|hook| !self.config.hooks.command(*hook).is_empty());
        let mut findings = Vec::new();
        let mut causes: Vec<(&str, String)> = Vec::new();
        let mut first_bad = None;
        for (check, ask) in CHECKS.into_iter().filter(|(check, _)| has_hooks || *check != HOOKS) {
            let (level, text) = ask(self).unwrap_or_else(|error| {
                let chain = error.chain();
                let text = bad(&error, &chain, &causes);
                causes.push((check, chain));
                first_bad.get_or_insert(error.reason());
                (Level::Bad, text)
            });
            findings.push(Finding { check, level, text });
        }
        DoctorReport { ready: first_bad.is_none(), findings, first_bad }
    }
}

/// What is said of an error, whose cause one of the checks before it may have told.
fn bad(error: &AgentError, chain: &str, causes: &[(&str, String)]) -> String {
    match causes.iter().find(|(_, cause)| same_cause(cause, chain)) {
        Some((first, _)) => format!("for the same reason as {first}"),
        None => {
            let hint = error.advice().map_or_else(String::new, |hint| format!("; {hint}"));
            format!("{chain} [{}]{hint}", error.reason())
        }
    }
}

/// Whether one error is the other with more of what was being done before it.
fn same_cause(one: &str, other: &str) -> bool {
    let (short, long) = if one.len() <= other.len() { (one, other) } else { (other, one) };
    long.strip_suffix(short).is_some_and(|before| before.is_empty() || before.ends_with(": "))
}

fn good(text: impl Into<String>) -> Answer {
    Ok((Level::Good, text.into()))
}

#[cfg(test)]
mod tests {
    use super::same_cause;

    #[test]
    fn one_cause_is_one_whatever_was_being_done() {
        let disk = "boot.disk: /dev/sdx does not exist; check the configured disk";
        let rows = [
            (disk.to_owned(), disk.to_owned(), true),
            (disk.to_owned(), format!("slot a, component os: {disk}"), true),
            (format!("slot a, component os: {disk}"), disk.to_owned(), true),
            (disk.to_owned(), format!("other{disk}"), false),
            (disk.to_owned(), "boot.grub_env: open /boot/grub/grubenv".to_owned(), false),
        ];
        for (one, other, same) in rows {
            assert_eq!(same_cause(&one, &other), same, "{one} | {other}");
        }
    }
}
