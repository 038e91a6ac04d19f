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

use std::collections::BTreeMap;

use formats::channel::{Channel, ChannelError};
use formats::reason::Reason;
use formats::release::{ReleaseError, Summary};
use formats::tuf::{
    DelegatedTo, Delegations, Envelope, Metadata, Role, Root, Snapshot, Targets, Timestamp,
    TufError,
};

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
        "the repository ends with root version {found}, the trust root is version {trusted}; it is older than what you trust"
    )]
    OlderRoot {
        /// The newest root in the repository.
        found: u64,
        /// The trust root's version.
        trusted: u64,
    },
    /// A delegated role that nobody delegates to.
    #[error("{0} is listed, but no role delegates to it")]
    Orphan(String),
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
            StateError::Missing(_) | StateError::Orphan(_) => Reason::BundleFormat,
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
}

/// All metadata of one repository at one moment, verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Every root in the repository by version, the newest last; contiguous.
    pub roots: BTreeMap<u64, Vec<u8>>,
    /// The newest root.
    pub root: Root,
    /// The timestamp.
    pub timestamp: Signed<Timestamp>,
    /// The snapshot it names.
    pub snapshot: Signed<Snapshot>,
    /// The top-level targets it names.
    pub targets: Signed<Targets>,
    /// Delegated targets by file name.
    pub delegated: BTreeMap<String, Vec<u8>>,
    /// Channel documents by target name, each with its parsed form.
    pub channels: BTreeMap<String, Signed<Channel>>,
}

/// A release as the signed targets list it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedRelease {
    /// The target's name.
    pub target: String,
    /// The product.
    pub product: String,
    /// What is said about it.
    pub summary: Summary,
}

impl State {
    /// Verifies the files of a repository, by TUF file name (`2.root.json`, `timestamp.json`, …)
    /// and `targets/…` for documents beside them.
    ///
    /// Without a trust root the oldest root of the repository is believed: then the result is
    /// only consistent in itself, and the caller must say so.
    pub fn verify(
        files: &BTreeMap<String, Vec<u8>>,
        trust_root: Option<&[u8]>,
    ) -> Result<Self, StateError> {
        let (roots, root) = verify_roots(files, trust_root)?;
        let file = Role::Timestamp.file_name(None);
        let bytes = find(files, &file)?;
        let timestamp: Signed<Timestamp> = verified(&root, &Role::Timestamp, &file, bytes)?;

        let listed = &timestamp.data.snapshot;
        let file = Role::Snapshot.file_name(Some(listed.version));
        let bytes = find(files, &file)?;
        listed.check(&file, bytes).map_err(untrusted(&file))?;
        let snapshot: Signed<Snapshot> = verified(&root, &Role::Snapshot, &file, bytes)?;
        check_version(&file, snapshot.data.header.version, listed.version)?;

        let missing = || StateError::Missing(Role::Targets.meta_name());
        let listed = snapshot.data.role(&Role::Targets).ok_or_else(missing)?;
        let file = Role::Targets.file_name(Some(listed.version));
        let bytes = find(files, &file)?;
        listed.check(&file, bytes).map_err(untrusted(&file))?;
        let targets: Signed<Targets> = verified(&root, &Role::Targets, &file, bytes)?;
        check_version(&file, targets.data.header.version, listed.version)?;

        let delegated = verify_delegated(files, &snapshot.data, &targets.data)?;
        let channels = verify_channels(files, &targets.data)?;
        Ok(State { roots, root, timestamp, snapshot, targets, delegated, channels })
    }

