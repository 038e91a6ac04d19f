//! The agent's durable state: one directory, every file of it replaced whole.
//!
//! | name | holds |
//! |---|---|
//! | `lock` | the lock: one agent at a time |
//! | `trust` | trusted TUF metadata and the known time, one sealed record |
//! | `boot-record` | what the slots hold, the update in progress, failures |
//! | `journal` | how much of a slot is written |
//! | `floor` | the security-version floor |
//! | `tpm-secret` | the password of the TPM's counter, for nobody else: the file has mode 0600 |
//! | `restart` | the last request to restart, in this boot |
//! | `probation` | when the checks of a trial began, in this boot |
//! | `delayed` | when a hook first put off a restart, in this boot |
//! | `owed` | the update whose end a hook is to be told |
//! | `restart-lock` | the restart lock that this node may hold at a server |
//! | `bank-NAME` | what was taken from the only bank of a component |
//! | `noted` | what the slots and the disk were like when they were written |
//! | `history` | what happened |
//! | `channel` | the last channel document |
//! | `offline` | the offline statement by which a bundle was accepted last |
//! | `report` | last check and last error, for `status`; counts, for the metrics |
//! | `root` | the trust root of the last `reset --root`; absent: the one of the configuration |
//! | `asking` | which source is being asked, where there are several: one that ended the agent is asked last |
//! | `reset` | a reset that is decided and not yet finished |
//! | `reports/` | the key of this node's reports and what was sent, with a lock of their own: `reporting/ledger.rs` |
//! | `chunks/` | chunk lists of what the slots hold, by digest: the index for reuse |
//!
//! A record that is damaged in one copy is read from the other, named by `doctor`, and written again by
//! the next command that takes the lock. One that is damaged in both copies is never overwritten
//! silently: commands end with `store_corrupt`.
//!
//! What becomes of a state that a newer agent wrote, and a revert left to this one, is in `state/newer.rs`.

mod chunk_lists;
mod counts;
mod newer;
mod report;
mod reset;
mod restart;
mod unread;

use std::path::Path;
use std::sync::Arc;

use formats::boot_record::{
    BootRecord, Floor, History, HistoryEvent, Journal, RecordFormError, Slot,
};
use formats::digest::Digest;
use formats::reason::Reason;
use formats::release::ComponentName;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use storage::StoreError;
use storage::dir::Lock;
use storage::files::PrivateDir;
use storage::host::Host;
use storage::record::{self, Flaw};
use update_core::asking::Asking;
use update_core::hooks::Owed;
use update_core::trust::Stored;

pub use self::counts::Counts;
pub use self::report::{
    KnownState, LastError, MetadataVersions, OfferReport, Report, WithdrawnReport,
};
pub use self::restart::RestartAsked;

use crate::error::{AgentError, Because as _};
use crate::restart_lock::RestartLock;

pub(crate) use self::noted::{NotedComponent, NotedSlot};

/// When the checks of a trial began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Began {
    /// The boot that is on trial.
    pub boot_id: String,
    /// Milliseconds after its start.
    pub uptime_ms: u64,
}

/// The content of a component's only bank, as it was copied into a slot before the agent first wrote
/// the bank: of a release that no agent installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BankBackup {
    /// The slot with the copy.
    pub slot: Slot,
    /// Bytes.
    pub len: u64,
    /// Their digest.
    pub digest: Digest,
    /// Whether the agent has erased the bank since.
    pub erased_since: bool,
}

/// The state directory, open. Reading takes no lock, so `status` never waits.
#[derive(Debug)]
pub struct State {
    dir: PrivateDir,
    host: Arc<dyn Host>,
}

/// What mends trusted metadata of which no copy can be read.
const BEGIN_AGAIN: &str = "run `update-agent reset --yes`: it begins again from the node's trust \
                           root; slots, floor and history stay";

/// Adds what to do where a record is damaged, and not only out of reach.
fn damaged(error: AgentError, what_to_do: &str) -> AgentError {
    match error.reason() {
        Reason::StoreCorrupt => error.or_hint(what_to_do),
        _ => error,
    }
}

/// The right to change the state. One agent at a time has it.
#[derive(Debug)]
pub struct StateGuard {
    _lock: Lock,
}

impl State {
    /// Opens the directory, making it when it is missing.
    pub fn open(path: &Path, host: Arc<dyn Host>) -> Result<Self, AgentError> {
        let dir = PrivateDir::create_on(host.as_ref(), path).map_err(|error| {
            AgentError::from(error)
                .or_hint("state_dir must be a directory that only the agent's user can change")
        })?;
        Ok(State { dir, host })
    }

