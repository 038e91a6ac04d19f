//! Old states of a repository go when a new one is public, so that neither `index.json` nor the
//! number of blobs grows for ever. Which ones is decided in [`crate::plan::retention`].
//!
//! ```text
//!  new state public ─► list tags ─► old ones removed, durably ─► oci: their blobs, where nothing else
//!                                                                     needs them
//! ```
//!
//! Nothing here fails a publication: what could not be removed is a warning, and the next run goes on.
//! A cut between the two steps leaves blobs that `signer prune` removes. Only what the removed tags led
//! to is looked at. What somebody uploaded and has not tagged, as a staged release that waits for
//! signatures, is none of that.

mod releases;

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use formats::digest::Digest;
use formats::oci::{References, RepositoryName};
use formats::tuf::UnixTime;
use serde::Serialize;
use storage::layout::{LayoutError, Sweep, Swept};

use crate::plan::{Finding, Level, Retention};
use crate::progress::Show;
use crate::published::{self, PublishedError, ReleaseTag, Visible, tuf_repository};
use crate::repository::{Listed, Registry, RegistryError};
use crate::shared;
use crate::state::State;

/// Fewer are left until there are more: then a run in 32 pays for looking.
pub const AT_LEAST: usize = 32;

/// Tags removed in one run in a directory, where that is one step.
pub const AT_MOST: usize = 1000;

/// Tags removed in one run at a registry, where each is a request.
pub const AT_MOST_REMOTE: usize = 100;

/// An hour. Whoever publishes stores the small files of a state, or makes them young again, and tags
/// it within seconds; images are not looked at.
pub const GRACE: Duration = Duration::from_secs(3600);

/// What was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Retired {
    /// Tags.
    pub tags: u64,
    /// Blobs of a directory.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Removes states that are old now that `newest` is the newest timestamp version, and says what it
/// could not.
pub fn retire(
    registry: &dyn Registry,
    retention: Retention,
    newest: u64,
    now: UnixTime,
) -> (Retired, Option<Finding>) {
    let mut retired = Retired::default();
    let failed = match try_retire(registry, retention, newest, now, &mut retired) {
        Ok(stopped) => stopped,
        Err(error) => Some(error),
    };
    (retired, failed.map(|error| finding("old states", &error)))
}

