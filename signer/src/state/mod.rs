//! The metadata of a repository as one verified value: what the next signature builds on.
//!
//! ```text
//!  files by name ─► State::verify(trust root) ─► State ─► plan ─► next State ─► files by name
//! ```
//!
//! Nothing is signed on top of metadata that was not verified (TUF §6.1, CVE-2020-15163): every
//! signature, version, length and hash is checked here, with the functions that nodes use. Expiry
//! is not, because renewing what has expired is what a signer is for; `status` and `verify` look
//! at it.

mod history;
mod identity;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use formats::channel::{Channel, ChannelError};
use formats::digest::Sha256;
use formats::json::Value;
use formats::reason::Reason;
use formats::release::{ReleaseError, Summary};
use formats::tuf::{Role, Root, Snapshot, TargetFile, Targets, Timestamp, TufError};
use update_core::trust::Limits;

pub(crate) use self::history::{CLOSED_PREFIX, RECENT};
pub use self::history::{HISTORY, is_history};
pub use self::identity::{Identity, payload_digest};
pub use self::verify::{delegators, self_signed, verified};

/// What the name of a small document beside the metadata begins with: `targets/<target name>`.
pub const DOCUMENT_PREFIX: &str = "targets/";

/// Why the metadata of a repository are not to be built upon.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// A file that must be there is not.
    #[error("{0} is missing; the repository is incomplete, copy or publish it again")]
    Missing(String),
    /// A file is not trustworthy.
    #[error("{file}")]
    Untrusted {
        /// Which file.
        file: String,
        /// Why.
        #[source]
        source: TufError,
    },
    /// A file's version is not the one it is listed or named with.
    #[error("{file} has version {found}, expected {expected}")]
    Version {
        /// Which file.
        file: String,
        /// The version in it.
        found: u64,
        /// The version it should have.
        expected: u64,
    },
    /// The repository belongs to other keys.
    #[error("{file} of the repository is not the trust root given; it belongs to other keys")]
    OtherRoot {
        /// Which file.
        file: String,
    },
    /// The trust root is newer than all the repository has.
    #[error(
        "the newest root in the repository is version {found}, older than the trust root, version {trusted}"
    )]
    OlderRoot {
        /// The newest root in the repository.
        found: u64,
        /// The trust root's version.
        trusted: u64,
    },
    /// What a target says about its release is malformed.
    #[error("target {target}")]
    Release {
        /// Which target.
        target: String,
        /// Why.
        #[source]
        source: ReleaseError,
    },
    /// A channel document is malformed.
    #[error("target {target}")]
    Channel {
        /// Which target.
        target: String,
        /// Why.
        #[source]
        source: ChannelError,
    },
}

impl StateError {
    /// The stable code of this error.
    pub fn reason(&self) -> Reason {
        match self {
            StateError::Missing(_) => Reason::BundleFormat,
            StateError::Untrusted { source, .. } => source.reason(),
            StateError::Version { .. } | StateError::OlderRoot { .. } => Reason::VersionRollback,
            StateError::OtherRoot { .. } => Reason::SigThreshold,
            StateError::Release { .. } | StateError::Channel { .. } => Reason::MetaFormat,
        }
    }
}

/// Metadata and the bytes it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed<T> {
    /// What it says.
    pub data: T,
    /// The bytes as received or signed.
    pub bytes: Vec<u8>,
    /// SHA-256 of what its signatures are made over; of a document without signatures, of all of it.
    pub payload: Sha256,
}

/// All metadata of one repository at one moment, verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Every root in the repository by version, the newest last; contiguous. Those below the trust
    /// root are not verified.
    pub roots: BTreeMap<u64, Vec<u8>>,
    /// The newest root.
    pub root: Root,
    /// Which repository it is, by the roots that were verified.
    pub identity: Identity,
    /// The timestamp.
    pub timestamp: Signed<Timestamp>,
    /// The snapshot it names.
    pub snapshot: Signed<Snapshot>,
    /// The top-level targets it names.
    pub targets: Signed<Targets>,
    /// Delegated targets that the snapshot lists.
    pub delegated: BTreeMap<Role, Arc<Signed<Targets>>>,
    /// Channel documents by target name, each with its parsed form.
    pub channels: BTreeMap<String, Signed<Channel>>,
    /// Documents that a role lists and no node comes to, because its delegation was made narrower.
    /// They are kept: nodes look for them again on the day it is made wider.
    pub resting: BTreeMap<String, Vec<u8>>,
}

