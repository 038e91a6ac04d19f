use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::process::Command;

use formats::reason::Reason;

use super::*;
use crate::{private, record, secret};

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn files_are_private_and_replaced_whole() {
    let dir = tempfile::tempdir().unwrap();
    let state = PrivateDir::create(&dir.path().join("state")).unwrap();
    assert_eq!(state.read("boot.0", 100).unwrap(), None);
    state.write_atomic("boot.0", b"one").unwrap();
    state.write_atomic("boot.0", b"two, longer").unwrap();
    assert_eq!(state.read("boot.0", 100).unwrap().unwrap(), b"two, longer");
    assert_eq!(state.read("boot.0", 10).unwrap_err().reason(), Reason::StoreCorrupt);
    assert_eq!(mode(&dir.path().join("state")), 0o700);
    assert_eq!(mode(&dir.path().join("state/boot.0")), 0o600);
    state.subdirectory("tuf").unwrap().write_atomic("root.json", b"{}").unwrap();
    fs::write(dir.path().join("state/.tmp-1-7"), b"left behind").unwrap();
    assert_eq!(state.list().unwrap(), ["boot.0", "tuf"]);
    PrivateDir::create(&dir.path().join("state")).unwrap();
    assert!(!dir.path().join("state/.tmp-1-7").exists());
    state.remove("boot.0").unwrap();
    state.remove("boot.0").unwrap();
    assert_eq!(state.list().unwrap(), ["tuf"]);
    for bad in ["", ".", "..", "../x", "a/b", ".tmp-1", "a\n"] {
        assert_eq!(state.write_atomic(bad, b"").unwrap_err().reason(), Reason::PathRefused);
    }
}

#[test]
fn what_others_can_change_is_refused() {
    // Case 176. Each row weakens one thing.
    let root = rustix::process::geteuid().is_root();
    type Weaken = fn(&Path);
    let rows: &[(&str, bool, Weaken)] = &[
        ("directory writable by all", false, |state| chmod(state, 0o777)),
        ("directory writable by all, sticky", false, |state| chmod(state, 0o1777)),
        ("directory writable by its group", false, |state| chmod(state, 0o770)),
        ("parent writable by its group", false, |state| chmod(state.parent().unwrap(), 0o775)),
        ("parent writable by all", false, |state| chmod(state.parent().unwrap(), 0o777)),
        ("file writable by its group", false, |state| chmod(&state.join("root.json"), 0o660)),
        ("file writable by all", false, |state| chmod(&state.join("root.json"), 0o602)),
        ("directory of another user", true, |state| chown(state, Some(1234), None).unwrap()),
        ("parent of another user", true, |state| {
            chown(state.parent().unwrap(), Some(1234), None).unwrap();
        }),
        ("file of another user", true, |state| {
            chown(state.join("root.json"), Some(1234), None).unwrap();
        }),
    ];
    for (name, needs_root, weaken) in rows {
        if *needs_root && !root {
            eprintln!("skipped: {name} needs root");
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let parent = dir.path().join("parent");
        fs::create_dir(&parent).unwrap();
        chmod(&parent, 0o755);
        let path = parent.join("state");
        PrivateDir::create(&path).unwrap().write_atomic("root.json", b"{}").unwrap();
        let read = || PrivateDir::open(&path)?.read("root.json", 100);
        assert!(read().is_ok() && private::read_trusted(&path.join("root.json"), 100).is_ok());
        weaken(&path);
        let refused = |result: Result<(), StoreError>| match result {
            Ok(()) => panic!("{name}: was taken"),
            Err(error) => assert_eq!(error.reason(), Reason::InsecurePerms, "{name}"),
        };
        refused(read().map(drop));
        // A file of ours in a sticky directory cannot be replaced by others; new state could be
        // planted beside it. A group may be the user's own: `secret` has the rows of that.
        if !name.contains("sticky") && !name.contains("its group") {
            refused(private::read_trusted(&path.join("root.json"), 100).map(drop));
        }
    }
    // A sticky parent, as /tmp is one, keeps others from replacing what is ours.
    let dir = tempfile::tempdir().unwrap();
    chmod(dir.path(), 0o1777);
    assert!(PrivateDir::create(&dir.path().join("state")).is_ok());
}

#[test]
fn links_are_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let state = PrivateDir::create(&path).unwrap();
    fs::write(dir.path().join("elsewhere"), b"stolen").unwrap();
    symlink(dir.path().join("elsewhere"), path.join("boot.0")).unwrap();
    assert!(state.read("boot.0", 100).is_err());
    symlink(dir.path().join("elsewhere"), path.join("lock")).unwrap();
    assert!(state.lock().is_err());
    // A write replaces the link, not what it points to.
    state.write_atomic("boot.0", b"ours").unwrap();
    assert_eq!(state.read("boot.0", 100).unwrap().unwrap(), b"ours");
    assert_eq!(fs::read(dir.path().join("elsewhere")).unwrap(), b"stolen");
    symlink(&path, dir.path().join("state-link")).unwrap();
    assert!(PrivateDir::open(&dir.path().join("state-link")).is_err());
}

