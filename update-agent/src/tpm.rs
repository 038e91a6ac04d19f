//! A counter in a TPM 2.0 that can only rise: the kernel's resource manager (`/dev/tpmrm0`), or a
//! socket that speaks the same (`swtpm`). The commands are in [`formats::tpm`].
//!
//! ```text
//!  make    look ─► no index ─► define (mark) ─► increment ─► value is the mark's base?  no: delete, again
//!  raise   increment × n, one command each; each is durable in the TPM when it answers
//! ```
//! After a crash the counter stands where the last answered command left it, or one further.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use formats::tpm::{
    Command, HEADER_LEN, Mark, Public, RESPONSE_LIMIT, TpmError, parse_counter, parse_done,
    response_len,
};

/// 20 s: the slowest command here writes a few bytes of flash, which takes a tenth of a second.
const TIMEOUT: Duration = Duration::from_secs(20);
/// A TPM that is busy is asked again so often, a little later each time: 12.75 s in all.
const BUSY_LIMIT: u32 = 50;
/// How often a new counter may begin elsewhere than foretold, because another program counts.
const MAKE_LIMIT: u32 = 4;

/// Why the counter cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CounterError {
    /// There is no TPM, or it cannot be talked to.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The device or socket.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The TPM refuses.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// Its index is somebody else's.
    #[error("index 0x{0:08x} belongs to another program; set floor.tpm_index")]
    Foreign(u32),
    /// A new counter did not begin where it was foretold, several times.
    #[error("other programs make counters in this TPM at the same time; try again")]
    Contended,
    /// A new counter does not count.
    #[error("the TPM counted to {found} instead of {expected}")]
    Miscounted {
        /// What was expected.
        expected: u64,
        /// What it said.
        found: u64,
    },
}

/// What lies under the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A counter of ours whose making was cut: it has no value yet.
    Fresh,
    /// A counter of ours.
    Counter {
        /// What its beginning stands for.
        mark: Mark,
        /// Its value.
        value: u64,
    },
}

/// A counter of a TPM, open.
#[derive(Debug)]
pub struct Counter {
    stream: Stream,
    path: PathBuf,
    index: u32,
    owner: Vec<u8>,
}

#[derive(Debug)]
enum Stream {
    Node(File),
    Socket(UnixStream),
}

impl Counter {
    /// Opens the TPM. `owner` is the owner's password, empty on most machines.
    pub fn open(path: &Path, index: u32, owner: Vec<u8>) -> Result<Self, CounterError> {
        let failed = |source| CounterError::Io { action: "open", path: path.to_owned(), source };
        let kind = std::fs::metadata(path).map_err(failed)?.file_type();
        let stream = if kind.is_socket() {
            let socket = UnixStream::connect(path).map_err(failed)?;
            socket.set_read_timeout(Some(TIMEOUT)).map_err(failed)?;
            socket.set_write_timeout(Some(TIMEOUT)).map_err(failed)?;
            Stream::Socket(socket)
        } else if kind.is_char_device() {
            let flags = i32::try_from(rustix::fs::OFlags::NOCTTY.bits()).unwrap_or(0);
            let node = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
            Stream::Node(node.map_err(failed)?)
        } else {
            return Err(failed(io::Error::other("it is neither a TPM device nor a socket")));
        };
        Ok(Counter { stream, path: path.to_owned(), index, owner })
    }

    /// What lies under the index.
    pub fn look(&mut self) -> Result<Found, CounterError> {
        let index = self.index;
        let answer = self.call(Command::ReadPublic { index })?;
        let public = match Public::parse(&answer, index) {
            Ok(public) => public,
            Err(TpmError::NoIndex) => return Ok(Found::Nothing),
            Err(error) => return Err(error.into()),
        };
        let Some(mark) = public.mark() else { return Err(CounterError::Foreign(index)) };
        if !public.is_written() {
            return Ok(Found::Fresh);
        }
        let value = parse_counter(&self.call(Command::Read { index })?)?;
        Ok(Found::Counter { mark, value })
    }

    /// Makes the counter, standing for the floor `origin`. What lies there already and is ours is
    /// deleted first.
    pub fn make(&mut self, origin: u64) -> Result<(Mark, u64), CounterError> {
        let index = self.index;
        let mut base = 1;
        for _ in 0..MAKE_LIMIT {
            if self.look()? != Found::Nothing {
                let owner = self.owner.clone();
                parse_done(&self.call(Command::Undefine { index, owner: &owner })?)?;
            }
            let mark = Mark { base, origin };
            let owner = self.owner.clone();
            parse_done(&self.call(Command::Define { index, mark, owner: &owner })?)?;
            parse_done(&self.call(Command::Increment { index })?)?;
            let value = parse_counter(&self.call(Command::Read { index })?)?;
            if value == base {
                return Ok((mark, value));
            }
            // A TPM that had counters before begins above all of them.
            base = value.saturating_add(1);
        }
        Err(CounterError::Contended)
    }

    /// Counts up by `steps`; gives the value reached.
    pub fn raise(&mut self, from: u64, steps: u64) -> Result<u64, CounterError> {
        let index = self.index;
        for _ in 0..steps {
            parse_done(&self.call(Command::Increment { index })?)?;
        }
        let found = parse_counter(&self.call(Command::Read { index })?)?;
        let expected = from.saturating_add(steps);
        // Further than expected: another program, or a command that was cut and did count.
        if found < expected {
            return Err(CounterError::Miscounted { expected, found });
        }
        Ok(found)
    }

    /// Sends a command; asks again while the TPM is busy.
    fn call(&mut self, command: Command<'_>) -> Result<Vec<u8>, CounterError> {
        let bytes = command.to_bytes();
        for nth in 1..=BUSY_LIMIT {
            let answer = self.exchange(&bytes)?;
            if !matches!(parse_done(&answer), Err(TpmError::Busy)) {
                return Ok(answer);
            }
            std::thread::sleep(Duration::from_millis(u64::from(nth) * 10));
        }
        Err(TpmError::Busy.into())
    }

    fn exchange(&mut self, command: &[u8]) -> Result<Vec<u8>, CounterError> {
        let path = &self.path;
        let failed = |action| move |source| CounterError::Io { action, path: path.clone(), source };
        match &mut self.stream {
            // The driver takes a command in one write and gives its answer in one read.
            Stream::Node(node) => {
                let written = node.write(command).map_err(failed("write"))?;
                if written != command.len() {
                    return Err(failed("write")(io::ErrorKind::WriteZero.into()));
                }
                let mut answer = vec![0; RESPONSE_LIMIT];
                let len = node.read(&mut answer).map_err(failed("read"))?;
                answer.truncate(len);
                Ok(answer)
            }
            Stream::Socket(socket) => {
                socket.write_all(command).map_err(failed("write"))?;
                let mut header = [0; HEADER_LEN];
                socket.read_exact(&mut header).map_err(failed("read"))?;
                let mut answer = header.to_vec();
                answer.resize(response_len(&header)?, 0);
                if let Some(rest) = answer.get_mut(HEADER_LEN..) {
                    socket.read_exact(rest).map_err(failed("read"))?;
                }
                Ok(answer)
            }
        }
    }
}
