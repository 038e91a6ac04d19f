//! A staged change: one JSON file that travels between the people who sign it, by mail, on
//! a USB stick, in a registry.
//!
//! ```text
//!  stage ─► change.json ─► sign (alice) ─► change.json ─► sign (bob) ─► change.json ─► commit
//!              │                 copies may be signed in any order; commit merges them
//!              └ carries the state it was made on, so that a signer without a network sees what
//!                changes, verified from their own trust root
//! ```
//!
//! | member | value |
//! |---|---|
//! | `type` | `"racklet-stage-1"` |
//! | `what` | one line for people; means nothing |
//! | `repository` | where it goes to, as a reference |
//! | `state` | digest of the manifest it was made on; absent for a first repository |
//! | `recovery` | `true`: snapshot and timestamp go on after that state, whatever is published now |
//! | `base` | the metadata of that state: file name to text |
//! | `payloads` | root, targets, delegated targets in this order: `{"role", "signed"}` |
//! | `channels` | channel documents that change: target name to text |
//! | `release` | `{"repository", "tag", "index"}`: the index whose blobs are uploaded already |
//! | `signatures` | `{"role", "keyid", "sig"}` each, over the canonical form of that payload |
//!
//! Members that are not known are refused: a person must not sign what their program did not show.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use formats::channel::Channel;
use formats::digest::Digest;
use formats::json::{Object, Value};
use formats::oci::{Descriptor, RepositoryName, Tag, media_type};
use formats::reason::Reason;
use formats::release::{ReleaseIndex, Summary, target_name};
use formats::tuf::{Role, Signature};
use formats::version::Version;

use crate::plan::{Payload, Proposal, Restart, Signatures};
use crate::published::ReleaseTag;
use crate::state::{Identity, State, StateError, channel_of};
use crate::summary::printable;

const TYPE: &str = "racklet-stage-1";

/// 32 MiB: three times the metadata that nodes read; bounds what a wrong path makes us read.
pub const STAGE_LIMIT: u64 = 32 << 20;

/// Why a file is not a staged change, or does not go with another one.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// Not of its form.
    #[error("is not a staged change of this program: {0}")]
    Form(String),
    /// It carries metadata that do not verify.
    #[error("the state it was made on")]
    Base(#[source] Box<StateError>),
    /// A payload is malformed.
    #[error("what is to be signed")]
    Payload(#[source] Box<StateError>),
    /// It carries a release that is not the signed one.
    #[error("{target}: its content does not match what would be signed")]
    Release {
        /// The target.
        target: String,
    },
    /// Two files are not copies of one change.
    #[error("{path} is not a copy of the first file: its {role} has sha256 {found}")]
    Different {
        /// The second file.
        path: PathBuf,
        /// Which role differs.
        role: String,
        /// Digest in it; nothing if it has no such role.
        found: String,
    },
}

impl StageError {
    /// The stable code of this error.
    pub fn reason(&self) -> Reason {
        match self {
            StageError::Form(_) => Reason::MetaFormat,
            StageError::Base(error) | StageError::Payload(error) => error.reason(),
            StageError::Release { .. } => Reason::HashMismatch,
            StageError::Different { .. } => Reason::Config,
        }
    }
}

/// A release index whose blobs are in the repository already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedRelease {
    /// Its repository.
    pub repository: RepositoryName,
    /// Its tag.
    pub tag: Tag,
    /// Its bytes.
    pub index: Vec<u8>,
}

impl StagedRelease {
    /// The TUF target it is; one that nobody lists where the tag is no version's.
    pub fn target(&self) -> String {
        let product = self.repository.as_str().rsplit('/').next().unwrap_or_default();
        match Version::of_tag(&self.tag) {
            Some(version) => target_name(product, &version),
            None => format!("{product}:{}", self.tag),
        }
    }

    /// The tag to be set when the change becomes visible.
    pub fn tag(&self) -> ReleaseTag {
        ReleaseTag {
            repository: self.repository.clone(),
            tag: self.tag.clone(),
            descriptor: Descriptor::of(media_type::INDEX, &self.index),
            bytes: self.index.clone(),
        }
    }
}

