//! The same keys, images and time give the same repository on every machine (case 197).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

/// 2026-12-01T00:00:00Z, in which every program believes.
const THEN: &str = "1796083200";

/// This build of `signer`.
const THIS: &[&str] = &[env!("CARGO_BIN_EXE_signer")];

/// `signer` in a folder, with an environment, at that time.
fn signer(words: &[&str], dir: &Path, environment: &[(&str, &str)], arguments: &str) {
    let done = Command::new("faketime")
        .args(["-f", THEN])
        .args(words)
        .args(arguments.split(' '))
        .current_dir(dir)
        .env("FAKETIME_FMT", "%s")
        .envs(environment.iter().copied())
        .output()
        .expect("faketime: install faketime (`cargo xtask setup`)");
    assert!(done.status.success(), "{arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

fn files(dir: &Path, below: &Path, all: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(dir, &path, all);
        } else {
            let name = path.strip_prefix(dir).unwrap().display().to_string();
            all.insert(name, fs::read(path).unwrap());
        }
    }
}

/// A repository with every kind of change in it, and its bundle; made by the `signer` that is started so.
fn repository(words: &[&str], environment: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let image: Vec<u8> = (0..400_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
    fs::write(dir.join("os.img"), image).unwrap();
    let at = "--repo oci:repo:racklet --keys keys";
    signer(words, dir, environment, "key example --out keys");
    for command in [
        "init",
        "publish --product demo --version 1.0.0 --component os=os.img,hw=a,hw=b --channel stable",
        "rotate --role root --add keys/targets.pub",
        "delegate --role beta --path beta/* --role-keys keys/root.pub --period 10d",
        "channel set --product demo --channel stable --urgency security --hold",
        "refresh",
        "bundle --product demo --version 1.0.0 -o bundle.tar",
    ] {
        signer(words, dir, environment, &format!("{command} {at}"));
    }
    let mut all = BTreeMap::new();
    files(dir, &dir.join("repo"), &mut all);
    all.insert("bundle.tar".to_owned(), fs::read(dir.join("bundle.tar")).unwrap());
    all
}

/// The same files with the same bytes.
fn assert_same(here: &BTreeMap<String, Vec<u8>>, there: &BTreeMap<String, Vec<u8>>) {
    let names = |all: &BTreeMap<String, Vec<u8>>| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(here), names(there));
    for (name, bytes) in here {
        assert!(there[name] == *bytes, "{name} differs");
    }
    assert!(here.len() > 20, "{} files", here.len());
}

#[test]
fn case_197_other_locale_time_zone_and_folder_give_the_same_bytes() {
    let here = repository(THIS, &[("LC_ALL", "C"), ("TZ", "UTC")]);
    let there = [
        ("LC_ALL", "tr_TR.UTF-8"),
        ("LANG", "tr_TR.UTF-8"),
        ("TZ", "Asia/Kathmandu"),
        ("TMPDIR", "/var/tmp"),
        ("RAYON_NUM_THREADS", "1"),
    ];
    assert_same(&here, &repository(THIS, &there));
}

#[test]
#[ignore = "`cargo xtask night --only ARMv8` has a signer of another processor"]
fn case_197_another_processor_gives_the_same_bytes() {
    let other = std::env::var("SIGNER_OF_ANOTHER_PROCESSOR").unwrap();
    let other: Vec<&str> = other.lines().collect();
    assert_same(&repository(THIS, &[]), &repository(&other, &[]));
}