#[test]
fn a_new_secret_is_private_from_its_first_moment() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("root.key");
    private::write_secret(&path, b"secret").unwrap();
    assert_eq!(mode(&path), 0o600);
    let read = || secret::read(&path, 100, secret::Rule::of(secret::Readers::Nobody));
    assert_eq!(read().unwrap().as_slice(), b"secret");
    let error = private::write_secret(&path, b"other").unwrap_err();
    assert_eq!(error.reason(), Reason::StoreIo, "an existing key was replaced");
}

#[test]
fn one_agent_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let state = PrivateDir::create(&path).unwrap();
    let first = state.lock().unwrap();
    // Another open of the same directory, as another process has it.
    let error = PrivateDir::open(&path).unwrap().lock().unwrap_err();
    assert_eq!(error.reason(), Reason::Busy);
    let own = format!("process {}", std::process::id());
    assert!(error.to_string().contains(&own), "{error}");
    // Reading does not wait for the lock.
    assert_eq!(record::read(&state, "boot").unwrap(), None);
    drop(first);
    state.lock().unwrap();
}

#[test]
fn a_lock_that_is_taken_again_is_not_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let state = PrivateDir::create(&path).unwrap();
    let lock = path.join("lock");
    let own = format!("{}\n", std::process::id());
    for before in ["", "1\n", "12345678901234567890 what a faulty one left"] {
        fs::write(&lock, before).unwrap();
        chmod(&lock, 0o600);
        drop(state.lock().unwrap());
        assert_eq!(fs::read_to_string(&lock).unwrap(), own, "after {before:?}");
    }
    let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
    fs::File::options().write(true).open(&lock).unwrap().set_modified(long_ago).unwrap();
    drop(state.lock().unwrap());
    assert_eq!(fs::metadata(&lock).unwrap().modified().unwrap(), long_ago);
}

#[test]
fn a_killed_holder_blocks_nobody() {
    // Case 169. `flock(1)` takes the same lock.
    let dir = tempfile::tempdir().unwrap();
    let state = PrivateDir::create(&dir.path().join("state")).unwrap();
    drop(state.lock().unwrap());
    let holder = Command::new("flock")
        .args(["--no-fork", "-n"])
        .arg(dir.path().join("state/lock"))
        .args(["sh", "-c", "echo locked; exec sleep 600"])
        .stdout(std::process::Stdio::piped())
        .spawn();
    let Ok(mut holder) = holder else {
        eprintln!("skipped: flock is not installed");
        return;
    };
    let mut said = [0; 6];
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut said).unwrap();
    assert_eq!(state.lock().unwrap_err().reason(), Reason::Busy);
    holder.kill().unwrap();
    holder.wait().unwrap();
    state.lock().unwrap();
}

/// A small file system that can be full or read-only, unmounted when dropped.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64k,mode=0755", "tmpfs"]).arg(dir.path());
        if mount.output().is_ok_and(|output| output.status.success()) {
            return Some(Mounted(dir));
        }
        eprintln!("skipped: cannot mount here");
        None
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_or_read_only_disk_keeps_the_old_state() {
    // Cases 172, 173.
    let Some(mounted) = Mounted::new() else { return };
    let path = mounted.0.path().join("state");
    let state = PrivateDir::create(&path).unwrap();
    record::write(&state, "boot", b"old").unwrap();
    let ballast = mounted.0.path().join("ballast");
    let _ = fs::write(&ballast, vec![1; 128 << 10]);
    let error = record::write(&state, "boot", &[2; 16 << 10]).unwrap_err();
    assert_eq!(error.reason(), Reason::StoreIo, "{error:?}");
    let payload = || record::read(&state, "boot").unwrap().unwrap().record.payload;
    assert_eq!(payload(), b"old");
    assert_eq!(state.list().unwrap(), ["boot.0", "boot.1"], "something was left behind");
    fs::remove_file(&ballast).unwrap();
    record::write(&state, "boot", &[2; 16 << 10]).unwrap();
    assert_eq!(payload(), [2; 16 << 10]);

    let remount = ["-o", "remount,ro"];
    let read_only = Command::new("mount").args(remount).arg(mounted.0.path()).status().unwrap();
    assert!(read_only.success());
    let error = record::write(&state, "boot", b"new").unwrap_err();
    assert_eq!(error.reason(), Reason::StoreIo, "{error:?}");
    let again = PrivateDir::create(&path).unwrap();
    assert_eq!(record::read(&again, "boot").unwrap().unwrap().record.payload, [2; 16 << 10]);
}
