//! Writes the seed corpora, from the forge: `cargo run --bin seeds` in this folder. The same
//! every time.

#[path = "../../tests/src/forge.rs"]
#[allow(dead_code, reason = "only what seeds need is used")]
mod forge;

use std::fs;
use std::path::Path;

use forge::{Forge, ForgeKey, Node, key_map, role_keys};
use formats::json::Value;
use formats::tuf::{DelegatedTo, Delegations, Envelope, Paths, Role, SuccinctRoles};

fn put(target: &str, name: &str, bytes: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder).expect("a folder for seeds");
    fs::write(folder.join(name), bytes).expect("a seed");
}

fn main() {
    let mut repo = Forge::new();
    repo.repository = Some("racklet".into());
    let ops = repo.delegate(&Role::Targets, "ops", &["ops/*", "ops/?-*.img"]);
    repo.delegate(&Role::Targets, "hashed", &[]);
    repo.last_delegated(&Role::Targets).paths = Paths::HashPrefixes(vec!["0".into(), "f0".into()]);
    repo.add_target(&ops, "ops/tool", b"tool");
    let key = ForgeKey::new(800);
    repo.targets(&ops).delegations = Some(Delegations {
        keys: key_map([&key]),
        to: DelegatedTo::Succinct(SuccinctRoles {
            keys: role_keys(1, std::slice::from_ref(&key)),
            bit_length: 4,
            name_prefix: "bin".into(),
        }),
        unknown: Default::default(),
    });
    repo.publish(&[Role::Root, Role::Targets, ops.clone()]);
    for (role, target) in [
        (Role::Root, "root"),
        (Role::Timestamp, "timestamp"),
        (Role::Snapshot, "snapshot"),
        (Role::Targets, "targets"),
        (ops, "targets"),
    ] {
        let file = repo.file_of(&role);
        let signed = Envelope::parse(&file).expect("our own file").signed().to_bytes();
        put(target, &format!("{}-file", role.name()), &file);
        put(target, &format!("{}-signed", role.name()), &signed);
        put("envelope", role.name(), &file);
        put("canonical_json", role.name(), &file);
        if target == "targets" {
            put("delegated", role.name(), &[b"ops/tool\n", &signed[..]].concat());
        }
    }
    put(
        "canonical_json",
        "texts",
        r#"{"ä":"\"\\\n\u0000\ud83d\ude00","":[-5,true,null,{}]}"#.as_bytes(),
    );

    let key = ForgeKey::new(1);
    let message = Value::from("message");
    let signature = key.sign(&message).bytes().expect("our own signature");
    let object = key.key().value().to_bytes();
    let signed = [&object[..], b"\0", &signature, b"\0", &message.canonical()].concat();
    put("key_and_signature", "ed25519", &signed);
    for (name, keytype, scheme, pem) in
        [("ecdsa", "ecdsa", "ecdsa-sha2-nistp256", ECDSA), ("rsa", "rsa", "rsassa-pss-sha256", RSA)]
    {
        let object = Value::object([
            ("keytype", Value::from(keytype)),
            ("scheme", Value::from(scheme)),
            ("keyval", Value::object([("public", Value::from(pem))])),
            ("x-owner", Value::from("@ada")),
        ]);
        put("key_and_signature", name, &[&object.to_bytes()[..], b"\0\x30\x45\x02\0m"].concat());
    }

    let mut node = Node::of(&repo);
    node.find(&repo, "ops/tool").expect("an honest repository");
    put("trusted_state", "full", &node.stored.to_bytes());
    put("trusted_state", "empty", &update_core::trust::Stored::default().to_bytes());
    for (nth, script) in
        [&[0, 1, 2, 0, 3, 1][..], &[1, 3, 5, 2, 9, 0, 0, 4], &[0, 2, 7, 1, 6, 3, 8], &[1; 24]]
            .into_iter()
            .enumerate()
    {
        put("whole_update", &format!("script-{nth}"), script);
    }
}

// Public keys made for these seeds with Python's `cryptography`; the private halves were not kept.
const ECDSA: &str = "\
    -----BEGIN PUBLIC KEY-----\n\
    MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEmNo4B0bCvl9KjRddhjUK20BfIq0q\n\
    c5X9LtmFLTZ66VQiK/vYOAWBz+UVyFqWN5SvOomIgeGBGp+BDW2NLGGg1A==\n\
    -----END PUBLIC KEY-----\n";
const RSA: &str = "\
    -----BEGIN PUBLIC KEY-----\n\
    MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAzMlaZpiI+VqEM4QRSAv/\n\
    7D0n8H7OF4kqAsNhIq0ECwdLhET18p3kNDc3zy89XB+QA6KTMjrwToYBjri87lQZ\n\
    C4HJUp9rqgLc+GGcFMdc4KSQOHfFx8an2OtIPeIwH9I3LUyZKa67ndD5MPBW5fSv\n\
    fUcypKGr7IAj7VcnPvpc9JbOKMvfziK9gJEkifd0RxvI9EVXep5Srf9XlsEerPf0\n\
    5mmAX7+KJUJCSzc3bwxJKMS3tHyWUUu4WtIqShvDdkHmFRwm0ZtJqgIq3yQc+KzE\n\
    F7VojldAPDhHtYsmT8LwhJCw0kDszvO5i8RxSW23QfdBwelYOSx2xlqqLGuUv6Ub\n\
    LQIDAQAB\n\
    -----END PUBLIC KEY-----\n";
