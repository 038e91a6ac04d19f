//! `key`: new keys, keys of other tools, keys in tokens; keys at hand; the example keys.

use std::path::{Path, PathBuf};

use formats::example_keys;
use formats::tuf::{Key, KeyId, Role};
use serde::Serialize;

use super::{ROOT_FILE, Report, read_trust_root};
use crate::error::SignerError;
use crate::key::import::{Imported, import};
use crate::key::{
    self, Cost, Floor, KeyError, KeyLocation, NEW_PASSPHRASE_FILE, PASSPHRASE_FILE, PUBLIC_ENDING,
    SECRET_ENDING, SecretKey, TokenKeyKind, URI_ENDING, Unlock,
};
use crate::state::self_signed;

/// One key.
#[derive(Debug, Serialize)]
pub struct KeyReport {
    file: PathBuf,
    /// Its TUF key id.
    pub keyid: String,
    /// `file`, `file with passphrase`, `pkcs11`, `command`, `public`.
    kind: &'static str,
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
        format!("{}  {}  {}  {roles}{mark}", self.keyid, self.file.display(), self.kind)
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

/// Whether a key gets a passphrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protect {
    /// From the file that `SIGNER_PASSPHRASE_FILE` names, or asked for.
    Passphrase,
    /// As above if that variable is set, otherwise none.
    IfConfigured,
    /// None, for keys of machines that sign alone.
    Never,
}

/// Makes a key: `OUT.key` and `OUT.pub`.
pub fn new(out: &Path, protect: Protect) -> Result<KeyReport, SignerError> {
    let (directory, name) = split(out)?;
    create(directory, name, &SecretKey::generate()?, protect)
}

/// Makes a key with or without a passphrase.
pub(super) fn create(
    directory: &Path,
    name: &str,
    secret: &SecretKey,
    protect: Protect,
) -> Result<KeyReport, SignerError> {
    let with_passphrase = match protect {
        Protect::Passphrase => true,
        Protect::IfConfigured => std::env::var_os(PASSPHRASE_FILE).is_some(),
        Protect::Never => false,
    };
    let key = secret.key()?;
    if with_passphrase {
        let path = directory.join(name).with_extension(SECRET_ENDING);
        let unlock = Unlock::from_env(PASSPHRASE_FILE);
        let passphrase = unlock.ask_new(&format!("new passphrase of {}", path.display()))?;
        let bytes = secret.to_sealed_bytes(&passphrase, Cost::default())?;
        key::create_from(directory, name, SECRET_ENDING, &bytes, &key)?;
    } else {
        key::create(directory, name, secret)?;
    }
    let kind = if with_passphrase { "file with passphrase" } else { "file" };
    Ok(report(directory.join(name).with_extension(SECRET_ENDING), kind, &key, Vec::new()))
}

/// Takes over a key of another tool: PKCS#8, SubjectPublicKeyInfo or a TUF key object, and for a
/// public one where its secret half signs, if this machine reaches it.
pub fn import_key(
    from: &Path,
    out: &Path,
    location: Option<&str>,
    protect: Protect,
) -> Result<KeyReport, SignerError> {
    let (directory, name) = split(out)?;
    let refused = |why: String| KeyError::Import { path: from.to_owned(), why };
    let bytes = key::read_import(from)?;
    let imported = import(&bytes).map_err(refused)?;
    let key = match &imported {
        Imported::Secret(secret) => secret.key()?,
        Imported::Public(key) => key.clone(),
    };
    refuse_duplicate(directory, from, &key)?;
    match (imported, location) {
        (Imported::Secret(secret), None) => create(directory, name, &secret, protect),
        (Imported::Secret(_), Some(_)) => {
            let text = "--uri goes with a public key; this one is secret".to_owned();
            Err(SignerError::Usage(text))
        }
        (Imported::Public(_), Some(uri)) => create_located(directory, name, uri, &key),
        (Imported::Public(_), None) => {
            key::make_directory(directory)?;
            key::write_public(directory, name, &key)?;
            let file = directory.join(name).with_extension(PUBLIC_ENDING);
            Ok(report(file, "public", &key, Vec::new()))
        }
    }
}

