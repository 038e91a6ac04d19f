//! `key`: new keys, keys at hand, the example keys.

use std::path::{Path, PathBuf};

use formats::example_keys;
use formats::tuf::{KeyId, Role};
use serde::Serialize;

use super::{ROOT_FILE, Report, read_trust_root};
use crate::error::SignerError;
use crate::key::{self, SECRET_ENDING, SecretKey};
use crate::state::self_signed;

/// One key.
#[derive(Debug, Serialize)]
pub struct KeyReport {
    file: PathBuf,
    /// Its TUF key id.
    pub keyid: String,
    /// Roles it signs for, as the trust root beside it says.
    roles: Vec<String>,
    example: bool,
}

/// The keys of a directory.
#[derive(Debug, Serialize)]
pub struct KeysReport {
    /// In the order of their files' names.
    pub keys: Vec<KeyReport>,
}

impl Report for KeyReport {
    fn text(&self) -> String {
        let roles = if self.roles.is_empty() { "-".to_owned() } else { self.roles.join(", ") };
        let mark = if self.example { "  EXAMPLE KEY" } else { "" };
        format!("{}  {}  {roles}{mark}", self.keyid, self.file.display())
    }

    fn example_keys(&self) -> bool {
        self.example
    }
}

impl Report for KeysReport {
    fn text(&self) -> String {
        self.keys.iter().map(Report::text).collect::<Vec<_>>().join("\n")
    }

    fn example_keys(&self) -> bool {
        self.keys.iter().any(|key| key.example)
    }
}

/// Makes a key: `OUT.key` and `OUT.pub`.
pub fn new(out: &Path) -> Result<KeyReport, SignerError> {
    let (directory, name) = split(out)?;
    create(directory, name, &SecretKey::generate()?)
}

/// Writes the example keys, named after their roles.
pub fn example(directory: &Path) -> Result<KeysReport, SignerError> {
    let mut keys = Vec::new();
    for role in key::example::ROLES {
        keys.push(create(directory, role, &key::example::key(role))?);
    }
    Ok(KeysReport { keys })
}

/// The keys of a directory, and what the trust root beside them uses them for.
pub fn list(directory: &Path) -> Result<KeysReport, SignerError> {
    let failed = |source| SignerError::File { action: "list", path: directory.to_owned(), source };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|ending| ending == SECRET_ENDING) {
            paths.push(path);
        }
    }
    paths.sort();
    let root = directory.join(ROOT_FILE);
    let root =
        if root.exists() { self_signed(&read_trust_root(&root)?, ROOT_FILE).ok() } else { None };
    let roles_of = |id: &KeyId| -> Vec<String> {
        let roles = Role::TOP_LEVEL.iter().filter(|role| {
            let keys = root.as_ref().and_then(|root| root.role(role));
            keys.is_some_and(|keys| keys.keyids.contains(id))
        });
        roles.map(|role| role.name().to_owned()).collect()
    };
    let mut keys = Vec::new();
    for file in paths {
        let id = key::read(&file)?.key()?.id();
        let (keyid, roles) = (id.to_string(), roles_of(&id));
        keys.push(KeyReport { file, example: example_keys::is_example(&keyid), keyid, roles });
    }
    Ok(KeysReport { keys })
}

fn create(directory: &Path, name: &str, secret: &SecretKey) -> Result<KeyReport, SignerError> {
    key::create(directory, name, secret)?;
    let keyid = secret.key()?.id().to_string();
    Ok(KeyReport {
        file: directory.join(name).with_extension(SECRET_ENDING),
        example: example_keys::is_example(&keyid),
        keyid,
        roles: Vec::new(),
    })
}

fn split(out: &Path) -> Result<(&Path, &str), SignerError> {
    let name = out.file_name().and_then(|name| name.to_str());
    let name = name.filter(|name| !name.is_empty() && !name.contains('.'));
    let wrong = || {
        let text = format!("{} is not DIR/NAME with a NAME without dots", out.display());
        SignerError::Usage(text)
    };
    let directory = match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    Ok((directory, name.ok_or_else(wrong)?))
}