    /// Opens the directory to look at it: nothing is made, and one that is missing is that of a new node.
    pub fn look(path: &Path, host: Arc<dyn Host>) -> Result<Self, AgentError> {
        let dir = PrivateDir::open_or_missing_on(host.as_ref(), path)?;
        Ok(State { dir, host })
    }

    /// Unix seconds by the machine's clock.
    pub fn now(&self) -> u64 {
        self.host.now()
    }

    /// Takes the lock, or says at once that another agent has it (`busy`).
    pub fn hold(&self) -> Result<StateGuard, AgentError> {
        let lock = self.dir.lock().map_err(|error| {
            AgentError::from(error).or_hint("wait for it to end, then try again")
        })?;
        let held = StateGuard { _lock: lock };
        match self.pending_reset() {
            Ok(None) => {}
            Ok(Some(reset)) => self.finish_reset(&held, &reset)?,
            // A trial can be ended all the same; nothing is trusted meanwhile, see `trust`.
            Err(error) if error.reason() == Reason::StoreNewer => {
                tracing::warn!("{}", error.chain());
            }
            Err(error) => return Err(error),
        }
        self.mend();
        Ok(held)
    }

    /// Writes copies of records again that are damaged or were cut. What cannot be mended is as good as
    /// before: who reads it says so.
    fn mend(&self) {
        let names = match record::names(&self.dir) {
            Ok(names) => names,
            Err(error) => return tracing::warn!("look for damaged records: {error}"),
        };
        for name in names.into_iter().filter(|name| newer::is_known(name)) {
            match record::mend(&self.dir, &name) {
                Ok(Some(flaw @ Flaw::Damaged { .. })) => {
                    tracing::warn!("state: {flaw}; it was written again, nothing is lost");
                }
                Ok(_) | Err(StoreError::Corrupt { .. } | StoreError::Newer { .. }) => {}
                Err(error) => tracing::warn!("state: mend {name}: {error}"),
            }
        }
    }

