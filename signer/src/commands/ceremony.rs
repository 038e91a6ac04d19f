//! The way of every change: staged, signed, committed. In one run when all keys are at hand, in
//! files when they are not.

use std::path::{Path, PathBuf};

use formats::digest::Digest;
use formats::reason::Reason;
use formats::tuf::{Envelope, KeyId, Role, UnixTime};

use super::channel::ChannelPreview;
use super::files::{replace, write_new};
use super::stage::{StageReport, stage_report};
use super::{ROOT_FILE, time};
use crate::error::SignerError;
use crate::journal::{Event, Journal, Roles};
use crate::key::KeyStore;
use crate::plan::clock::{self, Evidence};
use crate::plan::{
    Change, Expiry, Finding, Level, PlanError, Proposal, UnsignedSnapshot, assemble, check_at_hand,
    check_online, decide, lint_change,
};
use crate::policy::Policy;
use crate::published::{self, LATEST, Published, PublishedError};
use crate::repository::{Beside, Registry, RegistryError};
use crate::shared;
use crate::signing::{finish, sign_payloads};
use crate::stage::{STAGE_LIMIT, Staged, StagedRelease};
use crate::state::State;
use crate::verify::read_release;

/// Times that a change is made again because snapshot and timestamp moved meanwhile: a timer and a
/// few people meet by chance, not for ever.
pub(super) const TRIES: u32 = 5;

/// A signer: keys, what they trust, what they remember, what they want.
#[derive(Debug, Default)]
pub struct Signing {
    /// Keys at hand.
    pub keys: KeyStore,
    /// The trust root; absent before the first repository.
    pub trust_root: Option<Vec<u8>>,
    /// Where the trust root lies, to go forward with the repository; absent: it stays.
    pub trust_root_file: Option<PathBuf>,
    /// What `signer.toml` says.
    pub policy: Policy,
    /// The log; absent in programs that keep their own.
    pub journal: Option<Journal>,
    /// Told what somebody should know before a key is used; absent: nobody is.
    pub tell: Option<fn(&Finding)>,
    /// The clock, for what is signed long after a command began; absent: its time stands still.
    pub clock: Option<fn() -> UnixTime>,
    /// Shows a channel as it would be signed, and says whether to go on; asked before a key is used.
    /// Absent: nobody looks. What is staged is shown by `sign`.
    pub preview: Option<fn(&ChannelPreview) -> bool>,
}

impl Signing {
    /// A signer of keys and a trust root, without log and policy.
    pub fn of(keys: KeyStore, trust_root: Vec<u8>) -> Self {
        Signing { keys, trust_root: Some(trust_root), ..Signing::default() }
    }

    /// The trust root, without which nothing that is there is signed upon.
    pub(super) fn root(&self) -> Result<&[u8], SignerError> {
        let missing = || {
            let folder = self.trust_root_file.as_deref().and_then(std::path::Path::parent);
            let text = match folder.filter(|folder| !folder.exists()) {
                Some(folder) => {
                    format!("there is no folder {}: name yours with --keys", folder.display())
                }
                None => format!(
                    "no trust root: give --root FILE, or put it as {ROOT_FILE} with the keys"
                ),
            };
            SignerError::NoTrustRoot(text)
        };
        self.trust_root.as_deref().ok_or_else(missing)
    }

    pub(super) fn record(&mut self, events: &[Event]) -> Result<(), SignerError> {
        match &mut self.journal {
            Some(journal) => Ok(journal.record(events)?),
            None => Ok(()),
        }
    }

    /// Refuses to sign with a clock that is behind what is known to have happened: by the build of
    /// this program, the log, what is published and what is staged. Says when it may be ahead.
    pub fn check_clock(
        &self,
        state: Option<&State>,
        staged: Option<&Proposal>,
        now: UnixTime,
    ) -> Result<(), SignerError> {
        let mut evidence = vec![Evidence::of_program()];
        if let Some(state) = state {
            evidence.extend(clock::evidence_of(state, &self.policy));
        }
        if let Some(proposal) = staged {
            evidence.extend(clock::evidence_of_staged(proposal, &self.policy));
        }
        if let Some(journal) = &self.journal {
            evidence.extend(journal.newest().map(|time| Evidence::of_log(journal.path(), time)));
        }
        clock::judge(&evidence, now)?;
        let finding = state.and_then(|state| clock::may_be_ahead(&evidence, state, now));
        if let (Some(finding), Some(tell)) = (finding, self.tell) {
            tell(&finding);
        }
        Ok(())
    }

