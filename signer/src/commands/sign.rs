//! `sign`, `commit`, and what `status` says of a staged change.

use std::path::PathBuf;

use formats::tuf::{Role, UnixTime};
use serde::Serialize;

use super::ceremony::{check_memory, events, lint, payload_ids, read_staged};
use super::files::{replace, write_new};
use super::session::{Session, TRIES, is_moved};
use super::stage::stage_report;
use super::state_report::{PublishedState, warning_lines};
use super::{Delivery, Report, Signing, StageReport, counted};
use crate::error::SignerError;
use crate::journal::{Event, Roles};
use crate::plan::{Expiry, Finding, PlanError, missing};
use crate::published::{self, Published, PublishedError};
use crate::repository::Registry;
use crate::shared;
use crate::signing::sign_payloads;
use crate::stage::Staged;
use crate::state::{State, payload_digest};

/// Shows a staged change and signs it with the keys at hand.
///
/// `agrees` is asked after everything was verified and before any key is used; it gets what is
/// shown. What is shown and what is signed are the same values in memory: a file that changes
/// meanwhile changes nothing (case 191).
///
/// A change that is named, not a file, is fetched from `registry` and put back there.
pub fn sign(
    registry: Option<&dyn Registry>,
    signing: &mut Signing,
    files: &[PathBuf],
    output: Option<&PathBuf>,
    now: UnixTime,
    agrees: impl FnOnce(&StageReport) -> bool,
) -> Result<StageReport, SignerError> {
    let first = first_of(files)?;
    let mut staged = read_staged(registry, files)?;
    let base = base_of(&staged, signing, first)?;
    let base = base.as_ref();
    let in_file = |source| SignerError::Stage { path: first.clone(), source };
    crate::plan::check_versions(base, &staged.proposal)?;
    staged.check_carried(base).map_err(in_file)?;
    if let (Some(journal), Some(state)) = (&signing.journal, base) {
        let roles = if staged.recovery { Roles::Offline } else { Roles::All };
        journal.check_published(&staged.repository, state, roles)?;
    }
    signing.check_clock(base, Some(&staged.proposal), now)?;
    check_memory(signing, &staged, base)?;
    let warnings = lint(base, &staged.proposal, &signing.policy, now)?;
    let shown = stage_report(first, true, &staged, base, warnings.clone(), Vec::new(), now)?;
    refuse_without_keys(signing, &staged, base)?;
    if !agrees(&shown) {
        return Err(SignerError::Declined);
    }
    let by = sign_payloads(base, &staged.proposal, &signing.keys, &mut staged.signatures)?;
    let mut all = events(&staged, base, &by, "sign", now)?;
    // Who signed on top of a state is not led back behind it.
    all.extend(base.map(|state| Event::seen(&staged.repository, state, now)));
    signing.record(&all)?;
    match (output, registry.filter(|_| shared::is_name(first))) {
        (Some(path), _) => write_new(path, &staged.to_bytes())?,
        (None, Some(registry)) => drop(shared::push(registry, &mut staged)?),
        (None, None) => replace(first, &staged.to_bytes(), 0o644)?,
    }
    stage_report(output.unwrap_or(first), true, &staged, base, warnings, by, now)
}

/// Refuses keys of which none is listed by any role that changes: the wrong ones were named.
fn refuse_without_keys(
    signing: &Signing,
    staged: &Staged,
    base: Option<&State>,
) -> Result<(), SignerError> {
    let all = missing(base, &staged.proposal, &staged.signatures)?;
    let at_hand = |keyid: &formats::tuf::KeyId| signing.keys.find(keyid).is_some();
    if all.iter().any(|one| one.signed.iter().chain(&one.waiting).any(at_hand)) {
        return Ok(());
    }
    let one = all.into_iter().find(|one| !one.is_met());
    Err(match one {
        Some(one) => PlanError::KeysMissing {
            role: one.role,
            by: one.by,
            threshold: one.threshold,
            found: 0,
        }
        .into(),
        None => SignerError::Usage("all signatures are there; run `signer commit`".into()),
    })
}

/// The state a change was made on, from the trust root of who looks at it.
fn base_of(
    staged: &Staged,
    signing: &Signing,
    path: &std::path::Path,
) -> Result<Option<State>, SignerError> {
    if staged.base.is_empty() {
        return Ok(None);
    }
    let base = staged.base(Some(signing.root()?));
    base.map_err(|source| SignerError::Stage { path: path.to_owned(), source })
}

