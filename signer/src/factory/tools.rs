//! Programs of other projects that make and read file systems, with everything that would differ between two runs
//! taken from them: clock, time zone, language, the user's own settings.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::process::{Command, Stdio};

use super::error::FactoryError;

/// Where Debian has them; `/usr/sbin` is not on an ordinary user's `PATH`.
const FOLDERS: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// What of a failed program's output is told: its last lines.
const TOLD: usize = 300;

/// A program and the Debian package that has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tool {
    program: &'static str,
    package: &'static str,
}

pub(super) const MKE2FS: Tool = Tool { program: "mke2fs", package: "e2fsprogs" };
pub(super) const DEBUGFS: Tool = Tool { program: "debugfs", package: "e2fsprogs" };
pub(super) const MKFS_VFAT: Tool = Tool { program: "mkfs.vfat", package: "dosfstools" };
pub(super) const MMD: Tool = Tool { program: "mmd", package: "mtools" };
pub(super) const MCOPY: Tool = Tool { program: "mcopy", package: "mtools" };
pub(super) const CPIO: Tool = Tool { program: "cpio", package: "cpio" };
pub(super) const MKIMAGE: Tool = Tool { program: "mkimage", package: "u-boot-tools" };

/// What a program printed.
pub(super) struct Said {
    pub(super) output: Vec<u8>,
    pub(super) errors: String,
}

impl Tool {
    /// Whether the program can be started.
    pub(super) fn is_there(self) -> Result<(), FactoryError> {
        let path = search_path();
        let mut files = std::env::split_paths(&path).map(|folder| folder.join(self.program));
        let found = files.any(|file| file.is_file());
        if found { Ok(()) } else { Err(self.missing()) }
    }

    fn missing(self) -> FactoryError {
        let Tool { program, package } = self;
        FactoryError::Missing { program, package }
    }

    /// Runs it to its end at a time that stands still at `epoch`, Unix seconds.
    pub(super) fn run<A: AsRef<OsStr>>(
        self,
        arguments: impl IntoIterator<Item = A>,
        epoch: u64,
        input: &str,
    ) -> Result<Said, FactoryError> {
        let child = Command::new(self.program)
            .args(arguments)
            .env_clear()
            .env("PATH", search_path())
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC")
            .env("SOURCE_DATE_EPOCH", epoch.to_string())
            .env("E2FSPROGS_FAKE_TIME", epoch.to_string())
            // The user's and the system's settings would decide, too.
            .env("MKE2FS_CONFIG", "/dev/null")
            .env("MTOOLSRC", "/dev/null")
            .env("MTOOLS_SKIP_CHECK", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => self.missing(),
            _ => self.failed(&error.to_string()),
        })?;
        let mut stdin = child.stdin.take();
        let input = input.to_owned();
        // It may print before it has read everything.
        let fed = std::thread::spawn(move || {
            let _closed_early = stdin.as_mut().map(|pipe| pipe.write_all(input.as_bytes()));
        });
        let done = child.wait_with_output().map_err(|error| self.failed(&error.to_string()))?;
        let _fed = fed.join();
        let errors = String::from_utf8_lossy(&done.stderr).into_owned();
        if done.status.success() {
            return Ok(Said { output: done.stdout, errors });
        }
        let all = format!("{}\n{errors}", String::from_utf8_lossy(&done.stdout));
        Err(self.failed(&format!("{}: {}", done.status, last_lines(&all))))
    }

    pub(super) fn failed(self, said: &str) -> FactoryError {
        FactoryError::Tool { program: self.program, said: said.to_owned() }
    }
}

/// Where programs are looked for: the user's folders, then [`FOLDERS`].
fn search_path() -> OsString {
    match std::env::var_os("PATH").filter(|path| !path.is_empty()) {
        Some(path) => [path.as_os_str(), OsStr::new(FOLDERS)].join(OsStr::new(":")),
        None => FOLDERS.into(),
    }
}

/// The end of a text, on one line.
pub(super) fn last_lines(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let text = words.join(" ");
    let from = text.char_indices().rev().nth(TOLD).map_or(0, |(at, _)| at);
    text.get(from..).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        let absent = Tool { program: "mkfs.of-no-system", package: "no-package" };
        for error in [absent.is_there().err(), absent.run([""], 0, "").err()] {
            let said = error.map(|error| error.to_string()).unwrap_or_default();
            assert_eq!(said, "mkfs.of-no-system is not installed: run `apt install no-package`");
        }
    }

    #[test]
    fn the_last_words_of_a_failure_are_told() {
        assert_eq!(last_lines("one\n  two\n"), "one two");
        assert_eq!(last_lines(&"é".repeat(1000)).chars().count(), TOLD + 1);
    }
}
