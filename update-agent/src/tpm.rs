//! A counter in a TPM 2.0 that can only rise: the kernel's resource manager (`/dev/tpmrm0`), or a
//! socket that speaks the same (`swtpm`). The commands and the forms of a counter are in
//! [`formats::tpm`].
//!
//! ```text
//!  make    delete what is ours ─► define the counter with its secret ─► increment ─► define its mark
//!  look    two ReadPublic ─► read with the secret: it is ours ─┬─ refused: read as everybody may
//!  raise   increment × n, one command each; each is durable in the TPM when it answers
//!  lock    nobody counts before the machine restarts
//! ```
//! After a crash the counter stands where the last answered command left it, or one further. A counter
//! without a mark, or a mark without a counter, is one whose making was cut.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use formats::reason::Reason;
use formats::tpm::{
    Command, Form, HEADER_LEN, Mark, Public, RESPONSE_LIMIT, Shape, TpmError, parse_bare,
    parse_counter, parse_done, parse_session, response_len,
};
use update_core::floor::{Hold, Tpm};

use crate::error::chain_of;

/// 20 s: the slowest command here writes a few bytes of flash, which takes a tenth of a second.
const TIMEOUT: Duration = Duration::from_secs(20);
/// A TPM that is busy is asked again so often, a little later each time: 12.75 s in all.
const BUSY_LIMIT: u32 = 50;

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
    /// There is nothing to make a counter with.
    #[error("no secret was drawn for the TPM's counter")]
    NoSecret,
    /// A new counter does not count.
    #[error("the TPM counted to {found} instead of {expected}")]
    Miscounted {
        /// What was expected.
        expected: u64,
        /// What it said.
        found: u64,
    },
}

impl CounterError {
    /// The stable reason.
    pub fn reason(&self) -> Reason {
        Reason::FloorLost
    }
}

/// What lies under the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing, or a counter of ours whose making was cut.
    Nothing,
    /// A counter of ours.
    Counter {
        /// What its beginning stands for.
        mark: Mark,
        /// Its value.
        value: u64,
        /// Who may count in it.
        hold: Hold,
        /// Whether nobody counts in it before the machine restarts.
        locked: bool,
    },
}

/// A counter of a TPM, open.
#[derive(Debug)]
pub struct Counter {
    stream: Stream,
    path: PathBuf,
    index: u32,
    keys: Keys,
}

/// What a TPM wants to know before it does something for somebody.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Keys {
    /// The owner's password, to make and delete indices; empty on most machines.
    pub owner: Vec<u8>,
    /// The password of a guarded counter; `None` for who reads only.
    pub secret: Option<Vec<u8>>,
}

