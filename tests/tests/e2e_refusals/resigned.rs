//! Metadata changed and signed again with the maintainers' own keys: what a thief of some of them,
//! or another signer, could publish.

use std::collections::BTreeMap;

use formats::digest::Sha256;
use formats::json::Value;
use formats::tuf::{Envelope, envelope_bytes};
use racklet_tests::rig::World;

/// Changes the newest targets metadata and signs it as it should be.
pub(crate) fn targets(world: &World, edit: impl FnOnce(&mut Value)) {
    targets_file(world, |file| {
        let mut targets = signed(file);
        edit(&mut targets);
        world.signed("targets", &targets)
    });
}

/// Replaces the newest targets file; snapshot and timestamp list the new one, well signed.
pub(crate) fn targets_file(world: &World, edit: impl FnOnce(&[u8]) -> Vec<u8>) {
    world.repository().edit_state(|files| {
        let (targets, snapshot) = (newest(files, ".targets.json"), newest(files, ".snapshot.json"));
        let changed = edit(&files[&targets]);
        let listing = relisted(&files[&snapshot], "targets.json", &changed);
        let listing = world.signed("snapshot", &listing);
        let stamp = relisted(&files["timestamp.json"], "snapshot.json", &listing);
        files.insert("timestamp.json".into(), world.signed("timestamp", &stamp));
        files.insert(snapshot, listing);
        files.insert(targets, changed);
    });
}

/// A metadata file without its signatures.
pub(crate) fn stripped(file: &[u8]) -> Vec<u8> {
    let envelope = Envelope::parse(file).expect("our signer's metadata parses");
    envelope_bytes(envelope.signed(), &[])
}

/// What is signed of a metadata file.
pub(crate) fn signed(file: &[u8]) -> Value {
    Envelope::parse(file).expect("our signer's metadata parses").signed().clone()
}

/// The metadata file of that name that is the newest by the version in it.
pub(crate) fn newest(files: &BTreeMap<String, Vec<u8>>, ending: &str) -> String {
    let version = |name: &&String| name.split('.').next().and_then(|v| v.parse::<u64>().ok());
    let ends = files.keys().filter(|name| name.ends_with(ending));
    ends.max_by_key(version).expect("a role has a file").clone()
}

/// Makes `listing` say the version, length and hash of what it lists as `name`.
fn relisted(listing: &[u8], name: &str, listed: &[u8]) -> Value {
    let Value::Object(mut members) = signed(listing) else { panic!("metadata is an object") };
    let Some(Value::Object(meta)) = members.get_mut("meta") else { panic!("it lists files") };
    let Some(Value::Object(entry)) = meta.get_mut(name) else { panic!("it lists {name}") };
    entry.insert("length".into(), Value::Int(listed.len() as i64));
    let hash = Sha256::of(listed).to_hex();
    let hashes = Value::object([("sha256", Value::from(hash.as_str()))]);
    entry.insert("hashes".into(), hashes);
    Value::Object(members)
}
