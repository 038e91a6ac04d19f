//! Delegations: who else may sign for which target names (TUF §4.5; TAP 15 for hash bins).

use std::cell::LazyCell;
use std::collections::BTreeSet;

use super::fields::{Fields, int};
use super::names::shown;
use super::pattern::pattern_matches;
use super::threshold::{Keys, RoleKeys, keys_to_value, read_keys};
use super::{Role, TufError};
use crate::digest::Sha256;
use crate::json::{Object, Value};

/// Most patterns and hash prefixes of one role, and longest pattern in bytes: bound the work
/// of one lookup.
pub const MAX_PATTERNS: usize = 16_384;
const MAX_PATTERN: usize = 4096;

/// The delegations of one targets role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegations {
    /// Keys of the delegated roles.
    pub keys: Keys,
    /// To whom.
    pub to: DelegatedTo,
    /// Members the specification does not name.
    pub unknown: Object,
}

/// Either named roles or hash bins, never both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DelegatedTo {
    /// Named roles in order of priority, names distinct.
    Roles(Vec<DelegatedRole>),
    /// Every target name belongs to one of 2^n bins by its hash.
    Succinct(SuccinctRoles),
}

/// A named delegated role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelegatedRole {
    /// Always [`Role::Delegated`].
    pub role: Role,
    /// Who may sign for it.
    pub keys: RoleKeys,
    /// Which target names.
    pub paths: Paths,
    /// Whether no later role is asked for a name that this one covers, even if it does not
    /// list it.
    pub terminating: bool,
}

/// The target names of a delegated role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Paths {
    /// Names that match any of these patterns.
    Patterns(Vec<String>),
    /// Names whose SHA-256 begins with any of these hexadecimal digits.
    HashPrefixes(HashPrefixes),
}

/// Hexadecimal digits that the SHA-256 of target names begins with, as they are written down.
///
/// Many of one length in ascending order are searched by halves: a repository may divide tens of
/// thousands of names among its roles in this way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashPrefixes {
    written: Vec<String>,
    /// Their length, if all have the same one and they ascend.
    even: Option<usize>,
}

impl From<Vec<String>> for HashPrefixes {
    fn from(written: Vec<String>) -> Self {
        let len = written.first().map(String::len);
        let same = written.iter().all(|prefix| Some(prefix.len()) == len);
        let even = len.filter(|_| same && written.is_sorted());
        HashPrefixes { written, even }
    }
}

impl HashPrefixes {
    /// The first `digits` of each name's hash; ascending, no duplicates. They cover those names, and
    /// each other name by chance once in 16^digits for each of them.
    pub fn of_names<'a>(names: impl Iterator<Item = &'a str>, digits: usize) -> Self {
        let first = |name| hash_of(name).chars().take(digits).collect::<String>();
        let all: BTreeSet<String> = names.map(first).collect();
        all.into_iter().collect::<Vec<_>>().into()
    }

    /// The prefixes in the order in which they are written.
    pub fn as_slice(&self) -> &[String] {
        &self.written
    }

    /// Whether any of them begins these 64 hexadecimal digits.
    fn begin(&self, hash: &str) -> bool {
        match self.even {
            Some(len) => hash.get(..len).is_some_and(|start| {
                self.written.binary_search_by(|prefix| prefix.as_str().cmp(start)).is_ok()
            }),
            None => self.written.iter().any(|prefix| hash.starts_with(prefix.as_str())),
        }
    }
}

/// Hash bins of equal rights: role `<prefix>-<bin in hexadecimal>` signs for the names whose
/// SHA-256 begins with the bin's `bit_length` bits. Always terminating.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuccinctRoles {
    /// Who may sign for every bin.
    pub keys: RoleKeys,
    /// 1 to 32.
    pub bit_length: u32,
    /// What the bins' names begin with.
    pub name_prefix: String,
}

/// One step of a lookup: a role that was given the name asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegated<'a> {
    /// Which role.
    pub role: Role,
    /// Who may sign for it, says this delegator.
    pub keys: &'a RoleKeys,
    /// Whether the lookup ends with it and what it delegates to.
    pub terminating: bool,
}