    /// Copies of records that are damaged, behind or missing, for `doctor`.
    pub fn flaws(&self) -> Result<Vec<Flaw>, AgentError> {
        let mut flaws = Vec::new();
        for name in record::names(&self.dir)?.into_iter().filter(|name| newer::is_known(name)) {
            match record::read(&self.dir, &name) {
                Ok(found) => flaws.extend(found.and_then(|found| found.flaw)),
                // Hints begin anew; what must not be lost fails where it is read.
                Err(StoreError::Corrupt { .. } | StoreError::Newer { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(flaws)
    }

    /// The boot record; empty when there is none yet.
    pub fn boot_record(&self) -> Result<BootRecord, AgentError> {
        self.read("boot-record", BootRecord::parse)
    }

    /// Makes the boot record durable.
    pub fn save_boot_record(&self, _: &StateGuard, record: &BootRecord) -> Result<(), AgentError> {
        self.rewrite("boot-record", BootRecord::parse, |stored| record.to_bytes_over(stored))
    }

    /// The floor by the file alone; zero when there is none yet.
    pub fn floor(&self) -> Result<u64, AgentError> {
        Ok(self.floor_record()?.security_version)
    }

    /// The floor's file.
    pub fn floor_record(&self) -> Result<Floor, AgentError> {
        self.read("floor", Floor::parse)
    }

    /// Makes the floor's file durable.
    pub fn save_floor(&self, _: &StateGuard, floor: &Floor) -> Result<(), AgentError> {
        self.rewrite("floor", Floor::parse, |stored| floor.to_bytes_over(stored))
    }

    /// Raises the floor durably; never lowers it.
    pub fn raise_floor(&self, held: &StateGuard, security_version: u64) -> Result<(), AgentError> {
        if security_version <= self.floor()? {
            return Ok(());
        }
        self.save_floor(held, &Floor { security_version, ..self.floor_record()? })
    }

    /// The password of the TPM's counter; `None` when none was drawn.
    pub fn tpm_secret(&self) -> Result<Option<Vec<u8>>, AgentError> {
        self.payload("tpm-secret")
    }

    /// Makes it durable. One that cannot be read any more opens nothing and is given up.
    pub fn save_tpm_secret(&self, _: &StateGuard, secret: &[u8]) -> Result<(), AgentError> {
        if matches!(record::read(&self.dir, "tpm-secret"), Err(StoreError::Corrupt { .. })) {
            record::remove(&self.dir, "tpm-secret")?;
        }
        self.write("tpm-secret", secret)
    }

    /// When the checks of a trial began. A damaged record is none: the deadline begins anew.
    pub fn probation(&self) -> Option<Began> {
        self.kept("probation")
    }

    /// Makes it durable.
    pub fn save_probation(&self, _: &StateGuard, began: &Began) -> Result<(), AgentError> {
        self.keep("probation", began)
    }

    /// When a restart was first put off, in this boot. A damaged record is none: the time begins anew.
    pub fn delayed(&self) -> Option<Began> {
        self.kept("delayed")
    }

    /// Makes it durable.
    pub fn save_delayed(&self, _: &StateGuard, first: &Began) -> Result<(), AgentError> {
        self.keep("delayed", first)
    }

    /// The update whose end a hook is to be told. A damaged record is none.
    pub fn owed(&self) -> Option<Owed> {
        self.kept("owed")
    }

    /// Makes it durable.
    pub fn save_owed(&self, _: &StateGuard, owed: &Owed) -> Result<(), AgentError> {
        self.keep("owed", owed)
    }

    /// The hook took note of it.
    pub fn forget_owed(&self, _: &StateGuard) -> Result<(), AgentError> {
        Ok(record::remove(&self.dir, "owed")?)
    }

    /// The restart lock that this node may hold. A damaged record is none: the lock ends by its age.
    pub fn restart_lock(&self) -> Option<RestartLock> {
        self.kept("restart-lock")
    }

    /// Makes it durable.
    pub fn save_restart_lock(&self, _: &StateGuard, lock: &RestartLock) -> Result<(), AgentError> {
        self.keep("restart-lock", lock)
    }

    /// It was given back.
    pub fn forget_restart_lock(&self, _: &StateGuard) -> Result<(), AgentError> {
        Ok(record::remove(&self.dir, "restart-lock")?)
    }

    /// A record that the node does without when it is damaged.
    fn kept<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let found = record::read(&self.dir, name).ok().flatten()?;
        serde_json::from_slice(&found.record.payload).ok()
    }

    /// Makes such a record durable.
    fn keep<T: Serialize>(&self, name: &str, value: &T) -> Result<(), AgentError> {
        let payload =
            serde_json::to_vec(value).because(Reason::StoreIo, format!("write {name}"))?;
        Ok(self.replace(name, &payload)?)
    }

    /// What was taken from the only bank of a component, if anything was.
    pub fn taken(&self, component: &ComponentName) -> Result<Option<BankBackup>, AgentError> {
        let name = format!("bank-{component}");
        let Some(payload) = self.payload(&name)? else { return Ok(None) };
        newer::parsed(&name, &payload).map(Some)
    }

    /// Makes it durable.
    pub fn save_taken(
        &self,
        _: &StateGuard,
        component: &ComponentName,
        taken: &BankBackup,
    ) -> Result<(), AgentError> {
        let name = format!("bank-{component}");
        let stored = self.payload(&name)?.unwrap_or_default();
        let payload = newer::carried(&stored, taken);
        self.write(&name, &payload.because(Reason::StoreIo, "write what was taken")?)
    }

    /// The progress journal. A damaged one is no journal: it is only a hint.
    pub fn journal(&self) -> Option<Journal> {
        let found = record::read(&self.dir, "journal").ok().flatten()?;
        Journal::parse(&found.record.payload).ok()
    }

    /// Makes the journal durable; `None` forgets it.
    pub fn save_journal(
        &self,
        _: &StateGuard,
        journal: Option<&Journal>,
    ) -> Result<(), StoreError> {
        match journal {
            Some(journal) => self.replace("journal", &journal.to_bytes()),
            None => record::remove(&self.dir, "journal"),
        }
    }

    /// The trusted metadata; that of a new node when there is none yet.
    pub fn trust(&self) -> Result<Stored, AgentError> {
        if self.is_resetting()? {
            return Ok(Stored::default());
        }
        let read = || -> Result<Stored, AgentError> {
            match self.payload("trust")? {
                Some(payload) => Ok(Stored::from_bytes(&payload)?),
                None => Ok(Stored::default()),
            }
        };
        read().map_err(|error| newer::advised(damaged(error, BEGIN_AGAIN)))
    }

    /// Which source is being asked. A damaged note is none: it only decides an order.
    pub fn asking(&self) -> Asking {
        self.kept("asking").unwrap_or_default()
    }

    /// Makes it durable.
    pub fn save_asking(&self, _: &StateGuard, asking: &Asking) -> Result<(), AgentError> {
        self.keep("asking", asking)
    }

    /// Makes the trusted metadata durable.
    pub fn save_trust(&self, _: &StateGuard, stored: &Stored) -> Result<(), AgentError> {
        self.write("trust", &stored.to_bytes())
    }

    /// What happened.
    pub fn history(&self) -> Result<History, AgentError> {
        self.read("history", History::parse)
    }

    /// Appends to the history. One that cannot be read stays as it is, and misses the event.
    pub fn remember(&self, _: &StateGuard, event: HistoryEvent) -> Result<(), AgentError> {
        let mut history = match self.history() {
            Ok(history) => history,
            Err(error) if newer::only_unread(&error) => {
                tracing::warn!("the history misses {:?}: {}", event.event, error.chain());
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        history.push(event);
        self.rewrite("history", History::parse, |stored| history.to_bytes_over(stored))
    }

    /// What `status` shows. A report that cannot be read is an empty one: nothing is decided by it.
    pub fn report(&self) -> Report {
        let payload = self.payload("report").ok().flatten();
        payload.and_then(|payload| serde_json::from_slice(&payload).ok()).unwrap_or_default()
    }

    /// Makes the report durable. That of a newer agent, where it cannot be read, stays as it is.
    pub fn save_report(&self, _: &StateGuard, report: &Report) -> Result<(), AgentError> {
        let stored = match record::read(&self.dir, "report") {
            Ok(found) => found.map(|found| found.record.payload).unwrap_or_default(),
            Err(StoreError::Newer { .. }) => return Ok(()),
            Err(_) => {
                record::remove(&self.dir, "report")?;
                Vec::new()
            }
        };
        let payload = newer::carried(&stored, report);
        self.write("report", &payload.because(Reason::StoreIo, "write the report")?)
    }

    /// The last channel document, to be compared with what is signed.
    pub fn channel_document(&self) -> Option<Vec<u8>> {
        record::read(&self.dir, "channel").ok().flatten().map(|found| found.record.payload)
    }

    /// Keeps the channel document, so that a poll without news needs no download.
    pub fn save_channel_document(&self, _: &StateGuard, bytes: &[u8]) -> Result<(), AgentError> {
        Ok(self.replace("channel", bytes)?)
    }

    /// The offline statement by which a bundle was accepted, to be verified again.
    pub fn offline_statement(&self) -> Option<Vec<u8>> {
        record::read(&self.dir, "offline").ok().flatten().map(|found| found.record.payload)
    }

    /// Keeps it, so that `explain` can answer as long as it stands.
    pub fn save_offline_statement(&self, _: &StateGuard, bytes: &[u8]) -> Result<(), AgentError> {
        match record::read(&self.dir, "offline") {
            Ok(Some(found)) if found.record.payload == bytes => return Ok(()),
            Ok(_) => {}
            Err(_) => record::remove(&self.dir, "offline")?,
        }
        self.write("offline", bytes)
    }

    fn read<T: Default>(
        &self,
        name: &str,
        parse: fn(&[u8]) -> Result<T, RecordFormError>,
    ) -> Result<T, AgentError> {
        match self.payload(name)? {
            Some(payload) => parse(&payload).map_err(|error| newer::unreadable(name, error)),
            None => Ok(T::default()),
        }
    }

    /// Writes a record over the one that is there, with what that has beyond what this version reads.
    fn rewrite<T>(
        &self,
        name: &str,
        parse: fn(&[u8]) -> Result<T, RecordFormError>,
        over: impl FnOnce(&[u8]) -> Vec<u8>,
    ) -> Result<(), AgentError> {
        let stored = self.payload(name)?;
        if let Some(stored) = &stored {
            parse(stored).map_err(|error| newer::unreadable(name, error))?;
        }
        self.write(name, &over(&stored.unwrap_or_default()))
    }

    /// What a record holds; `None` when it was never written.
    fn payload(&self, name: &str) -> Result<Option<Vec<u8>>, AgentError> {
        let found = record::read(&self.dir, name);
        let found = found.map_err(|error| newer::advised(error.into()))?;
        Ok(found.map(|found| found.record.payload))
    }

    /// Writes a record, also over one that cannot be read.
    fn replace(&self, name: &str, payload: &[u8]) -> Result<(), StoreError> {
        if record::read(&self.dir, name).is_err() {
            record::remove(&self.dir, name)?;
        }
        record::write(&self.dir, name, payload).map(drop)
    }

    fn write(&self, name: &str, payload: &[u8]) -> Result<(), AgentError> {
        record::write(&self.dir, name, payload)?;
        Ok(())
    }
}

mod noted;
#[cfg(test)]
mod tests;