/// A change on its way to enough signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staged {
    /// One line for people.
    pub what: String,
    /// Where it goes to.
    pub repository: String,
    /// Digest of the manifest of the state it was made on.
    pub state: Option<Digest>,
    /// Whether snapshot and timestamp go on after that state.
    pub recovery: bool,
    /// The metadata of that state by file name.
    pub base: BTreeMap<String, Vec<u8>>,
    /// What is signed.
    pub proposal: Proposal,
    /// The release that comes with it.
    pub release: Option<StagedRelease>,
    /// Signatures so far.
    pub signatures: Signatures,
}

impl Staged {
    /// The state it was made on, verified; `None` for a first repository.
    pub fn base(&self, trust_root: Option<&[u8]>) -> Result<Option<State>, StageError> {
        if self.base.is_empty() {
            return Ok(None);
        }
        State::verify(&self.base, trust_root).map(Some).map_err(|e| StageError::Base(e.into()))
    }

    /// Where snapshot and timestamp go on.
    pub fn restart(&self, base: Option<&State>) -> Option<Restart> {
        base.filter(|_| self.recovery).map(|state| Restart {
            snapshot: state.snapshot.data.header.version,
            timestamp: state.timestamp.data.header.version,
        })
    }

    /// Takes over the signatures of a copy.
    pub fn merge(&mut self, other: Staged, path: &Path) -> Result<(), StageError> {
        let digests = |staged: &Staged| -> BTreeMap<String, String> {
            let payloads = staged.proposal.payloads.iter();
            payloads.map(|p| (p.role.name().to_owned(), p.digest().to_hex())).collect()
        };
        let (here, there) = (digests(self), digests(&other));
        let differs =
            here.keys().chain(there.keys()).find(|role| here.get(*role) != there.get(*role));
        if let Some(role) = differs {
            return Err(StageError::Different {
                path: path.to_owned(),
                role: role.clone(),
                found: there.get(role).cloned().unwrap_or_default(),
            });
        }
        for (role, signatures) in other.signatures {
            let all = self.signatures.entry(role).or_default();
            for signature in signatures {
                if !all.contains(&signature) {
                    all.push(signature);
                }
            }
        }
        Ok(())
    }

    /// Whether what it carries is what is signed: the index is the target, and says what the
    /// signed summary says; channel documents are their targets.
    pub fn check_carried(&self, base: Option<&State>) -> Result<(), StageError> {
        let targets = self.proposal.targets(base).map_err(|error| match error {
            crate::plan::PlanError::Result(error) => StageError::Payload(error.into()),
            other => StageError::Form(other.to_string()),
        })?;
        let targets_of = |role: &Role| targets.get(role).map(AsRef::as_ref);
        let signed = |name: &str| crate::state::lookup(name, targets_of);
        for (name, channel) in &self.proposal.channels {
            let bytes = channel.to_bytes();
            let good = signed(name).is_some_and(|(_, file)| file.check(name, &bytes).is_ok());
            if !good {
                return Err(StageError::Release { target: name.clone() });
            }
        }
        if let Some(release) = &self.release {
            let target = release.target();
            let good = signed(&target).is_some_and(|(_, file)| {
                let custom = file.custom.as_ref().map(|c| c.to_bytes()).unwrap_or_default();
                file.check(&target, &release.index).is_ok()
                    && ReleaseIndex::parse(&release.index).is_ok_and(|index| {
                        Summary::parse_custom(&custom)
                            .is_ok_and(|summary| index.check_against(&summary).is_ok())
                    })
            });
            if !good {
                return Err(StageError::Release { target });
            }
        }
        Ok(())
    }