impl Delegations {
    /// Delegations to named roles, to be written.
    pub fn to_roles(keys: Keys, roles: Vec<DelegatedRole>) -> Self {
        Delegations { keys, to: DelegatedTo::Roles(roles), unknown: Object::new() }
    }

    /// The roles that were given `name`, in order of priority.
    pub fn covering(&self, name: &str) -> Vec<Delegated<'_>> {
        match &self.to {
            DelegatedTo::Roles(roles) => {
                let hash = LazyCell::new(|| hash_of(name));
                let covering = roles.iter().filter(|role| role.paths.cover_hashed(name, &hash));
                covering
                    .map(|role| Delegated {
                        role: role.role.clone(),
                        keys: &role.keys,
                        terminating: role.terminating,
                    })
                    .collect()
            }
            DelegatedTo::Succinct(bins) => {
                let role = Role::Delegated(bins.bin_of(name));
                vec![Delegated { role, keys: &bins.keys, terminating: true }]
            }
        }
    }

    pub(super) fn read(value: &Value, at: String) -> Result<Self, TufError> {
        let fields = Fields::of(value, at)?;
        let keys = read_keys(&fields)?;
        let to = match (fields.optional("roles"), fields.optional("succinct_roles")) {
            (Some(_), None) => DelegatedTo::Roles(read_roles(&fields, &keys)?),
            (None, Some(_)) => DelegatedTo::Succinct(SuccinctRoles::read(
                &fields.object("succinct_roles")?,
                &keys,
            )?),
            _ => return fields.refuse("roles", "must stand alone: it or succinct_roles"),
        };
        Ok(Delegations { keys, to, unknown: fields.unknown(&["keys", "roles", "succinct_roles"]) })
    }

    pub(super) fn to_value(&self) -> Value {
        let mut out = self.unknown.clone();
        out.insert("keys".into(), keys_to_value(&self.keys));
        match &self.to {
            DelegatedTo::Roles(roles) => {
                let roles = roles.iter().map(DelegatedRole::to_value);
                out.insert("roles".into(), Value::Array(roles.collect()));
            }
            DelegatedTo::Succinct(bins) => {
                out.insert("succinct_roles".into(), bins.to_value());
            }
        }
        Value::Object(out)
    }
}

fn read_roles(fields: &Fields<'_>, keys: &Keys) -> Result<Vec<DelegatedRole>, TufError> {
    let mut names = BTreeSet::new();
    let mut roles = Vec::new();
    for (i, value) in fields.list("roles")?.iter().enumerate() {
        let role =
            DelegatedRole::read(&Fields::of(value, fields.at(&format!("roles[{i}]")))?, keys)?;
        if !names.insert(role.role.clone()) {
            return fields.refuse("roles", "names one role twice");
        }
        roles.push(role);
    }
    Ok(roles)
}

impl DelegatedRole {
    fn read(fields: &Fields<'_>, keys: &Keys) -> Result<Self, TufError> {
        const MEMBERS: [&str; 4] = ["name", "paths", "path_hash_prefixes", "terminating"];
        let paths = match (fields.optional("paths"), fields.optional("path_hash_prefixes")) {
            (Some(_), None) => Paths::read_patterns(fields)?,
            (None, Some(_)) => Paths::read_prefixes(fields)?,
            _ => return fields.refuse("paths", "must stand alone: it or path_hash_prefixes"),
        };
        Ok(DelegatedRole {
            role: Role::delegated(fields.text("name")?)?,
            keys: RoleKeys::read(fields, keys, &MEMBERS)?,
            paths,
            terminating: fields.bool("terminating")?,
        })
    }

    fn to_value(&self) -> Value {
        let mut out = self.keys.to_members();
        out.insert("name".into(), Value::from(self.role.name()));
        out.insert("terminating".into(), Value::Bool(self.terminating));
        let (member, texts) = match &self.paths {
            Paths::Patterns(patterns) => ("paths", patterns),
            Paths::HashPrefixes(prefixes) => ("path_hash_prefixes", &prefixes.written),
        };
        let texts = texts.iter().map(|text| Value::from(text.as_str())).collect();
        out.insert(member.into(), Value::Array(texts));
        Value::Object(out)
    }
}

