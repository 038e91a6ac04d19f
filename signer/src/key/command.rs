//! A program that signs: the way to every key service that has a command line.
//!
//! It gets the bytes to be signed on standard input and writes the signature to standard output,
//! raw or in hexadecimal digits. Its standard error is the operator's. What it answers is verified
//! before it is used, so a program that signs with another key does no harm.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use formats::digest::unhex;
use formats::tuf::Key;

use super::uri::CommandUri;
use super::{KeyError, SigningKey};

/// Long enough for somebody to find the button of a token.
const DEADLINE: Duration = Duration::from_secs(300);
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

    fn start(&self) -> Result<Child, KeyError> {
        Command::new(&self.uri.program)
            .args(&self.uri.arguments)
            .env("SIGNER_KEYID", self.key.id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| self.failed(error.to_string()))
    }

    fn wait(&self, child: &mut Child) -> Result<(), KeyError> {
        let started = Instant::now();
        loop {
            match child.try_wait().map_err(|error| self.failed(error.to_string()))? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.failed(format!("ended with {status}"))),
                None if started.elapsed() > DEADLINE => {
                    // Both fail only when it has just ended.
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(self.failed("did not answer within 5 minutes"));
                }
                None => thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}

impl SigningKey for CommandKey {
    fn key(&self) -> &Key {
        &self.key
    }

    fn raw_signature(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let mut child = self.start()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (Some(mut stdin), Some(stdout)) = (stdin, stdout) else {
            return Err(self.failed("has no standard input or output"));
        };
        let message = message.to_vec();
        // Both directions at once: a program that answers before it has read everything must not
        // block. One that ends without reading has failed by its answer.
        let no_thread = |_| self.failed("cannot be talked to: the system starts no more threads");
        let writer =
            thread::Builder::new().spawn(move || stdin.write_all(&message)).map_err(no_thread)?;
        let reader = thread::Builder::new()
            .spawn(move || {
                let mut answer = Vec::new();
                stdout.take(ANSWER_LIMIT).read_to_end(&mut answer).map(|_| answer)
            })
            .map_err(no_thread)?;
        self.wait(&mut child)?;
        let _ = writer.join();
        let answer = match reader.join() {
            Ok(Ok(answer)) => answer,
            _ => return Err(self.failed("its answer cannot be read")),
        };
        let text = std::str::from_utf8(&answer).map(str::trim);
        let signature = text.ok().and_then(|text| unhex(&text.to_ascii_lowercase()));
        let signature = signature.unwrap_or(answer);
        if signature.is_empty() { Err(self.failed("answered nothing")) } else { Ok(signature) }
    }
}
