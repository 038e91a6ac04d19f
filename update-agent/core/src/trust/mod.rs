//! Which metadata next, and is it trusted: the client workflow of TUF §5.3–5.6, as a machine that
//! does no I/O.
//!
//! ```text
//!              ┌────────────── Fetch { file_name, max_len } ──────────────┐
//!  Refresh ────┤◄───────────── Reply: Bytes, NotFound, TooLong ───────────┤ driver: registry,
//!  (or Search) ├────────────── Persist(Stored) ──────────────────────────►│ directory, tar;
//!              └────────────── Done(TrustedSet | SignedTarget) ──────────►│ durable state
//! ```
//!
//! | step | file | accepted if | kept |
//! |---|---|---|---|
//! | root | `N+1.root.json` until there is none | signed by old *and* new root keys, version exactly N+1; then the last one not expired | every 32 roots, at the end, and before an error |
//! | timestamp | `timestamp.json` | signed, not older, its snapshot not older, not expired; of equal version: no news, the stored one counts | at once |
//! | snapshot | `S.snapshot.json` | length and hashes as listed, signed, version as listed, no role older or gone, not expired | at once |
//! | targets | `T.targets.json` | length and hashes as listed, signed, version as listed, not expired | at once |
//! | delegated | `D.<role>.json`, during a search | the same, with the keys its delegator names | at once |
//!
//! What is stored is verified again with the keys of the day when it is used: a timestamp or
//! snapshot that the newest root's keys do not verify counts as absent, and both are forgotten
//! when a root takes a key of either away (TUF §5.3.11). Targets go back only when a root takes a
//! snapshot key away, as that section has it, or one of their own. [`Stored`] is one record, so a power cut
//! leaves the old or the new state.
//!
//! A bundle may carry an offline statement ([`Refresh::with_offline`]): then an expired timestamp or
//! snapshot is judged, and kept, only after targets, by the rule that targets sign. The table of that
//! rule stands in [`OfflineError`]'s module; nothing else of the workflow changes.
//!
//! Departs from TUF §5.3.8: roots are persisted in groups. Nothing relies on a root before it is
//! persisted, and a state of several MiB is not written a thousand times.

mod clock;
mod error;
mod offline;
mod refresh;
mod search;
mod stored;
mod succession;
mod trusted;
mod verified;

pub use clock::{CLOCK_TOLERANCE, Clock, start_time};
pub use error::TrustError;
pub use offline::{OfflineError, OfflineValidity};
pub use refresh::Refresh;
pub use search::{Search, SignedTarget};
pub use stored::{Stored, StoredError};
pub use trusted::TrustedSet;

/// Bounds of one update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest root, in bytes.
    pub root_len: u64,
    /// Largest timestamp, in bytes.
    pub timestamp_len: u64,
    /// Largest snapshot, in bytes, even if a larger length is signed.
    pub snapshot_len: u64,
    /// Largest targets metadata, in bytes, even if a larger length is signed.
    pub targets_len: u64,
    /// Most new roots of one run.
    pub roots: usize,
    /// Most delegated roles of one search.
    pub delegations: usize,
}

impl Default for Limits {
    /// 512 KiB, 16 KiB, 1 MiB, 2 MiB: some ten times what the largest public repositories need, and
    /// so little that a node holds the old and the new ones, and the tree of one, in 24 MiB.
    /// 1,024 roots are one a week for twenty years; 32 roles are what other clients search.
    fn default() -> Self {
        Limits {
            root_len: 512 << 10,
            timestamp_len: 16 << 10,
            snapshot_len: 1 << 20,
            targets_len: 2 << 20,
            roots: 1024,
            delegations: 32,
        }
    }
}

/// What the driver is to do next.
#[derive(Debug)]
pub enum Step<T> {
    /// Get this file, then `respond`.
    Fetch(Fetch),
    /// Make this state durable, whole, before calling `next` again. If that fails, stop: the
    /// state before it is still good.
    Persist(Stored),
    /// Finished. `next` is not to be called again.
    Done(T),
}

/// A metadata file to be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// Its name: what `tuf.io/filename` says in a registry, and, through
    /// [`formats::tuf::url_component`], the last component of a URL. Not a path: it may hold any
    /// character but control characters.
    pub file_name: String,
    /// Read at most this many bytes, and answer [`Reply::TooLong`] if there are more.
    pub max_len: u64,
    /// Whether the answer is usually [`Reply::NotFound`].
    pub optional: bool,
}

/// What became of a [`Fetch`]. A source that failed otherwise is no reply: drop the machine,
/// whatever it verified so far was persisted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The whole file.
    Bytes(Vec<u8>),
    /// The source says, reliably, that it has no such file.
    NotFound,
    /// It has more than `max_len` bytes.
    TooLong,
}

/// A machine that advances by files fetched and states persisted.
pub trait Workflow {
    /// What it ends with.
    type Output;

    /// What to do next. After an error, there is nothing left to do.
    fn next(&mut self) -> Result<Step<Self::Output>, TrustError>;

    /// Answers the last [`Step::Fetch`].
    fn respond(&mut self, reply: Reply);
}

/// Drives a workflow when all files are at hand: a bundle, a directory, a test.
pub fn run<W: Workflow>(
    workflow: &mut W,
    mut fetch: impl FnMut(&Fetch) -> Reply,
    mut persist: impl FnMut(Stored),
) -> Result<W::Output, TrustError> {
    loop {
        match workflow.next()? {
            Step::Fetch(wanted) => workflow.respond(fetch(&wanted)),
            Step::Persist(stored) => persist(stored),
            Step::Done(output) => return Ok(output),
        }
    }
}
