//! People at a terminal: passphrases are asked for and not shown, a signature is asked for after
//! everything was shown, and a no changes nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod program;

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use program::Program;

/// A person who waits longer than this goes home.
const PATIENCE: Duration = Duration::from_secs(60);

/// `signer` in a session with a terminal of its own, as `script` from util-linux makes one.
struct Terminal {
    child: Child,
    screen: String,
    /// How much of it was waited for.
    seen: usize,
    pieces: Receiver<Vec<u8>>,
}

impl Terminal {
    fn run(signer: &Program, arguments: &str) -> Self {
        let line = format!("{} {arguments}", env!("CARGO_BIN_EXE_signer"));
        let mut child = Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .current_dir(signer.dir())
            .env_remove("SIGNER_PASSPHRASE_FILE")
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("script: install bsdutils");
        let mut out = child.stdout.take().unwrap();
        let (tell, pieces) = channel();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(n @ 1..) = out.read(&mut piece) {
                if tell.send(piece[..n].to_vec()).is_err() {
                    break;
                }
            }
        });
        Terminal { child, screen: String::new(), seen: 0, pieces }
    }

    /// Waits until that is on the screen, after what was waited for before.
    #[track_caller]
    fn shows(&mut self, text: &str) -> &mut Self {
        loop {
            if let Some(at) = self.screen[self.seen..].find(text) {
                self.seen += at + text.len();
                return self;
            }
            match self.pieces.recv_timeout(PATIENCE) {
                Ok(piece) => self.screen.push_str(&String::from_utf8_lossy(&piece)),
                Err(_) => panic!("{text:?} is not on the screen:\n{}", self.screen),
            }
        }
    }

    fn types(&mut self, text: &str) -> &mut Self {
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
        self
    }

    /// Its exit code and all that was on the screen.
    fn ends(mut self) -> (i32, String) {
        while let Ok(piece) = self.pieces.recv_timeout(PATIENCE) {
            self.screen.push_str(&String::from_utf8_lossy(&piece));
        }
        drop(self.child.stdin.take());
        (self.child.wait().unwrap().code().unwrap(), self.screen)
    }
}

fn repository(signer: &Program) {
    signer.json(&["key", "new", "--out", "t/key"], 0);
    let keys = ["--keys", "keys", "--targets-keys", "t/key.pub"];
    signer.json(&[&["init", "--repo", "oci:repo"], &keys[..]].concat(), 0);
    std::fs::copy(signer.path("keys/root.json"), signer.path("t/root.json")).unwrap();
    std::fs::write(signer.path("os.img"), b"an operating system\0".repeat(1000)).unwrap();
    let publish = ["publish", "--product", "demo", "--version", "1.0.0"];
    let component = ["--component", "os=os.img,hw=cu-v1", "--out", "change.json"];
    let at = ["--repo", "oci:repo", "--keys", "keys"];
    signer.json(&[&["stage"], &publish[..], &component, &at].concat(), 0);
}

/// The staged change and the log of who signs.
fn files(signer: &Program) -> [Option<Vec<u8>>; 2] {
    ["change.json", "t/signer.log"].map(|name| std::fs::read(signer.path(name)).ok())
}

#[test]
fn a_signature_is_asked_for_after_everything_was_shown() {
    let signer = Program::new();
    repository(&signer);
    let before = files(&signer);
    let sign = "sign change.json --keys t";
    for no in ["n\n", "\n", "yes please\n", "\u{4}"] {
        let mut terminal = Terminal::run(&signer, sign);
        terminal.shows("release demo/1.0.0").shows("sign this? [y/N]").types(no);
        let (code, screen) = terminal.ends();
        assert_eq!(code, 1, "{no:?}: {screen}");
        assert!(screen.contains("error[declined]"), "{no:?}: {screen}");
        assert!(screen.contains("os of 20000 bytes for cu-v1"), "{screen}");
        assert!(files(&signer) == before, "{no:?} changed something");
    }
    let mut terminal = Terminal::run(&signer, sign);
    terminal.shows("sign this? [y/N]").types("y\n");
    let (code, screen) = terminal.ends();
    assert_eq!(code, 0, "{screen}");
    assert!(screen.contains("ready: signer commit"), "{screen}");
    assert!(files(&signer) != before);
}

#[test]
fn nobody_to_ask_is_an_error_unless_yes_was_given() {
    let signer = Program::new();
    repository(&signer);
    let before = files(&signer);
    let run = |arguments: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_signer"));
        let command = command.args(arguments.split(' ')).current_dir(signer.dir());
        let done = command.stdin(Stdio::null()).output().unwrap();
        (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    let (code, text) = run("sign change.json --keys t");
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("error[usage]") && text.contains("--yes"), "{text}");
    assert!(files(&signer) == before);
    // A terminal to type at, and the question in a file: not seen, so not asked.
    let (code, screen) = Terminal::run(&signer, "sign change.json --keys t 2>log").ends();
    assert_eq!(code, 2, "{screen}");
    assert!(files(&signer) == before);
    assert_eq!(run("sign change.json --keys t --yes").0, Some(0));
    assert!(files(&signer) != before);
}

