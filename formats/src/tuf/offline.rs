//! Offline validity: how long a bundle may be used after the timestamp on it has expired.
//!
//! A timestamp lasts a day, because a node that can reach its repository must notice when somebody
//! keeps it from newer metadata. A node that cannot reach it needs longer, and only people can
//! decide how long. So the top-level targets carry a rule, and a bundle may carry a statement below
//! that rule, signed by the same people or by one role they name:
//!
//! | member of targets metadata [`OFFLINE`] | meaning |
//! |---|---|
//! | `longest` | seconds from `issued` to `expires` that a statement may last; 0: none may be made |
//! | `role` | the role delegated by the top-level targets that signs statements; absent: targets |
//!
//! | member of a statement's `signed` object | meaning |
//! |---|---|
//! | `_type` | [`OFFLINE`]: no metadata of a role, and no metadata of a role is a statement |
//! | `x-racklet-repository` | the repository's id, when its root has one |
//! | `issued`, `expires` | from when to when it stands, `YYYY-MM-DDTHH:MM:SSZ` |
//! | `timestamp`, `snapshot` | version, length and hashes of the two files whose expiry it replaces |
//! | `targets` | length and hashes of every target it is good for, by name |
//!
//! The envelope is that of all metadata ([`Envelope`](super::Envelope)). What a node does with it is
//! decided in `update_core::trust`.

use std::collections::BTreeMap;

use super::fields::{Fields, int};
use super::names::shown;
use super::{Hashes, MetaFile, TargetFile, TufError, UnixTime, check_target_name};
use crate::json::{Object, Value};

/// Member of targets metadata with the rule, and `_type` of a statement.
pub const OFFLINE: &str = "x-racklet-offline";
/// 256 KiB: some hundred times what a bundle of one release needs; bounds a read.
pub const OFFLINE_LIMIT: u64 = 256 << 10;
/// Most targets of one statement.
pub const MAX_OFFLINE_TARGETS: usize = 1024;

/// What the targets metadata of a repository says about offline statements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfflineRule {
    /// The longest a statement may last, in seconds; 0 forbids them.
    pub longest: u64,
    /// Name of the delegated role that signs them; `None`: the top-level targets role.
    pub role: Option<String>,
}

impl OfflineRule {
    /// The rule among the members of targets metadata that the specification does not name; `None`
    /// when there is none.
    ///
    /// Errors: [`TufError::Format`].
    pub fn of(members: &Object) -> Result<Option<Self>, TufError> {
        let Some(value) = members.get(OFFLINE) else { return Ok(None) };
        let fields = Fields::of(value, format!("targets.{OFFLINE}"))?;
        let role = fields.optional("role").map(|_| fields.text("role").map(str::to_owned));
        Ok(Some(OfflineRule { longest: fields.length("longest")?, role: role.transpose()? }))
    }

    /// Puts the rule among those members.
    pub fn write(&self, members: &mut Object) {
        let mut rule = Object::from([("longest".to_owned(), int(self.longest))]);
        if let Some(role) = &self.role {
            rule.insert("role".to_owned(), Value::from(role.as_str()));
        }
        members.insert(OFFLINE.to_owned(), Value::Object(rule));
    }
}

/// A statement of offline validity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offline {
    /// When it was signed.
    pub issued: UnixTime,
    /// From this second on it is worth nothing.
    pub expires: UnixTime,
    /// The one timestamp it stands for.
    pub timestamp: MetaFile,
    /// The one snapshot it stands for.
    pub snapshot: MetaFile,
    /// The targets it is good for, by name: length and hashes, nothing else.
    pub targets: BTreeMap<String, TargetFile>,
    /// Further members: the repository's id.
    pub unknown: Object,
}

impl Offline {
    /// Reads the signed object. Does not look at signatures.
    ///
    /// Errors: [`TufError::Type`] for anything that is no statement; [`TufError::Format`], also for
    /// a file without hashes, which would stand for any content; [`TufError::Limit`].
    pub fn parse(signed: &Value) -> Result<Self, TufError> {
        let fields = Fields::of(signed, OFFLINE)?;
        let found = fields.text("_type")?;
        if found != OFFLINE {
            return Err(TufError::Type { expected: OFFLINE.to_owned(), found: shown(found) });
        }
        let file = |name: &str| {
            let file = MetaFile::read(fields.required(name)?, fields.at(name))?;
            match file.hashes.as_ref().and_then(Hashes::as_sha256) {
                Some(_) => Ok(file),
                None => fields.refuse(name, "has no sha256"),
            }
        };
        let listed = fields.object("targets")?;
        if listed.members().count() > MAX_OFFLINE_TARGETS {
            return Err(TufError::Limit { what: "targets", limit: MAX_OFFLINE_TARGETS });
        }
        let mut targets = BTreeMap::new();
        for (name, value) in listed.members() {
            check_target_name(name)?;
            let at = format!("target {}", shown(name));
            targets.insert(name.clone(), TargetFile::read(value, at)?);
        }
        Ok(Offline {
            issued: fields.time("issued")?,
            expires: fields.time("expires")?,
            timestamp: file("timestamp")?,
            snapshot: file("snapshot")?,
            targets,
            unknown: fields.unknown(&[
                "_type",
                "issued",
                "expires",
                "timestamp",
                "snapshot",
                "targets",
            ]),
        })
    }

