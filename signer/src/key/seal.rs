//! A secret under a passphrase: Argon2id (RFC 9106) makes the key, XChaCha20-Poly1305 encrypts.
//!
//! ```json
//! "protection": {"kdf": "argon2id", "memory_kib": 65536, "passes": 3, "lanes": 4, "salt": "…",
//!                "cipher": "xchacha20-poly1305", "nonce": "…"}
//! ```
//!
//! The public half and the whole object above are authenticated with the secret, so that nobody
//! who can write the file makes the next reader weaken it.

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use formats::digest::{hex, unhex};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{DocumentError, KeyError};

const KDF: &str = "argon2id";
const CIPHER: &str = "xchacha20-poly1305";
const TAG: usize = 16;
const SEED: usize = 32;

/// The least that is opened for signing: 19 MiB and 2 passes (OWASP's minimum for Argon2id).
const FLOOR: Cost = Cost { memory_kib: 19 << 10, passes: 2, lanes: 1 };
/// The most that is opened: 1 GiB, 16 passes. A file cannot make the reader swap or hang.
const CEILING: Cost = Cost { memory_kib: 1 << 20, passes: 16, lanes: 16 };

/// What a guess costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// KiB of memory.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Default for Cost {
    /// The second recommended option of RFC 9106 §4: 64 MiB, 3 passes, 4 lanes.
    fn default() -> Self {
        Cost { memory_kib: 64 << 10, passes: 3, lanes: 4 }
    }
}

/// How a secret is encrypted, as it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Protection {
    kdf: String,
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: String,
    cipher: String,
    nonce: String,
}

/// Whether a file below the floor is opened: only to write it anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Floor {
    /// Refuse it.
    Required,
    /// Open it all the same.
    Waived,
}

impl Protection {
    /// Salt and nonce from the system's random numbers.
    pub(super) fn fresh(cost: Cost) -> Result<Self, KeyError> {
        let (mut salt, mut nonce) = ([0; 16], [0; 24]);
        for bytes in [salt.as_mut_slice(), nonce.as_mut_slice()] {
            getrandom::fill(bytes).map_err(|error| KeyError::Random(error.to_string()))?;
        }
        Ok(Self::with(cost, &salt, &nonce))
    }

    pub(super) fn with(cost: Cost, salt: &[u8; 16], nonce: &[u8; 24]) -> Self {
        Protection {
            kdf: KDF.to_owned(),
            memory_kib: cost.memory_kib,
            passes: cost.passes,
            lanes: cost.lanes,
            salt: hex(salt),
            cipher: CIPHER.to_owned(),
            nonce: hex(nonce),
        }
    }

    /// Refuses what this program does not know, and costs out of bounds, before any work is done.
    pub(super) fn check(&self) -> Result<(), DocumentError> {
        for (member, found, known) in [("kdf", &self.kdf, KDF), ("cipher", &self.cipher, CIPHER)] {
            if found != known {
                let found = found.chars().take(40).collect();
                return Err(DocumentError::Unknown { member, found });
            }
        }
        let within = self.memory_kib <= CEILING.memory_kib
            && self.passes <= CEILING.passes
            && (1..=CEILING.lanes).contains(&self.lanes);
        if !within {
            return Err(DocumentError::KdfExcess);
        }
        let salt_and_nonce = (unhex(&self.salt).map(|s| s.len()), self.nonce.len());
        if salt_and_nonce != (Some(16), 48) || unhex(&self.nonce).is_none() {
            return Err(DocumentError::Hex("salt or nonce"));
        }
        Ok(())
    }

    fn below_floor(&self) -> bool {
        self.memory_kib < FLOOR.memory_kib || self.passes < FLOOR.passes
    }

    /// Encrypts a seed; the result ends with the tag.
    pub(super) fn seal(
        &self,
        public: &[u8; SEED],
        passphrase: &str,
        seed: &[u8; SEED],
    ) -> Result<Vec<u8>, KeyError> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(SEED + TAG));
        bytes.extend_from_slice(seed);
        let (cipher, nonce) = self.cipher(passphrase)?;
        cipher
            .encrypt_in_place(&nonce, &self.associated(public), &mut *bytes)
            .map_err(|_| KeyError::Random("the cipher refused 32 bytes".to_owned()))?;
        Ok(bytes.to_vec())
    }

    /// Decrypts a seed. A wrong passphrase and a changed file cannot be told apart.
    pub(super) fn open(
        &self,
        public: &[u8; SEED],
        passphrase: &str,
        sealed: &[u8],
        floor: Floor,
    ) -> Result<Zeroizing<[u8; SEED]>, DocumentError> {
        self.check()?;
        if floor == Floor::Required && self.below_floor() {
            return Err(DocumentError::KdfFloor {
                memory_kib: self.memory_kib,
                passes: self.passes,
                floor: FLOOR,
            });
        }
        let (cipher, nonce) = self.cipher(passphrase).map_err(|_| DocumentError::KdfExcess)?;
        let mut bytes = Zeroizing::new(sealed.to_vec());
        cipher
            .decrypt_in_place(&nonce, &self.associated(public), &mut *bytes)
            .map_err(|_| DocumentError::Passphrase)?;
        let mut seed = Zeroizing::new([0; SEED]);
        if bytes.len() != SEED {
            return Err(DocumentError::Passphrase);
        }
        seed.copy_from_slice(&bytes);
        Ok(seed)
    }

    fn cipher(&self, passphrase: &str) -> Result<(XChaCha20Poly1305, XNonce), KeyError> {
        let refused = |error: argon2::Error| KeyError::Random(format!("argon2id: {error}"));
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(SEED));
        let kdf = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.map_err(refused)?);
        let salt = unhex(&self.salt).unwrap_or_default();
        let mut key = Zeroizing::new([0; SEED]);
        kdf.hash_password_into(passphrase.as_bytes(), &salt, key.as_mut_slice())
            .map_err(refused)?;
        let nonce: [u8; 24] = unhex(&self.nonce)
            .and_then(|nonce| nonce.try_into().ok())
            .ok_or_else(|| KeyError::Random("a nonce has 24 bytes".to_owned()))?;
        // Borrowed: the array it is borrowed from is wiped.
        let key: &Key = (&*key).into();
        Ok((XChaCha20Poly1305::new(key), XNonce::from(nonce)))
    }

    /// Everything beside the secret, in one unambiguous text.
    fn associated(&self, public: &[u8; SEED]) -> Vec<u8> {
        let mut text = format!("racklet-key-1\n{}\n", hex(public)).into_bytes();
        serde_json::to_writer(&mut text, self).expect("texts and numbers always serialise");
        text
    }
}