    /// The time of a command that began at `begun`.
    pub(super) fn now(&self, begun: UnixTime) -> UnixTime {
        self.clock.map_or(begun, |clock| clock())
    }

    /// Periods as given, with those of `signer.toml` for the rest.
    pub(super) fn periods(&self, given: &Expiry) -> Result<Expiry, SignerError> {
        Ok(given.clone().within(&self.policy.expiry()?)?)
    }

    fn remembers(&self, repository: &str, state: &State, roles: Roles) -> Result<(), SignerError> {
        match &self.journal {
            Some(journal) => Ok(journal.check_published(repository, state, roles)?),
            None => Ok(()),
        }
    }

    /// Refuses to begin what the keys at hand could not finish: a change of these roles.
    pub(super) fn can_sign(&self, state: &State, role: &Role) -> Result<(), SignerError> {
        for role in [role, &Role::Snapshot, &Role::Timestamp] {
            check_at_hand(state, role, &self.keys.ids())?;
        }
        Ok(())
    }

    /// The newest state of a repository, verified, and not older than what was published from
    /// here.
    pub fn load(&self, registry: &dyn Registry) -> Result<Published, SignerError> {
        let published = published::load(registry, Some(self.root()?))?;
        self.remembers(&repository_name(registry), &published.state, Roles::All)?;
        Ok(published)
    }
}

/// A change that could not be decided without its release.
pub(super) struct Wanted<'a> {
    /// What changes.
    pub(super) change: Change,
    /// One line for people.
    pub(super) what: String,
    /// The release that was uploaded for it.
    pub(super) release: Option<StagedRelease>,
    /// How long signatures last.
    pub(super) expiry: &'a Expiry,
}

/// Where a change goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery<'a> {
    /// It is signed with the keys at hand and published.
    Publish,
    /// It is written to this new file, for others to sign.
    Stage(&'a Path),
    /// It is put into the repository under a name of its own, for others to sign.
    Share,
}

/// The state of which a change starts.
pub(super) struct Base {
    /// The state.
    pub(super) published: Published,
    /// Whether snapshot and timestamp go on after it, whatever is published now.
    pub(super) recovery: bool,
}

/// What became of a change.
pub(super) enum Outcome {
    /// The repository said so already.
    Unchanged(Box<Published>),
    /// It is published.
    Published(Box<Published>, Vec<Finding>),
    /// It waits for signatures.
    Staged(StageReport),
}

impl Base {
    /// What is published now.
    pub(super) fn latest(
        registry: &dyn Registry,
        signing: &Signing,
        now: UnixTime,
    ) -> Result<Self, SignerError> {
        let published = signing.load(registry)?;
        signing.check_clock(Some(&published.state), None, now)?;
        Ok(Base { published, recovery: false })
    }

    /// What is published now, or the last good state before an online key was stolen, by its tag.
    pub(super) fn load(
        registry: &dyn Registry,
        signing: &Signing,
        tag: Option<&str>,
        now: UnixTime,
    ) -> Result<Self, SignerError> {
        let Some(tag) = tag else { return Base::latest(registry, signing, now) };
        let found = published::fetch_tag(registry, &published::tag(tag)?)?;
        let nothing = || PublishedError::Nothing(format!("{} {tag}", registry.reference()));
        let found = found.ok_or_else(nothing)?;
        let state =
            State::verify(&found.files, Some(signing.root()?)).map_err(PublishedError::from)?;
        refuse_older_root(registry, signing, &state)?;
        signing.remembers(&repository_name(registry), &state, Roles::Offline)?;
        signing.check_clock(Some(&state), None, now)?;
        let published = Published { manifest: found.manifest, state };
        Ok(Base { published, recovery: true })
    }
}

/// A thief of the online keys cannot make roots, so every root there is counts.
fn refuse_older_root(
    registry: &dyn Registry,
    signing: &Signing,
    state: &State,
) -> Result<(), SignerError> {
    let Some(latest) = published::fetch(registry)? else { return Ok(()) };
    let Ok(root) = State::verify_roots(&latest.files, signing.root()?) else { return Ok(()) };
    let (found, published) = (state.root.header.version, root.header.version);
    if found < published {
        let why = "choose a state that has the newest root";
        return Err(PlanError::Discipline { role: Role::Root, found, published, why }.into());
    }
    Ok(())
}