    /// The signed object.
    pub fn to_value(&self) -> Value {
        let mut out = self.unknown.clone();
        let targets = self.targets.iter().map(|(name, file)| (name, file.to_value()));
        let members = [
            ("_type", Value::from(OFFLINE)),
            ("issued", Value::from(self.issued.to_string())),
            ("expires", Value::from(self.expires.to_string())),
            ("timestamp", self.timestamp.to_value()),
            ("snapshot", self.snapshot.to_value()),
            ("targets", Value::object(targets)),
        ];
        out.extend(members.map(|(name, value)| (name.to_owned(), value)));
        Value::Object(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Reason;
    use crate::tuf::{Header, Metadata as _, Snapshot, Targets, Timestamp};

    fn statement() -> Offline {
        let now = UnixTime::from_secs(1_800_000_000);
        Offline {
            issued: now,
            expires: now.plus(86_400),
            timestamp: MetaFile::of(7, b"timestamp"),
            snapshot: MetaFile::of(5, b"snapshot"),
            targets: BTreeMap::from([("demo/1.0.0".to_owned(), TargetFile::of(b"index", None))]),
            unknown: Object::new(),
        }
    }

    #[test]
    fn a_statement_reads_back() {
        let written = statement().to_value();
        assert_eq!(Offline::parse(&written).unwrap(), statement());
        assert_eq!(
            String::from_utf8(written.canonical()).unwrap(),
            r#"{"_type":"x-racklet-offline","expires":"2027-01-16T08:00:00Z","issued":"2027-01-15T08:00:00Z","snapshot":{"hashes":{"sha256":"16a0eeb0791b6c92451fd284dd9f599e0a7dbe7f6ebea6e2d2d06c7f74aec112"},"length":8,"version":5},"targets":{"demo/1.0.0":{"hashes":{"sha256":"1bc04b5291c26a46d918139138b992d2de976d6851d0893b0476b85bfbdfc6e6"},"length":5}},"timestamp":{"hashes":{"sha256":"323748f86a762247e6631bc01c26fb22c63fd0176a2e1db7b0d5b78de228cd86"},"length":9,"version":7}}"#
        );
    }

    #[test]
    fn a_statement_is_no_metadata_and_metadata_is_no_statement() {
        let written = statement().to_value();
        let header = Header::new(1, UnixTime::from_secs(1_800_000_000));
        let listed = MetaFile::of(1, b"x");
        let roles = [
            Targets::new(header.clone(), BTreeMap::new()).to_value(),
            Snapshot::new(header.clone(), listed.clone()).to_value(),
            Timestamp::new(header, listed).to_value(),
        ];
        for role in &roles {
            assert_eq!(Offline::parse(role).unwrap_err().reason(), Reason::MetaType);
        }
        assert_eq!(Targets::parse(&written).unwrap_err().reason(), Reason::MetaType);
        assert_eq!(Snapshot::parse(&written).unwrap_err().reason(), Reason::MetaType);
        assert_eq!(Timestamp::parse(&written).unwrap_err().reason(), Reason::MetaType);
    }

    #[test]
    fn malformed_statements_have_their_reason() {
        let without = |name: &str| {
            let mut members = statement().to_value().as_object().cloned().unwrap();
            members.remove(name);
            Value::Object(members)
        };
        for name in ["_type", "issued", "expires", "timestamp", "snapshot", "targets"] {
            let error = Offline::parse(&without(name)).expect_err(name);
            assert_eq!(error.reason(), Reason::MetaFormat, "{name}");
        }
        let mut open = statement();
        open.timestamp.hashes = None;
        assert_eq!(Offline::parse(&open.to_value()).unwrap_err().reason(), Reason::MetaFormat);
        let mut many = statement();
        for number in 0..MAX_OFFLINE_TARGETS {
            many.targets.insert(format!("demo/{number}"), TargetFile::of(b"", None));
        }
        assert_eq!(Offline::parse(&many.to_value()).unwrap_err().reason(), Reason::MetaLimit);
    }

    #[test]
    fn a_rule_reads_back_and_a_wrong_one_is_refused() {
        for rule in [
            OfflineRule { longest: 7_776_000, role: None },
            OfflineRule { longest: 0, role: Some("bundles".to_owned()) },
        ] {
            let mut members = Object::new();
            rule.write(&mut members);
            assert_eq!(OfflineRule::of(&members).unwrap(), Some(rule));
        }
        assert_eq!(OfflineRule::of(&Object::new()).unwrap(), None);
        for text in ["1", "{}", r#"{"longest":-1}"#, r#"{"longest":1,"role":2}"#] {
            let value = Value::parse(text.as_bytes()).unwrap();
            let members = Object::from([(OFFLINE.to_owned(), value)]);
            assert_eq!(OfflineRule::of(&members).unwrap_err().reason(), Reason::MetaFormat);
        }
    }
}
