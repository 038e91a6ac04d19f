//! What a text will take when it is read, before anything is made of it.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::canonical::ALLOCATION;
use super::{TREE_LIMIT, Value};

/// The memory in bytes that the tree of a JSON text would take; `None` above `limit`. Allocates
/// nothing but the longest text with escapes in it.
///
/// For documents that are read into types of their own, by the looser rules of `serde_json`: the
/// fields of a type take no more than the members of a tree. A text that is no JSON weighs what was
/// read of it; its reader says what is wrong with it.
///
/// ```
/// assert!(formats::json::weight(br#"{"a":[1.5,"x"]}"#, 1000).is_some());
/// assert!(formats::json::weight(br#"[{"":0},{"":0},{"":0},{"":0}]"#, 100).is_none());
/// ```
pub fn weight(bytes: &[u8], limit: usize) -> Option<usize> {
    let held = Cell::new(0);
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let _ = Weigh { held: &held, limit }.deserialize(&mut deserializer);
    (held.get() <= limit).then(|| held.get())
}

/// Whether a document may be read into types: its tree takes at most [`TREE_LIMIT`].
pub fn is_light(bytes: &[u8]) -> bool {
    weight(bytes, TREE_LIMIT).is_some()
}

#[derive(Clone, Copy)]
struct Weigh<'a> {
    held: &'a Cell<usize>,
    limit: usize,
}

impl Weigh<'_> {
    fn add<E: serde::de::Error>(self, bytes: usize) -> Result<(), E> {
        let held = self.held.get().saturating_add(bytes);
        self.held.set(held);
        if held > self.limit { Err(E::custom("too heavy")) } else { Ok(()) }
    }
}

impl<'de> DeserializeSeed<'de> for Weigh<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.add(size_of::<Value>())?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Weigh<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.add(text.len() + ALLOCATION)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        self.add(ALLOCATION)?;
        while list.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.add(ALLOCATION)?;
        while map.next_key_seed(self)?.is_some() {
            map.next_value_seed(self)?;
        }
        Ok(())
    }
}
