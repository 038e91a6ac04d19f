//! What is said about a staged change.

use std::path::{Path, PathBuf};

use formats::tuf::{KeyId, Role, UnixTime};
use serde::Serialize;

use super::state_report::warning_lines;
use super::status::ChannelStatus;
use super::{Report, counted, has_example_key};
use crate::error::SignerError;
use crate::plan::{Finding, Missing, missing};
use crate::stage::Staged;
use crate::state::State;
use crate::summary::{Section, describe};

/// A staged change and how far it is.
#[derive(Debug, Serialize)]
pub struct StageReport {
    file: PathBuf,
    what: String,
    repository: String,
    /// Whether it was verified from a given trust root.
    anchored: bool,
    /// After an online key was stolen: the state it goes on after.
    recovery: Option<String>,
    /// What is signed, against what is published.
    pub sections: Vec<Section>,
    pub(super) warnings: Vec<Finding>,
    /// Signatures that were made now, as `role keyid`.
    signed_now: Vec<String>,
    /// Who signed and who has not.
    pub signatures: Vec<RequirementReport>,
    /// Whether `commit` would find enough.
    pub ready: bool,
    example_keys: bool,
}

/// One threshold.
#[derive(Debug, Serialize)]
pub struct RequirementReport {
    role: String,
    by: String,
    threshold: u32,
    signed: Vec<String>,
    waiting: Vec<String>,
    met: bool,
}

impl RequirementReport {
    pub(super) fn of(missing: &Missing) -> Self {
        let text = |ids: &[KeyId]| ids.iter().map(KeyId::to_string).collect();
        RequirementReport {
            role: missing.role.to_string(),
            by: missing.by.clone(),
            threshold: missing.threshold,
            signed: text(&missing.signed),
            waiting: text(&missing.waiting),
            met: missing.is_met(),
        }
    }

    /// Who has to sign, before anybody has.
    pub(super) fn needed(&self) -> String {
        let short = self.waiting.iter().map(|id| id.get(..8).unwrap_or_default());
        let keys: Vec<&str> = short.collect();
        let (role, by, threshold) = (&self.role, &self.by, self.threshold);
        format!("must sign {role} ({by}): {threshold} of {}", keys.join(", "))
    }

    fn line(&self) -> String {
        let mut line = format!(
            "{} ({}): {} of {}",
            self.role,
            self.by,
            self.signed.len(),
            counted(self.threshold.into(), "signature")
        );
        if !self.met {
            let short: Vec<&str> =
                self.waiting.iter().map(|id| id.get(..8).unwrap_or_default()).collect();
            line.push_str(&format!(", waiting for any of {}", short.join(", ")));
        }
        line
    }
}

impl Report for StageReport {
    fn text(&self) -> String {
        let mut text = format!("{}: {}", self.file.display(), self.what);
        if let Some(recovery) = &self.recovery {
            text.push_str(&format!("\ngoes on after {recovery}"));
        }
        for section in &self.sections {
            text.push_str(&format!("\n{}", section.text()));
        }
        text.push_str(&warning_lines(&self.warnings));
        for requirement in &self.signatures {
            text.push_str(&format!("\n{}", requirement.line()));
        }
        if !self.anchored {
            text.push_str(
                "\nno trust root was given: what it was made on was checked against its own root only",
            );
        }
        let next = if self.ready {
            "ready: signer commit"
        } else {
            "next: signer sign, by those who have not"
        };
        text.push_str(&format!("\n{next}"));
        text
    }

    fn example_keys(&self) -> bool {
        self.example_keys
    }
}

pub(super) fn stage_report(
    path: &Path,
    anchored: bool,
    staged: &Staged,
    before: Option<&State>,
    warnings: Vec<Finding>,
    signed_now: Vec<(Role, KeyId)>,
    now: UnixTime,
) -> Result<StageReport, SignerError> {
    let all = missing(before, &staged.proposal, &staged.signatures)?;
    let root = staged.proposal.root(before)?;
    Ok(StageReport {
        file: path.to_owned(),
        what: staged.what.clone(),
        repository: staged.repository.clone(),
        // A first repository has nothing before it that could be verified.
        anchored: anchored || before.is_none(),
        recovery: before.filter(|_| staged.recovery).map(resumed).transpose()?,
        sections: describe(before, &staged.proposal, now)?,
        warnings,
        signed_now: signed_now.iter().map(|(role, id)| format!("{} {id}", role.name())).collect(),
        ready: all.iter().all(Missing::is_met),
        signatures: all.iter().map(RequirementReport::of).collect(),
        example_keys: has_example_key(&root),
    })
}

/// The state that a recovery goes on after, so that nobody is led back to an old one.
fn resumed(state: &State) -> Result<String, SignerError> {
    let releases = state.releases().map_err(crate::published::PublishedError::from)?;
    let releases: Vec<&str> = releases.iter().map(|release| release.target.as_str()).collect();
    let channels: Vec<String> =
        state.channels.values().map(|channel| ChannelStatus::of(&channel.data).line()).collect();
    Ok(format!(
        "root {}, targets {}, timestamp {}; releases {}; {}",
        state.root.header.version,
        state.targets.data.header.version,
        state.timestamp.data.header.version,
        if releases.is_empty() { "none".to_owned() } else { releases.join(", ") },
        if channels.is_empty() { "no channel".to_owned() } else { channels.join("; ") },
    ))
}