    /// The releases of all products in the order of their target names.
    pub fn releases(&self) -> Result<Vec<ListedRelease>, StateError> {
        let mut releases = Vec::new();
        for (target, file) in &self.targets.data.targets {
            let Some((product, version)) = target.split_once('/') else { continue };
            if version.contains('/') {
                continue;
            }
            let custom = file.custom.as_ref().map(|custom| custom.to_bytes()).unwrap_or_default();
            let summary = Summary::parse_custom(&custom)
                .map_err(|source| StateError::Release { target: target.clone(), source })?;
            releases.push(ListedRelease {
                target: target.clone(),
                product: product.to_owned(),
                summary,
            });
        }
        Ok(releases)
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
        let delegated = self.delegated.iter().map(|(name, bytes)| (name.clone(), bytes.as_slice()));
        let channels = self.channels.iter().map(|(target, channel)| {
            (format!("{DOCUMENT_PREFIX}{target}"), channel.bytes.as_slice())
        });
        roots.chain(top_level).chain(delegated).chain(channels).collect()
    }
}

/// `product` and `channel` of a channel's target name.
pub fn channel_of(target: &str) -> Option<(&str, &str)> {
    let (product, rest) = target.split_once("/channels/")?;
    Some((product, rest.strip_suffix(".json")?))
}

/// The newest root, reached from the trust root by every version in between.
fn verify_roots(
    files: &BTreeMap<String, Vec<u8>>,
    trust_root: Option<&[u8]>,
) -> Result<(BTreeMap<u64, Vec<u8>>, Root), StateError> {
    let mut roots: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for (name, bytes) in files {
        let version = name.strip_suffix(".root.json").and_then(|version| version.parse().ok());
        if let Some(version) =
            version.filter(|version| Role::Root.file_name(Some(*version)) == *name)
        {
            roots.insert(version, bytes.clone());
        }
    }
    let (oldest, newest) = match (roots.keys().next(), roots.keys().next_back()) {
        (Some(oldest), Some(newest)) => (*oldest, *newest),
        _ => return Err(StateError::Missing("1.root.json".to_owned())),
    };
    let name_of = |version: u64| Role::Root.file_name(Some(version));
    let (mut root, file) = match trust_root {
        Some(bytes) => (self_signed(bytes, "the trust root")?, "the trust root".to_owned()),
        None => {
            let bytes = roots.get(&oldest).map(Vec::as_slice).unwrap_or_default();
            (self_signed(bytes, &name_of(oldest))?, name_of(oldest))
        }
    };
    let trusted = root.header.version;
    if trust_root.is_none() {
        check_version(&file, trusted, oldest)?;
    }
    if trusted > newest {
        return Err(StateError::OlderRoot { found: newest, trusted });
    }
    // The same version with other bytes is another repository, however it was signed.
    if let (Some(given), Some(there)) = (trust_root, roots.get(&trusted))
        && given != there
    {
        return Err(StateError::OtherRoot { file: name_of(trusted) });
    }
    for version in trusted + 1..=newest {
        let file = name_of(version);
        let bytes = roots.get(&version).ok_or_else(|| StateError::Missing(file.clone()))?;
        // Signed by the keys before it and by its own (TUF §5.3.4).
        let next: Signed<Root> = verified(&root, &Role::Root, &file, bytes)?;
        self_signed(bytes, &file)?;
        check_version(&file, next.data.header.version, version)?;
        root = next.data;
    }
    for version in oldest..=newest {
        if !roots.contains_key(&version) {
            return Err(StateError::Missing(name_of(version)));
        }
    }
    Ok((roots, root))
}

/// A root that its own keys signed.
pub fn self_signed(bytes: &[u8], file: &str) -> Result<Root, StateError> {
    let envelope = Envelope::parse(bytes).map_err(untrusted(file))?;
    let root = Root::parse(envelope.signed()).map_err(untrusted(file))?;
    root.verify(&Role::Root, &envelope).map_err(untrusted(file))?;
    Ok(root)
}

