//! How an operation ended, kept for `status`.

use formats::reason::Reason;

use super::Agent;
use crate::error::AgentError;
use crate::state::{LastError, Report};

impl Agent {
    /// Keeps how an operation ended for `status`.
    pub(crate) fn noting<T>(
        &self,
        operation: impl FnOnce() -> Result<T, AgentError>,
    ) -> Result<T, AgentError> {
        let result = operation();
        match &result {
            Ok(_) => self.forget_error(),
            Err(error) => self.note_error(error),
        }
        result
    }

    /// Keeps the error of an operation whose success says nothing of the node's work.
    pub(crate) fn keeping_error<T>(
        &self,
        operation: impl FnOnce() -> Result<T, AgentError>,
    ) -> Result<T, AgentError> {
        operation().inspect_err(|error| self.note_error(error))
    }

    /// Keeps the error for `status`, unless another agent is at work.
    pub(crate) fn note_error(&self, error: &AgentError) {
        // What an operator mistyped, or what is no fault, is not the node's last error.
        let passing = [
            Reason::Busy,
            Reason::Deferred,
            Reason::Declined,
            Reason::UpToDate,
            Reason::NotPending,
        ];
        if passing.contains(&error.reason()) {
            return;
        }
        let Ok(held) = self.state.hold() else { return };
        let mut report = self.state.report();
        report.counts.failed(error.reason());
        report.last_error = Some(LastError {
            code: error.reason().into(),
            message: crate::output::printable(&error.chain()),
            at: self.state.now(),
        });
        if let Err(lost) = self.state.save_report(&held, &report) {
            tracing::warn!("the error could not be kept for `status`: {lost}");
        }
    }

    /// An earlier error leaves `status` once the node's work succeeds again.
    fn forget_error(&self) {
        if self.state.report().last_error.is_none() {
            return;
        }
        let Ok(held) = self.state.hold() else { return };
        let report = Report { last_error: None, ..self.state.report() };
        if let Err(lost) = self.state.save_report(&held, &report) {
            tracing::warn!("`status` keeps an error that is over: {lost}");
        }
    }
}
