//! What a signer remembers of a repository does not depend on roots that nobody verifies.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod program;

use std::collections::BTreeMap;
use std::path::Path;

use formats::digest::Sha256;
use formats::json::Value;
use formats::oci::{Descriptor, EMPTY_CONFIG, Manifest, annotation, media_type};
use formats::tuf::{Envelope, Key, Metadata as _, Root, envelope_bytes};
use program::Program;
use signer::key::{KeyStore, SecretKey, sign};
use signer::published;
use signer::repository::{Access, ClientOptions, Expect, Registry, open};
use signer::state::payload_digest;

const AT: [&str; 4] = ["--repo", "oci:repo", "--keys", "keys"];

fn run(signer: &Program, arguments: &[&str], code: i32) -> serde_json::Value {
    signer.json(&[arguments, &AT[..]].concat(), code)
}

fn publish(signer: &Program, version: &str, code: i32) -> serde_json::Value {
    let release = ["publish", "--product", "demo", "--version", version];
    run(signer, &[&release[..], &["--component", "os=os.img,hw=a"]].concat(), code)
}

fn registry(signer: &Program) -> Box<dyn Registry> {
    let reference = format!("oci:{}", signer.path("repo").display()).parse().unwrap();
    open(&reference, Access::Write, &ClientOptions::default()).unwrap()
}

/// Serves these files as the newest state: the registry is the attacker's.
fn serve(signer: &Program, files: &BTreeMap<String, Vec<u8>>) {
    let (registry, repository) = (registry(signer), "tuf".parse().unwrap());
    let config = Descriptor::empty();
    registry.put_blob(&repository, &config, EMPTY_CONFIG).unwrap();
    let mut layers = Vec::new();
    for (name, bytes) in files {
        let layer = Descriptor::of(media_type::TUF_METADATA, bytes);
        registry.put_blob(&repository, &layer, bytes).unwrap();
        layers.push(layer.annotated(annotation::TUF_FILENAME, name));
    }
    let bytes = Manifest::artifact(media_type::TUF_STATE, config, layers).to_bytes();
    let manifest = Descriptor::of(media_type::MANIFEST, &bytes);
    registry.put_manifest(&repository, &manifest, &bytes).unwrap();
    let latest = published::LATEST.parse().unwrap();
    registry.set_tag(&repository, &latest, &manifest, &bytes, Expect::Anything).unwrap();
}

fn served(signer: &Program) -> BTreeMap<String, Vec<u8>> {
    published::fetch(registry(signer).as_ref()).unwrap().unwrap().files
}

/// A root with the same keys in another place, signed by a key of the attacker's.
fn forged(root: &[u8]) -> Vec<u8> {
    let secret = SecretKey::from_seed(&[9; 32]);
    let key: Key = secret.key().unwrap();
    let mut root = Root::parse(Envelope::parse(root).unwrap().signed()).unwrap();
    let role = formats::tuf::Role::Root;
    root.keys.insert(key.id(), key.clone());
    root.set_role(&role, formats::tuf::RoleKeys::new(1, [key.id()]));
    let signed = root.to_value();
    let mut store = KeyStore::default();
    store.add(secret).unwrap();
    let signature = sign(store.find(&key.id()).unwrap(), &signed.canonical()).unwrap();
    envelope_bytes(&signed, &[signature])
}

/// The log as versions before this one wrote it: the label is the payload of the first root.
fn rewrite_as_older(path: &Path, first: &[u8]) {
    let label = Value::from(payload_digest(first).to_hex());
    let (mut out, mut last) = (Vec::new(), Sha256([0; 32]));
    for line in std::fs::read(path).unwrap().split(|byte| *byte == b'\n').filter(|l| !l.is_empty())
    {
        let mut members = Value::parse(line).unwrap().as_object().unwrap().clone();
        members.remove("trusted");
        members.insert("root".to_owned(), label.clone());
        members.insert("prev".to_owned(), Value::from(last.to_hex()));
        let line = Value::Object(members).to_bytes();
        last = Sha256::of(&line);
        out.extend_from_slice(&line);
        out.push(b'\n');
    }
    std::fs::write(path, out).unwrap();
}

/// A registry that drops or forges the first root and offers an old state is refused like one that
/// only offers the old state, also with a log of an older version.
#[test]
fn an_old_state_is_noticed_whatever_root_comes_first() {
    type Change = fn(&mut BTreeMap<String, Vec<u8>>);
    let attacks: [(&str, Change); 3] = [
        ("as it was", |_| {}),
        ("the first root is left out", |files| drop(files.remove("1.root.json").unwrap())),
        ("the first root is forged", |files| {
            let first = files.get_mut("1.root.json").unwrap();
            *first = forged(first);
        }),
    ];
    for with_older_log in [false, true] {
        let signer = Program::new();
        std::fs::write(signer.path("os.img"), b"x").unwrap();
        run(&signer, &["init"], 0);
        signer.json(&["key", "new", "--out", "people/a"], 0);
        run(&signer, &["rotate", "--role", "root", "--add", "people/a.pub"], 0);
        publish(&signer, "1.0.0", 0);
        let old = served(&signer);
        publish(&signer, "1.1.0", 0);
        let new = served(&signer);
        if with_older_log {
            rewrite_as_older(&signer.path("keys/signer.log"), &new["1.root.json"]);
        }
        for (attack, change) in attacks {
            let mut files = old.clone();
            change(&mut files);
            serve(&signer, &files);
            for refused in [publish(&signer, "1.2.0", 12), run(&signer, &["refresh"], 12)] {
                assert_eq!(refused["code"], "version_rollback", "{attack}: {refused}");
                let message = refused["message"].as_str().unwrap();
                assert!(message.contains("old state"), "{attack}: {message}");
            }
        }
        // What is left out alone is no attack: nodes with an older trust root would notice.
        let mut files = new.clone();
        files.remove("1.root.json").unwrap();
        serve(&signer, &files);
        run(&signer, &["refresh"], 0);
        // The label that was written then finds what is older, too.
        serve(&signer, &old);
        run(&signer, &["refresh"], 12);
    }
}
