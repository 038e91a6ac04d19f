//! The envelope of every metadata file: what is signed, and by whom (TUF §4.2).
//!
//! ```json
//! {"signatures":[{"keyid":"…","sig":"…"}],"signed":{"_type":"…", …}}
//! ```

use std::ops::Range;
use std::sync::OnceLock;

use super::fields::Fields;
use super::{KeyId, TufError};
use crate::digest::{hex, unhex};
use crate::json::{Canonical, Object, Value};

/// Most signatures that are looked at: more is refused before any of them is verified. The
/// largest ceremonies known have about ten.
pub const MAX_SIGNATURES: usize = 256;

/// One signature, as it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// Whose it claims to be.
    pub keyid: String,
    /// Lower-case hexadecimal of the signature, whatever else it may be in foreign files.
    pub sig: String,
}

impl Signature {
    /// A signature to be written.
    pub fn new(keyid: KeyId, signature: &[u8]) -> Self {
        Signature { keyid: keyid.to_string(), sig: hex(signature) }
    }

    /// The signature's bytes; `None` if it is not lower-case hexadecimal.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        unhex(&self.sig)
    }
}

/// Metadata whose signatures have not been looked at: nothing in it is to be believed.
///
/// Holds a text and no tree, so that a file whose signatures turn out to be wrong has cost a small
/// multiple of its length.
#[derive(Debug, Clone)]
pub struct Envelope {
    signatures: Vec<Signature>,
    text: Canonical,
    /// Where the signed object stands in the text.
    signed: Range<usize>,
    tree: OnceLock<Value>,
}

impl PartialEq for Envelope {
    fn eq(&self, other: &Self) -> bool {
        self.signatures == other.signatures && self.canonical() == other.canonical()
    }
}

impl Eq for Envelope {}

impl Envelope {
    /// Reads a metadata file. Members beside `signed` and `signatures` are not signed and
    /// therefore ignored; the caller keeps the received bytes.
    ///
    /// Errors: [`TufError::Json`], [`TufError::Format`]; [`TufError::Limit`] for more than
    /// [`MAX_SIGNATURES`]; [`TufError::KeyDuplicate`] for a key id that signs twice (TUF §4.2:
    /// "the keyid MUST be unique in the signatures array").
    pub fn parse(bytes: &[u8]) -> Result<Self, TufError> {
        let text = Canonical::parse(bytes)?;
        let part = |name: &str| match (text.member(name), text.as_bytes().first()) {
            (Some(part), _) => Ok(part),
            (None, Some(b'{')) => missing(format!("metadata.{name}"), "is missing"),
            (None, _) => missing("metadata".to_owned(), "is not an object"),
        };
        let signatures = read_signatures(&text.value(part("signatures")?))?;
        let signed = part("signed")?;
        if text.as_bytes().get(signed.start) != Some(&b'{') {
            return missing("metadata.signed".to_owned(), "is not an object");
        }
        Ok(Envelope { signatures, text, signed, tree: OnceLock::new() })
    }

    /// The signatures, key ids distinct.
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// The signed object. Its tree is made when it is first asked for.
    pub fn signed(&self) -> &Value {
        self.tree.get_or_init(|| self.text.value(self.signed.clone()))
    }

    /// The signed object, without the text and the signatures.
    pub fn into_signed(self) -> Value {
        let Envelope { text, signed, tree, .. } = self;
        tree.into_inner().unwrap_or_else(|| text.value(signed))
    }

    /// The bytes the signatures are made over: the canonical form of [`Envelope::signed`].
    pub fn canonical(&self) -> &[u8] {
        let signed = self.text.as_bytes().get(self.signed.clone());
        signed.expect("the signed object is a part of this text")
    }
}

fn missing<T>(at: String, problem: &'static str) -> Result<T, TufError> {
    Err(TufError::Format { at, problem })
}

