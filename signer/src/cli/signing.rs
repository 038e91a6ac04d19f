//! From arguments to a signer: keys, trust root, policy, log.

use std::path::{Path, PathBuf};

use formats::reference::Reference;
use formats::tuf::{Key, KeyId, Role};

use super::args::SigningArgs;
use super::output;
use crate::commands::{self, ROOT_FILE, Signing};
use crate::error::SignerError;
use crate::journal::{JOURNAL_FILE, Journal};
use crate::key::{self, KeyLocation, KeyStore};
use crate::plan::{Delegation, RoleKeySet};
use crate::policy::{POLICY_FILE, Policy, PolicyError};

/// KeysUsed of the keys are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeysUsed {
    /// Those of the directory and those given.
    All,
    /// Those given, if any are: who signs for themselves does not sign for others.
    Given,
    /// None: the command only looks.
    None,
}

/// A signer of these arguments.
pub(super) fn signing(
    arguments: &SigningArgs,
    used: KeysUsed,
    repository: Option<&str>,
) -> Result<Signing, SignerError> {
    let given: Vec<KeyLocation> = arguments
        .key
        .iter()
        .map(|text| text.parse().map_err(|error: key::UriError| usage(error.to_string())))
        .collect::<Result<_, _>>()?;
    let directory = arguments.keys.as_deref();
    let mut keys =
        match directory {
            Some(path)
                if used == KeysUsed::All || (used == KeysUsed::Given && given.is_empty()) =>
            {
                if path.exists() { KeyStore::open(path)? } else { KeyStore::default() }
            }
            _ => KeyStore::default(),
        };
    if used != KeysUsed::None {
        for location in given {
            keys.add_location(location)?;
        }
    }
    let beside = directory.map(|path| path.join(ROOT_FILE));
    let trust_root = match (&arguments.root, &beside) {
        (Some(path), _) => Some(commands::read_trust_root(path)?),
        (None, Some(path)) if path.exists() => Some(commands::read_trust_root(path)?),
        _ => None,
    };
    let policy = policy(arguments.config.as_deref(), directory, repository)?;
    let journal = Journal::open(&journal_path(arguments)?)?;
    let (journal, tell) = (Some(journal), Some(output::warn as fn(&_)));
    Ok(Signing {
        keys,
        trust_root,
        trust_root_file: beside,
        policy,
        journal,
        tell,
        clock: Some(super::now),
        preview: None,
        known: Default::default(),
    })
}

/// With the keys; for who has no directory of keys, where programs keep their state.
fn journal_path(arguments: &SigningArgs) -> Result<PathBuf, SignerError> {
    if let Some(path) = &arguments.log {
        return Ok(path.clone());
    }
    if let Some(directory) = &arguments.keys {
        return Ok(directory.join(JOURNAL_FILE));
    }
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let state = state.filter(|path| path.is_absolute()).or_else(home);
    let state = state.ok_or_else(|| usage("give --keys DIR, or --log FILE".to_owned()))?;
    let directory = state.join("racklet-signer");
    std::fs::create_dir_all(&directory).map_err(|source| SignerError::File {
        action: "make",
        path: directory.clone(),
        source,
    })?;
    Ok(directory.join(JOURNAL_FILE))
}

/// `--config`, or the file with the keys, or the one in the repository's directory.
pub(super) fn policy(
    given: Option<&Path>,
    keys: Option<&Path>,
    repository: Option<&str>,
) -> Result<Policy, SignerError> {
    let in_repository = repository.and_then(|text| match text.parse() {
        Ok(Reference::Layout { path, .. }) => Some(path.join(POLICY_FILE)),
        _ => None,
    });
    let beside = keys.map(|keys| keys.join(POLICY_FILE));
    let trusted = given.map(Path::to_owned).or_else(|| beside.filter(|path| path.exists()));
    let is_trusted = trusted.is_some();
    let found = trusted.or_else(|| in_repository.filter(|path| path.exists()));
    let Some(path) = found else { return Ok(Policy::default()) };
    let bytes = commands::read_trusted(&path, "configuration")?;
    let wrong = |source| SignerError::Policy { path: path.clone(), source };
    let text = String::from_utf8_lossy(&bytes);
    let policy = Policy::parse(&text).map_err(wrong)?;
    if policy.repository.is_some() && !is_trusted {
        return Err(wrong(PolicyError::Misplaced));
    }
    Ok(policy.below(path.parent().unwrap_or(Path::new(""))))
}

/// What `signer.toml` says about keys: whole roles, and delegations.
pub(super) fn declared(policy: &Policy) -> Result<(Vec<RoleKeySet>, Vec<Delegation>), SignerError> {
    let mut roles = Vec::new();
    for (role, declared) in policy.roles.iter().filter(|(_, declared)| !declared.keys.is_empty()) {
        let (keys, threshold) = (public_keys(&declared.keys)?, declared.threshold.unwrap_or(1));
        roles.push(RoleKeySet { role: role.clone(), keys, threshold });
    }
    let mut delegations = Vec::new();
    for declared in &policy.delegations {
        let threshold = declared.role.threshold.unwrap_or(1);
        let (role, keys) = (role(&declared.name)?, public_keys(&declared.role.keys)?);
        delegations.push(Delegation {
            by: declared.by.as_deref().map_or(Ok(Role::Targets), self::role)?,
            keys: RoleKeySet { role, keys, threshold },
            paths: declared.paths.clone(),
            terminating: declared.terminating,
        });
    }
    if roles.is_empty() && delegations.is_empty() {
        return Err(usage(format!("give --role, or name keys in {POLICY_FILE}")));
    }
    Ok((roles, delegations))
}

/// Public key files.
pub(super) fn public_keys(paths: &[PathBuf]) -> Result<Vec<Key>, SignerError> {
    Ok(paths.iter().map(|path| key::read_public(path)).collect::<Result<_, _>>()?)
}

/// Key ids, or the ids of public key files.
pub(super) fn key_ids(texts: &[String]) -> Result<Vec<KeyId>, SignerError> {
    let id = |text: &String| match text.parse::<KeyId>() {
        Ok(id) => Ok(id),
        Err(_) => Ok(key::read_public(Path::new(text))?.id()),
    };
    texts.iter().map(id).collect()
}

/// A role by its name.
pub(super) fn role(name: &str) -> Result<Role, SignerError> {
    match Role::TOP_LEVEL.into_iter().find(|role| role.name() == name) {
        Some(role) => Ok(role),
        None => Role::delegated(name).map_err(|error| usage(error.to_string())),
    }
}

fn usage(text: String) -> SignerError {
    SignerError::Usage(text)
}
