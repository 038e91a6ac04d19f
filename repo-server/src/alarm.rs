//! Is the signer alive? A timestamp that is not renewed in time stops every node's updates, and a
//! server that says so before it expires gives somebody time to act (case 219).
//!
//! Nothing is verified here: nodes do that. A timestamp nobody can read is as stale as one gone by.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use formats::oci::{Manifest, RepositoryName, annotation};
use formats::tuf::UnixTime;
use serde::Deserialize;

use crate::route::Reference;
use crate::store::{Store, StoreError};

/// How fresh one TUF repository is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freshness {
    /// Its name.
    pub repository: String,
    /// The timestamp's version; 0 when it cannot be read.
    pub version: u64,
    /// When it expires; 1970 when it cannot be read.
    pub expires: UnixTime,
    /// What it is called now.
    pub state: State,
}

/// What a timestamp is at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It expires later than the alarm.
    Fresh,
    /// It expires soon.
    Late,
    /// Nodes refuse it.
    Expired,
}

impl Freshness {
    /// Whether somebody should look after the signer.
    pub fn is_stale(&self) -> bool {
        self.state != State::Fresh
    }
}

/// The timestamps of all TUF repositories at the time `now`. Blocks.
pub fn look(
    store: &Store,
    now: SystemTime,
    before: Duration,
) -> Result<Vec<Freshness>, StoreError> {
    store.refresh()?;
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs());
    let now = UnixTime::from_secs(i64::try_from(now).unwrap_or(i64::MAX));
    let before = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
    let repositories = store.repositories().into_iter().map(|(name, _)| name);
    let tuf = repositories.filter(|it| it.as_str() == "tuf" || it.as_str().ends_with("/tuf"));
    let mut found = Vec::new();
    for name in tuf {
        let Some((version, expires)) = timestamp(store, &name)? else { continue };
        let state = match expires {
            expires if expires <= now => State::Expired,
            expires if expires <= now.plus(before) => State::Late,
            _ => State::Fresh,
        };
        found.push(Freshness { repository: name.to_string(), version, expires, state });
    }
    Ok(found)
}

/// Version and expiry of what `latest` holds; `None` when there is no such tag.
fn timestamp(store: &Store, name: &RepositoryName) -> Result<Option<(u64, UnixTime)>, StoreError> {
    #[derive(Deserialize)]
    struct File {
        signed: Signed,
    }
    #[derive(Deserialize)]
    struct Signed {
        version: u64,
        expires: String,
    }
    let latest = Reference::Tag("latest".parse().expect("is a tag by the grammar"));
    let Some((digest, _)) = store.resolve(name, &latest)? else { return Ok(None) };
    let manifest = store.document(&digest)?.and_then(|bytes| Manifest::parse(&bytes).ok());
    let layers = manifest.map(|manifest| manifest.layers).unwrap_or_default();
    let timestamp = layers
        .iter()
        .find(|layer| layer.annotation(annotation::TUF_FILENAME) == Some("timestamp.json"));
    let bytes = match timestamp {
        Some(layer) => store.document(&layer.digest)?,
        None => None,
    };
    let file = bytes.and_then(|bytes| serde_json::from_slice::<File>(&bytes).ok());
    let read = file
        .and_then(|File { signed }| Some((signed.version, UnixTime::parse(&signed.expires).ok()?)));
    Ok(Some(read.unwrap_or((0, UnixTime::EPOCH))))
}

/// Tells the log what changed since last time.
pub(crate) fn tell(before: &[Freshness], now: &[Freshness]) {
    for it in now {
        let old = before.iter().find(|old| old.repository == it.repository);
        if old.map(|old| old.state) == Some(it.state) {
            continue;
        }
        let (repository, version, expires) = (&it.repository, it.version, it.expires);
        match it.state {
            State::Late => tracing::warn!(
                target: "alarm", %repository, version, %expires,
                "the TUF timestamp expires soon; is `signer refresh` running?"
            ),
            State::Expired => tracing::error!(
                target: "alarm", %repository, version, %expires,
                "the TUF timestamp has expired: nodes take no updates; run `signer refresh`"
            ),
            State::Fresh if old.is_some() => tracing::info!(
                target: "alarm", %repository, version, %expires, "the TUF timestamp is fresh again"
            ),
            State::Fresh => {}
        }
    }
}