fn read_signatures(list: &Value) -> Result<Vec<Signature>, TufError> {
    let Some(list) = list.as_array() else {
        return missing("metadata.signatures".to_owned(), "is not a list");
    };
    if list.len() > MAX_SIGNATURES {
        return Err(TufError::Limit { what: "signatures", limit: MAX_SIGNATURES });
    }
    let mut signatures: Vec<Signature> = Vec::with_capacity(list.len());
    for (i, entry) in list.iter().enumerate() {
        let entry = Fields::of(entry, format!("signatures[{i}]"))?;
        let (keyid, sig) = (entry.text("keyid")?.to_owned(), entry.text("sig")?.to_owned());
        if signatures.iter().any(|other| other.keyid == keyid) {
            let at = "signatures".to_owned();
            return Err(TufError::KeyDuplicate { at, first: keyid.clone(), second: keyid });
        }
        signatures.push(Signature { keyid, sig });
    }
    Ok(signatures)
}

/// The file of `signed` with these signatures: compact JSON, members sorted, so equal facts
/// give equal bytes. What each signature is made over is `signed.canonical()`.
pub fn envelope_bytes(signed: &Value, signatures: &[Signature]) -> Vec<u8> {
    let signatures = signatures.iter().map(|signature| {
        Value::object([
            ("keyid", Value::from(signature.keyid.as_str())),
            ("sig", Value::from(signature.sig.as_str())),
        ])
    });
    Value::Object(Object::from([
        ("signatures".to_owned(), Value::Array(signatures.collect())),
        ("signed".to_owned(), signed.clone()),
    ]))
    .to_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Reason;

    #[test]
    fn what_is_written_is_read_again() {
        let signed = Value::object([("_type", Value::from("x"))]);
        let keyid = KeyId(crate::digest::Sha256::of(b"k"));
        let bytes = envelope_bytes(&signed, &[Signature::new(keyid, &[1, 2])]);
        let envelope = Envelope::parse(&bytes).unwrap();
        assert_eq!(envelope.signed(), &signed);
        assert_eq!(envelope.canonical(), br#"{"_type":"x"}"#);
        assert_eq!(envelope.signatures()[0].bytes(), Some(vec![1, 2]));
        assert_eq!(envelope_bytes(envelope.signed(), envelope.signatures()), bytes);
    }

    #[test]
    fn malformed_envelopes_have_their_reason() {
        let many = format!(
            r#"{{"signed":{{}},"signatures":[{}]}}"#,
            (0..200_000)
                .map(|i| format!(r#"{{"keyid":"{i}","sig":""}}"#))
                .collect::<Vec<_>>()
                .join(",")
        );
        for (text, reason) in [
            ("{}", Reason::MetaFormat),
            ("[]", Reason::MetaFormat),
            ("null", Reason::MetaFormat),
            (r#""x""#, Reason::MetaFormat),
            (r#"{"signed":{}}"#, Reason::MetaFormat),
            (r#"{"signatures":[]}"#, Reason::MetaFormat),
            (r#"{"signed":[],"signatures":[]}"#, Reason::MetaFormat),
            (r#"{"signed":{},"signatures":{}}"#, Reason::MetaFormat),
            (r#"{"signed":{},"signatures":[1]}"#, Reason::MetaFormat),
            (r#"{"signed":{},"signatures":[{"keyid":"a"}]}"#, Reason::MetaFormat),
            (r#"{"signed":{},"signed":{},"signatures":[]}"#, Reason::MetaFormat),
            (r#"{"signed":{},"signatures":[],"signatures":[]}"#, Reason::MetaFormat),
            (
                r#"{"signed":{},"signatures":[{"keyid":"a","sig":"00"},{"keyid":"a","sig":"01"}]}"#,
                Reason::KeyDuplicate,
            ),
            (many.as_str(), Reason::MetaLimit),
        ] {
            let shown: String = text.chars().take(60).collect();
            let error = Envelope::parse(text.as_bytes()).expect_err(&shown);
            assert_eq!(error.reason(), reason, "{shown}: {error}");
        }
    }
}
