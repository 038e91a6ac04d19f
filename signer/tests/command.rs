//! The real binary: help, JSON, exit codes, and what it writes to a terminal's place.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::process::{Command, Output};

fn signer(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_signer"))
        .current_dir(dir)
        .args(arguments)
        .env_remove("RUST_LOG")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs a command that must end with that code, and gives its JSON.
fn json(dir: &Path, arguments: &[&str], code: i32) -> serde_json::Value {
    let output = signer(dir, &[arguments, &["--json"]].concat());
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{out}\n{err}");
    assert_eq!(out.lines().count(), 1, "one object: {out}");
    let value: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(value["ok"], code == 0);
    if code != 0 {
        let error = format!("error[{}]:", value["code"].as_str().unwrap());
        assert!(err.contains(&error), "{err}");
    }
    value
}

#[test]
fn help_is_reviewed() {
    let dir = tempfile::tempdir().unwrap();
    let mut all = String::new();
    for command in [
        &["--help"][..],
        &["init", "--help"],
        &["key", "--help"],
        &["key", "new", "--help"],
        &["key", "import", "--help"],
        &["publish", "--help"],
        &["stage", "--help"],
        &["sign", "--help"],
        &["commit", "--help"],
        &["delegate", "--help"],
        &["rotate", "--help"],
        &["revoke", "--help"],
        &["lint", "--help"],
        &["log", "--help"],
        &["channel", "--help"],
        &["channel", "set", "--help"],
        &["channel", "hold", "--help"],
        &["channel", "promote", "--help"],
        &["channel", "show", "--help"],
        &["channel", "list", "--help"],
        &["release", "--help"],
        &["release", "withdraw", "--help"],
        &["release", "list", "--help"],
        &["refresh", "--help"],
        &["bundle", "--help"],
        &["inspect", "--help"],
        &["verify", "--help"],
        &["status", "--help"],
        &["fleet", "--help"],
        &["fleet", "affected", "--help"],
        &["package-root", "--help"],
    ] {
        let output = signer(dir.path(), command);
        assert!(output.status.success());
        all.push_str(&format!("$ signer {}\n{}\n", command.join(" "), text(&output.stdout)));
    }
    insta::assert_snapshot!(all);
}

#[test]
fn a_release_from_the_command_line() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    std::fs::write(dir.join("os.img"), b"an operating system\0".repeat(10_000)).unwrap();
    std::fs::write(dir.join("fw.bin"), b"a firmware").unwrap();
    let repo = ["--repo", "oci:repo:racklet", "--keys", "keys"];
    let with = |command: &[&'static str], more: &[&'static str]| -> Vec<&'static str> {
        [command, &repo, more].concat()
    };
    let made = json(dir, &with(&["init"], &[]), 0);
    assert_eq!(made["example_keys"], false);
    json(dir, &with(&["init"], &[]), 23);

    let product = ["--product", "demo", "--version", "1.0.0", "--hw", "cu-v1"];
    let components = ["--component", "os=os.img", "--component", "firmware=fw.bin,hw=fw-v2"];
    let more = [&product[..], &components, &["--channel", "stable"]].concat();
    let published = json(dir, &with(&["publish"], &more), 0);
    assert_eq!(published["components"][0]["compatible"], serde_json::json!(["fw-v2"]));
    assert_eq!(published["components"][1]["compatible"], serde_json::json!(["cu-v1"]));
    assert_eq!(json(dir, &with(&["publish"], &more), 0)["changed"], false);

    let verified = json(dir, &["verify", "oci:repo:racklet", "--keys", "keys"], 0);
    assert_eq!((&verified["releases"], &verified["channels"]), (&1.into(), &1.into()));
    // A timestamp of one day is not due on its first day.
    let status =
        json(dir, &["status", "oci:repo:racklet", "--keys", "keys", "--expires-within", "2"], 0);
    assert_eq!(status["roles"][3]["role"], "timestamp");
    json(dir, &["status", "oci:repo:racklet", "--expires-within", "0"], 0);

    let set = ["--product", "demo", "--channel", "stable", "--hold"];
    let held = json(dir, &with(&["channel", "set"], &set), 0);
    assert_eq!(held["what"], "channel demo/stable offers 1.0.0 (normal, HELD)");
    let long = ["--expires", "timestamp=20d"];
    json(dir, &with(&["refresh"], &long), 0);
    json(dir, &with(&["refresh"], &[]), 0);
    let status = json(dir, &["status", "oci:repo:racklet"], 0);
    assert!(status["roles"][3]["days_left"].as_i64() >= Some(19), "a period is remembered");

    let select = ["--product", "demo", "--channel", "stable", "-o", "usb.tar"];
    json(dir, &with(&["bundle"], &select), 0);
    json(dir, &["verify", "usb.tar", "--root", "keys/root.json"], 0);
    let tree = json(dir, &["inspect", "usb.tar"], 0);
    assert_eq!(tree["releases"][0]["components"][1]["name"], "os");
}

