//! JSON that is signed: a strict value, the OLPC canonical form, and deterministic bytes.
//!
//! Signatures cover a canonical form of the *received* value, so two readers that disagree about
//! what a text means disagree about what was signed. This reader therefore refuses whatever
//! parsers are known to read differently:
//!
//! | text | here |
//! |---|---|
//! | a member twice in one object, at any depth | [`JsonError::DuplicateMember`] |
//! | a number with fraction or exponent, `-0`, or outside `i64` | [`JsonError::NotAnInteger`] |
//! | nesting deeper than [`MAX_DEPTH`], more than [`MAX_VALUES`] values | [`JsonError::TooDeep`], [`JsonError::TooMany`] |
//! | a tree that takes more memory than [`TREE_LIMIT`] | [`JsonError::TooLarge`] |
//! | byte order mark, invalid UTF-8, lone surrogates, bytes after the value | [`JsonError::Syntax`] |
//!
//! ```
//! use formats::json::Value;
//! let value = Value::parse(br#"{ "b": [1, true], "a": "\u0061\"" }"#)?;
//! assert_eq!(value.canonical(), br#"{"a":"a\"","b":[1,true]}"#);
//! assert_eq!(Value::parse(&value.to_bytes())?, value);
//! # Ok::<(), formats::json::JsonError>(())
//! ```

mod canonical;
mod object;
mod weight;

use std::fmt;

pub use canonical::Canonical;
pub use object::{Members, Object};
pub use weight::{is_light, weight};

/// Deepest nesting that is read. Our deepest document has 8 levels; foreign `custom` a few more.
/// Bounds the stack of every recursive walk.
pub const MAX_DEPTH: usize = 64;

/// Most values (scalars, arrays, objects) in one text; bounds the time of reading it. 2 MiB of
/// targets metadata hold about 80,000.
pub const MAX_VALUES: usize = 1 << 17;

/// 6 MiB: the most memory that the tree of one text may take, in bytes as they are allocated. A
/// limit of the text alone bounds nothing: `{"":0},` grows twentyfold, a digest twofold. Real
/// targets metadata of 2 MiB takes about 5 MiB.
pub const TREE_LIMIT: usize = 6 << 20;

/// Why bytes are not JSON that may be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not one JSON value.
    #[error("not JSON: {0}")]
    Syntax(String),
    /// A name stands twice in one object.
    #[error("member {0:?} stands twice in one object")]
    DuplicateMember(String),
    /// A number other than an integer of 64 bits.
    #[error("number {0} is not an integer of 64 bits")]
    NotAnInteger(String),
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// More than [`MAX_VALUES`] values.
    #[error("more than {MAX_VALUES} values")]
    TooMany,
    /// Its tree takes more memory than [`TREE_LIMIT`].
    #[error("it would take more than {} MiB of memory", TREE_LIMIT >> 20)]
    TooLarge,
}

/// A JSON value without floating point.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A text.
    String(String),
    /// A list.
    Array(Vec<Value>),
    /// Named members.
    Object(Object),
}

impl Value {
    /// Reads exactly one value; nothing but white space may follow.
    pub fn parse(bytes: &[u8]) -> Result<Self, JsonError> {
        let text = Canonical::parse(bytes)?;
        Ok(text.value(0..text.as_bytes().len()))
    }

    /// An object of these members; a later one replaces an earlier one of its name.
    pub fn object<K: Into<String>>(members: impl IntoIterator<Item = (K, Value)>) -> Self {
        Value::Object(members.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }

    /// The truth value.
    pub fn as_bool(&self) -> Option<bool> {
        if let Value::Bool(value) = self { Some(*value) } else { None }
    }

    /// The integer.
    pub fn as_int(&self) -> Option<i64> {
        if let Value::Int(value) = self { Some(*value) } else { None }
    }

    /// The text.
    pub fn as_str(&self) -> Option<&str> {
        if let Value::String(value) = self { Some(value) } else { None }
    }

    /// The list.
    pub fn as_array(&self) -> Option<&[Value]> {
        if let Value::Array(value) = self { Some(value) } else { None }
    }

    /// The members.
    pub fn as_object(&self) -> Option<&Object> {
        if let Value::Object(value) = self { Some(value) } else { None }
    }

    /// The member of that name, if this is an object that has it.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.as_object()?.get(name)
    }

    /// The OLPC canonical form, over which TUF signatures and key ids are made: no white space,
    /// members sorted by code point, and in texts only `"` and `\` escaped. Every other
    /// character, control characters included, stands for itself, so this is not always JSON.
    ///
    /// Source: <http://wiki.laptop.org/go/Canonical_JSON>, TUF §4.1.
    pub fn canonical(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out, canonical_text);
        out
    }

    /// Compact JSON with members sorted as in the canonical form; equal values give equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out, json_text);
        out
    }

    fn write(&self, out: &mut Vec<u8>, text: fn(&str, &mut Vec<u8>)) {
        match self {
            Value::Null => out.extend_from_slice(b"null"),
            Value::Bool(true) => out.extend_from_slice(b"true"),
            Value::Bool(false) => out.extend_from_slice(b"false"),
            Value::Int(value) => out.extend_from_slice(value.to_string().as_bytes()),
            Value::String(value) => text(value, out),
            Value::Array(values) => {
                out.push(b'[');
                for (i, value) in values.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    value.write(out, text);
                }
                out.push(b']');
            }
            Value::Object(members) => {
                out.push(b'{');
                for (i, (name, value)) in members.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    text(name, out);
                    out.push(b':');
                    value.write(out, text);
                }
                out.push(b'}');
            }
        }
    }
}

