//! `signer.toml`: who signs what, for how long, and what the hardware needs. Kept beside the keys
//! or, for a repository in a directory, beside its `index.json`.
//!
//! It is not trusted: it says what *should* be signed, people see what will be, and nodes go by
//! what is. Every part may be left out.
//!
//! ```
//! let policy = signer::policy::Policy::parse(r#"
//! [roles.root]
//! keys = ["alice.pub", "bob.pub", "carol.pub"]     # relative to this file
//! threshold = 2
//! expires = "1y"
//! [roles.timestamp]
//! keys = ["online.pub"]
//! expires = "1d"
//!
//! [[delegation]]
//! name = "demo-releases"
//! paths = ["demo/*"]                               # * does not cross a /
//! keys = ["dave.pub"]
//! terminating = true
//!
//! [offline]                        # bundles of `bundle --valid-for`
//! longest = "30d"
//! role = "demo-releases"           # who signs for it; absent: targets
//!
//! [repository]                     # for commands without --repo
//! url = "docker://updates.example/racklet"
//! keys = "."
//! token_file = "push-token"
//!
//! [retention]
//! states = 256                     # of the newest states; fewer of older ones
//!
//! [hardware.racklet-cu-v1]
//! needs = ["os", "firmware"]
//! slots = { os = "2GiB", firmware = "16MiB" }
//! "#)?;
//! assert_eq!(policy.hardware["racklet-cu-v1"].slots["firmware"], 16 << 20);
//! # Ok::<(), signer::policy::PolicyError>(())
//! ```

mod repository;
mod retention;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use formats::tuf::Role;
use serde::Deserialize;

pub use self::repository::{RepositoryPolicy, chunk_size};
use crate::plan::retention::LEAST_STATES;
use crate::plan::{Expiry, ExpiryError, Retention, parse_duration};

/// Name of the file.
pub const POLICY_FILE: &str = "signer.toml";

/// Why `signer.toml` is refused.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Not TOML, or a member that is not known.
    #[error("{0}")]
    Form(String),
    /// A duration that is none, or too long.
    #[error(transparent)]
    Expiry(#[from] ExpiryError),
    /// A size that is none.
    #[error("{0:?} is not a size: write 4096, 512KiB, 16MiB or 2GiB")]
    Size(String),
    /// A name that no role has.
    #[error("{0:?} is not a top-level role; declare delegated roles under [[delegation]]")]
    Role(String),
    /// A value in `[repository]` that cannot be used.
    #[error("[repository] {key}: {why}")]
    Repository {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A number of states that are to be kept, and cannot be.
    #[error(
        "[retention] states: {0}: give a number of at least {LEAST_STATES}, or \"all\" to remove none"
    )]
    Retention(String),
    /// `[repository]` in a file that whoever serves the repository can write.
    #[error(
        "[repository] stands in the directory of the repository itself, which does not say where it is \
         or which credentials it gets: move the section to a file that SIGNER_CONFIG names, or to the \
         signer.toml with your keys"
    )]
    Misplaced,
}

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// Top-level roles.
    pub roles: BTreeMap<Role, RolePolicy>,
    /// Delegations in their order.
    pub delegations: Vec<DelegationPolicy>,
    /// The longest that bundles may be valid offline.
    pub offline: Option<OfflinePolicy>,
    /// Hardware by id.
    pub hardware: BTreeMap<String, Hardware>,
    /// The repository of commands that name none.
    pub repository: Option<RepositoryPolicy>,
    /// How many states are kept.
    pub retention: Retention,
}

/// Offline validity of bundles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfflinePolicy {
    /// Seconds; 0: none.
    pub longest: u64,
    /// The delegated role that signs for it; `None`: as it is, at first the top level.
    pub role: Option<String>,
}

/// One role.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RolePolicy {
    /// Public key files, relative to the file's directory.
    pub keys: Vec<PathBuf>,
    /// How many must sign.
    pub threshold: Option<u32>,
    /// How long its metadata lasts, in seconds; also the longest it may.
    pub expires: Option<u64>,
}

