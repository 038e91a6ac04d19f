//! Which keys may sign for a role, how many of them must, and whether they did.

use std::collections::BTreeMap;

use super::fields::{Fields, int};
use super::{Envelope, Key, KeyId, PublicKey, Role, TufError};
use crate::json::{Object, Value};

/// Most keys one document may list: bounds the work of reading them.
pub const MAX_KEYS: usize = 1024;

/// 8 KiB: the longest key object in its canonical form. RSA of 8192 bits takes 1.5 KiB.
const MAX_KEY: usize = 8 << 10;

/// The keys of one document by key id, ids recomputed.
pub type Keys = BTreeMap<KeyId, Key>;

/// Who may sign for a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleKeys {
    /// Key ids, none twice. One that the document has no key for counts zero.
    pub keyids: Vec<KeyId>,
    /// How many distinct public keys must sign, at least 1.
    pub threshold: u32,
    /// Members the specification does not name.
    pub unknown: Object,
}

impl RoleKeys {
    /// `threshold` of these keys.
    pub fn new(threshold: u32, keyids: impl IntoIterator<Item = KeyId>) -> Self {
        RoleKeys { keyids: keyids.into_iter().collect(), threshold, unknown: Object::new() }
    }

    /// Whether enough distinct public keys of this role signed `envelope`.
    ///
    /// A signature that is malformed, wrong, or of another key counts zero and does no harm
    /// beside enough good ones (TUF §5.3.4). A threshold above the number of keys is refused
    /// here and not when the list is read: such a list may be signed, and refusing the root
    /// that carries it would leave a node behind the root that mends it.
    pub fn verify(&self, keys: &Keys, role: &Role, envelope: &Envelope) -> Result<(), TufError> {
        if self.threshold as usize > self.keyids.len() {
            return Err(TufError::ThresholdUnreachable {
                role: role.clone(),
                keys: self.keyids.len(),
                threshold: self.threshold,
            });
        }
        let mut signed: Vec<&PublicKey> = Vec::new();
        for signature in envelope.signatures() {
            let key = signature
                .keyid
                .parse()
                .ok()
                .filter(|keyid| self.keyids.contains(keyid))
                .and_then(|keyid| keys.get(&keyid));
            let (Some(key), Some(bytes)) = (key, signature.bytes()) else { continue };
            // `read_roles` refuses one key under two ids; counted once here all the same.
            if !signed.contains(&key.public())
                && key.public().verifies(envelope.canonical(), &bytes)
            {
                signed.push(key.public());
            }
        }
        if signed.len() < self.threshold as usize {
            return Err(TufError::Threshold {
                role: role.clone(),
                valid: signed.len(),
                threshold: self.threshold,
            });
        }
        Ok(())
    }

    /// Reads `keyids` and `threshold` of an object.
    ///
    /// Errors: [`TufError::KeyDuplicate`] for a key id twice, or two ids of one public key:
    /// whoever holds that key would count twice.
    pub(super) fn read(fields: &Fields<'_>, keys: &Keys, known: &[&str]) -> Result<Self, TufError> {
        let threshold = fields.threshold("threshold")?;
        let listed = fields.texts("keyids")?;
        if listed.len() > MAX_KEYS {
            return Err(TufError::Limit { what: "key ids of a role", limit: MAX_KEYS });
        }
        let mut keyids: Vec<KeyId> = Vec::with_capacity(listed.len());
        for text in listed {
            let Ok(keyid) = text.parse::<KeyId>() else {
                return fields.refuse("keyids", "holds something other than 64 hexadecimal digits");
            };
            let twin = keyids.iter().find(|other| {
                **other == keyid
                    || matches!((keys.get(other), keys.get(&keyid)), (Some(a), Some(b))
                        if a.public() == b.public() && *a.public() != PublicKey::Unknown)
            });
            if let Some(twin) = twin {
                return Err(TufError::KeyDuplicate {
                    at: fields.at("keyids"),
                    first: twin.to_string(),
                    second: keyid.to_string(),
                });
            }
            keyids.push(keyid);
        }
        let known = [&["keyids", "threshold"], known].concat();
        Ok(RoleKeys { keyids, threshold, unknown: fields.unknown(&known) })
    }

    /// The object's members, to which the caller adds its own.
    pub(super) fn to_members(&self) -> Object {
        let mut out = self.unknown.clone();
        let keyids = self.keyids.iter().map(|keyid| Value::from(keyid.to_string()));
        out.insert("keyids".into(), Value::Array(keyids.collect()));
        out.insert("threshold".into(), int(self.threshold.into()));
        out
    }
}

/// Reads the member `keys`, recomputing every key id.
pub(super) fn read_keys(fields: &Fields<'_>) -> Result<Keys, TufError> {
    let listed = fields.object("keys")?;
    if listed.members().count() > MAX_KEYS {
        return Err(TufError::Limit { what: "keys", limit: MAX_KEYS });
    }
    let mut keys = Keys::new();
    for (name, value) in listed.members() {
        if value.canonical().len() > MAX_KEY {
            return Err(TufError::Limit { what: "bytes of a key", limit: MAX_KEY });
        }
        let key = Key::read(value)?;
        if *name != key.id().to_string() {
            let listed = name.chars().take(80).collect();
            return Err(TufError::KeyidMismatch { listed, computed: key.id() });
        }
        keys.insert(key.id(), key);
    }
    Ok(keys)
}

pub(super) fn keys_to_value(keys: &Keys) -> Value {
    Value::object(keys.iter().map(|(keyid, key)| (keyid.to_string(), key.value().clone())))
}
