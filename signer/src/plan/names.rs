//! Names that a release or channel uses for the first time, beside those that its product has: said,
//! because most of them are typing errors, and nodes ignore what they were not told of.

use std::collections::BTreeSet;

use formats::channel::Channel;
use formats::digest::hex;
use formats::json::Value;
use formats::release::Summary;
use formats::similar::{closest, listed};
use formats::tuf::{Key, PublicKey};

use crate::state::{State, said};

/// A sentence for each component and hardware id that no earlier release of the product has; none
/// for a first release.
pub(super) fn new_names(before: &State, product: &str, summary: &Summary) -> Vec<String> {
    // What cannot be read is refused elsewhere.
    let start = format!("{product}/");
    let (mut names, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for (_, _, file) in before.listed(&start) {
        let components = said(file).and_then(|it| it.get("components")?.as_array());
        for component in components.into_iter().flatten() {
            names.extend(component.get("name").and_then(Value::as_str));
            let compatible = component.get("compatible").and_then(Value::as_array);
            ids.extend(compatible.into_iter().flatten().filter_map(Value::as_str));
        }
    }
    let ours: BTreeSet<&str> = summary.components.iter().map(|it| it.name.as_str()).collect();
    let our_ids: BTreeSet<&str> =
        summary.components.iter().flat_map(|it| it.compatible.iter().map(String::as_str)).collect();
    let mut said = Vec::new();
    for name in ours {
        let what = format!("component {name} is new for {product}; earlier releases have");
        said.extend(first_use(name, &names, &what));
    }
    for id in our_ids {
        let what = format!("hardware id {id} is new for {product}; earlier releases are for");
        said.extend(first_use(id, &ids, &what));
    }
    said
}

/// A sentence about a channel that the product did not have, while it has others.
pub(super) fn new_channel(before: &State, channel: &Channel) -> Option<String> {
    let (name, product) = (channel.channel.as_str(), &channel.product);
    let own = before.channels.values().map(|signed| &signed.data);
    let known: BTreeSet<&str> =
        own.filter(|it| it.product == *product).map(|it| it.channel.as_str()).collect();
    let what = format!("channel {name} is new; {product} has");
    first_use(name, &known, &what)
}

fn first_use(name: &str, known: &BTreeSet<&str>, what: &str) -> Option<String> {
    if known.is_empty() || known.contains(name) {
        return None;
    }
    let listed = listed(known.iter().copied());
    let meant = if known.len() > 1 { closest(name, known.iter().copied()) } else { None };
    let meant = meant.map(|meant| format!("; is {meant} meant?")).unwrap_or_default();
    Some(format!("{what} {listed}{meant}"))
}

/// What a key is called in messages: its type and the first digits of its key id.
pub fn key_name(key: &Key) -> String {
    let kind = match key.public() {
        PublicKey::Ed25519(_) => "ed25519",
        PublicKey::EcdsaP256(_) => "ecdsa-p256",
        PublicKey::RsaPss(_) => "rsa-pss",
        PublicKey::Unknown => "unknown",
    };
    format!("{kind} {}", hex(key.id().0.0.get(..4).unwrap_or_default()))
}

/// A number of things, in words: `1 release`, `2 releases`.
pub(crate) fn counted(count: u64, thing: &str) -> String {
    if count == 1 { format!("1 {thing}") } else { format!("{count} {thing}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_use_is_said_beside_others() {
        let say = |name: &str, known: &[&str]| {
            first_use(name, &known.iter().copied().collect(), "new; there is")
        };
        let rows = [
            ("a first release", say("os", &[]), None),
            ("known", say("os", &["bmc", "os"]), None),
            ("another", say("oss", &["os"]), Some("new; there is os")),
            (
                "two letters away",
                say("my-bord", &["my-board", "other"]),
                Some("new; there is my-board, other; is my-board meant?"),
            ),
            (
                "exchanged",
                say("stabel", &["beta", "stable"]),
                Some("new; there is beta, stable; is stable meant?"),
            ),
            (
                "nothing like it",
                say("canary", &["beta", "stable"]),
                Some("new; there is beta, stable"),
            ),
            (
                "many",
                say("x", &["a1", "b22", "c333", "d4444", "e5555", "f6666"]),
                Some("new; there is a1, b22, c333, d4444, e5555, …"),
            ),
        ];
        for (name, said, expected) in rows {
            assert_eq!(said.as_deref(), expected, "{name}");
        }
    }
}
