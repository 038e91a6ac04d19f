//! The agent's error: what went wrong, its stable reason, and what to do next.

use std::error::Error;
use std::fmt;

use formats::reason::Reason;
use storage::FileError;

/// An error of a command. Printed once, with its causes, by `main`.
#[derive(Debug)]
pub struct AgentError {
    reason: Reason,
    text: String,
    hint: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl PartialEq for AgentError {
    fn eq(&self, other: &Self) -> bool {
        self.reason == other.reason && self.text == other.text
    }
}

impl AgentError {
    /// An error without a cause.
    pub fn new(reason: Reason, text: impl Into<String>) -> Self {
        AgentError { reason, text: text.into(), hint: None, source: None }
    }

    /// An error with its cause.
    pub fn from_cause(
        reason: Reason,
        text: impl Into<String>,
        cause: impl Error + Send + Sync + 'static,
    ) -> Self {
        AgentError { source: Some(Box::new(cause)), ..AgentError::new(reason, text) }
    }

    /// What to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
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

    /// The stable reason.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// The advice, if there is one.
    pub fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The text with all its causes.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = Error::source(self);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
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
                let source = error.source().map(chain_of);
                let text = match source {
                    Some(causes) => format!("{error}: {causes}"),
                    None => error.to_string(),
                };
                AgentError::new(reason, text)
            }
        }
    )*};
}

pub(crate) fn chain_of(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

from_lower_layers!(
    crate::source::FetchError,
    crate::health::HealthError,
    crate::stage::StageError,
    crate::tpm::CounterError,
    storage::block::DeviceError,
    storage::partition_table::TableError,
    storage::files::StoreError,
    storage::uboot_env::UbootStoreError,
    storage::grub_env::GrubStoreError,
    update_core::trust::StoredError,
    update_core::update::Refusal,
);

impl From<FileError> for AgentError {
    fn from(error: FileError) -> Self {
        let reason = match &error {
            FileError::Io { .. } => Reason::StoreIo,
            _ => Reason::PathRefused,
        };
        AgentError::new(reason, chain_of(&error))
    }
}
