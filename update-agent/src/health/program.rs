//! Why a configured command cannot be started, said so that it can be mended.
//!
//! The kernel's word is seldom enough: a script with a missing interpreter is "No such file or directory".
//! [`judge`] is a decision over what was [`seen`](look) of the program's file. `doctor` asks it of commands
//! that it does not run; [`not_started`] asks it of those that were refused.

use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::StatVfsMountFlags;
use rustix::io::Errno;

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Whether it is a plain file, links followed.
    pub(crate) file: bool,
    /// Whether anybody may execute it.
    pub(crate) executable: bool,
    /// Whether its file system is mounted `noexec`.
    pub(crate) noexec: bool,
    /// Its first bytes, at most [`HEAD`]; none where it cannot be read.
    pub(crate) head: Vec<u8>,
}

/// The kernel reads the line of an interpreter no further (`BINPRM_BUF_SIZE`).
const HEAD: u64 = 256;

/// Looks at a path; `None`: there is nothing.
pub(crate) fn look(path: &Path) -> Option<Seen> {
    let found = std::fs::metadata(path).ok()?;
    let mut head = Vec::new();
    if found.is_file()
        && let Ok(file) = std::fs::File::open(path)
    {
        // What cannot be read may still be executed.
        let _ = file.take(HEAD).read_to_end(&mut head);
    }
    let mount = rustix::fs::statvfs(path);
    Some(Seen {
        file: found.is_file(),
        executable: found.permissions().mode() & 0o111 != 0,
        noexec: mount.is_ok_and(|mount| mount.f_flag.contains(StatVfsMountFlags::NOEXEC)),
        head,
    })
}

/// Where programs are looked for: what `execvp` takes without a `PATH` when there is none.
fn search() -> String {
    std::env::var("PATH").unwrap_or_else(|_| "/bin:/usr/bin".to_owned())
}

/// Says why `argv` cannot be started, before it is.
pub(crate) fn startable(argv: &[String]) -> Result<(), String> {
    startable_in(argv, &search())
}

/// The same where `PATH` is another.
pub(crate) fn startable_in(argv: &[String], path: &str) -> Result<(), String> {
    judge(argv, path, &look)
}

/// Says why `argv` was not started, where the system refused with `error`.
pub(crate) fn not_started(argv: &[String], error: &io::Error) -> String {
    explain(argv, error, &search(), &look)
}

fn explain(
    argv: &[String],
    error: &io::Error,
    search: &str,
    look: &dyn Fn(&Path) -> Option<Seen>,
) -> String {
    if let Err(why) = judge(argv, search, look) {
        return why;
    }
    let program = argv.first().map(String::as_str).unwrap_or_default();
    let found = find(program, search, look).map(|(path, _)| path);
    let shown = found.as_deref().unwrap_or(Path::new(program)).display();
    match Errno::from_io_error(error) {
        // The file is there: what is missing is what it names.
        Some(Errno::NOENT) => format!(
            "{shown} is there, but not what loads it: it was built for another C library or machine"
        ),
        Some(Errno::NOEXEC) => {
            format!("{shown} was built for another kind of machine, or it is damaged")
        }
        _ => format!("cannot run {shown}: {error}"),
    }
}

/// Says why `argv` cannot be started, with what to do about it. `search` is `PATH`.
pub(crate) fn judge(
    argv: &[String],
    search: &str,
    look: &dyn Fn(&Path) -> Option<Seen>,
) -> Result<(), String> {
    let Some(program) = argv.first() else { return Err("it names no program".to_owned()) };
    let Some((path, seen)) = find(program, search, look) else {
        let mut text = match program.contains('/') {
            true => format!("there is no {program}"),
            false => format!(
                "there is no program {program} in PATH ({search}): install it, or name its directory"
            ),
        };
        let first = program.split_whitespace().next().unwrap_or_default();
        if first != program && find(first, search, look).is_some() {
            text = format!("{program:?} is one word: write its arguments as separate strings");
        }
        return Err(text);
    };
    let shown = path.display();
    if !seen.file {
        return Err(format!("{shown} is a folder or a device, no program"));
    }
    if !seen.executable {
        return Err(format!("{shown} is not executable: run chmod +x on it"));
    }
    if seen.noexec {
        return Err(format!(
            "{shown} is on a file system that is mounted noexec: move it, or mount that without noexec"
        ));
    }
    let Some(line) = seen.head.strip_prefix(b"#!") else {
        let elf = seen.head.is_empty() || seen.head.starts_with(b"\x7fELF");
        return match elf {
            true => Ok(()),
            // What a shell starts, the kernel does not.
            false => Err(format!(
                "{shown} is neither a program nor a script with a line #!: begin it with #!/bin/sh"
            )),
        };
    };
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if line.ends_with(b"\r") {
        return Err(format!("{shown} has line ends of Windows: run sed -i 's/\\r$//' on it"));
    }
    let words = line.split(|byte| matches!(byte, b' ' | b'\t'));
    let interpreter = words.into_iter().find(|word| !word.is_empty()).unwrap_or_default();
    let interpreter = Path::new(std::ffi::OsStr::from_bytes(interpreter));
    match look(interpreter) {
        Some(seen) if seen.file && seen.executable => Ok(()),
        _ if interpreter.as_os_str().is_empty() => {
            Err(format!("{shown} names no interpreter after #!: begin it with #!/bin/sh"))
        }
        _ => Err(format!("{shown} asks for {}, which is not there", interpreter.display())),
    }
}

