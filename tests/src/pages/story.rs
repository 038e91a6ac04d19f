//! Follows a page: one shell, one folder, one reader.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tempfile::TempDir;

use super::mask::same_lines;
use super::page::{Fault, Page, Step};
use crate::rig::{must, programs, venv_bin};

/// Who follows a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// The one the tests run as: root, where it matters.
    Own,
    /// An ordinary user: umask 002, no `/usr/sbin` in `PATH`. Another user than root, when the
    /// tests run as root.
    Ordinary,
}

/// An ordinary user's number: no user of a Debian system, so nothing is theirs but the folder.
const USER: u32 = 64_321;

/// The tour takes about a minute; two cores with a load of 8 take ten times that.
const DEADLINE: Duration = Duration::from_secs(600);

/// How often the end of the shell is looked for.
const LOOK: Duration = Duration::from_millis(20);

/// The address that pages write, and every run replaces by one of its own.
const LOOPBACK: &str = "127.0.0.1";

/// No page names this port, and the system gives it to nobody.
const GUARD: u16 = 19_999;

/// What a reader has that a test has not: somebody who answers `y`.
const PRELUDE: &str = "signer() {
    if [ \"$1\" = sign ]; then command signer \"$@\" --yes; else command signer \"$@\"; fi
}
";

/// How following a page went.
#[derive(Debug)]
pub struct Report {
    /// How many commands of the page ran.
    pub ran: usize,
    /// What was not as the page says.
    pub faults: Vec<Fault>,
}

/// The programs a reader has, and a folder for each story.
#[derive(Debug)]
pub struct Site {
    dir: TempDir,
    reader: Reader,
    /// The Python packages of `cargo xtask setup`, where that reader may read them.
    packages: PathBuf,
    number: AtomicU32,
}

impl Site {
    /// Puts our programs where that reader may run them.
    #[track_caller]
    pub fn new(reader: Reader) -> Self {
        let dir =
            must(tempfile::Builder::new().prefix("racklet-pages-").tempdir(), "make a folder");
        open(dir.path());
        let packages = python_packages();
        let mut site = Site { dir, reader, packages, number: AtomicU32::new(0) };
        if site.changes_user() && !is_open(&site.packages) {
            // They lie in the home of root.
            let here = site.dir.path().join("packages");
            let copied = [&["-a", "-l"][..], &["-a"]].into_iter().any(|how| {
                let copy =
                    Command::new("cp").args(how).arg("-T").args([&site.packages, &here]).status();
                must(copy, "start cp").success()
            });
            assert!(copied, "copy the Python packages to {}", here.display());
            site.packages = here;
        }
        let bin = site.folder("bin");
        open(&bin);
        for (name, built) in programs() {
            let here = bin.join(name);
            // The same file, where the target folder lies on the same file system.
            if fs::hard_link(built, &here).is_err() {
                must(fs::copy(built, &here), "copy a program");
            }
        }
        site
    }

    fn folder(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        must(fs::create_dir(&path), "make a folder");
        path
    }

    /// Follows a page to its end or to its first command that fails. `before` are the pages that
    /// are followed before it: of them only a command that fails is told.
    #[track_caller]
    pub fn follow(&self, page: &Page, before: &[&Page]) -> Report {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let (_guard, address) = own_address();
        let here = self.folder(&number.to_string());
        let notes = self.folder(&format!("{number}-notes"));
        self.give(&here);
        self.give(&notes);
        let tasks = tasks(page, before);
        let script = tasks.iter().enumerate().map(|(at, task)| {
            let command = task.step.command.replace(LOOPBACK, &address);
            must(fs::write(notes.join(at.to_string()), format!("{command}\n")), "write a command");
            let code = task.step.code;
            format!(
                "{{ . \"$NOTES/{at}\"; }} >\"$NOTES/{at}.out\" 2>&1 </dev/null\n\
                 code=$?; echo $code >\"$NOTES/{at}.code\"; [ $code = {code} ] || exit 0\n"
            )
        });
        let script = format!("{PRELUDE}{}", script.collect::<String>());
        must(fs::write(notes.join("script"), script), "write the script");
        let ended = self.run(&here, &notes);
        let mut report = Report { ran: 0, faults: Vec::new() };
        for (at, task) in tasks.iter().enumerate() {
            let out = fs::read(notes.join(format!("{at}.out"))).unwrap_or_default();
            let out = String::from_utf8_lossy(&out).replace(&address, LOOPBACK);
            let code = fs::read_to_string(notes.join(format!("{at}.code"))).ok();
            let code = code.and_then(|code| code.trim().parse().ok());
            report.ran += usize::from(task.counts && code.is_some());
            let Some(what) = wrong(&task.step, code, &out, ended) else { continue };
            report.faults.push(Fault { page: task.page.clone(), line: task.step.line, what });
            if code != Some(task.step.code) {
                break;
            }
        }
        report
    }

    /// Lets the reader write a folder.
    #[track_caller]
    fn give(&self, folder: &Path) {
        if self.changes_user() {
            must(std::os::unix::fs::chown(folder, Some(USER), Some(USER)), "give a folder away");
        }
    }

    fn changes_user(&self) -> bool {
        self.reader == Reader::Ordinary && rustix::process::geteuid().is_root()
    }

