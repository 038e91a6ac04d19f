//! What a node trusts, as one record: it is saved whole or not at all.
//!
//! Layout, integers little-endian:
//!
//! | offset | size | meaning |
//! |---|---|---|
//! | 0 | 8 | `RKLTRST1` |
//! | 8 | 8 | known time, seconds since 1970, signed |
//! | 16 | 4 | number of files |
//! | 20 | … | the files |
//!
//! and each file:
//!
//! | offset | size | meaning |
//! |---|---|---|
//! | 0 | 1 | 1 root, 2 timestamp, 3 snapshot, 4 targets, 5 delegated; others: of a later version |
//! | 1 | 2 | length n of the role's name; 0 for 1 to 4 |
//! | 3 | n | the role's name, UTF-8 |
//! | 3+n | 4 | length m |
//! | 7+n | m | the file, as it was received |
//!
//! Files are in ascending order of kind, then name; none stands twice; nothing follows. Whoever
//! keeps the record adds checksum, sequence number and a second copy.
//!
//! A later version adds files of further kinds, which this one keeps as they are. A record that begins
//! otherwise is one that this version must not replace: `store_newer`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use formats::reason::Reason;
use formats::tuf::{Role, UnixTime};

use super::{Fetch, Reply};

const MAGIC: &[u8; 8] = b"RKLTRST1";
/// Delegated roles that are kept for the next run, and their bytes together. The others are
/// fetched again; nothing but requests is lost.
const KEPT_ROLES: usize = 64;
const KEPT_BYTES: usize = 2 << 20;

/// The trusted state of a node. The default is that of a node that has seen nothing.
///
/// Every file in it was verified when it came, and is verified again, with the keys of the day,
/// when it is used.
#[derive(Clone, PartialEq, Eq)]
pub struct Stored {
    /// The newest root; its chain is not needed any more.
    pub root: Option<Arc<[u8]>>,
    /// The newest timestamp.
    pub timestamp: Option<Arc<[u8]>>,
    /// The newest snapshot.
    pub snapshot: Option<Arc<[u8]>>,
    /// The newest top-level targets.
    pub targets: Option<Arc<[u8]>>,
    /// Delegated targets by role name.
    pub delegated: BTreeMap<String, Arc<[u8]>>,
    /// Files of kinds that this version does not know, by kind and name; a later version wrote them.
    pub others: BTreeMap<(u8, String), Arc<[u8]>>,
    /// The latest time that is certain: when the newest metadata of a complete update was signed.
    pub known_time: UnixTime,
}

impl Default for Stored {
    fn default() -> Self {
        Stored {
            root: None,
            timestamp: None,
            snapshot: None,
            targets: None,
            delegated: BTreeMap::new(),
            others: BTreeMap::new(),
            known_time: UnixTime::EPOCH,
        }
    }
}

impl fmt::Debug for Stored {
    /// Lengths instead of files, which are long and numbers to the reader.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Stored");
        for role in Role::TOP_LEVEL {
            out.field(role.name(), &self.file(&role).map(|bytes| bytes.len()));
        }
        let delegated: Vec<_> = self.delegated.iter().map(|(n, b)| (n, b.len())).collect();
        out.field("delegated", &delegated).field("known_time", &self.known_time).finish()
    }
}

/// A record is not of this form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoredError {
    /// It does not hold what it says.
    #[error("the trusted state is damaged: {0}")]
    Damaged(&'static str),
    /// A later version wrote it.
    #[error("the trusted state was written by a newer version")]
    Newer,
}

impl StoredError {
    /// The stable word for it.
    pub fn reason(&self) -> Reason {
        match self {
            StoredError::Damaged(_) => Reason::StoreCorrupt,
            StoredError::Newer => Reason::StoreNewer,
        }
    }
}

impl Stored {
    /// The file of a role, if it is stored.
    pub fn file(&self, role: &Role) -> Option<&Arc<[u8]>> {
        match role {
            Role::Root => self.root.as_ref(),
            Role::Timestamp => self.timestamp.as_ref(),
            Role::Snapshot => self.snapshot.as_ref(),
            Role::Targets => self.targets.as_ref(),
            Role::Delegated(name) => self.delegated.get(name),
        }
    }

    /// Answers as a repository that has not changed since: for a poll whose conditional request
    /// said so. Expiry is judged anew all the same.
    pub fn as_unchanged_source(&self, fetch: &Fetch) -> Reply {
        match &self.timestamp {
            Some(bytes) if fetch.file_name == Role::Timestamp.file_name(None) => {
                Reply::Bytes(bytes.to_vec())
            }
            _ => Reply::NotFound,
        }
    }

    /// Keeps a delegated role, dropping others when there are too many.
    pub(super) fn keep_delegated(&mut self, name: &str, bytes: Arc<[u8]>) {
        self.delegated.insert(name.to_owned(), bytes);
        while self.delegated.len() > KEPT_ROLES
            || self.delegated.values().map(|bytes| bytes.len()).sum::<usize>() > KEPT_BYTES
        {
            let Some(other) = self.delegated.keys().find(|other| *other != name).cloned() else {
                return;
            };
            self.delegated.remove(&other);
        }
    }

