//! Drives the trust core against a source: files in, verified targets out.

use std::collections::BTreeMap;

use formats::channel::{CHANNEL_LIMIT, Channel};
use formats::digest::Sha256;
use formats::error_chain;
use formats::oci::Descriptor;
use formats::reason::{Exit, Reason};
use formats::release::{Summary, channel_of_target, channel_target_name, target_name};
use formats::similar::closest;
use formats::tuf::{BUILD_TIME, Envelope, Metadata as _, Role, Root, UnixTime};
use formats::version::Version;
use update_core::asking::Asking;
use update_core::chooser::Proof;
use update_core::trust::{
    Clock, Fetch, Limits, Refresh, Reply, SignedTarget, Step, Stored, TrustError, TrustedSet,
    Workflow,
};

use crate::error::AgentError;
use crate::source::{FetchError, Source, TufState};
use crate::state::{KnownState, MetadataVersions, Report, State, StateGuard};

/// The clock as the core wants it: `now` in Unix seconds.
pub fn clock(now: u64) -> Clock {
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    Clock { system: UnixTime::from_secs(now), build: BUILD_TIME }
}

/// 8 channels: a sentence, not a catalogue.
const LISTED: usize = 8;

/// Verified metadata and where its files come from.
pub struct Trusted<'a> {
    set: TrustedSet,
    files: Files<'a>,
    state: &'a State,
}

/// The files of the state a source offers; asked for again when they are needed after all.
struct Files<'a> {
    source: Option<&'a dyn Source>,
    listed: Option<BTreeMap<String, Descriptor>>,
}

/// A release as its signed target describes it.
#[derive(Debug, Clone)]
pub struct SignedRelease {
    /// SHA-256 of the release index.
    pub index: Sha256,
    /// Its length in bytes.
    pub length: u64,
    /// What the target says.
    pub summary: Summary,
}

impl Files<'_> {
    fn listed(&mut self) -> Result<&BTreeMap<String, Descriptor>, FetchError> {
        if self.listed.is_none() {
            let Some(source) = self.source else { return Ok(self.listed.insert(BTreeMap::new())) };
            self.listed = match source.tuf_state(None)? {
                TufState::Changed { files, .. } => Some(files),
                TufState::Unchanged => Some(BTreeMap::new()),
            };
        }
        Ok(self.listed.get_or_insert_default())
    }

    fn fetch(&mut self, name: &str, max: u64) -> Result<Reply, FetchError> {
        let Some(file) = self.listed()?.get(name).cloned() else { return Ok(Reply::NotFound) };
        if file.size > max {
            return Ok(Reply::TooLong);
        }
        match self.source {
            Some(source) => Ok(Reply::Bytes(source.tuf_file(&file, max)?)),
            None => Ok(Reply::NotFound),
        }
    }
}

/// The version of a trust root.
pub fn root_version(root: &[u8]) -> Result<u64, AgentError> {
    let root = Envelope::parse(root).and_then(|envelope| Root::parse(envelope.signed()));
    match root {
        Ok(root) => Ok(root.header().version),
        Err(error) => Err(AgentError::new(Reason::MetaFormat, error.to_string())),
    }
}

/// Refuses a trust root that is malformed or that its own keys did not sign.
pub fn check_root(root: &[u8], now: u64) -> Result<(), AgentError> {
    Refresh::begin(Stored::default(), root, clock(now), Limits::default())?;
    Ok(())
}

fn drive<W: Workflow>(
    workflow: &mut W,
    state: &State,
    held: &StateGuard,
    mut fetch: impl FnMut(&Fetch) -> Result<Reply, FetchError>,
) -> Result<W::Output, AgentError> {
    loop {
        match workflow.next()? {
            Step::Fetch(wanted) => {
                let reply = fetch(&wanted)?;
                workflow.respond(reply);
            }
            Step::Persist(stored) => state.save_trust(held, &stored)?,
            Step::Done(output) => return Ok(output),
        }
    }
}