/// Refers to a key in a token, which is made there first if asked for.
pub fn pkcs11(uri: &str, out: &Path, make: Option<TokenKeyKind>) -> Result<KeyReport, SignerError> {
    let (directory, name) = split(out)?;
    let location: KeyLocation = uri.parse().map_err(usage)?;
    let KeyLocation::Pkcs11(token) = &location else {
        return Err(SignerError::Usage(format!("{uri:?} is not a pkcs11: URI")));
    };
    let key = match make {
        Some(kind) => key::generate(token, kind)?,
        None => {
            let mut store = key::KeyStore::default();
            store.add_location(location.clone())?;
            let mut keys = store.keys();
            keys.next().cloned().expect("the store holds the key that was just added")
        }
    };
    refuse_duplicate(directory, Path::new(uri), &key)?;
    create_located(directory, name, uri, &key)
}

/// Gives a key file another passphrase and today's key derivation.
pub fn passphrase(path: &Path, remove: bool) -> Result<KeyReport, SignerError> {
    let document = key::read(path)?;
    let before = Unlock::from_env(PASSPHRASE_FILE);
    // Below the floor, too: this is the way out of it.
    let secret = key::open_document(&document, path, &before, Floor::Waived)?;
    let bytes = if remove {
        secret.to_bytes()
    } else {
        let after = Unlock::from_env(NEW_PASSPHRASE_FILE);
        let text = after.ask_new(&format!("new passphrase of {}", path.display()))?;
        secret.to_sealed_bytes(&text, Cost::default())?
    };
    key::replace(path, &bytes)?;
    let kind = if remove { "file" } else { "file with passphrase" };
    Ok(report(path.to_owned(), kind, &secret.key()?, Vec::new()))
}

/// Writes the example keys, named after their roles.
pub fn example(directory: &Path) -> Result<KeysReport, SignerError> {
    let mut keys = Vec::new();
    for role in key::example::ROLES {
        keys.push(create(directory, role, &key::example::key(role), Protect::Never)?);
    }
    Ok(KeysReport { keys })
}

/// The keys of a directory, and what the trust root beside them uses them for.
pub fn list(directory: &Path) -> Result<KeysReport, SignerError> {
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
    for file in key::private_files(directory)? {
        let (kind, key) = if file.extension().is_some_and(|ending| ending == URI_ENDING) {
            let kind = match key::read_uri(&file)? {
                KeyLocation::Pkcs11(_) => "pkcs11",
                _ => "command",
            };
            (kind, key::read_public(&file.with_extension(PUBLIC_ENDING))?)
        } else {
            let document = key::read(&file)?;
            let kind = if document.is_sealed() { "file with passphrase" } else { "file" };
            (kind, document.key()?)
        };
        let roles = roles_of(&key.id());
        keys.push(report(file, kind, &key, roles));
    }
    Ok(KeysReport { keys })
}

fn create_located(
    directory: &Path,
    name: &str,
    uri: &str,
    key: &Key,
) -> Result<KeyReport, SignerError> {
    let location: KeyLocation = uri.parse().map_err(usage)?;
    let kind = match location {
        KeyLocation::Pkcs11(_) => "pkcs11",
        KeyLocation::Command(_) => "command",
        KeyLocation::File(_) => {
            return Err(SignerError::Usage(format!("{uri:?} is no pkcs11: or cmd: URI")));
        }
    };
    key::create_from(directory, name, URI_ENDING, format!("{uri}\n").as_bytes(), key)?;
    Ok(report(directory.join(name).with_extension(URI_ENDING), kind, key, Vec::new()))
}

/// One key under two names would look like two people (cases 34, 192).
fn refuse_duplicate(directory: &Path, path: &Path, key: &Key) -> Result<(), SignerError> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Ok(()) };
    for there in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let is_public = there.extension().is_some_and(|ending| ending == PUBLIC_ENDING);
        if is_public && key::read_public(&there)?.public() == key.public() {
            return Err(KeyError::Duplicate { path: path.to_owned(), there }.into());
        }
    }
    Ok(())
}

fn report(file: PathBuf, kind: &'static str, key: &Key, roles: Vec<String>) -> KeyReport {
    let keyid = key.id().to_string();
    KeyReport { file, kind, example: example_keys::is_example(&keyid), keyid, roles }
}

fn usage(error: key::UriError) -> SignerError {
    SignerError::Usage(error.to_string())
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