    /// The record. Equal states give equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let top = [&self.root, &self.timestamp, &self.snapshot, &self.targets];
        let top = (1u8..).zip(top).filter_map(|(kind, file)| Some((kind, "", file.as_ref()?)));
        let delegated = self.delegated.iter().map(|(name, file)| (5, name.as_str(), file));
        let others = self.others.iter().map(|((kind, name), file)| (*kind, name.as_str(), file));
        let (before, after): (Vec<_>, Vec<_>) = others.partition(|(kind, ..)| *kind == 0);
        let files: Vec<_> = before.into_iter().chain(top).chain(delegated).chain(after).collect();
        let mut out = MAGIC.to_vec();
        out.extend(self.known_time.secs().to_le_bytes());
        out.extend((files.len() as u32).to_le_bytes());
        for (kind, name, file) in files {
            out.push(kind);
            out.extend((name.len() as u16).to_le_bytes());
            out.extend(name.as_bytes());
            out.extend((file.len() as u32).to_le_bytes());
            out.extend(file.iter());
        }
        out
    }

    /// Reads a record.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, StoredError> {
        let mut rest = bytes.strip_prefix(MAGIC).ok_or_else(|| begins(bytes))?;
        let known_time = i64::from_le_bytes(take(&mut rest)?);
        let mut stored =
            Stored { known_time: UnixTime::from_secs(known_time), ..Stored::default() };
        if stored.known_time.secs() != known_time {
            return Err(StoredError::Damaged("its known time is out of range"));
        }
        let mut last: Option<(u8, String)> = None;
        for _ in 0..u32::from_le_bytes(take(&mut rest)?) {
            let [kind] = take(&mut rest)?;
            let name_len = usize::from(u16::from_le_bytes(take(&mut rest)?));
            let name = str::from_utf8(take_slice(&mut rest, name_len)?)
                .map_err(|_| StoredError::Damaged("a role name is not UTF-8"))?
                .to_owned();
            let len = u32::from_le_bytes(take(&mut rest)?) as usize;
            let file: Arc<[u8]> = take_slice(&mut rest, len)?.into();
            let this = (kind, name);
            if last.as_ref().is_some_and(|last| *last >= this) {
                return Err(StoredError::Damaged("its files are not in order"));
            }
            match (kind, this.1.as_str()) {
                (1, "") => stored.root = Some(file),
                (2, "") => stored.timestamp = Some(file),
                (3, "") => stored.snapshot = Some(file),
                (4, "") => stored.targets = Some(file),
                (5, name) if Role::delegated(name).is_ok() => {
                    stored.delegated.insert(name.to_owned(), file);
                }
                (1..=5, _) => return Err(StoredError::Damaged("a file has no role")),
                (kind, name) => {
                    stored.others.insert((kind, name.to_owned()), file);
                }
            }
            last = Some(this);
        }
        if !rest.is_empty() {
            return Err(StoredError::Damaged("bytes follow it"));
        }
        Ok(stored)
    }
}

/// Why a record does not begin as one of this version: another number follows the name.
fn begins(bytes: &[u8]) -> StoredError {
    match bytes.starts_with(&MAGIC[..MAGIC.len() - 1]) {
        true => StoredError::Newer,
        false => StoredError::Damaged("it begins otherwise"),
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], StoredError> {
    let (head, tail) = rest.split_first_chunk().ok_or(StoredError::Damaged("it ends early"))?;
    *rest = tail;
    Ok(*head)
}

fn take_slice<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], StoredError> {
    let (head, tail) = rest.split_at_checked(len).ok_or(StoredError::Damaged("it ends early"))?;
    *rest = tail;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_stored() -> impl Strategy<Value = Stored> {
        let file = || prop::collection::vec(any::<u8>(), 0..40).prop_map(Arc::<[u8]>::from);
        let opt = || prop::option::of(file());
        let delegated = prop::collection::btree_map("[a-z/.?#]{1,12}-", file(), 0..4);
        let kind = prop_oneof![Just(0), 6..=255u8];
        let others = prop::collection::btree_map((kind, "[a-z]{0,3}"), file(), 0..3);
        (opt(), opt(), opt(), opt(), delegated, others, 0..4_000_000_000i64).prop_map(
            |(root, timestamp, snapshot, targets, delegated, others, secs)| Stored {
                root,
                timestamp,
                snapshot,
                targets,
                delegated,
                others,
                known_time: UnixTime::from_secs(secs),
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(stored in any_stored()) {
            let bytes = stored.to_bytes();
            prop_assert_eq!(Stored::from_bytes(&bytes), Ok(stored));
            for cut in 0..bytes.len() {
                prop_assert!(Stored::from_bytes(&bytes[..cut]).is_err());
            }
            let longer = [&bytes[..], &[0]].concat();
            prop_assert!(Stored::from_bytes(&longer).is_err());
        }

        #[test]
        fn a_record_has_one_spelling(stored in any_stored(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let mut bytes = stored.to_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok(other) = Stored::from_bytes(&bytes) {
                prop_assert_eq!(other.to_bytes(), bytes);
            }
        }
    }

    #[test]
    fn a_later_record_is_no_damaged_one() {
        let mut later = Stored::default().to_bytes();
        later[7] = b'2';
        assert_eq!(Stored::from_bytes(&later), Err(StoredError::Newer));
        later[0] = b'X';
        assert_eq!(Stored::from_bytes(&later).unwrap_err().reason(), Reason::StoreCorrupt);
    }

    #[test]
    fn delegated_roles_are_bounded_in_number_and_bytes() {
        let mut stored = Stored::default();
        for i in 0..200 {
            stored.keep_delegated(&format!("role-{i}"), vec![0; 10].into());
        }
        assert_eq!(stored.delegated.len(), KEPT_ROLES);
        assert!(stored.delegated.contains_key("role-199"));
        stored.keep_delegated("big", vec![0; KEPT_BYTES].into());
        assert_eq!(stored.delegated.keys().collect::<Vec<_>>(), ["big"]);
    }
}
