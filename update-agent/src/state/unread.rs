//! What a newer agent left in the state that this one does not read.

use formats::boot_record::{BootRecord, Floor, History};
use formats::carry::unread;
use formats::reason::Reason;
use serde::Serialize;
use serde::de::DeserializeOwned;
use storage::record;

use super::newer::is_known;
use super::noted::Noted;
use super::{Report, State};

/// The parts of a payload that this version does not read as a `T`.
fn unread_as<T: Serialize + DeserializeOwned + Default>(stored: &[u8]) -> Vec<String> {
    let read = serde_json::from_slice::<T>(stored).unwrap_or_default();
    unread(stored, &serde_json::to_vec(&read).unwrap_or_default())
}

/// Gives the parts of a payload that this version does not read.
type Unread = fn(&[u8]) -> Vec<String>;

impl State {
    /// What a newer agent left that this one does not read, for `status` and `doctor`: records, and parts of
    /// them such as `boot-record: update.quorum`.
    pub fn unread(&self) -> Vec<String> {
        let mut found = Vec::new();
        let records: [(&str, Unread); 5] = [
            ("boot-record", BootRecord::unread),
            ("floor", Floor::unread),
            ("history", History::unread),
            ("noted", unread_as::<Noted>),
            ("report", unread_as::<Report>),
        ];
        for (name, unread) in records {
            let payload = self.payload(name).ok().flatten().unwrap_or_default();
            found.extend(unread(&payload).iter().map(|path| format!("{name}: {path}")));
        }
        for name in record::names(&self.dir).unwrap_or_default() {
            match self.payload(&name) {
                Err(error) if error.reason() == Reason::StoreNewer => found.push(name),
                _ if !is_known(&name) => found.push(name),
                _ => {}
            }
        }
        found
    }
}
