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
//! | `protection` | `"none"`: `secret` is the key itself; an object: how it is encrypted, see `seal` |
//! | `secret` | 64 hexadecimal digits: the seed of RFC 8032 §5.1.5; encrypted: 96, the tag last |

use ed25519_dalek::Signer as _;
use formats::digest::{hex, unhex};
use formats::tuf::Key;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::KeyError;
use super::seal::{Cost, Floor, Protection};

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
    /// Cheaper to guess than this program accepts: from an old program, or a file that was
    /// meddled with.
    #[error(
        "its passphrase is protected by argon2id with {memory_kib} KiB and {passes} passes only, at least {} KiB and {} passes are needed; renew it with `signer key passphrase`",
        floor.memory_kib, floor.passes
    )]
    KdfFloor {
        /// KiB of memory in the file.
        memory_kib: u32,
        /// Passes in the file.
        passes: u32,
        /// The least accepted.
        floor: Cost,
    },
    /// So costly that opening it would stop the machine.
    #[error("its key derivation asks for more than 1 GiB, 16 passes or 16 lanes")]
    KdfExcess,
    /// The passphrase does not open it.
    #[error("cannot be opened: the passphrase is wrong, or the file was changed")]
    Passphrase,
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
    protection: ProtectionMember,
    secret: SecretText,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum ProtectionMember {
    Word(String),
    Sealed(Protection),
    Other(serde_json::Value),
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

    /// The bytes of its key file, without a passphrase.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let protection = ProtectionMember::Word("none".to_owned());
        self.file(protection, SecretText(hex(self.0.as_bytes())))
    }

    /// The bytes of its key file under a passphrase.
    pub fn to_sealed_bytes(
        &self,
        passphrase: &str,
        cost: Cost,
    ) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        self.sealed(passphrase, Protection::fresh(cost)?)
    }

    fn sealed(
        &self,
        passphrase: &str,
        protection: Protection,
    ) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let sealed = protection.seal(&self.public(), passphrase, self.0.as_bytes())?;
        Ok(self.file(ProtectionMember::Sealed(protection), SecretText(hex(&sealed))))
    }

    fn file(&self, protection: ProtectionMember, secret: SecretText) -> Zeroizing<Vec<u8>> {
        let file = KeyFile {
            kind: TYPE.to_owned(),
            keytype: "ed25519".to_owned(),
            scheme: "ed25519".to_owned(),
            public: hex(&self.public()),
            protection,
            secret,
        };
        // Enough from the start: growing would leave copies of the secret behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(2048));
        serde_json::to_writer_pretty(&mut *bytes, &file).expect("strings always serialise");
        bytes.push(b'\n');
        bytes
    }
}

/// A key file that was read: its public half, and the secret one, open or not.
#[derive(Debug)]
pub struct KeyDocument {
    public: [u8; 32],
    secret: Held,
}

#[derive(Debug)]
enum Held {
    Open(SecretKey),
    Sealed(Protection, Vec<u8>),
}

impl KeyDocument {
    /// Reads a key file. The public half of an encrypted one is only proved when it is opened.
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
        let public = unhex(&file.public).and_then(|public| <[u8; 32]>::try_from(public).ok());
        let public = public.ok_or(DocumentError::Hex("public"))?;
        let secret = Zeroizing::new(unhex(&file.secret.0).ok_or(DocumentError::Hex("secret"))?);
        let secret = match file.protection {
            ProtectionMember::Word(word) if word == "none" => Held::Open(paired(&secret, &public)?),
            ProtectionMember::Sealed(protection) => {
                protection.check()?;
                if secret.len() != 48 {
                    return Err(DocumentError::Hex("encrypted secret"));
                }
                Held::Sealed(protection, secret.to_vec())
            }
            ProtectionMember::Word(found) => return Err(unknown_protection(&found)),
            ProtectionMember::Other(found) => return Err(unknown_protection(&found.to_string())),
        };
        Ok(KeyDocument { public, secret })
    }

    /// The public half as a TUF key object.
    pub fn key(&self) -> Result<Key, KeyError> {
        Key::ed25519(&self.public).map_err(|error| KeyError::Weak(error.to_string()))
    }

    /// Whether it takes a passphrase to open it.
    pub fn is_sealed(&self) -> bool {
        matches!(self.secret, Held::Sealed(..))
    }

    /// The secret half. `passphrase` is asked for only if there is need of one.
    pub fn open<E: From<DocumentError>>(
        &self,
        floor: Floor,
        passphrase: impl FnOnce() -> Result<Zeroizing<String>, E>,
    ) -> Result<SecretKey, E> {
        match &self.secret {
            Held::Open(key) => Ok(SecretKey::from_seed(key.0.as_bytes())),
            Held::Sealed(protection, sealed) => {
                let text = passphrase()?;
                let seed = protection.open(&self.public, &text, sealed, floor)?;
                Ok(paired(seed.as_slice(), &self.public)?)
            }
        }
    }
}

fn unknown_protection(found: &str) -> DocumentError {
    DocumentError::Unknown { member: "protection", found: found.chars().take(40).collect() }
}

