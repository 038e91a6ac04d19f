//! Reading members of an object, with the path of each in the error.

use super::{TufError, UnixTime};
use crate::json::{Object, Value};

/// An object being read, and where it stands in its document.
pub(super) struct Fields<'a> {
    members: &'a Object,
    at: String,
}

impl<'a> Fields<'a> {
    pub(super) fn of(value: &'a Value, at: impl Into<String>) -> Result<Self, TufError> {
        let at = at.into();
        match value.as_object() {
            Some(members) => Ok(Fields { members, at }),
            None => Err(TufError::Format { at, problem: "is not an object" }),
        }
    }

    pub(super) fn at(&self, name: &str) -> String {
        format!("{}.{name}", self.at)
    }

    pub(super) fn refuse<T>(&self, name: &str, problem: &'static str) -> Result<T, TufError> {
        Err(TufError::Format { at: self.at(name), problem })
    }

    pub(super) fn optional(&self, name: &str) -> Option<&'a Value> {
        self.members.get(name)
    }

    pub(super) fn required(&self, name: &str) -> Result<&'a Value, TufError> {
        match self.optional(name) {
            Some(value) => Ok(value),
            None => self.refuse(name, "is missing"),
        }
    }

    pub(super) fn text(&self, name: &str) -> Result<&'a str, TufError> {
        match self.required(name)?.as_str() {
            Some(text) => Ok(text),
            None => self.refuse(name, "is not a text"),
        }
    }

    pub(super) fn bool(&self, name: &str) -> Result<bool, TufError> {
        match self.required(name)?.as_bool() {
            Some(value) => Ok(value),
            None => self.refuse(name, "is neither true nor false"),
        }
    }

    pub(super) fn list(&self, name: &str) -> Result<&'a [Value], TufError> {
        match self.required(name)?.as_array() {
            Some(list) => Ok(list),
            None => self.refuse(name, "is not a list"),
        }
    }

    pub(super) fn texts(&self, name: &str) -> Result<Vec<&'a str>, TufError> {
        let texts: Option<_> = self.list(name)?.iter().map(Value::as_str).collect();
        match texts {
            Some(texts) => Ok(texts),
            None => self.refuse(name, "holds something other than texts"),
        }
    }

    pub(super) fn object(&self, name: &str) -> Result<Fields<'a>, TufError> {
        Fields::of(self.required(name)?, self.at(name))
    }

    /// An integer from 0 up: lengths.
    pub(super) fn length(&self, name: &str) -> Result<u64, TufError> {
        match self.required(name)?.as_int().and_then(|value| u64::try_from(value).ok()) {
            Some(value) => Ok(value),
            None => self.refuse(name, "is not an integer from 0 to 2^63-1"),
        }
    }

    /// An integer from 1 up: versions.
    pub(super) fn version(&self, name: &str) -> Result<u64, TufError> {
        match self.required(name)?.as_int().and_then(|value| u64::try_from(value).ok()) {
            Some(value @ 1..) => Ok(value),
            _ => self.refuse(name, "is not an integer from 1 to 2^63-1"),
        }
    }

    /// An integer from 1 to 2^32-1: thresholds.
    pub(super) fn threshold(&self, name: &str) -> Result<u32, TufError> {
        match self.required(name)?.as_int().and_then(|value| u32::try_from(value).ok()) {
            Some(value @ 1..) => Ok(value),
            _ => self.refuse(name, "is not an integer from 1 to 2^32-1"),
        }
    }

    pub(super) fn time(&self, name: &str) -> Result<UnixTime, TufError> {
        match UnixTime::parse(self.text(name)?) {
            Ok(time) => Ok(time),
            Err(_) => self.refuse(name, "is not a time of the form YYYY-MM-DDTHH:MM:SSZ"),
        }
    }

    pub(super) fn members(&self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.members.iter()
    }

    /// The members whose names are none of `known`, to be written back as they came.
    pub(super) fn unknown(&self, known: &[&str]) -> Object {
        self.members
            .iter()
            .filter(|(name, _)| !known.contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }
}

/// An integer of at most 2^63-1; larger numbers cannot come from metadata, and a writer that
/// makes one gets the largest.
pub(super) fn int(value: u64) -> Value {
    Value::Int(i64::try_from(value).unwrap_or(i64::MAX))
}
