//! `prune`: releases that nobody needs are listed no more, and what only they and old states needed
//! goes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use formats::chunks::{ChunkList, LIST_LIMIT};
use formats::tuf::UnixTime;
use serde::Serialize;

use super::change::{self, ChangeOptions, ChangeReport};
use super::session::Base;
use super::{Answer, Delivery, Report, Signing, bytes, counted};
use crate::error::SignerError;
use crate::image::ImageError;
use crate::plan::{Change, Expiry, Retention, Unlisting, without_bases};
use crate::progress::Show;
use crate::published::PublishedError;
use crate::repository::Registry;
use crate::retention::{self, Retired};
use crate::state::State;
use crate::verify::read_release;

/// What is to go.
#[derive(Debug, Clone)]
pub struct PruneRequest {
    /// Which releases stay.
    pub unlisting: Unlisting,
    /// How many states stay, if not as `signer.toml` says.
    pub states: Option<Retention>,
    /// Blobs of a directory that nothing needs stay for so long after they were written.
    pub grace: Duration,
    /// Periods that are to change.
    pub expiry: Expiry,
}

/// What went.
#[derive(Debug, Serialize)]
pub struct PruneReport {
    /// The change that was published, if any.
    #[serde(flatten)]
    change: ChangeReport,
    /// Releases that are listed no more.
    unlisted: Vec<String>,
    removed: Retired,
}

impl Report for PruneReport {
    fn text(&self) -> String {
        let Retired { tags, blobs, bytes: size } = self.removed;
        let mut text = self.change.text();
        for target in &self.unlisted {
            text.push_str(&format!("\n  {target} is listed no more"));
        }
        let (tags, blobs) = (counted(tags, "tag"), counted(blobs, "blob"));
        text.push_str(&format!("\nremoved {tags} and {blobs} ({})", bytes(size)));
        text
    }

    fn example_keys(&self) -> bool {
        self.change.example_keys()
    }
}

/// Unlists releases as one signed change, and then removes what nothing needs any more.
///
/// The change comes first: cut off anywhere after it, less was removed, and the next run does the
/// rest. What could not be removed is a warning.
pub fn prune(
    registry: &dyn Registry,
    signing: &mut Signing,
    request: &PruneRequest,
    delivery: Delivery<'_>,
    now: UnixTime,
    show: Show,
) -> Result<Answer<PruneReport>, SignerError> {
    if let Some(states) = request.states {
        signing.policy.retention = states;
    }
    let before = Base::latest(registry, signing, now)?.published.state;
    let unlisted: Vec<String> = needless(registry, &before, request)?.into_iter().collect();
    let options = ChangeOptions { expiry: request.expiry.clone(), base: None };
    let change = Change::Unlist(unlisted.clone());
    let done = match change::change(registry, signing, &change, &options, delivery, now)? {
        Answer::Staged(report) => return Ok(Answer::Staged(report)),
        Answer::Described(report) => return Ok(Answer::Described(report)),
        Answer::Done(report) => report,
    };
    if delivery != Delivery::Publish {
        // There was nothing to stage, and whoever stages removes nothing.
        return Ok(Answer::Done(PruneReport {
            change: done,
            unlisted,
            removed: Retired::default(),
        }));
    }
    let now = signing.now(now);
    let state = signing.load(registry)?.state;
    let (rule, times) = (signing.policy.retention, (now, request.grace));
    let (removed, said) = retention::collect(registry, rule, &state, times, show);
    let mut change = done;
    change.published.warnings.extend(said);
    Ok(Answer::Done(PruneReport { change, unlisted, removed }))
}

/// Releases that may go, without those that deltas of others start from.
fn needless(
    registry: &dyn Registry,
    state: &State,
    request: &PruneRequest,
) -> Result<BTreeSet<String>, SignerError> {
    let releases = state.releases().map_err(PublishedError::from)?;
    let channels = state.channels.values().map(|signed| &signed.data);
    let gone = request.unlisting.of(&releases, channels);
    let mut starts = BTreeMap::new();
    let mut has_deltas = false;
    for listed in releases.iter().filter(|_| !gone.is_empty()) {
        if gone.contains(&listed.target) {
            continue;
        }
        let release = read_release(registry, state, listed)?;
        let deltas = release.components.iter().flat_map(|it| &it.manifest.deltas);
        let from: BTreeSet<String> = deltas.map(|delta| delta.from.to_hex()).collect();
        has_deltas |= !from.is_empty();
        starts.insert(listed.target.clone(), (BTreeSet::new(), from));
    }
    if !has_deltas {
        return Ok(gone);
    }
    for listed in releases.iter().filter(|listed| gone.contains(&listed.target)) {
        let release = read_release(registry, state, listed)?;
        let (mut images, mut from) = (BTreeSet::new(), BTreeSet::new());
        for manifest in release.components.iter().map(|it| &it.manifest) {
            let repository = &release.repository;
            let list = registry.blob(repository, &manifest.chunks, "chunk list", LIST_LIMIT)?;
            images.insert(ChunkList::parse(list).map_err(ImageError::from)?.image_id().to_hex());
            from.extend(manifest.deltas.iter().map(|delta| delta.from.to_hex()));
        }
        starts.insert(listed.target.clone(), (images, from));
    }
    Ok(without_bases(gone, &starts))
}
