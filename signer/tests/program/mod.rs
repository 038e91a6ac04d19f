//! The real `signer` in a folder of its own, and tokens of SoftHSM.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// `signer` with a folder and an environment.
pub struct Program {
    temp: tempfile::TempDir,
    env: BTreeMap<String, String>,
}

impl Program {
    pub fn new() -> Self {
        Program { temp: tempfile::tempdir().unwrap(), env: BTreeMap::new() }
    }

    pub fn dir(&self) -> &Path {
        self.temp.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.env.insert(name.to_owned(), value.to_owned());
    }

    pub fn unset(&mut self, name: &str) {
        self.env.remove(name);
    }

    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.temp.path())
            .args(arguments)
            .env_remove("RUST_LOG")
            .env_remove("SIGNER_PASSPHRASE_FILE")
            .envs(&self.env)
            .stdin(Stdio::null());
        command
    }

    /// Runs it with `--json`.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let arguments = [arguments, &["--json"]].concat();
        self.command(env!("CARGO_BIN_EXE_signer"), &arguments).output().unwrap()
    }

    /// Runs it for people.
    pub fn text(&self, arguments: &[&str]) -> String {
        let output = self.command(env!("CARGO_BIN_EXE_signer"), arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that must end with that code, and gives its JSON.
    #[track_caller]
    pub fn json(&self, arguments: &[&str], code: i32) -> serde_json::Value {
        checked(self.run(arguments), arguments, code)
    }

    /// The same in a session without a controlling terminal.
    #[track_caller]
    pub fn without_terminal(&self, arguments: &[&str], code: i32) -> serde_json::Value {
        let all = [&[env!("CARGO_BIN_EXE_signer")], arguments, &["--json"]].concat();
        let all = [&["--wait"][..], &all].concat();
        checked(self.command("setsid", &all).output().unwrap(), arguments, code)
    }
}

#[track_caller]
fn checked(output: Output, arguments: &[&str], code: i32) -> serde_json::Value {
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{out}\n{err}");
    let value: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(value["ok"], code == 0, "{arguments:?}\n{out}");
    value
}

/// A file that only its owner can reach.
pub fn write_private(path: &Path, text: &str) {
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.unwrap().write_all(text.as_bytes()).unwrap();
}

/// Tokens in a folder, and the files with their PIN.
pub struct SoftHsm;

impl SoftHsm {
    /// SoftHSM tokens of these labels in the program's folder.
    pub fn new(program: &mut Program, tokens: &[&str]) -> Self {
        let store = program.path("tokens");
        std::fs::create_dir(&store).unwrap();
        let conf = format!("directories.tokendir = {}\nlog.level = ERROR\n", store.display());
        std::fs::write(program.path("softhsm2.conf"), conf).unwrap();
        let conf = program.path("softhsm2.conf").display().to_string();
        program.set("SOFTHSM2_CONF", &conf);
        write_private(&program.path("pin"), "1234\n");
        write_private(&program.path("bad-pin"), "4321\n");
        for label in tokens {
            let init = ["--init-token", "--free", "--label", label, "--pin", "1234"];
            let init = [&init[..], &["--so-pin", "5678"]].concat();
            let output = program.command("softhsm2-util", &init).output();
            let output = output.expect("softhsm2-util: install softhsm2 (`cargo xtask setup`)");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        SoftHsm
    }

    pub fn uri(&self, token: &str, object: &str) -> String {
        self.uri_with(token, object, "pin")
    }

    pub fn uri_with(&self, token: &str, object: &str, pin: &str) -> String {
        let module = "/usr/lib/softhsm/libsofthsm2.so";
        format!("pkcs11:token={token};object={object}?module-path={module}&pin-source={pin}")
    }
}
