//! What the signer reads: a name that leads to no file never makes it wait, and what decides whom it
//! believes is nobody else's to change.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod program;

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use program::Program;

const PUBLISH: [&str; 9] =
    ["publish", "--repo", "oci:repo", "--keys", "keys", "--product", "demo", "--version", "1"];

/// A folder with keys, a repository, an image, and a pipe that nobody writes to.
fn scene() -> Program {
    let signer = Program::new();
    signer.json(&["init", "--repo", "oci:repo", "--keys", "keys"], 0);
    std::fs::write(signer.path("os.img"), b"x").unwrap();
    let made = Command::new("mkfifo").arg(signer.path("pipe")).status().unwrap();
    assert!(made.success());
    std::fs::create_dir(signer.path("pipes")).unwrap();
    for name in ["root.key", "root.pub", "root.json", "signer.toml"] {
        std::os::unix::fs::symlink("../pipe", signer.path("pipes").join(name)).unwrap();
    }
    signer
}

/// Every option and argument that names a file, with a pipe. A call that waits never ends, and the
/// test with it: `timeout` makes it fail instead.
#[test]
fn no_input_waits_for_a_pipe() {
    let signer = scene();
    let image = ["--component", "os=os.img,hw=b"];
    let with = |more: &[&'static str]| [&PUBLISH[..], &image, more].concat();
    let repo = "docker://127.0.0.1:1/a";
    let calls: Vec<Vec<&str>> = vec![
        [&PUBLISH[..], &["--component", "os=pipe,hw=b"]].concat(),
        with(&["--sbom", "pipe"]),
        with(&["--provenance", "pipe"]),
        with(&["--dpkg-status", "pipe"]),
        with(&["--config", "pipe"]),
        with(&["--log", "pipe"]),
        with(&["--root", "pipe"]),
        vec!["refresh", "--repo", "oci:repo", "--keys", "keys", "--key", "pipe"],
        vec!["refresh", "--repo", "oci:repo", "--key", "cmd:/bin/true?public=pipe"],
        vec!["refresh", "--repo", "oci:repo", "--keys", "pipes"],
        vec!["refresh", "--repo", "oci:repo", "--keys", "pipe"],
        vec!["refresh", "--repo", "oci:pipe", "--keys", "keys"],
        vec!["refresh", "--repo", "oci-archive:pipe", "--keys", "keys"],
        vec!["status", "oci-archive:pipe"],
        vec!["status", "pipe"],
        vec!["inspect", "pipe"],
        vec!["lint", "pipe"],
        vec!["verify", "pipe"],
        vec!["status", repo, "--ca", "pipe"],
        vec!["status", repo, "--token-file", "pipe"],
        vec!["status", "oci:repo", "--root", "pipe"],
        vec!["verify", "oci:pipe", "--keys", "keys"],
        vec!["sign", "pipe", "--keys", "keys"],
        vec!["commit", "pipe", "--repo", "oci:repo", "--keys", "keys"],
        vec!["package-root", "--check", "pipe"],
        vec!["init", "--repo", "oci:new", "--keys", "new", "--root-keys", "pipe"],
        vec!["key", "import", "--from", "pipe", "--out", "new/a"],
        vec!["key", "passphrase", "pipe"],
        vec!["key", "list", "--keys", "pipes"],
        vec!["rotate", "--repo", "oci:repo", "--keys", "keys", "--role", "root", "--add", "pipe"],
        vec!["revoke", "pipe", "--repo", "oci:repo", "--keys", "keys"],
        vec!["log", "--log", "pipe"],
    ];
    for arguments in calls {
        let all = [&["60", env!("CARGO_BIN_EXE_signer")], &arguments[..], &["--json"]].concat();
        let ended = signer.command("timeout", &all).output().unwrap();
        let code = ended.status.code();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(code.is_some_and(|code| code != 0 && code < 100), "{arguments:?}: {code:?} {said}");
        // By what was read, not by a misspelt option.
        assert!(said.contains("error["), "{arguments:?}: {said}");
    }
}

#[test]
fn what_the_signer_believes_is_nobody_elses_to_change() {
    let signer = scene();
    let chmod = |name: &str, mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(signer.path(name), mode).unwrap();
    };
    std::fs::write(signer.path("keys/signer.toml"), "").unwrap();
    let publish = [&PUBLISH[..], &["--component", "os=os.img,hw=b"]].concat();
    for (name, mode, before) in [
        ("keys/root.json", 0o666, 0o644),
        ("keys/signer.toml", 0o646, 0o644),
        ("keys/signer.log", 0o602, 0o600),
        ("keys", 0o777, 0o700),
    ] {
        chmod(name, mode);
        let refused = signer.json(&publish, 23);
        assert_eq!(refused["code"], "insecure_perms", "{name}: {refused}");
        let said = refused["message"].as_str().unwrap();
        assert!(said.contains("can be changed by others"), "{said}");
        // Whose group it is decides under a umask of 002; `storage::secret` has the table.
        let (start, command) = said.rsplit_once("run `").unwrap();
        assert!(start.contains(name), "{said}");
        assert!(command.starts_with("chmod "), "{said}");
        chmod(name, before);
    }
    signer.json(&publish, 0);
}
