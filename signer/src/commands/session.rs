//! One change on its way: decided, signed, published or staged.

use std::path::Path;

use formats::digest::Digest;
use formats::reason::Reason;
use formats::tuf::{Role, UnixTime};

use super::Signing;
use super::ceremony::{check_memory, events, files_of, lint, online_events, repository_name};
use super::channel::ChannelPreview;
use super::dry_run::DryRunReport;
use super::files::write_new;
use super::stage::{StageReport, stage_report};
use crate::error::SignerError;
use crate::journal::{Event, Roles};
use crate::plan::{
    Change, Expiry, Finding, Level, PlanError, UnsignedSnapshot, assemble, check_online, decide,
};
use crate::published::{self, LATEST, Published, PublishedError};
use crate::repository::{Beside, Registry, RegistryError};
use crate::signing::{finish, sign_payloads};
use crate::stage::{Staged, StagedRelease};
use crate::state::State;
use crate::verify::read_release;
use crate::{retention, shared};

/// Times that a change is made again because snapshot and timestamp moved meanwhile. A timer and a
/// few people meet by chance; a registry that always says "moved" must end.
pub(super) const TRIES: u32 = 5;

/// Where a change goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery<'a> {
    /// It is signed with the keys at hand and published.
    Publish,
    /// It is written to this new file, for others to sign.
    Stage(&'a Path),
    /// It is put into the repository under a name of its own, for others to sign.
    Share,
    /// It is described, and nothing is signed, uploaded or written.
    DryRun,
}

/// What every step of a change needs.
pub(super) struct Session<'a> {
    pub(super) registry: &'a dyn Registry,
    pub(super) signing: &'a mut Signing,
    pub(super) delivery: Delivery<'a>,
    /// When the change began, or its last attempt.
    pub(super) now: UnixTime,
}

/// What a change is to do, when its release, if it has one, is uploaded.
pub(super) struct PlannedChange<'a> {
    /// What changes.
    pub(super) change: Change,
    /// The release that was uploaded for it.
    pub(super) release: Option<StagedRelease>,
    /// How long signatures last.
    pub(super) expiry: &'a Expiry,
}