/// Takes a change all the way that its delivery goes.
pub(super) fn apply(
    registry: &dyn Registry,
    signing: &mut Signing,
    base: Base,
    wanted: Wanted<'_>,
    delivery: Delivery<'_>,
    now: UnixTime,
) -> Result<Outcome, SignerError> {
    let Wanted { change, what, release, expiry } = wanted;
    let expiry = signing.periods(expiry)?;
    let before = &base.published.state;
    let Some(proposal) = decide(before, &change, &expiry, now)? else {
        return Ok(Outcome::Unchanged(Box::new(base.published)));
    };
    let mut staged = Staged {
        what,
        repository: repository_name(registry),
        state: Some(base.published.manifest.clone()),
        recovery: base.recovery,
        base: files_of(before),
        proposal,
        release,
        signatures: Default::default(),
    };
    let mut findings = lint(Some(before), &staged.proposal, &signing.policy, now)?;
    match delivery {
        Delivery::Stage(_) | Delivery::Share => {
            let path = deliver(registry, &mut staged, delivery)?;
            let (before, none) = (Some(before), Vec::new());
            Ok(Outcome::Staged(stage_report(&path, true, &staged, before, findings, none, now)?))
        }
        Delivery::Publish => {
            let preview = signing.preview.unwrap_or(|_| true);
            if !ChannelPreview::all(before, &staged.proposal, now).all(|one| preview(&one)) {
                return Err(SignerError::Declined);
            }
            check_memory(signing, &staged, Some(before))?;
            let by = sign_payloads(
                Some(before),
                &staged.proposal,
                &signing.keys,
                &mut staged.signatures,
            )?;
            let events = events(&staged, Some(before), &by, "publish", now)?;
            let (published, found) =
                finish_on_top(registry, signing, &staged, base, &events, &expiry, now)?;
            findings.extend(found);
            Ok(Outcome::Published(Box::new(published), findings))
        }
    }
}

/// Publishes what was signed on top of `base`, or of what only renewed its snapshot and timestamp
/// meanwhile: what people signed stays what it is then.
fn finish_on_top(
    registry: &dyn Registry,
    signing: &mut Signing,
    staged: &Staged,
    mut base: Base,
    signed: &[Event],
    expiry: &Expiry,
    begun: UnixTime,
) -> Result<(Published, Vec<Finding>), SignerError> {
    let (mut signed, mut now) = (signed, begun);
    for _ in 0..TRIES {
        let previous = previous(registry, &base)?;
        let before = Some(&base.published.state);
        let done = finish_staged(registry, signing, staged, before, previous, signed, expiry, now);
        let error = match done {
            Err(error) if is_moved(&error) && !base.recovery => error,
            done => return done,
        };
        // They are written down.
        signed = &[];
        now = signing.now(begun);
        let newer = Base::latest(registry, signing, now)?;
        if !newer.published.state.renews(&base.published.state) {
            return Err(error);
        }
        base = newer;
    }
    let (repository, tag) = (published::tuf_repository(registry)?, published::tag(LATEST)?);
    Err(RegistryError::Moved { repository, tag }.into())
}

/// Whether somebody else published between the last look and the tag.
pub(super) fn is_moved(error: &SignerError) -> bool {
    let moved = |error: &RegistryError| matches!(error, RegistryError::Moved { .. });
    match error {
        SignerError::Published(PublishedError::Registry(error)) | SignerError::Registry(error) => {
            moved(error)
        }
        _ => false,
    }
}

/// Takes a staged change to where others find it.
pub(super) fn deliver(
    registry: &dyn Registry,
    staged: &mut Staged,
    delivery: Delivery<'_>,
) -> Result<PathBuf, SignerError> {
    match delivery {
        Delivery::Stage(path) => {
            write_new(path, &staged.to_bytes())?;
            Ok(path.to_owned())
        }
        Delivery::Publish | Delivery::Share => shared::push(registry, staged),
    }
}

/// What `latest` must stand for when it moves.
fn previous(registry: &dyn Registry, base: &Base) -> Result<Option<Digest>, SignerError> {
    if !base.recovery {
        return Ok(Some(base.published.manifest.clone()));
    }
    // Whatever the thief put there; but not what came after this look.
    Ok(published::latest_digest(registry)?)
}

