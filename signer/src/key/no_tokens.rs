//! In the place of `pkcs11`, for programs that sign with files alone.

use formats::tuf::Key;

use super::uri::Pkcs11Uri;
use super::{KeyError, SigningKey, TokenKeyKind};

/// A key in a token, which is out of reach.
pub(super) struct TokenKey {
    key: Key,
    uri: Pkcs11Uri,
}

impl TokenKey {
    pub(super) fn open(uri: Pkcs11Uri) -> Result<Self, KeyError> {
        Err(absent(&uri))
    }

    pub(super) fn known(key: Key, uri: Pkcs11Uri) -> Self {
        TokenKey { key, uri }
    }
}

impl SigningKey for TokenKey {
    fn key(&self) -> &Key {
        &self.key
    }

    fn raw_signature(&self, _message: &[u8]) -> Result<Vec<u8>, KeyError> {
        Err(absent(&self.uri))
    }
}

/// Makes a key inside a token: not here.
pub fn generate(uri: &Pkcs11Uri, _kind: TokenKeyKind) -> Result<Key, KeyError> {
    Err(absent(uri))
}

fn absent(uri: &Pkcs11Uri) -> KeyError {
    let why = "this program is built without PKCS#11".to_owned();
    let token = uri.token.clone().unwrap_or_else(|| "(any)".to_owned());
    KeyError::Token { token, why }
}