impl State {
    /// Names of a product's channels, sorted.
    pub fn channel_names(&self, product: &str) -> impl Iterator<Item = &str> {
        let all = self.channels.values().map(|signed| &signed.data);
        all.filter(move |channel| channel.product == product).map(|one| one.channel.as_str())
    }
}

/// A release as the signed targets list it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedRelease {
    /// The target's name.
    pub target: String,
    /// The product.
    pub product: String,
    /// Which role signed for it.
    pub role: Role,
    /// What is said about it.
    pub summary: Summary,
}

impl State {
    /// Whether this is `before`, but for its snapshot and timestamp: nothing that people sign has
    /// changed.
    pub fn renews(&self, before: &State) -> bool {
        let State { roots, targets, delegated, channels, resting, .. } = self;
        *roots == before.roots
            && *targets == before.targets
            && *delegated == before.delegated
            && *channels == before.channels
            && *resting == before.resting
    }

    /// Verifies the files of a repository, by TUF file name (`2.root.json`, `timestamp.json`, …)
    /// and `targets/…` for documents beside them.
    ///
    /// Without a trust root the oldest root of the repository is believed: then the result is
    /// only consistent in itself, and the caller must say so.
    pub fn verify(
        files: &BTreeMap<String, Vec<u8>>,
        trust_root: Option<&[u8]>,
    ) -> Result<Self, StateError> {
        verify::state(files, trust_root, None)
    }

    /// The same, knowing a state that was verified before: what it has of the history is not verified
    /// twice by the same keys.
    pub(crate) fn verify_again(
        files: &BTreeMap<String, Vec<u8>>,
        trust_root: Option<&[u8]>,
        known: Option<&State>,
    ) -> Result<Self, StateError> {
        verify::state(files, trust_root, known)
    }

    /// The newest root that is reached from a trust root, whatever stands below it.
    pub fn verify_roots(
        files: &BTreeMap<String, Vec<u8>>,
        trust_root: &[u8],
    ) -> Result<Root, StateError> {
        Ok(verify::roots(files, Some(trust_root))?.root)
    }

    /// The metadata of a targets role, if it is there.
    pub fn targets_of(&self, role: &Role) -> Option<&Signed<Targets>> {
        match role {
            Role::Targets => Some(&self.targets),
            other => self.delegated.get(other).map(AsRef::as_ref),
        }
    }

    /// Every targets role with its metadata: the top level, then the delegated ones by name.
    pub fn targets_roles(&self) -> impl Iterator<Item = (&Role, &Signed<Targets>)> {
        let delegated = self.delegated.iter().map(|(role, signed)| (role, signed.as_ref()));
        std::iter::once((&Role::Targets, &self.targets)).chain(delegated)
    }

    /// The target of that name that nodes find, and the role that signed for it.
    pub fn find(&self, name: &str) -> Option<(Role, &TargetFile)> {
        lookup(name, |role| self.targets_of(role).map(|signed| &signed.data))
    }

    /// The target of that name that nodes find.
    pub fn target(&self, name: &str) -> Option<&TargetFile> {
        self.find(name).map(|(_, file)| file)
    }

    /// The releases of all products in the order of their target names.
    pub fn releases(&self) -> Result<Vec<ListedRelease>, StateError> {
        let is_found = |(role, target, _): &(&Role, &String, &TargetFile)| {
            !is_history(role) || self.find(target).is_some_and(|(by, _)| by == **role)
        };
        let all = self.listed("").filter(is_found);
        let all = all.map(|(role, target, file)| described(role, target, file));
        let mut releases = all.collect::<Result<Vec<_>, _>>()?;
        releases.sort_by(|a, b| a.target.cmp(&b.target));
        Ok(releases)
    }

    /// The release of that target name, if it is one.
    pub fn release(&self, target: &str) -> Result<Option<ListedRelease>, StateError> {
        let is_release = target.split('/').count() == 2;
        let found = self.find(target).filter(|_| is_release);
        found.map(|(role, file)| described(&role, target, file)).transpose()
    }

    /// Role, target name and listing of each release that nodes find and whose name begins so. Without
    /// order; nothing is read of what is said about it, and the history is not asked whether it leads to
    /// what its roles list.
    pub(crate) fn listed(
        &self,
        start: &str,
    ) -> impl Iterator<Item = (&Role, &String, &TargetFile)> {
        let from = start.to_owned();
        self.targets_roles().flat_map(move |(role, signed)| {
            let start = from.clone();
            let all = signed.data.targets.range(from.clone()..);
            let named = all.take_while(move |(target, _)| target.starts_with(&start));
            // What a role lists without being asked for it does not exist for nodes.
            let found = move |target: &str| {
                let is_ours = *role == Role::Targets || is_history(role);
                is_ours || self.find(target).is_some_and(|(by, _)| by == *role)
            };
            let is_release = |target: &str| target.split('/').count() == 2;
            let releases = named.filter(move |(target, _)| is_release(target) && found(target));
            releases.map(move |(target, file)| (role, target, file))
        })
    }

