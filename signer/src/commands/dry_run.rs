//! A dry run: what a change would sign and upload, and who would have to sign it.

use formats::tuf::{KeyId, Role, UnixTime};
use serde::Serialize;

use super::publish::report::PlannedRelease;
use super::stage::RequirementReport;
use super::state_report::warning_lines;
use super::status::ChannelStatus;
use super::{Answer, Report, SEEN, has_example_key};
use crate::error::SignerError;
use crate::plan::{Finding, Missing, Proposal, Signatures, missing, notes, requirements};
use crate::stage::Staged;
use crate::state::State;
use crate::summary::{Section, describe};

/// What a change would do.
#[derive(Debug, Serialize)]
pub struct DryRunReport {
    /// Always true: nothing was signed, uploaded or written.
    dry_run: bool,
    /// Whether anything would change.
    changed: bool,
    what: String,
    /// The release that would be published.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    release: Option<PlannedRelease>,
    /// The channel as it would be.
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<ChannelStatus>,
    /// What its schedule does that might not be expected.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    /// What would be signed, against what is published.
    sections: Vec<Section>,
    /// Who would have to sign, snapshot and timestamp last.
    signatures: Vec<RequirementReport>,
    pub(super) warnings: Vec<Finding>,
    example_keys: bool,
}

impl DryRunReport {
    /// Of a change that would be signed.
    pub(super) fn of(
        before: &State,
        staged: &Staged,
        warnings: Vec<Finding>,
        now: UnixTime,
    ) -> Result<Self, SignerError> {
        let proposal = &staged.proposal;
        let changed = proposal.channels.iter().next();
        let was = changed.and_then(|(target, _)| before.channels.get(target)).map(|was| &was.data);
        Ok(DryRunReport {
            dry_run: true,
            changed: true,
            what: staged.what.clone(),
            release: None,
            channel: changed.map(|(_, channel)| ChannelStatus::of(channel)),
            notes: changed.map_or_else(Vec::new, |(_, channel)| notes(was, channel, now)),
            sections: describe(Some(before), proposal, now)?,
            signatures: signers(before, proposal)?,
            warnings,
            example_keys: has_example_key(&proposal.root(Some(before))?),
        })
    }

    /// Of a change that the repository says already.
    pub(super) fn of_nothing(before: &State, what: String) -> Self {
        DryRunReport {
            dry_run: true,
            changed: false,
            what,
            release: None,
            channel: None,
            notes: Vec::new(),
            sections: Vec::new(),
            signatures: Vec::new(),
            warnings: Vec::new(),
            example_keys: has_example_key(&before.root),
        }
    }
}

/// Every threshold that would have to be met: of what changes, then of snapshot and timestamp, which
/// change with everything.
fn signers(before: &State, proposal: &Proposal) -> Result<Vec<RequirementReport>, SignerError> {
    let mut all = missing(Some(before), proposal, &Signatures::new())?;
    for role in [Role::Snapshot, Role::Timestamp] {
        for needed in requirements(Some(before), proposal, &role)? {
            let waiting: Vec<KeyId> = needed.role_keys.keyids.to_vec();
            let (role, threshold) = (role.clone(), needed.role_keys.threshold);
            all.push(Missing { role, by: needed.by, threshold, signed: Vec::new(), waiting });
        }
    }
    Ok(all.iter().map(RequirementReport::of).collect())
}

impl<T> Answer<T> {
    /// A dry run with the release that it is about.
    pub(super) fn of_release(self, release: PlannedRelease) -> Self {
        match self {
            Answer::Described(report) => {
                let release = Some(release);
                Answer::Described(Box::new(DryRunReport { release, ..*report }))
            }
            other => other,
        }
    }
}

impl Report for DryRunReport {
    fn text(&self) -> String {
        let verb = if self.changed { "" } else { " (unchanged)" };
        let mut text = format!("dry run: {}{verb}", self.what);
        if let Some(release) = &self.release {
            text.push_str(&release.text());
        }
        if let Some(channel) = &self.channel {
            text.push_str(&format!("\n{}; {SEEN}", channel.line()));
        }
        for section in &self.sections {
            text.push_str(&format!("\nto sign: {}", section.text()));
        }
        for signature in &self.signatures {
            text.push_str(&format!("\n{}", signature.needed()));
        }
        text.push_str(&warning_lines(&self.warnings));
        text.push_str("\nnothing was signed, and nothing was uploaded");
        text
    }

    fn example_keys(&self) -> bool {
        self.example_keys
    }
}
