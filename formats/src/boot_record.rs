//! What a node remembers about its slots: the boot record, the progress journal and the
//! security-version floor.
//!
//! Each is the JSON payload of one sealed record ([`crate::record`]), which gives it two
//! checksummed copies and a sequence number. Unknown members are ignored and a missing optional
//! member has its default, so that an older agent, after a revert, still reads what a newer one
//! wrote.
//!
//! | record | file | written |
//! |---|---|---|
//! | boot record | `boot-record` | before every change of the boot flags that relies on it, and after it |
//! | journal | `journal` | while a slot is written, after each flush |
//! | floor | `floor` | after a confirm, never lowered |

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Sha256};
use crate::reason::Reason;
use crate::release::ComponentName;
use crate::version::Version;

/// Failed releases that are remembered; the oldest is forgotten first.
pub const FAILURES_LIMIT: usize = 16;
/// Events that are remembered; the oldest is forgotten first.
pub const HISTORY_LIMIT: usize = 200;

/// Why bytes are not one of these records.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}")]
pub struct RecordFormError {
    /// Which record.
    pub what: &'static str,
    /// What the parser said.
    pub why: String,
}

/// One of the two bootable sets of partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// The first.
    A,
    /// The second.
    B,
}

impl Slot {
    /// Both, A first.
    pub const BOTH: [Slot; 2] = [Slot::A, Slot::B];

    /// The other one.
    pub fn other(self) -> Slot {
        match self {
            Slot::A => Slot::B,
            Slot::B => Slot::A,
        }
    }

    /// `a` or `b`.
    pub fn name(self) -> &'static str {
        match self {
            Slot::A => "a",
            Slot::B => "b",
        }
    }
}

impl std::fmt::Display for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// One value for each slot.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct PerSlot<T> {
    /// Slot A's.
    pub a: T,
    /// Slot B's.
    pub b: T,
}

impl<T> PerSlot<T> {
    /// The value of a slot.
    pub fn of(&self, slot: Slot) -> &T {
        match slot {
            Slot::A => &self.a,
            Slot::B => &self.b,
        }
    }

    /// The value of a slot, to be changed.
    pub fn of_mut(&mut self, slot: Slot) -> &mut T {
        match slot {
            Slot::A => &mut self.a,
            Slot::B => &mut self.b,
        }
    }
}

/// Which release: the index's digest decides, the version is for people.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReleaseId {
    /// SHA-256 of the release index, as signed.
    pub index: Sha256,
    /// Its version.
    pub version: ReleaseVersion,
    /// Its security version.
    pub security_version: u64,
}

/// A version that is compared by its spelling, as part of an identity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Version", into = "Version")]
pub struct ReleaseVersion(String);

impl From<Version> for ReleaseVersion {
    fn from(version: Version) -> Self {
        ReleaseVersion(version.as_str().to_owned())
    }
}

impl From<ReleaseVersion> for Version {
    fn from(version: ReleaseVersion) -> Self {
        version.version()
    }
}

impl ReleaseVersion {
    /// The version, to compare by age.
    pub fn version(&self) -> Version {
        self.0.parse().expect("made from a version only")
    }
}

impl std::fmt::Display for ReleaseVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A component of a slot, as it was read back and verified.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SlotComponent {
    /// Its name.
    pub name: ComponentName,
    /// Digest of its manifest.
    pub manifest: Digest,
    /// Digest of its chunk list; kept under `chunks/` as the index of the slot's content.
    pub chunks: Digest,
    /// Length of the image in bytes.
    pub raw_size: u64,
}

/// What was written to a slot and read back.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SlotContent {
    /// The release.
    pub release: ReleaseId,
    /// Its components on this node.
    pub components: Vec<SlotComponent>,
    /// Whether it was confirmed once.
    #[serde(default)]
    pub confirmed: bool,
    /// In which order its release switches the components that start by themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub order: Vec<ComponentName>,
}

/// How far an update is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "phase")]
pub enum Phase {
    /// The slot is being cleared or written; its content is unknown.
    Staging,
    /// The slot was read back and holds the release; it is not bootable yet.
    Staged,
    /// The slot was, or is about to be, made next.
    Trial {
        /// The boot during which it was activated, or the last one that passed it over.
        boot_id: String,
        /// Unix seconds of the activation.
        since: u64,
        /// Tries it was given.
        tries: u8,
        /// Why the last trial boot failed, when the agent could still say it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failed: Option<String>,
    },
    /// The slot is being abandoned; the reason is already recorded.
    Reverting {
        /// Why.
        reason: Reason,
        /// In words.
        detail: String,
    },
}

