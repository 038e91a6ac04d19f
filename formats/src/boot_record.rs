//! What a node remembers about its slots: the boot record, the progress journal and the
//! security-version floor.
//!
//! Each is the JSON payload of one sealed record ([`crate::record`]), which gives it two
//! checksummed copies and a sequence number.
//!
//! An older agent, after a revert, goes on with what a newer one wrote:
//!
//! | what the older agent finds | what it does |
//! |---|---|
//! | a member it does not know, at any depth | carries it through each rewrite ([`crate::carry`]) |
//! | an optional member that is missing | takes the default |
//! | a reason it does not know | shows and keeps the code ([`RecordedReason`]) |
//! | a phase it does not know | shows and keeps it, and judges the update by the flags |
//! | an update, a slot's content, a failure or an event it cannot read | goes on as if there were none, and carries it |
//! | anything else it cannot read | stops: the record is not changed |
//!
//! | record | file | written |
//! |---|---|---|
//! | boot record | `boot-record` | before every change of the boot flags that relies on it, and after it |
//! | journal | `journal` | while a slot is written, after each flush |
//! | floor | `floor` | after a confirm, never lowered |

use serde::{Deserialize, Deserializer, Serialize};

use crate::carry::{carry, readable, readable_elements, unread};
use crate::digest::{Digest, Sha256};
use crate::reason::RecordedReason;
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
        reason: RecordedReason,
        /// In words.
        detail: String,
    },
    /// A phase of another version, or one of ours in a form that this version does not know. The flags
    /// say what has become of the update.
    #[serde(untagged)]
    Unknown {
        /// Its name.
        #[serde(rename = "phase")]
        name: String,
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
    pub reason: RecordedReason,
    /// In words.
    pub detail: String,
}

/// The boot record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct BootRecord {
    /// What the slots hold, as far as this agent wrote them.
    #[serde(default, deserialize_with = "readable_slots")]
    pub slots: PerSlot<Option<SlotContent>>,
    /// The update in progress.
    #[serde(default, deserialize_with = "readable", skip_serializing_if = "Option::is_none")]
    pub update: Option<Update>,
    /// Releases that failed, oldest first.
    #[serde(
        default,
        deserialize_with = "readable_elements",
        skip_serializing_if = "Vec::is_empty"
    )]
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
    #[serde(default, deserialize_with = "readable", skip_serializing_if = "Option::is_none")]
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
    #[serde(default, deserialize_with = "readable", skip_serializing_if = "Option::is_none")]
    pub release: Option<ReleaseId>,
    /// The slot, when there is one.
    #[serde(default, deserialize_with = "readable", skip_serializing_if = "Option::is_none")]
    pub slot: Option<Slot>,
    /// The reason, when it did not go well.
    #[serde(default, deserialize_with = "readable", skip_serializing_if = "Option::is_none")]
    pub reason: Option<RecordedReason>,
    /// In words.
    #[serde(default, deserialize_with = "readable_text", skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// What happened, oldest first, at most [`HISTORY_LIMIT`] events.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct History {
    /// The events.
    #[serde(default, deserialize_with = "readable_elements")]
    pub events: Vec<HistoryEvent>,
}

/// The contents of slots that this version can read.
fn readable_slots<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<PerSlot<Option<SlotContent>>, D::Error> {
    #[derive(Deserialize)]
    struct Slots {
        #[serde(default, deserialize_with = "readable")]
        a: Option<SlotContent>,
        #[serde(default, deserialize_with = "readable")]
        b: Option<SlotContent>,
    }
    let Slots { a, b } = Slots::deserialize(from)?;
    Ok(PerSlot { a, b })
}

fn readable_text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(readable(from)?.unwrap_or_default())
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

            /// The same, with everything that the payload `stored` has beyond what this version reads of
            /// it ([`crate::carry`]).
            pub fn to_bytes_over(&self, stored: &[u8]) -> Vec<u8> {
                match Self::parse(stored) {
                    Ok(before) => carry(stored, &before.to_bytes(), &self.to_bytes()),
                    Err(_) => self.to_bytes(),
                }
            }

            /// What a payload has that this version does not read, as paths such as `update.phase`.
            pub fn unread(stored: &[u8]) -> Vec<String> {
                Self::parse(stored).map_or_else(|_| Vec::new(), |read| unread(stored, &read.to_bytes()))
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
    use crate::reason::Reason;

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
                reason: Reason::Unhealthy.into(),
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
        for bad in [&b""[..], b"3", b"{\"slots\":3}", b"{\"counting\":\"often\"}"] {
            assert!(BootRecord::parse(bad).is_err());
        }
    }

    /// The sample as text, with a part of it replaced.
    fn sample_with(old: &str, new: &str) -> String {
        let text = String::from_utf8(sample().to_bytes()).unwrap();
        assert_eq!(text.matches(old).count(), 1, "{old}");
        text.replacen(old, new, 1)
    }

    #[test]
    fn what_a_newer_version_wrote_is_read_as_far_as_it_can_be_and_kept() {
        let unhealthy = r#""reason":"unhealthy""#;
        let stored = sample_with(unhealthy, r#""reason":"clock_skewed""#);
        let record = BootRecord::parse(stored.as_bytes()).unwrap();
        let reason = &record.failures[0].reason;
        assert_eq!(reason.to_string(), "clock_skewed (not known to this version)");
        assert_eq!(record.to_bytes(), stored.as_bytes());

        let trial = r#""phase":"trial","boot_id":"5d1f""#;
        let stored = sample_with(trial, r#""phase":"drained","boot_id":[1,{"x":2.50}]"#);
        let record = BootRecord::parse(stored.as_bytes()).unwrap();
        let phase = record.update.as_ref().map(|update| &update.phase);
        assert_eq!(phase, Some(&Phase::Unknown { name: "drained".to_owned() }));
        assert_eq!(record.to_bytes_over(stored.as_bytes()), stored.as_bytes());
        assert_eq!(
            BootRecord::unread(stored.as_bytes()),
            ["update.boot_id", "update.since", "update.tries", "update.failed"]
        );
        // The other parts of the record are changed as ever.
        let changed = BootRecord { counting: Some(false), ..record };
        let expected = stored.replace(r#""counting":true"#, r#""counting":false"#);
        let written = String::from_utf8(changed.to_bytes_over(stored.as_bytes())).unwrap();
        assert_eq!(written, expected);

        let stored = sample_with(r#""slot":"b""#, r#""slot":"c""#);
        let record = BootRecord::parse(stored.as_bytes()).unwrap();
        assert_eq!(record.update, None);
        assert_eq!(BootRecord::unread(stored.as_bytes()), ["update"]);
        assert_eq!(record.to_bytes_over(stored.as_bytes()), stored.as_bytes());
    }

    #[test]
    fn a_known_phase_that_cannot_be_read_is_an_unknown_one() {
        let stored = sample_with(r#""boot_id":"5d1f""#, r#""boot_id":7"#);
        let update = BootRecord::parse(stored.as_bytes()).unwrap().update.unwrap();
        assert_eq!(update.phase, Phase::Unknown { name: "trial".to_owned() });
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