fn canonical_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

fn json_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.to_bytes()))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::String(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::String(text)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Value::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Value::Int(value)
    }
}

impl From<Vec<Value>> for Value {
    fn from(values: Vec<Value>) -> Self {
        Value::Array(values)
    }
}

impl From<Object> for Value {
    fn from(members: Object) -> Self {
        Value::Object(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refused(text: &[u8]) -> JsonError {
        match Value::parse(text) {
            Err(error) => error,
            Ok(value) => panic!("{:?} was read as {value:?}", String::from_utf8_lossy(text)),
        }
    }

    #[test]
    fn a_member_may_stand_once_at_any_depth() {
        for text in [r#"{"a":1,"a":1}"#, r#"[{"x":{"a":1,"\u0061":2}}]"#] {
            assert_eq!(refused(text.as_bytes()), JsonError::DuplicateMember("a".into()));
        }
        Value::parse(br#"{"a":{"a":1},"b":{"a":1}}"#).unwrap();
    }

    #[test]
    fn numbers_are_integers_of_64_bits() {
        for (text, value) in [
            ("0", 0),
            ("-1", -1),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
            ("9007199254740993", (1 << 53) + 1),
        ] {
            assert_eq!(Value::parse(text.as_bytes()), Ok(Value::Int(value)), "{text}");
        }
        for text in ["-0", "1.0", "1e0", "0.5", "9223372036854775808", "18446744073709551616"] {
            let error = refused(text.as_bytes());
            assert!(matches!(error, JsonError::NotAnInteger(_)), "{text}: {error}");
        }
        for text in ["1e400", "00", "01", "+1", "-", ".5", "1.", "0x10", "NaN", "Infinity"] {
            let error = refused(text.as_bytes());
            assert!(matches!(error, JsonError::Syntax(_)), "{text}: {error}");
        }
    }

    #[test]
    fn exactly_one_value_in_utf8() {
        for text in [
            &b""[..],
            b" ",
            b"{} {}",
            b"{}x",
            b"{}\0",
            b"\xef\xbb\xbf{}",
            b"\"\xff\"",
            b"\"\xed\xa0\x80\"",
            br#""\ud800""#,
            br#""\udc00\ud800""#,
            br#""\ud800x""#,
            br#"{"a":1,}"#,
            b"[1,]",
            b"'a'",
            b"{a:1}",
            b"\"\x01\"",
            b"// c\n{}",
        ] {
            assert!(matches!(refused(text), JsonError::Syntax(_)));
        }
        assert_eq!(Value::parse(br#" "\ud83d\ude00" "#), Ok(Value::from("😀")));
    }

    #[test]
    fn depth_and_number_of_values_are_bounded() {
        let nested = |n: usize| [vec![b'['; n], vec![b']'; n]].concat();
        Value::parse(&nested(MAX_DEPTH)).unwrap();
        assert_eq!(refused(&nested(MAX_DEPTH + 1)), JsonError::TooDeep);
        assert_eq!(refused(&vec![b'['; 100_000]), JsonError::TooDeep);
        assert_eq!(refused(&br#"{"a":"#.repeat(100_000)), JsonError::TooDeep);
        let many = |n: usize| format!("[{}0]", "0,".repeat(n - 2)).into_bytes();
        Value::parse(&many(MAX_VALUES)).unwrap();
        assert_eq!(refused(&many(MAX_VALUES + 1)), JsonError::TooMany);
    }

    #[test]
    fn the_canonical_form_escapes_only_quote_and_backslash() {
        let value = Value::parse(
            r#"{"ä":null,"a":"\"\\\n\u0000\u007f/é","A":[-5,true,false,{}],"😀":1,"\uffee":[]}"#
                .as_bytes(),
        )
        .unwrap();
        let expected = "{\"A\":[-5,true,false,{}],\"a\":\"\\\"\\\\\n\0\u{7f}/é\",\"ä\":null,\
                        \"\u{ffee}\":[],\"😀\":1}";
        assert_eq!(String::from_utf8(value.canonical()).unwrap(), expected);
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            any::<String>().prop_map(Value::String),
        ];
        leaf.prop_recursive(6, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::Array),
                prop::collection::vec((any::<String>(), inner), 0..8).prop_map(Value::object),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(value in any_value()) {
            prop_assert_eq!(Value::parse(&value.to_bytes()), Ok(value.clone()));
            // serde_json, an independent reader, agrees on what we wrote.
            let other: serde_json::Value = serde_json::from_slice(&value.to_bytes()).unwrap();
            prop_assert_eq!(Value::parse(&serde_json::to_vec(&other).unwrap()), Ok(value));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = Value::parse(&bytes);
        }
    }
}