fn verify_delegated(
    files: &BTreeMap<String, Vec<u8>>,
    snapshot: &Snapshot,
    targets: &Targets,
) -> Result<BTreeMap<String, Vec<u8>>, StateError> {
    let mut waiting: Vec<(Role, u64)> = Vec::new();
    for (name, listed) in &snapshot.meta {
        if let Some(role) = name.strip_suffix(".json").filter(|role| *role != "targets") {
            let role = Role::delegated(role).map_err(untrusted(name))?;
            waiting.push((role, listed.version));
        }
    }
    let mut delegators: Vec<Delegations> = targets.delegations.iter().cloned().collect();
    let mut delegated = BTreeMap::new();
    // Each round verifies at least one role or ends, so there are at most as many as roles.
    while !waiting.is_empty() {
        let mut left = Vec::new();
        let before = waiting.len();
        for (role, version) in waiting {
            let file = role.file_name(Some(version));
            let bytes = find(files, &file)?;
            if let Some(listed) = snapshot.role(&role) {
                listed.check(&file, bytes).map_err(untrusted(&file))?;
            }
            let envelope = Envelope::parse(bytes).map_err(untrusted(&file))?;
            if !delegators.iter().any(|by| vouches(by, &role, &envelope)) {
                left.push((role, version));
                continue;
            }
            let data = Targets::parse(envelope.signed()).map_err(untrusted(&file))?;
            check_version(&file, data.header.version, version)?;
            delegators.extend(data.delegations);
            delegated.insert(file, bytes.to_vec());
        }
        match left.first() {
            Some((role, version)) if left.len() == before => {
                return Err(StateError::Orphan(role.file_name(Some(*version))));
            }
            _ => waiting = left,
        }
    }
    Ok(delegated)
}

/// Whether enough keys that this delegator names for the role signed.
fn vouches(delegations: &Delegations, role: &Role, envelope: &Envelope) -> bool {
    let keys = match &delegations.to {
        DelegatedTo::Roles(roles) => {
            roles.iter().find(|named| named.role == *role).map(|named| &named.keys)
        }
        DelegatedTo::Succinct(bins) => {
            let is_bin = role
                .name()
                .strip_prefix(bins.name_prefix.as_str())
                .is_some_and(|rest| rest.starts_with('-'));
            is_bin.then_some(&bins.keys)
        }
    };
    keys.is_some_and(|keys| keys.verify(&delegations.keys, role, envelope).is_ok())
}

/// The channel documents that the top-level targets list.
fn verify_channels(
    files: &BTreeMap<String, Vec<u8>>,
    targets: &Targets,
) -> Result<BTreeMap<String, Signed<Channel>>, StateError> {
    let mut channels = BTreeMap::new();
    for (target, listed) in &targets.targets {
        let Some((product, channel)) = channel_of(target) else { continue };
        let file = format!("{DOCUMENT_PREFIX}{target}");
        let bytes = find(files, &file)?;
        listed.check(target, bytes).map_err(untrusted(&file))?;
        let data = Channel::parse(bytes, product, channel)
            .map_err(|source| StateError::Channel { target: target.clone(), source })?;
        channels.insert(target.clone(), Signed { data, bytes: bytes.to_vec() });
    }
    Ok(channels)
}

/// Metadata that enough keys of its role signed.
pub fn verified<T: Metadata>(
    root: &Root,
    role: &Role,
    file: &str,
    bytes: &[u8],
) -> Result<Signed<T>, StateError> {
    let envelope = Envelope::parse(bytes).map_err(untrusted(file))?;
    root.verify(role, &envelope).map_err(untrusted(file))?;
    let data = T::parse(envelope.signed()).map_err(untrusted(file))?;
    Ok(Signed { data, bytes: bytes.to_vec() })
}

fn find<'a>(files: &'a BTreeMap<String, Vec<u8>>, name: &str) -> Result<&'a [u8], StateError> {
    let bytes = files.get(name).ok_or_else(|| StateError::Missing(name.to_owned()))?;
    Ok(bytes)
}

fn check_version(file: &str, found: u64, expected: u64) -> Result<(), StateError> {
    if found == expected {
        Ok(())
    } else {
        Err(StateError::Version { file: file.to_owned(), found, expected })
    }
}

fn untrusted(file: &str) -> impl Fn(TufError) -> StateError + use<> {
    let file = file.to_owned();
    move |source| StateError::Untrusted { file: file.clone(), source }
}
