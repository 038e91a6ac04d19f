//! The agent's error: what went wrong, its stable reason, and what to do next.

use std::error::Error;
use std::{fmt, io};

use formats::error_chain;
use formats::reason::Reason;
use storage::FileError;
use storage::StoreError;
use storage::partition_table::TableError;
use storage::shared_lock::SharedLockError;

/// An error of a command. Printed once, with its causes, by `main`.
#[derive(Debug)]
pub struct AgentError {
    reason: Reason,
    text: String,
    hint: Option<String>,
    /// What the system's own refusal asks for; no hint knows better.
    remedy: Option<String>,
    excerpt: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
    /// Whether an event has told it: nobody logs it again.
    told: bool,
}

impl PartialEq for AgentError {
    fn eq(&self, other: &Self) -> bool {
        self.reason == other.reason && self.text == other.text
    }
}

impl AgentError {
    /// An error without a cause.
    pub fn new(reason: Reason, text: impl Into<String>) -> Self {
        AgentError {
            reason,
            text: text.into(),
            hint: None,
            remedy: None,
            excerpt: None,
            source: None,
            told: false,
        }
    }

    /// An error with its cause.
    pub fn from_cause(
        reason: Reason,
        text: impl Into<String>,
        cause: impl Error + Send + Sync + 'static,
    ) -> Self {
        let (remedy, hint) = (remedy(&cause), hint_of(&cause));
        let source = Some(Box::new(cause) as Box<dyn Error + Send + Sync>);
        AgentError { remedy, hint, source, ..AgentError::new(reason, text) }
    }

    /// What to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What to do next, unless the cause already says something closer.
    #[must_use]
    pub(crate) fn or_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// Lines of a file of the operator's own that are at fault; printed as they are.
    #[must_use]
    pub(crate) fn excerpt(mut self, lines: String) -> Self {
        self.excerpt = Some(lines).filter(|lines| !lines.is_empty());
        self
    }

    /// What was being done.
    #[must_use]
    pub fn context(mut self, text: impl fmt::Display) -> Self {
        self.text = format!("{text}: {}", self.text);
        self
    }

    /// A file that cannot even be read, or a place that is none, is a mistake in the
    /// configuration, not in the state or on the command line.
    #[must_use]
    pub fn or_config(mut self) -> Self {
        if matches!(self.reason, Reason::StoreIo | Reason::Usage) {
            self.reason = Reason::Config;
        }
        self
    }

    /// An event has told it.
    #[must_use]
    pub(crate) fn told(mut self) -> Self {
        self.told = true;
        self
    }

    /// Whether an event has told it.
    pub(crate) fn was_told(&self) -> bool {
        self.told
    }

    /// The stable reason.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// The advice, if there is one.
    pub fn advice(&self) -> Option<&str> {
        self.remedy.as_deref().or(self.hint.as_deref())
    }

    /// The lines that are at fault, if they are known.
    pub fn lines(&self) -> Option<&str> {
        self.excerpt.as_deref()
    }

    /// The text with all its causes.
    pub fn chain(&self) -> String {
        error_chain(self)
    }
}

impl fmt::Display for AgentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for AgentError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

/// Where an error of a lower layer becomes one of the agent: its reason, what was being done.
pub trait Because<T> {
    /// Adds what was being done.
    fn because(self, reason: Reason, text: impl Into<String>) -> Result<T, AgentError>;
}

impl<T, E: Error + Send + Sync + 'static> Because<T> for Result<T, E> {
    fn because(self, reason: Reason, text: impl Into<String>) -> Result<T, AgentError> {
        self.map_err(|error| AgentError::from_cause(reason, text, error))
    }
}

macro_rules! from_lower_layers {
    ($($error:ty),* $(,)?) => {$(
        impl From<$error> for AgentError {
            fn from(error: $error) -> Self {
                let reason = error.reason();
                let (remedy, hint) = (remedy(&error), hint_of(&error));
                AgentError { remedy, hint, ..AgentError::new(reason, error_chain(&error)) }
            }
        }
    )*};
}

from_lower_layers!(
    crate::source::FetchError,
    crate::health::HealthError,
    crate::stage::error::StageError,
    crate::tpm::CounterError,
    storage::block::DeviceError,
    TableError,
    StoreError,
    storage::uboot_env::UbootStoreError,
    storage::autoboot::AutobootStoreError,
    storage::grub_env::GrubStoreError,
    update_core::trust::StoredError,
    update_core::update::Refusal,
);