/// The update in progress.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Update {
    /// The slot it goes to.
    pub slot: Slot,
    /// The release.
    pub release: ReleaseId,
    /// How far it is.
    #[serde(flatten)]
    pub phase: Phase,
    /// Boots in a row that started the other slot although this one was next.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub passed_over: u8,
    /// Whether an operator chose the release: what a channel says of it does not count.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub named: bool,
    /// Why the release, which was next, must not be tried for now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withheld: Option<String>,
}

impl Update {
    /// An update that nothing has happened to yet.
    pub fn new(slot: Slot, release: ReleaseId, phase: Phase) -> Self {
        Update { slot, release, phase, passed_over: 0, named: false, withheld: None }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(count: &u8) -> bool {
    *count == 0
}

/// A release that failed its trial here; not tried again before a newer one or an explicit retry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Failure {
    /// The release.
    pub release: ReleaseId,
    /// Unix seconds.
    pub at: u64,
    /// Why.
    pub reason: Reason,
    /// In words.
    pub detail: String,
}

/// The boot record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct BootRecord {
    /// What the slots hold, as far as this agent wrote them.
    #[serde(default)]
    pub slots: PerSlot<Option<SlotContent>>,
    /// The update in progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<Update>,
    /// Releases that failed, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Failure>,
    /// Whether the boot loader was seen to spend a try, or not to, at the last trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counting: Option<bool>,
    /// Whether a boot loader that reads the flags once told the kernel so: every boot since has to.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub chooser: bool,
}

/// How much of a component's image is written and flushed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalComponent {
    /// Its name.
    pub name: ComponentName,
    /// 0: nothing of it was written. Otherwise the slot may hold chunks of it anywhere, and those below
    /// this one are written and flushed; except 1, which is saved before the first chunk is written.
    pub next_chunk: u32,
}

/// The progress journal: a hint where to look first after an interruption. Whatever it says, every
/// chunk is hashed again before it counts as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// The release being staged.
    pub release: ReleaseId,
    /// The slot it goes to.
    pub slot: Slot,
    /// Bytes fetched so far, over all runs.
    pub fetched: u64,
    /// Per component.
    pub components: Vec<JournalComponent>,
}

/// The security-version floor.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Floor {
    /// Releases below it are refused.
    pub security_version: u64,
    /// The TPM's counter that keeps it, too, as it was last seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tpm: Option<TpmSeen>,
    /// Unix seconds at which this record was found to be older than the TPM's counter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub older_since: Option<u64>,
}

/// A counter of a TPM, as it was last seen; what its numbers stand for is in [`crate::tpm::Mark`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TpmSeen {
    /// Its NV index.
    pub index: u32,
    /// Its value when it was made.
    pub base: u64,
    /// The floor at that moment.
    pub origin: u64,
    /// Its value.
    pub counter: u64,
}

impl TpmSeen {
    /// What its beginning stands for.
    pub fn mark(self) -> crate::tpm::Mark {
        crate::tpm::Mark { base: self.base, origin: self.origin }
    }
}

/// One thing that happened, for `history`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEvent {
    /// Unix seconds.
    pub at: u64,
    /// What: `staged`, `activated`, `confirmed`, `reverted`, `refused`, `failed`, …
    pub event: String,
    /// The release, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<ReleaseId>,
    /// The slot, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<Slot>,
    /// The reason, when it did not go well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// In words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// What happened, oldest first, at most [`HISTORY_LIMIT`] events.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct History {
    /// The events.
    pub events: Vec<HistoryEvent>,
}

macro_rules! payload {
    ($($type:ty = $what:literal;)*) => {$(
        impl $type {
            /// Parses the payload of a sealed record.
            pub fn parse(payload: &[u8]) -> Result<Self, RecordFormError> {
                serde_json::from_slice(payload)
                    .map_err(|error| RecordFormError { what: $what, why: error.to_string() })
            }

            /// Deterministic payload of a sealed record.
            pub fn to_bytes(&self) -> Vec<u8> {
                serde_json::to_vec(self).expect("string keys and no floats always serialise")
            }
        }
    )*};
}

payload! {
    BootRecord = "boot record";
    Journal = "journal";
    Floor = "floor";
    History = "history";
}