/// The state that a change starts from.
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
    /// It is described only.
    Described(Box<DryRunReport>),
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

    /// What `latest` must stand for when it moves.
    fn previous(&self, registry: &dyn Registry) -> Result<Option<Digest>, SignerError> {
        if !self.recovery {
            return Ok(Some(self.published.manifest.clone()));
        }
        // Whatever the thief put there; but not what came after this look.
        Ok(published::latest_digest(registry)?)
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

impl Session<'_> {
    /// What is published now.
    pub(super) fn latest(&self) -> Result<Base, SignerError> {
        Base::latest(self.registry, self.signing, self.now)
    }

    /// Takes a change all the way that its delivery goes.
    pub(super) fn apply(
        mut self,
        base: Base,
        planned: PlannedChange<'_>,
    ) -> Result<Outcome, SignerError> {
        let PlannedChange { change, release, expiry } = planned;
        let expiry = self.signing.periods(expiry)?;
        let before = &base.published.state;
        let Some(proposal) = decide(before, &change, &expiry, self.now)? else {
            if self.delivery == Delivery::DryRun {
                let nothing = DryRunReport::of_nothing(before, change.describe());
                return Ok(Outcome::Described(Box::new(nothing)));
            }
            return Ok(Outcome::Unchanged(Box::new(base.published)));
        };
        let staged = Staged {
            what: change.describe(),
            repository: repository_name(self.registry),
            state: Some(base.published.manifest.clone()),
            recovery: base.recovery,
            base: files_of(before),
            proposal,
            release,
            signatures: Default::default(),
        };
        let findings = lint(Some(before), &staged.proposal, &self.signing.policy, self.now)?;
        match self.delivery {
            Delivery::Publish => self.publish(staged, base, findings, &expiry),
            Delivery::DryRun => {
                check_memory(self.signing, &staged, Some(before))?;
                let described = DryRunReport::of(before, &staged, findings, self.now)?;
                Ok(Outcome::Described(Box::new(described)))
            }
            Delivery::Stage(path) => {
                Ok(Outcome::Staged(self.stage(Some(path), staged, Some(before), findings)?))
            }
            Delivery::Share => {
                Ok(Outcome::Staged(self.stage(None, staged, Some(before), findings)?))
            }
        }
    }

    /// Takes a change to where others find it: a new file, or without one the repository.
    pub(super) fn stage(
        &self,
        file: Option<&Path>,
        mut staged: Staged,
        before: Option<&State>,
        findings: Vec<Finding>,
    ) -> Result<StageReport, SignerError> {
        let path = match file {
            Some(path) => {
                write_new(path, &staged.to_bytes())?;
                path.to_owned()
            }
            None => shared::push(self.registry, &mut staged)?,
        };
        stage_report(&path, true, &staged, before, findings, Vec::new(), self.now)
    }

    /// Shows a change, signs it with the keys at hand and publishes it.
    fn publish(
        &mut self,
        mut staged: Staged,
        base: Base,
        mut findings: Vec<Finding>,
        expiry: &Expiry,
    ) -> Result<Outcome, SignerError> {
        let before = &base.published.state;
        let preview = self.signing.preview.unwrap_or(|_| true);
        if !ChannelPreview::all(before, &staged.proposal, self.now).all(|one| preview(&one)) {
            return Err(SignerError::Declined);
        }
        check_memory(self.signing, &staged, Some(before))?;
        let Staged { proposal, signatures, .. } = &mut staged;
        let by = sign_payloads(Some(before), proposal, &self.signing.keys, signatures)?;
        let events = events(&staged, Some(before), &by, "publish", self.now)?;
        let (published, found) = self.finish_on_top(&staged, base, &events, expiry)?;
        findings.extend(found);
        Ok(Outcome::Published(Box::new(published), findings))
    }

    /// Publishes what was signed on top of `base`, or of what only renewed its snapshot and
    /// timestamp meanwhile: what people signed is valid on top of that, too.
    fn finish_on_top(
        &mut self,
        staged: &Staged,
        mut base: Base,
        signed: &[Event],
        expiry: &Expiry,
    ) -> Result<(Published, Vec<Finding>), SignerError> {
        let (begun, mut signed) = (self.now, signed);
        for _ in 0..TRIES {
            let previous = base.previous(self.registry)?;
            let before = Some(&base.published.state);
            let error = match self.finish(staged, before, previous, signed, expiry) {
                Err(error) if is_moved(&error) && !base.recovery => error,
                done => return done,
            };
            // They are in the log.
            signed = &[];
            self.now = self.signing.now(begun);
            let newer = self.latest()?;
            if !newer.published.state.renews(&base.published.state) {
                return Err(error);
            }
            base = newer;
        }
        let (repository, tag) =
            (published::tuf_repository(self.registry)?, published::tag(LATEST)?);
        Err(RegistryError::Moved { repository, tag }.into())
    }

    /// Checks the thresholds, signs snapshot and timestamp, writes `signed` and these signatures
    /// into the log, uploads, moves the tag from `previous`, and writes down that it did.
    pub(super) fn finish(
        &mut self,
        staged: &Staged,
        before: Option<&State>,
        previous: Option<Digest>,
        signed: &[Event],
        expiry: &Expiry,
    ) -> Result<(Published, Vec<Finding>), SignerError> {
        let (registry, now) = (self.registry, self.now);
        staged.check_carried(before)?;
        let offline = assemble(before, &staged.proposal, &staged.signatures)?;
        let restart = staged.restart(before);
        let snapshot =
            UnsignedSnapshot::new(before, offline, &staged.proposal, expiry, restart, now);
        let state = finish(snapshot, &self.signing.keys)?;
        check_online(&state, &self.signing.policy, now)?;
        check_uploaded(registry, &state, staged)?;
        let mut all = signed.to_vec();
        all.extend(online_events(&state, "commit", &staged.what, now));
        self.signing.record(&all)?;
        let tag = staged.release.as_ref().map(StagedRelease::tag);
        let keep = (self.signing.policy.retention, now);
        let visible = retention::publish(registry, keep, previous.as_ref(), &state, tag.as_ref())?;
        let (repository, manifest) = (repository_name(registry), visible.manifest.to_string());
        let event = Event::published(&repository, &manifest, &state, restart.is_some(), now);
        self.signing.record(&[event.kept_as(visible.alias.as_str())])?;
        self.signing.advance_trust_root(&state)?;
        let mut found: Vec<Finding> = visible.beside.iter().map(tag_taken).collect();
        found.extend(self.signing.retire(registry, &state, now));
        Ok((Published { manifest: visible.manifest, state }, found))
    }
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

/// What is said of a tag that stands for something else.
pub(super) fn tag_taken(beside: &Beside) -> Finding {
    let Beside { repository, taken, given } = beside;
    let text = format!(
        "{repository}:{taken} refers to what an interrupted run left behind, and the registry does not \
         let it be moved: tagged {given} instead"
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
    let listed = state.release(&target).map_err(PublishedError::from)?;
    let listed = listed.ok_or(PlanError::NoRelease { target })?;
    let found = read_release(registry, state, &listed)?;
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
