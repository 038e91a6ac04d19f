//! Where passphrases and PINs come from: a private file or the terminal. Never an argument or a
//! variable, which every process of the user can read.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::{KeyError, file};

/// Names the file with the passphrase of the keys at hand.
pub const PASSPHRASE_FILE: &str = "SIGNER_PASSPHRASE_FILE";
/// Names the file with the passphrase a key is to get (`key passphrase`).
pub const NEW_PASSPHRASE_FILE: &str = "SIGNER_NEW_PASSPHRASE_FILE";

/// 1 KiB: longer than any sentence; bounds what a wrong path makes us read.
const LIMIT: usize = 1024;

/// Where a secret is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unlock {
    /// The first line of a file that only its owner can reach.
    File(PathBuf),
    /// The controlling terminal, without echo.
    Terminal,
}

impl Unlock {
    /// The file that the variable names, otherwise the terminal.
    pub fn from_env(variable: &str) -> Self {
        match std::env::var_os(variable) {
            Some(path) => Unlock::File(path.into()),
            None => Unlock::Terminal,
        }
    }

    /// The secret. `what` says whose it is.
    pub fn ask(&self, what: &str) -> Result<Zeroizing<String>, KeyError> {
        match self {
            Unlock::File(path) => read_secret_line(path, "passphrase"),
            Unlock::Terminal => prompt(what),
        }
    }

    /// A secret to protect something with: from the terminal it is asked for twice.
    pub fn ask_new(&self, what: &str) -> Result<Zeroizing<String>, KeyError> {
        let first = self.ask(what)?;
        if *self == Unlock::Terminal && prompt(&format!("{what}, again"))? != first {
            return Err(KeyError::NoPassphrase("the two differ".to_owned()));
        }
        Ok(first)
    }
}

/// The first line of a private file, or of a pipe: `<(pass show x)`, `/dev/stdin`.
pub(super) fn read_secret_line(
    path: &Path,
    what: &'static str,
) -> Result<Zeroizing<String>, KeyError> {
    let line = file::read_private_line(path, what)?;
    if line.len() > LIMIT {
        let why = format!("{}: its first line has more than 1024 bytes", path.display());
        return Err(KeyError::NoPassphrase(why));
    }
    Ok(line)
}

/// Asks on the controlling terminal, whatever standard input is.
fn prompt(what: &str) -> Result<Zeroizing<String>, KeyError> {
    let refused = |error: io::Error| {
        let why = format!("{what}: no terminal ({error}); set {PASSPHRASE_FILE} to a file");
        KeyError::NoPassphrase(why)
    };
    let mut tty = File::options().read(true).write(true).open("/dev/tty").map_err(refused)?;
    let before = tcgetattr(&tty).map_err(|error| refused(error.into()))?;
    let mut silent = before.clone();
    // Ctrl-C comes as a byte, too: a signal would end us before the terminal is given back.
    silent.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
    silent.special_codes[SpecialCodeIndex::VMIN] = 1;
    silent.special_codes[SpecialCodeIndex::VTIME] = 0;
    tcsetattr(&tty, OptionalActions::Flush, &silent).map_err(|error| refused(error.into()))?;
    let asked = write!(tty, "{what}: ").and_then(|()| tty.flush());
    let line = asked.and_then(|()| read_line(&mut tty));
    let _ = writeln!(tty);
    // The terminal is given back whatever happened.
    tcsetattr(&tty, OptionalActions::Flush, &before).map_err(|error| refused(error.into()))?;
    let line = line.map_err(|error| KeyError::NoPassphrase(format!("{what}: {error}")))?;
    if line.is_empty() {
        return Err(KeyError::NoPassphrase(format!("{what}: nothing was entered")));
    }
    Ok(line)
}

/// A line, with the keys that people know from every other prompt.
fn read_line(tty: &mut impl Read) -> io::Result<Zeroizing<String>> {
    const ETX: u8 = 3; // Ctrl-C
    const EOT: u8 = 4; // Ctrl-D
    const NAK: u8 = 21; // Ctrl-U
    const FS: u8 = 28; // Ctrl-\
    let mut line = Zeroizing::new(Vec::with_capacity(LIMIT));
    let mut byte = [0];
    while line.len() < LIMIT && tty.read(&mut byte)? == 1 {
        match byte[0] {
            b'\n' | b'\r' | EOT => break,
            ETX | FS => return Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted")),
            NAK => line.clear(),
            // Backspace takes a character, of however many bytes.
            0x7f | 0x08 => while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
            other => line.push(other),
        }
    }
    let text = std::str::from_utf8(&line).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_edited_before_it_ends() {
        let read = |bytes: &[u8]| read_line(&mut &*bytes).map(|line| line.as_str().to_owned());
        for (name, typed, expected) in [
            ("plain", &b"horse\nmore"[..], "horse"),
            ("no end of line", b"horse", "horse"),
            ("Ctrl-D", b"horse\x04x\n", "horse"),
            ("backspace", b"horze\x7f\x7fse\n", "horse"),
            ("backspace over an umlaut", "pfä\x08erd\n".as_bytes(), "pferd"),
            ("backspace at the start", b"\x7fhorse\r", "horse"),
            ("Ctrl-U", b"wrong\x15horse\n", "horse"),
        ] {
            assert_eq!(read(typed).unwrap(), expected, "{name}");
        }
        assert_eq!(read(b"hor\x03se\n").unwrap_err().kind(), io::ErrorKind::Interrupted);
        assert_eq!(read(b"\xff\n").unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(read(&[b'x'; 5000]).unwrap().len() <= LIMIT);
    }
}
