//! `signer.log`: what this directory's keys signed and published, one JSON object per line, each
//! with the hash of the line before.
//!
//! | event | members | meaning |
//! |---|---|---|
//! | `signed` | `role`, `version`, `digest`, `keyid`, `by`, `what` | a signature was made; `by` is the command |
//! | `offline` | `digest`, `keyid`, `expires`, `timestamp`, `targets` | a bundle of that timestamp may be used until then |
//! | `published` | `repository`, `trusted`, `manifest`, `versions`, `digests`, `restart`, at times `tag` | a state became visible; `tag` keeps it, if it is not `ts-N` |
//! | `seen` | `repository`, `trusted`, `versions`, `digests` | a staged change was signed on top of this state |
//! | `abandoned` | `role`, `version`, `digest` | what was signed will never be published |
//! | `known` | `repositories` | what all lines before say together: the next run parses the lines from here on. Older versions pass over it |
//!
//! All have `time` (Unix seconds, from the clock of that machine), `user`, `root` (which
//! repository) and `prev`: SHA-256 of the line before without its line break, 64 zeros in the first.
//!
//! `root` is SHA-256 of the id that the newest verified root carries, or of the trust root's
//! payload where it carries none ([`crate::state::Identity`]); `published` and `seen` also have
//! `trusted`, the digest of the trust root's payload. Older versions wrote the digest of the first
//! root that the registry served, which nobody verifies. Their lines count: they are found by any
//! verified root that they name, and by that first root.
//!
//! A `published` line leaves out those roles of the history that the lines before name with the same
//! version and digest.
//!
//! It is more than an audit log, it is the signer's memory: a registry that serves an old state is
//! noticed, and nobody signs two contents of one version without having said so (case 189,
//! 198). Lines are appended under a lock and synced before a signature leaves; what a power cut
//! left of a line is cut off. A line that was changed or removed in the middle is refused, a log
//! that was cut at its end cannot be told from a shorter one: copy it away.

mod error;
mod event;
mod file;
mod memory;

use std::path::{Path, PathBuf};

use formats::digest::Sha256;
use formats::tuf::{Role, UnixTime};

use self::event::versions_of;
use self::file::{End, append, read, remember};
use self::memory::Memory;
use crate::state::{Identity, State};

pub use self::error::JournalError;
pub use self::event::Event;

/// Name of the file beside the keys.
pub const JOURNAL_FILE: &str = "signer.log";

/// The log of a directory.
#[derive(Debug, Clone)]
pub struct Journal {
    path: PathBuf,
    memory: Memory,
    /// How far the file was read for that.
    end: End,
}

/// Which roles must be as new as remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Roles {
    /// All.
    All,
    /// Those that people sign: the online ones start again after their keys were stolen.
    Offline,
}

impl Journal {
    /// Reads a log, and verifies that each line names the one before. One that is not there is empty.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let (memory, end) = remember(path)?;
        Ok(Journal { path: path.to_owned(), memory, end })
    }

    /// Its events in order, but for what only sums up others.
    pub fn events(&self) -> Result<Vec<Event>, JournalError> {
        read(&self.path)
    }

    /// The latest time of any of its events: later ones happen after it.
    pub fn newest(&self) -> Option<UnixTime> {
        self.memory.newest
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends events, durably, before what they record leaves this machine.
    ///
    /// Somebody else may have signed with the same log since it was read: then a second content of
    /// a version is refused here, under the lock.
    pub fn record(&mut self, events: &[Event]) -> Result<(), JournalError> {
        (self.memory, self.end) = append(&self.path, events, (&self.memory, &self.end))?;
        Ok(())
    }

    /// Refuses a repository that forgot, or changed, what was published from here.
    pub fn check_published(
        &self,
        repository: &str,
        state: &State,
        roles: Roles,
    ) -> Result<(), JournalError> {
        let found = versions_of(state);
        for (role, (known, digest)) in self.memory.published(repository, &state.identity) {
            let is_online = [Role::Snapshot, Role::Timestamp].iter().any(|r| r.name() == role);
            if is_online && roles == Roles::Offline {
                continue;
            }
            let repository = repository.to_owned();
            // A delegation that was taken back is no longer served.
            let Some((version, now)) = found.get(&role) else { continue };
            if *version < known {
                return Err(JournalError::Older { repository, role, found: *version, known });
            }
            if *version == known && now.to_hex() != digest {
                return Err(JournalError::ContentChanged { repository, role, version: known });
            }
        }
        Ok(())
    }

    /// The version of a role that was published last in a repository.
    pub fn published_version(
        &self,
        repository: &str,
        identity: &Identity,
        role: &Role,
    ) -> Option<u64> {
        let known = self.memory.published(repository, identity);
        known.get(role.name()).map(|(version, _)| *version)
    }

    /// Refuses a second content of a version that was signed for others before.
    pub fn check_signing(
        &self,
        identity: &Identity,
        role: &Role,
        version: u64,
        digest: &Sha256,
    ) -> Result<(), JournalError> {
        let key = (role.name().to_owned(), version);
        self.memory.check_signing(identity, &key, &digest.to_hex())
    }
}

#[cfg(test)]
mod tests;
