//! The lines of the log.

use std::collections::BTreeMap;

use formats::digest::Sha256;
use formats::json::{Object, Value};
use formats::tuf::{KeyId, Offline, Role, UnixTime};

use super::memory::Marks;
use crate::state::{Identity, State, payload_digest};

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its members, without `prev`.
    pub members: Object,
}

impl Event {
    fn new(event: &str, identity: &Identity, now: UnixTime) -> Self {
        let user = i64::from(rustix::process::getuid().as_raw());
        Event {
            members: Object::from([
                ("event".to_owned(), Value::from(event)),
                ("time".to_owned(), Value::Int(now.secs())),
                ("user".to_owned(), Value::Int(user)),
                ("root".to_owned(), Value::from(identity.label().to_hex())),
            ]),
        }
    }

    fn with(mut self, name: &str, value: Value) -> Self {
        self.members.insert(name.to_owned(), value);
        self
    }

    /// A signature by that key, made by that command.
    pub fn signed(
        identity: &Identity,
        (role, version, digest): (&Role, u64, &Sha256),
        keyid: &KeyId,
        by: &str,
        what: &str,
        now: UnixTime,
    ) -> Self {
        Event::new("signed", identity, now)
            .payload(role, version, digest)
            .with("keyid", Value::from(keyid.to_string()))
            .with("by", Value::from(by))
            .with("what", Value::from(what))
    }

    /// A payload that was signed and will not be published.
    pub fn abandoned(
        identity: &Identity,
        (role, version, digest): (&Role, u64, &Sha256),
        now: UnixTime,
    ) -> Self {
        Event::new("abandoned", identity, now).payload(role, version, digest)
    }

    /// A signature of an offline statement, by its key. Statements have no versions: any number of
    /// bundles may be made of one state.
    pub fn offline(
        identity: &Identity,
        (digest, statement): (&Sha256, &Offline),
        keyid: &KeyId,
        now: UnixTime,
    ) -> Self {
        let targets = statement.targets.keys().map(|name| Value::from(name.as_str())).collect();
        Event::new("offline", identity, now)
            .with("digest", Value::from(digest.to_hex()))
            .with("keyid", Value::from(keyid.to_string()))
            .with("expires", Value::from(statement.expires.to_string()))
            .with("timestamp", int(statement.timestamp.version))
            .with("targets", Value::Array(targets))
    }

    /// A state that is visible now.
    pub fn published(
        repository: &str,
        manifest: &str,
        state: &State,
        restart: bool,
        now: UnixTime,
    ) -> Self {
        let (mut versions, mut digests) = (Object::new(), Object::new());
        for (role, (version, digest)) in versions_of(state) {
            versions.insert(role.clone(), int(version));
            digests.insert(role, Value::from(digest.to_hex()));
        }
        Event::new("published", &state.identity, now)
            .with("trusted", Value::from(state.identity.trusted().to_hex()))
            .with("repository", Value::from(repository))
            .with("manifest", Value::from(manifest))
            .with("versions", Value::Object(versions))
            .with("digests", Value::Object(digests))
            .with("restart", Value::Bool(restart))
    }

    /// The tag that keeps the state, when it is not `ts-N`.
    pub fn kept_as(self, tag: &str) -> Self {
        let versions = self.members.get("versions");
        let timestamp = Event::version(versions.and_then(|all| all.get(Role::Timestamp.name())));
        match tag == format!("ts-{timestamp}") {
            true => self,
            false => self.with("tag", Value::from(tag)),
        }
    }

    /// The state that a signature was made on top of: the roles that people sign.
    pub fn seen(repository: &str, state: &State, now: UnixTime) -> Self {
        let mut event = Event::published(repository, "", state, false, now);
        event.members.remove("manifest");
        event.members.remove("restart");
        for member in ["versions", "digests"] {
            if let Some(Value::Object(all)) = event.members.get_mut(member) {
                // A thief of the online keys chooses these.
                all.remove(Role::Snapshot.name());
                all.remove(Role::Timestamp.name());
            }
        }
        event.with("event", Value::from("seen"))
    }

    fn payload(self, role: &Role, version: u64, digest: &Sha256) -> Self {
        self.with("role", Value::from(role.name()))
            .with("version", int(version))
            .with("digest", Value::from(digest.to_hex()))
    }

    pub(super) fn text(&self, name: &str) -> &str {
        self.members.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// Role and version of what was signed or abandoned.
    pub(super) fn signed_version(&self) -> (String, u64) {
        (self.text("role").to_owned(), Event::version(self.members.get("version")))
    }

    /// By what the repository of this line is recognized in others.
    pub(super) fn marks(&self) -> Marks {
        let newest = self.members.get("digests").and_then(|all| all.get(Role::Root.name()));
        let newest = newest.and_then(Value::as_str).unwrap_or_default();
        let signed = match self.text("role") == Role::Root.name() {
            true => self.text("digest"),
            false => "",
        };
        let all = [self.text("root"), self.text("trusted"), newest, signed];
        all.into_iter().filter(|mark| !mark.is_empty()).map(str::to_owned).collect()
    }

    pub(super) fn version(value: Option<&Value>) -> u64 {
        value.and_then(Value::as_int).and_then(|version| version.try_into().ok()).unwrap_or(0)
    }
}

fn int(value: u64) -> Value {
    Value::Int(i64::try_from(value).unwrap_or(i64::MAX))
}

pub(super) fn versions_of(state: &State) -> BTreeMap<String, (u64, Sha256)> {
    let root = state.roots.values().next_back().map(Vec::as_slice).unwrap_or_default();
    let State { snapshot, timestamp, .. } = state;
    let top = [
        (&Role::Root, state.root.header.version, payload_digest(root)),
        (&Role::Snapshot, snapshot.data.header.version, snapshot.payload),
        (&Role::Timestamp, timestamp.data.header.version, timestamp.payload),
    ];
    let targets = state.targets_roles();
    let targets = targets.map(|(role, it)| (role, it.data.header.version, it.payload));
    top.into_iter()
        .chain(targets)
        .map(|(role, version, payload)| (role.name().to_owned(), (version, payload)))
        .collect()
}