impl From<SharedLockError> for AgentError {
    fn from(error: SharedLockError) -> Self {
        match error {
            SharedLockError::File(error) => error.into(),
            held @ SharedLockError::Held { .. } => {
                AgentError::new(Reason::Busy, error_chain(&held))
                    .hint("wait for it to end, then try again")
            }
        }
    }
}

impl From<FileError> for AgentError {
    fn from(error: FileError) -> Self {
        let reason = match &error {
            FileError::Io { .. } => Reason::StoreIo,
            FileError::Insecure { .. } => Reason::InsecurePerms,
            _ => Reason::PathRefused,
        };
        AgentError { remedy: remedy(&error), ..AgentError::new(reason, error_chain(&error)) }
    }
}

/// What the refusal at the bottom of an error asks for, if it is one that says so.
fn remedy(error: &(dyn Error + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(StoreError::InsecurePerms { remedy, .. }) = error.downcast_ref() {
            return Some(remedy.clone());
        }
        if let Some(error) = error.downcast_ref::<AgentError>() {
            return error.remedy.clone();
        }
        if let Some(refused) = error.downcast_ref::<io::Error>() {
            let remedy = match rustix::io::Errno::from_io_error(refused) {
                Some(rustix::io::Errno::MFILE) => Some(MORE_DESCRIPTORS),
                _ => remedy_of(refused.kind(), rustix::process::geteuid().is_root()),
            };
            return remedy.map(str::to_owned);
        }
        cause = error.source();
    }
    None
}

/// Advice that more specific advice may replace.
fn hint_of(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(error) = error.downcast_ref::<AgentError>() {
        return error.hint.clone();
    }
    match error.downcast_ref() {
        Some(TableError::NoTable { .. }) => {
            Some("make one: sgdisk does, of the package gdisk, in /usr/sbin".to_owned())
        }
        _ => None,
    }
}

const MORE_DESCRIPTORS: &str =
    "raise LimitNOFILE= of the unit or `ulimit -n`: it may open no more files";

fn remedy_of(kind: io::ErrorKind, root: bool) -> Option<&'static str> {
    match kind {
        io::ErrorKind::ReadOnlyFilesystem => Some(
            "it is read-only here: in a systemd unit list it in ReadWritePaths=, otherwise mount it \
             read-write",
        ),
        io::ErrorKind::PermissionDenied if !root => Some(storage::refused::OTHER_USER),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some("free some space"),
        io::ErrorKind::FileTooLarge => {
            Some("raise LimitFSIZE= of the unit or `ulimit -f`: files may grow no further here")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_refused_decides_the_advice() {
        let rows = [
            (rustix::io::Errno::ROFS, true, Some("it is read-only here")),
            (rustix::io::Errno::NOSPC, true, Some("free some space")),
            (rustix::io::Errno::DQUOT, true, Some("free some space")),
            (rustix::io::Errno::FBIG, true, Some("raise LimitFSIZE=")),
            (rustix::io::Errno::ACCESS, false, Some("run as root")),
            (rustix::io::Errno::PERM, false, Some("run as root")),
            (rustix::io::Errno::ACCESS, true, None),
            (rustix::io::Errno::IO, true, None),
        ];
        for (errno, root, said) in rows {
            let found = remedy_of(io::Error::from(errno).kind(), root);
            let as_said = match (found, said) {
                (Some(found), Some(said)) => found.starts_with(said),
                (found, said) => found == said,
            };
            assert!(as_said, "{errno}: {found:?}");
        }
    }

    #[test]
    fn a_process_without_descriptors_is_told_which_limit_it_met() {
        let refused = io::Error::from(rustix::io::Errno::MFILE);
        let error = AgentError::from_cause(Reason::StoreIo, "open", refused);
        assert!(error.advice().is_some_and(|advice| advice.contains("LimitNOFILE=")));
    }

    #[test]
    fn the_refusal_knows_better_than_the_hint() {
        let refused = io::Error::from(rustix::io::Errno::ROFS);
        let error = AgentError::from_cause(Reason::StoreIo, "write", refused).hint("make it");
        assert!(error.advice().is_some_and(|advice| advice.contains("ReadWritePaths=")));
        let missing = io::Error::from(rustix::io::Errno::NOENT);
        let error = AgentError::from_cause(Reason::StoreIo, "write", missing).hint("make it");
        assert_eq!(error.advice(), Some("make it"));
    }
}