impl BootRecord {
    /// The failure of a release on this node, if it is remembered.
    pub fn failure_of(&self, index: Sha256) -> Option<&Failure> {
        self.failures.iter().rev().find(|failure| failure.release.index == index)
    }

    /// Remembers a failure; an older one of the same release is replaced.
    pub fn remember(&mut self, failure: Failure) {
        self.failures.retain(|known| known.release.index != failure.release.index);
        self.failures.push(failure);
        let excess = self.failures.len().saturating_sub(FAILURES_LIMIT);
        self.failures.drain(..excess);
    }
}

impl History {
    /// Appends an event and forgets the oldest beyond the limit.
    pub fn push(&mut self, event: HistoryEvent) {
        self.events.push(event);
        let excess = self.events.len().saturating_sub(HISTORY_LIMIT);
        self.events.drain(..excess);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(version: &str) -> ReleaseId {
        ReleaseId {
            index: Sha256::of(version.as_bytes()),
            version: version.parse::<Version>().unwrap().into(),
            security_version: 3,
        }
    }

    fn sample() -> BootRecord {
        let content = SlotContent {
            release: release("1.0.0"),
            components: vec![SlotComponent {
                name: "os".parse().unwrap(),
                manifest: Digest::sha256_of(b"m"),
                chunks: Digest::sha256_of(b"c"),
                raw_size: 7,
            }],
            confirmed: true,
            order: Vec::new(),
        };
        BootRecord {
            slots: PerSlot { a: Some(content), b: None },
            update: Some(Update::new(
                Slot::B,
                release("1.1.0"),
                Phase::Trial {
                    boot_id: "5d1f".to_owned(),
                    since: 1_800_000_000,
                    tries: 3,
                    failed: Some("web: connection refused".to_owned()),
                },
            )),
            failures: vec![Failure {
                release: release("1.0.9"),
                at: 1_700_000_000,
                reason: Reason::Unhealthy,
                detail: "web: connection refused".to_owned(),
            }],
            counting: Some(true),
            chooser: false,
        }
    }

    /// A record without an order is one of before, byte for byte.
    #[test]
    fn the_order_of_switches_is_remembered() {
        let mut record = sample();
        let plain = record.to_bytes();
        assert!(!String::from_utf8(plain).unwrap().contains("order"));
        record.slots.a.as_mut().unwrap().order = vec!["bmc".parse().unwrap()];
        assert_eq!(BootRecord::parse(&record.to_bytes()).unwrap(), record);
    }

    /// What is not there is not written: a record of before, byte for byte.
    #[test]
    fn what_happened_to_an_update_is_remembered() {
        let mut record = sample();
        let plain = String::from_utf8(record.to_bytes()).unwrap();
        for name in ["passed_over", "named", "withheld"] {
            assert!(!plain.contains(name), "{plain}");
        }
        let update = record.update.as_mut().unwrap();
        (update.passed_over, update.named) = (1, true);
        update.withheld = Some("channel stable is held".to_owned());
        assert_eq!(BootRecord::parse(&record.to_bytes()).unwrap(), record);
    }

    #[test]
    fn a_boot_record_round_trips() {
        let bytes = sample().to_bytes();
        assert_eq!(BootRecord::parse(&bytes).unwrap(), sample());
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        insta::assert_snapshot!(serde_json::to_string_pretty(&value).unwrap());
    }

    #[test]
    fn newer_members_are_ignored_and_absent_ones_default() {
        assert_eq!(BootRecord::parse(b"{}").unwrap(), BootRecord::default());
        let text = br#"{"slots":{"a":null,"b":null,"c":1},"later":{"x":[]}}"#;
        assert_eq!(BootRecord::parse(text).unwrap(), BootRecord::default());
        for bad in [&b""[..], b"3", b"{\"slots\":3}", b"{\"update\":{\"slot\":\"c\"}}"] {
            assert!(BootRecord::parse(bad).is_err());
        }
    }

    #[test]
    fn memory_is_bounded() {
        let mut record = sample();
        for i in 0..100 {
            let mut failure = record.failures[0].clone();
            failure.release = release(&format!("2.{i}"));
            record.remember(failure.clone());
            record.remember(failure);
        }
        assert_eq!(record.failures.len(), FAILURES_LIMIT);
        assert!(record.failure_of(release("2.99").index).is_some());
        assert!(record.failure_of(release("2.1").index).is_none());
    }
}