    /// The file. The same change with the same signatures has the same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let text = |bytes: &[u8]| Value::from(String::from_utf8_lossy(bytes).into_owned());
        let mut out = Object::from([
            ("type".to_owned(), Value::from(TYPE)),
            ("what".to_owned(), Value::from(self.what.as_str())),
            ("repository".to_owned(), Value::from(self.repository.as_str())),
        ]);
        if let Some(state) = &self.state {
            out.insert("state".to_owned(), Value::from(state.to_string()));
        }
        if self.recovery {
            out.insert("recovery".to_owned(), Value::Bool(true));
        }
        let base = self.base.iter().map(|(name, bytes)| (name.as_str(), text(bytes)));
        out.insert("base".to_owned(), Value::object(base));
        let payloads = self.proposal.payloads.iter().map(|payload| {
            Value::object([
                ("role", Value::from(payload.role.name())),
                ("signed", payload.signed.clone()),
            ])
        });
        out.insert("payloads".to_owned(), Value::Array(payloads.collect()));
        let channels = self.proposal.channels.iter();
        let channels = channels.map(|(name, channel)| (name.as_str(), text(&channel.to_bytes())));
        out.insert("channels".to_owned(), Value::object(channels));
        if let Some(release) = &self.release {
            let release = Value::object([
                ("repository", Value::from(release.repository.as_str())),
                ("tag", Value::from(release.tag.as_str())),
                ("index", text(&release.index)),
            ]);
            out.insert("release".to_owned(), release);
        }
        let mut signatures: Vec<(&str, &Signature)> = self
            .signatures
            .iter()
            .flat_map(|(role, all)| all.iter().map(|signature| (role.name(), signature)))
            .collect();
        signatures.sort_by(|a, b| (a.0, &a.1.keyid, &a.1.sig).cmp(&(b.0, &b.1.keyid, &b.1.sig)));
        let signatures = signatures.into_iter().map(|(role, signature)| {
            Value::object([
                ("role", Value::from(role)),
                ("keyid", Value::from(signature.keyid.as_str())),
                ("sig", Value::from(signature.sig.as_str())),
            ])
        });
        out.insert("signatures".to_owned(), Value::Array(signatures.collect()));
        let mut bytes = Value::Object(out).to_bytes();
        bytes.push(b'\n');
        bytes
    }

    /// Reads a file. Nothing in it is verified yet.
    pub fn parse(bytes: &[u8]) -> Result<Self, StageError> {
        let value = Value::parse(bytes).map_err(|error| StageError::Form(error.to_string()))?;
        let mut members = Members::of(&value, "the file")?;
        if members.text("type")? != TYPE {
            return Err(StageError::Form("its type is not racklet-stage-1".to_owned()));
        }
        let shown = |text: &str, most| -> String { printable(text).chars().take(most).collect() };
        let what = shown(members.text("what")?, 200);
        let repository = shown(members.text("repository")?, 500);
        let state = match members.take("state") {
            None => None,
            Some(value) => Some(digest(value)?),
        };
        let recovery = match members.take("recovery") {
            None => false,
            Some(value) => value.as_bool().ok_or_else(|| form("recovery"))?,
        };
        let mut base = BTreeMap::new();
        for (name, text) in members.object("base")? {
            base.insert(name.clone(), text.as_str().ok_or_else(|| form("base"))?.into());
        }
        let mut proposal = Proposal::default();
        for value in members.list("payloads")? {
            let mut entry = Members::of(value, "a payload")?;
            let role = role(entry.text("role")?)?;
            let signed = entry.need("signed")?.clone();
            entry.end()?;
            let payload = Payload { role, signed };
            let known = payload.root().map_err(in_payload)?.is_some()
                || payload.targets().map_err(in_payload)?.is_some();
            if !known || proposal.payload(&payload.role).is_some() {
                return Err(form("payloads"));
            }
            proposal.payloads.push(payload);
        }
        for (name, value) in members.object("channels")? {
            let (product, channel) = channel_of(name).ok_or_else(|| form("channels"))?;
            let text = value.as_str().ok_or_else(|| form("channels"))?;
            let channel = Channel::parse(text.as_bytes(), product, channel)
                .map_err(|error| StageError::Form(error.to_string()))?;
            proposal.channels.insert(name.clone(), channel);
        }
        let release = match members.take("release") {
            None => None,
            Some(value) => Some(release(value)?),
        };
        let mut signatures = Signatures::new();
        for value in members.list("signatures")? {
            let mut entry = Members::of(value, "a signature")?;
            let role = role(entry.text("role")?)?;
            let (keyid, sig) = (entry.text("keyid")?.to_owned(), entry.text("sig")?.to_owned());
            entry.end()?;
            signatures.entry(role).or_default().push(Signature { keyid, sig });
        }
        members.end()?;
        if base.is_empty() != state.is_none() || (recovery && state.is_none()) {
            return Err(form("state, base and recovery"));
        }
        Ok(Staged { what, repository, state, recovery, base, proposal, release, signatures })
    }

    /// Which repository it is for.
    pub fn identity(&self, base: Option<&State>) -> Result<Identity, StageError> {
        if let Some(state) = base {
            return Ok(state.identity.clone());
        }
        let root = self.proposal.payload(&Role::Root).ok_or_else(|| form("payloads"))?;
        match root.root().map_err(in_payload)? {
            Some(first) => Ok(Identity::new(root.digest(), &first)),
            None => Err(form("payloads")),
        }
    }
}