/// Removes all that is old: states, the tags of releases that no state lists any more whose content is
/// kept, their blobs, and of a directory every other blob that nothing needs and that was last
/// written before the grace period.
pub fn collect(
    registry: &dyn Registry,
    retention: Retention,
    state: &State,
    (now, grace): (UnixTime, Duration),
    show: Show,
) -> (Retired, Vec<Finding>) {
    let mut retired = Retired::default();
    let mut said = Vec::new();
    let mut steps: [(&str, &mut Step<'_>); 3] = [
        ("old states", &mut |retired| all_states(registry, retention, state, now, retired)),
        ("tags of old releases", &mut |retired| {
            let before = before(now, grace.min(GRACE));
            let (blobs, stopped) =
                releases::remove(registry, retention, state, (before, show), retired)?;
            sweep(registry, Some(&blobs), state, before, retired)?;
            Ok(stopped)
        }),
        ("blobs that nothing needs", &mut |retired| {
            sweep(registry, None, state, before(now, grace), retired)?;
            Ok(None)
        }),
    ];
    for (what, step) in &mut steps {
        match step(&mut retired) {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => {
                said.push(finding(what, &error));
                break;
            }
        }
    }
    (retired, said)
}

/// One step of a collection; what ended it early, if anything.
type Step<'a> = dyn FnMut(&mut Retired) -> Result<Option<RegistryError>, RegistryError> + 'a;

/// Every state that is old, however many there are.
fn all_states(
    registry: &dyn Registry,
    retention: Retention,
    state: &State,
    now: UnixTime,
    retired: &mut Retired,
) -> Result<Option<RegistryError>, RegistryError> {
    let repository = tuf_repository(registry)?;
    let newest = state.timestamp.data.header.version;
    let old = retention.old(newest, registry.tags(&repository)?, |listed| listed.tag.as_str());
    for some in old.chunks(AT_MOST) {
        let stopped = remove_states(registry, &repository, some, before(now, GRACE), retired)?;
        if stopped.is_some() {
            return Ok(stopped);
        }
    }
    Ok(None)
}

/// Removes blobs of a directory that neither a tag needs nor a release that is listed, or that comes
/// with a change which waits in the repository for signatures.
fn sweep(
    registry: &dyn Registry,
    among: Option<&BTreeSet<Digest>>,
    state: &State,
    before: SystemTime,
    retired: &mut Retired,
) -> Result<(), RegistryError> {
    let listed = state.targets_roles().flat_map(|(_, signed)| signed.data.targets.values());
    let mut keep: Vec<Digest> =
        listed.filter_map(|file| file.hashes.as_sha256().map(Digest::Sha256)).collect();
    keep.extend(shared::releases(registry)?);
    let sweep = Sweep { among, keep: &keep, before };
    let Swept { blobs, bytes, .. } = registry.sweep(&sweep)?.unwrap_or_default();
    (retired.blobs, retired.bytes) = (retired.blobs + blobs, retired.bytes + bytes);
    Ok(())
}

/// As [`published::publish`], once more when there is no room for another tag before old states went:
/// a repository that filled up before anybody removed them comes to life again by itself.
pub fn publish(
    registry: &dyn Registry,
    (retention, now): (Retention, UnixTime),
    previous: Option<&Digest>,
    state: &State,
    release: Option<&ReleaseTag>,
) -> Result<Visible, PublishedError> {
    let error = match published::publish(registry, previous, state, release) {
        Err(error) if is_full(&error) => error,
        done => return done,
    };
    let newest = state.timestamp.data.header.version;
    match retire(registry, retention, newest, now).0.tags {
        0 => Err(error),
        _ => published::publish(registry, previous, state, release),
    }
}

/// Whether there is no room for another tag.
fn is_full(error: &PublishedError) -> bool {
    match error {
        PublishedError::Registry(error) => matches!(
            error,
            RegistryError::Layout(LayoutError::IndexTooLarge(_)) | RegistryError::Full { .. }
        ),
        _ => false,
    }
}

/// What ended it early, if anything: then `retired` is what was removed until there.
fn try_retire(
    registry: &dyn Registry,
    retention: Retention,
    newest: u64,
    now: UnixTime,
    retired: &mut Retired,
) -> Result<Option<RegistryError>, RegistryError> {
    // Nothing is asked of anybody as long as nothing can be old.
    if retention.at_most_removable(newest) < AT_LEAST as u64 {
        return Ok(None);
    }
    let repository = tuf_repository(registry)?;
    let mut old = retention.old(newest, registry.tags(&repository)?, |listed| listed.tag.as_str());
    if old.len() < AT_LEAST {
        return Ok(None);
    }
    old.truncate(if registry.layout().is_some() { AT_MOST } else { AT_MOST_REMOTE });
    remove_states(registry, &repository, &old, before(now, GRACE), retired)
}

/// Removes tags of states, and then the blobs of these states.
fn remove_states(
    registry: &dyn Registry,
    repository: &RepositoryName,
    old: &[Listed],
    before: SystemTime,
    retired: &mut Retired,
) -> Result<Option<RegistryError>, RegistryError> {
    let blobs = match registry.layout() {
        Some(_) => blobs_of(registry, repository, old)?,
        None => BTreeSet::new(),
    };
    let removal = registry.remove_tags(repository, old)?;
    retired.tags += removal.removed;
    if removal.removed > 0 {
        let sweep = Sweep { among: Some(&blobs), keep: &[], before };
        let Swept { blobs, bytes, .. } = registry.sweep(&sweep)?.unwrap_or_default();
        (retired.blobs, retired.bytes) = (retired.blobs + blobs, retired.bytes + bytes);
    }
    Ok(removal.stopped)
}

/// The manifests of some tags and what they refer to. One that cannot be read any more has no say.
fn blobs_of(
    registry: &dyn Registry,
    repository: &RepositoryName,
    tags: &[Listed],
) -> Result<BTreeSet<Digest>, RegistryError> {
    let mut blobs = BTreeSet::new();
    for digest in tags.iter().filter_map(|listed| listed.manifest.as_ref()) {
        let Ok(bytes) = registry.manifest(repository, digest) else { continue };
        blobs.insert(digest.clone());
        blobs.extend(References::parse(&bytes).map(|it| it.blobs).unwrap_or_default());
    }
    Ok(blobs)
}

/// The moment that lies a grace period before now.
fn before(now: UnixTime, grace: Duration) -> SystemTime {
    let now = Duration::from_secs(u64::try_from(now.secs()).unwrap_or_default());
    UNIX_EPOCH + now.saturating_sub(grace)
}

/// What is said of something that was not removed.
fn finding(what: &str, error: &RegistryError) -> Finding {
    let hint = match error {
        RegistryError::KeepsTags { .. } => {
            "; allow it (repo-server: --allow-delete and a push token that may delete), or have old \
             tags ts-N removed there, before there is no room for new ones"
        }
        _ => "; the next change or refresh tries again",
    };
    let text = format!(
        "what was published is public, but {what} were not removed: {}{hint}",
        formats::error_chain(error)
    );
    Finding { level: Level::Warning, reason: error.reason(), text }
}