/// Asks the TPM for the counter; a TPM that does not answer is [`Tpm::Unusable`].
pub(crate) fn observe(counter: &mut Counter) -> Tpm {
    match counter.look() {
        Ok(Found::Nothing) => Tpm::NoCounter,
        Ok(Found::Counter { mark, value, hold, .. }) => Tpm::Counter { mark, value, hold },
        Err(error) => Tpm::Unusable(chain_of(&error)),
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

#[derive(Debug)]
enum Stream {
    Node(File),
    Socket(UnixStream),
}

impl Counter {
    /// Opens the TPM.
    pub fn open(path: &Path, index: u32, keys: Keys) -> Result<Self, CounterError> {
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
        Ok(Counter { stream, path: path.to_owned(), index, keys })
    }

    /// What lies under the index, and whether it knows our secret.
    pub fn look(&mut self) -> Result<Found, CounterError> {
        let index = self.index;
        let Some(public) = self.public(index)? else { return Ok(Found::Nothing) };
        let form = public.counter().ok_or(CounterError::Foreign(index))?;
        let mark = match form {
            Form::Open(mark) => Some(mark),
            Form::Guarded => self.mark_beside()?,
        };
        let (Some(mark), true) = (mark, public.is_written()) else { return Ok(Found::Nothing) };
        let (value, hold) = match form {
            Form::Open(_) => (self.read_as(&[])?, Hold::Open),
            Form::Guarded => self.read_guarded()?,
        };
        Ok(Found::Counter { mark, value, hold, locked: public.is_locked() })
    }

    /// Makes a guarded counter with our secret, standing for the floor `origin`. What lies there
    /// already and is ours is deleted first; what is somebody else's is not touched.
    ///
    /// A crash leaves what was there, or a counter that [`Counter::look`] takes for none.
    pub fn make(&mut self, origin: u64) -> Result<(Mark, u64), CounterError> {
        let (index, beside) = (self.index, self.beside());
        let counter = self.public(index)?;
        if counter.as_ref().is_some_and(|public| public.counter().is_none()) {
            return Err(CounterError::Foreign(index));
        }
        let mark = self.public(beside)?;
        if mark.as_ref().is_some_and(|public| public.mark().is_none()) {
            return Err(CounterError::Foreign(beside));
        }
        let Keys { owner, secret } = self.keys.clone();
        let secret = secret.ok_or(CounterError::NoSecret)?;
        for index in [mark.map(|_| beside), counter.map(|_| index)].into_iter().flatten() {
            parse_done(&self.call(Command::Undefine { index, owner: &owner })?)?;
        }
        let shape = Shape::Counter(&secret);
        parse_done(&self.call(Command::Define { index, shape, owner: &owner })?)?;
        parse_done(&self.call(Command::Increment { index, secret: &secret })?)?;
        // A TPM that had counters before begins above all of them.
        let base = self.read_as(&secret)?;
        let mark = Mark { base, origin };
        let shape = Shape::Mark(mark);
        parse_done(&self.call(Command::Define { index: beside, shape, owner: &owner })?)?;
        Ok((mark, base))
    }

    /// Counts up by `steps`; gives the value reached.
    pub fn raise(&mut self, from: u64, steps: u64, hold: Hold) -> Result<u64, CounterError> {
        let index = self.index;
        let secret = match hold {
            Hold::Open => Vec::new(),
            Hold::Own | Hold::Unknown => self.keys.secret.clone().unwrap_or_default(),
        };
        for _ in 0..steps {
            parse_done(&self.call(Command::Increment { index, secret: &secret })?)?;
        }
        let found = self.read_as(&secret)?;
        let expected = from.saturating_add(steps);
        // Further than expected: another program, or a command that was cut and did count.
        if found < expected {
            return Err(CounterError::Miscounted { expected, found });
        }
        Ok(found)
    }

    /// Nobody counts in it before the machine restarts. Done twice it is done once.
    pub fn lock(&mut self) -> Result<(), CounterError> {
        let (index, secret) = (self.index, self.keys.secret.clone().unwrap_or_default());
        Ok(parse_done(&self.call(Command::Lock { index, secret: &secret })?)?)
    }

    /// The index that carries a guarded counter's mark.
    fn beside(&self) -> u32 {
        // The configuration leaves room for it.
        self.index.saturating_add(1)
    }

    fn mark_beside(&mut self) -> Result<Option<Mark>, CounterError> {
        let beside = self.beside();
        match self.public(beside)? {
            None => Ok(None),
            Some(public) => Ok(Some(public.mark().ok_or(CounterError::Foreign(beside))?)),
        }
    }

    fn public(&mut self, index: u32) -> Result<Option<Public>, CounterError> {
        let answer = self.call(Command::ReadPublic { index })?;
        match Public::parse(&answer, index) {
            Ok(public) => Ok(Some(public)),
            Err(TpmError::NoIndex) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The value, and whether the counter let us in.
    fn read_guarded(&mut self) -> Result<(u64, Hold), CounterError> {
        if let Some(secret) = self.keys.secret.clone() {
            match self.read_as(&secret) {
                Err(CounterError::Tpm(TpmError::Auth(_))) => {}
                read => return Ok((read?, Hold::Own)),
            }
        }
        Ok((self.read_by_policy()?, Hold::Unknown))
    }

    fn read_as(&mut self, secret: &[u8]) -> Result<u64, CounterError> {
        let index = self.index;
        Ok(parse_counter(&self.call(Command::Read { index, secret })?)?)
    }

    /// As everybody may.
    fn read_by_policy(&mut self) -> Result<u64, CounterError> {
        let index = self.index;
        let session = parse_session(&self.call(Command::StartReading)?)?;
        let read = self.call(Command::AllowReading { session }).and_then(|answer| {
            parse_bare(&answer)?;
            Ok(parse_counter(&self.call(Command::ReadBy { session, index })?)?)
        });
        if read.is_err() {
            // A command that succeeded has ended it; the kernel ends those of a closed device.
            let _ended = self.call(Command::End { session });
        }
        read
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
