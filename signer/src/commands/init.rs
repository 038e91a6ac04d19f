//! `init`: keys, a trust root and a first repository.

use std::path::{Path, PathBuf};

use formats::reference::Reference;
use formats::tuf::{Envelope, Key, KeyId, REPOSITORY, Role, UnixTime};
use serde::Serialize;

use super::ceremony::{check_memory, events, lint, repository_name};
use super::files::write_new;
use super::session::Session;
use super::state_report::warning_lines;
use super::{
    Answer, Delivery, Protect, ROOT_FILE, Report, Signing, counted, has_example_key,
    read_trust_root, time,
};
use crate::error::SignerError;
use crate::key::{self, KeyLocation, SECRET_ENDING, SecretKey, URI_ENDING};
use crate::plan::{Expiry, Finding, Payload, PlanError, Proposal, RepositoryId, RoleKeySet};
use crate::published::latest_digest;
use crate::repository::Registry;
use crate::signing::sign_payloads;
use crate::stage::Staged;
use crate::state::{State, StateError, self_signed};

/// What a first repository is made of.
#[derive(Debug, Clone, Default)]
pub struct InitRequest {
    /// Where the keys are, or will be.
    pub keys: PathBuf,
    /// How many root keys must sign.
    pub root_threshold: u32,
    /// Public keys of the root role; empty: those of `signer.toml`, otherwise one new key.
    pub root_keys: Vec<PathBuf>,
    /// How many targets keys must sign.
    pub targets_threshold: u32,
    /// Public keys of the targets role; empty: those of `signer.toml`, otherwise one new key.
    pub targets_keys: Vec<PathBuf>,
    /// What the repository calls itself in all that is signed for it; absent: derived from its
    /// reference, keys and time.
    pub id: Option<String>,
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
    repository_id: Option<String>,
    trust_root: PathBuf,
    root_keys: Vec<String>,
    root_threshold: u32,
    targets_keys: Vec<String>,
    targets_threshold: u32,
    root_expires: String,
    timestamp_expires: String,
    warnings: Vec<Finding>,
    example_keys: bool,
}

impl Report for InitReport {
    fn text(&self) -> String {
        let mut text = format!(
            "repository {}\ntrust root {} (root: {} of {}, expires {}; targets: {} of {})\n\
             the timestamp expires {}: renew it with `signer refresh`\n\
             copy {} to every node; keep the *.key files safe, those of root and targets offline",
            self.repository,
            self.trust_root.display(),
            self.root_threshold,
            counted(self.root_keys.len() as u64, "key"),
            self.root_expires,
            self.targets_threshold,
            self.targets_keys.len(),
            self.timestamp_expires,
            self.trust_root.display(),
        );
        text.push_str(&warning_lines(&self.warnings));
        text
    }

    fn example_keys(&self) -> bool {
        self.example_keys
    }
}

/// Makes what is missing: keys, then the trust root, then the repository. Staged, it is signed by
/// others, and `commit` makes the last two.
///
/// Interrupted anywhere, it goes on where it stopped when it is run again: keys and a trust root
/// that are there are used, never replaced. A repository that is there is refused.
pub fn init(
    registry: &dyn Registry,
    signing: &mut Signing,
    request: &InitRequest,
    delivery: Delivery<'_>,
    now: UnixTime,
) -> Result<Answer<InitReport>, SignerError> {
    let file = match delivery {
        Delivery::DryRun => {
            let text =
                "init makes keys, so there is no dry run of it: try it in an empty directory";
            return Err(SignerError::Usage(text.to_owned()));
        }
        Delivery::Stage(path) => Some(path),
        Delivery::Publish | Delivery::Share => None,
    };
    if latest_digest(registry)?.is_some() {
        let text = format!("{} holds a repository already", registry.reference());
        return Err(SignerError::Exists(text));
    }
    signing.check_clock(None, None, now)?;
    let expiry = signing.periods(&request.expiry)?;
    let sets = gather_keys(signing, request)?;
    let mut staged = Staged {
        what: "a first repository".to_owned(),
        repository: repository_name(registry),
        state: None,
        recovery: false,
        base: Default::default(),
        proposal: Proposal::first(sets, &repository_id(registry, request), &expiry, now)?,
        release: None,
        signatures: Default::default(),
    };
    let path = request.keys.join(ROOT_FILE);
    let there = path.exists();
    if there {
        take_over_root(&mut staged, &read_trust_root(&path)?, &expiry, now)?;
        signing.check_clock(None, Some(&staged.proposal), now)?;
    }
    let mut warnings = lint(None, &staged.proposal, &signing.policy, now)?;
    if delivery != Delivery::Publish {
        let session = Session { registry, signing, delivery, now };
        return Ok(Answer::Staged(session.stage(file, staged, None, warnings)?));
    }
    check_memory(signing, &staged, None)?;
    let by = sign_payloads(None, &staged.proposal, &signing.keys, &mut staged.signatures)?;
    let events = events(&staged, None, &by, "init", now)?;
    let root = root_bytes(&staged)?;
    if !there {
        // Nodes may get it from now on; the repository is made for this one and no other.
        write_new(&path, &root)?;
    }
    signing.trust_root = Some(root);
    signing.trust_root_file = None;
    let mut session = Session { registry, signing, delivery, now };
    let (published, found) = session.finish(&staged, None, None, &events, &expiry)?;
    warnings.extend(found);
    Ok(Answer::Done(InitReport::of(registry, path, &published.state, warnings)))
}

