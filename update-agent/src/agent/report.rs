//! What is asked of an agent, and what it reports. Every report is the JSON object that the program
//! prints with `--json`, but for its `ok`.

use std::path::PathBuf;

use formats::boot_record::Slot;
use formats::reason::Reason;
use formats::release::ComponentName;
use formats::version::Version;
use serde::{Serialize, Serializer};
use update_core::policy::{Decided, Decision};

use super::judged::JudgedRelease;
use crate::state::WithdrawnReport;

/// Which release, and from where. By default: what the channel offers, from the configured sources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// A repository or a bundle instead of the configured sources: `docker://…`, `oci:…`,
    /// `oci-archive:…` or a path.
    pub from: Option<String>,
    /// This version instead of what the channel offers or the bundle means.
    pub version: Option<Version>,
    /// Whether a release that failed on this node may be tried again.
    pub retry: bool,
}

/// How a release is installed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApplyOptions {
    /// Write the slot, but do not make it next.
    pub stage_only: bool,
    /// Files or devices that may hold parts of the images.
    pub seeds: Vec<PathBuf>,
}

/// What came of an attempt that there may be no reason for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Attempt<T> {
    /// Something is to be installed, or was.
    Made(T),
    /// What is offered runs already or is next, or nothing is offered.
    UpToDate(UpToDate),
}

/// Why there was nothing to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UpToDate {
    /// [`Reason::UpToDate`].
    pub code: Reason,
    /// In words.
    pub message: String,
}

/// What was decided about an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may be installed now.
    Install,
    /// It runs already.
    UpToDate,
    /// It may be installed later.
    Deferred,
    /// It is not for this node, or not any more.
    Refused(Reason),
}

/// The answer of one rule of the policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleReport {
    /// The rule.
    pub rule: &'static str,
    /// Whether it lets the release pass.
    pub passed: bool,
    /// Why.
    pub why: String,
}

/// What a source offers, and what this node would do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// The source that answered.
    pub source: String,
    /// The release; `None` when the channel offers nothing.
    pub available: Option<Available>,
    /// What was decided.
    pub decision: Verdict,
    /// The name by which this node is put into waves.
    pub node_id: String,
    /// Why it was decided so, when there is a release.
    #[serde(flatten)]
    pub judged: Option<DecisionReport>,
    /// That the release which runs was withdrawn; at the last check, for [`Agent::explain`](super::Agent::explain).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<WithdrawnReport>,
    /// Why [`Agent::apply`](super::Agent::apply) would not install it as this node stands, although the
    /// rules let it be installed.
    #[serde(skip)]
    pub obstacle: Option<Obstacle>,
}

/// What is known of the channel without asking a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Explanation {
    /// What the last check found.
    Known(Box<CheckReport>),
    /// This node has not checked yet.
    NothingKnown(NothingKnown),
}

/// That this node has not checked yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NothingKnown {
    /// Always `None`.
    pub available: Option<Available>,
    /// In words, with what to do.
    pub message: &'static str,
}

/// Why a release that the rules let through would not be installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// [`Reason::UpToDate`]: nothing is left to be installed, it is next already.
    pub reason: Reason,
    /// In words, with what to do.
    pub why: String,
}

impl Obstacle {
    /// What follows `1.1.0 is available`, and the like.
    pub(crate) fn text(&self) -> String {
        match self.reason {
            Reason::UpToDate => format!(": {}", self.why),
            _ => format!(", but `update-agent apply` would refuse it: {}", self.why),
        }
    }
}

/// A release that is offered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Available {
    /// Its version.
    pub version: Version,
    /// Its security version.
    pub security_version: u64,
    /// Digest of its index, `sha256:…`.
    pub index: String,
}

/// Why it was decided so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DecisionReport {
    /// Unix seconds until which it is deferred, when that is known.
    pub until: Option<u64>,
    /// The deciding rule's words.
    pub why: String,
    /// The answers, in the order of the rules; the last one decided.
    pub rules: Vec<RuleReport>,
    /// What decides nothing and should be known.
    pub notes: Vec<String>,
    /// The share of all nodes, in per cent, at which this one's wave begins.
    pub wave: u8,
}

/// What an apply would fetch and write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlanReport {
    /// The version.
    pub version: Version,
    /// The slot that would be written.
    pub slot: Slot,
    /// Always [`Verdict::Install`].
    pub decision: Verdict,
    /// The rules' answers.
    pub rules: Vec<RuleReport>,
    /// What each component takes.
    pub components: Vec<ComponentPlan>,
    /// The sources, in the order in which they are asked.
    pub sources: Vec<String>,
}

