//! `release`: which releases there are, and taking one back.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod program;

use program::Program;
use serde_json::{Value, json};

const AT: [&str; 4] = ["--repo", "oci:repo", "--keys", "keys"];

/// A repository whose channels `stable` and `beta` offer 1.1.0.
fn repository() -> Program {
    let signer = Program::new();
    signer.json(&[&["init"], &AT[..]].concat(), 0);
    std::fs::write(signer.path("os.img"), b"an operating system".repeat(1000)).unwrap();
    publish(&signer, "1.0.0", &["--channel", "stable"], 0);
    publish(&signer, "1.1.0", &["--channel", "stable", "--security-version", "2"], 0);
    let promote = ["channel", "promote", "--product", "demo", "--from", "stable", "--to", "beta"];
    signer.json(&[&promote[..], &AT].concat(), 0);
    signer
}

#[track_caller]
fn publish(signer: &Program, version: &str, more: &[&str], code: i32) -> Value {
    let release = ["publish", "--product", "demo", "--version", version];
    let component = ["--component", "os=os.img,hw=cu-v1"];
    signer.json(&[&release, &component[..], &AT, more].concat(), code)
}

#[track_caller]
fn withdraw(signer: &Program, version: &str, because: &str, code: i32) -> Value {
    let command = ["release", "withdraw", version, "--product", "demo", "--because", because];
    signer.json(&[&command[..], &AT].concat(), code)
}

#[track_caller]
fn list(signer: &Program) -> Vec<Value> {
    let report = signer.json(&[&["release", "list"], &AT[..]].concat(), 0);
    report["releases"].as_array().unwrap().clone()
}

#[test]
fn releases_are_listed_in_their_order() {
    let signer = repository();
    publish(&signer, "1.10.0", &[], 0);
    let releases = list(&signer);
    let versions: Vec<_> = releases.iter().map(|it| it["version"].as_str().unwrap()).collect();
    assert_eq!(versions, ["1.0.0", "1.1.0", "1.10.0"]);
    assert_eq!(releases[0]["channels"], json!([]));
    assert_eq!(releases[1]["channels"], json!(["beta", "stable"]));
    assert_eq!(releases[1]["security_version"], 2);
    assert_eq!(releases[1]["raw_size"], 19_000);
    assert_eq!((&releases[1]["role"], &releases[1]["expired"]), (&json!("targets"), &json!(false)));
    let other = [&["release", "list", "--product", "other"], &AT[..]].concat();
    assert_eq!(signer.text(&other), "there is no release\n");
    let text = signer.text(&[&["release", "list"], &AT[..]].concat());
    let first = "demo/1.0.0: 18.5 KiB in os, security version 1; in no channel; signed until ";
    assert!(text.starts_with(first), "{text}");
}

#[test]
fn a_withdrawn_release_leaves_every_channel_and_stays_listed() {
    let signer = repository();
    let report = withdraw(&signer, "1.1.0", "loses data on power cuts", 0);
    assert_eq!(
        (&report["what"], &report["changed"]),
        (&json!("withdraw demo/1.1.0"), &json!(true))
    );
    let releases = list(&signer);
    assert_eq!(releases[1]["withdrawn"]["because"], "loses data on power cuts");
    assert_eq!(releases[1]["channels"], json!([]));
    assert!(releases[0].get("withdrawn").is_none());
    for channel in ["stable", "beta"] {
        let show = ["channel", "show", "--product", "demo", "--channel", channel];
        let shown = signer.json(&[&show[..], &AT].concat(), 0);
        assert_eq!((&shown["release"], &shown["share"]), (&Value::Null, &json!(0)));
    }
    signer.json(&["verify", "oci:repo", "--keys", "keys"], 0);
    signer.json(&["lint", "oci:repo", "--keys", "keys"], 0);

    // Twice is nothing to do; a better reason replaces the first, and not the time.
    assert_eq!(withdraw(&signer, "1.1.0", "loses data on power cuts", 0)["changed"], false);
    assert_eq!(withdraw(&signer, "1.1.0", "loses data", 0)["changed"], true);
    assert_eq!(list(&signer)[1]["withdrawn"]["at"], releases[1]["withdrawn"]["at"]);
    assert_eq!(withdraw(&signer, "9.9.9", "x", 10)["code"], "target_not_found");
    for wrong in ["", "two\nlines", &"x".repeat(501)] {
        assert_eq!(withdraw(&signer, "1.0.0", wrong, 2)["code"], "usage", "{wrong:?}");
    }
}