impl InitReport {
    fn of(
        registry: &dyn Registry,
        trust_root: PathBuf,
        state: &State,
        warnings: Vec<Finding>,
    ) -> Self {
        let keys_of = |role: Role| {
            let keys = state.root.role(&role);
            let ids = keys.map(|keys| keys.keyids.iter().map(KeyId::to_string).collect());
            (ids.unwrap_or_default(), keys.map_or(0, |keys| keys.threshold))
        };
        let ((root_keys, root_threshold), (targets_keys, targets_threshold)) =
            (keys_of(Role::Root), keys_of(Role::Targets));
        let id = state.root.unknown.get(REPOSITORY).and_then(|id| id.as_str());
        InitReport {
            repository: registry.reference().to_string(),
            repository_id: id.map(str::to_owned),
            trust_root,
            root_keys,
            root_threshold,
            targets_keys,
            targets_threshold,
            root_expires: time(state.root.header.expires),
            timestamp_expires: time(state.timestamp.data.header.expires),
            warnings,
            example_keys: has_example_key(&state.root),
        }
    }
}

/// A layout is itself wherever it lies; a registry's repository is named by where it is.
fn repository_id(registry: &dyn Registry, request: &InitRequest) -> RepositoryId {
    if let Some(id) = &request.id {
        return RepositoryId::Named(id.clone());
    }
    RepositoryId::Derived(match registry.reference() {
        reference @ Reference::Registry { .. } => reference.to_string(),
        layout => layout.namespace().as_str().to_owned(),
    })
}

/// The root that nodes may already have, instead of a new one.
fn take_over_root(
    staged: &mut Staged,
    bytes: &[u8],
    expiry: &Expiry,
    now: UnixTime,
) -> Result<(), SignerError> {
    let in_root = |source| {
        let file = ROOT_FILE.to_owned();
        SignerError::Plan(PlanError::Result(StateError::Untrusted { file, source }))
    };
    let envelope = Envelope::parse(bytes).map_err(in_root)?;
    let payload = Payload { role: Role::Root, signed: envelope.signed().clone() };
    staged.proposal = Proposal::below(payload, expiry, now)?;
    staged.signatures.insert(Role::Root, envelope.signatures().to_vec());
    Ok(())
}

/// The first root, if enough of its keys signed.
fn root_bytes(staged: &Staged) -> Result<Vec<u8>, SignerError> {
    let offline = crate::plan::assemble(None, &staged.proposal, &staged.signatures)?;
    let bytes = offline.newest_root().to_vec();
    self_signed(&bytes, ROOT_FILE).map_err(PlanError::from)?;
    Ok(bytes)
}

/// Who may sign for what; keys at hand come to the others.
fn gather_keys(
    signing: &mut Signing,
    request: &InitRequest,
) -> Result<[RoleKeySet; 4], SignerError> {
    let offline = if request.passphrase { Protect::Passphrase } else { Protect::IfConfigured };
    key::make_directory(&request.keys)?;
    let root = (&request.root_keys, request.root_threshold, offline);
    let targets = (&request.targets_keys, request.targets_threshold, offline);
    let none = Vec::new();
    let machine = (&none, 1, Protect::Never);
    Ok([
        gather_role(signing, request, Role::Root, root)?,
        gather_role(signing, request, Role::Targets, targets)?,
        gather_role(signing, request, Role::Snapshot, machine)?,
        gather_role(signing, request, Role::Timestamp, machine)?,
    ])
}

fn gather_role(
    signing: &mut Signing,
    request: &InitRequest,
    role: Role,
    (given, threshold, protect): (&Vec<PathBuf>, u32, Protect),
) -> Result<RoleKeySet, SignerError> {
    let declared = signing.policy.roles.get(&role).cloned().unwrap_or_default();
    let paths = if given.is_empty() { &declared.keys } else { given };
    // A flag wins; a threshold of one is what the flag says when it is not given.
    let threshold = if threshold > 1 { threshold } else { declared.threshold.unwrap_or(1) };
    if paths.is_empty() {
        let name = role.name();
        create_if_missing(&request.keys, name, protect)?;
        let path = request.keys.join(name).with_extension(SECRET_ENDING);
        let key = key::read(&path)?.key()?;
        signing.keys.add_location(KeyLocation::File(path))?;
        return Ok(RoleKeySet { role, keys: vec![key], threshold });
    }
    let mut keys: Vec<Key> = Vec::new();
    for path in paths {
        let key = key::read_public(path)?;
        // The secret half may lie beside it, on the medium its owner brought.
        for ending in [SECRET_ENDING, URI_ENDING] {
            let secret = path.with_extension(ending);
            if signing.keys.find(&key.id()).is_none() && secret.exists() {
                signing.keys.add_location(KeyLocation::File(secret))?;
            }
        }
        keys.push(key);
    }
    if threshold == 0 || threshold as usize > keys.len() {
        let keys = counted(keys.len() as u64, "key");
        let text = format!("the {role} threshold cannot be {threshold} with {keys}");
        return Err(SignerError::Usage(text));
    }
    Ok(RoleKeySet { role, keys, threshold })
}

fn create_if_missing(directory: &Path, name: &str, protect: Protect) -> Result<(), SignerError> {
    if !directory.join(name).with_extension(SECRET_ENDING).exists() {
        super::key::create(directory, name, &SecretKey::generate()?, protect)?;
    }
    Ok(())
}