/// Refreshes from the first source that has a verified, unexpired repository at `started`, the Unix
/// time of the attempt. A source that fails
/// or lies costs its own time, no more, and one that ended this program is asked last
/// ([`update_core::asking`]); the error of the first one is reported when none is good.
pub fn refresh<'a>(
    state: &'a State,
    held: &StateGuard,
    shipped_root: &[u8],
    sources: &'a [Box<dyn Source>],
    started: u64,
) -> Result<(Trusted<'a>, &'a dyn Source), AgentError> {
    // With one source there is no other order, and a poll writes nothing.
    let several = sources.len() > 1;
    let places: Vec<String> = sources.iter().map(|source| source.describe()).collect();
    let mut asking =
        if several { state.asking().resumed(&places, started) } else { Asking::default() };
    let order = asking.order(&places);
    let mut asked = |source: &'a dyn Source| -> Result<Trusted<'a>, AgentError> {
        if several {
            asking.ask(&source.describe());
            state.save_asking(held, &asking)?;
        }
        let answer = refresh_from(state, held, shipped_root, source, started);
        if several {
            asking.came_back();
            state.save_asking(held, &asking)?;
        }
        answer
    };
    let mut failed: Option<AgentError> = None;
    for source in order.iter().filter_map(|at| sources.get(*at)) {
        match asked(source.as_ref()) {
            Ok(trusted) => {
                // The one that would have been returned is told here.
                failed.iter().for_each(warn);
                return Ok((trusted, source.as_ref()));
            }
            // Our own state or clock is at fault: no other source would be better.
            Err(error)
                if error.reason().exit() == Exit::Config
                    || error.reason() == Reason::ClockUntrusted =>
            {
                return Err(error);
            }
            Err(error) => {
                let error = error.context(source.describe());
                // What a source lies about says more than that another is not there.
                let better = failed.as_ref().is_none_or(|known| {
                    known.reason().exit() == Exit::Transport
                        && error.reason().exit() != Exit::Transport
                });
                let told = if better { failed.replace(error) } else { Some(error) };
                if let Some(told) = told {
                    warn(&told);
                }
            }
        }
    }
    Err(failed.unwrap_or_else(|| {
        AgentError::new(Reason::Config, "no source is configured")
            .hint("add [[source]] to the configuration, or name a bundle: update-agent apply FILE")
    }))
}

fn warn(error: &AgentError) {
    tracing::warn!(code = error.reason().code(), "{}", error.chain());
}

fn refresh_from<'a>(
    state: &'a State,
    held: &StateGuard,
    shipped_root: &[u8],
    source: &'a dyn Source,
    started: u64,
) -> Result<Trusted<'a>, AgentError> {
    let stored = state.trust()?;
    let mut report = state.report();
    let place = source.describe();
    // A conditional answer is only good for the state it was given for: an older copy of the
    // record, read because the newer one is damaged, would stay old for as long.
    let known = report.etag.filter(|known| known.source == place && known.trusted == sum(&stored));
    let known = known.map(|known| known.etag);
    let unchanged = stored.clone();
    let mut refresh = Refresh::begin(stored, shipped_root, clock(started), Limits::default())?;
    let statement = statement_of(source);
    if let Some(statement) = &statement {
        refresh = refresh.with_offline(statement.clone());
    }
    let mut files = Files { source: Some(source), listed: None };
    let (set, etag) = match source.tuf_state(known.as_deref())? {
        TufState::Unchanged => {
            let same = |wanted: &Fetch| Ok(unchanged.as_unchanged_source(wanted));
            (drive(&mut refresh, state, held, same)?, known)
        }
        TufState::Changed { etag, files: listed } => {
            files.listed = Some(listed);
            let fetch = |wanted: &Fetch| files.fetch(&wanted.file_name, wanted.max_len);
            (drive(&mut refresh, state, held, fetch)?, etag)
        }
    };
    let trusted = sum(&state.trust()?);
    report.etag = etag.map(|etag| KnownState { source: place, etag, trusted });
    report.last_success = Some(started);
    report.metadata = Some(versions(&set));
    save_report_if_news(state, held, report)?;
    if set.offline_until().is_some() {
        state.save_offline_statement(held, statement.as_deref().unwrap_or_default())?;
    }
    Ok(Trusted { set, files, state })
}

