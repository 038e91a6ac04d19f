//! A program that signs: the way to every key service that has a command line.
//!
//! It gets the bytes to be signed on standard input and writes the signature to standard output:
//! raw, in hexadecimal digits or in base64, of ECDSA as DER or as `r ‖ s`, as key services do. Its standard
//! error is the operator's. What it answers is verified before it is used, so a program that signs
//! with another key does no harm.
//!
//! Where there is no terminal it runs in a process group of its own, which is ended with it. Where
//! there is one it stays in the terminal's group, so that it may ask for a PIN and Ctrl-C reaches it.
//! Nothing that it leaves behind keeps this program waiting. It does not learn where passphrases are.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use formats::digest::unhex;
use formats::tuf::{Key, PublicKey};
use rustix::process::{Pid, Signal, kill_process_group};
use storage::interrupt::Cleanup;

use super::uri::CommandUri;
use super::{KeyError, NEW_PASSPHRASE_FILE, PASSPHRASE_FILE, SigningKey, public};

/// Long enough for somebody to find the button of a token.
const DEADLINE: Duration = Duration::from_secs(300);
/// What a program that has ended may leave in the pipe to read.
const REST: Duration = Duration::from_secs(5);
/// 16 KiB: an RSA signature of 8192 bits in hexadecimal has 2 KiB.
const ANSWER_LIMIT: u64 = 16 << 10;

/// A key behind a program.
pub(super) struct CommandKey {
    key: Key,
    uri: CommandUri,
}

impl CommandKey {
    pub(super) fn new(key: Key, uri: CommandUri) -> Self {
        CommandKey { key, uri }
    }

    fn failed(&self, why: impl Into<String>) -> KeyError {
        KeyError::Command { program: self.uri.program.clone(), why: why.into() }
    }

