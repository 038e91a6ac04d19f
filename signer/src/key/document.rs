//! What stands in a key file.
//!
//! One JSON object; unknown members are refused, so that a file from a newer signer is not
//! half understood.
//!
//! | member | value |
//! |---|---|
//! | `type` | `"racklet-key-1"` |
//! | `keytype`, `scheme` | `"ed25519"` |
//! | `public` | 64 hexadecimal digits; must be the public half of `secret` |
//! | `protection` | `"none"`: `secret` is the key itself. A passphrase will put an object here that names the key derivation function, its cost, salt and nonce; this reader refuses it by name |
//! | `secret` | 64 hexadecimal digits: the seed of RFC 8032 §5.1.5 |

use ed25519_dalek::Signer as _;
use formats::digest::{hex, unhex};
use formats::tuf::Key;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::KeyError;

const TYPE: &str = "racklet-key-1";

/// Why bytes are not a key file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Not JSON with exactly the members of a key file. Says no more: the text holds a secret.
    #[error("is not a key file (line {line}, column {column})")]
    Form {
        /// Where the parser stopped.
        line: usize,
        /// Where the parser stopped.
        column: usize,
    },
    /// Another type, algorithm or protection than this program knows.
    #[error("{member} {found:?} is not known to this program; a newer one may read it")]
    Unknown {
        /// Which member.
        member: &'static str,
        /// Its value.
        found: String,
    },
    /// A value is not 32 bytes in lower-case hexadecimal.
    #[error("{0} is not 64 lower-case hexadecimal digits")]
    Hex(&'static str),
    /// The halves do not belong together: the file was edited or is damaged.
    #[error("the public half does not belong to the secret half")]
    Halves,
    /// A public key file that is not a TUF ed25519 key.
    #[error("is not a public key file: {0}")]
    Public(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    #[serde(rename = "type")]
    kind: String,
    keytype: String,
    scheme: String,
    public: String,
    protection: serde_json::Value,
    secret: SecretText,
}

/// The digits of a secret; wiped when dropped.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct SecretText(String);

impl Drop for SecretText {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// The secret half of an ed25519 key, wiped from memory when dropped and never printed.
pub struct SecretKey(ed25519_dalek::SigningKey);

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretKey of {}", hex(&self.public()))
    }
}

impl SecretKey {
    /// A fresh key from the operating system's random numbers.
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut_slice())
            .map_err(|error| KeyError::Random(error.to_string()))?;
        Ok(Self::from_seed(&seed))
    }

    /// The key of a seed (RFC 8032 §5.1.5).
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        SecretKey(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The public half.
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// The public half as a TUF key object.
    pub fn key(&self) -> Result<Key, KeyError> {
        Key::ed25519(&self.public()).map_err(|error| KeyError::Weak(error.to_string()))
    }

    /// A signature, not yet verified.
    pub(super) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }

    /// Reads a key file.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let file: KeyFile = serde_json::from_slice(bytes)
            .map_err(|error| DocumentError::Form { line: error.line(), column: error.column() })?;
        let known = [
            ("type", file.kind.as_str(), TYPE),
            ("keytype", file.keytype.as_str(), "ed25519"),
            ("scheme", file.scheme.as_str(), "ed25519"),
        ];
        for (member, found, expected) in known {
            if found != expected {
                let found = found.chars().take(40).collect();
                return Err(DocumentError::Unknown { member, found });
            }
        }
        if file.protection != "none" {
            let found = file.protection.to_string().chars().take(40).collect();
            return Err(DocumentError::Unknown { member: "protection", found });
        }
        let seed = Zeroizing::new(
            unhex(&file.secret.0)
                .and_then(|seed| <[u8; 32]>::try_from(Zeroizing::new(seed).as_slice()).ok())
                .ok_or(DocumentError::Hex("secret"))?,
        );
        let public = unhex(&file.public).ok_or(DocumentError::Hex("public"))?;
        let key = Self::from_seed(&seed);
        if key.public().as_slice() == public { Ok(key) } else { Err(DocumentError::Halves) }
    }

    /// The bytes of its key file.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let file = KeyFile {
            kind: TYPE.to_owned(),
            keytype: "ed25519".to_owned(),
            scheme: "ed25519".to_owned(),
            public: hex(&self.public()),
            protection: "none".into(),
            secret: SecretText(hex(self.0.as_bytes())),
        };
        // Enough from the start: growing would leave copies of the secret behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(1024));
        serde_json::to_writer_pretty(&mut *bytes, &file).expect("strings always serialise");
        bytes.push(b'\n');
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_round_trips() {
        let key = SecretKey::from_seed(&[7; 32]);
        let bytes = key.to_bytes();
        assert_eq!(SecretKey::parse(&bytes).unwrap().public(), key.public());
        insta::assert_snapshot!(std::str::from_utf8(&bytes).unwrap());
    }

    #[test]
    fn two_keys_differ() {
        let [a, b] = [(); 2].map(|()| SecretKey::generate().unwrap().public());
        assert_ne!(a, b);
    }

    #[test]
    fn damaged_and_unknown_files_are_refused() {
        let text = String::from_utf8(SecretKey::from_seed(&[7; 32]).to_bytes().to_vec()).unwrap();
        let other = hex(&SecretKey::from_seed(&[8; 32]).public());
        let own = hex(&SecretKey::from_seed(&[7; 32]).public());
        let secret = hex(&[7; 32]);
        let rows = [
            ("empty", String::new()),
            ("cut off", text[..text.len() / 2].to_owned()),
            ("type", text.replace("racklet-key-1", "racklet-key-2")),
            ("scheme", text.replace("\"scheme\": \"ed25519\"", "\"scheme\": \"ecdsa\"")),
            ("passphrase", text.replace("\"none\"", "{\"kdf\": \"argon2id\"}")),
            ("unknown member", text.replace("\"type\"", "\"x\": 1, \"type\"")),
            ("secret too short", text.replace(&secret, &secret[2..])),
            ("secret in upper case", text.replace(&own, &own.to_uppercase())),
            ("another public half", text.replace(&own, &other)),
        ];
        for (name, text) in rows {
            let error = SecretKey::parse(text.as_bytes()).map(|_| ()).expect_err(name);
            assert!(!error.to_string().contains(&secret[..8]), "{name} shows the secret");
        }
    }
}
