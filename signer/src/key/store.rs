//! Keys at hand, and the one function that signs.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use formats::tuf::{Key, KeyId, Signature};

use super::command::CommandKey;
use super::passphrase::PASSPHRASE_FILE;
use super::pkcs11::TokenKey;
use super::{
    Floor, KeyDocument, KeyError, KeyLocation, PUBLIC_ENDING, SECRET_ENDING, SecretKey, URI_ENDING,
    Unlock, file,
};

/// Something that can sign: a key file, a token, a program.
pub trait SigningKey {
    /// The public half, as root metadata lists it.
    fn key(&self) -> &Key;

    /// A signature over `message`. Only [`sign`] calls this, and verifies what comes back.
    fn raw_signature(&self, message: &[u8]) -> Result<Vec<u8>, KeyError>;
}

/// A key that was made in memory.
struct MemoryKey {
    key: Key,
    secret: SecretKey,
}

impl SigningKey for MemoryKey {
    fn key(&self) -> &Key {
        &self.key
    }

    fn raw_signature(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        Ok(self.secret.sign(message).to_vec())
    }
}

/// A key in a file, opened when it is first needed: a passphrase is asked for only then.
struct FileKey {
    key: Key,
    path: PathBuf,
    document: KeyDocument,
    unlock: Unlock,
    secret: OnceCell<SecretKey>,
}

impl FileKey {
    fn open(path: &Path, unlock: &Unlock) -> Result<Self, KeyError> {
        let document = file::read(path)?;
        Ok(FileKey {
            key: document.key()?,
            path: path.to_owned(),
            document,
            unlock: unlock.clone(),
            secret: OnceCell::new(),
        })
    }
}

impl SigningKey for FileKey {
    fn key(&self) -> &Key {
        &self.key
    }

    fn raw_signature(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        if let Some(secret) = self.secret.get() {
            return Ok(secret.sign(message).to_vec());
        }
        let secret = open_document(&self.document, &self.path, &self.unlock, Floor::Required)?;
        Ok(self.secret.get_or_init(|| secret).sign(message).to_vec())
    }
}

/// Opens a key file's secret. Who mistypes at a terminal may try three times.
pub fn open_document(
    document: &KeyDocument,
    path: &Path,
    unlock: &Unlock,
    floor: Floor,
) -> Result<SecretKey, KeyError> {
    let in_file = |source| KeyError::Document { path: path.to_owned(), source };
    let tries = if *unlock == Unlock::Terminal { 3 } else { 1 };
    let mut left = tries;
    loop {
        left -= 1;
        let text = if document.is_sealed() {
            unlock.ask(&format!("passphrase of {}", path.display()))?
        } else {
            Default::default()
        };
        match document.open(floor, || Ok::<_, super::DocumentError>(text)) {
            Ok(secret) => return Ok(secret),
            Err(super::DocumentError::Passphrase) if left > 0 => {}
            Err(error) => return Err(in_file(error)),
        }
    }
}

/// Signs, and verifies the signature before anybody sees it (case 194).
pub fn sign(key: &dyn SigningKey, message: &[u8]) -> Result<Signature, KeyError> {
    let signature = key.raw_signature(message)?;
    let keyid = key.key().id();
    if key.key().public().verifies(message, &signature) {
        Ok(Signature::new(keyid, &signature))
    } else {
        Err(KeyError::BadSignature { keyid: keyid.to_string() })
    }
}

/// The signing keys at hand. Which of them signs what is decided by metadata, never by the name
/// of a file.
#[derive(Default)]
pub struct KeyStore(Vec<Box<dyn SigningKey>>);

impl std::fmt::Debug for KeyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| key.key().id())).finish()
    }
}

impl KeyStore {
    /// All `*.key` and `*.uri` files of a directory. One that cannot be used is an error: a key
    /// that is silently left out is missed at the worst moment.
    pub fn open(directory: &Path) -> Result<Self, KeyError> {
        let mut store = KeyStore::default();
        for path in private_files(directory)? {
            store.add_file(&path)?;
        }
        Ok(store)
    }

    /// Adds the key that lies there. One that is there already is not added twice.
    pub fn add_location(&mut self, location: KeyLocation) -> Result<(), KeyError> {
        match location {
            KeyLocation::File(path) => self.add_file(&path),
            KeyLocation::Pkcs11(uri) => {
                self.add_new(Box::new(TokenKey::open(*uri)?));
                Ok(())
            }
            KeyLocation::Command(uri) => {
                let public = uri.public.clone().ok_or_else(|| KeyError::Command {
                    program: uri.program.clone(),
                    why: "has no public key; add ?public=FILE.pub".to_owned(),
                })?;
                let key = file::read_public(&public)?;
                self.add_new(Box::new(CommandKey::new(key, uri)));
                Ok(())
            }
        }
    }

