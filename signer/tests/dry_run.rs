//! `--dry-run`: it says what the command would do, needs no key, and changes no byte.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;
mod program;

use std::collections::BTreeMap;
use std::path::PathBuf;

use common::{files_below, noise};
use program::Program;
use serde_json::{Value, json};

const AT: [&str; 4] = ["--repo", "oci:repo", "--keys", "keys"];
/// Who only looks has the trust root and no key.
const LOOKS: [&str; 4] = ["--repo", "oci:repo", "--root", "looks/root.json"];
const STABLE: [&str; 4] = ["--product", "demo", "--channel", "stable"];

fn repository() -> Program {
    let signer = Program::new();
    signer.json(&[&["init"], &AT[..]].concat(), 0);
    std::fs::create_dir(signer.path("looks")).unwrap();
    std::fs::copy(signer.path("keys/root.json"), signer.path("looks/root.json")).unwrap();
    std::fs::write(signer.path("os.img"), noise(300_000, 1)).unwrap();
    std::fs::write(signer.path("fw.img"), noise(90_000, 2)).unwrap();
    signer
}

/// Every file of the repository and of the keys, with its bytes.
fn bytes(signer: &Program) -> BTreeMap<PathBuf, Vec<u8>> {
    let files =
        [signer.path("repo"), signer.path("keys")].into_iter().flat_map(|dir| files_below(&dir));
    files
        .collect::<Vec<_>>()
        .into_iter()
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect()
}

/// Runs a command as a dry run of somebody without keys; nothing may change.
#[track_caller]
fn dry(signer: &Program, command: &[&str], code: i32) -> Value {
    let before = bytes(signer);
    let report =
        signer.json(&[command, &LOOKS, &["--dry-run", "--log", "looks/log"]].concat(), code);
    assert!(bytes(signer) == before, "{command:?} changed something");
    report
}

fn publish<'a>(version: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let release = ["publish", "--version", version, "--component", "os=os.img,hw=cu-v1"];
    [&release[..], &STABLE, more].concat()
}

#[test]
fn a_release_is_measured_and_not_published() {
    let signer = repository();
    let command = publish("1.0.0", &["--component", "firmware=fw.img,hw=cu-v1"]);
    let planned = dry(&signer, &command, 0);
    assert_eq!((&planned["dry_run"], &planned["changed"]), (&json!(true), &json!(true)));
    assert_eq!(planned["target"], "demo/1.0.0");
    assert_eq!(planned["upload"]["reused_files"], 0);
    assert_eq!(planned["channel"]["release"], "1.0.0");
    let signers = planned["signatures"].as_array().unwrap().iter();
    let roles: Vec<_> = signers.map(|one| one["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["targets", "snapshot", "timestamp"]);
    assert_eq!(planned["sections"][0]["role"], "targets");

    let before = bytes(&signer);
    let published = signer.json(&[&command[..], &AT].concat(), 0);
    assert!(published.get("dry_run").is_none());
    for member in ["target", "index", "security_version", "components"] {
        assert_eq!(published[member], planned[member], "{member}");
    }
    let added: usize = bytes(&signer)
        .iter()
        .filter(|(path, _)| {
            path.starts_with(signer.path("repo/blobs")) && !before.contains_key(*path)
        })
        .map(|(_, bytes)| bytes.len())
        .sum();
    let metadata = added as u64 - planned["upload"]["new_bytes"].as_u64().unwrap();
    assert!((1000..20_000).contains(&metadata), "{metadata} bytes were not foreseen");

    // The same again: nothing to do. The next release: only what is new.
    assert_eq!(dry(&signer, &command, 0)["changed"], false);
    std::fs::write(signer.path("os.img"), noise(310_000, 3)).unwrap();
    let next = dry(&signer, &publish("1.1.0", &["--component", "firmware=fw.img,hw=cu-v1"]), 0);
    assert!(next["upload"]["reused_bytes"].as_u64().unwrap() > 90_000, "{}", next["upload"]);
    assert!(next["upload"]["new_bytes"].as_u64().unwrap() > 300_000, "{}", next["upload"]);
}

#[test]
fn a_dry_run_is_refused_what_the_command_is_refused() {
    let signer = repository();
    signer.json(&[&publish("1.1.0", &[])[..], &AT].concat(), 0);
    assert_eq!(dry(&signer, &publish("1.0.0", &[]), 12)["code"], "version_rollback");
    assert_eq!(dry(&signer, &publish("1.2.0", &["--component", "fw=none"]), 23)["code"], "config");
    let nowhere = ["publish", "--repo", "oci:nowhere", "--keys", "keys", "--dry-run"];
    let rest = &publish("1.2.0", &[])[1..];
    signer.json(&[&nowhere, rest].concat(), 23);
    assert!(!signer.path("nowhere").exists(), "nothing is made for a dry run");
}

#[test]
fn every_change_can_be_tried() {
    let signer = repository();
    signer.json(&[&publish("1.0.0", &[])[..], &AT].concat(), 0);
    signer.json(&["key", "new", "--out", "new/alice"], 0);
    let held = dry(&signer, &[&["channel", "hold"], &STABLE[..]].concat(), 0);
    assert_eq!((&held["changed"], &held["channel"]["hold"]), (&json!(true), &json!(true)));
    let unchanged = dry(&signer, &[&["channel", "set"], &STABLE[..], &["--no-hold"]].concat(), 0);
    assert_eq!(unchanged["changed"], false);
    let commands: [&[&str]; 4] = [
        &["delegate", "--role", "alice", "--path", "demo/*", "--role-keys", "new/alice.pub"],
        &["rotate", "--role", "targets", "--add", "new/alice.pub"],
        &["revoke", "keys/timestamp.pub", "--replace", "new/alice.pub"],
        &["renew", "targets"],
    ];
    for command in commands {
        let report = dry(&signer, command, 0);
        assert!(!report["sections"].as_array().unwrap().is_empty(), "{command:?}: {report}");
        assert!(!report["signatures"].as_array().unwrap().is_empty(), "{command:?}: {report}");
    }
    // Beside `stage`, too: no file is made.
    dry(&signer, &["stage", "--out", "change.json", "renew", "root"], 0);
    assert!(!signer.path("change.json").exists());
}