    fn start(&self, alone: bool) -> Result<Running, KeyError> {
        let mut command = Command::new(&self.uri.program);
        if alone {
            command.process_group(0);
        }
        command
            .args(&self.uri.arguments)
            .env("SIGNER_KEYID", self.key.id().to_string())
            .env_remove(PASSPHRASE_FILE)
            .env_remove(NEW_PASSPHRASE_FILE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map(|child| {
                let cleanup = alone.then(|| Cleanup::group(Pid::from_child(&child)));
                Running { child, alone, cleanup }
            })
            .map_err(|error| self.failed(error.to_string()))
    }

    fn wait(&self, child: &mut Child) -> Result<(), KeyError> {
        let started = Instant::now();
        loop {
            match child.try_wait().map_err(|error| self.failed(error.to_string()))? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.failed(format!("ended with {status}"))),
                None if started.elapsed() > DEADLINE => {
                    return Err(self.failed("did not answer within 5 minutes"));
                }
                None => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    fn signature(&self, message: &[u8], alone: bool) -> Result<Vec<u8>, KeyError> {
        let mut running = self.start(alone)?;
        let (stdin, stdout) = (running.child.stdin.take(), running.child.stdout.take());
        let (Some(mut stdin), Some(stdout)) = (stdin, stdout) else {
            return Err(self.failed("has no standard input or output"));
        };
        let message = message.to_vec();
        // Both directions at once: a program that answers before it has read everything must not
        // block. Neither thread is waited for: one that is stuck ends with this program.
        let no_thread = |_| self.failed("cannot be talked to: cannot start a thread");
        let write = move || stdin.write_all(&message);
        thread::Builder::new().spawn(write).map_err(no_thread)?;
        let pieces = read_apart(stdout).map_err(no_thread)?;
        self.wait(&mut running.child)?;
        // Before the answer is read to its end: a child that was left behind holds the pipe.
        running.end();
        let answer = collect(&pieces);
        if answer.trim_ascii().is_empty() {
            return Err(self.failed("answered nothing"));
        }
        Ok(decoded(&self.key, &answer))
    }
}

fn read_apart(stdout: impl Read + Send + 'static) -> io::Result<Receiver<Vec<u8>>> {
    let (sender, pieces) = channel();
    let read = move || {
        let mut stdout = stdout.take(ANSWER_LIMIT);
        let mut piece = [0; 4096];
        while let Ok(length @ 1..) = stdout.read(&mut piece) {
            if sender.send(piece.get(..length).unwrap_or_default().to_vec()).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().spawn(read)?;
    Ok(pieces)
}

/// What the program wrote, once it has ended. Somebody else may still hold the pipe; then it is
/// what came until now, and whether that is a signature will be seen.
fn collect(pieces: &Receiver<Vec<u8>>) -> Vec<u8> {
    let mut answer = Vec::new();
    while let Ok(piece) = pieces.recv_timeout(REST) {
        answer.extend_from_slice(&piece);
    }
    answer
}

/// A program, and its group where it has one of its own; ended when dropped.
struct Running {
    child: Child,
    alone: bool,
    cleanup: Option<Cleanup>,
}

impl Running {
    fn end(&mut self) {
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        match group {
            // Fails when no process of the group is left.
            Some(group) if self.alone => drop(kill_process_group(group, Signal::KILL)),
            // Fails when it has ended.
            _ => drop(self.child.kill()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
        // Its number is its own until it has been waited for.
        drop(self.cleanup.take());
        // Fails when it was waited for already.
        let _ = self.child.wait();
    }
}

impl SigningKey for CommandKey {
    fn key(&self) -> &Key {
        &self.key
    }

    fn raw_signature(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let terminal = std::fs::File::open("/dev/tty").is_ok();
        self.signature(message, !terminal)
    }
}

/// The signature in an answer: the first of its spellings that has the form of one.
fn decoded(key: &Key, answer: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(answer).unwrap_or_default().trim();
    let base64: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let spellings = [
        unhex(&text.to_ascii_lowercase()),
        STANDARD.decode(base64).ok(),
        Some(answer.to_vec()),
        Some(answer.trim_ascii_end().to_vec()),
    ];
    let shaped = spellings.into_iter().flatten().find_map(|bytes| shaped(key, &bytes));
    // Whatever it is, it will not verify, and that is said.
    shaped.unwrap_or_else(|| answer.to_vec())
}

/// The bytes, if they have the length of a signature of this key; ECDSA as DER.
fn shaped(key: &Key, bytes: &[u8]) -> Option<Vec<u8>> {
    let fits = match key.public() {
        PublicKey::Ed25519(_) => bytes.len() == 64,
        PublicKey::EcdsaP256(_) if bytes.len() == 64 => return public::ecdsa_der(bytes),
        PublicKey::EcdsaP256(_) => {
            matches!(bytes, [0x30, length, ..] if usize::from(*length) + 2 == bytes.len())
        }
        PublicKey::RsaPss(_) => bytes.len() >= 256,
        PublicKey::Unknown => true,
    };
    fits.then(|| bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use formats::digest::hex;

    use super::super::SecretKey;
    use super::*;

    fn program(script: &str) -> (tempfile::TempDir, CommandKey) {
        let dir = tempfile::tempdir().unwrap();
        let key = SecretKey::from_seed(&[3; 32]).key().unwrap();
        let uri = CommandUri {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into(), "sh".into(), shown(dir.path())],
            public: None,
        };
        (dir, CommandKey::new(key, uri))
    }

    fn shown(path: &Path) -> String {
        path.display().to_string()
    }

    /// The child of a program that has ended keeps its output open: it is not waited for, and it is
    /// gone afterwards.
    #[test]
    fn what_a_program_leaves_behind_is_ended() {
        let script =
            "cat >/dev/null; mkfifo $1/alive; (exec 9<>$1/alive; sleep 1000) & printf %0128d 7";
        let (dir, key) = program(script);
        let started = Instant::now();
        let signature = key.signature(b"message", true).unwrap();
        assert!(started.elapsed() < Duration::from_secs(900), "it waited for the child");
        assert_eq!(hex(&signature), format!("{:0128}", 7));
        // Only the child holds this pipe open for reading; a writer gets EPIPE.
        let alive = dir.path().join("alive");
        let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK;
        let gone = || rustix::fs::open(&alive, flags, rustix::fs::Mode::empty()).err();
        while gone() != Some(rustix::io::Errno::NXIO) {
            assert!(started.elapsed() < Duration::from_secs(900), "the child lives");
            thread::yield_now();
        }
    }

    #[test]
    fn a_program_does_not_learn_where_passphrases_are() {
        let (_dir, key) = program("cat >/dev/null; env | grep -c ^SIGNER_ | tr -d '\\n'");
        let only_the_key_id = b"1".to_vec();
        assert_eq!(key.signature(b"message", false).unwrap(), only_the_key_id);
    }

    #[test]
    fn a_signature_is_read_in_every_spelling() {
        let ed = SecretKey::from_seed(&[3; 32]).key().unwrap();
        let generator = format!("02{}", "01".repeat(32));
        let point = (1u8..=255).find_map(|first| {
            let mut point: [u8; 33] = unhex(&generator).unwrap().try_into().unwrap();
            point[1] = first;
            formats::tuf::decompress_p256(&point)
        });
        let p256 = public::p256(&point.unwrap()).unwrap();
        let raw: Vec<u8> = (1..=64).collect();
        let der = public::ecdsa_der(&raw).unwrap();
        for (name, key, bytes, wanted) in [
            ("ed25519", &ed, &raw, &raw),
            ("ECDSA as r and s", &p256, &raw, &der),
            ("ECDSA as DER", &p256, &der, &der),
        ] {
            let base64 = STANDARD.encode(bytes);
            let (start, end) = base64.split_at(40);
            for spelling in [
                bytes.clone(),
                hex(bytes).into_bytes(),
                format!("{}\n", hex(bytes).to_uppercase()).into_bytes(),
                base64.clone().into_bytes(),
                format!("{start}\n{end}\n").into_bytes(),
            ] {
                assert_eq!(&decoded(key, &spelling), wanted, "{name}: {spelling:?}");
            }
        }
        assert_eq!(decoded(&ed, b"no signature"), b"no signature");
    }
}
