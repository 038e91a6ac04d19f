//! Whether the release that runs here was taken back: nothing is done about it, and people are told.

use formats::reason::Reason;
use formats::release::Withdrawal;

use super::node::NodeParts;
use crate::error::AgentError;
use crate::state::{StateGuard, WithdrawnReport};
use crate::trust::Trusted;

/// Looks at what is signed of the release in the booted slot, and keeps what it says for `status`.
///
/// What cannot be asked now says nothing new: the check goes on without it.
pub(super) fn note(
    node: NodeParts<'_>,
    held: &StateGuard,
    trusted: &mut Trusted<'_>,
) -> Result<(), AgentError> {
    let booted = node.disk.booted()?;
    let record = node.state.boot_record()?;
    let Some(content) = record.slots.of(booted).as_ref() else { return Ok(()) };
    let (index, version) = (content.release.index, content.release.version.version());
    let found = match trusted.release(held, &node.config.node.product, &version) {
        // Another content of that version is not what runs.
        Ok(signed) => signed.summary.withdrawn.filter(|_| signed.index == index),
        Err(error) if error.reason() == Reason::TargetNotFound => None,
        Err(error) => {
            tracing::debug!("what is signed of {version} cannot be asked: {}", error.chain());
            return Ok(());
        }
    };
    let found = found.map(|Withdrawal { at, because }| {
        let version = version.to_string();
        WithdrawnReport { code: Reason::Withdrawn.code().to_owned(), version, index, at, because }
    });
    let mut report = node.state.report();
    if report.withdrawn == found {
        return Ok(());
    }
    if let Some(found) = &found {
        tracing::warn!("{}", found.sentence());
    }
    report.withdrawn = found;
    node.state.save_report(held, &report)
}
