//! From received bytes to the canonical form, without a tree: what nobody has verified yet costs
//! its own length, whatever its shape.
//!
//! ```text
//!  bytes ─► serde_json ─► Scan: writes each value as it comes, sorts the members of each object
//!                               when it ends, counts values and the memory their tree would take
//!        ─► Canonical ─► Value: only of what is wanted, with allocations of the exact size
//! ```

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{JsonError, MAX_DEPTH, MAX_VALUES, Object, TREE_LIMIT, Value, canonical_text};

/// What an allocator adds to each allocation.
pub(super) const ALLOCATION: usize = 16;

/// One value in its canonical form ([`Value::canonical`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canonical(Vec<u8>);

const WRITTEN_HERE: &str = "a canonical text is made by `Canonical::parse` alone";

impl Canonical {
    /// Reads exactly one value, by the rules of [`Value::parse`].
    ///
    /// Takes memory of at most three times the length of `bytes` and 8 MiB.
    pub fn parse(bytes: &[u8]) -> Result<Self, JsonError> {
        if u32::try_from(bytes.len()).is_err() {
            return Err(JsonError::TooLarge);
        }
        let state =
            State { out: RefCell::new(Vec::with_capacity(bytes.len())), ..State::default() };
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        // Our own bound is lower and has its own error.
        let scan = Scan { state: &state, depth: 0 };
        let result = scan.deserialize(&mut deserializer).and_then(|()| deserializer.end());
        match (result, state.refused.into_inner()) {
            (Ok(()), _) => Ok(Canonical(state.out.into_inner())),
            (Err(_), Some(refused)) => Err(refused),
            (Err(error), None) => Err(JsonError::Syntax(error.to_string())),
        }
    }

    /// The text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Where the value of a member of the outermost object stands; `None` if there is no object
    /// or no such member.
    pub fn member(&self, name: &str) -> Option<Range<usize>> {
        let mut reader = Reader { text: &self.0, at: 0 };
        reader.take(b'{')?;
        while reader.peek()? != b'}' {
            let found = reader.string()? == name;
            reader.take(b':')?;
            let start = reader.at;
            reader.skip()?;
            if found {
                return Some(start..reader.at);
            }
            reader.comma();
        }
        None
    }

    /// The tree of a part that [`Canonical::member`] gave, or of the whole.
    pub fn value(&self, part: Range<usize>) -> Value {
        let text = self.0.get(part).expect(WRITTEN_HERE);
        Reader { text, at: 0 }.value().expect(WRITTEN_HERE)
    }
}

/// What one scan has written and counted, and why it stopped: serde's own errors carry only text.
#[derive(Default)]
struct State {
    out: RefCell<Vec<u8>>,
    values: Cell<usize>,
    /// Bytes that the tree would take.
    tree: Cell<usize>,
    refused: RefCell<Option<JsonError>>,
}

#[derive(Clone, Copy)]
struct Scan<'a> {
    state: &'a State,
    depth: usize,
}

/// Where a member stands in the text: its quoted name, from `at` to `colon`, and its value, to `end`.
#[derive(Clone, Copy)]
struct Member {
    at: u32,
    colon: u32,
    end: u32,
}