/// What a component takes, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ComponentPlan {
    /// Its name.
    pub name: ComponentName,
    /// Length of its image.
    pub raw_size: u64,
    /// Length of its partition or device in the slot.
    pub capacity: Option<u64>,
    /// Compressed bytes to fetch, at most.
    pub fetch: u64,
    /// Of these, bytes of deltas.
    pub delta: u64,
    /// Raw bytes that the node has.
    pub reuse: u64,
    /// Zero bytes.
    pub zeros: u64,
}

/// What an apply did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ApplyReport {
    /// The slot that holds the release, verified by reading it back.
    pub slot: Slot,
    /// The version.
    pub version: Version,
    /// Whether the slot is next; otherwise it is only staged.
    pub activated: bool,
    /// Compressed bytes that came from sources.
    pub fetched: u64,
    /// Raw bytes written.
    pub written: u64,
    /// Raw bytes that the node had.
    pub reused: u64,
    /// Raw bytes that were made zero.
    pub zeroed: u64,
    /// What the rules noted.
    pub notes: Vec<String>,
}

/// A slot that was confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ConfirmReport {
    /// The slot.
    pub confirmed: Slot,
    /// The floor afterwards; absent when an earlier confirm that was cut is finished.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor: Option<u64>,
}

/// A slot that was marked bad: its release is not tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RevertReport {
    /// The slot.
    #[serde(rename = "given_up")]
    pub slot: Slot,
    /// The slot that boots next.
    pub next: Slot,
    /// Whether the machine has to restart to leave the slot.
    pub reboot: bool,
    /// Why.
    pub why: String,
}

/// What the health checks said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HealthReport {
    /// Whether they passed.
    pub passed: bool,
    /// Which failed, and why; empty when they passed.
    pub why: String,
}

impl NothingKnown {
    pub(super) fn new() -> Self {
        let message = "nothing is known yet: run `update-agent check` first";
        NothingKnown { available: None, message }
    }
}

impl Verdict {
    /// Its stable word: `install`, `up_to_date`, `deferred` or a reason.
    pub fn code(self) -> &'static str {
        match self {
            Verdict::Install => "install",
            Verdict::UpToDate => Reason::UpToDate.code(),
            Verdict::Deferred => Reason::Deferred.code(),
            Verdict::Refused(reason) => reason.code(),
        }
    }
}

impl From<&Decision> for Verdict {
    fn from(decision: &Decision) -> Self {
        match decision {
            Decision::Install(_) => Verdict::Install,
            Decision::UpToDate => Verdict::UpToDate,
            Decision::DeferUntil(_) => Verdict::Deferred,
            Decision::Refuse(reason) => Verdict::Refused(*reason),
        }
    }
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl CheckReport {
    /// `obstacle` is asked where the rules let the release be installed.
    pub(super) fn new(
        source: String,
        node_id: String,
        judged: Option<&JudgedRelease>,
        obstacle: impl FnOnce(&JudgedRelease) -> Option<Obstacle>,
    ) -> Self {
        let Some(release @ JudgedRelease { signed, decided, wave, .. }) = judged else {
            let (decision, obstacle) = (Verdict::UpToDate, None);
            return CheckReport {
                source,
                available: None,
                decision,
                node_id,
                judged: None,
                withdrawn: None,
                obstacle,
            };
        };
        let available = Available {
            version: signed.summary.version.clone(),
            security_version: signed.summary.security_version,
            index: format!("sha256:{}", signed.index),
        };
        let until = match &decided.decision {
            Decision::DeferUntil(until) => *until,
            _ => None,
        };
        let decision = Verdict::from(&decided.decision);
        CheckReport {
            source,
            available: Some(available),
            decision,
            node_id,
            withdrawn: None,
            obstacle: (decision == Verdict::Install).then(|| obstacle(release)).flatten(),
            judged: Some(DecisionReport {
                until,
                why: decided.why().to_owned(),
                rules: rules(decided),
                notes: decided.notes.clone(),
                wave: *wave,
            }),
        }
    }
}

pub(super) fn rules(decided: &Decided) -> Vec<RuleReport> {
    let answers = decided.answers.iter();
    let row = |answer: &update_core::policy::Answer| RuleReport {
        rule: answer.rule.name(),
        passed: answer.passed,
        why: answer.why.clone(),
    };
    answers.map(row).collect()
}
