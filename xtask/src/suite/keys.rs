//! The throw-away keys of `keys-example` are public: whoever trusts them trusts everybody. No file
//! that could be packaged may hold one.

use std::collections::BTreeSet;
use std::fs;

use anyhow::Result;
use racklet_tools::paths;
use serde_json::Value;

use crate::tracked::tracked_files;

/// Where example keys belong: the recipe's own folder, and tests.
const ALLOWED: [&str; 2] = ["keys-example/", "tests/"];

/// Kinds of files that carry trust: roots, configurations, public keys.
const CARRIERS: [&str; 4] = [".json", ".toml", ".pem", ".pub"];

/// Every tracked file that holds an example key, one line each.
pub(super) fn check() -> Result<Vec<String>> {
    let files = tracked_files()?;
    let read = |file: &String| fs::read_to_string(paths::root().join(file)).unwrap_or_default();
    let mut marks = BTreeSet::new();
    for file in files.iter().filter(|f| f.starts_with("keys-example/")) {
        let text = read(file);
        if let Ok(json) = serde_json::from_str::<Value>(&text) {
            public_values(&json, &mut marks);
        }
        if file.ends_with(".pub") {
            marks.extend(
                text.split_whitespace().filter(|word| word.len() >= 43).map(str::to_string),
            );
        }
    }
    let carriers = files.iter().filter(|f| CARRIERS.iter().any(|end| f.ends_with(end)));
    let suspects = carriers.filter(|f| !ALLOWED.iter().any(|dir| f.starts_with(dir)));
    Ok(suspects
        .filter(|file| {
            let text = read(file);
            marks.iter().any(|mark| text.contains(mark.as_str()))
        })
        .map(|file| format!("{file} holds a key of keys-example"))
        .collect())
}

/// Collects key ids and public values of a TUF root or key document.
fn public_values(json: &Value, marks: &mut BTreeSet<String>) {
    match json {
        Value::Object(map) => {
            for (name, value) in map {
                if let ("public" | "keyid", Value::String(text)) = (name.as_str(), value) {
                    marks.insert(text.clone());
                }
                if let ("keys", Value::Object(keys)) = (name.as_str(), value) {
                    marks.extend(keys.keys().cloned());
                }
                public_values(value, marks);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| public_values(value, marks)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_ids_and_public_values_are_marks() {
        let root = serde_json::json!({
            "signed": {"keys": {"aa11": {"keyval": {"public": "bb22"}}}},
            "signatures": [{"keyid": "cc33", "sig": "dd44"}],
        });
        let mut marks = BTreeSet::new();
        public_values(&root, &mut marks);
        assert_eq!(marks.into_iter().collect::<Vec<_>>(), ["aa11", "bb22", "cc33"]);
    }
}