impl Scan<'_> {
    fn refuse<T, E: serde::de::Error>(self, why: JsonError) -> Result<T, E> {
        let error = E::custom(&why);
        self.state.refused.replace(Some(why));
        Err(error)
    }

    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return self.refuse(JsonError::TooDeep);
        }
        Ok(Scan { depth: self.depth + 1, ..self })
    }

    fn charge<E: serde::de::Error>(self, bytes: usize) -> Result<(), E> {
        let tree = self.state.tree.get().saturating_add(bytes);
        self.state.tree.set(tree);
        if tree > TREE_LIMIT { self.refuse(JsonError::TooLarge) } else { Ok(()) }
    }

    fn write(self, text: &[u8]) {
        self.state.out.borrow_mut().extend_from_slice(text);
    }

    /// The offset of what is written next; below 2^32, because the text is never longer than what
    /// it is made from.
    fn at(self) -> u32 {
        u32::try_from(self.state.out.borrow().len()).unwrap_or(u32::MAX)
    }

    /// Sorts the members that were written behind offset `start`.
    fn sort<E: serde::de::Error>(self, start: u32, members: &mut [Member]) -> Result<(), E> {
        let mut out = self.state.out.borrow_mut();
        let order = |a: &Member, b: &Member| by_code_point(name(&out, a), name(&out, b));
        if members.is_sorted_by(|a, b| order(a, b) == Ordering::Less) {
            return Ok(());
        }
        members.sort_unstable_by(order);
        let twins = members.windows(2).find(|pair| match pair {
            [a, b] => order(a, b) == Ordering::Equal,
            _ => false,
        });
        if let Some([twin, _]) = twins {
            let text = Reader { text: name(&out, twin), at: 0 }.unescaped();
            let why = JsonError::DuplicateMember(text.unwrap_or_default());
            drop(out);
            return self.refuse(why);
        }
        let start = start as usize;
        let unsorted = out.split_off(start);
        for (i, member) in members.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            let (from, to) = (member.at as usize - start, member.end as usize - start);
            out.extend_from_slice(
                unsorted
                    .get(from..to)
                    .expect("a member was written behind the start of its object"),
            );
        }
        Ok(())
    }
}

/// A member's name as it is written, without quotation marks.
fn name<'a>(out: &'a [u8], member: &Member) -> &'a [u8] {
    let (from, to) = (member.at as usize + 1, member.colon as usize - 1);
    out.get(from..to).expect("a name was written between two quotation marks")
}

/// Compares what two escaped names stand for. The order of UTF-8 is that of code points.
fn by_code_point(a: &[u8], b: &[u8]) -> Ordering {
    let plain = |text: &'_ [u8]| {
        let mut escaped = false;
        let keep = text.iter().copied().filter(move |byte| {
            escaped = *byte == b'\\' && !escaped;
            !escaped
        });
        keep.collect::<Vec<u8>>()
    };
    if a.contains(&b'\\') || b.contains(&b'\\') { plain(a).cmp(&plain(b)) } else { a.cmp(b) }
}

impl<'de> DeserializeSeed<'de> for Scan<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let values = self.state.values.get();
        if values == MAX_VALUES {
            return self.refuse(JsonError::TooMany);
        }
        self.state.values.set(values + 1);
        self.charge(size_of::<Value>())?;
        deserializer.deserialize_any(self)
    }
}

/// The name of a member.
struct Name<'a>(Scan<'a>);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.0.charge(size_of::<String>())?;
        deserializer.deserialize_str(self.0)
    }
}

impl<'de> Visitor<'de> for Scan<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.write(b"null");
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        self.write(if value { b"true" } else { b"false" });
        Ok(())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.write(value.to_string().as_bytes());
        Ok(())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        match i64::try_from(value) {
            Ok(value) => self.visit_i64(value),
            Err(_) => self.refuse(JsonError::NotAnInteger(value.to_string())),
        }
    }

    // Also `-0` and integers beyond 64 bits come here.
    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        self.refuse(JsonError::NotAnInteger(value.to_string()))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        self.charge(value.len() + ALLOCATION)?;
        canonical_text(value, &mut self.state.out.borrow_mut());
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        self.charge(ALLOCATION)?;
        self.write(b"[");
        let mut first = true;
        loop {
            if !first {
                self.write(b",");
            }
            if list.next_element_seed(inner)?.is_none() {
                break;
            }
            first = false;
        }
        if !first {
            self.state.out.borrow_mut().pop();
        }
        self.write(b"]");
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        self.charge(ALLOCATION)?;
        self.write(b"{");
        let start = self.at();
        let mut members = Vec::new();
        loop {
            if !members.is_empty() {
                self.write(b",");
            }
            let at = self.at();
            if map.next_key_seed(Name(inner))?.is_none() {
                break;
            }
            let colon = self.at();
            self.write(b":");
            map.next_value_seed(inner)?;
            members.push(Member { at, colon, end: self.at() });
        }
        if !members.is_empty() {
            self.state.out.borrow_mut().pop();
        }
        self.sort(start, &mut members)?;
        self.write(b"}");
        Ok(())
    }

    // Only formats other than JSON have these; nothing may slip through serde's defaults.
    fn visit_bytes<E: serde::de::Error>(self, _: &[u8]) -> Result<(), E> {
        Err(E::custom("bytes are no JSON"))
    }
}

