//! A page and its JSON say the same.

use racklet_tools::browser::{Browser, plain};
use serde_json::Value;

/// What the page that is open does not say of its own JSON.
pub(crate) fn as_json(browser: &Browser, wanted: &Value) -> Vec<String> {
    let text = browser.text().unwrap();
    let mut words = Vec::new();
    match wanted {
        it if it["channels"].is_array() => overview(it, &mut words),
        it if it["nodes"].is_array() => nodes(it, &mut words),
        it => node(it, &mut words),
    }
    words.retain(|word| !text.contains(&plain(word)));
    words.iter().map(|word| format!("does not say {word:?}")).collect()
}

fn overview(all: &Value, words: &mut Vec<String>) {
    words.push(said(&all["sentence"]));
    for channel in list(&all["channels"]) {
        words.push(said(&channel["sentence"]));
        for states in channel["releases"].as_object().into_iter().flat_map(|it| it.values()) {
            for (state, nodes) in states.as_object().into_iter().flatten() {
                let nodes = nodes.as_u64().filter(|nodes| *nodes > 0);
                words.extend(nodes.map(|nodes| format!("{nodes} {}", state.replace('_', " "))));
            }
        }
    }
    for wave in list(&all["channels"]).iter().flat_map(|it| list(&it["rollout"]["waves"])) {
        words.push(format!("{} % of the nodes", wave["percent"]));
    }
    for role in list(&all["signatures"]) {
        let (threshold, keys) = (&role["threshold"], &role["keys"]);
        words.push(format!("{} expires in", said(&role["role"])));
        words.push(format!("{threshold} of {keys} key"));
    }
    for reason in list(&all["reasons"]) {
        words.push(format!(
            "{} {} {}",
            reason["count"],
            said(&reason["code"]),
            said(&reason["sentence"])
        ));
    }
}

fn nodes(all: &Value, words: &mut Vec<String>) {
    words.push(said(&all["text"]));
    for node in list(&all["nodes"]) {
        let state = said(&node["state"]).replace('_', " ");
        words.push(match node["silent_since"].is_null() {
            true => format!("{} {state}", said(&node["name"])),
            false => format!("{} silent", said(&node["name"])),
        });
        words.extend(node["code"].as_str().map(str::to_owned));
        words.extend(node["sentence"].as_str().map(str::to_owned));
    }
}

fn node(node: &Value, words: &mut Vec<String>) {
    for member in ["node", "name", "release", "code", "sentence", "standing", "agent", "product"] {
        words.extend(node[member].as_str().map(str::to_owned));
    }
    for slot in ["a", "b"] {
        words.extend(["version", "state", "index"].map(|it| said(&node["slots"][slot][it])));
    }
    for it in ["decision", "failure", "error"] {
        words.push(said(&node[it]["sentence"]));
    }
    for it in list(&node["transitions"]) {
        words.push(said(&it["release"]));
    }
}

fn said(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}
