//! What all four kinds of metadata begin with (TUF §4.3).

use super::fields::{Fields, int};
use super::names::shown;
use super::{TufError, UnixTime};
use crate::json::{Object, Value};

/// The specification our own metadata names. Any 1.x is read.
pub const SPEC_VERSION: &str = "1.0.0";

/// The common members of signed metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Always 1.x.
    pub spec_version: String,
    /// 1 to 2^63-1.
    pub version: u64,
    /// From this second on the metadata is not to be relied on.
    pub expires: UnixTime,
}

/// Member of signed metadata: seconds from signing to expiry (tuf-on-ci keeps the like in
/// `x-tuf-on-ci-expiry-period`).
pub const PERIOD_MEMBER: &str = "x-racklet-expiry-period";

/// 10 years, in seconds: no signer of ours writes a longer period.
const LONGEST_PERIOD: i64 = 3650 * 86_400;

impl Header {
    /// The header of metadata to be written.
    pub fn new(version: u64, expires: UnixTime) -> Self {
        Header { spec_version: SPEC_VERSION.to_owned(), version, expires }
    }

    /// Whether it may still be relied on: `now` is before its expiry (TUF §5.3.10, §5.4.4 …).
    pub fn is_alive(&self, now: UnixTime) -> bool {
        now < self.expires
    }

    /// When it was signed, by its own word: its expiry less the period that [`PERIOD_MEMBER`] names.
    /// `members` are those the specification does not name.
    ///
    /// `None` without a period, or with one that is not from 1 second to 10 years.
    pub fn signed_at(&self, members: &Object) -> Option<UnixTime> {
        let period = members.get(PERIOD_MEMBER).and_then(Value::as_int)?;
        (1..=LONGEST_PERIOD).contains(&period).then(|| self.expires.plus(-period))
    }

    pub(super) const MEMBERS: [&'static str; 4] = ["_type", "expires", "spec_version", "version"];

    /// Reads the header; the rest is read from the returned fields.
    pub(super) fn read<'a>(
        signed: &'a Value,
        type_name: &'static str,
    ) -> Result<(Self, Fields<'a>), TufError> {
        let fields = Fields::of(signed, type_name)?;
        let found = fields.text("_type")?;
        if found != type_name {
            return Err(TufError::Type { expected: type_name.to_owned(), found: shown(found) });
        }
        let spec_version = match fields.required("spec_version")? {
            Value::String(text) if is_spec_1(text) => text.clone(),
            Value::String(other) => return Err(TufError::SpecVersion(shown(other))),
            other => return Err(TufError::SpecVersion(shown(&format!("{other:?}")))),
        };
        let (version, expires) = (fields.version("version")?, fields.time("expires")?);
        Ok((Header { spec_version, version, expires }, fields))
    }

    /// The members of the whole document so far: these, and those nobody knew.
    pub(super) fn to_members(&self, type_name: &str, unknown: &Object) -> Object {
        let mut out = unknown.clone();
        out.insert("_type".into(), Value::from(type_name));
        out.insert("spec_version".into(), Value::from(self.spec_version.as_str()));
        out.insert("version".into(), int(self.version));
        out.insert("expires".into(), Value::from(self.expires.to_string()));
        out
    }
}

/// `1.N` or `1.N.N`. The specification asks for three numbers; repositories as large as
/// sigstore's write `1.0`.
fn is_spec_1(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    let numeric = |part: &&str| {
        (1..=6).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    matches!(parts.as_slice(), ["1", rest @ ..] if (1..=2).contains(&rest.len()))
        && parts.iter().all(numeric)
}

/// One kind of signed metadata.
pub trait Metadata: Sized {
    /// Reads the signed object. Does not look at signatures: only what came out of a
    /// [`RoleKeys::verify`](super::RoleKeys::verify)ed envelope is to be believed.
    fn parse(signed: &Value) -> Result<Self, TufError>;

    /// The same of an object that is not needed any more: long lists of targets are moved, not copied.
    fn from_value(signed: Value) -> Result<Self, TufError> {
        Self::parse(&signed)
    }

    /// The signed object, with every unknown member it was read with.
    fn to_value(&self) -> Value;

    /// Version and expiry.
    fn header(&self) -> &Header;
}