fn in_payload(error: StateError) -> StageError {
    StageError::Payload(error.into())
}

fn release(value: &Value) -> Result<StagedRelease, StageError> {
    let mut entry = Members::of(value, "the release")?;
    let repository = entry.text("repository")?.parse().map_err(|_| form("repository"))?;
    let tag = entry.text("tag")?.parse().map_err(|_| form("tag"))?;
    let index = entry.text("index")?.as_bytes().to_vec();
    entry.end()?;
    Ok(StagedRelease { repository, tag, index })
}

fn role(name: &str) -> Result<Role, StageError> {
    match Role::TOP_LEVEL.into_iter().find(|role| role.name() == name) {
        Some(role @ (Role::Root | Role::Targets)) => Ok(role),
        Some(_) => Err(form("role: snapshot and timestamp are signed by commit")),
        None => Role::delegated(name).map_err(|_| form("role")),
    }
}

fn digest(value: &Value) -> Result<Digest, StageError> {
    value.as_str().and_then(|text| text.parse().ok()).ok_or_else(|| form("state"))
}

fn form(what: &str) -> StageError {
    StageError::Form(format!("{what} is not of its form"))
}

/// The members of an object, each to be taken once.
struct Members<'a> {
    left: BTreeMap<&'a str, &'a Value>,
    at: &'static str,
}

impl<'a> Members<'a> {
    fn of(value: &'a Value, at: &'static str) -> Result<Self, StageError> {
        let members = value.as_object().ok_or_else(|| form(at))?;
        Ok(Members {
            left: members.iter().map(|(name, value)| (name.as_str(), value)).collect(),
            at,
        })
    }

    fn take(&mut self, name: &str) -> Option<&'a Value> {
        self.left.remove(name)
    }

    fn need(&mut self, name: &str) -> Result<&'a Value, StageError> {
        self.take(name).ok_or_else(|| StageError::Form(format!("{} has no {name}", self.at)))
    }

    fn text(&mut self, name: &str) -> Result<&'a str, StageError> {
        self.need(name)?.as_str().ok_or_else(|| form(name))
    }

    fn list(&mut self, name: &str) -> Result<&'a [Value], StageError> {
        self.need(name)?.as_array().ok_or_else(|| form(name))
    }

    fn object(&mut self, name: &str) -> Result<&'a Object, StageError> {
        self.need(name)?.as_object().ok_or_else(|| form(name))
    }

    fn end(self) -> Result<(), StageError> {
        match self.left.keys().next() {
            None => Ok(()),
            Some(name) => {
                let name: String = name.chars().take(40).collect();
                Err(StageError::Form(format!("{} has {name:?}, which is not known", self.at)))
            }
        }
    }
}