/// The offline statement of a bundle. One that cannot be read is none: it is needed only when the
/// metadata has expired, and is missed then.
fn statement_of(source: &dyn Source) -> Option<Vec<u8>> {
    source.offline_statement().unwrap_or_else(|error| {
        let error = AgentError::from(error);
        tracing::warn!(code = error.reason().code(), "{}", error.chain());
        None
    })
}

/// SHA-256 of the metadata that a poll compares.
fn sum(stored: &Stored) -> Sha256 {
    let files = [&stored.timestamp, &stored.snapshot, &stored.targets];
    Sha256::of(&files.map(|file| file.as_deref().unwrap_or_default()).concat())
}

/// A poll that brought nothing new is not worth a write of flash every time.
fn save_report_if_news(state: &State, held: &StateGuard, report: Report) -> Result<(), AgentError> {
    const WORTH_A_WRITE: u64 = 3600;
    let known = state.report();
    let recent = known
        .last_success
        .zip(report.last_success)
        .is_some_and(|(then, now)| now.saturating_sub(then) < WORTH_A_WRITE);
    let same = Report { last_success: known.last_success, ..report.clone() } == known;
    if same && recent { Ok(()) } else { state.save_report(held, &report) }
}

/// What is trusted already, judged at the Unix time `started`; no source is asked.
pub fn offline<'a>(
    state: &'a State,
    held: &StateGuard,
    shipped_root: &[u8],
    started: u64,
) -> Result<Trusted<'a>, AgentError> {
    let stored: Stored = state.trust()?;
    let unchanged = stored.clone();
    let mut refresh = Refresh::begin(stored, shipped_root, clock(started), Limits::default())?;
    if let Some(statement) = state.offline_statement() {
        refresh = refresh.with_offline(statement);
    }
    let same = |wanted: &Fetch| Ok(unchanged.as_unchanged_source(wanted));
    let set = drive(&mut refresh, state, held, same)?;
    Ok(Trusted { set, files: Files { source: None, listed: None }, state })
}

fn versions(set: &TrustedSet) -> MetadataVersions {
    MetadataVersions {
        root: set.root().header().version,
        timestamp: set.timestamp().header().version,
        snapshot: set.snapshot().header().version,
        targets: set.targets().header().version,
        expires: set.first_expiry().1.secs(),
        offline: set.offline_until().map(UnixTime::secs),
    }
}