#[test]
fn nothing_brings_a_withdrawn_release_back() {
    let signer = repository();
    withdraw(&signer, "1.1.0", "loses data", 0);
    let refused = publish(&signer, "1.1.0", &["--channel", "stable"], 22);
    assert_eq!(refused["code"], "withdrawn");
    assert!(refused["message"].as_str().unwrap().contains("loses data"), "{refused}");
    let set = ["channel", "set", "--product", "demo", "--channel", "stable", "--release", "1.1.0"];
    assert_eq!(signer.json(&[&set[..], &AT].concat(), 22)["code"], "withdrawn");
    let bundle = ["bundle", "--product", "demo", "--version", "1.1.0", "-o", "usb.tar"];
    assert_eq!(signer.json(&[&bundle[..], &AT].concat(), 22)["code"], "withdrawn");
    assert!(!signer.path("usb.tar").exists());

    // Nodes may run it, so what follows comes after it, with its floor.
    let older = publish(&signer, "1.0.5", &["--channel", "stable"], 12);
    assert_eq!(older["code"], "version_rollback");
    let below = publish(&signer, "1.2.0", &["--channel", "stable", "--security-version", "1"], 12);
    assert_eq!(below["code"], "secver_floor");
    let next = publish(&signer, "1.2.0", &["--channel", "stable", "--delta-from", "1.1.0"], 0);
    assert_eq!(next["security_version"], 2);
    assert_eq!(list(&signer)[2]["channels"], json!(["stable"]));
}

/// Who signs for the release and who signs for a channel are different people.
#[test]
fn everybody_who_signed_for_it_signs_its_withdrawal() {
    let signer = Program::new();
    signer.json(&[&["init"], &AT[..]].concat(), 0);
    std::fs::write(signer.path("os.img"), b"an operating system".repeat(1000)).unwrap();
    signer.json(&["key", "new", "--out", "dave/demo"], 0);
    let delegate = ["delegate", "--role", "demo-releases", "--path", "demo/*"];
    let keys = ["--role-keys", "dave/demo.pub", "--key", "dave/demo.key"];
    signer.json(&[&delegate[..], &keys, &AT].concat(), 0);
    let dave = ["--key", "dave/demo.key", "--channel", "stable", "--role", "demo-releases"];
    publish(&signer, "1.0.0", &dave, 0);
    assert_eq!(withdraw(&signer, "1.0.0", "x", 10)["code"], "sig_threshold");
    assert!(list(&signer)[0].get("withdrawn").is_none(), "all or nothing");

    let stage = ["stage", "--share", "release", "withdraw", "1.0.0", "--product", "demo"];
    let staged = signer.json(&[&stage[..], &["--because", "bad"], &AT].concat(), 0);
    let name = staged["file"].as_str().unwrap();
    let changes = staged["sections"].to_string();
    assert!(changes.contains("WITHDRAWN: bad"), "{changes}");
    assert!(changes.contains("offers nothing"), "{changes}");
    let at = ["--repo", "oci:repo", "--root", "keys/root.json", "--log", "dave/log"];
    signer.json(&[&["sign", "--yes", name, "--key", "dave/demo.key"], &at[..]].concat(), 0);
    let targets = signer.json(&[&["status", name], &AT[..]].concat(), 0);
    if targets["ready"] != true {
        signer.json(&[&["sign", "--yes", name], &AT[..]].concat(), 0);
    }
    signer.json(&[&["commit", name], &AT[..]].concat(), 0);
    assert_eq!(list(&signer)[0]["withdrawn"]["because"], "bad");
    signer.json(&["verify", "oci:repo", "--keys", "keys"], 0);
}

#[test]
fn a_withdrawal_can_be_tried() {
    let signer = repository();
    let command = ["release", "withdraw", "1.1.0", "--product", "demo", "--because", "x"];
    let report = signer.json(&[&command[..], &AT, &["--dry-run"]].concat(), 0);
    assert_eq!((&report["dry_run"], &report["changed"]), (&json!(true), &json!(true)));
    assert!(list(&signer)[1].get("withdrawn").is_none());
}