#[test]
fn passphrases_are_asked_for_and_never_shown() {
    let signer = Program::new();
    let secret = "correct horse";
    let make = "key new --out alice/key --passphrase";
    let mut terminal = Terminal::run(&signer, make);
    terminal.shows(": ").types(&format!("{secret}\n")).shows("again: ").types("another\n");
    let (code, screen) = terminal.ends();
    assert_eq!(code, 23, "{screen}");
    assert!(screen.contains("differ"), "{screen}");
    assert!(!signer.path("alice/key.key").exists());

    let mut terminal = Terminal::run(&signer, make);
    terminal.shows(": ").types(&format!("{secret}\n")).shows("again: ");
    terminal.types(&format!("{secret}\n"));
    let (code, screen) = terminal.ends();
    assert_eq!(code, 0, "{screen}");
    assert!(!screen.contains(secret), "{screen}");

    let init = "init --repo oci:repo --keys keys --root-keys alice/key.pub";
    for (typed, expected, said) in [
        (&["wrong\n"; 3][..], 10, "the passphrase is wrong"),
        (&["\n"], 23, "nothing was entered"),
        (&["wrong\n", "correct horse\n"], 0, "trust root"),
    ] {
        let mut terminal = Terminal::run(&signer, init);
        for line in typed {
            terminal.shows("passphrase of alice/key.key: ").types(line);
        }
        let (code, screen) = terminal.ends();
        assert!(code == expected && screen.contains(said), "{typed:?}: {code} {screen}");
        assert!(!screen.contains(secret), "{screen}");
    }
}

/// Interrupted at the prompt, the terminal shows again what is typed.
#[test]
fn an_interrupted_prompt_gives_the_terminal_back() {
    let signer = Program::new();
    let shell = "--version; stty -g; ";
    let make = format!(
        "{shell} {} key new --out alice/key --passphrase; stty -g",
        env!("CARGO_BIN_EXE_signer")
    );
    let mut terminal = Terminal::run(&signer, &make);
    terminal.shows(": ").types("\u{3}");
    let (_, screen) = terminal.ends();
    let settings: Vec<&str> =
        screen.lines().filter(|line| line.matches(':').count() > 10).collect();
    assert_eq!(settings.len(), 2, "{screen}");
    assert_eq!(settings[0], settings[1], "{screen}");
    assert!(!signer.path("alice/key.key").exists());
}

/// Nodes refuse an older release, so that a person means it is asked; nothing else is.
#[test]
fn an_older_release_is_asked_for() {
    let signer = Program::new();
    let at = ["--repo", "oci:repo", "--keys", "keys"];
    signer.json(&[&["init"][..], &at].concat(), 0);
    std::fs::write(signer.path("os.img"), b"an operating system".repeat(1000)).unwrap();
    for version in ["1.0.0", "1.1.0"] {
        let release = ["publish", "--product", "demo", "--version", version, "--channel", "stable"];
        signer.json(&[&release[..], &["--component", "os=os.img,hw=cu-v1"], &at].concat(), 0);
    }
    let offered = || signer.json(&["status", "oci:repo"], 0)["channels"][0]["release"].clone();
    let set = |release: &str| {
        let to = "channel set --repo oci:repo --keys keys --product demo --channel stable";
        format!("{to} --release {release}")
    };
    let mut terminal = Terminal::run(&signer, &set("1.0.0"));
    terminal.shows("offers 1.0.0 (normal)").shows("before   1.1.0 (normal)").shows("OLDER");
    terminal.shows("offer the older release? [y/N]").types("n\n");
    let (code, screen) = terminal.ends();
    assert_eq!((code, offered()), (1, "1.1.0".into()), "{screen}");
    assert!(screen.contains("error[declined]"), "{screen}");
    for (arguments, answer, release) in [
        (set("1.0.0"), "y\n", "1.0.0"),
        (set("1.1.0"), "", "1.1.0"),
        (format!("{} --yes", set("1.0.0")), "", "1.0.0"),
    ] {
        let mut terminal = Terminal::run(&signer, &arguments);
        terminal.shows("to be signed: channel demo/stable offers").types(answer);
        let (code, screen) = terminal.ends();
        assert_eq!((code, offered()), (0, release.into()), "{screen}");
        assert_eq!(screen.contains("[y/N]"), !answer.is_empty(), "{screen}");
    }
}