/// Thresholds, online signatures, upload, tag; then it is written down.
#[expect(clippy::too_many_arguments, reason = "the one place where all of them meet")]
pub(super) fn finish_staged(
    registry: &dyn Registry,
    signing: &mut Signing,
    staged: &Staged,
    before: Option<&State>,
    previous: Option<Digest>,
    signed: &[Event],
    expiry: &Expiry,
    now: UnixTime,
) -> Result<(Published, Vec<Finding>), SignerError> {
    staged.check_carried(before)?;
    let offline = assemble(before, &staged.proposal, &staged.signatures)?;
    let restart = staged.restart(before);
    let snapshot = UnsignedSnapshot::new(before, offline, &staged.proposal, expiry, restart, now);
    let state = finish(snapshot, &signing.keys)?;
    check_online(&state, &signing.policy, now)?;
    if staged.release.is_some() {
        check_uploaded(registry, &state, staged)?;
    }
    let mut all = signed.to_vec();
    all.extend(online_events(&state, "commit", &staged.what, now));
    signing.record(&all)?;
    let tag = staged.release.as_ref().map(StagedRelease::tag);
    let visible = published::publish(registry, previous.as_ref(), &state, tag.as_ref())?;
    let (repository, manifest) = (repository_name(registry), visible.manifest.to_string());
    let event = Event::published(&repository, &manifest, &state, restart.is_some(), now);
    signing.record(&[event.kept_as(visible.alias.as_str())])?;
    advance_trust_root(signing, &state)?;
    let found = visible.beside.iter().map(tag_taken).collect();
    Ok((Published { manifest: visible.manifest, state }, found))
}

/// What is said of a tag that stands for something else.
pub(super) fn tag_taken(beside: &Beside) -> Finding {
    let Beside { repository, taken, given } = beside;
    let text = format!(
        "{repository}:{taken} stands for what an interrupted run left, and the registry lets it not be \
         moved: this has the tag {given}"
    );
    Finding { level: Level::Warning, reason: Reason::HttpStatus, text }
}

/// A staged release whose blobs somebody removed meanwhile would be visible and broken.
fn check_uploaded(
    registry: &dyn Registry,
    state: &State,
    staged: &Staged,
) -> Result<(), SignerError> {
    let Some(release) = &staged.release else { return Ok(()) };
    let target = release.target();
    let releases = state.releases().map_err(PublishedError::from)?;
    let listed = releases.iter().find(|listed| listed.target == target);
    let listed = listed.ok_or(PlanError::NoRelease { target })?;
    let found = read_release(registry, state, listed)?;
    for component in &found.components {
        let manifest = &component.manifest;
        let deltas = manifest.deltas.iter().flat_map(|delta| [&delta.list, &delta.blob]);
        let blobs = std::iter::once(&manifest.chunks).chain(&manifest.images).chain(deltas);
        for blob in blobs {
            if !registry.has_blob(&found.repository, blob)? {
                let digest = blob.digest.clone();
                return Err(RegistryError::Missing { what: "blob", digest }.into());
            }
        }
    }
    Ok(())
}

/// The trust root with the keys goes forward with the roots it verified.
fn advance_trust_root(signing: &mut Signing, state: &State) -> Result<(), SignerError> {
    let Some(path) = &signing.trust_root_file else { return Ok(()) };
    let newest = state.roots.values().next_back().cloned().unwrap_or_default();
    if signing.trust_root.as_deref() != Some(newest.as_slice()) {
        replace(path, &newest, 0o644)?;
        signing.trust_root = Some(newest);
    }
    Ok(())
}

/// Findings that refuse, as an error; the others are said.
pub(super) fn lint(
    before: Option<&State>,
    proposal: &Proposal,
    policy: &Policy,
    now: UnixTime,
) -> Result<Vec<Finding>, SignerError> {
    let findings = lint_change(before, proposal, policy, now)?;
    match findings.iter().find(|finding| finding.level == Level::Refused) {
        Some(finding) => Err(PlanError::Lint(finding.clone()).into()),
        None => Ok(findings),
    }
}

