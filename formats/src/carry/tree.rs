//! JSON as its own text: numbers, strings and the order of members stay as they were written.

use std::fmt;

use serde::de::IgnoredAny;

/// A JSON value. Names and scalars are slices of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tree<'a> {
    /// Names with their quotes.
    Object(Vec<(&'a str, Tree<'a>)>),
    Array(Vec<Tree<'a>>),
    Scalar(&'a str),
}

impl<'a> Tree<'a> {
    pub(super) const NULL: Tree<'static> = Tree::Scalar("null");

    /// `None` where the bytes are no JSON, or nested more deeply than `serde_json` reads.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let text = str::from_utf8(bytes).ok()?;
        serde_json::from_str::<IgnoredAny>(text).ok()?;
        Reader { rest: text }.value()
    }

    /// Whether it says nothing: this version leaves out what is empty.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Tree::Object(members) => members.is_empty(),
            Tree::Array(elements) => elements.is_empty(),
            Tree::Scalar(text) => matches!(*text, "null" | "false" | "\"\""),
        }
    }
}

impl fmt::Display for Tree<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tree::Scalar(text) => f.write_str(text),
            Tree::Array(elements) => {
                f.write_str("[")?;
                for (nth, element) in elements.iter().enumerate() {
                    f.write_str(if nth == 0 { "" } else { "," })?;
                    element.fmt(f)?;
                }
                f.write_str("]")
            }
            Tree::Object(members) => {
                f.write_str("{")?;
                for (nth, (name, value)) in members.iter().enumerate() {
                    f.write_str(if nth == 0 { "" } else { "," })?;
                    write!(f, "{name}:{value}")?;
                }
                f.write_str("}")
            }
        }
    }
}

/// Reads text that is known to be JSON; what is not is `None`.
struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn value(&mut self) -> Option<Tree<'a>> {
        match self.peek()? {
            b'{' => {
                let mut members = Vec::new();
                self.list(b'}', |reader| {
                    reader.peek()?;
                    let name = reader.scalar()?;
                    (reader.peek()? == b':').then(|| reader.skip(1))?;
                    members.push((name, reader.value()?));
                    Some(())
                })?;
                Some(Tree::Object(members))
            }
            b'[' => {
                let mut elements = Vec::new();
                self.list(b']', |reader| {
                    elements.push(reader.value()?);
                    Some(())
                })?;
                Some(Tree::Array(elements))
            }
            _ => self.scalar().map(Tree::Scalar),
        }
    }

    /// From the opening bracket to the closing one.
    fn list(&mut self, end: u8, mut one: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.skip(1);
        while self.peek()? != end {
            one(self)?;
            if self.peek()? == b',' {
                self.skip(1);
            }
        }
        self.skip(1);
        Some(())
    }

    fn scalar(&mut self) -> Option<&'a str> {
        let bytes = self.rest.as_bytes();
        let len = match bytes.first()? {
            b'"' => {
                let mut at = 1;
                while *bytes.get(at)? != b'"' {
                    at += 1 + usize::from(bytes[at] == b'\\');
                }
                at + 1
            }
            _ => {
                let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b':') || is_blank(*byte);
                bytes.iter().position(ends).unwrap_or(bytes.len())
            }
        };
        let (scalar, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        (!scalar.is_empty()).then_some(scalar)
    }

    /// The next byte that is no blank.
    fn peek(&mut self) -> Option<u8> {
        self.rest = self.rest.trim_start_matches(|c: char| c.is_ascii() && is_blank(c as u8));
        self.rest.as_bytes().first().copied()
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}
