//! A release that its maintainers took back.

use serde::{Deserialize, Serialize};

use super::ReleaseError;
use crate::json::{Object, Value};

/// Member of `custom` that holds the summary, and of the summary that holds the withdrawal.
const SUMMARY: &str = "racklet";
const MEMBER: &str = "withdrawn";

/// Characters of a reason: some sentences, which fit a status line of every node.
pub const REASON_LIMIT: usize = 500;

/// That a release is not to be installed any more, and why.
///
/// Stored as member `withdrawn` of the summary. It is signed by whoever signs for the release, and
/// changes neither the bytes nor the digest of the target. An agent that does not know it finds the
/// release in no channel, but does not refuse it when an operator names its version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawal {
    /// Unix seconds.
    pub at: u64,
    /// Why, for the people whose nodes run it: one line.
    pub because: String,
}

impl Withdrawal {
    /// Whether the reason is one line that can be shown.
    pub fn check(&self) -> Result<(), ReleaseError> {
        let because = &self.because;
        let long = because.chars().count() > REASON_LIMIT;
        if because.trim().is_empty() || long || because.chars().any(char::is_control) {
            let why =
                format!("the reason of a withdrawal is one line of 1 to {REASON_LIMIT} characters");
            return Err(ReleaseError::Form { what: "target custom", why });
        }
        Ok(())
    }

    /// The `custom` of a release with this in it; all else stays as it is.
    ///
    /// `None`: it is not the `custom` of a release.
    pub fn put_into(&self, custom: &Value) -> Option<Value> {
        let own = serde_json::to_vec(self).ok()?;
        let (mut all, mut summary) = parts(custom)?;
        summary.insert(MEMBER.to_owned(), Value::parse(&own).ok()?);
        all.insert(SUMMARY.to_owned(), Value::Object(summary));
        Some(Value::Object(all))
    }

    /// Whether `custom` says of a release what `before` says, and that it is withdrawn: what may be
    /// signed of a release that is published.
    pub fn is_all_that_changed(before: &Value, custom: &Value) -> bool {
        let without = |custom: &Value| {
            let (mut all, mut summary) = parts(custom)?;
            let own = summary.remove(MEMBER);
            all.insert(SUMMARY.to_owned(), Value::Object(summary));
            Some((all, own.is_some()))
        };
        match (without(before), without(custom)) {
            (Some((before, _)), Some((after, is_withdrawn))) => is_withdrawn && before == after,
            _ => false,
        }
    }
}

/// A `custom`, and the summary in it.
fn parts(custom: &Value) -> Option<(Object, Object)> {
    let all = custom.as_object()?.clone();
    let summary = all.get(SUMMARY)?.as_object()?.clone();
    Some((all, summary))
}

#[cfg(test)]
mod tests {
    use super::super::Summary;
    use super::*;

    const CUSTOM: &[u8] = br#"{"other":1,"racklet":{"version":"1.0.0","security_version":1,"components":[
        {"name":"os","compatible":["a"],"manifest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","raw_size":1}
        ],"later":{"x":[true]}}}"#;

    fn withdrawal(because: &str) -> Withdrawal {
        Withdrawal { at: 1_800_000_000, because: because.to_owned() }
    }

    #[test]
    fn it_is_added_to_a_release_and_nothing_else_changes() {
        let custom = Value::parse(CUSTOM).unwrap();
        let mine = withdrawal("it loses data");
        let with = mine.put_into(&custom).unwrap();
        let read = Summary::parse_custom(&with.to_bytes()).unwrap();
        assert_eq!(read.withdrawn.as_ref(), Some(&mine));
        assert_eq!(Summary::parse_custom(CUSTOM).unwrap(), Summary { withdrawn: None, ..read });
        assert!(Withdrawal::is_all_that_changed(&custom, &with));
        let other = withdrawal("it loses more data").put_into(&with).unwrap();
        assert!(Withdrawal::is_all_that_changed(&with, &other), "the reason may be corrected");
        assert!(!Withdrawal::is_all_that_changed(&with, &custom), "it is never taken back");
        let mut forged = with.as_object().unwrap().clone();
        forged.insert("other".to_owned(), Value::parse(b"2").unwrap());
        assert!(!Withdrawal::is_all_that_changed(&custom, &Value::Object(forged)));
        for nothing in [&b"{}"[..], b"1", br#"{"racklet":1}"#] {
            let nothing = Value::parse(nothing).unwrap();
            assert_eq!(mine.put_into(&nothing), None);
            assert!(!Withdrawal::is_all_that_changed(&nothing, &nothing));
        }
    }

    #[test]
    fn a_reason_is_one_line() {
        assert!(withdrawal("CVE-2026-1: é").check().is_ok());
        for wrong in ["", " ", "a\nb", "\u{1b}[31m", &"x".repeat(REASON_LIMIT + 1)] {
            assert!(withdrawal(wrong).check().is_err(), "{wrong:?}");
            let custom = withdrawal(wrong).put_into(&Value::parse(CUSTOM).unwrap()).unwrap();
            assert!(Summary::parse_custom(&custom.to_bytes()).is_err(), "{wrong:?}");
        }
    }
}