    /// Runs the script; whether it came to its end. Whatever it left running is ended with it.
    #[track_caller]
    fn run(&self, here: &Path, notes: &Path) -> bool {
        let tokens = notes.join("tokens");
        must(fs::create_dir(&tokens), "make the token store");
        self.give(&tokens);
        // Pages that begin with `cd "$(mktemp -d)"` leave nothing behind.
        let scratch = notes.join("scratch");
        must(fs::create_dir(&scratch), "make a folder for what is temporary");
        self.give(&scratch);
        let tokens = format!("directories.tokendir = {}\n", tokens.display());
        must(fs::write(notes.join("softhsm2.conf"), tokens), "configure the token store");
        let mut shell = if self.changes_user() {
            let mut shell = Command::new("setpriv");
            let user = USER.to_string();
            shell.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--", "sh"]);
            shell
        } else {
            Command::new("sh")
        };
        let umask = if self.reader == Reader::Ordinary { "002" } else { "022" };
        shell
            .arg("-c")
            .arg(format!("umask {umask}; . \"$NOTES/script\""))
            .env_clear()
            .env("PATH", self.path())
            .env("HOME", here)
            .env("NOTES", notes)
            .env("LC_ALL", "C.UTF-8")
            .env("PYTHONPATH", &self.packages)
            .env("SOFTHSM2_CONF", notes.join("softhsm2.conf"))
            .env("TMPDIR", &scratch)
            .current_dir(here)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        let mut shell = must(shell.spawn(), "start a shell");
        let pid = Pid::from_child(&shell);
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let begun = Instant::now();
        let mut ended = false;
        while !ended && begun.elapsed() < DEADLINE {
            ended = must(waitid(WaitId::Pid(pid), look), "look at the shell").is_some();
            std::thread::sleep(LOOK);
        }
        // Not waited for yet, so the shell's number, and that of its group, is still its own.
        must(kill_process_group(pid, Signal::KILL), "end what is left");
        drop(shell.wait());
        ended
    }

    /// Our programs, Python as it made the packages of `cargo xtask setup` (the system's, where the
    /// reader may not run that one), and what everybody has.
    fn path(&self) -> std::ffi::OsString {
        let python =
            Some(venv_bin()).filter(|bin| !self.changes_user() || is_open(&bin.join("python3")));
        let own = std::iter::once(self.dir.path().join("bin")).chain(python);
        let all = ["/usr/local/bin", "/usr/bin", "/bin"].map(PathBuf::from);
        let admin = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
        let admin = admin.into_iter().filter(|_| self.reader == Reader::Own);
        must(std::env::join_paths(own.chain(admin).chain(all)), "make a PATH")
    }
}

/// A command of a story.
struct Task {
    /// The page it stands in.
    page: String,
    step: Step,
    /// Whether it is of the page itself.
    counts: bool,
}

/// The commands of the earlier pages, what is given, the page's own.
fn tasks(page: &Page, before: &[&Page]) -> Vec<Task> {
    let unseen = |step: &Step| Step { printed: None, ..step.clone() };
    let earlier = before.iter().flat_map(|page| {
        let task = |step| Task { page: page.name.clone(), step: unseen(step), counts: false };
        page.steps.iter().map(task)
    });
    let given = page.given.iter().map(|command| Task {
        page: page.name.clone(),
        step: Step { line: 1, command: command.clone(), code: 0, printed: None },
        counts: false,
    });
    let own = page.steps.iter();
    let own = own.map(|step| Task { page: page.name.clone(), step: step.clone(), counts: true });
    earlier.chain(given).chain(own).collect()
}

/// What is wrong with how a command ended: its exit code (`None`: it has none) and what it printed.
fn wrong(step: &Step, code: Option<i32>, out: &str, shell_ended: bool) -> Option<String> {
    let command = &step.command;
    let Some(code) = code else {
        let how = if shell_ended { "ended the shell" } else { "did not end" };
        return Some(format!("`{command}` {how}:\n{out}"));
    };
    if code != step.code {
        let wanted = step.code;
        return Some(format!("`{command}` ended with exit code {code}, not {wanted}:\n{out}"));
    }
    let lines: Vec<String> = out.lines().map(str::to_owned).collect();
    let page = step.printed.as_ref().filter(|page| !same_lines(page, &lines))?.join("\n");
    Some(format!("`{command}` prints something else\n--- the page\n{page}\n--- printed\n{out}"))
}

/// Lets everybody enter a folder.
#[track_caller]
fn open(folder: &Path) {
    must(fs::set_permissions(folder, fs::Permissions::from_mode(0o755)), "open a folder");
}

/// Whether everybody may reach a file or folder, which may lie in the home of whoever made it.
fn is_open(path: &Path) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    let mut above = path.ancestors().map(fs::metadata);
    above.all(|found| found.is_ok_and(|found| found.permissions().mode() & 0o001 != 0))
}

/// The folder with the packages, for whichever Python runs.
#[track_caller]
fn python_packages() -> PathBuf {
    let lib = venv_bin().with_file_name("lib");
    let mut versions = must(fs::read_dir(lib), "list the Python packages");
    let version = versions.next().and_then(Result::ok).expect("a folder for its version");
    version.path().join("site-packages")
}

/// A loopback address that no other run uses, of the 16 million there are, and what keeps it: a run
/// has the address whose port [`GUARD`] it listens on. Where to begin comes from the process' number,
/// so that runs beside each other need not search.
#[track_caller]
fn own_address() -> (TcpListener, String) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = (std::process::id() << 6).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let [_, a, b, c] = number.to_be_bytes();
        // 127.0.0.x is everybody's, 127.255.255.255 nobody's.
        if (a, b) == (0, 0) || (a, b, c) == (255, 255, 255) {
            continue;
        }
        let address = Ipv4Addr::new(127, a, b, c);
        match TcpListener::bind((address, GUARD)) {
            Ok(guard) => return (guard, address.to_string()),
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            Err(error) => panic!("listen on {address}: {error}"),
        }
    }
}