/// Where `execvp` would find it: the first that may be executed, else the first there is.
fn find(
    program: &str,
    search: &str,
    look: &dyn Fn(&Path) -> Option<Seen>,
) -> Option<(PathBuf, Seen)> {
    if program.contains('/') {
        let path = PathBuf::from(program);
        return look(&path).map(|seen| (path, seen));
    }
    let places = search.split(':').filter(|folder| !folder.is_empty() && !program.is_empty());
    let mut there = places.filter_map(|folder| {
        let path = Path::new(folder).join(program);
        look(&path).filter(|seen| seen.file).map(|seen| (path, seen))
    });
    let first = there.next()?;
    if first.1.executable {
        return Some(first);
    }
    Some(there.find(|(_, seen)| seen.executable).unwrap_or(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_started_is_said_with_what_to_do() {
        let file =
            |head: &[u8]| Seen { file: true, executable: true, noexec: false, head: head.to_vec() };
        let look = |path: &Path| match path.to_str().unwrap() {
            "/bin/sh" | "/bin/true" | "/usr/bin/env" | "/sbin/twice" => Some(file(b"\x7fELF\x02")),
            "/etc/good" => Some(file(b"#!/bin/sh -e\nexit 0\n")),
            "/etc/spaced" => Some(file(b"#! /usr/bin/env python3\n")),
            "/etc/unreadable" => Some(file(b"")),
            "/etc/crlf" => Some(file(b"#!/bin/sh\r\nexit 0\r\n")),
            "/etc/lost" => Some(file(b"#!/usr/bin/python2\n")),
            "/etc/nothing" => Some(file(b"#!\n")),
            "/etc/bare" => Some(file(b"exit 0\n")),
            "/etc/plain" | "/bin/twice" => Some(Seen { executable: false, ..file(b"#!/bin/sh\n") }),
            "/etc" => Some(Seen { file: false, ..file(b"") }),
            "/tmp/own" => Some(Seen { noexec: true, ..file(b"#!/bin/sh\n") }),
            _ => None,
        };
        let rows: [(&str, &str); 16] = [
            ("true", ""),
            ("/bin/true", ""),
            ("twice", ""),
            ("/etc/good", ""),
            ("/etc/spaced", ""),
            ("/etc/unreadable", ""),
            ("/nope/check", "there is no /nope/check"),
            (
                "nope",
                "there is no program nope in PATH (/bin:/sbin): install it, or name its directory",
            ),
            ("true -x", "\"true -x\" is one word: write its arguments as separate strings"),
            ("/etc/plain", "/etc/plain is not executable: run chmod +x on it"),
            ("/etc", "/etc is a folder or a device, no program"),
            (
                "/tmp/own",
                "/tmp/own is on a file system that is mounted noexec: move it, or mount that without noexec",
            ),
            ("/etc/crlf", "/etc/crlf has line ends of Windows: run sed -i 's/\\r$//' on it"),
            ("/etc/lost", "/etc/lost asks for /usr/bin/python2, which is not there"),
            ("/etc/nothing", "/etc/nothing names no interpreter after #!: begin it with #!/bin/sh"),
            (
                "/etc/bare",
                "/etc/bare is neither a program nor a script with a line #!: begin it with #!/bin/sh",
            ),
        ];
        for (program, said) in rows {
            let why = judge(&[program.to_owned()], "/bin:/sbin", &look).err();
            assert_eq!(why.unwrap_or_default(), said, "{program}");
        }
        assert!(judge(&[], "/bin", &look).is_err());
        // What the file does not show, the kernel's word does.
        let refused = [
            (Errno::NOENT, "/bin/true is there, but not what loads it"),
            (Errno::NOEXEC, "/bin/true was built for another kind of machine"),
            (Errno::AGAIN, "cannot run /bin/true: "),
        ];
        for (errno, said) in refused {
            let why = explain(&["true".to_owned()], &errno.into(), "/bin", &look);
            assert!(why.starts_with(said), "{why}");
        }
        let why = explain(&["/etc/crlf".to_owned()], &Errno::NOENT.into(), "/bin", &look);
        assert!(why.contains("line ends of Windows"), "{why}");
    }
}