#[test]
fn refusals_have_their_codes() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    std::fs::write(dir.join("os.img"), b"x").unwrap();
    json(dir, &["init", "--repo", "oci:repo", "--keys", "keys"], 0);
    let publish = |version: &'static str, more: &[&'static str]| {
        let start = ["publish", "--repo", "oci:repo", "--keys", "keys", "--product", "demo"];
        let end = ["--version", version, "--component", "os=os.img,hw=cu-v1"];
        [&start[..], &end, more].concat()
    };
    let stable = |version, more: &[&'static str]| {
        publish(version, &[&["--channel", "stable"], more].concat())
    };
    json(dir, &stable("2.0.0", &["--security-version", "5"]), 0);
    let rows: [(&str, Vec<&str>, i32, &str); 9] = [
        ("older", stable("1.0.0", &[]), 12, "version_rollback"),
        ("floor", stable("2.1.0", &["--security-version", "4"]), 12, "secver_floor"),
        ("no repository", vec!["verify", "oci:nowhere"], 23, "config"),
        ("empty registry", vec!["verify", "docker://127.0.0.1:1/x"], 14, "unreachable"),
        ("newer", publish("3.0.0", &[]), 0, ""),
        ("archive", vec!["refresh", "--repo", "oci-archive:x.tar", "--keys", "keys"], 23, "config"),
        ("long life", publish("4.0.0", &["--expires", "timestamp=31d"]), 11, "expired"),
        ("odd life", publish("4.0.0", &["--expires", "timestamp=tomorrow"]), 2, "usage"),
        (
            "plain http elsewhere",
            vec!["verify", "docker://192.0.2.1/x", "--plain-http"],
            23,
            "config",
        ),
    ];
    for (name, arguments, code, reason) in rows {
        let value = json(dir, &arguments, code);
        if code != 0 {
            assert_eq!(value["code"], reason, "{name}");
        }
    }
    for usage in [&["publish"][..], &["no-such-command"], &[]] {
        assert_eq!(signer(dir, usage).status.code(), Some(2), "{usage:?}");
    }
}

#[test]
fn loose_keys_and_published_keys() {
    use std::os::unix::fs::PermissionsExt;
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    json(dir, &["key", "example", "--out", "example"], 0);
    let output = signer(dir, &["init", "--repo", "oci:repo", "--keys", "example"]);
    assert!(output.status.success());
    assert!(text(&output.stderr).contains("EXAMPLE KEYS"), "{}", text(&output.stderr));
    assert_eq!(json(dir, &["status", "oci:repo"], 0)["example_keys"], true);
    let refused = json(dir, &["package-root", "--check", "example/root.json"], 23);
    assert_eq!(refused["code"], "example_key");
    json(dir, &["init", "--repo", "oci:real", "--keys", "real"], 0);
    json(dir, &["package-root", "--check", "real/root.json"], 0);

    let key = dir.join("real/targets.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let refused = json(dir, &["refresh", "--repo", "oci:real", "--keys", "real"], 23);
    assert_eq!(refused["code"], "insecure_perms");
}

#[test]
fn a_root_of_two_of_three() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    for name in ["alice", "bob", "carol"] {
        json(dir, &["key", "new", "--out", &format!("people/{name}")], 0);
    }
    let keys = "people/alice.pub,people/bob.pub,people/carol.pub";
    let init = ["init", "--repo", "oci:repo", "--keys", "keys", "--root-keys", keys];
    std::fs::remove_file(dir.join("people/carol.key")).unwrap();
    json(dir, &[&init[..], &["--root-threshold", "4"]].concat(), 2);
    let missing = json(dir, &[&init[..], &["--root-threshold", "3"]].concat(), 10);
    assert_eq!(missing["code"], "sig_threshold");
    json(dir, &[&init[..], &["--root-threshold", "2"]].concat(), 0);
    let status = json(dir, &["status", "oci:repo", "--keys", "keys"], 0);
    assert_eq!(status["roles"][0]["threshold"], 2);
    assert_eq!(status["roles"][0]["keyids"].as_array().unwrap().len(), 3);
    assert!(!dir.join("keys/root.key").exists());
    json(dir, &["refresh", "--repo", "oci:repo", "--keys", "keys"], 0);
}

#[test]
fn the_example_keys_are_those_of_the_recipe() {
    let temp = tempfile::tempdir().unwrap();
    json(temp.path(), &["key", "example", "--out", "made"], 0);
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../keys-example");
    let readme = std::fs::read_to_string(committed.join("README.md")).unwrap();
    for known in formats::example_keys::ALL {
        for ending in ["key", "pub"] {
            let name = format!("{}.{ending}", known.role);
            let made = std::fs::read(temp.path().join("made").join(&name)).unwrap();
            assert!(std::fs::read(committed.join(&name)).unwrap() == made, "{name}");
        }
        assert!(readme.contains(known.keyid), "{}", known.role);
    }
}
