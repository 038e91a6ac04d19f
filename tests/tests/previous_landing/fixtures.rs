//! The state that the agent of the previous landing left in each phase, byte for byte.
//!
//! ```text
//! fixtures/commit            the commit of that agent: the one that `tests/previous-landing` names
//! fixtures/PHASE/root.json   the trust root that it was given
//! fixtures/PHASE/state/      its state directory, without the lock
//! fixtures/PHASE/cmdline     what the boot loader said
//! fixtures/PHASE/boot_id     the number of the boot
//! ```
//!
//! The disk is made anew: the same release has the same bytes in every world. What the state trusts was signed
//! with the keys of `keys-example/`. `cargo xtask previous --write-fixtures` writes the folder.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use racklet_tests::sources::{text_of, workspace};

use super::both_ways::previous_agent;
use super::phase::{Offered, Phase, Standing};

/// What is kept of a node.
const KEPT: [&str; 3] = ["state", "cmdline", "boot_id"];
/// And of its world.
const ROOT: &str = "root.json";

fn folder() -> PathBuf {
    workspace().join("tests/tests/previous_landing/fixtures")
}

/// Copies a file, or a folder with all that is in it, into a folder; what is only a lock is left out. git keeps
/// no modes, and the agent wants its own.
fn copy_into(dir: &Path, from: &Path) {
    let name = from.file_name().expect("a name");
    let to = dir.join(name);
    if from.is_dir() {
        fs::create_dir(&to).expect("make a folder");
        set_mode(&to, 0o700);
        for entry in fs::read_dir(from).expect("list a folder") {
            copy_into(&to, &entry.expect("an entry").path());
        }
    } else if name != "lock" {
        let bytes = fs::read(from).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        fs::write(&to, bytes).expect("write");
        set_mode(&to, 0o600);
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set the mode");
}

/// The node as the previous agent left it.
fn restore(phase: Phase, it: &Offered) {
    let Offered { node, v2, .. } = it;
    let Standing { flags, written, .. } = phase.standing();
    if written {
        node.disk.preinstall("root-b", &v2.os.bytes);
        node.disk.preinstall("fw-b", &v2.firmware.bytes);
    }
    node.disk.set_flags("root-a", flags[0]);
    node.disk.set_flags("root-b", flags[1]);
    let from = folder().join(phase.name());
    fs::remove_dir_all(node.state()).expect("forget the agent of this commit");
    for name in KEPT {
        copy_into(&node.path("."), &from.join(name));
    }
}

#[test]
fn the_state_of_the_previous_landing_is_read_and_carried_on() {
    for phase in Phase::ALL {
        let it = Offered::under(Some(&folder().join(phase.name()).join(ROOT)));
        restore(phase, &it);
        let status = it.node.status();
        let booted = phase.standing().booted;
        assert_eq!(status["booted"], booted, "{phase:?}: {status}");
        phase.goes_on(&it);
    }
}

/// A landing that is named must have its fixtures, and each phase its own.
#[test]
fn the_fixtures_are_those_of_the_landing_that_is_named() {
    let named = text_of("tests/previous-landing");
    let written = text_of("tests/tests/previous_landing/fixtures/commit");
    assert_eq!(written, named, "run `cargo xtask previous --write-fixtures`");
    let phases = fs::read_dir(folder())
        .expect("list")
        .filter(|entry| entry.as_ref().is_ok_and(|entry| entry.path().is_dir()));
    assert_eq!(phases.count(), Phase::ALL.len());
}

fn save(phase: Phase, it: &Offered) {
    let to = folder().join(phase.name());
    fs::create_dir_all(&to).expect("make the folder");
    for name in KEPT {
        copy_into(&to, &it.node.path(name));
    }
    copy_into(&to, &it.world.path(ROOT));
}

#[test]
#[ignore = "writes them: cargo xtask previous --write-fixtures"]
fn write_the_fixtures() {
    let previous = previous_agent();
    let _old = fs::remove_dir_all(folder());
    for phase in Phase::ALL {
        let it = Offered::new();
        fs::remove_dir_all(it.node.state()).expect("forget what the agent of this commit noted");
        it.node.exchange_agent(Some(&previous));
        phase.reach(&it.node);
        save(phase, &it);
    }
    fs::write(folder().join("commit"), text_of("tests/previous-landing")).expect("write");
}
