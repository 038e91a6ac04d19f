//! `init`: keys, a trust root and a first repository.

use std::io::Write;
use std::path::{Path, PathBuf};

use formats::tuf::{Key, KeyId, Role, RoleKeys, TopLevelKeys, UnixTime};
use serde::Serialize;

use super::{Protect, ROOT_FILE, Report, has_example_key, read_trust_root, time};
use crate::error::SignerError;
use crate::key::{self, KeyLocation, KeyStore, SECRET_ENDING, SecretKey};
use crate::plan::{Expiry, first_root, first_state};
use crate::published::{LATEST, publish, tag, tuf_repository};
use crate::repository::Registry;

/// What a first repository is made of.
#[derive(Debug, Clone, Default)]
pub struct InitRequest {
    /// Where the keys are, or will be.
    pub keys: PathBuf,
    /// How many root keys must sign.
    pub root_threshold: u32,
    /// Public keys of the root role; empty: one new key.
    pub root_keys: Vec<PathBuf>,
    /// How long signatures last.
    pub expiry: Expiry,
    /// Whether new root and targets keys get a passphrase. Snapshot and timestamp never do: a
    /// machine signs with them.
    pub passphrase: bool,
}

/// What was made.
#[derive(Debug, Serialize)]
pub struct InitReport {
    repository: String,
    trust_root: PathBuf,
    root_keys: Vec<String>,
    root_threshold: u32,
    root_expires: String,
    timestamp_expires: String,
    example_keys: bool,
}

impl Report for InitReport {
    fn text(&self) -> String {
        format!(
            "repository {}\ntrust root {} (root: {} of {} keys, expires {})\n\
             the timestamp expires {}: renew it with `signer refresh`\n\
             copy {} to every node; keep the *.key files safe, root.key offline",
            self.repository,
            self.trust_root.display(),
            self.root_threshold,
            self.root_keys.len(),
            self.root_expires,
            self.timestamp_expires,
            self.trust_root.display(),
        )
    }

    fn example_keys(&self) -> bool {
        self.example_keys
    }
}

/// Makes what is missing: keys, then the trust root, then the repository.
///
/// Interrupted anywhere, it goes on where it stopped when it is run again: keys and a trust root
/// that are there are used, never replaced. A repository that is there is refused.
pub fn init(
    registry: &dyn Registry,
    request: &InitRequest,
    now: UnixTime,
) -> Result<InitReport, SignerError> {
    let repository = tuf_repository(registry)?;
    if registry.tagged(&repository, &tag(LATEST)?)?.is_some() {
        let text = format!("{} holds a repository already", registry.reference());
        return Err(SignerError::Exists(text));
    }
    let (roles, public, store) = gather_keys(request)?;
    let path = request.keys.join(ROOT_FILE);
    let root = if path.exists() {
        read_trust_root(&path)?
    } else {
        let root = first_root(roles, public, &store, &request.expiry, now)?;
        write_new(&path, &root)?;
        root
    };
    let state = first_state(&root, &store, &request.expiry, now)?;
    publish(registry, None, &state, None)?;
    let root_keys = state.root.root_key_ids().iter().map(KeyId::to_string).collect();
    Ok(InitReport {
        repository: registry.reference().to_string(),
        trust_root: path,
        root_keys,
        root_threshold: state.root.role(&Role::Root).map_or(0, |role| role.threshold),
        root_expires: time(state.root.header.expires),
        timestamp_expires: time(state.timestamp.data.header.expires),
        example_keys: has_example_key(&state.root),
    })
}

/// Who may sign for what, the public keys, and the secret ones at hand.
fn gather_keys(request: &InitRequest) -> Result<(TopLevelKeys, Vec<Key>, KeyStore), SignerError> {
    let offline = if request.passphrase { Protect::Passphrase } else { Protect::IfConfigured };
    let [timestamp, snapshot, targets] = ["timestamp", "snapshot", "targets"];
    for name in [targets, snapshot, timestamp] {
        let protect = if name == targets { offline } else { Protect::Never };
        create_if_missing(&request.keys, name, protect)?;
    }
    let mut root_keys = Vec::new();
    if request.root_keys.is_empty() {
        create_if_missing(&request.keys, "root", offline)?;
        root_keys.push(public_of(&request.keys, "root")?);
    }
    let mut store = KeyStore::open(&request.keys)?;
    for path in &request.root_keys {
        let key = key::read_public(path)?;
        // The secret half may lie beside it, on the medium its owner brought.
        let secret = path.with_extension(SECRET_ENDING);
        if store.find(&key.id()).is_none() && secret.exists() {
            store.add_location(KeyLocation::File(secret))?;
        }
        root_keys.push(key);
    }
    let threshold = request.root_threshold;
    if threshold == 0 || threshold as usize > root_keys.len() {
        let text = format!("{threshold} of {} root keys is no threshold", root_keys.len());
        return Err(SignerError::Usage(text));
    }
    if (1..root_keys.len()).any(|i| root_keys[..i].iter().any(|key| *key == root_keys[i])) {
        return Err(SignerError::Usage("a root key is given twice".to_owned()));
    }
    let one = |key: &Key| RoleKeys::new(1, [key.id()]);
    let (targets, snapshot, timestamp) = (
        public_of(&request.keys, targets)?,
        public_of(&request.keys, snapshot)?,
        public_of(&request.keys, timestamp)?,
    );
    let roles = TopLevelKeys {
        root: RoleKeys::new(threshold, root_keys.iter().map(Key::id)),
        timestamp: one(&timestamp),
        snapshot: one(&snapshot),
        targets: one(&targets),
    };
    root_keys.extend([targets, snapshot, timestamp]);
    Ok((roles, root_keys, store))
}

fn create_if_missing(directory: &Path, name: &str, protect: Protect) -> Result<(), SignerError> {
    if !directory.join(name).with_extension(SECRET_ENDING).exists() {
        super::key::create(directory, name, &SecretKey::generate()?, protect)?;
    }
    Ok(())
}

/// From the key file, so that a public file that was exchanged changes nothing; what it signs is
/// verified, so neither does a public half that was exchanged in an encrypted one.
fn public_of(directory: &Path, name: &str) -> Result<Key, SignerError> {
    let document = key::read(&directory.join(name).with_extension(SECRET_ENDING))?;
    Ok(document.key()?)
}

/// A file that appears whole, durable, and never replaces another.
fn write_new(path: &Path, bytes: &[u8]) -> Result<(), SignerError> {
    let failed = |source| SignerError::File { action: "write", path: path.to_owned(), source };
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(directory)
        .map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    file.persist_noclobber(path).map_err(|error| failed(error.error))?;
    std::fs::File::open(directory).and_then(|dir| dir.sync_all()).map_err(failed)
}
