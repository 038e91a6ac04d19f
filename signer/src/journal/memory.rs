//! What the lines of the log say together.

use std::collections::BTreeMap;

use formats::json::Value;
use formats::tuf::{Role, UnixTime};

use super::{Event, JournalError};

/// What was signed, by first root, role and version.
pub(super) type SignedKey = (String, String, u64);

/// What the lines say together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Memory {
    /// By first root and repository: what was published last, by role.
    pub(super) published: BTreeMap<(String, String), BTreeMap<String, (u64, String)>>,
    /// By first root: what people signed and did not abandon, by role and version.
    signed: BTreeMap<SignedKey, String>,
    /// The latest time of any line.
    pub(super) newest: Option<UnixTime>,
}

impl Memory {
    /// Refuses a second content of what was signed.
    pub(super) fn check(&self, key: &SignedKey, digest: &str) -> Result<(), JournalError> {
        match self.signed.get(key) {
            Some(before) if before != digest => Err(JournalError::Equivocation {
                role: key.1.clone(),
                version: key.2,
                digest: before.clone(),
            }),
            _ => Ok(()),
        }
    }

    pub(super) fn replay(&mut self, event: &Event) {
        let time = event.members.get("time").and_then(Value::as_int).map(UnixTime::from_secs);
        self.newest = self.newest.max(time);
        let root = event.text("root").to_owned();
        match event.text("event") {
            // Only what leaves this machine by itself; what `publish` signs is public or nowhere.
            "signed" if event.text("by") == "sign" => {
                self.signed.insert(event.signed_key(), event.text("digest").to_owned());
            }
            "abandoned" => drop(self.signed.remove(&event.signed_key())),
            kind @ ("published" | "seen") => {
                let key = (root.clone(), event.text("repository").to_owned());
                let known = self.published.entry(key).or_default();
                if event.members.get("restart").and_then(Value::as_bool) == Some(true) {
                    known.remove(Role::Snapshot.name());
                    known.remove(Role::Timestamp.name());
                }
                let versions = event.members.get("versions").and_then(Value::as_object);
                for (role, version) in versions.into_iter().flatten() {
                    let digest = event.members.get("digests").and_then(|all| all.get(role));
                    let digest = digest.and_then(Value::as_str).unwrap_or_default().to_owned();
                    let version = Event::version(Some(version));
                    // What was only seen may be older than what is known: a copy that was late.
                    if kind == "published" || known.get(role).is_none_or(|(old, _)| *old < version)
                    {
                        known.insert(role.clone(), (version, digest));
                    }
                }
            }
            _ => {}
        }
    }
}
