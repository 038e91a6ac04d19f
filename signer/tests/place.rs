//! Where a command finds its repository and credentials: flags, `SIGNER_REPO`, `SIGNER_CONFIG` and
//! `[repository]` of `signer.toml`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod program;

use std::path::Path;

use program::{Program, write_private};
use signer::policy::Policy;

const RELEASE: [&str; 10] = [
    "publish",
    "--product",
    "demo",
    "--version",
    "1.0.0",
    "--channel",
    "stable",
    "--component",
    "os=os.img,hw=cu-v1",
    "--quiet",
];

/// A folder with an image, and a `signer.toml` that says where everything is.
fn scene(config: &str) -> Program {
    let signer = Program::new();
    std::fs::write(signer.path("os.img"), b"an operating system".repeat(1000)).unwrap();
    std::fs::create_dir(signer.path("etc")).unwrap();
    write_private(&signer.path("etc/signer.toml"), config);
    signer
}

#[test]
fn one_variable_replaces_the_repeated_flags() {
    let mut signer = scene("[repository]\nurl = \"oci:../repo\"\nkeys = \"../keys\"\n");
    signer.set("SIGNER_CONFIG", "etc/signer.toml");
    signer.json(&["init"], 0);
    signer.json(&RELEASE, 0);
    signer.json(&["refresh"], 0);
    signer.json(&["renew", "targets"], 0);
    for command in ["inspect", "verify", "status", "lint"] {
        signer.json(&[command], 0);
    }
    let stable = ["--product", "demo", "--channel", "stable"];
    signer.json(&[&["channel", "hold"], &stable[..]].concat(), 0);
    let shown = signer.json(&[&["channel", "show"], &stable[..]].concat(), 0);
    assert_eq!(shown["hold"], true);
    assert_eq!(signer.json(&["channel", "list"], 0)["channels"].as_array().unwrap().len(), 1);
    signer.json(&["bundle", "--product", "demo", "--version", "1.0.0", "-o", "usb.tar"], 0);
    signer.json(&["verify", "usb.tar"], 0);
    signer.json(&["log"], 0);
    // Staged in the repository and in a file, signed, and committed.
    let shared = signer.json(&["stage", "--share", "renew", "root"], 0);
    let name = shared["file"].as_str().unwrap();
    signer.json(&["status", name], 0);
    signer.json(&["sign", "--yes", name], 0);
    signer.json(&["commit", name], 0);
    signer.json(&["stage", "-o", "change.json", "renew", "targets"], 0);
    signer.json(&["status", "change.json"], 0);
    signer.json(&["lint", "change.json"], 0);
    signer.json(&["sign", "--yes", "change.json"], 0);
    signer.json(&["commit", "change.json"], 0);
}

#[test]
fn a_variable_names_the_repository_alone() {
    let mut signer = scene("");
    signer.set("SIGNER_REPO", "oci:repo");
    signer.json(&["init", "--keys", "keys"], 0);
    signer.json(&[&RELEASE[..], &["--keys", "keys"]].concat(), 0);
    assert_eq!(signer.json(&["status"], 0)["repository"], "oci:repo");
    signer.json(&["status", "--keys", "keys"], 0);
    // A flag comes first, and so does an argument.
    signer.json(&["refresh", "--keys", "keys", "--repo", "oci:other"], 23);
    signer.json(&["status", "oci:other"], 23);
    // Nothing in it is nothing said.
    signer.set("SIGNER_REPO", "");
    let error = signer.json(&["status"], 2);
    let message = error["message"].as_str().unwrap();
    for way in ["--repo", "SIGNER_REPO", "[repository]"] {
        assert!(message.contains(way), "{message}");
    }
    signer.set("SIGNER_REPO", "https://updates.example");
    signer.json(&["status"], 2);
    // A staged change needs no repository, whatever the variable says.
    signer.set("SIGNER_REPO", "oci:repo");
    signer.json(&["stage", "-o", "change.json", "renew", "targets", "--keys", "keys"], 0);
    signer.set("SIGNER_REPO", "oci:nowhere");
    signer.json(&["sign", "--yes", "--keys", "keys", "change.json"], 0);
    signer.json(&["status", "change.json"], 0);
}

/// Whoever can write to the working directory, or to the repository, chooses nothing.
#[test]
fn a_file_that_nobody_named_says_nothing() {
    let theirs = "[repository]\nurl = \"docker://127.0.0.1:1/theirs\"\ntoken_file = \"t\"\n";
    let signer = scene("");
    write_private(&signer.path("signer.toml"), theirs);
    assert_eq!(signer.json(&["status"], 2)["code"], "usage");
    signer.json(&["init", "--repo", "oci:repo", "--keys", "keys"], 0);
    std::fs::rename(signer.path("signer.toml"), signer.path("repo/signer.toml")).unwrap();
    let error = signer.json(&["refresh", "--repo", "oci:repo", "--keys", "keys"], 23);
    assert_eq!(error["code"], "config");
    assert!(error["message"].as_str().unwrap().contains("SIGNER_CONFIG"), "{error}");
    // With the keys it does.
    std::fs::rename(signer.path("repo/signer.toml"), signer.path("keys/signer.toml")).unwrap();
    assert_eq!(signer.json(&["refresh", "--keys", "keys"], 23)["code"], "config", "no such token");
    signer.json(&["refresh", "--repo", "oci:repo", "--keys", "keys"], 0);
}

#[test]
fn a_file_that_others_can_write_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut signer = scene("[repository]\nurl = \"oci:../repo\"\nkeys = \"../keys\"\n");
    signer.set("SIGNER_CONFIG", "etc/signer.toml");
    let path = signer.path("etc/signer.toml");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(signer.json(&["init"], 23)["code"], "insecure_perms");
    signer.set("SIGNER_CONFIG", "etc/mistyped.toml");
    let error = signer.json(&["init"], 23);
    assert!(error["message"].as_str().unwrap().contains("etc/mistyped.toml"), "{error}");
}

#[test]
fn the_example_can_be_read() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("signer.example.toml");
    let text = std::fs::read_to_string(path).unwrap();
    let policy = Policy::parse(&text).unwrap();
    assert!(policy.repository.is_some() && policy.offline.is_some());
    // What is commented out can be read, too.
    let is_key = |line: &str| {
        let key = line.strip_prefix('#').filter(|line| !line.starts_with(' '));
        key.unwrap_or(line).to_owned()
    };
    let all: Vec<String> = text.lines().map(is_key).collect();
    let policy = Policy::parse(&all.join("\n")).unwrap();
    let repository = policy.repository.unwrap();
    assert!(repository.client_key.is_some() && repository.stall_limit.is_some());
    assert!(!policy.delegations.is_empty() && !policy.hardware.is_empty());
}
