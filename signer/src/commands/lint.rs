//! `lint`: what nodes, or people, would stumble over.

use std::path::PathBuf;

use formats::tuf::UnixTime;
use serde::Serialize;

use super::ceremony::read_staged;
use super::{Report, Signing, counted};
use crate::error::SignerError;
use crate::plan::{Finding, Level, lint as lint_state, lint_change};
use crate::published;
use crate::repository::Registry;

/// What was found.
#[derive(Debug, Serialize)]
pub struct LintReport {
    what: String,
    /// Refusals first.
    pub findings: Vec<Finding>,
}

impl LintReport {
    fn of(what: String, mut findings: Vec<Finding>) -> (Self, Option<SignerError>) {
        findings.sort_by_key(|finding| finding.level != Level::Refused);
        let first = findings.iter().find(|finding| finding.level == Level::Refused).cloned();
        let error = first.map(|finding| crate::plan::PlanError::Lint(finding).into());
        (LintReport { what, findings }, error)
    }
}

impl Report for LintReport {
    fn text(&self) -> String {
        let mut text = format!("{}: {}", self.what, counted(self.findings.len() as u64, "finding"));
        for finding in &self.findings {
            let level = if finding.level == Level::Refused { "refused" } else { "warning" };
            text.push_str(&format!("\n  {level} [{}] {finding}", finding.reason));
        }
        text
    }
}

/// Looks at what is published; with the first refusal as an error.
pub fn lint(
    registry: &dyn Registry,
    signing: &Signing,
    now: UnixTime,
) -> Result<(LintReport, Option<SignerError>), SignerError> {
    let published = published::load(registry, signing.trust_root.as_deref())?;
    let findings = lint_state(&published.state, &signing.policy, now)?;
    Ok(LintReport::of(registry.reference().to_string(), findings))
}

/// Looks at a staged change; with the first refusal as an error.
pub fn lint_staged(
    signing: &Signing,
    files: &[PathBuf],
    now: UnixTime,
) -> Result<(LintReport, Option<SignerError>), SignerError> {
    let staged = read_staged(None, files)?;
    let path = files.first().cloned().unwrap_or_default();
    let base = staged
        .base(signing.trust_root.as_deref())
        .map_err(|source| SignerError::Stage { path, source })?;
    let findings = lint_change(base.as_ref(), &staged.proposal, &signing.policy, now)?;
    Ok(LintReport::of(staged.what, findings))
}