/// How far a staged change is; signs nothing. Without a trust root it is only consistent in
/// itself.
pub fn stage_status(
    registry: Option<&dyn Registry>,
    signing: &Signing,
    files: &[PathBuf],
    now: UnixTime,
) -> Result<StageReport, SignerError> {
    let first = first_of(files)?;
    let staged = read_staged(registry, files)?;
    let base = staged
        .base(signing.trust_root.as_deref())
        .map_err(|source| SignerError::Stage { path: first.clone(), source })?;
    let warnings = crate::plan::lint_change(base.as_ref(), &staged.proposal, &signing.policy, now)?;
    let anchored = signing.trust_root.is_some();
    stage_report(first, anchored, &staged, base.as_ref(), warnings, Vec::new(), now)
}

/// What was committed.
#[derive(Debug, Serialize)]
pub struct CommitReport {
    what: String,
    repository: String,
    /// The state that is public now.
    #[serde(flatten)]
    pub published: PublishedState,
}

impl CommitReport {
    fn of(
        registry: &dyn Registry,
        what: String,
        published: &Published,
        warnings: Vec<Finding>,
    ) -> Self {
        let repository = registry.reference().to_string();
        CommitReport { what, repository, published: PublishedState::of(published, warnings) }
    }
}

impl Report for CommitReport {
    fn text(&self) -> String {
        let CommitReport { what, repository, published } = self;
        let warnings = warning_lines(&published.warnings);
        format!("{repository}: {what} is public\n{}{warnings}", published.versions())
    }

    fn example_keys(&self) -> bool {
        self.published.example_keys
    }
}

/// Publishes a staged change that has enough signatures: everything is verified again, against
/// what is published now; snapshot and timestamp are signed; the tag moves last.
pub fn commit(
    registry: &dyn Registry,
    signing: &mut Signing,
    files: &[PathBuf],
    expiry: &Expiry,
    now: UnixTime,
) -> Result<CommitReport, SignerError> {
    let mut tries = TRIES;
    loop {
        match commit_once(registry, signing, files, expiry, signing.now(now)) {
            // Everything is looked at again: a refresh was faster, or the change is out of date.
            Err(error) if is_moved(&error) && tries > 0 => tries -= 1,
            done => return done,
        }
    }
}

fn commit_once(
    registry: &dyn Registry,
    signing: &mut Signing,
    files: &[PathBuf],
    expiry: &Expiry,
    now: UnixTime,
) -> Result<CommitReport, SignerError> {
    let first = first_of(files)?;
    let staged = read_staged(Some(registry), files)?;
    let base = base_of(&staged, signing, first)?;
    let previous = published::latest_digest(registry)?;
    let current = match base {
        None if previous.is_some() => {
            let text = format!("{} holds a repository already", registry.reference());
            return Err(SignerError::Exists(text));
        }
        None => None,
        Some(base) => {
            let current = current(registry, signing, &staged)?;
            if !staged.recovery && is_public(&staged, &current.state)? {
                // The answer to an earlier run was lost, or somebody else was faster.
                return Ok(CommitReport::of(registry, staged.what, &current, Vec::new()));
            }
            check_unmoved(&staged, &base, &current.state)?;
            Some(current.state)
        }
    };
    let current = current.as_ref();
    signing.check_clock(current, Some(&staged.proposal), now)?;
    crate::plan::check_versions(current, &staged.proposal)?;
    let mut warnings = lint(current, &staged.proposal, &signing.policy, now)?;
    let expiry = signing.periods(expiry)?;
    if current.is_none() {
        place_trust_root(signing, &staged)?;
    }
    let mut session = Session { registry, signing, delivery: Delivery::Publish, now };
    let (published, found) = session.finish(&staged, current, previous, &[], &expiry)?;
    warnings.extend(found);
    Ok(CommitReport::of(registry, staged.what, &published, warnings))
}

/// The state that a change is published on top of: what is published now or, after an online key
/// was stolen, the last good state, because what is published now is the thief's.
fn current(
    registry: &dyn Registry,
    signing: &Signing,
    staged: &Staged,
) -> Result<Published, SignerError> {
    if !staged.recovery {
        return signing.load(registry);
    }
    let missing = || SignerError::Usage("the change names no state".to_owned());
    let manifest = staged.state.clone().ok_or_else(missing)?;
    let found = published::fetch_digest(registry, &manifest)?;
    let state = State::verify(&found.files, Some(signing.root()?)).map_err(PublishedError::from)?;
    Ok(Published { manifest, state })
}

fn first_of(files: &[PathBuf]) -> Result<&PathBuf, SignerError> {
    files.first().ok_or_else(|| SignerError::Usage("give a staged change".to_owned()))
}

/// Whether everything that is signed in it is what the repository serves.
fn is_public(staged: &Staged, state: &State) -> Result<bool, SignerError> {
    let public = |role: &Role| match role {
        Role::Root => state.roots.values().next_back().map(Vec::as_slice),
        other => state.targets_of(other).map(|signed| signed.bytes.as_slice()),
    };
    let ids = payload_ids(staged)?;
    Ok(ids.iter().all(|(role, _, digest)| {
        public(role).is_some_and(|bytes| payload_digest(bytes) == *digest)
    }))
}

