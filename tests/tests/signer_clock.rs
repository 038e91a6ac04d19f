//! A signer whose clock is wrong signs nothing: not by any command, and nothing is written.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use formats::reason::Reason;
use racklet_tests::rig::{HARDWARE, PRODUCT, Run, World, tool};

/// A machine without a clock, one day behind, three days behind.
const BEHIND: [&str; 3] = ["1970-01-02 00:00:00", "-1d", "-3d"];

fn clock(spec: &str) -> Run {
    tool("faketime", "faketime").args(["-f", spec])
}

/// All files below a folder: repository, keys and log.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("list a folder") {
        let path = entry.expect("list a folder").path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            let bytes = fs::read(&path).expect("read a file");
            all.insert(path, bytes);
        }
    }
    all
}

/// Every kind of change of a repository with a release `1.0.0`.
fn changes(world: &World) -> Vec<Vec<String>> {
    let image = world.release("1.1.0", 2).os.path;
    let component = format!("os={},hw={HARDWARE}", image.display());
    let [targets, out, bundle] = ["keys/targets.pub", "staged.json", "usb.tar"]
        .map(|name| world.path(name).display().to_string());
    let channel = ["--product", PRODUCT, "--channel", "stable"];
    let publish =
        ["publish", "--product", PRODUCT, "--version", "1.1.0", "--component", &component];
    let delegate = [
        "delegate",
        "--role",
        "field",
        "--path",
        "demo/channels/field.json",
        "--role-keys",
        &targets,
    ];
    let bundle = ["bundle", "--product", PRODUCT, "--version", "1.0.0", "-o", &bundle];
    let rows: [Vec<&str>; 9] = [
        vec!["refresh"],
        publish.to_vec(),
        [&["channel", "set"][..], &channel, &["--hold"]].concat(),
        vec!["renew", "targets"],
        vec!["revoke", &targets, "--replace", &targets],
        delegate.to_vec(),
        vec!["rotate", "--role", "targets", "--add", &targets],
        vec!["stage", "--out", &out, "renew", "root"],
        [&bundle[..], &["--valid-for", "30d"]].concat(),
    ];
    rows.into_iter().map(|row| row.into_iter().map(str::to_owned).collect()).collect()
}

#[test]
fn no_command_signs_with_a_clock_that_is_behind() {
    let world = World::with_repository();
    let _v1 = world.publish_stable("1.0.0", 1);
    let changes = changes(&world);
    let before = files(world.dir());
    for spec in BEHIND {
        for change in &changes {
            let change: Vec<&str> = change.iter().map(String::as_str).collect();
            let done = world.signer(&change).under(clock(spec)).finish();
            done.refused(Reason::ClockUntrusted);
            assert!(done.stderr.contains("signer.log has an entry of 2"), "{}", done.stderr);
            assert!(files(world.dir()) == before, "{change:?} at {spec} wrote something");
        }
    }
    // The same commands are right at the right time.
    let _done = world.signer(&["refresh"]).ok();
}

#[test]
fn what_is_published_proves_the_time_without_a_log() {
    let world = World::with_repository();
    fs::remove_file(world.path("keys/signer.log")).expect("a fresh machine has no log");
    let before = files(world.dir());
    let done = world.signer(&["refresh"]).under(clock("-1d")).finish();
    done.refused(Reason::ClockUntrusted);
    assert!(done.stderr.contains("was not signed before"), "{}", done.stderr);
    assert!(files(world.dir()) == before, "something was written");
    // Two people's clocks differ by less than an hour.
    let _done = world.signer(&["refresh"]).under(clock("-30m")).ok();
}

#[test]
fn a_first_repository_is_not_made_before_the_program() {
    for spec in ["1970-01-02 00:00:00", "2026-10-01 00:00:00"] {
        let world = World::empty();
        let done = world.signer(&["init"]).under(clock(spec)).finish();
        done.refused(Reason::ClockUntrusted);
        assert!(done.stderr.contains("this program was not built before"), "{}", done.stderr);
        assert!(fs::read_dir(world.dir()).expect("list").next().is_none(), "{spec}");
    }
}

#[test]
fn a_staged_change_is_neither_signed_nor_committed_by_a_wrong_clock() {
    let world = World::with_repository();
    let file = world.path("change.json").display().to_string();
    let _staged = world.signer(&["stage", "--out", &file, "renew", "targets"]).ok();
    let unsigned = files(world.dir());
    for spec in BEHIND {
        world
            .signer(&["sign", &file, "--yes"])
            .under(clock(spec))
            .finish()
            .refused(Reason::ClockUntrusted);
        assert!(files(world.dir()) == unsigned, "sign at {spec} wrote something");
    }
    let _signed = world.signer(&["sign", &file, "--yes"]).ok();
    let signed = files(world.dir());
    for spec in BEHIND {
        world
            .signer(&["commit", &file])
            .under(clock(spec))
            .finish()
            .refused(Reason::ClockUntrusted);
        assert!(files(world.dir()) == signed, "commit at {spec} wrote something");
    }
    let _done = world.signer(&["commit", &file]).ok();
}

/// A clock that is ahead contradicts nothing that was signed; it is said, and so is the way back.
#[test]
fn a_clock_ahead_is_said_and_refuses_the_right_one_afterwards() {
    let world = World::with_repository();
    let quiet = world.signer(&["refresh"]).under(clock("+20d")).ok();
    assert!(!quiet.stderr.contains("by this clock"), "{}", quiet.stderr);
    let done = world.signer(&["refresh"]).under(clock("+80d")).ok();
    assert!(
        done.stderr.contains("warning: the newest signature is 60 days old"),
        "{}",
        done.stderr
    );
    let before = files(world.dir());
    let refused = world.signer(&["refresh"]).finish();
    refused.refused(Reason::ClockUntrusted);
    assert!(refused.stderr.contains("docs/runbooks/wrong-clock.md"), "{}", refused.stderr);
    assert!(files(world.dir()) == before, "something was written");
}

#[test]
fn nothing_lasts_longer_than_the_policy_lets_it() {
    let world = World::with_repository();
    fs::write(world.path("keys/signer.toml"), "[roles.timestamp]\nexpires = \"1d\"\n")
        .expect("write the policy");
    let before = files(world.dir());
    let long = ["refresh", "--expires", "timestamp=2d"];
    world.signer(&long).finish().refused(Reason::Expired);
    assert!(files(world.dir()) == before, "something was written");
    let _done = world.signer(&["refresh", "--expires", "timestamp=12h"]).ok();
}