/// The key of a seed, if that is its public half.
fn paired(seed: &[u8], public: &[u8; 32]) -> Result<SecretKey, DocumentError> {
    let mut bytes = Zeroizing::new([0; 32]);
    if seed.len() != bytes.len() {
        return Err(DocumentError::Hex("secret"));
    }
    bytes.copy_from_slice(seed);
    let key = SecretKey::from_seed(&bytes);
    if key.public() == *public { Ok(key) } else { Err(DocumentError::Halves) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cheap enough for a test of many rows, and not below the floor.
    const CHEAP: Cost = Cost { memory_kib: 19 << 10, passes: 2, lanes: 1 };

    fn open(bytes: &[u8], passphrase: &str) -> Result<SecretKey, DocumentError> {
        let passphrase = || Ok(Zeroizing::new(passphrase.to_owned()));
        KeyDocument::parse(bytes)?.open(Floor::Required, passphrase)
    }

    fn sealed(cost: Cost) -> String {
        let protection = Protection::with(cost, &[1; 16], &[2; 24]);
        let bytes = SecretKey::from_seed(&[7; 32]).sealed("correct horse", protection).unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn a_sealed_key_file_round_trips() {
        let text = sealed(CHEAP);
        insta::assert_snapshot!(text);
        let document = KeyDocument::parse(text.as_bytes()).unwrap();
        assert!(document.is_sealed());
        assert_eq!(document.key().unwrap(), SecretKey::from_seed(&[7; 32]).key().unwrap());
        let key = open(text.as_bytes(), "correct horse").unwrap();
        assert_eq!(key.public(), SecretKey::from_seed(&[7; 32]).public());
        let again = SecretKey::from_seed(&[7; 32]).to_sealed_bytes("correct horse", CHEAP).unwrap();
        assert_ne!(again.as_slice(), text.as_bytes(), "salt and nonce are fresh");
        assert!(!text.contains(&hex(&[7; 8])), "the secret is encrypted");
    }

    #[test]
    fn case_193_wrong_passphrases_old_costs_and_meddling_are_told_apart() {
        let text = sealed(CHEAP);
        let other = hex(&SecretKey::from_seed(&[8; 32]).public());
        let own = hex(&SecretKey::from_seed(&[7; 32]).public());
        let weak = sealed(Cost { memory_kib: 4096, passes: 1, lanes: 1 });
        let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
        value["secret"] = "00".repeat(20).into();
        let cut = value.to_string();
        let rows: Vec<(&str, String, &str, &str)> = vec![
            ("wrong passphrase", text.clone(), "correct Horse", "passphrase is wrong"),
            ("no passphrase", text.clone(), "", "passphrase is wrong"),
            (
                "public half exchanged",
                text.replace(&own, &other),
                "correct horse",
                "passphrase is wrong",
            ),
            (
                "salt changed",
                text.replacen("0101", "0201", 1),
                "correct horse",
                "passphrase is wrong",
            ),
            ("truncated", text[..text.len() - 40].to_owned(), "correct horse", "not a key file"),
            ("secret cut", cut, "correct horse", "encrypted secret"),
            ("old cost", weak, "correct horse", "at least 19456 KiB and 2 passes"),
            ("absurd cost", text.replace("19456", "99999999"), "correct horse", "more than 1 GiB"),
            ("no lanes", text.replace("\"lanes\": 1", "\"lanes\": 0"), "correct horse", "lanes"),
            (
                "another kdf",
                text.replace("argon2id", "argon2d"),
                "correct horse",
                "kdf \"argon2d\" is not known",
            ),
            (
                "another cipher",
                text.replace("xchacha20-poly1305", "rot13"),
                "correct horse",
                "cipher \"rot13\"",
            ),
            ("short nonce", text.replacen("0202", "", 1), "correct horse", "salt or nonce"),
        ];
        for (name, text, passphrase, said) in rows {
            let error = open(text.as_bytes(), passphrase).map(drop).expect_err(name);
            assert!(error.to_string().contains(said), "{name}: {error}");
        }
    }

    #[test]
    fn an_old_cost_can_be_renewed() {
        let weak = sealed(Cost { memory_kib: 4096, passes: 1, lanes: 1 });
        let passphrase = || Ok::<_, DocumentError>(Zeroizing::new("correct horse".to_owned()));
        let document = KeyDocument::parse(weak.as_bytes()).unwrap();
        let key = document.open(Floor::Waived, passphrase).unwrap();
        assert_eq!(key.public(), SecretKey::from_seed(&[7; 32]).public());
    }

    #[test]
    fn a_key_file_round_trips() {
        let key = SecretKey::from_seed(&[7; 32]);
        let bytes = key.to_bytes();
        assert_eq!(open(&bytes, "").unwrap().public(), key.public());
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
            let error = KeyDocument::parse(text.as_bytes()).map(|_| ()).expect_err(name);
            assert!(!error.to_string().contains(&secret[..8]), "{name} shows the secret");
        }
    }
}
