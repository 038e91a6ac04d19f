//! Timestamp and snapshot: which files are the newest and belong together (TUF §4.4, §4.6).

use std::collections::BTreeMap;

use super::fields::Fields;
use super::{Header, MetaFile, Metadata, Role, TufError};
use crate::json::{Object, Value};

/// Timestamp metadata: the newest snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timestamp {
    /// Version and expiry.
    pub header: Header,
    /// What it says about the snapshot.
    pub snapshot: MetaFile,
    /// Members the specification does not name.
    pub unknown: Object,
}

impl Timestamp {
    /// Timestamp metadata to be written.
    pub fn new(header: Header, snapshot: MetaFile) -> Self {
        Timestamp { header, snapshot, unknown: Object::new() }
    }
}

impl Metadata for Timestamp {
    fn parse(signed: &Value) -> Result<Self, TufError> {
        let (header, fields) = Header::read(signed, "timestamp")?;
        let meta = fields.object("meta")?;
        let snapshot = meta.required("snapshot.json")?;
        Ok(Timestamp {
            header,
            snapshot: MetaFile::read(snapshot, meta.at("snapshot.json"))?,
            unknown: fields.unknown(&[&Header::MEMBERS[..], &["meta"]].concat()),
        })
    }

    fn to_value(&self) -> Value {
        let mut out = self.header.to_members("timestamp", &self.unknown);
        let meta = Value::object([("snapshot.json", self.snapshot.to_value())]);
        out.insert("meta".into(), meta);
        Value::Object(out)
    }

    fn header(&self) -> &Header {
        &self.header
    }
}

/// Snapshot metadata: the versions of all targets metadata that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Version and expiry.
    pub header: Header,
    /// What it says about each file, by [`Role::meta_name`]. Holds `targets.json`.
    pub meta: BTreeMap<String, MetaFile>,
    /// Members the specification does not name.
    pub unknown: Object,
}

impl Snapshot {
    /// Snapshot metadata to be written; `targets` is the listing of the top-level targets.
    pub fn new(header: Header, targets: MetaFile) -> Self {
        let meta = BTreeMap::from([(Role::Targets.meta_name(), targets)]);
        Snapshot { header, meta, unknown: Object::new() }
    }

    /// What it says about the metadata of a targets role.
    pub fn role(&self, role: &Role) -> Option<&MetaFile> {
        self.meta.get(&role.meta_name())
    }
}

impl Metadata for Snapshot {
    fn parse(signed: &Value) -> Result<Self, TufError> {
        let (header, fields) = Header::read(signed, "snapshot")?;
        let listed: Fields<'_> = fields.object("meta")?;
        listed.required("targets.json")?;
        let mut meta = BTreeMap::new();
        for (name, value) in listed.members() {
            meta.insert(name.clone(), MetaFile::read(value, listed.at(name))?);
        }
        let unknown = fields.unknown(&[&Header::MEMBERS[..], &["meta"]].concat());
        Ok(Snapshot { header, meta, unknown })
    }

    fn to_value(&self) -> Value {
        let mut out = self.header.to_members("snapshot", &self.unknown);
        let meta = self.meta.iter().map(|(name, file)| (name, file.to_value()));
        out.insert("meta".into(), Value::object(meta));
        Value::Object(out)
    }

    fn header(&self) -> &Header {
        &self.header
    }
}