    /// All files by name, in the order of the layers of a TUF state: roots, timestamp, snapshot,
    /// targets, delegated targets, documents.
    pub fn files(&self) -> Vec<(String, &[u8])> {
        let roots = self
            .roots
            .iter()
            .map(|(version, bytes)| (Role::Root.file_name(Some(*version)), bytes.as_slice()));
        let snapshot = Role::Snapshot.file_name(Some(self.snapshot.data.header.version));
        let targets = Role::Targets.file_name(Some(self.targets.data.header.version));
        let top_level = [
            (Role::Timestamp.file_name(None), self.timestamp.bytes.as_slice()),
            (snapshot, self.snapshot.bytes.as_slice()),
            (targets, self.targets.bytes.as_slice()),
        ];
        let delegated = self.delegated.iter().map(|(role, signed)| {
            (role.file_name(Some(signed.data.header.version)), signed.bytes.as_slice())
        });
        let channels = self.channels.iter().map(|(target, channel)| {
            (format!("{DOCUMENT_PREFIX}{target}"), channel.bytes.as_slice())
        });
        let resting = self.resting.iter();
        let resting =
            resting.map(|(target, bytes)| (format!("{DOCUMENT_PREFIX}{target}"), bytes.as_slice()));
        roots.chain(top_level).chain(delegated).chain(channels).chain(resting).collect()
    }
}

fn described(role: &Role, target: &str, file: &TargetFile) -> Result<ListedRelease, StateError> {
    let product = target.split_once('/').map_or(target, |(product, _)| product);
    let custom = file.custom.as_ref().map(|custom| custom.to_bytes());
    let summary = Summary::parse_custom(&custom.unwrap_or_default())
        .map_err(|source| StateError::Release { target: target.to_owned(), source })?;
    let (target, product) = (target.to_owned(), product.to_owned());
    Ok(ListedRelease { target, product, role: role.clone(), summary })
}

/// What is said about a release, for those who need little of it: its members, not checked.
pub(crate) fn said(file: &TargetFile) -> Option<&Value> {
    file.custom.as_ref()?.get("racklet")
}

/// The security version of a release.
pub(crate) fn security_version_of(file: &TargetFile) -> Option<u64> {
    said(file)?.get("security_version")?.as_int()?.try_into().ok()
}

/// `product` and `channel` of a channel's target name.
pub fn channel_of(target: &str) -> Option<(&str, &str)> {
    let (product, rest) = target.split_once("/channels/")?;
    Some((product, rest.strip_suffix(".json")?))
}

/// Which role signs for a name, as nodes look for it: pre-order depth-first, no role twice, nobody
/// after a terminating one, at most as many roles as nodes ask (TUF §5.6.7).
pub fn lookup<'a>(
    name: &str,
    targets_of: impl Fn(&Role) -> Option<&'a Targets>,
) -> Option<(Role, &'a TargetFile)> {
    ask(name, targets_of, |_, targets| targets.targets.get(name))
}

/// Asks for a name as nodes do, until a role has an answer; which role, and what it says.
pub(crate) fn ask<'a, T>(
    name: &str,
    targets_of: impl Fn(&Role) -> Option<&'a Targets>,
    answer: impl Fn(&Role, &'a Targets) -> Option<T>,
) -> Option<(Role, T)> {
    let mut pending = vec![Role::Targets];
    let mut visited = BTreeSet::new();
    while let Some(role) = pending.pop() {
        if !visited.insert(role.clone()) {
            continue;
        }
        if visited.len() > Limits::default().delegations + 1 {
            return None;
        }
        // Nodes fail at a role that is not there; so does this.
        let targets = targets_of(&role)?;
        if let Some(found) = answer(&role, targets) {
            return Some((role, found));
        }
        let Some(delegations) = &targets.delegations else { continue };
        let mut covering = delegations.covering(name);
        if let Some(last) = covering.iter().position(|delegated| delegated.terminating) {
            covering.truncate(last + 1);
            pending.clear();
        }
        pending.extend(covering.into_iter().rev().map(|delegated| delegated.role));
    }
    None
}