/// Reads a canonical text. `None` would be a text that [`Scan`] did not write.
struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// Passes a comma, if there is one.
    fn comma(&mut self) {
        let _ = self.take(b',');
    }

    /// Passes a string and says where its text stands, quotation marks left out.
    fn quoted(&mut self) -> Option<Range<usize>> {
        self.take(b'"')?;
        let start = self.at;
        loop {
            let rest = self.text.get(self.at..)?;
            let stop = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
            self.at += stop;
            if rest.get(stop) == Some(&b'"') {
                break;
            }
            self.at += 2;
        }
        self.at += 1;
        Some(start..self.at - 1)
    }

    fn string(&mut self) -> Option<String> {
        let text = self.text.get(self.quoted()?)?;
        Reader { text, at: 0 }.unescaped()
    }

    /// All of the text without the escapes, in an allocation of its size.
    fn unescaped(&self) -> Option<String> {
        if !self.text.contains(&b'\\') {
            return str::from_utf8(self.text).ok().map(str::to_owned);
        }
        let escapes = || {
            let mut escaped = false;
            self.text.iter().filter(move |byte| {
                escaped = **byte == b'\\' && !escaped;
                !escaped
            })
        };
        let mut out = Vec::with_capacity(escapes().count());
        out.extend(escapes());
        String::from_utf8(out).ok()
    }

    /// Passes one value.
    fn skip(&mut self) -> Option<()> {
        let mut depth = 0usize;
        loop {
            match self.peek()? {
                b'"' => {
                    self.quoted()?;
                }
                b'[' | b'{' => {
                    depth += 1;
                    self.at += 1;
                    continue;
                }
                b']' | b'}' => {
                    depth = depth.checked_sub(1)?;
                    self.at += 1;
                }
                b',' | b':' => {
                    self.at += 1;
                    continue;
                }
                _ => {
                    let end = |byte: &u8| matches!(byte, b',' | b']' | b'}' | b':');
                    let rest = self.text.get(self.at..)?;
                    self.at += rest.iter().position(end).unwrap_or(rest.len());
                }
            }
            if depth == 0 {
                return Some(());
            }
        }
    }

    /// How many values or members follow in the list or object just entered.
    fn count(&self) -> Option<usize> {
        let mut ahead = Reader { text: self.text, at: self.at };
        let mut count = 0;
        while !matches!(ahead.peek()?, b']' | b'}') {
            ahead.skip()?;
            if ahead.peek()? == b':' {
                ahead.at += 1;
                ahead.skip()?;
            }
            ahead.comma();
            count += 1;
        }
        Some(count)
    }

    fn value(&mut self) -> Option<Value> {
        match self.peek()? {
            b'"' => Some(Value::String(self.string()?)),
            b'[' => self.array(),
            b'{' => self.object(),
            _ => {
                let start = self.at;
                self.skip()?;
                match self.text.get(start..self.at)? {
                    b"null" => Some(Value::Null),
                    b"true" => Some(Value::Bool(true)),
                    b"false" => Some(Value::Bool(false)),
                    number => str::from_utf8(number).ok()?.parse().ok().map(Value::Int),
                }
            }
        }
    }

    fn array(&mut self) -> Option<Value> {
        self.take(b'[')?;
        let mut values = Vec::with_capacity(self.count()?);
        while self.peek()? != b']' {
            values.push(self.value()?);
            self.comma();
        }
        self.take(b']')?;
        Some(Value::Array(values))
    }

    fn object(&mut self) -> Option<Value> {
        self.take(b'{')?;
        let mut members = Vec::with_capacity(self.count()?);
        while self.peek()? != b'}' {
            let name = self.string()?;
            self.take(b':')?;
            members.push((name, self.value()?));
            self.comma();
        }
        self.take(b'}')?;
        Some(Value::Object(Object::from_sorted(members)))
    }
}
