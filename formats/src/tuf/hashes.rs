//! What a listing says about a file: hashes, length, version.

use std::collections::BTreeMap;

use super::TufError;
use super::fields::{Fields, int};
use crate::digest::{Algorithm, Digest, Sha256};
use crate::json::{Object, Value};

/// Hashes of one file by algorithm. Those of sha256 and sha512 are well-formed; others are kept
/// and ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashes(BTreeMap<String, String>);

impl Hashes {
    /// The one hash our own metadata carries.
    pub fn sha256(hash: Sha256) -> Self {
        Hashes(BTreeMap::from([("sha256".to_owned(), hash.to_hex())]))
    }

    /// The SHA-256, if listed.
    pub fn as_sha256(&self) -> Option<Sha256> {
        Sha256::from_hex(self.0.get("sha256")?).ok()
    }

    /// All hashes this reader knows, the strongest last.
    pub fn known(&self) -> Vec<Digest> {
        [Algorithm::Sha256, Algorithm::Sha512]
            .iter()
            .filter_map(|algorithm| {
                let hex = self.0.get(algorithm.name())?;
                format!("{}:{hex}", algorithm.name()).parse().ok()
            })
            .collect()
    }

    /// Whether `bytes` have *every* hash that is known, of which there must be one.
    pub fn check(&self, file: &str, bytes: &[u8]) -> Result<(), TufError> {
        let known = self.known();
        if known.is_empty() {
            return Err(TufError::NoUsableHash { file: file.to_owned() });
        }
        for digest in known {
            // The whole digest is compared. It is public, so nothing leaks by timing.
            if !digest.matches(bytes) {
                let algorithm = digest.algorithm().name();
                return Err(TufError::Hash { file: file.to_owned(), algorithm });
            }
        }
        Ok(())
    }

    fn read(fields: &Fields<'_>) -> Result<Self, TufError> {
        let mut hashes = BTreeMap::new();
        let listed = fields.object("hashes")?;
        for (algorithm, value) in listed.members() {
            let Some(hex) = value.as_str() else {
                return listed.refuse(algorithm, "is not a text");
            };
            let known = Algorithm::from_name(algorithm).is_ok();
            if known && format!("{algorithm}:{hex}").parse::<Digest>().is_err() {
                return listed.refuse(algorithm, "is not lower-case hexadecimal of its length");
            }
            hashes.insert(algorithm.clone(), hex.to_owned());
        }
        if hashes.is_empty() {
            return fields.refuse("hashes", "is empty");
        }
        Ok(Hashes(hashes))
    }

    fn to_value(&self) -> Value {
        Value::object(self.0.iter().map(|(name, hex)| (name, Value::from(hex.as_str()))))
    }
}

/// What a timestamp or snapshot says about one metadata file (TUF §4.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaFile {
    /// Its version, at least 1.
    pub version: u64,
    /// Its exact length in bytes. Ours always carry it.
    pub length: Option<u64>,
    /// Its hashes. Ours always carry sha256.
    pub hashes: Option<Hashes>,
    /// Members the specification does not name.
    pub unknown: Object,
}

impl MetaFile {
    /// The full listing of a file with these bytes.
    pub fn of(version: u64, bytes: &[u8]) -> Self {
        MetaFile {
            version,
            length: Some(bytes.len() as u64),
            hashes: Some(Hashes::sha256(Sha256::of(bytes))),
            unknown: Object::new(),
        }
    }

    /// Whether `bytes` have the listed length and every known listed hash.
    pub fn check(&self, file: &str, bytes: &[u8]) -> Result<(), TufError> {
        check_length(file, self.length, bytes)?;
        self.hashes.as_ref().map_or(Ok(()), |hashes| hashes.check(file, bytes))
    }

    pub(super) fn read(value: &Value, at: String) -> Result<Self, TufError> {
        let fields = Fields::of(value, at)?;
        Ok(MetaFile {
            version: fields.version("version")?,
            length: fields.optional("length").map(|_| fields.length("length")).transpose()?,
            hashes: fields.optional("hashes").map(|_| Hashes::read(&fields)).transpose()?,
            unknown: fields.unknown(&["version", "length", "hashes"]),
        })
    }

    pub(super) fn to_value(&self) -> Value {
        let mut out = self.unknown.clone();
        out.insert("version".into(), int(self.version));
        if let Some(length) = self.length {
            out.insert("length".into(), int(length));
        }
        if let Some(hashes) = &self.hashes {
            out.insert("hashes".into(), hashes.to_value());
        }
        Value::Object(out)
    }
}

/// What targets metadata says about one target (TUF §4.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetFile {
    /// Its exact length in bytes.
    pub length: u64,
    /// Its hashes.
    pub hashes: Hashes,
    /// What the project says about it; for ours see [`crate::release`].
    pub custom: Option<Value>,
    /// Members the specification does not name.
    pub unknown: Object,
}

impl TargetFile {
    /// The listing of a target with these bytes.
    pub fn of(bytes: &[u8], custom: Option<Value>) -> Self {
        TargetFile {
            length: bytes.len() as u64,
            hashes: Hashes::sha256(Sha256::of(bytes)),
            custom,
            unknown: Object::new(),
        }
    }

    /// Whether `bytes` are the target of this listing.
    pub fn check(&self, name: &str, bytes: &[u8]) -> Result<(), TufError> {
        check_length(name, Some(self.length), bytes)?;
        self.hashes.check(name, bytes)
    }

    pub(super) fn read(value: &Value, at: String) -> Result<Self, TufError> {
        let fields = Fields::of(value, at)?;
        Ok(TargetFile {
            length: fields.length("length")?,
            hashes: Hashes::read(&fields)?,
            custom: fields.optional("custom").cloned(),
            unknown: fields.unknown(&["length", "hashes", "custom"]),
        })
    }

    /// The same of a value that is not needed any more.
    pub(super) fn from_value(mut value: Value, at: String) -> Result<Self, TufError> {
        let custom = match &mut value {
            Value::Object(members) => members.remove("custom"),
            _ => None,
        };
        Ok(TargetFile { custom, ..Self::read(&value, at)? })
    }

    pub(super) fn to_value(&self) -> Value {
        let mut out = self.unknown.clone();
        out.insert("length".into(), int(self.length));
        out.insert("hashes".into(), self.hashes.to_value());
        if let Some(custom) = &self.custom {
            out.insert("custom".into(), custom.clone());
        }
        Value::Object(out)
    }
}

fn check_length(file: &str, signed: Option<u64>, bytes: &[u8]) -> Result<(), TufError> {
    match signed {
        Some(signed) if signed != bytes.len() as u64 => {
            Err(TufError::Length { file: file.to_owned(), signed })
        }
        _ => Ok(()),
    }
}
