//! What is in a payload beyond what the summary has words for: shown as it stands, with the place.
//!
//! Other people's tools write members into metadata that this program does not know, and a signature
//! is over them as well. So the payload is walked against the members that are said in words, and
//! all others are listed, changed or not. Members of the top level are compared with the published
//! ones elsewhere.

use formats::json::Value;
use formats::release::Summary;
use formats::tuf::Role;

use crate::plan::Payload;

/// Which part of a document is said in words.
enum Shape {
    /// All of it.
    Said,
    /// These members.
    Members(&'static [(&'static str, Shape)]),
    /// The same of each member or element.
    Each(&'static Shape),
    /// All of it when it describes a release, whose lines name what they do not know.
    Custom,
}
use Shape::{Custom, Each, Members, Said};

/// A key is shown by its key id, which is made of all its members.
const KEYS: Shape = Said;
const ROLE: Shape = Members(&[("keyids", Said), ("threshold", Said)]);
const DELEGATED: Shape = Members(&[
    ("name", Said),
    ("keyids", Said),
    ("threshold", Said),
    ("paths", Said),
    ("path_hash_prefixes", Said),
    ("terminating", Said),
]);
const TARGET: Shape =
    Members(&[("length", Said), ("hashes", Members(&[("sha256", Said)])), ("custom", Custom)]);
const ROOT: &[(&str, Shape)] = &[("keys", KEYS), ("roles", Each(&ROLE))];
const TARGETS: &[(&str, Shape)] = &[
    ("targets", Each(&TARGET)),
    ("delegations", Members(&[("keys", KEYS), ("roles", Each(&DELEGATED))])),
];

/// A line for each member that nothing else says.
pub(super) fn lines(payload: &Payload) -> Vec<String> {
    let known = match payload.role {
        Role::Root => ROOT,
        Role::Targets | Role::Delegated(_) => TARGETS,
        _ => &[],
    };
    let mut lines = Vec::new();
    for (name, shape) in known {
        if let Some(value) = payload.signed.get(name) {
            walk(&mut lines, name, shape, value);
        }
    }
    lines
}

fn walk(lines: &mut Vec<String>, place: &str, shape: &Shape, value: &Value) {
    let below = |name: &str| format!("{place} › {name}");
    match (shape, value) {
        (Said, _) => {}
        (Custom, value) if Summary::parse_custom(&value.to_bytes()).is_ok() => {}
        (Members(known), Value::Object(members)) => {
            for (name, value) in members {
                match known.iter().find(|(known, _)| known == name) {
                    Some((_, shape)) => walk(lines, &below(name), shape, value),
                    None => lines.push(line(&below(name), value)),
                }
            }
        }
        (Each(shape), Value::Object(members)) => {
            members.iter().for_each(|(name, value)| walk(lines, &below(name), shape, value));
        }
        (Each(shape), Value::Array(items)) => {
            for (at, item) in items.iter().enumerate() {
                let name = item.get("name").and_then(Value::as_str);
                let name = name.map_or_else(|| at.to_string(), str::to_owned);
                walk(lines, &below(&name), shape, item);
            }
        }
        _ => lines.push(line(place, value)),
    }
}

fn line(place: &str, value: &Value) -> String {
    let text = String::from_utf8_lossy(&value.canonical()).into_owned();
    format!("! {place}: {text}, which this program does not know")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every level, with a member that is said and one that is not.
    #[test]
    fn a_member_of_any_level_is_shown_with_its_place() {
        let id = "ab".repeat(32);
        let targets = format!(
            r#"{{"_type":"targets","x-top":1,"targets":{{
                "plain.bin":{{"length":1,"hashes":{{"sha256":"{id}"}}}},
                "odd.bin":{{"length":1,"hashes":{{"sha256":"{id}","md5":"00"}},"x-file":[true],
                    "custom":{{"run":"rm"}}}}}},
              "delegations":{{"x-all":{{"a":1}},"keys":{{}},"roles":[
                {{"name":"dave","keyids":["{id}"],"threshold":1,"paths":["a/*"],"terminating":false,
                  "x-may":"all"}}]}}}}"#
        );
        let bins = r#"{"delegations":{"keys":{},"succinct_roles":{"keyids":[],"threshold":1,
            "bit_length":8,"name_prefix":"b"}}}"#;
        let root = r#"{"keys":{},"roles":{"root":{"keyids":[],"threshold":1,"x-note":"é"}}}"#;
        for (role, text, wanted) in [
            (
                Role::Targets,
                targets.as_str(),
                &[
                    r#"! delegations › roles › dave › x-may: "all""#,
                    r#"! delegations › x-all: {"a":1}"#,
                    r#"! targets › odd.bin › custom: {"run":"rm"}"#,
                    r#"! targets › odd.bin › hashes › md5: "00""#,
                    r#"! targets › odd.bin › x-file: [true]"#,
                ][..],
            ),
            (Role::Targets, bins, &[r#"! delegations › succinct_roles: {"bit_length":8,"#]),
            (Role::Root, root, &[r#"! roles › root › x-note: "é""#]),
            (Role::Root, r#"{"roles":[7]}"#, &["! roles › 0: 7"]),
        ] {
            let signed = Value::parse(text.as_bytes()).unwrap();
            let mut found = lines(&Payload { role, signed });
            found.sort();
            assert_eq!(found.len(), wanted.len(), "{found:?}");
            for (found, wanted) in found.iter().zip(wanted) {
                assert!(found.starts_with(wanted), "{found}");
            }
        }
    }
}