/// A first root lies with the keys before anybody can see the repository: run again, `commit`
/// goes on with the same one.
fn place_trust_root(signing: &mut Signing, staged: &Staged) -> Result<(), SignerError> {
    let offline = crate::plan::assemble(None, &staged.proposal, &staged.signatures)?;
    let root = offline.newest_root().to_vec();
    if let Some(path) = signing.trust_root_file.clone().filter(|path| !path.exists()) {
        write_new(&path, &root)?;
        signing.trust_root = Some(root);
    }
    Ok(())
}

/// The roles that change are those the change was made on; others may have moved, as the
/// timestamp does every day.
fn check_unmoved(staged: &Staged, base: &State, current: &State) -> Result<(), SignerError> {
    let newest = |state: &State| state.roots.values().next_back().cloned();
    let moved = |role: &Role| match role {
        Role::Root => newest(base) != newest(current),
        other => base.targets_of(other) != current.targets_of(other),
    };
    // Targets were staged for the keys of that root.
    let root = Role::Root;
    let roles = staged.proposal.payloads.iter().map(|payload| &payload.role).chain([&root]);
    for role in roles {
        if moved(role) {
            return Err(SignerError::StageMoved { role: role.to_string() });
        }
    }
    Ok(())
}

/// Writes down that a staged change will never be published, so that its versions can be signed
/// with other content.
pub fn abandon(
    signing: &mut Signing,
    files: &[PathBuf],
    now: UnixTime,
) -> Result<AbandonReport, SignerError> {
    let staged = read_staged(None, files)?;
    let trust_root = signing.trust_root.as_deref();
    let path = files.first().cloned().unwrap_or_default();
    let base = staged.base(trust_root).map_err(|source| SignerError::Stage { path, source })?;
    let identity = staged.identity(base.as_ref())?;
    let mut events = Vec::new();
    for (role, version, digest) in payload_ids(&staged)? {
        events.push(Event::abandoned(&identity, (&role, version, &digest), now));
    }
    signing.record(&events)?;
    Ok(AbandonReport { what: staged.what, payloads: events.len() })
}

/// A staged change that will not be published.
#[derive(Debug, Serialize)]
pub struct AbandonReport {
    what: String,
    payloads: usize,
}

impl Report for AbandonReport {
    fn text(&self) -> String {
        format!("{} will not be published; destroy all copies of the file", self.what)
    }
}

/// The lines of the log.
#[derive(Debug, Serialize)]
pub struct LogReport {
    file: PathBuf,
    events: Vec<serde_json::Value>,
    /// The tag of the state that was published last from here.
    last_published: Option<String>,
}

impl Report for LogReport {
    fn text(&self) -> String {
        let events = counted(self.events.len() as u64, "event");
        let mut text = format!("{}: {events}, chain intact", self.file.display());
        for event in &self.events {
            let word = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
            let time = event["time"].as_i64().unwrap_or_default();
            let time = UnixTime::from_secs(time);
            let line = match word("event").as_str() {
                kind @ ("published" | "seen") => {
                    let tag = event["tag"].as_str().map(|tag| format!(" as {tag}"));
                    let tag = tag.unwrap_or_default();
                    format!("{kind} {} {}{tag}", word("repository"), event["versions"])
                }
                kind => {
                    let keyid = word("keyid");
                    let keyid = keyid.get(..8).unwrap_or_default();
                    let (role, version) = (word("role"), &event["version"]);
                    format!("{kind} {role} {version} {keyid} {}", word("what"))
                }
            };
            text.push_str(&format!("\n{time} {line}"));
        }
        if let Some(tag) = &self.last_published {
            text.push_str(&format!("\nlast published: {tag}"));
        }
        text
    }
}

/// Reads the log and verifies its chain.
pub fn log(signing: &Signing) -> Result<LogReport, SignerError> {
    let none = || SignerError::Usage("there is no log without --keys".to_owned());
    let journal = signing.journal.as_ref().ok_or_else(none)?;
    let value = |event: &Event| {
        let members = formats::json::Value::Object(event.members.clone()).to_bytes();
        serde_json::from_slice(&members).unwrap_or_default()
    };
    let events: Vec<serde_json::Value> = journal.events()?.iter().map(value).collect();
    let published = events.iter().rev().find(|event| event["event"] == "published");
    let last_published = published.map(|event| match event["tag"].as_str() {
        Some(tag) => tag.to_owned(),
        None => format!("ts-{}", event["versions"]["timestamp"]),
    });
    Ok(LogReport { file: journal.path().to_owned(), events, last_published })
}
