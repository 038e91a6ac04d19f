//! The hashes that stand in TUF metadata. Pure.

use formats::digest::{Algorithm, Digest};
use serde::Deserializer;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};

/// Every digest that stands under the name of its algorithm, as the hashes of targets do. What is
/// odd or not JSON takes nothing away from what stands before it. Keeps nothing else in memory.
pub(super) fn targets_of(bytes: &[u8]) -> Vec<Digest> {
    let mut found = Vec::new();
    let mut document = serde_json::Deserializer::from_slice(bytes);
    let walked = Walk { name: "", found: &mut found }.deserialize(&mut document);
    if let Err(error) = walked {
        tracing::debug!(%error, "pushed as TUF metadata, and is none");
    }
    found
}

/// A value of a JSON document, and the member's name that it has.
struct Walk<'a> {
    name: &'a str,
    found: &'a mut Vec<Digest>,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        if Algorithm::from_name(self.name).is_ok()
            && let Ok(digest) = format!("{}:{text}", self.name).parse()
        {
            self.found.push(digest);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Walk { name: "", found: &mut *self.found })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(name) = members.next_key::<String>()? {
            members.next_value_seed(Walk { name: &name, found: &mut *self.found })?;
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}
