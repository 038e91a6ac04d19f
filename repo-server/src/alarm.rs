//! Is the signer alive? A timestamp that is not renewed in time stops every node's updates, and a
//! server that says so before it expires gives somebody time to act (case 219).
//!
//! One repository is watched: the one that `/metadata` shows. With a root of the operator's, only
//! what verifies from it counts, so that no client that may push can silence the alarm. Without one, the
//! alarm reports what was pushed, and that it is not verified. A timestamp that cannot be read is as
//! stale as an expired one.

use std::time::Duration;

use formats::oci::{Manifest, RepositoryName, annotation};
use formats::tuf::UnixTime;
use serde::Deserialize;

use crate::anchor::{self, Anchor, Refused};
use crate::store::{Store, StoreError};
use crate::tuf_tree::TufTree;

/// How fresh one TUF repository is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Freshness {
    /// Its name.
    pub repository: String,
    /// The timestamp's version; 0 when it cannot be read or is not believed.
    pub version: u64,
    /// When it expires; 1970 when it cannot be read or is not believed.
    pub expires: UnixTime,
    /// What it is called now.
    pub state: TimestampState,
    /// Whether it was verified from a root of the operator's.
    pub verified: bool,
    /// Why it is not believed.
    pub error: Option<String>,
}

/// What a timestamp is at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimestampState {
    /// It expires later than the alarm.
    Fresh,
    /// It expires soon.
    Late,
    /// Nodes refuse it.
    Expired,
}

impl Freshness {
    /// Whether somebody should look after the signer.
    pub(crate) fn is_stale(&self) -> bool {
        self.state != TimestampState::Fresh
    }
}

/// The timestamp of the repository that `tuf` shows, at the time `now`; empty when there is none.
/// Blocks.
pub(crate) fn freshness(
    store: &Store,
    tuf: &TufTree,
    anchor: Option<&Anchor>,
    now: UnixTime,
    before: Duration,
) -> Result<Vec<Freshness>, StoreError> {
    store.refresh()?;
    let Ok(Some(name)) = tuf.repository(store) else { return Ok(Vec::new()) };
    let (found, error) = match anchor {
        Some(anchor) => match anchor.load(store, &name) {
            Ok(found) => {
                let header = found.state.timestamp.data.header;
                (Some((header.version, header.expires)), None)
            }
            Err(Refused { text, .. }) => (Some((0, UnixTime::EPOCH)), Some(text)),
        },
        None => (timestamp(store, &name)?, None),
    };
    let Some((version, expires)) = found else { return Ok(Vec::new()) };
    let verified = anchor.is_some() && error.is_none();
    let state = state_at(expires, now, before);
    let repository = name.to_string();
    Ok(vec![Freshness { repository, version, expires, state, verified, error }])
}

fn state_at(expires: UnixTime, now: UnixTime, before: Duration) -> TimestampState {
    let before = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
    match expires {
        expires if expires <= now => TimestampState::Expired,
        expires if expires <= now.plus(before) => TimestampState::Late,
        _ => TimestampState::Fresh,
    }
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
    let Some(digest) = anchor::newest(store, name)? else { return Ok(None) };
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
pub(crate) fn log_changes(before: &[Freshness], now: &[Freshness]) {
    for it in now {
        let old = before.iter().find(|old| old.repository == it.repository);
        if old.is_some_and(|old| (old.state, &old.error) == (it.state, &it.error)) {
            continue;
        }
        let (repository, version, expires, verified) =
            (&it.repository, it.version, it.expires, it.verified);
        if let Some(error) = &it.error {
            tracing::error!(
                target: "alarm", %repository, %error,
                "the TUF state does not verify from --refresh-root: nodes refuse it"
            );
            continue;
        }
        match it.state {
            TimestampState::Late => tracing::warn!(
                target: "alarm", %repository, version, %expires, verified,
                "the TUF timestamp expires soon; is `signer refresh` running?"
            ),
            TimestampState::Expired => tracing::error!(
                target: "alarm", %repository, version, %expires, verified,
                "the TUF timestamp has expired: nodes take no updates; run `signer refresh`"
            ),
            TimestampState::Fresh if old.is_some() => tracing::info!(
                target: "alarm", %repository, version, %expires, verified,
                "the TUF timestamp is fresh again"
            ),
            TimestampState::Fresh => {}
        }
    }
}
