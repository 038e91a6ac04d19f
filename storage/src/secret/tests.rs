use std::fs;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use formats::reason::Reason;

use super::*;

const SECRET: &[u8] = b"open sesame\r\nsecond line\n";

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn fifo(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}

/// A folder with `secret` (0600) in `inside` (0700), both ours.
fn folder() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let inside = dir.path().join("inside");
    fs::create_dir(&inside).unwrap();
    chmod(&inside, 0o700);
    fs::write(inside.join("secret"), SECRET).unwrap();
    chmod(&inside.join("secret"), 0o600);
    (dir, inside)
}

enum Ends {
    Read,
    Insecure,
    Refused,
}
use Ends::{Insecure, Read, Refused};

type Change = fn(&Path);

/// What happens to `inside/secret`, who may read it, and how that ends. The third column needs root.
const ROWS: &[(&str, Readers, bool, Change, Ends)] = &[
    ("closed", Readers::Nobody, false, |_| {}, Read),
    ("read-only", Readers::Nobody, false, |it| chmod(&it.join("secret"), 0o400), Read),
    ("group may read", Readers::Nobody, false, |it| chmod(&it.join("secret"), 0o640), Insecure),
    ("group may read, as said", Readers::Group, false, |it| chmod(&it.join("secret"), 0o640), Read),
    ("all may read", Readers::Nobody, false, |it| chmod(&it.join("secret"), 0o604), Insecure),
    (
        "all may read, group said",
        Readers::Group,
        false,
        |it| chmod(&it.join("secret"), 0o644),
        Insecure,
    ),
    (
        "all may read, as said",
        Readers::Everybody,
        false,
        |it| chmod(&it.join("secret"), 0o644),
        Read,
    ),
    ("all may write", Readers::Everybody, false, |it| chmod(&it.join("secret"), 0o646), Insecure),
    (
        "another group may write",
        Readers::Everybody,
        true,
        |it| {
            chown(it.join("secret"), None, Some(4242)).unwrap();
            chmod(&it.join("secret"), 0o664);
        },
        Insecure,
    ),
    (
        "another user's file",
        Readers::Everybody,
        true,
        |it| {
            chown(it.join("secret"), Some(4242), None).unwrap();
        },
        Insecure,
    ),
    ("folder all may write", Readers::Nobody, false, |it| chmod(it, 0o777), Insecure),
    ("sticky folder all may write", Readers::Nobody, false, |it| chmod(it, 0o1777), Read),
    (
        "folder another group may write",
        Readers::Nobody,
        true,
        |it| {
            chown(it, None, Some(4242)).unwrap();
            chmod(it, 0o770);
        },
        Insecure,
    ),
    (
        "folder of another user",
        Readers::Nobody,
        true,
        |it| chown(it, Some(4242), None).unwrap(),
        Insecure,
    ),
    (
        "parent all may write",
        Readers::Nobody,
        false,
        |it| chmod(it.parent().unwrap(), 0o777),
        Insecure,
    ),
    (
        "a link of ours",
        Readers::Nobody,
        false,
        |it| {
            fs::rename(it.join("secret"), it.join("..data")).unwrap();
            symlink("..data", it.join("secret")).unwrap();
        },
        Read,
    ),
    (
        "links as Kubernetes makes them",
        Readers::Nobody,
        false,
        |it| {
            fs::create_dir(it.join("..2026")).unwrap();
            chmod(&it.join("..2026"), 0o755);
            fs::rename(it.join("secret"), it.join("..2026/secret")).unwrap();
            symlink("..2026", it.join("..data")).unwrap();
            symlink("..data/secret", it.join("secret")).unwrap();
        },
        Read,
    ),
    (
        "an absolute link with ..",
        Readers::Nobody,
        false,
        |it| {
            fs::rename(it.join("secret"), it.join("real")).unwrap();
            let name = it.file_name().unwrap();
            symlink(it.join("..").join(name).join("real"), it.join("secret")).unwrap();
        },
        Read,
    ),
    (
        "a link of another user",
        Readers::Nobody,
        true,
        |it| {
            fs::rename(it.join("secret"), it.join("real")).unwrap();
            symlink("real", it.join("secret")).unwrap();
            std::os::unix::fs::lchown(it.join("secret"), Some(4242), None).unwrap();
        },
        Insecure,
    ),
    (
        "a link through a folder that all may write",
        Readers::Nobody,
        false,
        |it| {
            let open = it.parent().unwrap().join("open");
            fs::create_dir(&open).unwrap();
            fs::rename(it.join("secret"), open.join("secret")).unwrap();
            chmod(&open, 0o777);
            symlink("../open/secret", it.join("secret")).unwrap();
        },
        Insecure,
    ),
    (
        "a circle of links",
        Readers::Nobody,
        false,
        |it| {
            fs::remove_file(it.join("secret")).unwrap();
            symlink("secret", it.join("secret")).unwrap();
        },
        Refused,
    ),
    (
        "nothing there",
        Readers::Nobody,
        false,
        |it| fs::remove_file(it.join("secret")).unwrap(),
        Refused,
    ),
    (
        "a folder",
        Readers::Nobody,
        false,
        |it| {
            fs::remove_file(it.join("secret")).unwrap();
            fs::create_dir(it.join("secret")).unwrap();
            chmod(&it.join("secret"), 0o700);
        },
        Refused,
    ),
    (
        "a named pipe",
        Readers::Nobody,
        false,
        |it| {
            fs::remove_file(it.join("secret")).unwrap();
            fifo(&it.join("secret"));
        },
        Refused,
    ),
    (
        "a socket",
        Readers::Nobody,
        false,
        |it| {
            fs::remove_file(it.join("secret")).unwrap();
            drop(UnixListener::bind(it.join("secret")).unwrap());
        },
        Refused,
    ),
    (
        "a device",
        Readers::Nobody,
        false,
        |it| {
            fs::remove_file(it.join("secret")).unwrap();
            symlink("/dev/zero", it.join("secret")).unwrap();
        },
        Refused,
    ),
    (
        "too long",
        Readers::Nobody,
        false,
        |it| {
            fs::write(it.join("secret"), [b'x'; 101]).unwrap();
        },
        Refused,
    ),
];