/// One delegated role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelegationPolicy {
    /// Its name.
    pub name: String,
    /// Who delegates; absent: the top level.
    pub by: Option<String>,
    /// Path patterns.
    pub paths: Vec<String>,
    /// Whether nobody after it is asked for them.
    pub terminating: bool,
    /// Keys, threshold, expiry.
    pub role: RolePolicy,
}

/// What a board needs and holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hardware {
    /// Components that every release for it has.
    pub needs: Vec<String>,
    /// Sizes of its slots by component, in bytes.
    pub slots: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileForm {
    #[serde(default)]
    roles: BTreeMap<String, RoleForm>,
    #[serde(default)]
    delegation: Vec<DelegationForm>,
    offline: Option<OfflineForm>,
    #[serde(default)]
    hardware: BTreeMap<String, HardwareForm>,
    repository: Option<repository::RepositoryForm>,
    retention: Option<retention::RetentionForm>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfflineForm {
    longest: String,
    role: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleForm {
    #[serde(default)]
    keys: Vec<PathBuf>,
    threshold: Option<u32>,
    expires: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DelegationForm {
    name: String,
    by: Option<String>,
    paths: Vec<String>,
    #[serde(default)]
    terminating: bool,
    keys: Vec<PathBuf>,
    threshold: Option<u32>,
    expires: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HardwareForm {
    #[serde(default)]
    needs: Vec<String>,
    #[serde(default)]
    slots: BTreeMap<String, SizeForm>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum SizeForm {
    Bytes(u64),
    Text(String),
}

impl Policy {
    /// Reads the file's text. Members that are not known are refused: a misspelt one would be a
    /// rule that nobody keeps.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let form: FileForm =
            toml::from_str(text).map_err(|error| PolicyError::Form(in_one_line(text, &error)))?;
        let mut policy = Policy::default();
        for (name, role) in form.roles {
            let known = Role::TOP_LEVEL.into_iter().find(|known| known.name() == name);
            let known = known.ok_or(PolicyError::Role(name))?;
            let expires = period(known.clone(), role.expires.as_deref())?;
            let role = RolePolicy { keys: role.keys, threshold: role.threshold, expires };
            policy.roles.insert(known, role);
        }
        for form in form.delegation {
            let role =
                Role::delegated(&form.name).map_err(|_| PolicyError::Role(form.name.clone()))?;
            let expires = period(role, form.expires.as_deref())?;
            policy.delegations.push(DelegationPolicy {
                name: form.name,
                by: form.by,
                paths: form.paths,
                terminating: form.terminating,
                role: RolePolicy { keys: form.keys, threshold: form.threshold, expires },
            });
        }
        if let Some(form) = form.offline {
            let none = form.longest == "none";
            let longest = if none { 0 } else { parse_duration(&form.longest)? };
            // The bounds are those of a flag.
            Expiry::default().with_offline(longest, form.role.clone())?;
            policy.offline = Some(OfflinePolicy { longest, role: form.role });
        }
        for (id, form) in form.hardware {
            let mut hardware = Hardware { needs: form.needs, slots: BTreeMap::new() };
            for (component, size) in form.slots {
                let size = match size {
                    SizeForm::Bytes(size) => size,
                    SizeForm::Text(text) => parse_size(&text)?,
                };
                hardware.slots.insert(component, size);
            }
            policy.hardware.insert(id, hardware);
        }
        policy.repository = form.repository.map(repository::RepositoryForm::read).transpose()?;
        let retention = form.retention.map(retention::RetentionForm::read).transpose()?;
        policy.retention = retention.unwrap_or_default();
        Ok(policy)
    }

    /// The same with its paths made relative to a directory.
    pub fn below(mut self, directory: &Path) -> Self {
        let delegated = self.delegations.iter_mut().map(|delegation| &mut delegation.role);
        for role in self.roles.values_mut().chain(delegated) {
            for path in &mut role.keys {
                *path = directory.join(&path);
            }
        }
        self.repository = self.repository.map(|repository| repository.below(directory));
        self
    }

    /// The longest that metadata of a role may last, if anything is said about it.
    pub fn longest(&self, role: &Role) -> Option<u64> {
        self.role(role).and_then(|role| role.expires)
    }

    /// The periods it asks for.
    pub fn expiry(&self) -> Result<Expiry, ExpiryError> {
        let mut expiry = Expiry::default();
        for (role, policy) in &self.roles {
            if let Some(seconds) = policy.expires {
                expiry = expiry.with(role.clone(), seconds)?;
            }
        }
        for delegation in &self.delegations {
            if let Some(seconds) = delegation.role.expires {
                expiry = expiry.with(Role::Delegated(delegation.name.clone()), seconds)?;
            }
        }
        if let Some(offline) = &self.offline {
            // The section says all of it: without a role, targets sign again.
            let role = offline.role.clone().unwrap_or_else(|| Role::Targets.name().to_owned());
            expiry = expiry.with_offline(offline.longest, Some(role))?;
        }
        Ok(expiry)
    }

    fn role(&self, role: &Role) -> Option<&RolePolicy> {
        match role {
            Role::Delegated(name) => {
                let found = self.delegations.iter().find(|delegation| delegation.name == *name);
                found.map(|delegation| &delegation.role)
            }
            top => self.roles.get(top),
        }
    }
}

/// What is wrong and in which line; the excerpt of TOML's own message would take several.
fn in_one_line(text: &str, error: &toml::de::Error) -> String {
    let message: Vec<&str> = error.message().split_whitespace().collect();
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = before.map(|before| before.matches('\n').count() + 1);
    let place = line.map_or_else(String::new, |line| format!("line {line}: "));
    format!("{place}{}", message.join(" "))
}

fn period(role: Role, text: Option<&str>) -> Result<Option<u64>, PolicyError> {
    let Some(text) = text else { return Ok(None) };
    let seconds = parse_duration(text)?;
    // The bounds are those of a flag.
    Expiry::default().with(role, seconds)?;
    Ok(Some(seconds))
}

/// Bytes of `4096`, `512KiB`, `16MiB`, `2GiB`.
pub fn parse_size(text: &str) -> Result<u64, PolicyError> {
    let wrong = || PolicyError::Size(text.chars().take(40).collect());
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40), ("", 0)];
    let (digits, shift) = units
        .into_iter()
        .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift)))
        .ok_or_else(wrong)?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let count: u64 = digits.parse().map_err(|_| wrong())?;
    count.checked_mul(1 << shift).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [("0", 0), ("4096", 4096), ("1KiB", 1024), ("2GiB", 2 << 30)] {
            assert_eq!(parse_size(text).unwrap(), bytes);
        }
        for text in ["", "GiB", "1GB", "-1", "1.5GiB", "99999999999TiB", "1 KiB"] {
            assert!(parse_size(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_error_is_one_line_with_its_place() {
        let error = Policy::parse("[roles.root]\nthreshold = 2\nthresh = 2\n").unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("line 3: unknown field `thresh`, expected one of"), "{text}");
        let text = Policy::parse("[roles.root\n").unwrap_err().to_string();
        assert!(text.starts_with("line 1: ") && !text.contains('\n'), "{text}");
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for (name, text) in [
            ("member", "thresold = 2"),
            ("role", "[roles.mirror]"),
            ("role member", "[roles.root]\nthresh = 2"),
            ("duration", "[roles.root]\nexpires = \"soon\""),
            ("case 190: too long", "[roles.timestamp]\nexpires = \"31d\""),
            ("offline validity", "[offline]\nlongest = \"2y\""),
            ("size", "[hardware.a.slots]\nos = \"2 GB\""),
            ("delegation", "[[delegation]]\nname = \"root\"\npaths = []\nkeys = []"),
        ] {
            assert!(Policy::parse(text).is_err(), "{name}");
        }
        assert_eq!(Policy::parse("").unwrap(), Policy::default());
    }
}
