//! Targets metadata: which files may be installed (TUF §4.5).

use std::collections::BTreeMap;

use super::names::shown;
use super::{Delegations, Header, Metadata, TargetFile, TufError};
use crate::json::{Object, Value};

/// Targets metadata, of the top-level role or a delegated one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Targets {
    /// Version and expiry.
    pub header: Header,
    /// Targets by name. A name may be anything without control characters: it is looked up,
    /// never used as a path, see [`check_target_name`](super::check_target_name).
    pub targets: BTreeMap<String, TargetFile>,
    /// To whom it delegates.
    pub delegations: Option<Delegations>,
    /// Members the specification does not name.
    pub unknown: Object,
}

impl Targets {
    /// Targets metadata to be written, without delegations.
    pub fn new(header: Header, targets: BTreeMap<String, TargetFile>) -> Self {
        Targets { header, targets, delegations: None, unknown: Object::new() }
    }
}

fn at(name: &str) -> String {
    format!("target {}", shown(name))
}

fn check_name(name: &str) -> Result<(), TufError> {
    match name.chars().any(char::is_control) {
        true => Err(TufError::Format {
            at: "targets.targets".to_owned(),
            problem: "has a name with control characters",
        }),
        false => Ok(()),
    }
}

impl Metadata for Targets {
    fn parse(signed: &Value) -> Result<Self, TufError> {
        let (header, fields) = Header::read(signed, "targets")?;
        let listed = fields.object("targets")?;
        let mut targets = BTreeMap::new();
        for (name, value) in listed.members() {
            check_name(name)?;
            targets.insert(name.clone(), TargetFile::read(value, at(name))?);
        }
        let delegations = match fields.optional("delegations") {
            Some(value) => Some(Delegations::read(value, fields.at("delegations"))?),
            None => None,
        };
        let known = [&Header::MEMBERS[..], &["delegations", "targets"]].concat();
        Ok(Targets { header, targets, delegations, unknown: fields.unknown(&known) })
    }

    fn from_value(mut signed: Value) -> Result<Self, TufError> {
        let listed = match &mut signed {
            Value::Object(members) => members.get_mut("targets"),
            _ => None,
        };
        let Some(Value::Object(listed)) = listed else { return Self::parse(&signed) };
        let listed = std::mem::take(listed);
        let mut read = Self::parse(&signed)?;
        let listed = listed.into_iter().map(|(name, value)| {
            check_name(&name)?;
            let file = TargetFile::from_value(value, at(&name))?;
            Ok((name, file))
        });
        read.targets = listed.collect::<Result<_, TufError>>()?;
        Ok(read)
    }

    fn to_value(&self) -> Value {
        let mut out = self.header.to_members("targets", &self.unknown);
        let targets = self.targets.iter().map(|(name, file)| (name, file.to_value()));
        out.insert("targets".into(), Value::object(targets));
        if let Some(delegations) = &self.delegations {
            out.insert("delegations".into(), delegations.to_value());
        }
        Value::Object(out)
    }

    fn header(&self) -> &Header {
        &self.header
    }
}