#[test]
fn a_secret_is_as_private_as_the_way_to_it() {
    let root = geteuid().is_root();
    for (name, readers, needs_root, change, ends) in ROWS {
        if *needs_root && !root {
            eprintln!("skipped: {name} needs root");
            continue;
        }
        let (_dir, inside) = folder();
        change(&inside);
        for rule in [Rule::of(*readers), Rule::of(*readers).or_pipe()] {
            let found = read(&inside.join("secret"), 100, rule);
            match (ends, &found) {
                (Read, Ok(bytes)) => assert_eq!(bytes.as_slice(), SECRET, "{name}"),
                (Insecure, Err(error @ StoreError::InsecurePerms { .. })) => {
                    assert_eq!(error.reason(), Reason::InsecurePerms, "{name}");
                }
                (Refused, Err(StoreError::Read(_) | StoreError::TooLarge { .. })) => {}
                _ => panic!("{name}: {found:?}"),
            }
        }
    }
}

#[test]
fn the_group_may_read_what_root_gives_to_a_user() {
    let (_dir, inside) = folder();
    let mut stat = rustix::fs::stat(inside.join("secret")).unwrap();
    let shared = |_, _| false;
    for (name, owner, user, mode, ends) in [
        ("root's, read by root", 0, 0, 0o640, Some("can be read by others")),
        ("root's, read by a user", 0, 1000, 0o440, None),
        ("root's, open to all", 0, 1000, 0o444, Some("can be read by others")),
        ("root's, writable by the group", 0, 1000, 0o660, Some("can be changed by others")),
        ("the user's own", 1000, 1000, 0o640, Some("can be read by others")),
    ] {
        (stat.st_uid, stat.st_mode) = (owner, 0o100_000 | mode);
        let found = excess(&stat, Readers::Nobody, user, shared).map(|(why, _)| why);
        assert_eq!(found, ends, "{name}");
    }
    // Under umask 002, in the group that is only ours.
    (stat.st_uid, stat.st_mode) = (1000, 0o100_664);
    assert_eq!(excess(&stat, Readers::Everybody, 1000, |_, _| true), None);
}

#[test]
fn a_line_ends_where_it_ends() {
    let (_dir, inside) = folder();
    let path = inside.join("secret");
    let line = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        read_line(&path, 100, Rule::of(Readers::Nobody)).map(|line| line.as_str().to_owned())
    };
    assert_eq!(line(SECRET).unwrap(), "open sesame");
    assert_eq!(line(b"no end ").unwrap(), "no end ");
    for bad in [&b""[..], b"\nsecond", b"\r\n", b"\xff\n"] {
        assert!(matches!(line(bad), Err(StoreError::Read(_))), "{bad:?}");
    }
}

#[test]
fn an_inherited_pipe_is_read_where_it_is_allowed() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let path = PathBuf::from(format!("/dev/fd/{}", reader.as_raw_fd()));
    let refused = read(&path, 100, Rule::of(Readers::Nobody));
    assert!(matches!(refused, Err(StoreError::Read(FileError::NotRegular(_)))), "{refused:?}");
    let late = std::thread::spawn(move || writer.write_all(b"from a pipe\n"));
    let line = read_line(&path, 100, Rule::of(Readers::Nobody).or_pipe()).unwrap();
    assert_eq!(line.as_str(), "from a pipe");
    late.join().unwrap().unwrap();
}

#[test]
fn an_inherited_file_is_judged_by_its_mode() {
    let (_dir, inside) = folder();
    let path = inside.join("secret");
    let file = fs::File::open(&path).unwrap();
    let through = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let rule = Rule::of(Readers::Nobody).or_pipe();
    assert_eq!(read(&through, 100, rule).unwrap().as_slice(), SECRET);
    chmod(&path, 0o644);
    assert_eq!(read(&through, 100, rule).unwrap_err().reason(), Reason::InsecurePerms);
}
