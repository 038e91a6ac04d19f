//! The hashes that stand in TUF metadata. Pure.

use formats::digest::{Algorithm, Digest, Sha256};
use serde::Deserializer;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};

/// Every digest that stands under the name of its algorithm, as the hashes of targets do. What is
/// odd or not JSON takes nothing away from what stands before it. Keeps nothing else in memory.
pub(super) fn targets_of(bytes: &[u8]) -> Vec<Digest> {
    // Escapes may spell any name, and hide where a text ends. Canonical metadata has hardly any.
    if bytes.contains(&b'\\') { walked(bytes) } else { scanned(bytes) }
}

/// The same in a document without escapes, where every quotation mark begins or ends a text: ten times as
/// fast, for lists of ten thousand releases of which there are hundreds. Of what is no JSON it may find
/// more.
fn scanned(bytes: &[u8]) -> Vec<Digest> {
    let mut found = Vec::new();
    // Between the marks stand by turns what is around texts, and texts.
    let mut parts = bytes.split(|byte| *byte == b'"').skip(1);
    let mut name = parts.next();
    while let Some(text) = name.take() {
        let Some(around) = parts.next() else { break };
        let Some(next) = parts.next() else { break };
        name = Some(next);
        if around.trim_ascii() != b":" {
            continue;
        }
        let Ok(hex) = std::str::from_utf8(next) else { continue };
        match text {
            b"sha256" => found.extend(Sha256::from_hex(hex).map(Digest::Sha256)),
            b"sha512" => found.extend(format!("sha512:{hex}").parse::<Digest>()),
            _ => {}
        }
    }
    found
}

/// The same in any document.
fn walked(bytes: &[u8]) -> Vec<Digest> {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json(depth: u32) -> BoxedStrategy<String> {
        let hex = proptest::collection::vec(0u8..16, 64)
            .prop_map(|all| all.iter().map(|it| format!("{it:x}")).collect::<String>());
        let text = prop_oneof![
            Just("sha256".to_owned()),
            Just("sha512".to_owned()),
            Just("sha1".to_owned()),
            "[a-z{}:, ]{0,6}",
            hex,
        ];
        let leaf = prop_oneof![
            text.clone().prop_map(|text| format!("\"{text}\"")),
            Just("null".to_owned()),
            Just("-1.5e3".to_owned()),
        ];
        let space = prop_oneof![Just(""), Just(" "), Just("\n\t")];
        let name = prop_oneof![Just("sha256".to_owned()), text];
        leaf.prop_recursive(depth, 40, 5, move |inner| {
            let member = (name.clone(), space.clone(), space.clone(), inner.clone())
                .prop_map(|(name, a, b, value)| format!("{a}\"{name}\"{a}:{b}{value}"));
            prop_oneof![
                proptest::collection::vec(inner, 0..5).prop_map(|it| format!("[{}]", it.join(","))),
                proptest::collection::vec(member, 0..5)
                    .prop_map(|it| format!("{{{}}}", it.join(","))),
            ]
        })
        .boxed()
    }

    proptest! {
        #[test]
        fn both_ways_find_the_same(document in json(4)) {
            prop_assert_eq!(scanned(document.as_bytes()), walked(document.as_bytes()));
        }

        #[test]
        fn nothing_is_missed_in_what_is_no_json(document in json(3), cut in any::<prop::sample::Index>(), extra in "[\"{}:,x]{0,3}") {
            let at = cut.index(document.len() + 1);
            let bytes = [&document.as_bytes()[..at], extra.as_bytes(), &document.as_bytes()[at..]].concat();
            let found = targets_of(&bytes);
            prop_assert!(walked(&bytes).iter().all(|it| found.contains(it)));
        }
    }

    #[test]
    fn names_may_be_spelled_with_escapes() {
        let hex = "ab".repeat(32);
        let wanted: Vec<Digest> = vec![format!("sha256:{hex}").parse().unwrap()];
        assert_eq!(targets_of(format!(r#"{{"\u0073ha256":"{hex}"}}"#).as_bytes()), wanted);
        assert_eq!(targets_of(format!(r#"{{"x\"":{{"sha256":"{hex}"}}}}"#).as_bytes()), wanted);
    }
}