/// Refuses to give a version a second content.
pub(super) fn check_memory(
    signing: &Signing,
    staged: &Staged,
    before: Option<&State>,
) -> Result<(), SignerError> {
    let Some(journal) = &signing.journal else { return Ok(()) };
    let identity = staged.identity(before)?;
    for (role, version, digest) in payload_ids(staged)? {
        journal.check_signing(&identity, &role, version, &digest)?;
    }
    Ok(())
}

pub(super) type PayloadId = (Role, u64, formats::digest::Sha256);

/// Role, version and digest of every payload.
pub(super) fn payload_ids(staged: &Staged) -> Result<Vec<PayloadId>, SignerError> {
    let mut ids = Vec::new();
    for payload in &staged.proposal.payloads {
        let version = payload.signed.get("version").and_then(|version| version.as_int());
        let version = version.and_then(|version| u64::try_from(version).ok()).unwrap_or(0);
        ids.push((payload.role.clone(), version, payload.digest()));
    }
    Ok(ids)
}

/// One event per signature that people's keys made.
pub(super) fn events(
    staged: &Staged,
    before: Option<&State>,
    signed: &[(Role, KeyId)],
    by: &str,
    now: UnixTime,
) -> Result<Vec<Event>, SignerError> {
    let identity = staged.identity(before)?;
    let ids = payload_ids(staged)?;
    let mut events = Vec::new();
    for (role, keyid) in signed {
        if let Some((_, version, digest)) = ids.iter().find(|(of, ..)| of == role) {
            let payload = (role, *version, digest);
            events.push(Event::signed(&identity, payload, keyid, by, &staged.what, now));
        }
    }
    Ok(events)
}

/// One event per signature under snapshot and timestamp.
pub(super) fn online_events(state: &State, by: &str, what: &str, now: UnixTime) -> Vec<Event> {
    let files = [
        (Role::Snapshot, state.snapshot.data.header.version, &state.snapshot.bytes),
        (Role::Timestamp, state.timestamp.data.header.version, &state.timestamp.bytes),
    ];
    let mut events = Vec::new();
    for (role, version, bytes) in files {
        let digest = crate::state::payload_digest(bytes);
        let envelope = Envelope::parse(bytes);
        for signature in envelope.iter().flat_map(|envelope| envelope.signatures()) {
            if let Ok(keyid) = signature.keyid.parse::<KeyId>() {
                let payload = (&role, version, &digest);
                events.push(Event::signed(&state.identity, payload, &keyid, by, what, now));
            }
        }
    }
    events
}

/// Reads staged changes: copies of one, whose signatures are put together. Those that are no files
/// but names are in the registry.
pub(super) fn read_staged(
    registry: Option<&dyn Registry>,
    paths: &[PathBuf],
) -> Result<Staged, SignerError> {
    let mut merged: Option<Staged> = None;
    for path in paths {
        let in_file = |source| SignerError::Stage { path: path.clone(), source };
        let staged = match registry.filter(|_| shared::is_name(path)) {
            Some(registry) => shared::fetch(registry, path)?,
            None => Staged::parse(&read_limited(path)?).map_err(in_file)?,
        };
        match &mut merged {
            None => merged = Some(staged),
            Some(first) => first.merge(staged, path).map_err(in_file)?,
        }
    }
    merged.ok_or_else(|| SignerError::Usage("give a staged change".to_owned()))
}

fn read_limited(path: &Path) -> Result<Vec<u8>, SignerError> {
    let failed = |source| SignerError::File { action: "read", path: path.to_owned(), source };
    let file = storage::open_input(path).map_err(|error| failed(error.into()))?;
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(file, STAGE_LIMIT), &mut bytes)
        .map_err(failed)?;
    Ok(bytes)
}

/// The repository's name in the log: two spellings of one directory are one name.
pub(super) fn repository_name(registry: &dyn Registry) -> String {
    use formats::reference::Reference;
    match registry.reference() {
        Reference::Layout { path, namespace } => {
            let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.clone());
            Reference::Layout { path, namespace: namespace.clone() }.to_string()
        }
        other => other.to_string(),
    }
}

pub(super) fn files_of(state: &State) -> std::collections::BTreeMap<String, Vec<u8>> {
    state.files().into_iter().map(|(name, bytes)| (name, bytes.to_vec())).collect()
}

/// When a state's timestamp ends, as reports write it.
pub(super) fn timestamp_expires(state: &State) -> String {
    time(state.timestamp.data.header.expires)
}
