//! What `status` says of a node.

use std::collections::BTreeMap;
use std::fmt::Display;

use formats::boot_record::{Failure, PerSlot, ReleaseVersion, Slot};
use formats::release::ComponentName;
use serde::{Serialize, Serializer};
use update_core::chooser::ChooserFloor;
use update_core::update::Standing;

use super::super::FloorReport;
use super::words;
use crate::progress::Record;
use crate::reporting::ledger::ReportsTo;
use crate::restart_lock::RestartLock;
use crate::state::{LastError, MetadataVersions, OfferReport, WithdrawnReport};

/// A node: its slots, its update, its floor and its last check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StatusReport {
    /// The product whose releases it installs.
    pub product: String,
    /// The channel that it follows.
    pub channel: String,
    /// Its hardware ids.
    pub hardware: Vec<String>,
    /// What keeps its boot flags.
    pub backend: &'static str,
    /// The name by which it is put into waves.
    pub node_id: String,
    /// The slot that runs.
    pub booted: Slot,
    /// The slot that the boot loader picks next.
    pub next: Option<Slot>,
    /// The version that runs, as far as it is known.
    pub runs: Option<String>,
    /// Where the node stands in an update, as a word.
    #[serde(serialize_with = "words::of_standing")]
    pub standing: Standing,
    /// The update that is under way.
    pub pending: Option<PendingUpdate>,
    /// The request to restart that is not obeyed yet.
    pub restart: Option<RestartReport>,
    /// The restart lock that this node holds, or waits for.
    pub restart_lock: Option<RestartLock>,
    /// What each slot holds, and its boot flags.
    pub slots: PerSlot<SlotReport>,
    /// The security-version floor.
    pub floor: FloorReport,
    /// What the chooser of this boot made of the TPM's floor.
    #[serde(serialize_with = "shown")]
    pub chooser_floor: ChooserFloor,
    /// Which slots the chooser refused in this boot, with the reason's code.
    pub refused_by_chooser: BTreeMap<String, String>,
    /// Components that still run from the slot that is not booted.
    pub mixed: Vec<ComponentName>,
    /// Which slots another program has written since this agent did, and how that shows.
    pub foreign: BTreeMap<String, String>,
    /// Whether the boot loader was seen to spend tries; `None` when nothing shows it.
    pub counting: Option<bool>,
    /// Releases that are not tried again.
    pub failures: Vec<Failure>,
    /// Unix seconds of the last check that reached a repository.
    pub last_check: Option<u64>,
    /// What the last command that failed ended with.
    pub last_error: Option<LastError>,
    /// Versions of the trusted metadata.
    pub metadata: Option<MetadataVersions>,
    /// What was last offered and decided.
    pub offer: Option<OfferReport>,
    /// That the release which runs was withdrawn.
    pub withdrawn: Option<WithdrawnReport>,
    /// The command that is at work in another process.
    pub in_progress: Option<Record>,
    /// The same under an older name.
    pub running: Option<Record>,
    /// Whether the trust root has a published example key.
    pub example_keys: bool,
    /// Records, and parts of them, that a newer agent left and this version does not know.
    pub unread: Vec<String>,
    /// Of each source that gets reports, how that stands.
    pub reports: Vec<ReportsTo>,
    /// Where the node stands, in a sentence.
    #[serde(skip)]
    pub sentence: String,
    /// Unix seconds at which this was so.
    #[serde(skip)]
    pub now: u64,
}

/// An update that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PendingUpdate {
    /// The slot it goes to.
    pub slot: Slot,
    /// The version.
    pub version: ReleaseVersion,
    /// Its security version.
    pub security_version: u64,
    /// How far it is: `staging`, `staged`, `trial`, `reverting`, or the word of a newer agent.
    pub phase: String,
    /// Trial boots that are left.
    pub tries_left: u8,
    /// Why the last trial boot failed, where it could say so.
    pub failed: Option<String>,
    /// Boots in a row that started the other slot although this one was next.
    pub passed_over: u8,
    /// Why it must not be tried for now.
    pub withheld: Option<String>,
}

/// A request to restart that is not obeyed yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RestartReport {
    /// Why.
    pub why: String,
    /// Unix seconds of the last request.
    pub at: u64,
    /// Requests so far.
    pub times: u32,
    /// Why the last one was refused, if it was.
    pub refused: Option<String>,
    /// What the next request is.
    pub next: String,
    /// Seconds until it is made.
    pub next_in: u64,
}

/// A slot: its boot flags, and what an agent wrote to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SlotReport {
    /// The higher one boots; 0: it is never booted.
    pub priority: u8,
    /// Trial boots that are left.
    pub tries: u8,
    /// Whether a trial of it has passed.
    pub successful: bool,
    /// Whether the boot loader may boot it.
    pub bootable: bool,
    /// The version, if an agent wrote it.
    pub version: Option<String>,
    /// Its security version.
    pub security_version: Option<u64>,
    /// Digest of its index, `sha256:…`.
    pub index: Option<String>,
    /// Whether it boots without spending tries.
    pub confirmed: bool,
}

fn shown<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