    fn add_file(&mut self, path: &Path) -> Result<(), KeyError> {
        let unlock = Unlock::from_env(PASSPHRASE_FILE);
        let key: Box<dyn SigningKey> = if path.extension().is_some_and(|e| e == URI_ENDING) {
            let public = file::read_public(&path.with_extension(PUBLIC_ENDING))?;
            match file::read_uri(path)? {
                KeyLocation::Pkcs11(uri) => Box::new(TokenKey::known(public, *uri)),
                KeyLocation::Command(uri) => Box::new(CommandKey::new(public, uri)),
                KeyLocation::File(_) => {
                    let why = "does not hold a pkcs11: or cmd: URI".to_owned();
                    return Err(KeyError::Uri { path: path.to_owned(), why });
                }
            }
        } else {
            Box::new(FileKey::open(path, &unlock)?)
        };
        self.add_new(key);
        Ok(())
    }

    fn add_new(&mut self, key: Box<dyn SigningKey>) {
        if self.find(&key.key().id()).is_none() {
            self.0.push(key);
        }
    }

    /// Adds a key.
    pub fn add(&mut self, secret: SecretKey) -> Result<(), KeyError> {
        let key = secret.key()?;
        self.0.push(Box::new(MemoryKey { key, secret }));
        Ok(())
    }

    /// The key of that id.
    pub fn find(&self, id: &KeyId) -> Option<&dyn SigningKey> {
        self.0.iter().find(|key| key.key().id() == *id).map(Box::as_ref)
    }

    /// Their key ids.
    pub fn ids(&self) -> BTreeSet<KeyId> {
        self.keys().map(Key::id).collect()
    }

    /// The public halves.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.0.iter().map(|key| key.key())
    }
}

/// The files of a directory that stand for keys, sorted: the order of a directory differs between
/// machines.
pub fn private_files(directory: &Path) -> Result<Vec<PathBuf>, KeyError> {
    let failed =
        |source| KeyError::Read { what: "folder of keys", path: directory.to_owned(), source };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|ending| ending == SECRET_ENDING || ending == URI_ENDING) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_key_is_only_opened_to_sign() {
        let dir = tempfile::tempdir().unwrap();
        let secret = SecretKey::from_seed(&[3; 32]);
        let cost = super::super::Cost { memory_kib: 19 << 10, passes: 2, lanes: 1 };
        let bytes = secret.to_sealed_bytes("open sesame", cost).unwrap();
        let key = secret.key().unwrap();
        file::create_from(dir.path(), "root", SECRET_ENDING, &bytes, &key).unwrap();
        let passphrase = dir.path().join("passphrase");
        std::fs::write(&passphrase, "open sesame\n").unwrap();
        let path = dir.path().join("root.key");
        let open = || FileKey::open(&path, &Unlock::File(passphrase.clone())).unwrap();
        let sealed = open();
        assert_eq!(sealed.key(), &key, "no passphrase was needed for that");
        let error = sign(&sealed, b"m").expect_err("others can read the passphrase");
        assert_eq!(error.reason(), formats::reason::Reason::InsecurePerms);
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&passphrase, std::fs::Permissions::from_mode(0o600)).unwrap();
        sign(&open(), b"m").unwrap();
        std::fs::write(&passphrase, "open barley\n").unwrap();
        let error = sign(&open(), b"m").expect_err("a wrong passphrase");
        assert!(matches!(error, KeyError::Document { .. }), "{error}");
    }

    /// Claims one key and signs with another, like a token in the wrong slot.
    struct Wrong(Key);

    impl SigningKey for Wrong {
        fn key(&self) -> &Key {
            &self.0
        }
        fn raw_signature(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
            Ok(SecretKey::from_seed(&[2; 32]).sign(message).to_vec())
        }
    }

    #[test]
    fn case_194_a_wrong_signature_never_leaves() {
        let wrong = Wrong(SecretKey::from_seed(&[1; 32]).key().unwrap());
        assert!(matches!(sign(&wrong, b"message"), Err(KeyError::BadSignature { .. })));
        let right = Wrong(SecretKey::from_seed(&[2; 32]).key().unwrap());
        assert!(sign(&right, b"message").is_ok());
    }
}
