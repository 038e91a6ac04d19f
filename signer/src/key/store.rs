//! Keys at hand, and the one function that signs.

use std::path::Path;

use formats::tuf::{Key, KeyId, Signature};

use super::{KeyError, SECRET_ENDING, SecretKey, file};

/// Something that can sign: a key file today; a token or a command later.
pub trait SigningKey {
    /// The public half, as root metadata lists it.
    fn key(&self) -> &Key;

    /// A signature over `message`. Only [`sign`] calls this, and verifies what comes back.
    fn raw_signature(&self, message: &[u8]) -> Result<Vec<u8>, KeyError>;
}

/// A key that was read from a file.
struct FileKey {
    key: Key,
    secret: SecretKey,
}

impl SigningKey for FileKey {
    fn key(&self) -> &Key {
        &self.key
    }

    fn raw_signature(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        Ok(self.secret.sign(message).to_vec())
    }
}

/// Signs, and verifies the signature before anybody sees it (threats 194).
pub fn sign(key: &dyn SigningKey, message: &[u8]) -> Result<Signature, KeyError> {
    let signature = key.raw_signature(message)?;
    let keyid = key.key().id();
    if key.key().public().verifies(message, &signature) {
        Ok(Signature::new(keyid, &signature))
    } else {
        Err(KeyError::BadSignature { keyid: keyid.to_string() })
    }
}

/// The signing keys at hand. Which of them signs what is decided by root metadata, never by the
/// name of a file.
#[derive(Default)]
pub struct KeyStore(Vec<Box<dyn SigningKey>>);

impl std::fmt::Debug for KeyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| key.key().id())).finish()
    }
}

impl KeyStore {
    /// All `*.key` files of a directory. One that cannot be used is an error: a key that is
    /// silently left out is missed at the worst moment.
    pub fn open(directory: &Path) -> Result<Self, KeyError> {
        let failed = |source| KeyError::Read { path: directory.to_owned(), source };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|ending| ending == SECRET_ENDING) {
                paths.push(path);
            }
        }
        // The order of a directory differs between machines.
        paths.sort();
        let mut store = KeyStore::default();
        for path in paths {
            store.add(file::read(&path)?)?;
        }
        Ok(store)
    }

    /// Adds a key.
    pub fn add(&mut self, secret: SecretKey) -> Result<(), KeyError> {
        let key = secret.key()?;
        self.0.push(Box::new(FileKey { key, secret }));
        Ok(())
    }

    /// Adds any other kind of key.
    pub fn add_signing_key(&mut self, key: Box<dyn SigningKey>) {
        self.0.push(key);
    }

    /// The key of that id.
    pub fn find(&self, id: &KeyId) -> Option<&dyn SigningKey> {
        self.0.iter().find(|key| key.key().id() == *id).map(Box::as_ref)
    }

    /// The public halves.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.0.iter().map(|key| key.key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
