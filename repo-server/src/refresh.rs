//! Renewing snapshot and timestamp with a key of the server's own (`--refresh-key`), for sites that
//! have no other machine that is always on.
//!
//! It is a trade, and the server says so in its log and in `/healthz`: whoever takes over a server
//! with this key can hold nodes back and offer them older *sets* of releases for as long as nobody
//! notices. They still cannot make nodes install anything, because a key that signs for root,
//! targets or a delegated role is refused. Without the key, a thief of the server can do none of it;
//! `signer refresh` from a timer elsewhere is the better place.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use formats::oci::RepositoryName;
use formats::reference::Reference;
use formats::tuf::{KeyId, Role, UnixTime};
use serde::Serialize;
use signer::commands::{self, Signing};
use signer::key::{self, KeyLocation, KeyStore, PASSPHRASE_FILE};
use signer::plan::{Expiry, period_of};
use signer::published;
use signer::repository::{Access, ClientOptions, open};
use signer::state::{State, delegators};

use crate::error::ServerError;
use crate::store::{Store, chain};

/// Which keys, for which directory.
#[derive(Debug, Clone)]
pub(crate) struct Refresher {
    dir: PathBuf,
    keys: Vec<PathBuf>,
}

/// What the server signs, as `/healthz` tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Signs {
    /// The TUF repository.
    repository: String,
    /// The keys it signs with.
    keyids: Vec<String>,
    /// Version of the timestamp it looked at or made last.
    timestamp: u64,
    /// Why it does not sign.
    error: Option<String>,
}

impl Refresher {
    /// Reads every key once, so that a wrong one is noticed at the start, and says what it means.
    pub(crate) fn new(dir: &Path, keys: &[PathBuf]) -> Result<Option<Self>, ServerError> {
        if keys.is_empty() {
            return Ok(None);
        }
        let refused = |why: String| ServerError::Config(format!("--refresh-key: {why}"));
        let mut keyids = Vec::new();
        for path in keys {
            let document = key::read(path).map_err(|error| refused(chain(&error)))?;
            // Nobody sits at a server to be asked.
            if document.is_sealed() && std::env::var_os(PASSPHRASE_FILE).is_none() {
                let text = format!("{} has a passphrase; set {PASSPHRASE_FILE}", path.display());
                return Err(refused(text));
            }
            let key = document.key().map_err(|error| refused(chain(&error)))?;
            keyids.push(key.id().to_string());
        }
        tracing::warn!(
            target: "refresh", keyids = keyids.join(","),
            "THIS SERVER HOLDS SIGNING KEYS: it renews snapshot and timestamp by itself, and \
             whoever takes it over can hold nodes back"
        );
        Ok(Some(Refresher { dir: dir.to_owned(), keys: keys.to_vec() }))
    }

    /// Renews what is past the half of its period, in every TUF repository there is. Blocks.
    pub(crate) fn turn(&self, store: &Store) -> Vec<Signs> {
        let names = store.repositories().into_iter().map(|(name, _)| name);
        let tuf = names.filter(|it| it.as_str() == "tuf" || it.as_str().ends_with("/tuf"));
        tuf.map(|name| self.one(&name)).collect()
    }

    fn one(&self, name: &RepositoryName) -> Signs {
        let mut signs =
            Signs { repository: name.to_string(), keyids: Vec::new(), timestamp: 0, error: None };
        if let Err(error) = self.renew(name, &mut signs) {
            signs.error = Some(error);
        }
        signs
    }

    fn renew(&self, name: &RepositoryName, signs: &mut Signs) -> Result<(), String> {
        let prefix = name.as_str().strip_suffix("tuf").unwrap_or_default();
        let namespace = prefix.strip_suffix('/').unwrap_or_default();
        let namespace = namespace.parse().map_err(|error| format!("{error}"))?;
        let reference = Reference::Layout { path: self.dir.clone(), namespace };
        let registry = open(&reference, Access::Write, &ClientOptions::default())
            .map_err(|error| chain(&error))?;
        // The server trusts what it serves no more and no less than that it hangs together.
        let found = published::load(registry.as_ref(), None).map_err(|error| chain(&error))?;
        let state = &found.state;
        signs.timestamp = state.timestamp.data.header.version;
        let mut keys = KeyStore::default();
        for path in &self.keys {
            keys.add_location(KeyLocation::File(path.clone())).map_err(|error| chain(&error))?;
        }
        let at_hand: Vec<KeyId> = keys.keys().map(formats::tuf::Key::id).collect();
        if let Some((role, keyid)) = offline(state).find(|(_, keyid)| at_hand.contains(keyid)) {
            return Err(format!(
                "key {keyid} signs for {role}: such a key does not belong on a server; take it \
                 away and have it revoked"
            ));
        }
        signs.keyids = at_hand.iter().map(KeyId::to_string).collect();
        let now = now();
        let trust_root = state.roots.values().next().cloned().unwrap_or_default();
        let mut signing = Signing::of(keys, trust_root);
        // A clock that is behind finds nothing due, and would be silent until it is too late.
        signing.check_clock(Some(state), None, now).map_err(|error| chain(&error))?;
        if !is_due(state, now) {
            return Ok(());
        }
        commands::refresh(registry.as_ref(), &mut signing, &Expiry::default(), now)
            .map_err(|error| chain(&error))?;
        signs.timestamp = signs.timestamp.saturating_add(1);
        let (repository, timestamp) = (&signs.repository, signs.timestamp);
        tracing::info!(target: "refresh", %repository, timestamp, "snapshot and timestamp renewed");
        Ok(())
    }
}

/// Tells the log what went wrong since last time.
pub(crate) fn tell(before: &[Signs], now: &[Signs]) {
    for it in now {
        let old = before.iter().find(|old| old.repository == it.repository);
        let news = old.is_none_or(|old| old.error != it.error);
        if let Some(error) = it.error.as_ref().filter(|_| news) {
            let repository = &it.repository;
            tracing::error!(target: "refresh", %repository, %error, "not renewed");
        }
    }
}

/// Whether snapshot or timestamp has less than half of its period left.
fn is_due(state: &State, now: UnixTime) -> bool {
    let timestamp = &state.timestamp.data;
    let snapshot = &state.snapshot.data;
    let roles = [
        (&timestamp.header, period_of(&timestamp.unknown)),
        (&snapshot.header, period_of(&snapshot.unknown)),
    ];
    roles.into_iter().any(|(header, period)| {
        let left = header.expires.secs().saturating_sub(now.secs());
        // A day is the shortest default; metadata of other tools does not say.
        let period = period.and_then(|period| i64::try_from(period).ok()).unwrap_or(86_400);
        left.saturating_mul(2) < period
    })
}

/// Every key that people sign with, and what for.
fn offline(state: &State) -> impl Iterator<Item = (Role, KeyId)> {
    let mut all = Vec::new();
    for role in [Role::Root, Role::Targets] {
        let keys = state.root.role(&role).map(|keys| keys.keyids.clone()).unwrap_or_default();
        all.extend(keys.into_iter().map(|keyid| (role.clone(), keyid)));
    }
    for role in state.delegated.keys() {
        let roles = state.targets_roles().map(|(role, signed)| (role, &signed.data));
        for (_, _, keys) in delegators(roles, role) {
            all.extend(keys.keyids.iter().map(|keyid| (role.clone(), *keyid)));
        }
    }
    all.into_iter()
}

fn now() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs());
    UnixTime::from_secs(i64::try_from(since).unwrap_or(i64::MAX))
}
