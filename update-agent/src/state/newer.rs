//! The state of a newer agent, which a revert or a release with an older agent leaves to this one.
//!
//! This agent goes on with it, shows what it does not know as such, and loses nothing of it:
//!
//! | record | what this version does not know | format version or form that it cannot read |
//! |---|---|---|
//! | `boot-record` | carried; what decides: [`formats::boot_record`] and the flags | `store_newer`; `status` shows the flags, `revert` goes by them |
//! | `floor` | carried | `store_newer`; the same: no update, no confirm |
//! | `trust` | files of other kinds are kept | `store_newer`: no check, no update; a trial ends as ever |
//! | `bank-NAME` | carried | `store_newer`: the bank is not written |
//! | `tpm-secret`, `root` | opaque | `store_newer` |
//! | `reset` | a reset is finished as this version does it | nothing is trusted: `store_newer`; a trial ends as ever |
//! | `history` | carried, also events that cannot be read | kept as it is; events are logged, and missing in it |
//! | `report` | carried | kept as it is; `status` shows none |
//! | `journal`, `probation`, `asking`, `delayed`, `owed`, `restart`, `restart-lock` | replaced: each speaks of one boot or one attempt | replaced |
//! | `noted` | carried | replaced by the next one |
//! | `channel`, `offline` | signed documents, verified when they are used | replaced by the next one |
//! | `chunks/` | none is removed while the boot record has something unknown | – |
//! | any other name | not touched | not touched |
//!
//! *Carried* is defined in [`formats::carry`], a *format version* in [`formats::record`]. An unknown
//! record, member, value or kind of file needs no new format version.

use std::error::Error;

use formats::carry::carry;
use formats::reason::Reason;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::AgentError;

/// The records of this version; components name those of banks.
const RECORDS: [&str; 18] = [
    "asking",
    "boot-record",
    "channel",
    "delayed",
    "floor",
    "history",
    "journal",
    "noted",
    "offline",
    "owed",
    "probation",
    "report",
    "reset",
    "restart",
    "restart-lock",
    "root",
    "tpm-secret",
    "trust",
];

/// Whether this version writes records of that name.
pub(super) fn is_known(name: &str) -> bool {
    RECORDS.contains(&name) || name.starts_with("bank-")
}

/// Adds what to do where a newer agent's record stops this one.
pub(super) fn advised(error: AgentError) -> AgentError {
    match error.reason() {
        Reason::StoreNewer => error.or_hint(
            "nothing of it was changed: boot a release whose agent reads it, or revert to one; \
             `update-agent doctor` says which records it concerns",
        ),
        _ => error,
    }
}

/// The error of a record that is whole and has another form.
pub(super) fn unreadable(name: &str, error: impl Error + Send + Sync + 'static) -> AgentError {
    let text = format!("the {name} was written by a newer version");
    advised(AgentError::from_cause(Reason::StoreNewer, text, error))
}

pub(super) fn parsed<T: DeserializeOwned>(name: &str, payload: &[u8]) -> Result<T, AgentError> {
    serde_json::from_slice(payload).map_err(|error| unreadable(name, error))
}

/// Whether a record is there and cannot be read; for those that only inform.
pub(super) fn only_unread(error: &AgentError) -> bool {
    matches!(error.reason(), Reason::StoreNewer | Reason::StoreCorrupt)
}

/// The payload of a value, with what the stored one has beyond it.
pub(super) fn carried<T: Serialize + DeserializeOwned>(
    stored: &[u8],
    value: &T,
) -> Result<Vec<u8>, serde_json::Error> {
    let after = serde_json::to_vec(value)?;
    match serde_json::from_slice::<T>(stored) {
        Ok(read) => Ok(carry(stored, &serde_json::to_vec(&read)?, &after)),
        Err(_) => Ok(after),
    }
}