impl Paths {
    /// Whether a target of that name is among them.
    pub fn cover(&self, name: &str) -> bool {
        self.cover_hashed(name, &LazyCell::new(|| hash_of(name)))
    }

    /// The same, with the hash of the name, which is made when it is needed.
    fn cover_hashed<F: FnOnce() -> String>(&self, name: &str, hash: &LazyCell<String, F>) -> bool {
        match self {
            Paths::Patterns(patterns) => {
                patterns.iter().any(|pattern| pattern_matches(pattern, name))
            }
            Paths::HashPrefixes(prefixes) => prefixes.begin(hash),
        }
    }

    fn read_patterns(fields: &Fields<'_>) -> Result<Self, TufError> {
        let patterns = fields.texts("paths")?;
        if patterns.len() > MAX_PATTERNS {
            return Err(TufError::Limit { what: "paths of a delegation", limit: MAX_PATTERNS });
        }
        if patterns.iter().any(|pattern| pattern.len() > MAX_PATTERN) {
            return Err(TufError::Limit { what: "bytes of a path pattern", limit: MAX_PATTERN });
        }
        Ok(Paths::Patterns(patterns.into_iter().map(str::to_owned).collect()))
    }

    fn read_prefixes(fields: &Fields<'_>) -> Result<Self, TufError> {
        let prefixes = fields.texts("path_hash_prefixes")?;
        if prefixes.len() > MAX_PATTERNS {
            return Err(TufError::Limit { what: "path_hash_prefixes", limit: MAX_PATTERNS });
        }
        let good = |prefix: &&str| {
            (1..=64).contains(&prefix.len())
                && prefix.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        // An empty prefix would be a second way to write "everything".
        if !prefixes.iter().all(good) {
            return fields
                .refuse("path_hash_prefixes", "holds other than 1 to 64 hexadecimal digits");
        }
        let prefixes: Vec<String> = prefixes.into_iter().map(str::to_owned).collect();
        Ok(Paths::HashPrefixes(prefixes.into()))
    }
}

/// The hexadecimal digits that prefixes are compared with.
fn hash_of(name: &str) -> String {
    Sha256::of(name.as_bytes()).to_hex()
}

impl SuccinctRoles {
    /// The name of the role that signs for a target of that name.
    pub fn bin_of(&self, name: &str) -> String {
        let [a, b, c, d, ..] = Sha256::of(name.as_bytes()).0;
        let bin = u64::from(u32::from_be_bytes([a, b, c, d])) >> (32 - self.bit_length);
        // As many digits as the highest bin has.
        let digits = self.bit_length.div_ceil(4) as usize;
        format!("{}-{bin:0digits$x}", self.name_prefix)
    }

    fn read(fields: &Fields<'_>, keys: &Keys) -> Result<Self, TufError> {
        let name_prefix = fields.text("name_prefix")?;
        // The longest bin name must be a role name; its own check says what is wrong.
        Role::delegated(&format!("{name_prefix}-ffffffff")).map_err(|_| TufError::Format {
            at: fields.at("name_prefix"),
            problem: "does not make role names",
        })?;
        let bit_length = match fields.required("bit_length")?.as_int() {
            Some(bits @ 1..=32) => bits as u32,
            _ => return fields.refuse("bit_length", "is not an integer from 1 to 32"),
        };
        Ok(SuccinctRoles {
            keys: RoleKeys::read(fields, keys, &["bit_length", "name_prefix"])?,
            bit_length,
            name_prefix: name_prefix.to_owned(),
        })
    }

    fn to_value(&self) -> Value {
        let mut out = self.keys.to_members();
        out.insert("bit_length".into(), int(self.bit_length.into()));
        out.insert("name_prefix".into(), Value::from(self.name_prefix.as_str()));
        Value::Object(out)
    }
}

impl std::fmt::Display for Paths {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (kind, texts) = match self {
            Paths::Patterns(texts) => ("paths", texts),
            Paths::HashPrefixes(prefixes) => ("hash prefixes", &prefixes.written),
        };
        let texts: Vec<String> = texts.iter().map(|text| shown(text)).collect();
        write!(f, "{kind} {}", texts.join(", "))
    }
}