impl Trusted<'_> {
    /// The verified metadata.
    pub fn set(&self) -> &TrustedSet {
        &self.set
    }

    fn find(&mut self, held: &StateGuard, name: &str) -> Result<SignedTarget, AgentError> {
        let files = &mut self.files;
        let mut search = self.set.find_target(name)?;
        drive(&mut search, self.state, held, |wanted| {
            files.fetch(&wanted.file_name, wanted.max_len)
        })
    }

    /// The signed target of a release.
    pub fn release(
        &mut self,
        held: &StateGuard,
        product: &str,
        version: &Version,
    ) -> Result<SignedRelease, AgentError> {
        let name = target_name(product, version);
        let target = self.find(held, &name)?;
        let form =
            |why: String| AgentError::new(Reason::BundleFormat, format!("target {name}: {why}"));
        let custom =
            target.file().custom.as_ref().ok_or_else(|| form("it is no release".into()))?;
        let summary =
            Summary::parse_custom(&custom.to_bytes()).map_err(|error| form(error.to_string()))?;
        if summary.version != *version {
            return Err(form(format!("it says it is version {}", summary.version)));
        }
        let index = signed_sha256(&target)?;
        Ok(SignedRelease { index, length: target.file().length, summary })
    }

    /// The metadata that leads to this release from the root of version `from` on, or any newer one:
    /// what a verifying chooser walks again. Roots before the newest one are fetched, because they are
    /// not kept.
    ///
    /// Nothing here can tell whether those older than this node's own trust root are the
    /// repository's: the caller walks them.
    pub fn proof(&mut self, from: u64, version: &Version) -> Result<Proof, AgentError> {
        let (set, stored) = (&self.set, self.set.stored());
        let mut files = BTreeMap::new();
        let newest = set.root().header().version;
        let file_name = |role: &Role, version| set.root().file_name(role, version);
        let listed = stored.delegated.keys().filter_map(|name| {
            let role = Role::delegated(name).ok()?;
            let version = set.snapshot().role(&role)?.version;
            Some((role, version))
        });
        let top = [
            (Role::Root, newest),
            (Role::Timestamp, set.timestamp().header().version),
            (Role::Snapshot, set.snapshot().header().version),
            (Role::Targets, set.targets().header().version),
        ];
        for (role, version) in top.into_iter().chain(listed) {
            if let Some(bytes) = stored.file(&role) {
                files.insert(file_name(&role, version), bytes.to_vec());
            }
        }
        for number in from..newest {
            let name = file_name(&Role::Root, number);
            match self.files.fetch(&name, Limits::default().root_len)? {
                Reply::Bytes(bytes) => files.insert(name, bytes),
                _ => {
                    let text = format!("the repository does not serve {name} any more");
                    return Err(AgentError::new(Reason::TargetNotFound, text).hint(
                        "the chooser in the firmware may need it: let the repository serve all root \
                         versions, or set chooser.root to the firmware's own root.json",
                    ));
                }
            };
        }
        // A chooser has no statement: it judges by a time at which all of this was alive.
        Ok(Proof { known_time: self.set.last_alive(), version: version.clone(), files })
    }

    /// What may be meant by a channel that there is not: one of those that are signed, as far as the
    /// metadata at hand names them.
    fn channel_hint(&self, product: &str, channel: &str) -> String {
        let names = self.set.targets().targets.keys();
        let signed: Vec<&str> =
            names.filter_map(|name| channel_of_target(product, name)).take(LISTED).collect();
        let question = format!("is channel {channel:?} of product {product:?} published?");
        if signed.is_empty() {
            return question;
        }
        let listed = signed.join(", ");
        match closest(channel, signed.iter().copied()) {
            Some(meant) => {
                format!("{product} has {listed}: is node.channel = {meant:?} meant?")
            }
            None => format!("{question} {product} has {listed}"),
        }
    }

    /// The channel's document.
    pub fn channel(
        &mut self,
        held: &StateGuard,
        product: &str,
        channel: &str,
    ) -> Result<Channel, AgentError> {
        let name = channel_target_name(product, channel);
        let target = match self.find(held, &name) {
            Ok(target) => target,
            Err(error) if error.reason() == Reason::TargetNotFound => {
                return Err(error.hint(self.channel_hint(product, channel)));
            }
            Err(error) => return Err(error),
        };
        let hash = signed_sha256(&target)?;
        let length = target.file().length;
        let fits = |bytes: &[u8]| bytes.len() as u64 == length && Sha256::of(bytes) == hash;
        let kept = self.state.channel_document().filter(|bytes| fits(bytes));
        let bytes = match kept {
            Some(bytes) => bytes,
            None => {
                match self.files.fetch(&format!("targets/{name}"), length.min(CHANNEL_LIMIT))? {
                    Reply::Bytes(bytes) if fits(&bytes) => {
                        self.state.save_channel_document(held, &bytes)?;
                        bytes
                    }
                    Reply::Bytes(_) => {
                        let text = format!("{name} is not what was signed");
                        return Err(AgentError::new(Reason::HashMismatch, text));
                    }
                    Reply::TooLong => {
                        let text = format!("{name} is longer than signed");
                        return Err(AgentError::new(Reason::LengthMismatch, text));
                    }
                    Reply::NotFound => {
                        let text = match self.files.source {
                            Some(_) => {
                                format!("{name} is signed, but the repository does not serve it")
                            }
                            None => format!("{name} is signed, and was never fetched here"),
                        };
                        return Err(AgentError::new(Reason::TargetNotFound, text));
                    }
                }
            }
        };
        Channel::parse(&bytes, product, channel)
            .map_err(|error| AgentError::new(Reason::BundleFormat, error.to_string()))
    }
}

fn signed_sha256(target: &SignedTarget) -> Result<Sha256, AgentError> {
    target.file().hashes.as_sha256().ok_or_else(|| {
        let text = format!("target {} is not signed with a sha256", target.name());
        AgentError::new(Reason::MetaFormat, text)
    })
}

impl From<TrustError> for AgentError {
    fn from(error: TrustError) -> Self {
        let (reason, hint) = (error.reason(), error.hint());
        AgentError::new(reason, error_chain(&error)).hint(hint)
    }
}
